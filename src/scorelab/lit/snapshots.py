"""Snapshots of averages in a run's directory, and an average of any length made from them afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorelab.errors import CheckpointError, DamagedCheckpoint, UserError
from scorelab.files import display_path, whole
from scorelab.lit.profile import LONGEST, Fit, Profile, fit, spanned
from scorelab.run.checkpoints import read_checkpoint, save
from scorelab.run.directory import AVERAGES

MOST_MISSED = 0.1  # of a profile, for an average that bears its length


def write_snapshot(run: Path, step: int, averages: Mapping[float, Mapping[str, Tensor]]) -> None:
    """Write the averages after a step, by sigma_rel, into a run's directory: the whole file or none."""
    tracked = [{name: value.detach().cpu() for name, value in each.items()} for each in averages.values()]
    with whole(run / AVERAGES / f"step_{step:07d}.ckpt") as file:
        save({"global_step": step, "sigma_rel": list(averages), "averages": tracked}, file)


@dataclass(frozen=True)
class Average:
    """What an average is made of, for the records.

    Attributes:
        sigma_rel: its length, relative to the steps taken.
        step: the last step it is of.
        tracked: the lengths that were followed while training.
        snapshots: how many there are.
        profile_error: the part of its profile that they miss.
    """

    sigma_rel: float
    step: int
    tracked: Sequence[float]
    snapshots: int
    profile_error: float

    def __str__(self) -> str:
        lengths = " and ".join(f"{each:g}" for each in self.tracked)
        made = f"made of {self.snapshots} snapshots of {lengths} up to step {self.step:,}"
        return f"average {self.sigma_rel:g}, {made}: {self.profile_error:.1%} of its profile is missed"


def take_average(denoiser: nn.Module, run: Path, sigma_rel: float) -> Average:
    """Give a denoiser the average of this length at the last snapshot's step: sum_i x_i theta_i, summed in float64.

    Its buffers, which are not averaged, stay.

    Raises:
        UserError: where there are no snapshots, where they miss too much of the profile, or are of another network.
    """
    if not 0 < sigma_rel <= LONGEST:
        raise UserError(f"average={sigma_rel:g}: a length in (0, {LONGEST:.4f}] is needed, the last of all steps alike")
    files = sorted((run / AVERAGES).glob("step_*.ckpt"), key=lambda file: int(file.stem.partition("_")[2]))
    if not files:
        told = f"average={sigma_rel:g}: {display_path(run)} holds no snapshots of averages"
        raise UserError(f"{told}; train with callbacks=posthoc, which keeps some")
    profiles = [[Profile(held["global_step"], each) for each in held["sigma_rel"]] for held in map(_read, files)]
    made = _fitted([each for of_one in profiles for each in of_one], Profile(profiles[-1][0].step, sigma_rel))
    parameters = dict(denoiser.named_parameters())
    sums = {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in parameters.items()}
    left = iter(made.coefficients.tolist())
    for file in files:
        for weights in _read(file)["averages"]:  # one file at a time in memory
            if {key: value.shape for key, value in weights.items()} != {key: s.shape for key, s in sums.items()}:
                raise UserError(f"{display_path(file)} is of another network")
            coefficient = next(left)
            for name, value in weights.items():
                sums[name].add_(value.double(), alpha=coefficient)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(sums[name])
    tracked = sorted({each.sigma_rel for of_one in profiles for each in of_one})
    return Average(sigma_rel, profiles[-1][0].step, tracked, len(files), made.error)


def _fitted(profiles: Sequence[Profile], wanted: Profile) -> Fit:
    """A profile as a sum of those there are.

    Raises:
        UserError: where they miss too much of it.
    """
    made = fit(profiles, wanted)
    if made.error <= MOST_MISSED:
        return made
    spans = ", ".join(f"{low:g} ... {high:g}" for low, high in spanned(profiles, wanted.step, MOST_MISSED))
    raise UserError(
        f"average={wanted.sigma_rel:g}: the snapshots miss {made.error:.0%} of this profile; possible: {spans}; for "
        "others train with more callbacks.averaging.sigma_rel, or snapshots (callbacks.averaging.every)"
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_checkpoint(file)
    except DamagedCheckpoint as error:
        raise CheckpointError(f"{error}; without that file the other snapshots are used") from error
