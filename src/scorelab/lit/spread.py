"""Calls of a network split over the processes of a run: the first evaluates, each computes its part of every batch."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from scorelab.denoisers import Denoiser, NetworkDenoiser
from scorelab.errors import MachineError, short_of_memory
from scorelab.run.signals import SIGNALS


def processes() -> int:
    """How many there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


class Spread(nn.Module):
    """A network (x, condition, label) -> output whose calls are shared by all processes; the first one's alone.

    Whoever calls it knows nothing of the others: noise, times and sums are its own, so figures are those of one process
    up to the rounding of a network that is shown fewer at once. Every image is computed by one process, but where
    their number does not divide a batch, the last one by several, of which one counts. A call that keeps gradients, or
    has fewer rows than there are processes, is not shared.

    An error in anyone's part is the call's, and the next call is shared again. ``whole`` says that the others are
    there to be asked: not so once one of them has been lost.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.whole = network, True

    def forward(self, x: Tensor, condition: Tensor, label: Tensor | None = None) -> Tensor:
        """The output for the whole batch."""
        if torch.is_grad_enabled() or len(x) < processes() or not self.whole:
            return self.network(x, condition, label)
        with SIGNALS.waiting():  # a call that has begun is finished: the others are in it
            try:
                return _shared(self.network, [x, condition, label], x.device)
            except MachineError:
                self.whole = False
                raise


def _shared(network: nn.Module, given: list[Tensor | None], device: torch.device) -> Tensor:
    """One call, by all processes; what is given is the first one's, of the others only how many there are."""
    first = distributed.get_rank() == 0
    with _together():
        forms = [[None if each is None else (each.shape, each.dtype) for each in given]]
        distributed.broadcast_object_list(forms, 0, device=device)
        if forms[0] == []:
            raise _Over
        batch: list[Tensor | None] = []
        for place, form in enumerate(forms[0]):
            mine = given[place] if first else None if form is None else _empty(*form, device)
            mine = None if mine is None else mine.contiguous()
            if mine is not None:
                distributed.broadcast(mine, 0)
            batch.append(mine)
    rows = len(batch[0]) if batch[0] is not None else 0
    share = -(-rows // processes())
    here = (distributed.get_rank() * share + torch.arange(share, device=device)).clamp(max=rows - 1)
    error, parts = None, []
    try:
        output = network(*(each if each is None else each[here] for each in batch)).contiguous()
        parts = [torch.empty_like(output) for _ in range(processes())]
    except Exception as failed:
        error = failed
    _see_well(error, device)
    with _together():
        distributed.all_gather(parts, output)
    return torch.cat(parts)[:rows]


def _see_well(error: Exception | None, device: torch.device) -> None:
    """See that nobody's part has failed, so that none waits for one that has.

    Raises:
        Exception: this process's own error.
        OtherProcessError: another's.
    """
    with _together():
        well = torch.tensor(int(error is None), device=device)
        distributed.all_reduce(well, distributed.ReduceOp.MIN)
        if well:
            return
        told: list[Any] = [None] * processes()
        distributed.all_gather_object(told, None if error is None else _in_a_line(error))
    if error is not None:
        raise error
    rank, why = next((rank, why) for rank, why in enumerate(told) if why)
    raise OtherProcessError(f"{why} (in rank{rank}.log, or what rank {rank} printed)")


def _in_a_line(error: Exception) -> str:
    return (
        f"{'out of memory: ' if short_of_memory(error) else ''}{type(error).__name__}: {' '.join(str(error).split())}"
    )


@contextmanager
def _together() -> Iterator[None]:
    """What needs all processes.

    Raises:
        MachineError: when one of them is gone.
    """
    try:
        yield
    except RuntimeError as error:
        raise MachineError(f"the processes of this run have lost each other while evaluating: {error}") from error


def _empty(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


class _Over(Exception):
    """No call follows."""


class OtherProcessError(RuntimeError):
    """Another process's part of a call has failed: what it says of it."""


@contextmanager
def spread(denoiser: Denoiser) -> Iterator[None]:
    """In the first process: have all of them compute what this denoiser's network is asked meanwhile.

    They have to ``serve`` the same network. Of one process, or for a denoiser that has no network, nothing happens.
    """
    if processes() == 1 or not isinstance(denoiser, NetworkDenoiser):
        yield
        return
    network, shared = denoiser.network, Spread(denoiser.network)
    _same(network)
    denoiser.network = shared
    try:
        yield
    finally:
        denoiser.network = network
        if shared.whole:
            over: list[Any] = [[]]
            distributed.broadcast_object_list(over, 0, device=_device(network))


@torch.no_grad()
def serve(denoiser: Denoiser) -> None:
    """In another process: compute its part of each call, until the first has no more. What fails is its to judge."""
    if not isinstance(denoiser, NetworkDenoiser):
        return
    _same(denoiser.network)
    while True:
        try:
            _shared(denoiser.network, [None] * 3, _device(denoiser.network))
        except _Over:
            return
        except MachineError:
            raise
        except OtherProcessError:
            continue
        except Exception:
            traceback.print_exc()


def _same(network: nn.Module) -> None:
    """Give every process the first one's weights: theirs are the same, unless something has gone wrong."""
    for value in (*network.parameters(), *network.buffers()):
        sent = value.detach().contiguous()
        distributed.broadcast(sent, 0)
        value.detach().copy_(sent)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
