"""Runs killed at random moments end, started again with the same command, as if they had not been: make test-faults."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from faults.jobs import run
from faults.scenarios import HANDS, SCENARIOS, SEED, Scenario
from faults.tear import played

pytestmark = pytest.mark.faults

BY_FAMILY = [
    pytest.param(scenario, marks=pytest.mark.xdist_group(scenario.family), id=scenario.name) for scenario in SCENARIOS
]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scenario], Path]:
    """The directory of a family's run that is never killed, made when first asked for."""
    made: dict[str, Path] = {}

    def of(scenario: Scenario) -> Path:
        if scenario.family not in made:
            folder = tmp_path_factory.mktemp(scenario.family)
            ended = run(folder, (*scenario.words, "run=whole"))
            assert ended.code == 0, ended.told
            made[scenario.family] = folder / "logs" / "train" / "whole"
        return made[scenario.family]

    return of


@pytest.mark.parametrize("scenario", BY_FAMILY)
def test_a_killed_run_ends_as_if_it_had_not_been(
    scenario: Scenario, whole: Callable[[Scenario], Path], record_property: Callable[[str, object], None]
) -> None:
    wrong = []
    for torn in played(scenario, HANDS[scenario.name], whole(scenario), Random(f"{SEED} {scenario.name}")):
        record_property("faults", {"scenario": scenario.name, **torn.record()})
        wrong += ["\n".join([*torn.wrong, *torn.lines])] if torn.wrong else []
        shutil.rmtree(torn.path, ignore_errors=True)
    assert not wrong, "\n\n".join(wrong)
