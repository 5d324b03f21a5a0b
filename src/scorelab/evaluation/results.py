"""Evaluation: named yardsticks, run in turn within a budget of network evaluations."""

import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from scorelab.denoisers import Exact
from scorelab.errors import OverBudget, Refusal, Unavailable, UserError, short_of_memory
from scorelab.evaluation.base import EvaluationContext, Result, Yardstick
from scorelab.evaluation.curves import bins_in_range
from scorelab.log_snr import LOWEST, WIDTH
from scorelab.tensors import generator

LONG = 2.0  # seconds


@dataclass
class Results:
    """Numbers and circumstances of all yardsticks."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Why, by yardstick, where one has failed: the program is at fault."""
        return {name: record["failed"] for name, record in self.records.items() if "failed" in record}


@torch.no_grad()
def run_yardsticks(
    yardsticks: dict[str, Yardstick],
    context: EvaluationContext,
    say: Callable[[str], None],
    shown: Callable[[int], AbstractContextManager[Any]] = nullcontext,
) -> Results:
    """Run the yardsticks within the budget, those of fixed cost first, so that the others cannot take it from them.

    What is left out is so by name, and never shrunk: a yardstick that does not apply to the context has no numbers; one
    that does not fit the budget, or finds that it cannot tell its numbers, has None; so has one that fails, which does
    not take the others along. The reason is said, and in records. What the machine does, short memory too, ends all.

    Says the cost and the seconds to expect before starting; ``shown`` is told the cost, and is open meanwhile.
    """
    evaluation = Evaluation(context, say)
    costs = evaluation.costs(yardsticks)
    expected = expected_cost(yardsticks, context)
    say(forecast(expected, context.settings.budget))
    with shown(expected.evaluations):
        for name in sorted(costs, key=lambda name: yardsticks[name].turn(context.settings)):
            evaluation.run(name, yardsticks[name])
    results = Results()
    for name in yardsticks:
        result = evaluation.results[name]
        results.metrics |= {key if "/" in key else f"test/{key}": value for key, value in result.metrics.items()}
        spent = {"evaluations": result.evaluations, "seconds": round(evaluation.seconds.get(name, 0.0), 2)}
        rows = [asdict(row) for row in yardsticks[name].rows_of(context) if row.number in result.metrics]
        caution = yardsticks[name].caution(context) if result.evaluations else None
        warned = {} if caution is None else {"warning": caution}
        results.records[name] = result.records | warned | spent | ({"rows": rows} if rows else {})
    return results


def misled(context: EvaluationContext, yardstick: Yardstick) -> str | None:
    """Why a guided denoiser has nothing to tell a yardstick; None where it has."""
    if context.denoiser.guided and not yardstick.of_samples:
        return "a guided denoiser is no E[x_0 | x_t], and has neither error nor likelihood: look without guidance"
    return None


class Evaluation:
    """One evaluating on its way: what is left of the budget, and by yardstick its result and the seconds it took."""

    def __init__(self, context: EvaluationContext, say: Callable[[str], None]) -> None:
        self.context, self.say, self.left = context, say, context.settings.budget
        self.results: dict[str, Result] = {}
        self.seconds: dict[str, float] = {}

    def costs(self, yardsticks: dict[str, Yardstick]) -> dict[str, int]:
        """What each yardstick that applies costs at least."""
        costs = {}
        for name, yardstick in yardsticks.items():
            with self.caught(name, yardstick):
                if (why := misled(self.context, yardstick) or yardstick.inapplicable(self.context)) is None:
                    costs[name] = yardstick.cost(self.context)
                else:
                    self.say(f"{name} does not apply: {why}")
                    self.results[name] = Result({}, {"inapplicable": why})
        return costs

    def run(self, name: str, yardstick: Yardstick) -> None:
        """One yardstick, whose evaluations are taken from the budget however it ends."""
        started = time.perf_counter()
        with self.caught(name, yardstick):
            cost = yardstick.cost(self.context)
            if self.left is not None and cost > self.left:
                raise OverBudget(f"needs at least {cost:,} network evaluations, {self.left:,} are left")
            if (caution := yardstick.caution(self.context)) is not None:
                self.say(f"{name}, a warning: {caution}")
            self.results[name] = yardstick.run(self.context, self.left)
        self.seconds[name] = time.perf_counter() - started
        self.left = None if self.left is None else max(0, self.left - self.results[name].evaluations)

    @contextmanager
    def caught(self, name: str, yardstick: Yardstick) -> Iterator[None]:
        """Where a yardstick cannot tell its numbers, or fails, that is its result."""
        with counted(self.context) as shown:
            try:
                yield
                return
            except (Unavailable, Refusal) as error:
                spent = error.evaluations if isinstance(error, Unavailable) else 0
                hint = over(yardstick.cheaper(self.context.settings)) if isinstance(error, OverBudget) else ""
                record: dict[str, Any] = {"skipped": f"{error}{hint}"}
                self.say(f"{name} skipped: {record['skipped']}")
            except Exception as error:
                if short_of_memory(error) or isinstance(error, UserError):
                    raise
                spent = 0
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                record = {"failed": reason, "traceback": traceback.format_exc().splitlines()}
                self.say(f"{name} failed, a fault of the program: {reason}")
        spent = max(spent, shown[0] * yardstick.worth(self.context))
        self.results[name] = Result(dict.fromkeys(yardstick.names_of(self.context)), record, spent)


def over(cheaper: str) -> str:
    """What helps a yardstick that does not fit the budget."""
    return f": {cheaper}{', or ' if cheaper else ''}raise evaluation.budget (null is no limit)"


@contextmanager
def counted(context: EvaluationContext) -> Iterator[list[int]]:
    """How many images the evaluated denoiser, and the one it is compared with, are shown meanwhile: one number."""
    shown = [0]

    def count(_: torch.nn.Module, given: tuple[Any, ...]) -> None:
        shown[0] += len(given[0])

    hooks = [each.register_forward_pre_hook(count) for each in (context.denoiser, context.other) if each is not None]
    try:
        yield shown
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Cost:
    """What evaluating takes at least.

    Attributes:
        evaluations: of the network, in all.
        shares: of them, by part.
        exact: items that exact denoisers are asked about.
        seconds: that all of this lasts.
        most: evaluations that it may take at the most, where some part goes on until it is content; None is no limit.
        most_seconds: that those last.
        longer: the parts that may take more than they say.
    """

    evaluations: int
    shares: dict[str, int]
    exact: int
    seconds: float
    most: int | None
    most_seconds: float
    longer: tuple[str, ...]


def expected_cost(yardsticks: dict[str, Yardstick], context: EvaluationContext) -> Cost:
    """What these yardsticks would take at least, at the speed of one call of each denoiser measured now.

    Those that take a turn after the first go on for as long as the budget lets them.
    """
    costs = Evaluation(context, lambda _: None).costs(yardsticks)
    shares = {name: cost for name, cost in costs.items() if not yardsticks[name].of_samples}
    if sampled := [name for name in costs if yardsticks[name].of_samples]:
        shares["samples"] = context.sampling_cost
        shares |= {name: costs[name] - context.sampling_cost for name in sampled}
    total, asked = sum(shares.values()), Counter[Exact]()
    for name in costs:
        asked.update(yardsticks[name].questions(context))
    seconds = [items * seconds_per_question(context, exact) for exact, items in asked.items()]
    longer, budget = tuple(name for name in costs if yardsticks[name].turn(context.settings)), context.settings.budget
    most = max(total, budget) if longer and budget is not None else None if longer else total
    rate = evaluations_per_second(context)
    of_all, of_most = (n / rate + sum(seconds) for n in (total, math.inf if most is None else most))
    return Cost(total, shares, sum(asked.values()), of_all, most, of_most, longer)


def forecast(cost: Cost, budget: int | None) -> str:
    """One line: what each yardstick costs at least, and how long all of it lasts; at most what, where parts go on."""
    listed = ", ".join(f"{name} {share:,}" for name, share in cost.shares.items() if share)
    exact = f" and {cost.exact:,} of exact scores" if cost.exact else ""
    limit = "no limit" if budget is None else f"budget {budget:,}"
    lasts = f", about {cost.seconds:.0f} s" if math.isfinite(cost.seconds) else ""
    told = "; ".join(filter(None, (listed, limit)))
    return f"evaluating: at least {cost.evaluations:,} network evaluations ({told}){exact}{lasts}{at_most(cost)}"


def at_most(cost: Cost) -> str:
    """What more some parts may take; empty where none does, or where the budget is spent by the others."""
    names = ", ".join(cost.longer)
    if cost.most is None:
        return f"; {names} may take more, without a limit"
    if cost.most == cost.evaluations:
        return ""
    lasts = f", {cost.most_seconds:.0f} s" if math.isfinite(cost.most_seconds) else ""
    return f"; {names} may take more, all together at most {cost.most:,}{lasts}"


def evaluations_per_second(context: EvaluationContext) -> float:
    """Images per second through the network (``fastest``); NaN where it cannot be asked."""
    device, n = context.denoiser.device, context.settings.chunk
    x = torch.zeros(n, *context.train.shape[1:], device=device)
    t = torch.full((n,), context.denoiser.time_range()[1], dtype=torch.float64, device=device)
    label = context.train_labels[:1].expand(n).to(device)
    try:
        return n / fastest(lambda: float(context.denoiser(x, t, label).x0.sum()))
    except Exception as error:
        if short_of_memory(error):
            raise
        return math.nan  # it shows itself in the yardsticks


def seconds_per_question(context: EvaluationContext, exact: Exact) -> float:
    """Seconds of one item that an exact denoiser is asked about (``fastest``); NaN where it cannot be asked.

    How long it takes depends on the noise, so the call's items are spread over the log-SNRs that yardsticks look at.
    """
    rows = slice(0, context.settings.chunk)
    try:
        x0, label = context.data(context.held_out[rows]), context.labels[rows].to(exact.device)
        bins = torch.tensor(bins_in_range(context.denoiser), dtype=torch.float64, device=x0.device)
        place = torch.linspace(0, len(bins) - 0.5, len(x0), device=x0.device).long()
        t = exact.schedule.inverse(LOWEST + WIDTH * (bins[place] + 0.5))
        eps = torch.randn(x0.shape, generator=generator("questions")).to(x0.device)
        x_t = exact.noised(x0, t, eps).x_t
        return fastest(lambda: float(exact.posterior(x_t, t, label).trace.sum())) / len(x0)
    except Exception as error:
        if short_of_memory(error):
            raise
        return math.nan  # it shows itself in the yardsticks


def fastest(call: Callable[[], object]) -> float:
    """Seconds of a call, the least of three: what else the machine does only adds. One that is long is not repeated."""
    least = math.inf
    for _ in range(3):
        started = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - started)
        if least > LONG:
            break
    return least
