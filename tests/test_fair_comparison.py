"""What may not win, may not be averaged and may not be drawn: comparisons that a hostile reader would try."""

import csv
import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from test_comparison import CALLED, grid, left, of_samples, run, several

from scorelab.app.compare import main
from scorelab.comparison.folding import folded
from scorelab.comparison.like import CIRCUMSTANCES, alike
from scorelab.comparison.picture import draw_comparison, draw_curves
from scorelab.comparison.ranking import ranking
from scorelab.comparison.runs import Run, read_history, read_run
from scorelab.comparison.sheets import csv_text, tex, text
from scorelab.comparison.statistics import holm, paired
from scorelab.comparison.targets import Target, with_target
from scorelab.errors import UserError

SIMPLE = "test/simple"


# --- winners


@pytest.mark.parametrize(("name", "sign"), [("test/simple", 1.0), ("test/recognised", -1.0)])
def test_who_is_worse_over_common_seeds_wins_nothing_though_its_mean_is_the_best(name: str, sign: float) -> None:
    """Two more seeds, both lucky, make its mean; over the three that both have it is clearly worse."""
    runs = several("simple", [sign * v for v in (1.00, 1.10, 1.20)], name)
    runs += several("vlb", [sign * v for v in (1.02, 1.121, 1.219, 0.7, 0.75)], name)
    found = ranking(runs, CALLED, by=name)
    first, second = found.sections[0].rows
    assert first.configuration.choices["loss"] == "vlb" and not first.cells[name].wins
    assert second.cells[name].p is not None and second.cells[name].p < 0.05
    assert "loss=vlb cannot be told from loss=simple" in text(found)
    assert "wins" not in csv_text(found) and "mathbf" not in tex(found)


def test_the_p_of_a_column_are_adjusted_for_all_its_rows() -> None:
    runs = several("simple", [1.0, 1.1, 1.2])
    runs += several("vlb", [1.2, 1.33, 1.37]) + several("dsm", [1.5, 1.63, 1.66])
    rows = ranking(runs, CALLED).sections[0].rows
    values = [row.configuration.values(SIMPLE) for row in rows]
    alone = [paired(each, values[0]).p for each in values[1:]]  # type: ignore[union-attr]
    assert [row.cells[SIMPLE].p for row in rows[1:]] == pytest.approx(holm(alone))
    assert holm(alone) != pytest.approx(alone)


def test_runs_that_a_number_does_not_rank_are_in_no_difference_and_no_probability() -> None:
    runs = [of_samples("simple", seed, 3.0 + 0.1 * seed) for seed in range(4)]
    runs += [of_samples("vlb", seed, 4.0 + 0.11 * seed) for seed in range(4)]
    runs += [of_samples("vlb", 4, 0.1, n=5), of_samples("simple", 4, 9.0, n=5), of_samples("dsm", 0, 0.1, n=5)]
    first, second, third = ranking(runs, CALLED, by="test/fid").sections[0].rows
    assert third.improved is None
    assert not first.cells["test/fid"].ranked, "its fifth seed is of other circumstances"
    assert second.cells["test/fid"].to_best is None


def test_steps_of_a_coarse_number_that_are_the_same_for_every_seed_are_no_certainty() -> None:
    difference = paired({0: 200.0, 1: 400.0, 2: 300.0}, {0: 100.0, 1: 300.0, 2: 200.0})
    assert difference is not None and (difference.mean, difference.p, difference.low) == (100.0, None, None)
    equal = paired({0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert equal is not None and equal.p == 1.0


def test_tasks_on_two_data_sets_are_two_though_all_else_is_the_same() -> None:
    """Simple is better on one set and worse on the other: the probability of improvement is a half."""
    runs = several("simple", [1.0, 1.1]) + several("vlb", [2.0, 2.1])
    runs += several("simple", [20.0, 21.0], data="moons") + several("vlb", [10.0, 11.0], data="moons")
    sections = ranking(runs, CALLED).sections
    assert [row.improved for section in sections for row in section.rows] == [None, 0.5, None, 0.5]


def test_no_winner_is_told_with_the_reason_that_holds() -> None:
    apart = several("simple", [1.0, 1.1, 1.2]) + several("vlb", [1.0, 1.3, 1.1]) + several("dsm", [5.0])
    told = text(ranking(apart, CALLED))
    assert "loss=simple cannot be told from loss=vlb; it takes 3 seeds in common with loss=simple: loss=dsm" in told


def test_a_number_without_a_direction_has_neither_winner_nor_improvement() -> None:
    runs = several("simple", [1, 2, 3], "test/fid_floor") + several("vlb", [4, 5, 6], "test/fid_floor")
    found = ranking(runs, CALLED, by="test/fid_floor")
    assert "neither less nor more of it is better" in text(found)
    assert all(row.improved is None for row in found.sections[0].rows)


def test_a_star_among_unfinished_runs_says_so() -> None:
    runs = (
        several("simple", [1.0, 1.1, 1.2]) + several("vlb", [2.0, 2.11, 2.19]) + [run("dsm", 0, {}, without="running")]
    )
    assert "better than every other that has finished" in text(ranking(runs, CALLED))


def test_a_rate_is_not_chosen_for_its_lucky_seeds() -> None:
    def rate(lr: float, seed: int, val: float | None) -> Run:
        config = {"optimizer": {"_target_": "torch.optim.AdamW", "lr": lr}}
        return run("simple", seed, {"val/simple": val, "test/fid": 1.0}, config=config)

    runs = [rate(0.003, seed, 0.41) for seed in range(3)] + [rate(0.01, 0, 0.39)]
    runs += [replace(rate(0.01, seed, None), metrics={}, without="failed: diverged") for seed in (1, 2)]
    (row,) = ranking(runs, CALLED, by="test/fid", best_of="optimizer.lr").sections[0].rows
    assert row.configuration.choices["optimizer.lr"] == "0.003"


def test_what_could_not_be_chosen_has_no_numbers_anywhere() -> None:
    runs = []
    for lr in (0.001, 0.01):
        config = {"optimizer": {"_target_": "torch.optim.AdamW", "lr": lr}}
        for seed in range(3):
            runs.append(run("simple", seed, {"test/fid": 1.0}, config=config))
            runs.append(run("vlb", seed, {"test/fid": 9.0, "val/simple": lr}, config=config))
    found = ranking(runs, CALLED, by="test/fid", best_of="optimizer.lr")
    assert [row.configuration.choices["loss"] for row in found.sections[0].rows] == ["vlb", "simple"]
    row = next(row for row in csv.DictReader(io.StringIO(csv_text(found))) if row["loss"] == "simple")
    assert row["optimizer.lr"] == "?" and row["test/fid (of the last weights)"] == ""
    assert "? no val/simple to choose optimizer.lr by" in text(found) and "1.00" not in tex(found)


# --- like with like


ASIDE = (  # written out once more, so that none is lost
    "reference n images sets extractor extractor_hash rounding labels subset_size subsets splits neighbours items of "
    "lattice dequantisation decoder"
)


def test_these_circumstances_are_all_that_are_compared() -> None:
    assert set(CIRCUMSTANCES) == {"data", *ASIDE.split()}


@pytest.mark.parametrize("key", ASIDE.split())
def test_each_circumstance_that_is_recorded_keeps_numbers_apart(key: str) -> None:
    runs = [of_samples("simple", 0, 1.0, **{key: "one"}), of_samples("simple", 1, 1.0, **{key: "other"})]
    ranked, (told,) = alike(runs, "test/fid")
    assert len(ranked) == 1 and told.why.startswith(f"{key} is")


@pytest.mark.parametrize(
    ("name", "records"),
    [
        ("test/score_error", lambda n: {"score_error": {"held_out": {"n": n}}}),
        ("test/excess", lambda n: {"score_error": {"held_out": {"n": n}}}),
        ("test/vlb", lambda n: {"vlb": {"images": n}}),
    ],
)
def test_a_number_of_other_held_out_items_is_not_ranked(name: str, records) -> None:
    runs = [run("simple", 0, {name: 1.0}, records=records(720)), run("vlb", 0, {name: 0.5}, records=records(20))]
    assert len(alike(runs, name)[0]) == 1


def test_a_number_told_while_training_is_ranked_where_it_is_of_as_many_items() -> None:
    def of(items: int, samples: int) -> Run:
        callbacks = {"validation": {"items": items}, "grid": {"samples": samples}}
        return run("simple", items, {"val/simple": 1.0, "val/fid": 1.0}, config={"callbacks": callbacks})

    assert len(alike([of(512, 256), of(8, 256)], "val/simple")[0]) == 1
    assert len(alike([of(512, 256), of(8, 256)], "val/fid")[0]) == 2
    assert len(alike([of(512, 256), of(512, 64)], "val/fid")[0]) == 1


def test_why_a_number_is_missing_is_told() -> None:
    runs = several("simple", [1, 2, 3]) + several("vlb", [1, 2, 3])
    for place, each in enumerate(runs):
        metrics = dict(each.metrics) | {"test/vlb": None if place in (1, 2) else 3.0}
        runs[place] = replace(each, metrics=metrics, records={"vlb": {"skipped": f"needs {place},000 more"}})
    told = text(ranking(runs, CALLED))
    assert "not ranked by test/vlb: simple_cosine_1, simple_cosine_2: needs 1,000 more" in told


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"callbacks": {"averaging": {"_target_": "a.Ema"}}}, {"callbacks": {"averaging": {"_target_": "a.Power"}}}),
        ({"loss": {"_target_": "my.v1.Loss"}}, {"loss": {"_target_": "my.v2.Loss"}}),
    ],
)
def test_other_classes_make_other_rows_even_of_one_name(one: dict, other: dict) -> None:
    runs = [run("simple", 0, {SIMPLE: 1.0}, config=one), run("simple", 1, {SIMPLE: 5.0}, config=other)]
    assert len(folded(runs, CALLED).configurations) == 2


def test_1_and_1_0_are_one_value() -> None:
    runs = [run("simple", 0, {SIMPLE: 1.0}, config={"on_nan": value}) for value in (1, 1.0, 2)]
    assert [each.choices["on_nan"] for each in folded(runs, CALLED).configurations] == ["1", "2"]


def test_the_best_and_the_last_weights_of_a_run_are_two_rows(tmp_path: Path) -> None:
    for name, value in (("best", 0.5), ("last", 1.0)):
        left(tmp_path / name, run("simple", 0, {SIMPLE: value}))
        file = tmp_path / name / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"overrides": [f"checkpoint={name}"]}))
    runs = [read_run(tmp_path / name) for name in ("best", "last")]
    assert [each.choices["checkpoint"] for each in folded(runs, CALLED).configurations] == ["best", "last"]


def test_data_sets_of_one_name_are_told_apart_by_what_differs() -> None:
    def split(seed: int) -> Run:
        data = {"_target_": "d.Data", "source": {"_target_": "scorelab.data.standard.Digits", "split_seed": seed}}
        return run("simple", 0, {SIMPLE: 1.0}, config={"data": data})

    assert [section.data for section in ranking([split(0), split(1)], CALLED).sections] == [
        "split_seed=0",
        "split_seed=1",
    ]


# --- targets


def test_a_target_is_reached_while_training_and_by_no_number_of_the_end() -> None:
    rows = [{"step": 100, "val/fid": 3.0}, {"step": 200, "val/fid": 1.5, "test/fid": 0.1, "test/fid_excess": 0.1}]
    own = run("simple", 0, {}, rows=rows, config={"data": {"batch_size": 10}})
    assert with_target([own], Target.read("fid<2"))[0].metrics["images to fid<2"] == 2000
    assert with_target([own], Target.read("fid<1"))[0].metrics["images to fid<1"] is None
    for typed in ("fid_excess<2", "test/fid<2"):
        with pytest.raises(UserError, match="is told at the end alone; told while training: val/fid"):
            with_target([own], Target.read(typed))
    with pytest.raises(UserError, match="fid is told at the end alone"):
        with_target([own], Target.read("foo/fid<1"))


# --- pictures


def drawn(monkeypatch: pytest.MonkeyPatch, draw, found, tmp_path: Path):
    """The figure that is drawn, as matplotlib has it."""
    from scorelab.comparison import picture

    kept = []
    save = picture._save
    monkeypatch.setattr(picture, "_save", lambda figure, path: (kept.append(figure), save(figure, path)))
    draw(tmp_path / "a.png", found)
    return kept[0]


def test_the_picture_shows_means_with_one_standard_error_of_what_is_ranked(monkeypatch, tmp_path: Path) -> None:
    runs = [of_samples("simple", seed, 3.0 + seed) for seed in range(3)]
    runs += [of_samples("vlb", seed, 4.0 + seed) for seed in range(3)]
    runs += [of_samples("dsm", seed, 0.1, n=5) for seed in range(3)]
    runs += [run("vlb", 9, {}, without="failed")]
    found = ranking(runs, CALLED, by="test/fid")
    axes = drawn(monkeypatch, draw_comparison, found, tmp_path).axes[0]
    bars = [segment for part in axes.containers for segment in part[2][0].get_segments()]
    se = 1 / math.sqrt(3)
    assert [bar[:, 0].tolist() for bar in bars] == [pytest.approx([4 - se, 4 + se]), pytest.approx([5 - se, 5 + se])]
    assert "3 seeds" in axes.get_title("left") and "1 not ranked, not drawn" in axes.get_title("left")


def test_along_a_logarithmic_axis_numbers_are_plain(monkeypatch, tmp_path: Path) -> None:
    runs = [run(loss, seed, {SIMPLE: scale + seed}) for loss, scale in (("simple", 3), ("vlb", 90)) for seed in (0, 1)]
    figure = drawn(monkeypatch, draw_comparison, ranking(runs, CALLED), tmp_path)
    axis = figure.axes[0].xaxis
    labels = [each.get_text() for each in (*axis.get_majorticklabels(), *axis.get_minorticklabels())]
    assert figure.axes[0].get_xscale() == "log" and {"5", "10", "20", "50"} <= set(labels)


def test_the_curve_of_a_configuration_is_the_mean_of_its_finished_seeds(monkeypatch, tmp_path: Path) -> None:
    def curve(seed: int, last: int, **more) -> Run:
        rows = [{"step": step, "val/simple": 1.0 + seed} for step in range(100, last + 1, 100)]
        return run("simple", seed, {} if more else {SIMPLE: 1.0}, rows=rows, **more)

    runs = [curve(0, 300), curve(1, 300), curve(5, 100, without="failed: diverged")]
    figure = drawn(monkeypatch, draw_curves, ranking(runs, CALLED), tmp_path)
    mean = max(figure.axes[0].lines, key=lambda line: line.get_linewidth())
    assert (mean.get_xdata().tolist(), mean.get_ydata().tolist()) == ([100, 200, 300], [1.5, 1.5, 1.5])


# --- odd files and words


def test_a_dollar_in_a_value_is_a_dollar_in_pictures_and_in_latex_a_row_may_begin_with_a_bracket(
    tmp_path: Path,
) -> None:
    for value in ("$\\frac{$", "[1, 2]", "_hidden\nline"):
        for seed in range(2):
            made = run("simple", seed, {SIMPLE: 1.0}, config={"on_nan": value})
            left(tmp_path / f"{len(value)}-{seed}", made)
    main([str(tmp_path), "page=false"])
    assert (tmp_path / "compare.png").stat().st_size > 200 and (tmp_path / "curves.png").stat().st_size > 200
    rows = [line for line in (tmp_path / "compare.tex").read_text().splitlines() if line.endswith(r"\\")][1:]
    assert len(rows) == 3 and all(row.startswith("{}") for row in rows)
    assert r"{}\$\textbackslash{}frac\{\$ & 2 &" in rows[0]


def odd(metrics: object, records: object, config: object) -> str:
    return json.dumps({"status": "finished", "metrics": metrics, "records": records, "config": config})


ODD = [
    odd({SIMPLE: 1e200}, {}, {"seed": 0}),
    "[" * 100_000,
    odd({SIMPLE: 1.0}, {"simple": [1], "data": "x"}, {"data": "foo"}),
    odd({SIMPLE: 1.0}, {"training": [1]}, {"data": {"batch_size": "a"}}),
    odd({SIMPLE: 1.0}, {"score_error": 3}, {"trainer": 3, "callbacks": []}),
]


@pytest.mark.parametrize("content", ODD)
def test_odd_content_costs_no_more_than_its_run(content: str, tmp_path: Path, capsys) -> None:
    grid(tmp_path)
    (tmp_path / "loss-vlb_seed-1" / "metrics.json").write_text(content)
    (tmp_path / "loss-vlb_seed-0" / "metrics.csv").write_text("step,val/simple\n1,2\n" + "\0" * 200_000 + "\n3,4\n")
    main([str(tmp_path)])
    assert "simple" in capsys.readouterr().out
    assert [row["step"] for row in read_history(tmp_path / "loss-vlb_seed-0" / "metrics.csv")] == [1, 3]


def test_what_looks_at_directories_does_not_go_with_wandb(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["wandb=a/b", "status=true"])
    assert "leave wandb= out" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_may_not_be_read_is_named(tmp_path: Path, capsys) -> None:
    grid(tmp_path / "sweep")
    (tmp_path / "sweep" / "loss-vlb_seed-1").chmod(0)
    with pytest.raises(SystemExit):
        main([str(tmp_path / "sweep")])
    assert "Permission denied" in capsys.readouterr().err
