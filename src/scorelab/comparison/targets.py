"""How long a run took to reach a target: its seconds of training, its images."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scorelab.comparison.runs import Run
from scorelab.errors import UserError


@dataclass(frozen=True)
class Target:
    """A number that is to fall below (``<``) or rise above (``>``) a value while a run trains: fid is val/fid."""

    name: str
    sign: str
    value: float

    @classmethod
    def read(cls, typed: str) -> "Target":
        """fid<20, val/simple<0.2, recognised>0.9.

        Raises:
            UserError: for what is none.
        """
        found = re.fullmatch(r"([\w/]+)\s*([<>])\s*([-+.\deE]+)", typed)
        try:
            if found is None:
                raise ValueError
            return cls(found[1] if "/" in found[1] else f"val/{found[1]}", found[2], float(found[3]))
        except ValueError:
            raise UserError(f"target={typed}: a number and a value, in quotes: 'target=fid<20'") from None

    def __str__(self) -> str:
        return f"{self.name.removeprefix('val/')}{self.sign}{self.value:g}"

    @property
    def columns(self) -> tuple[str, str]:
        """What the two numbers are called."""
        return f"seconds to {self}", f"images to {self}"

    def reached(self, run: Run) -> int | None:
        """The first step at which a run says that it has; None for never, and where it does not say."""
        steps = [
            step
            for step, value in run.curve(self.name)
            if math.isfinite(value) and (value < self.value if self.sign == "<" else value > self.value)
        ]
        return min(steps, default=None)


def with_target(runs: Sequence[Run], target: Target) -> list[Run]:
    """The runs with two numbers more.

    Raises:
        UserError: where no run tells the number while it trains.
    """
    known = {key for run in runs for row in run.history for key in row}
    if target.name not in known or target.name.startswith("test/"):
        told = ", ".join(sorted(key for key in known if key.startswith("val/"))) or "none"
        last = target.name.rpartition("/")[2]
        why = "is told at the end alone" if f"test/{last}" in known else "is told by no run"
        raise UserError(f"target={target}: {last} {why}; told while training: {told}")
    found = []
    for run in runs:
        step = target.reached(run)
        numbers = (None, None) if step is None else (run.seconds_at(step), float(step * run.batch))
        found.append(replace(run, metrics=dict(run.metrics) | dict(zip(target.columns, numbers, strict=True))))
    return found
