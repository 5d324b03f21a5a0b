"""What the entry sample does with a stored run."""

import logging

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from scorelab.app.request import read_request, trained_denoiser, typed_words
from scorelab.config.build import build_data
from scorelab.config.check import instantiate
from scorelab.config.stored import DENOISER, checkpoint_of, load_run, slug
from scorelab.config.trainer import quiet
from scorelab.denoisers import Denoiser
from scorelab.errors import Refusal, Unavailable, UserError
from scorelab.files import remove_temporary, whole
from scorelab.lit.pictures import save_samples
from scorelab.run.machine import in_one_line
from scorelab.samplers import Sampler, draw_samples
from scorelab.tensors import to_bytes

log = logging.getLogger("scorelab")

DRAWN = (*DENOISER, "sampler", "evaluation")  # what sampling uses of a run


def sample(cfg: DictConfig) -> None:
    """Draw samples from a stored run: samples.png and samples.npz, uint8 (n, H, W, C) or float32 without levels."""
    quiet()
    request = read_request(cfg, ("sampler", "evaluation.chunk"))
    n, label, seed, checkpoint = (request.own[key] for key in ("n", "label", "seed", "checkpoint"))
    with in_one_line(request.run, "evaluation.chunk, or n"):
        weights = checkpoint_of("run", request.run, str(checkpoint))
        config = load_run(request.run, DRAWN, request.changes)
        data = build_data(config)
        sampler, settings = (instantiate(config[key], key) for key in ("sampler", "evaluation"))
        labels = drawn_labels(n, label, bool(config["model"].get("conditional")), data.classes)
        denoiser = trained_denoiser(config, data, weights)
        refuse_sampler(sampler, denoiser)
        try:
            with torch.no_grad():
                drawn = draw_samples(denoiser, sampler, data.shape, labels, seed, settings.chunk)
        except Unavailable as error:
            raise UserError(f"{error}: another sampler=, more sampler.steps, or a run that did not diverge") from error
        folder = request.run / "sample" / slug(typed_words())
        remove_temporary(folder, shared=True)
        save_samples(drawn, data, folder / "samples.png", 256)
        array = drawn if data.levels is None else to_bytes(drawn, data.levels)
        array = array.permute(0, 2, 3, 1) if array.dim() == 4 else array
        with whole(folder / "samples.npz") as file:
            np.savez_compressed(file, array.numpy())
    log.info("%s\n%s", folder / "samples.png", folder / "samples.npz")


def refuse_sampler(sampler: Sampler, denoiser: Denoiser) -> None:
    """See that a sampler goes with a denoiser.

    Raises:
        UserError: in the sampler's own words.
    """
    try:
        sampler.evaluations(denoiser)
    except Refusal as error:
        raise UserError(str(error)) from error


def drawn_labels(n: int, label: int | None, conditional: bool, classes: int | None) -> Tensor:
    """The labels of n samples: one for all, or each in turn.

    Raises:
        UserError: for a label that the run was not trained with.
    """
    if label is None:
        return torch.arange(n) % (classes or 1)
    if not conditional or classes is None:
        raise UserError(f"label={label}: this run was trained without labels; model.conditional=true trains with them")
    if not 0 <= label < classes:
        raise UserError(f"label={label}: no such label; possible: 0 ... {classes - 1}")
    return torch.full((n,), label)
