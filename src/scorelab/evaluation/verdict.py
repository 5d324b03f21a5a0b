"""Judging: named parts, run in turn within a budget of network evaluations."""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from scorelab.errors import Refusal, short_of_memory
from scorelab.evaluation.base import Case, OverBudget, Part, Result, Unjudged


@dataclass
class Verdict:
    """Numbers and circumstances of all parts."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Why, by part, where one has failed: the program is at fault."""
        return {name: record["failed"] for name, record in self.records.items() if "failed" in record}


@torch.no_grad()
def judge(parts: dict[str, Part], case: Case, say: Callable[[str], None]) -> Verdict:
    """Run the parts within the budget, those of fixed cost first, so that the others cannot take it from them.

    What is left out is so by name, and never shrunk: a part that does not apply to the case has no numbers; one that
    does not fit the budget, or finds that it cannot tell its numbers, has None; so has one that fails, which does not
    take the others along. The reason is said, and in records. Memory that is short ends all.

    Says the cost and the seconds to expect before starting.
    """
    judging = Judging(case, say)
    costs = judging.costs(parts)
    say(forecast(costs, parts, case))
    for name in sorted(costs, key=lambda name: parts[name].turn(case.metric)):
        judging.run(name, parts[name])
    verdict = Verdict()
    for name in parts:
        result = judging.results[name]
        verdict.metrics |= {key if "/" in key else f"test/{key}": value for key, value in result.metrics.items()}
        spent = {"evaluations": result.evaluations, "seconds": round(judging.seconds.get(name, 0.0), 2)}
        verdict.records[name] = result.records | spent
    return verdict


class Judging:
    """One judging on its way: what is left of the budget, and by part its result and the seconds it took."""

    def __init__(self, case: Case, say: Callable[[str], None]) -> None:
        self.case, self.say, self.left = case, say, case.metric.budget
        self.results: dict[str, Result] = {}
        self.seconds: dict[str, float] = {}

    def costs(self, parts: dict[str, Part]) -> dict[str, int]:
        """What each part that applies costs at least."""
        costs = {}
        for name, part in parts.items():
            with self.caught(name, part):
                if (why := part.inapplicable(self.case)) is None:
                    costs[name] = part.cost(self.case)
                else:
                    self.say(f"{name} does not apply: {why}")
                    self.results[name] = Result({}, {"inapplicable": why})
        return costs

    def run(self, name: str, part: Part) -> None:
        """One part, whose evaluations are taken from the budget however it ends."""
        started = time.perf_counter()
        with self.caught(name, part):
            cost = part.cost(self.case)
            if self.left is not None and cost > self.left:
                raise OverBudget(f"needs at least {cost:,} network evaluations, {self.left:,} are left")
            self.results[name] = part.run(self.case, self.left)
        self.seconds[name] = time.perf_counter() - started
        self.left = None if self.left is None else max(0, self.left - self.results[name].evaluations)

    @contextmanager
    def caught(self, name: str, part: Part) -> Iterator[None]:
        """Where a part cannot tell its numbers, or fails, that is its result."""
        with counted(self.case) as shown:
            try:
                yield
                return
            except (Unjudged, Refusal) as error:
                spent = error.evaluations if isinstance(error, Unjudged) else 0
                hint = over(part.cheaper(self.case.metric)) if isinstance(error, OverBudget) else ""
                record: dict[str, Any] = {"skipped": f"{error}{hint}"}
                self.say(f"{name} skipped: {record['skipped']}")
            except Exception as error:
                if short_of_memory(error):
                    raise
                spent = 0
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                record = {"failed": reason, "traceback": traceback.format_exc().splitlines()}
                self.say(f"{name} failed, a fault of the program: {reason}")
        spent = max(spent, shown[0] * part.worth(self.case))
        self.results[name] = Result(dict.fromkeys(part.names_of(self.case)), record, spent)


def over(cheaper: str) -> str:
    """What helps a part that does not fit the budget."""
    return f": {cheaper}{', or ' if cheaper else ''}raise metric.budget (null is no limit)"


@contextmanager
def counted(case: Case) -> Iterator[list[int]]:
    """How many images the judged denoiser, and the one it is compared with, are shown meanwhile: one number."""
    shown = [0]

    def count(_: torch.nn.Module, given: tuple[Any, ...]) -> None:
        shown[0] += len(given[0])

    hooks = [each.register_forward_pre_hook(count) for each in (case.denoiser, case.other) if each is not None]
    try:
        yield shown
    finally:
        for hook in hooks:
            hook.remove()


def forecast(costs: dict[str, int], parts: dict[str, Part], case: Case) -> str:
    """One line: what each part costs at least, and how long that takes at the speed of one call measured now."""
    shares = {name: cost for name, cost in costs.items() if not parts[name].of_samples}
    if sampled := [name for name in costs if parts[name].of_samples]:
        shares["samples"] = case.sampling_cost
        shares |= {name: costs[name] - case.sampling_cost for name in sampled}
    total = sum(shares.values())
    listed = ", ".join(f"{name} {cost:,}" for name, cost in shares.items() if cost)
    limit = "no limit" if case.metric.budget is None else f"budget {case.metric.budget:,}"
    try:
        lasts = f", about {total / evaluations_per_second(case):.0f} s"
    except Exception as error:
        if short_of_memory(error):
            raise
        lasts = ""  # a network that cannot be asked shows itself in the parts
    return f"judging: at least {total:,} network evaluations ({'; '.join(filter(None, (listed, limit)))}){lasts}"


def evaluations_per_second(case: Case) -> float:
    """Images per second through the network, from the second of two calls."""
    device, n = case.denoiser.device, case.metric.chunk
    x = torch.zeros(n, *case.train.shape[1:], device=device)
    t = torch.full((n,), case.denoiser.time_range()[1], dtype=torch.float64, device=device)
    label = case.train_labels[:1].expand(n).to(device)
    for _ in range(2):
        started = time.perf_counter()
        float(case.denoiser(x, t, label).x0.sum())
    return n / (time.perf_counter() - started)
