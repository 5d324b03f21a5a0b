"""What benchmarks share: candidates timed in turn, their ratios round by round, a table, and the machine in a line.

    times = interleaved({"diffusers": theirs, "scorelab": ours}, rounds=12)
    print(machine())
    print(table(rows(times, base="diffusers")))

On a machine that others use too, times drift more than candidates differ, and what one round takes is slowed alike for
all: so a difference is read from the ratios within rounds, and told only where they leave no doubt of its sign.
"""

import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

DOUBT = 0.05  # how often a difference may be told of candidates that are equally fast


def interleaved(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    warmups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """The seconds of each candidate in each round, after rounds that do not count; each round begins with another one.

    ``clock`` may be ``time.process_time``, which leaves out what other processes took from a single thread.
    """
    names, times = list(candidates), {name: [0.0] * rounds for name in candidates}
    for number in range(-warmups, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()  # so that none is charged for what another left
            began = clock()
            candidates[name]()
            if number >= 0:
                times[name][number] = clock() - began
    return times


@dataclass(frozen=True)
class Row:
    """A candidate's seconds, one a round, and those of the candidate it is compared with, if any, in the same rounds.

    ``units`` is how many things one call does: what is told is the time of one.
    """

    name: str
    seconds: list[float]
    base: list[float] | None = None
    units: int = 1

    @property
    def median(self) -> float:
        """Of the seconds a unit."""
        return statistics.median(self.seconds) / self.units

    @property
    def spread(self) -> float:
        """The interquartile range of the seconds a unit; 0 of a single round."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.units

    @property
    def ratios(self) -> list[float]:
        """Of the seconds to those of the other, round by round; none for who is compared with nobody."""
        return [one / other for one, other in zip(self.seconds, self.base or [], strict=False)]

    @property
    def interval(self) -> tuple[float, float]:
        """Where the median ratio lies: see ``median_interval``."""
        return median_interval(self.ratios)

    @property
    def told_apart(self) -> bool:
        """Whether the rounds say which of the two is faster."""
        low, high = self.interval
        return high < 1 or low > 1

    @property
    def verdict(self) -> str:
        """The median ratio and its interval, or that they do not say which is faster."""
        if not self.ratios:
            return ""
        low, high = self.interval
        seen = f"{statistics.median(self.ratios):.3f} ({low:.3f} to {high:.3f})"
        return seen if self.told_apart else f"not told apart ({low:.3f} to {high:.3f})"


def median_interval(values: list[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics that misses the median with a chance below ``DOUBT``, of whatever law.

    The k-th lowest and highest of n, where 2 P(Binomial(n, 1/2) < k) < ``DOUBT``: everything, of fewer than 6.
    """
    n, chance = len(values), 0.0
    low, high = -math.inf, math.inf
    for below, (lower, higher) in enumerate(zip(sorted(values), sorted(values, reverse=True), strict=True)):
        chance += 2 * math.comb(n, below) / 2**n
        if chance >= DOUBT:
            break
        low, high = lower, higher
    return low, high


def rows(times: dict[str, list[float]], base: str | None = None, units: int = 1) -> list[Row]:
    """A row for each candidate, all compared with ``base``."""
    return [
        Row(name, seconds, times[base] if base is not None and name != base else None, units)
        for name, seconds in times.items()
    ]


def table(of: Iterable[Row], what: str = "", scale: float = 1e3, unit: str = "ms") -> str:
    """Markdown: each row's median and interquartile range, its ratio to the base and where that one's median lies."""
    lines = [f"| {what} | {unit}, median | interquartile | ratio | rounds |", "|---|---|---|---|---|"]
    for row in of:
        median, wide = f"{row.median * scale:.4g}", f"{row.spread * scale:.2g}"
        lines.append(f"| {row.name} | {median} | {wide} | {row.verdict} | {len(row.seconds)} |")
    return "\n".join(lines)


class Memory:
    """MiB by which this process grows at its most after this was made; Linux tells it."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
        self.before = _mib("VmRSS")

    @property
    def grown(self) -> float:
        """Until now."""
        return _mib("VmHWM") - self.before


def _mib(of: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(of)) / 1024


def machine() -> str:
    """What the numbers are of: processor, cores and how many wait for them, threads, torch, and the day."""
    of = f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return f"{of}, torch {torch.__version__} on {torch.get_num_threads()} thread(s), {date.today()}"


def processor() -> str:
    """As Linux names it, or else as Python does."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
