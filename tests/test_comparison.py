"""Comparing runs: seeds folded, like with like, and nothing called better that chance may have made."""

import csv
import io
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats
from test_configs import built

from scorelab.app.compare import Asked, asked, compared, main, read
from scorelab.comparison.folding import folded
from scorelab.comparison.like import alike, data_of
from scorelab.comparison.payload import evaluations, payload, thinned
from scorelab.comparison.ranking import DEFAULT, ranking
from scorelab.comparison.runs import Run, read_run
from scorelab.comparison.sheets import csv_text, tex, text
from scorelab.comparison.statistics import Mean, holm, improvement, paired
from scorelab.comparison.targets import Target, with_target
from scorelab.config.groups import Choices
from scorelab.errors import UserError
from scorelab.likelihood.figures import bound_figure
from scorelab.report.numbers import BY_YARDSTICK, number, with_error, yardstick
from scorelab.run.jobs import write_jobs

ROOT = Path(__file__).resolve().parent.parent
CALLED = Choices([ROOT / "configs"])
LOSSES = {
    "simple": {"_target_": "scorelab.losses.Simple"},
    "vlb": {"_target_": "scorelab.losses.VariationalBound"},
    "dsm": {"_target_": "scorelab.losses.DenoisingScoreMatching", "weight": "one"},
}


def node(group: str, choice: str) -> dict:
    found = yaml.safe_load((ROOT / "configs" / group / f"{choice}.yaml").read_text())
    return {key: value for key, value in found.items() if key != "defaults"}


def run(loss: str, seed: int, metrics: Mapping[str, float | None], schedule: str = "cosine", **more) -> Run:
    config = {
        "loss": node("loss", loss),
        "schedule": node("schedule", schedule),
        "data": node("data", more.pop("data", "digits")),
        "seed": seed,
        "run": f"{loss}{seed}",
        **more.pop("config", {}),
    }
    return Run(f"/nowhere/{loss}{schedule}{seed}", f"{loss}_{schedule}_{seed}", config, metrics, **more)


def several(loss: str, values: list[float], number: str = "test/simple", **more) -> list[Run]:
    return [run(loss, seed, {number: value}, **more) for seed, value in enumerate(values)]


# --- statistics


def test_a_paired_difference_is_students() -> None:
    draws = np.random.default_rng(0)
    ours, theirs = draws.normal(1.0, 0.3, 6), draws.normal(1.2, 0.3, 6)
    found = paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    known = stats.ttest_rel(ours, theirs)
    low, high = known.confidence_interval(0.95)
    assert found is not None and found.n == 6
    assert (found.mean, found.low, found.high, found.p) == pytest.approx(
        (float(np.mean(ours - theirs)), low, high, known.pvalue), rel=1e-9
    )


def test_only_seeds_that_both_have_are_paired() -> None:
    found = paired({0: 1.0, 1: 2.0, 2: 3.0, 7: 90.0}, {0: 0.5, 1: 1.5, 2: 2.5, 8: -90.0})
    assert found is not None and (found.mean, found.n) == (0.5, 3)
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("seeds", [1, 2])
def test_below_three_seeds_there_is_a_difference_but_no_test(seeds: int) -> None:
    found = paired({seed: 1.0 + seed for seed in range(seeds)}, dict.fromkeys(range(seeds), 5.0))
    assert found is not None and found.p is found.low is found.high is None


def test_holms_adjustment_is_that_of_the_book() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02], nan_ok=True)


def test_improvement_is_the_share_of_pairs_over_tasks() -> None:
    draws = np.random.default_rng(1)
    a, b = draws.normal(0, 1, 7), draws.normal(0.4, 1, 5)
    share = stats.mannwhitneyu(b, a).statistic / 35
    assert improvement([list(a), [1.0]], [list(b), [1.0]]) == pytest.approx((share + 0.5) / 2)
    assert improvement([[1.0], []], [[2.0], [3.0]]) == 1.0
    assert improvement([[]], [[1.0]]) is None


@pytest.mark.parametrize("rows", [2, 5])
def test_equal_configurations_seldom_have_a_winner(rows: int) -> None:
    """Of rows that differ by chance alone at most one table in twenty calls one of them the best."""
    draws, tables, false = np.random.default_rng(2), 600, 0
    names = ["simple", "vlb", "dsm", "hybrid", "min_snr"][:rows]
    for _ in range(tables):
        shared = draws.normal(0, 1, 4)  # seeds share their data and noise
        values = {name: list(shared + draws.normal(0, 0.3, 4)) for name in names}
        means = {name: dict(enumerate(each)) for name, each in values.items()}
        first = min(names, key=lambda name: sum(values[name]))
        ps = holm([(found := paired(means[name], means[first])) and found.p for name in names if name != first])
        false += all(p is not None and p < 0.05 for p in ps)
    assert false / tables < 0.05 + 3 * math.sqrt(0.05 * 0.95 / tables)


def test_a_real_difference_is_found_by_pairs_where_the_spread_between_seeds_hides_it() -> None:
    shared = np.random.default_rng(3).normal(0, 1, 5)
    noise = np.random.default_rng(4).normal(0, 0.01, (2, 5))
    runs = several("simple", list(shared + noise[0])) + several("vlb", list(shared + 0.1 + noise[1]))
    (section,) = ranking(runs, CALLED).sections
    first, second = (row.cells["test/simple"] for row in section.rows)
    assert first.wins and first.mean.se > 0.1 > second.to_best.mean - 0.05 > 0  # type: ignore[union-attr]


# --- folding


def test_configurations_differ_in_what_was_chosen_and_seeds_are_folded() -> None:
    runs = [
        r for loss in LOSSES for schedule in ("cosine", "linear") for r in several(loss, [1, 2, 3], schedule=schedule)
    ]
    found = folded(runs, CALLED)
    assert found.keys == ["loss", "schedule"] and len(found.configurations) == 6
    assert {len(each.runs) for each in found.configurations} == {3}
    assert {each.name for each in found.configurations} >= {"loss=dsm schedule=linear"}


def test_any_key_can_be_folded_and_machine_keys_always_are() -> None:
    runs = [
        run(
            "simple",
            seed,
            {"test/simple": rate},
            config={"optimizer": {"_target_": "torch.optim.AdamW", "lr": rate}, "logger": {"x": seed}},
        )
        for seed in range(2)
        for rate in (1e-3, 3e-3)
    ]
    assert folded(runs, CALLED).keys == ["optimizer.lr"]
    (only,) = folded(runs, CALLED, ("seed", "optimizer.lr")).configurations
    assert only.mean("test/simple").n == only.n == 4  # type: ignore[union-attr]


def test_an_argument_that_belongs_to_a_choice_is_no_key_of_its_own() -> None:
    """Dsm alone has a weight: losses differ in it as in their name; two weights of dsm are two configurations."""
    runs = several("simple", [1.0]) + several("dsm", [2.0])
    assert folded(runs, CALLED).keys == ["loss"]
    other = run("dsm", 0, {"test/simple": 3.0}, config={"loss": {**node("loss", "dsm"), "weight": "g2"}})
    assert folded([*runs, other], CALLED).keys == ["loss", "loss.weight"]


def test_what_goes_along_with_another_key_is_told_and_makes_no_column() -> None:
    runs = [
        *several("simple", [1.0, 2.0], config={"optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3}}),
        *several("vlb", [1.0, 2.0], config={"optimizer": {"_target_": "torch.optim.AdamW", "lr": 2e-3}}),
    ]
    found = folded(runs, CALLED)
    assert found.keys == ["loss"]
    assert found.along == ["optimizer.lr goes with loss: 0.001 (simple), 0.002 (vlb)"]


def test_a_run_repeated_is_no_further_seed() -> None:
    """Two runs of one seed count as their mean: neither n nor the standard error take them for two."""
    runs = several("simple", [1.0, 2.0, 3.0])
    again = [replace(each, name=f"{each.name}-again", metrics={"test/simple": 1.2}) for each in runs[:1]]
    (only,) = folded([*runs, *again], CALLED).configurations
    assert (len(only.runs), only.n) == (4, 3)
    assert list(only.values("test/simple").values()) == pytest.approx([1.1, 2.0, 3.0])


# --- like with like


def of_samples(loss: str, seed: int, fid: float, **record) -> Run:
    told = {"n": 1437, "reference": "train split, 1437 images", "extractor_hash": "abc"} | record
    return run(loss, seed, {"test/fid": fid}, records={"fid": told})


@pytest.mark.parametrize(
    "other", [{"n": 500}, {"reference": "test split"}, {"extractor_hash": "xyz"}, {"labels": "none: by chance"}]
)
def test_a_figure_under_other_circumstances_is_shown_aside_and_why_is_told(other: Mapping[str, object]) -> None:
    runs = [of_samples("simple", seed, 3.0 + seed) for seed in range(3)]
    runs += [of_samples("vlb", seed, 4.0 + seed) for seed in range(3)]
    runs += [of_samples("dsm", seed, 0.1, **other) for seed in range(3)]
    found = ranking(runs, CALLED, by="test/fid")
    (section,) = found.sections
    assert [row.configuration.choices["loss"] for row in section.rows] == ["simple", "vlb", "dsm"]
    assert not section.rows[2].cells["test/fid"].ranked
    (key,) = other
    assert f"{key} is {other[key]}" in text(found) and "(0.100 ± 0.000)" in text(found)


def test_bounds_are_ranked_by_kind_of_decoder_and_its_width_is_the_runs_own_choice() -> None:
    """Of real runs: steps of any schedule and variance decode alike, a continuous schedule otherwise."""

    def bound(schedule: str, *words: str) -> Run:
        denoiser = built(f"schedule={schedule}", "++model.channels=8", *words).module.denoiser
        record = bound_figure(denoiser, torch.zeros(1, 1, 8, 8)).record()
        return run("simple", 0, {"test/vlb": 3.0}, schedule=schedule, records={"vlb": record})

    steps = [bound("linear"), bound("cosine"), bound("sigmoid"), bound("cosine", "loss=hybrid")]
    assert alike(steps, "test/vlb") == (steps, [])
    (told,) = alike([*steps, bound("vp")], "test/vlb")[1]
    assert told.runs == ("simple_vp_0",) and told.why.startswith("decoder is softmax over the levels")


def test_each_data_set_has_a_table_of_its_own() -> None:
    runs = several("simple", [1, 2, 3]) + several("vlb", [2, 3, 4]) + several("simple", [9, 9, 9], data="mnist")
    found = ranking(runs, CALLED)
    assert [(section.data, len(section.rows)) for section in found.sections] == [("digits", 2), ("mnist", 1)]


def test_the_same_data_from_another_cache_are_the_same_and_others_are_not() -> None:
    def of(source: dict, fingerprint: str = "a") -> Run:
        return Run("/x", "x", {"data": {"source": source}}, records={"data": {"fingerprint": fingerprint}})

    assert data_of(of({"path": "p", "cache": "/a"})) == data_of(of({"path": "p", "cache": "/b"}))
    assert data_of(of({"path": "p"})) != data_of(of({"path": "q"}))


def test_runs_on_files_that_have_changed_meanwhile_are_not_ranked_together() -> None:
    """Of a part of the data the fingerprint says which part: that is what its runs are compared in."""
    runs = [run("simple", seed, {"test/simple": 1.0}, records={"data": {"fingerprint": "a"}}) for seed in range(3)]
    runs.append(run("vlb", 0, {"test/simple": 0.5}, records={"data": {"fingerprint": "b"}}))
    (told,) = alike(runs, "test/simple")[1]
    assert told.runs == ("vlb_cosine_0",) and told.why == "data is b, of the others a"
    part = {"data": {**node("data", "digits"), "limit": 50}}
    limited = [replace(each, config={**each.config, **part}) for each in runs]
    assert alike(limited, "test/simple")[1] == []


def test_a_run_that_has_left_nothing_is_named_and_makes_no_row() -> None:
    runs = [*several("simple", [1, 2, 3]), Run("/x", "vlb_0", {}, without="not started")]
    found = ranking(runs, CALLED)
    assert found.keys == [] and len(found.sections[0].rows) == 1
    assert "vlb_0: not started" in text(found)


def test_an_unfinished_run_stands_with_those_on_the_same_data() -> None:
    runs = [run("simple", seed, {"test/simple": 1.0}, records={"data": {"fingerprint": "a"}}) for seed in range(2)]
    runs.append(run("vlb", 0, {}, without="interrupted at step 3"))
    (section,) = ranking(runs, CALLED).sections
    assert [len(row.configuration.runs) for row in section.rows] == [2, 1]


def test_a_run_without_figures_is_named_and_a_run_limited_in_time_marked() -> None:
    runs = several("simple", [1, 2, 3]) + several("vlb", [2, 3])
    runs += [run("vlb", 2, {}, without="failed: diverged"), *several("dsm", [3, 4, 5], limited=True)]
    told = text(ranking(runs, CALLED))
    assert "vlb_cosine_2: failed: diverged" in told
    assert "3 t" in told and "limited in time" in told


# --- ranking


@pytest.mark.parametrize("seeds, wins", [(2, False), (3, True)])
def test_a_winner_takes_three_seeds(seeds: int, wins: bool) -> None:
    runs = several("simple", [1.0, 1.1, 1.2][:seeds]) + several("vlb", [2.0, 2.11, 2.19][:seeds])
    found = ranking(runs, CALLED)
    assert found.sections[0].rows[0].cells["test/simple"].wins is wins
    assert ("no winner" in text(found)) is not wins


def test_where_more_is_better_the_most_is_first() -> None:
    runs = several("simple", [0.8, 0.81, 0.82], "test/recognised") + several(
        "vlb", [0.9, 0.91, 0.92], "test/recognised"
    )
    rows = ranking(runs, CALLED, by="test/recognised").sections[0].rows
    assert [row.configuration.choices["loss"] for row in rows] == ["vlb", "simple"]
    assert rows[1].cells["test/recognised"].to_best.mean == pytest.approx(-0.1)  # type: ignore[union-attr]


def test_the_best_rate_is_chosen_on_validation_and_shown_on_test() -> None:
    """The rate of least val/simple, whatever its test figure; one at the edge of those tried is marked."""
    runs = [
        run(
            loss,
            seed,
            {"val/simple": val + seed, "test/fid": fid},
            config={"optimizer": {"_target_": "torch.optim.AdamW", "lr": rate}},
        )
        for loss, best in (("simple", 3e-3), ("vlb", 1e-2))
        for rate, fid in ((1e-3, 1.0), (3e-3, 50.0), (1e-2, 60.0))
        for seed in range(3)
        for val in [abs(math.log(rate / best))]
    ]
    found = ranking(runs, CALLED, ["test/fid"], "test/fid", best_of="optimizer.lr")
    rows = {row.configuration.choices["loss"]: row for row in found.sections[0].rows}
    assert {loss: row.configuration.choices["optimizer.lr"] for loss, row in rows.items()} == {
        "simple": "0.003",
        "vlb": "0.01",
    }
    assert {loss: row.edge for loss, row in rows.items()} == {"simple": False, "vlb": True}
    assert rows["simple"].cells["test/fid"].mean.value == 50.0  # type: ignore[union-attr]
    assert "0.01|" in text(found) and "stands at the edge" in text(found)


def rates(*told: tuple[float, float | None, str | None]) -> list[Run]:
    """Runs of one loss at several rates: each rate's val/simple, or why it has none."""
    found = []
    for rate, val, why in told:
        config = {"optimizer": {"_target_": "torch.optim.AdamW", "lr": rate}}
        metrics = {"val/simple": val, "test/fid": 1.0} if why is None else {}
        found.append(replace(run("simple", 0, metrics, without=why, config=config), name=f"lr-{rate}"))
    return found


def test_a_word_stands_at_no_edge() -> None:
    runs = [
        replace(each, config={**each.config, "on_nan": word}) for word in ("a", "b") for each in rates((1, 0.5, None))
    ]
    (row,) = ranking(runs, CALLED, by="test/fid", best_of="on_nan").sections[0].rows
    assert row.chosen and not row.edge


def test_failed_rates_lose_to_finished_ones_and_are_told_all_the_same() -> None:
    runs = rates((1e-3, None, "failed: diverged"), (3e-3, 0.5, None), (1e-2, None, "failed: disk full"))
    found = ranking(runs, CALLED, by="test/fid", best_of="optimizer.lr")
    (row,) = found.sections[0].rows
    assert row.configuration.choices["optimizer.lr"] == "0.003"
    assert text(found).count("failed: diverged") == text(found).count("failed: disk full") == 1


def test_where_all_fail_there_is_a_table_all_the_same() -> None:
    found = ranking(
        rates((1e-3, None, "failed: diverged"), (3e-3, None, "failed: diverged")), CALLED, best_of="optimizer.lr"
    )
    assert text(found).count("failed: diverged") == 2 and "|" not in text(found) and "?" not in text(found)


def test_without_a_validation_figure_no_rate_is_called_best() -> None:
    told = text(ranking(rates((1e-3, None, None), (3e-3, None, None)), CALLED, best_of="optimizer.lr"))
    assert "? no val/simple to choose optimizer.lr by" in told and "|" not in told
    assert told.splitlines()[1].split()[0] == "?"


def test_improvement_goes_across_schedules_and_data() -> None:
    """Simple beats vlb under cosine by every seed and under linear by none: one half."""
    runs = several("simple", [1, 2, 3]) + several("vlb", [11, 12, 13])
    runs += several("simple", [8, 9, 10], schedule="linear") + several("vlb", [5, 6, 7], schedule="linear")
    rows = ranking(runs, CALLED).sections[0].rows
    told = {(row.configuration.choices["loss"], row.configuration.choices["schedule"]): row.improved for row in rows}
    assert told[("vlb", "cosine")] == told[("vlb", "linear")] == 0.5
    assert told[("simple", "cosine")] is None


def test_improvement_is_that_of_the_first_rows_kind_over_the_others() -> None:
    """Of nine pairs under cosine simple has the less in eight, under linear in all: (8/9 + 1) / 2."""
    runs = several("simple", [1, 2, 4]) + several("vlb", [3, 13, 14])
    runs += several("simple", [1.5, 2, 3], schedule="linear") + several("vlb", [11, 12, 13], schedule="linear")
    rows = ranking(runs, CALLED).sections[0].rows
    assert rows[0].configuration.choices["loss"] == "simple"
    found = [row.improved for row in rows if row.configuration.choices["loss"] == "vlb"]
    assert found == pytest.approx([(8 / 9 + 1) / 2] * 2)


def test_the_first_of_two_that_cannot_be_told_apart_is_no_winner_though_a_third_is_far() -> None:
    runs = several("simple", [1.0, 1.1, 1.2]) + several("vlb", [1.3, 1.0, 1.15]) + several("dsm", [5.0, 5.1, 5.21])
    found = ranking(runs, CALLED, by="test/simple")
    first, second, third = (row.cells["test/simple"] for row in found.sections[0].rows)
    assert first.best and not first.wins
    assert second.p > 0.05 > third.p  # type: ignore[operator]
    assert "no winner by test/simple: loss=simple cannot be told from loss=vlb\n" in text(found)


def test_a_column_that_not_every_seed_has_is_not_ranked() -> None:
    runs = several("simple", [1, 2, 3]) + several("vlb", [0.1, 0.2])
    runs.append(run("vlb", 2, {"test/simple": None}))
    found = ranking(runs, CALLED, by="test/simple")
    assert [row.configuration.choices["loss"] for row in found.sections[0].rows] == ["simple", "vlb"]
    assert "(2 of 3)" in text(found)


# --- targets


def test_seconds_and_images_to_a_target_are_those_of_the_first_time() -> None:
    rows = [
        {"step": 100, "train/it_per_s": 10.0, "val/fid": 30.0},
        {"step": 200, "train/it_per_s": 20.0, "val/fid": 15.0},
        {"step": 300, "train/it_per_s": 20.0, "val/fid": 25.0},
        {"step": 400, "train/it_per_s": 20.0, "val/fid": 10.0},
    ]
    own = run(
        "simple", 0, {}, rows=rows, config={"data": {"batch_size": 32}, "trainer": {"accumulate_grad_batches": 2}}
    )
    (found,) = with_target([own], Target.read("fid<20"))
    assert found.metrics == {"seconds to fid<20": 15.0, "images to fid<20": 200 * 64}
    late = replace(own, rows=[*rows, {"step": 450, "val/fid": 2.0}])  # after the last line of the log
    (found,) = with_target([late], Target.read("fid<5"))
    assert found.metrics["seconds to fid<5"] == pytest.approx(15 + 5 + 5 + 2.5)
    (never,) = with_target([own], Target.read("fid<1"))
    assert never.metrics == {"seconds to fid<1": None, "images to fid<1": None}
    with pytest.raises(UserError, match="kid is told by no run; told while training: val/fid"):
        with_target([own], Target.read("kid<1"))
    with pytest.raises(UserError, match="a number and a value"):
        Target.read("fid")


def test_a_long_curve_is_thinned_evenly_between_its_ends_and_says_how_long_it_was() -> None:
    found = thinned([(step, float(step)) for step in range(1, 5001)], 100)
    assert (len(found.steps), found.steps[0], found.steps[-1], found.of) == (100, 1, 5000, 5000)
    assert {round(b - a) for a, b in pairwise(found.steps)} == {50, 51}
    assert thinned([(1, 2.0), (2, 3.0)]).of == 2


# --- sheets


def test_csv_has_every_figure_and_which_it_is() -> None:
    runs = several("simple", [1.0, 1.1, 1.2]) + several("vlb", [2.0, 2.11, 2.19])
    first, second = csv.DictReader(io.StringIO(csv_text(ranking(runs, CALLED))))
    assert first["loss"] == "simple" and float(first["test/simple (of the last weights)"]) == pytest.approx(1.1)
    assert float(first["test/simple se"]) == pytest.approx(0.1 / math.sqrt(3)) and first["test/simple best"] == "wins"
    assert float(second["test/simple to best"]) == pytest.approx(1.0)
    assert 0 < float(second["test/simple p Holm"]) < 0.01


def test_latex_is_escaped_and_bold_is_what_wins() -> None:
    runs = several("simple", [1.0, 1.1, 1.2]) + several("min_snr", [2.0, 2.11, 2.19])
    told = tex(ranking(runs, CALLED))
    assert r"min\_snr" in told and r"$\mathbf{1.100} \pm" in told and r"$\mathbf{2" not in told
    assert told.count(r"\\") == 3


def test_every_column_says_what_it_is_and_whether_less_is_better() -> None:
    told = text(ranking(several("simple", [1, 2, 3], "test/fid_excess"), CALLED))
    assert "Fréchet distance above that of perfect samples; less is better; perfect is 0, of the last weights" in told


# --- the command


def left(place: Path, made: Run) -> None:
    """A run as it lies on disk."""
    place.mkdir(parents=True)
    content = {
        "status": "finished",
        "metrics": dict(made.metrics),
        "records": dict(made.records),
        "config": dict(made.config),
        "seconds": 12.5,
    }
    (place / "metrics.json").write_text(json.dumps(content))
    (place / "config.yaml").write_text(yaml.safe_dump(dict(made.config)))
    (place / "metrics.csv").write_text("step,train/it_per_s,val/simple\n10,5.0,0.9\n20,5.0,0.8\n")


def grid(folder: Path, seeds: int = 3) -> None:
    for loss, base in (("simple", 1.0), ("vlb", 2.0), ("dsm", 3.0)):
        for seed in range(seeds):
            left(
                folder / f"loss-{loss}_seed-{seed}",
                run(loss, seed, {"test/simple": base + 0.01 * seed**2, "test/fid": 9 - base}),
            )


def test_the_command_prints_and_writes_table_latex_picture_curves_and_page(tmp_path: Path, capsys) -> None:
    grid(tmp_path / "sweep")
    main([str(tmp_path / "sweep"), "by=fid", "columns=fid,simple,seconds"])
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines()[1:4]] == ["dsm", "vlb", "simple"]
    for name in ("compare.csv", "compare.tex", "compare.png", "curves.png", "compare.html"):
        assert (tmp_path / "sweep" / name).stat().st_size > 200
    main([str(tmp_path / "sweep"), f"out={tmp_path / 'other'}", "figures=pdf", "page=false"])
    assert (tmp_path / "other" / "compare.pdf").read_bytes().startswith(b"%PDF")
    assert not (tmp_path / "other" / "compare.html").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["nowhere"], "no such directory"),
        (["."], "holds no runs"),
        (["sweep", "colour=red"], "colour: no such key; possible: out, by"),
        (["sweep", "by=fidd"], "fidd: no run has such a number; they have"),
        (["sweep", "best_of=optimizer.lr"], "runs do not differ in it; they do in loss"),
        (["sweep", "figures=jpg"], "png or pdf"),
        (["sweep", "by="], "by= has no value"),
        (["sweep", "fold=sed"], "fold=sed: no run has such a key; did you mean seed"),
        (["sweep", "status=perhaps"], "true or false"),
        (["waiting"], "none of 1 runs has figures yet"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(words, told, tmp_path, monkeypatch, capsys) -> None:
    grid(tmp_path / "inner" / "deep" / "deeper" / "sweep")
    grid(tmp_path / "sweep")
    (tmp_path / "waiting").mkdir()
    (tmp_path / "waiting" / "status.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "inner" if words == ["."] else tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and told in line


def test_a_damaged_file_costs_its_run_alone(tmp_path: Path, capsys) -> None:
    grid(tmp_path / "sweep")
    (tmp_path / "sweep" / "loss-vlb_seed-1" / "metrics.json").write_text('{"status": "fin')
    (tmp_path / "sweep" / "loss-vlb_seed-0" / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    main([str(tmp_path / "sweep"), "page=false"])
    assert "loss-vlb_seed-1: metrics.json is damaged" in capsys.readouterr().out


def test_of_a_sweep_the_jobs_of_earlier_commands_of_its_name_are_compared_too(tmp_path: Path, capsys) -> None:
    grid(tmp_path / "sweep")
    write_jobs(tmp_path / "sweep", [f"loss-vlb_seed-{seed}" for seed in range(3)])
    main([str(tmp_path / "sweep"), "page=false"])
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:4]] == [
        ["simple", "3"],
        ["vlb", "3"],
        ["dsm", "3"],
    ]


def test_several_folders_and_a_folder_of_sweeps_are_compared_together(tmp_path: Path, capsys) -> None:
    grid(tmp_path / "logs" / "a")
    grid(tmp_path / "logs" / "b")
    main([str(tmp_path / "logs"), "page=false"])
    whole = capsys.readouterr().out
    assert [line.split()[1] for line in whole.splitlines()[1:4]] == ["3", "3", "3"]
    main([str(tmp_path / "logs" / "a"), str(tmp_path / "logs" / "b"), "page=false"])
    assert capsys.readouterr().out == whole


def test_neither_torch_nor_a_framework_is_imported(tmp_path: Path) -> None:
    grid(tmp_path / "sweep", 1)
    code = (
        "import sys; sys.path.insert(0, 'src'); from scorelab.app.compare import main; "
        f"main([{str(tmp_path / 'sweep')!r}]); "
        "print(sorted({'torch', 'lightning', 'hydra', 'omegaconf', 'wandb', 'pandas'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_time_grows_with_the_number_of_runs_and_no_faster(tmp_path: Path) -> None:
    """Reading and ranking ten times as many configurations takes ten times as long, not a hundred times."""
    seconds = []
    for count in (60, 600):
        for number_ in range(count):
            made = run("simple", 0, {"test/simple": 1.0 + number_}, config={"on_nan": f"word{number_}"})
            left(tmp_path / str(count) / f"on_nan-{number_}", made)
        each = []
        for _ in range(2):  # the quicker: the machine may have been busy
            began = time.process_time()
            compared(read([tmp_path / str(count)]), Asked())
            each.append(time.process_time() - began)
        seconds.append(min(each))
    assert seconds[1] < 30 * seconds[0]


def test_a_number_that_is_none_costs_neither_the_table_nor_the_page(tmp_path: Path, capsys) -> None:
    """NaN in a file, no seconds: a dash."""
    grid(tmp_path / "sweep")
    file = tmp_path / "sweep" / "loss-vlb_seed-1" / "metrics.json"
    content = json.loads(file.read_text())
    del content["seconds"]
    curve = {"simple": {"log_snr": [0.0, 1.0], "error": [float("nan"), 1.0]}}
    numbers = {"test/simple": float("nan"), "test/fid": 7.0}
    file.write_text(json.dumps(content | {"metrics": numbers, "records": curve}))
    main([str(tmp_path / "sweep"), "columns=simple,seconds", "by=fid"])
    assert "(2 of 3)" in capsys.readouterr().out
    assert (tmp_path / "sweep" / "compare.html").exists()


def test_numbers_of_a_run_that_failed_afterwards_count_nowhere() -> None:
    runs = several("simple", [1, 2, 3]) + several("vlb", [0.1, 0.2, 0.3], without="failed: disk full")
    (section,) = ranking(runs, CALLED, by="test/simple").sections
    assert section.rows[1].cells["test/simple"].mean is None and section.rows[1].improved is None


def test_what_is_not_ranked_stands_in_no_figure_of_the_page() -> None:
    runs = [of_samples("simple", seed, 3.0 + seed) for seed in range(3)]
    runs += [of_samples("vlb", seed, 0.1, n=50) for seed in range(2)]
    shown_ = payload(ranking(runs, CALLED, ["test/simple"], "test/fid"), "title", {})
    values = [[made["values"].get("test/fid") for made in each["runs"]] for each in shown_["configurations"]]
    assert values == [[3.0, 4.0, 5.0], [None, None]]
    assert "not ranked by fid: vlb_cosine_0, vlb_cosine_1: n is 50" in shown_["sections"][0]["left_out"][0]


def test_distances_of_eval_are_shown_where_they_are_of_as_many_samples(tmp_path: Path) -> None:
    def record(n: int, evaluations_: int) -> dict:
        return {"fid": {"n": n, "reference": "train", "network_evaluations_per_sample": evaluations_}}

    own = run("simple", 0, {"test/fid": 3.0}, records=record(100, 50))
    left(tmp_path / "run", own)
    for name, n, evaluations_ in (("a", 100, 10), ("b", 20, 20)):
        left(tmp_path / "run" / "eval" / name, replace(own, metrics={"test/fid": 9.0}, records=record(n, evaluations_)))
    found = evaluations(read_run(tmp_path / "run"))
    assert found == [{"evaluations": 50.0, "fid": 3.0}, {"evaluations": 10.0, "fid": 9.0}]


def test_the_mean_of_one_run_has_no_standard_error() -> None:
    assert Mean.of([3.0]) == Mean(3.0, None, 1) and Mean.of([]) is None
    assert " ± " not in text(ranking(several("simple", [1.0]), CALLED))


def test_an_unfinished_run_says_how_it_stands(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    assert read_run(tmp_path).without == "not started" and read_run(tmp_path).config == {"seed": 3}
    assert asked(["fold=seed,loss"]).fold == ("seed", "loss")


# --- words


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "metrics").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_number_of_a_yardstick_has_a_meaning_and_its_records_are_found(path: Path) -> None:
    module, _, name = yaml.safe_load(path.read_text())["_target_"].rpartition(".")
    of_choices = {"Objectives": ("objective_vlb",), "SamplerComparison": ("sampler_ddim",)}
    names = of_choices.get(name) or getattr(import_module(module), name).names
    assert names
    for each in names:
        assert number(f"test/{each}").meaning, each
        assert yardstick(f"test/{each}") == path.stem, each


@pytest.mark.parametrize("name", sorted({*DEFAULT, *(name for names in BY_YARDSTICK.values() for name in names)}))
def test_every_number_is_in_the_glossary(name: str) -> None:
    words, last = (ROOT / "docs" / "glossary.md").read_text(), name.rpartition("/")[2]
    assert re.search(rf"^- \*\*[^*]*\b{last}\b", words, re.MULTILINE) or f"`{last}`" in words or f"/{last}" in words


@pytest.mark.parametrize(
    ("value", "se", "told"),
    [
        (12.3456, 0.0123, "12.346 ± 0.012"),
        (43.49, 6.866, "43.5 ± 6.9"),
        (1234.5, 99.6, "1234 ± 100"),
        (0.5, 0.0, "0.500 ± 0.000"),
    ],
)
def test_a_standard_error_has_two_digits_and_its_number_as_many_places(value: float, se: float, told: str) -> None:
    assert " ± ".join(map(str, with_error(value, se))) == told
