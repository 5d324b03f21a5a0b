"""A scenario played: a run killed several times, started again with the same command, and compared in the end."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

from faults.compare import differences
from faults.jobs import SOON, Ended, left_alive, run
from faults.places import Kill, Place, drawn
from faults.scenarios import CHAIN, Scenario

MOST = 10  # torn runs of one scenario: a place that is not reached by then is reported


@dataclass
class Torn:
    """One torn run: its directory, the kills made in it, what was typed, and what is wrong with it in the end."""

    path: Path
    words: tuple[str, ...]
    kills: list[Kill] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def start(self, kill: Kill | None = None) -> Ended:
        """Type the command, once more, and look at what comes of it."""
        before = Before.of(self.path)
        ended = run(self.path.parents[2], self.words, kill)
        self.lines.append(ended.line)
        self.groups.append(ended.group)
        self.wrong += wrongs(ended, before, kill)
        if kill is not None and ended.killed:
            self.kills.append(kill)
        return ended

    def record(self) -> dict[str, Any]:
        """For the report, in plain values."""
        made = [{"place": kill.place.name, "whom": kill.whom, "survived": not self.wrong} for kill in self.kills]
        return {"kills": made, "lines": self.lines, "wrong": self.wrong}


@dataclass(frozen=True)
class Before:
    """What a directory holds when a job is started in it: the steps of last.ckpt and of all, and if it is finished."""

    last: int | None
    steps: list[int]
    finished: bool

    @classmethod
    def of(cls, path: Path) -> "Before":
        """Look."""
        files = sorted((path / "checkpoints").glob("*.ckpt"))
        steps = {file.stem: torch.load(file, map_location="cpu", weights_only=True)["global_step"] for file in files}
        results = path / "metrics.json"
        finished = results.exists() and json.loads(results.read_text())["status"] == "finished"
        return cls(steps.get("last"), sorted(steps.values()), finished)


def played(scenario: Scenario, hand: list[Place], whole: Path, random: Random) -> Iterator[Torn]:
    """Torn runs, until as many kills are made as places were dealt.

    A run that ended before its kill was made is whole; the kill is drawn again, for another run.
    """
    kills = [drawn(place, scenario.whom, random) for place in hand]
    for number in range(MOST):
        path = whole.with_name(f"torn{number}")
        torn = Torn(path, (*scenario.words, *scenario.more, f"run={path.name}"))
        tear(torn, kills[:CHAIN])
        torn.wrong += [f"process {process} still lives" for process in left_alive(torn.groups)]
        torn.wrong = torn.wrong or differences(whole, path)
        yield torn
        kills = kills[len(torn.kills) :]
        if not kills:
            return
        kills[0] = drawn(kills[0].place, scenario.whom, random)
    yield Torn(path, (), wrong=[f"never reached: {kill.place.name}" for kill in kills])


def tear(torn: Torn, kills: list[Kill]) -> None:
    """Start a run again and again, each time to be killed at another place, and then once more."""
    for kill in kills:
        ended = torn.start(kill)
        if torn.wrong or ended.code == 0:
            return
    torn.start()


def wrongs(ended: Ended, before: Before, kill: Kill | None) -> list[str]:
    """What a job should not have done, and what it should have said."""
    found = []
    if ended.code is None:
        found.append(f"it hung; its last words: {ended.last_line}")
    elif kill is not None and ended.killed and kill.whom in ("rank", "worker"):
        found += unseemly(ended)
    elif ended.code != (-9 if ended.killed else 0):
        found.append(f"exit status {ended.code}: {ended.last_line}")
    at = ended.resumed_at
    if at is not None and (at not in before.steps or at < (before.last or 0)):
        found.append(f"it resumed at step {at}; there were checkpoints of {before.steps}, last.ckpt of {before.last}")
    if kill is None and before.steps and at is None and not before.finished:
        found.append(f"it did not say that it resumed; there were checkpoints of {before.steps}")
    return found


def unseemly(ended: Ended) -> list[str]:
    """What is wrong with how a job ended that lost a part: it finishes, or it fails by itself, soon, in one line."""
    if ended.code == 0:
        return []
    found = []
    if ended.code is not None and ended.code < 0:
        found.append(f"what was left of it ended by signal {-ended.code}")
    if not ended.last_line.startswith("error: ") or "Traceback" in ended.told:
        found.append(f"it did not say in one line why it failed, but: {ended.last_line}")
    if ended.after is not None and ended.after > SOON:
        found.append(f"it took {ended.after:.0f} s to notice")
    return found
