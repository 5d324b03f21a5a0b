"""How many threads a process of a run computes with: what is said, what a run has had, or what its work is worth.

By the size of the work and never by a stopwatch, for the number of threads decides the last bits: the same command
chooses the same on the same machine, and a run that goes on keeps what it has.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from scorelab.config.check import checked
from scorelab.data.module import DataModule
from scorelab.denoisers import Denoiser, NetworkDenoiser
from scorelab.run.cores import cores, said

WORTH = 8e9  # of a step's floating-point operations that pay for a thread: see benchmarks/busy.py
BACK = 3  # a step is a pass there and about two back

log = logging.getLogger("scorelab")


@dataclass(frozen=True)
class Threads:
    """How many threads a process computes with, and a line that says why.

    Attributes:
        number: None where a GPU computes and nobody has said it, for nothing hangs on it then.
    """

    number: int | None
    told: str


def choose(typed: object, had: object, processes: int, cost: Callable[[], float] | None) -> Threads:
    """The threads of each of so many processes of this machine.

    ``typed`` is what ``threads=`` says, ``had`` what the run has been computed with so far; either may be None.
    ``cost`` counts the operations of a step, on the CPU.

    Raises:
        UserError: for what is no number of threads.
    """
    here = cores()
    if (number := checked(typed, "threads")) is not None:
        return Threads(number, _told(number, here, "threads= says so"))
    if cost is None:
        return Threads(None, "")
    if (number := checked(had, "threads")) is not None:
        slow = f"; threads={here} is faster here, and the same to rounding" if number > here else ""
        return Threads(number, _told(number, here, f"as before{slow}"))
    if (number := said()) is not None:
        return Threads(number, _told(number, here, "OMP_NUM_THREADS says so"))
    operations = cost()
    number = max(1, min(int(operations / WORTH), here // processes))
    return Threads(number, _told(number, here, f"for {operations / 1e9:.2g} GFLOP a step; threads=N says otherwise"))


def use(number: int | None, processes: int = 1) -> None:
    """Compute with so many threads; where none is chosen, with what the user says, or an equal share of the cores."""
    torch.set_num_threads(number or said() or max(1, cores() // processes))


def taken_up(
    denoiser: Denoiser, data: DataModule, chunk: int, typed: object, had: object = None, processes: int = 1
) -> int | None:
    """The threads for what is asked of a stored run: those it ``had``, where there are cores for them; in use then.

    Raises:
        UserError: for what is no number of threads.
    """
    fitting = max(1, cores() // max(1, processes))
    kept = checked(had, "threads")
    cost = partial(work, denoiser, data, chunk) if denoiser.device.type == "cpu" else None
    chosen = choose(typed, kept and min(kept, fitting), max(1, processes), cost)
    use(chosen.number, max(1, processes))
    if chosen.told:
        log.info("%s", chosen.told)
    return chosen.number


def work(denoiser: Denoiser, data: DataModule, chunk: int) -> float:
    """Floating-point operations of the products of a training step; of a call, where nothing is trained.

    They are counted on one item. What cannot be counted is no reason for threads.
    """
    items = BACK * data.batch_size if isinstance(denoiser, NetworkDenoiser) else chunk
    try:
        return items * of_one(denoiser, data.shape)
    except Exception as error:  # it will show itself where it is needed
        log.debug("what a step costs cannot be counted: %r", error)
        return 0.0


@torch.no_grad()
def of_one(denoiser: Denoiser, shape: tuple[int, ...]) -> float:
    """Floating-point operations of the products by which a denoiser answers for one item."""
    modes = {part: part.training for part in denoiser.modules()}
    t, label = torch.full((1,), sum(denoiser.time_range()) / 2, dtype=torch.float64), torch.zeros(1).long()
    denoiser.eval()  # so that no state changes
    try:
        with torch.random.fork_rng([]), FlopCounterMode(display=False) as counter:
            denoiser(torch.zeros(1, *shape), t, label)
    finally:
        for part, training in modes.items():
            part.training = training
    return float(counter.get_total_flops())


def _told(number: int, here: int, why: str) -> str:
    threads = "one thread" if number == 1 else f"{number} threads"
    return f"{threads}, {here} core{'' if here == 1 else 's'}: {why}"
