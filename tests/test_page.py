"""compare.html as its reader has it, in a real browser: what it shows, what a click does, what it never loads."""

import base64
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from urllib.parse import quote

import browser
import pytest
from test_comparison import left, node

from scorelab.app.compare import asked, compared, differing, main, read
from scorelab.comparison.page import write_page
from scorelab.comparison.payload import payload
from scorelab.comparison.runs import Run
from scorelab.comparison.statistics import paired

pytestmark = pytest.mark.skipif(browser.found() is None and browser.NEEDED not in os.environ, reason=browser.MISSING)
EVIL = '</script><script>window.broken=1</script><img src=x onerror="window.broken=2"><b>bold</b>'
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
LOSSES = ("simple", "vlb", "dsm")


def one(folder: Path, loss: str, schedule: str, seed: int, points: int = 30, more: str = "", **config: Any) -> Path:
    """A run with all that a page shows."""
    level = [*LOSSES, "min_snr"].index(loss)
    base = (
        (1.3 if more else 1.0)
        + level
        + (0.2 + 0.002 * seed if schedule == "linear" else 0.0)
        + 0.01 * (1 + level) * seed**2
    )
    log_snr = [round(-12 + 0.6 * place, 3) for place in range(40)]
    fid = {"n": 100, "reference": "train split", "network_evaluations_per_sample": 50}
    records = {
        "fid": fid,
        "simple": {"log_snr": log_snr, "error": [None, *[base * 2.0 ** (-abs(at)) for at in log_snr[1:]]]},
    }
    metrics = {"test/simple": base, "test/fid": 20 - 2 * base, "test/vlb_common": base + 1, "val/simple": base}
    metrics |= {f"test/objective_{name}": base * (1 + LOSSES.index(name)) for name in LOSSES}
    config = {
        "loss": node("loss", loss),
        "schedule": node("schedule", schedule),
        "data": node("data", "digits"),
        "seed": seed,
        "init_from": EVIL if loss == "dsm" else None,
        **config,
    }
    place = folder / f"loss-{loss}_schedule-{schedule}_seed-{seed}{more}"
    left(place, Run(str(place), place.name, config, metrics, records))
    lines = [f"{10 * step},{5 + seed},{base + 3 / step}" for step in range(1, points + 1)]
    (place / "metrics.csv").write_text("step,train/it_per_s,val/simple\n" + "\n".join(lines) + "\n")
    card = [f"{i},{-i / 2},{-i / 2 - 0.5},{1.0 + i},{(1.0 + i) / 2}" for i in range(20)]
    (place / "card.csv").write_text("# a note\nstep,log_snr_high,log_snr_low,density,mass\n" + "\n".join(card) + "\n")
    (place / "samples").mkdir()
    for step in (100, 200):
        (place / "samples" / f"step_{step:07d}.png").write_bytes(PIXEL + bytes([step]))
    return place


def changed(place: Path, **parts: Any) -> None:
    """A run with other words in its metrics.json: metrics and records one by one; None takes one away."""
    content = json.loads((place / "metrics.json").read_text())
    for part, value in parts.items():
        if isinstance(value, dict):
            merged = {**content[part], **value}
            content[part] = {key: each for key, each in merged.items() if each is not None}
        else:
            content[part] = value
    (place / "metrics.json").write_text(json.dumps(content))


def written(folder: Path) -> Path:
    """The page of the runs in a folder, without all else that the command writes."""
    found = compared(read([folder]), asked([]))
    write_page(folder / "compare.html", payload(found, "odd runs", differing(found, ("seed",))))
    return folder / "compare.html"


def by_seed(folder: Path, loss: str, schedule: str, value: Callable[[dict], float | None]) -> list[float]:
    """What the runs of a configuration have, from their files; runs that repeat a seed by their mean."""
    found: dict[int, list[float]] = {}
    for file in sorted(folder.glob(f"loss-{loss}_schedule-{schedule}_*/metrics.json")):
        content = json.loads(file.read_text())
        if (each := value(content)) is not None:
            found.setdefault(content["config"]["seed"], []).append(each)
    return [fmean(values) for values in found.values()]


def mean_and_error(values: list[float]) -> list[float]:
    return [fmean(values), stdev(values) / math.sqrt(len(values))]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / EVIL.replace("/", "_")[:40]
    for loss in LOSSES:
        for schedule in ("cosine", "linear"):
            for seed in range(3):
                one(folder, loss, schedule, seed)
    main([str(folder)])
    return folder / "compare.html"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made = browser.started(tmp_path_factory.mktemp("browser"))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs as they are: seeds missing, repeated, of other lengths, failed; another data set; evaluated again."""
    folder = tmp_path_factory.mktemp("odd")
    for seed in range(3):
        for loss in ("simple", "vlb"):
            place = one(folder, loss, "cosine", seed, points=30 if loss == "simple" else 900 + 7 * seed)
            log_snr, errors = [float(at) for at in range(6)], [None if at == seed else 1.0 + seed for at in range(6)]
            changed(place, time_limited=loss == "vlb", records={"simple": {"log_snr": log_snr, "error": errors}})
        place = one(folder, "dsm", "cosine", seed)
        changed(place, metrics={"test/fid": 0.5 if seed == 0 else None, "test/objective_constructor": 1.0})
        text = "step,train/loss,val/simple\n" + "".join(f"{10 * k},{3 - k},{2 + seed / k}\n" for k in range(1, 9))
        (place / "metrics.csv").write_text(text)
        changed(one(folder, "min_snr", "cosine", seed), metrics={"test/fid": None})
        one(folder, "simple", "linear", seed, data=node("data", "moons"))
    one(folder, "simple", "cosine", 1, more="again")
    changed(folder / "loss-min_snr_schedule-cosine_seed-0", status="failed", reason="out of <b>memory</b>")
    own = folder / "loss-simple_schedule-cosine_seed-0"
    config = json.loads((own / "metrics.json").read_text())["config"]
    for name, sampler, cost in (("a", None, 100), ("b", None, 100), ("c", "DDPM", 100), ("d", None, 50)):
        record = {"n": 100, "reference": "train split", "network_evaluations_per_sample": cost, "sampler": sampler}
        place = own / "eval" / name
        left(place, Run(str(place), name, config, {"test/fid": 10.0 + ord(name)}, {"fid": record}))
    return written(folder)


@pytest.fixture
def seen(window: Any, page: Path) -> Iterator[Any]:
    """The page, open; at the end its console and its network are looked at."""
    yield from watched(window, page)


@pytest.fixture
def seen_odd(window: Any, odd: Path) -> Iterator[Any]:
    yield from watched(window, odd)


def opened(window: Any, page: Path, view: str = "") -> Any:
    window.get("about:blank")
    window.get(page.as_uri() + view)
    until(lambda: window.execute_script("return document.documentElement.dataset.ready"))
    return window


def watched(window: Any, page: Path) -> Iterator[Any]:
    window.get_log("browser"), window.get_log("performance")
    window.set_window_size(1200, 900)
    yield opened(window, page)
    assert [entry for entry in window.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    asked = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    sent = [each["params"] for each in asked if each["method"] == "Network.requestWillBeSent"]
    urls = [each["request"]["url"] for each in sent if not each["documentURL"].startswith("chrome")]  # its own new tab
    assert {url.partition(":")[0] for url in urls} <= {"file", "data", "blob", "about"}
    assert window.execute_script("return window.broken") is None


def until(met: Callable[[], Any], seconds: float = 10) -> Any:
    end = time.monotonic() + seconds
    while not (value := met()):
        assert time.monotonic() < end, "never came"
        time.sleep(0.05)
    return value


def column(window: Any, number: str) -> list[str]:
    script = "return [...document.querySelectorAll(`td[data-number='${arguments[0]}']`)].map(e => e.textContent)"
    return window.execute_script(script, number)


def drawn(window: Any, figure: str, meta: str | None = None) -> list[dict]:
    """A figure's traces, once it has been scrolled to and drawn: those of rows, its ``key``, or the ``front``."""
    window.execute_script("document.getElementById('plot-' + arguments[0]).scrollIntoView({block: 'center'})", figure)
    script = """const figure = FIGURES.find((each) => each.id === arguments[0]);
    return figure.plot.data && !figure.stale ? JSON.stringify(figure.plot.data) : null"""
    return [
        each for each in json.loads(until(lambda: window.execute_script(script, figure))) if each.get("meta") == meta
    ]


def named(traces: list[dict], name: str) -> dict:
    return next(each for each in traces if each.get("name") == name)


def told(window: Any, figure: str) -> str:
    return window.execute_script("return document.getElementById('told-' + arguments[0]).textContent", figure)


def switch(window: Any, state: str, value: str) -> None:
    script = """const e = document.querySelector(`[data-state='${arguments[0]}']`);
    e.value = arguments[1];
    e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input'));"""
    window.execute_script(script, state, value)


MARK = "return performance.getEntriesByName(arguments[0])[0].startTime"
CONTRAST = """
const light = (css) => {
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = css.match(/\\d+/g).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const back = light(getComputedStyle(document.body).backgroundColor);
const found = ["td", ".told", "h2", "td.aside"].map((at) => {
  const ink = light(getComputedStyle(document.querySelector(at)).color);
  return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
});
return Math.min(...found);
"""


def test_the_table_stands_best_first_with_its_star_and_sorts_both_ways(seen: Any) -> None:
    values = column(seen, "test/simple")
    assert len(values) == 6 and values[0].endswith("*") and values[0].startswith("1.017 ± ")
    head = seen.find_element("css selector", "button[data-sort='test/fid']")
    head.click()
    rising = [float(value.split()[0]) for value in column(seen, "test/fid")]
    assert rising == sorted(rising)
    seen.find_element("css selector", "button[data-sort='test/fid']").click()
    assert [float(value.split()[0]) for value in column(seen, "test/fid")] == rising[::-1]
    sort = seen.execute_script(
        "return document.querySelector(\"button[data-sort='test/fid']\").parentElement.getAttribute('aria-sort')"
    )
    assert sort == "descending"


def test_it_sorts_by_the_keyboard_and_keeps_the_focus(seen: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    seen.execute_script("document.querySelector(\"button[data-sort='key:loss']\").focus()")
    seen.switch_to.active_element.send_keys(Keys.ENTER)
    losses = seen.execute_script(
        "return [...document.querySelectorAll('tbody tr')].slice(0, 6).map(e => e.children[1].textContent)"
    )
    assert losses == sorted(losses)
    assert seen.switch_to.active_element.get_attribute("data-sort") == "key:loss"


def test_words_filter_rows_and_figures_alike(seen: Any) -> None:
    seen.find_element("id", "filter").send_keys("loss=vlb linear")
    assert len(column(seen, "test/simple")) == 1
    names = {trace["name"] for trace in drawn(seen, "curves") if "name" in trace}
    assert names == {"loss=vlb schedule=linear"}


def test_a_value_of_the_table_is_that_of_the_chart(seen: Any) -> None:
    switch(seen, "pareto.x", "test/simple")
    switch(seen, "pareto.y", "test/fid")
    (trace,) = (each for each in drawn(seen, "pareto") if each.get("name") == "loss=vlb schedule=cosine")
    line = "return [...document.querySelectorAll('tbody tr')].find(e => e.textContent.includes('vlbcosine'))"
    row = seen.execute_script(f"{line}.querySelector(\"td[data-number='test/simple']\").textContent")
    assert float(row.split()[0]) == pytest.approx(trace["x"][0], abs=5e-4)
    assert trace["error_x"]["array"][0] == pytest.approx(float(row.split()[2]), abs=5e-4)


def test_curves_have_thin_seeds_under_their_mean_and_an_axis_of_images_or_seconds(seen: Any) -> None:
    traces = drawn(seen, "curves")
    mean = next(each for each in traces if each.get("name") == "loss=simple schedule=cosine")
    thin = [
        each
        for each in traces
        if each["line"]["color"] == mean["line"]["color"]
        and each["line"]["dash"] == mean["line"]["dash"]
        and each["line"]["width"] < 1
    ]
    assert len(thin) == 3 and mean["x"][-1] == 300
    assert mean["y"][4] == pytest.approx(sum(each["y"][4] for each in thin) / 3)
    switch(seen, "curves.axis", "images")
    assert next(each for each in drawn(seen, "curves") if each.get("name") == mean["name"])["x"][-1] == 300 * 128
    switch(seen, "curves.axis", "seconds")
    assert next(each for each in drawn(seen, "curves") if each.get("name") == mean["name"])["x"][-1] == pytest.approx(
        (300 / 5 + 300 / 6 + 300 / 7) / 3, rel=1e-3
    )
    assert "Every point is drawn: 18 runs, 540 points" in seen.find_element("id", "told-curves").text


@pytest.mark.parametrize("figure", ["profile", "cards", "evaluations", "equal", "objectives"])
def test_each_figure_draws_every_configuration_and_says_so(seen: Any, figure: str) -> None:
    traces = drawn(seen, figure)
    count = (
        len(traces[0]["y"])
        if figure in ("equal", "objectives")
        else len({each["name"] for each in traces if "name" in each})
    )
    assert count == 6
    told = seen.find_element("id", f"told-{figure}").text
    assert "drawn" in told or "6 cards" in told


def test_at_equal_evaluations_and_equal_seconds_each_configuration_has_its_mean(seen: Any) -> None:
    switch(seen, "equal.axis", "evaluations")
    (trace,) = drawn(seen, "equal")
    found = dict(zip(trace["text"], trace["x"], strict=True))
    assert found["loss=simple schedule=cosine"] == pytest.approx(20 - 2 * (1 + 0.05 / 3))
    assert "With 50 network evaluations" in seen.find_element("id", "told-equal").text
    switch(seen, "equal.axis", "seconds")
    switch(seen, "equal.share", "0.5")
    assert "After 21.4 seconds of training" in seen.find_element("id", "told-equal").text
    found = dict(zip(*(drawn(seen, "equal")[0][axis] for axis in ("text", "x")), strict=True))
    base, steps = 1.0, [10, 12, 15]  # 107, 128 and 150 steps in that time, told every 10
    values = [base + 0.01 * seed**2 + 3 / step for seed, step in enumerate(steps)]
    assert found["loss=simple schedule=cosine"] == pytest.approx(sum(values) / 3, rel=1e-5)


def test_dark_and_light_are_readable_and_kept_in_the_link(seen: Any, page: Path) -> None:
    light = seen.execute_script(CONTRAST)
    before = seen.execute_script("return getComputedStyle(document.body).backgroundColor")
    seen.find_element("id", "theme").click()
    assert seen.execute_script("return getComputedStyle(document.body).backgroundColor") != before
    assert min(light, seen.execute_script(CONTRAST)) > 4.5
    assert drawn(seen, "curves")
    paper = seen.execute_script("return document.getElementById('plot-curves').layout.paper_bgcolor")
    assert paper == seen.execute_script(
        "return getComputedStyle(document.documentElement).getPropertyValue('--back').trim()"
    )
    address = seen.current_url
    assert "theme" in address
    seen.get("about:blank")
    seen.get(address)
    until(lambda: seen.execute_script("return document.documentElement.dataset.theme"))
    assert seen.execute_script("return document.documentElement.dataset.theme") == "dark"


def test_a_link_carries_sorting_filter_and_axes(seen: Any) -> None:
    seen.find_element("id", "filter").send_keys("cosine")
    seen.find_element("css selector", "button[data-sort='test/fid']").click()
    switch(seen, "curves.axis", "images")
    address = seen.current_url
    seen.get("about:blank")
    seen.get(address)
    until(lambda: seen.execute_script("return document.documentElement.dataset.ready"))
    values = [float(value.split()[0]) for value in column(seen, "test/fid")]
    assert len(values) == 3 and values == sorted(values)
    assert seen.execute_script("return document.querySelector(\"[data-state='curves.axis']\").value") == "images"
    assert max(drawn(seen, "curves")[-1]["x"]) == 300 * 128


def test_it_fits_a_phone(seen: Any) -> None:
    """Nothing but the tables' own boxes scrolls sideways, and figures are as wide as the page."""
    seen.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 380, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        drawn(seen, "curves")
        time.sleep(0.4)
        assert seen.execute_script("return document.documentElement.scrollWidth") <= 380
        assert seen.execute_script("return document.getElementById('plot-curves').getBoundingClientRect().width") <= 380
        drawn(seen, "objectives")
        heights = """const p = document.getElementById('plot-objectives');
        return [p, p.querySelector('.svg-container')].map(e => e.getBoundingClientRect().height)"""
        assert len(set(seen.execute_script(heights))) == 1  # it covers nothing below
    finally:
        seen.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


SHOWN_PICTURES = "return [...document.querySelectorAll('#pictures img')].map(e => e.src)"


def _png(step: int) -> str:
    return "data:image/png;base64," + base64.b64encode(PIXEL + bytes([step])).decode()


def test_one_slider_moves_all_sample_grids(seen: Any) -> None:
    captions = "return [...document.querySelectorAll('#pictures figcaption')].map(e => e.textContent)"
    assert len(seen.execute_script(captions)) == 6 and all(
        "step 200" in words for words in seen.execute_script(captions)
    )
    assert set(seen.execute_script(SHOWN_PICTURES)) == {_png(200)}
    seen.execute_script("const s = document.getElementById('step'); s.value = 0; s.dispatchEvent(new Event('input'))")
    assert all("step 100" in words for words in seen.execute_script(captions))
    assert set(seen.execute_script(SHOWN_PICTURES)) == {_png(100)}


def test_a_configs_words_are_words_wherever_they_stand(seen: Any) -> None:
    """Markup in a path or a key is shown as it is typed: no script of it runs, nothing of it is bold."""
    assert EVIL in seen.execute_script("return document.getElementById('differing').textContent")
    assert seen.execute_script("return document.querySelectorAll('img[src=x], main b').length") == 0
    drawn(seen, "curves")


def test_differences_of_configuration_are_marked(seen: Any) -> None:
    marked = seen.execute_script(
        "return [...document.querySelectorAll('#differing td.differs')].map(e => e.textContent)"
    )
    assert "vlb" in marked and "linear" in marked


def test_a_figure_is_saved_as_vectors(seen: Any, tmp_path: Path) -> None:
    seen.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    drawn(seen, "curves")
    seen.execute_script("document.querySelector(\"[aria-label='Learning curves as SVG']\").click()")
    file = until(lambda: next(tmp_path.glob("*.svg"), None))
    assert until(lambda: "</svg>" in file.read_text())


def test_none_in_figures_leaves_a_word_in_each_place(seen: Any) -> None:
    seen.find_element("id", "none").click()
    seen.execute_script("document.getElementById('plot-curves').parentElement.scrollIntoView()")
    until(lambda: "No chosen run" in seen.find_element("id", "told-curves").text)
    assert seen.find_element("id", "differingtold").text == "No row is chosen."


# --- the numbers of the figures, against those of the runs' files


def test_each_number_of_a_figure_is_that_of_the_runs_files(seen: Any, page: Path) -> None:
    """Means and standard errors of curves, bands, cards, distances, objectives; order and colours with them."""
    rows = [(loss, schedule) for loss in LOSSES for schedule in ("cosine", "linear")]
    of = {f"loss={loss} schedule={schedule}": (loss, schedule) for loss, schedule in rows}
    profiles, distances, cards = (drawn(seen, figure) for figure in ("profile", "evaluations", "cards"))
    switch(seen, "equal.axis", "step")
    equal, heat = drawn(seen, "equal")[0], drawn(seen, "objectives")[0]
    objectives = [cell[1] for cell in heat["customdata"][0]]
    for name, (loss, schedule) in of.items():
        line = named(profiles, name)
        band, at = profiles[profiles.index(line) - 1], line["x"].index(0.0)
        mean, se = mean_and_error(
            by_seed(page.parent, loss, schedule, lambda run: run["records"]["simple"]["error"][20])
        )
        assert [line["y"][at], band["y"][at] - mean] == pytest.approx([mean, se], rel=1e-4)
        assert line["y"][at] - band["y"][-1 - at] == pytest.approx(se, rel=1e-4)
        distance = named(distances, name)
        wanted = mean_and_error(by_seed(page.parent, loss, schedule, lambda run: run["metrics"]["test/fid"]))
        assert [distance["y"][0], distance["error_y"]["array"][0]] == pytest.approx(wanted, rel=1e-4)
        last = mean_and_error(by_seed(page.parent, loss, schedule, lambda run: run["metrics"]["val/simple"] + 3 / 30))
        place = equal["text"].index(name)
        assert [equal["x"][place], equal["error_x"]["array"][place]] == pytest.approx(last, rel=1e-4)
        line = next(each for each in heat["customdata"] if each[0][0] == name)
        for objective, (_, _, value) in zip(objectives, line, strict=True):
            number = f"test/objective_{objective}"
            values = by_seed(page.parent, loss, schedule, lambda run, number=number: run["metrics"][number])
            assert value == pytest.approx(fmean(values), rel=1e-5)
        card = named(cards, name)  # of 20 levels; over [-4.8, 6.6] the mean is that of the nine from 0 to -4.5: 5
        assert (card["x"][0], card["y"][0], card["y"][19]) == (-10, pytest.approx(20 / 5), pytest.approx(1 / 5))
    assert equal["x"] == sorted(equal["x"], reverse=True)  # from below: the best stands on top
    first = [line[0] for line in heat["z"]]
    values = [line[0][2] for line in heat["customdata"]]
    assert (first[values.index(min(values))], first[values.index(max(values))]) == (0, 1)
    assert heat["colorscale"][0][1] == "#2a9d3f" and heat["colorscale"][-1][1] == "#c92a2a"  # least is green


def test_the_front_is_of_those_that_none_beats(seen: Any) -> None:
    switch(seen, "pareto.x", "test/simple")
    switch(seen, "pareto.y", "test/vlb_common")
    points = [(each["x"][0], each["y"][0]) for each in drawn(seen, "pareto")]
    (front,) = drawn(seen, "pareto", "front")
    assert list(zip(front["x"], front["y"], strict=True)) == [min(points)]
    switch(seen, "pareto.y", "test/fid")  # less of one is more of the other
    assert len(drawn(seen, "pareto", "front")[0]["x"]) == 6


def test_the_difference_to_the_best_stands_with_its_interval(seen: Any, page: Path) -> None:
    line = "return [...document.querySelectorAll('tbody tr')].find(e => e.textContent.includes('vlbcosine'))"
    words = seen.execute_script(f"{line}.querySelector(\"td[data-number='test/simple']\").nextSibling.textContent")
    best, other = (
        {(str(seed),): value for seed, value in enumerate(by_seed(page.parent, loss, "cosine", _simple))}
        for loss in ("simple", "vlb")
    )
    found = paired(other, best)
    assert found is not None and found.low is not None and found.low < found.high
    assert words == f"{found.mean:+.3g} [{found.low:.3g}, {found.high:.3g}]"


def _simple(run: dict) -> float:
    return run["metrics"]["test/simple"]


def test_every_figure_has_a_key_and_a_direction(seen: Any) -> None:
    wanted = [f"loss={loss}" for loss in LOSSES] + ["schedule=cosine", "schedule=linear"]
    for figure in ("curves", "profile", "cards", "pareto", "evaluations"):
        assert sorted(each["name"] for each in drawn(seen, figure, "key")) == sorted(wanted)
    for figure, axis in (("curves", "y"), ("profile", "y"), ("equal", "x"), ("pareto", "x")):
        drawn(seen, figure)
        title = seen.execute_script(
            "return document.getElementById('plot-' + arguments[0]).layout[arguments[1] + 'axis'].title.text",
            figure,
            axis,
        )
        assert title.endswith("(less is better)")


# --- runs as they are


def test_what_is_not_ranked_is_hollow_out_of_the_front_and_sorts_last(seen_odd: Any) -> None:
    switch(seen_odd, "pareto.x", "test/simple")
    switch(seen_odd, "pareto.y", "test/fid")
    dots = drawn(seen_odd, "pareto")
    lucky = named(dots, "data=digits loss=dsm")
    assert lucky["marker"]["symbol"].endswith("-open") and lucky["y"] == [0.5]
    (front,) = drawn(seen_odd, "pareto", "front")
    assert 0.5 not in front["y"] and len(front["y"]) == 2
    assert "1 hollow" in told(seen_odd, "pareto") and "data=digits loss=dsm (1 of 3)" in told(seen_odd, "pareto")
    assert "Left out, without one of the two: data=digits loss=min_snr." in told(seen_odd, "pareto")
    for _ in ("rising", "falling"):
        seen_odd.find_element("css selector", "button[data-sort='test/fid']").click()
        values = column(seen_odd, "test/fid")[:4]
        assert {values[2], values[3]} == {"(0.500 (1 of 3))", "–"} and "(" not in values[0] + values[1]


def test_repeats_of_a_seed_stand_for_one_in_every_figure(seen_odd: Any, odd: Path) -> None:
    name, own = "data=digits loss=simple", ("simple", "cosine")
    wanted = mean_and_error(by_seed(odd.parent, *own, lambda run: run["metrics"]["val/simple"] + 3 / 30))
    assert named(drawn(seen_odd, "curves"), name)["y"][-1] == pytest.approx(wanted[0], rel=1e-4)
    switch(seen_odd, "equal.axis", "step")
    equal = drawn(seen_odd, "equal")[0]
    place = equal["text"].index(name)  # at step 80, as far as dsm goes
    assert [equal["x"][place], equal["error_x"]["array"][place]] == pytest.approx(
        [wanted[0] - 3 / 30 + 3 / 8, wanted[1]], rel=1e-4
    )
    heat = next(line for line in drawn(seen_odd, "objectives")[0]["customdata"] if line[0][0] == name)
    value = next(cell[2] for cell in heat if cell[1] == "simple")
    assert value == pytest.approx(fmean(by_seed(odd.parent, *own, lambda run: run["metrics"]["test/objective_simple"])))
    distances = named(drawn(seen_odd, "evaluations"), name)
    assert distances["x"] == [50, 100] and distances["y"][1] == 10 + (ord("a") + ord("b")) / 2  # not DDPM's
    fid = by_seed(odd.parent, *own, lambda run: run["metrics"]["test/fid"])
    fid[0] = (fid[0] + 10 + ord("d")) / 2
    assert distances["y"][0] == pytest.approx(fmean(fid), rel=1e-4)
    assert distances["marker"]["symbol"] == ["circle", "circle-open"]


def test_the_lines_under_figures_say_what_is_not_drawn(seen_odd: Any) -> None:
    curves = drawn(seen_odd, "curves")
    mean = named(curves, "data=digits loss=vlb")
    assert len(mean["x"]) == 400 and mean["x"][-1] == 9000
    assert told(seen_odd, "curves").startswith("Thinned to evenly spaced points: 12 runs")
    assert "points that a thinned curve keeps" in (drawn(seen_odd, "equal") and told(seen_odd, "equal"))
    assert "Left out, no val/simple or no clock (train/it_per_s) until then: data=digits loss=dsm" in told(
        seen_odd, "equal"
    )
    switch(seen_odd, "curves.number", "train/loss")
    drawn(seen_odd, "curves")
    assert "The scale is linear: 18 values are 0 or below it." in told(seen_odd, "curves")
    assert "Left out, no train/loss: data=" in told(seen_odd, "curves")
    line = named(drawn(seen_odd, "profile"), "data=digits loss=vlb")
    assert line["y"] == [2.5, 2.0, 1.5, 2.0, 2.0, 2.0]
    assert "a seed has no value" in told(seen_odd, "profile")
    heat = drawn(seen_odd, "objectives")[0]
    assert [cell[1] for cell in heat["customdata"][0]].count("constructor") == 1
    assert " cells are known and drawn" in told(seen_odd, "objectives")


def test_limited_failed_and_missing_runs_are_told(seen_odd: Any) -> None:
    counts = "return [...document.querySelectorAll('tbody tr')].map(e => e.textContent)"
    rows = seen_odd.execute_script(counts)
    assert any("vlb3 t" in row for row in rows) and any("min_snr2 !" in row for row in rows)
    words = seen_odd.find_element("id", "sections").text
    assert "without figures: loss-min_snr_schedule-cosine_seed-0: failed" in words and "<b>memory</b>" in words


def test_figures_show_one_data_set_at_a_time(seen_odd: Any, odd: Path) -> None:
    names = {each["name"] for each in drawn(seen_odd, "pareto") if "name" in each}
    assert names and not any("moons" in name for name in names)
    script = "const e = document.getElementById('dataset'); e.value = '1'; e.dispatchEvent(new Event('change'))"
    seen_odd.execute_script(script)
    assert [each["name"] for each in drawn(seen_odd, "pareto") if "name" in each] == ["data=moons loss=simple"]
    seen_odd.find_element("id", "filter").send_keys("min_snr")  # of the other data set: figures follow
    assert seen_odd.find_element("id", "dataset").get_attribute("value") == "0"


def test_grids_of_one_noise_are_told_apart_from_those_that_are_not(seen_odd: Any) -> None:
    assert "the same of all" in seen_odd.find_element("id", "picturestold").text
    captions = "return [...document.querySelectorAll('#pictures figcaption')].map(e => e.textContent)"
    assert all("seed 1," in words or "seed 0," in words for words in seen_odd.execute_script(captions))
    assert len({words.partition("seed ")[2][0] for words in seen_odd.execute_script(captions)}) == 1


@pytest.mark.parametrize(
    "view", ['{"curves.axis":"nope","profile.number":"constructor"}', '{"sort":"constructor","off":[{}]}', "null"]
)
def test_a_bad_link_shows_the_usual_view(window: Any, page: Path, view: str) -> None:
    opened(window, page, "#" + quote(view))
    assert drawn(window, "curves") and drawn(window, "profile") and len(column(window, "test/fid")) == 6


def test_words_of_a_swept_key_are_words_in_legends_axes_and_hovers(window: Any, tmp_path: Path) -> None:
    for place, tag in enumerate(("<b>a</b>", "%{x} b", "constructor")):
        for seed in range(2):
            one(tmp_path, "simple", "cosine", seed, more=str(place), tag=tag)
    opened(window, written(tmp_path))
    drawn(window, "curves"), drawn(window, "equal")
    texts = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.replaceAll('\u2060', ''))"
    wanted = ["tag=%{x} b", "tag=<b>a</b>", "tag=constructor"]
    assert window.execute_script("return ALL.every((row) => row.choices.constructor === undefined)")
    found = [words for words in window.execute_script(texts, "#plot-curves .legendtext") if words.startswith("tag=")]
    assert sorted(found) == wanted
    assert sorted(window.execute_script(texts, "#plot-equal .ytick text")) == wanted
    window.execute_script("Plotly.Fx.hover(document.getElementById('plot-equal'), [{curveNumber: 0, pointNumber: 1}])")
    hovered = " ".join(window.execute_script(texts, "#plot-equal .hoverlayer text"))
    assert any(words in hovered for words in wanted)


# --- hands and eyes


def test_the_keyboard_keeps_its_place(seen: Any) -> None:
    """A tick keeps focus and scroll; the skip link keeps the view; what is said is seen; nothing is sent anywhere."""
    from selenium.webdriver.common.keys import Keys

    seen.set_window_size(600, 900)
    seen.execute_script(
        "document.querySelector('.scroll').scrollLeft = 80; document.querySelector('[data-tick]').focus()"
    )
    before = seen.execute_script("return document.querySelector('.scroll').scrollLeft")
    seen.switch_to.active_element.send_keys(Keys.SPACE)
    assert seen.switch_to.active_element.get_attribute("data-tick") is not None
    assert seen.execute_script("return document.querySelector('.scroll').scrollLeft") == before
    seen.execute_script("document.querySelector('.skip').click()")
    assert "off" in seen.current_url and seen.switch_to.active_element.get_attribute("id") == "table"
    seen.find_element("id", "link").click()
    box = until(lambda: seen.find_element("id", "said").text and seen.find_element("id", "said").rect)
    assert seen.execute_script("return getComputedStyle(document.getElementById('said')).position") == "fixed" and box
    drawn(seen, "curves")
    buttons = seen.execute_script(
        "return [...document.querySelectorAll('#plot-curves .modebar-btn')].map(e => e.dataset.title)"
    )
    assert buttons and not any("Share" in words for words in buttons)
    for slider, words in (("#step", "200 steps"), ("[data-state='equal.share']", "100 %")):
        assert seen.find_element("css selector", slider).get_attribute("aria-valuetext") == words


def test_what_follows_from_the_ranking_number_stays_beside_it(seen: Any) -> None:
    seen.execute_script(
        "const e = document.getElementById('by'); e.value = 'test/fid'; e.dispatchEvent(new Event('change'))"
    )
    heads = seen.execute_script("return [...document.querySelectorAll('thead th')].map(e => e.textContent)")
    assert heads[heads.index("fid") + 1] == "to best" and heads[heads.index("simple") + 1] == "improved by simple"


def test_marks_stand_out_from_both_backs() -> None:
    text = (Path(browser.__file__).parents[1] / "src/scorelab/comparison/page/look.js").read_text()
    colours = json.loads(text.partition("const COLOURS = ")[2].partition(";")[0])

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert len(colours) == 10
    for colour in colours:
        assert 1.05 / (light(colour) + 0.05) > 3 and (light(colour) + 0.05) / (light("#14171c") + 0.05) > 3


def test_two_hundred_runs_sort_and_filter_within_two_seconds_and_the_figures_follow(
    window: Any, tmp_path: Path
) -> None:
    for loss in LOSSES:
        for seed in range(67):
            one(tmp_path, loss, "cosine", seed, points=60)
    main([str(tmp_path)])
    window.get("about:blank")
    window.get((tmp_path / "compare.html").as_uri())
    until(lambda: window.execute_script("return document.documentElement.dataset.ready"))
    marks = {mark: window.execute_script(MARK, mark) for mark in ("table", "ready")}
    assert marks["table"] < 2000  # sorts and filters
    assert marks["ready"] < 8000  # plotly.js has been read: 2.1 s were seen on a slow and busy machine
