"""A stored run, taken up in a notebook."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorelab.app.average import averaged_as_asked
from scorelab.config.build import build_data
from scorelab.config.check import instantiate
from scorelab.config.stored import DENOISER, checkpoint_of, load_run, run_directory, trained_denoiser
from scorelab.config.trainer import quiet
from scorelab.data.module import DataModule, first
from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal
from scorelab.evaluation.curves import Mean, squared, standard_error
from scorelab.lit.pictures import grid_of
from scorelab.samplers import Sampler, draw_samples
from scorelab.schedules import Schedule
from scorelab.tensors import as_data, generator, to_bytes


@dataclass(frozen=True)
class Loaded:
    """What a run has learned, and what it was made of.

    Attributes:
        denoiser: its averaged weights, where it has some: (x_t, t, label) -> Estimate.
        sampler: its own.
        data: its data set, split as it was.
        config: its whole configuration, resolved.
        seed: of the samples, where none is given.
        chunk: images per network call.
    """

    denoiser: Denoiser
    sampler: Sampler
    data: DataModule
    config: dict[str, Any]
    seed: int
    chunk: int

    @property
    def schedule(self) -> Schedule:
        """The denoiser's own."""
        return self.denoiser.schedule

    @torch.no_grad()
    def samples(self, n: int, seed: int | None = None, label: int | None = None) -> Tensor:
        """Samples (n, ...) as values, levels in uint8 or float32 data, on the CPU.

        Args:
            n: how many; the first of more are the same ones.
            seed: of their noise; None is the run's.
            label: of all, where the run was trained with labels; None takes each in turn.

        Raises:
            Refusal: for n < 1, and for a label that there is not.
        """
        classes = self.data.classes or 1
        if n < 1 or (label is not None and not 0 <= label < classes):
            raise Refusal(f"n must be at least 1 and label one of 0 ... {classes - 1}, got {n} and {label}")
        labels = torch.arange(n) % classes if label is None else torch.full((n,), label)
        seed = self.seed if seed is None else seed
        return draw_samples(self.denoiser, self.sampler, self.data.shape, labels, seed, self.chunk)

    @torch.no_grad()
    def noise_error(self, log_snr: float, items: int = 256) -> Mean:
        """E||eps - eps^||^2 / d at one log-SNR over held-out items, and its standard error over them.

        Raises:
            Refusal: for a log-SNR that the schedule does not reach.
        """
        low, high = self.denoiser.log_snr_range()
        if not low <= log_snr <= high:
            raise Refusal(f"log_snr must lie in [{low:.2f}, {high:.2f}], which the schedule reaches, got {log_snr}")
        held, device = first(self.data.splits["test"], items), self.denoiser.device
        x0 = as_data(held.values, self.data.levels).to(device)
        eps = torch.randn(x0.shape, generator=generator("noise error", str(log_snr))).to(device)
        t = self.schedule.inverse(torch.full((len(x0),), log_snr, dtype=torch.float64, device=device))
        made, label, each = self.denoiser.noised(x0, t, eps), held.labels.to(device), []
        for rows in torch.arange(len(x0), device=device).split(self.chunk):
            each.append(squared(self.denoiser(made.x_t[rows], t[rows], label[rows]).eps, eps[rows]))
        found = torch.cat(each)
        return Mean(float(found.mean()), standard_error(found))

    def picture(self, values: Tensor) -> Any:
        """Values (n, C, H, W) as one picture of Pillow's, about square.

        Raises:
            Refusal: for values that are no images.
        """
        if values.dim() != 4:
            raise Refusal(f"a picture is of images (n, C, H, W), not of values {tuple(values.shape)}")
        return grid_of(to_bytes(values, self.data.levels))


def load(
    directory: str | Path,
    checkpoint: str = "last",
    device: str | torch.device | None = None,
    average: float | None = None,
) -> Loaded:
    """A stored run from its own config.yaml.

    Args:
        directory: of the run.
        checkpoint: last, best or previous.
        device: None is the GPU where there is one.
        average: the length of the averaged weights, of a run with callbacks=posthoc; None is the run's own.

    Raises:
        UserError: when there is no such run, checkpoint or average, or it is damaged.
    """
    quiet()
    path = run_directory("directory", str(directory))
    weights = checkpoint_of("directory", path, checkpoint)
    config = load_run(path, (*DENOISER, "sampler", "evaluation"))
    data = build_data(config, seed=config["seed"])
    denoiser = trained_denoiser(config, data, weights)
    averaged_as_asked(denoiser, {"average": average, "checkpoint": checkpoint}, path)
    if device is not None:
        denoiser = denoiser.to(device)
    sampler, settings = (instantiate(config[key], key) for key in ("sampler", "evaluation"))
    return Loaded(denoiser, sampler, data, config, config["seed"], settings.chunk)
