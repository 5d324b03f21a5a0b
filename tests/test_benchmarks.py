"""What the tables of benchmarks/ tell of times, and what they leave untold."""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def common() -> ModuleType:
    spec = importlib.util.spec_from_file_location("common_of_benchmarks", ROOT / "benchmarks" / "common.py")
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_candidates_take_turns_and_warm_up(common: ModuleType) -> None:
    seen: list[str] = []
    times = common.interleaved({name: lambda n=name: seen.append(n) for name in "abc"}, rounds=2, warmups=1)
    assert seen == list("cababcbca") and [len(each) for each in times.values()] == [2, 2, 2]


def test_a_difference_is_told_only_where_rounds_agree(common: ModuleType) -> None:
    base = [1.0] * 9
    assert common.Row("slower", [1.1] * 8 + [0.5], base).told_apart
    assert not common.Row("who knows", [1.1] * 7 + [0.5] * 2, base).told_apart
    assert not common.Row("few", [2.0] * 5, [1.0] * 5).told_apart
    assert common.Row("alone", [1.0]).verdict == ""
    assert "not told apart" in common.table([common.Row("few", [2.0] * 5, [1.0] * 5)])


def test_equals_are_told_apart_as_rarely_as_is_said(common: ModuleType) -> None:
    draw = random.Random(0)
    wrong = sum(
        common.Row("same", [draw.lognormvariate(0, 1) for _ in range(12)], [1.0] * 12).told_apart for _ in range(2000)
    )
    assert 0.02 < wrong / 2000 < common.DOUBT  # of 12 rounds 10 must agree: 3.9 %


def test_seeds_of_one_setting_are_one_row_whatever_their_seconds_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    quality = importlib.import_module("quality")
    common = {"data": "digits", "asked": "180.0", "who": "a", "setting": "b", "eta": "0.0", "weights": "9"}
    worth = {"recognised": "0.5", "copies": "0"}
    lines = [
        common | worth | {"seconds": seconds, "steps": steps, "excess": excess}
        for seconds, steps, excess in (("180", "100", "1"), ("200", "110", "3"))
    ]
    (row,) = quality.table(lines).splitlines()[2:]
    assert row.startswith("| digits | 180 | 190 ± 10 | a | b | 0 | 2 | 9 | 105 | 2.00 ± 1.00 | 0.500 ± 0.000 |")
    with pytest.raises(SystemExit, match="hight=3: what can be set is width=N"):
        quality.setting_of(["hight=3"])
