"""compare.html as its reader has it, in a real browser: what it shows, what a click does, what it never loads."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from test_comparison import left, node

from scorelab.app.compare import main
from scorelab.comparison.runs import Run

pytestmark = pytest.mark.skipif(browser.found() is None and browser.NEEDED not in os.environ, reason=browser.MISSING)
EVIL = '</script><script>window.broken=1</script><img src=x onerror="window.broken=2"><b>bold</b>'
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
LOSSES = ("simple", "vlb", "dsm")


def one(folder: Path, loss: str, schedule: str, seed: int, points: int = 30) -> None:
    """A run with all that a page shows."""
    base = 1.0 + LOSSES.index(loss) + (0.2 if schedule == "linear" else 0.0) + 0.01 * seed**2
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
        "init_from": None,
    }
    if loss == "dsm":
        config["init_from"] = EVIL
    place = folder / f"loss-{loss}_schedule-{schedule}_seed-{seed}"
    left(place, Run(str(place), place.name, config, metrics, records))
    lines = [f"{10 * step},{5 + seed},{base + 3 / step}" for step in range(1, points + 1)]
    (place / "metrics.csv").write_text("step,train/it_per_s,val/simple\n" + "\n".join(lines) + "\n")
    card = [f"{i},{-i / 2},{-i / 2 - 0.5},{1.0 + i},{(1.0 + i) / 2}" for i in range(20)]
    (place / "card.csv").write_text("# a note\nstep,log_snr_high,log_snr_low,density,mass\n" + "\n".join(card) + "\n")
    (place / "samples").mkdir()
    for step in (100, 200):
        (place / "samples" / f"step_{step:07d}.png").write_bytes(PIXEL)


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


@pytest.fixture
def seen(window: Any, page: Path) -> Iterator[Any]:
    """The page, open; at the end its console and its network are looked at."""
    window.get_log("browser"), window.get_log("performance")
    window.set_window_size(1200, 900)
    window.get("about:blank")
    window.get(page.as_uri())
    until(lambda: window.execute_script("return document.documentElement.dataset.ready"))
    yield window
    assert [entry for entry in window.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    asked = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"]
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


def drawn(window: Any, figure: str) -> list[dict]:
    """A figure's traces but for its key, once it has been scrolled to and drawn."""
    window.execute_script("document.getElementById('plot-' + arguments[0]).scrollIntoView({block: 'center'})", figure)
    script = "const d = document.getElementById('plot-' + arguments[0]).data; return d ? JSON.stringify(d) : null"
    return [each for each in json.loads(until(lambda: window.execute_script(script, figure))) if "meta" not in each]


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
    finally:
        seen.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_one_slider_moves_all_sample_grids(seen: Any) -> None:
    captions = "return [...document.querySelectorAll('#pictures figcaption')].map(e => e.textContent)"
    assert len(seen.execute_script(captions)) == 6 and all(
        "step 200" in words for words in seen.execute_script(captions)
    )
    seen.execute_script("const s = document.getElementById('step'); s.value = 0; s.dispatchEvent(new Event('input'))")
    assert all("step 100" in words for words in seen.execute_script(captions))


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
