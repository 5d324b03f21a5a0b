"""What the entry sample does with a stored run: samples in any number, a batch at a time, on from where it stopped."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from scorelab.app.average import averaged_as_asked
from scorelab.app.guidance import guided
from scorelab.app.kept import Arrays, Images, Kept, batches_missing, joined
from scorelab.app.request import read_request
from scorelab.app.several import several
from scorelab.config.build import build_data
from scorelab.config.check import instantiate
from scorelab.config.stored import DENOISER, checkpoint_of, load_run, slug, trained_denoiser
from scorelab.config.threads import taken_up
from scorelab.config.trainer import quiet
from scorelab.data.module import DataModule
from scorelab.denoisers import Denoiser
from scorelab.errors import Interrupted, Refusal, Unavailable, UserError
from scorelab.files import display_path, remove_temporary, write_json
from scorelab.lit.pictures import save_grid, save_plane
from scorelab.run.checkpoints import digest
from scorelab.run.identity import dotted, is_machine
from scorelab.run.lock import Lock
from scorelab.run.machine import in_one_line
from scorelab.run.signals import SIGNALS
from scorelab.samplers import Sampler, draw_chunk
from scorelab.tensors import to_bytes

log = logging.getLogger("scorelab")

DRAWN = (*DENOISER, "sampler", "evaluation")  # what sampling uses of a run
SHOWN, PLACED = 256, 10_000  # in the picture: images, points
COLUMNS = 32  # that a picture has at most, one for each class


def sample(cfg: DictConfig) -> None:
    """Draw samples from a stored run into a folder of RUN/sample: a picture, and one array or a file an image.

    What is there already is not drawn again; what is drawn is the same bits as if nothing had ended the job before.
    """
    quiet()
    request = read_request(cfg, ("sampler", "evaluation.chunk"))
    n, seed, label, checkpoint = (request.own[key] for key in ("n", "seed", "label", "checkpoint"))
    with in_one_line(request.run, "evaluation.chunk"), SIGNALS.listening():
        weights = checkpoint_of("run", request.run, str(checkpoint))
        config = load_run(request.run, DRAWN, request.changes)
        data = build_data(config)
        sampler, settings = (instantiate(config[key], key) for key in ("sampler", "evaluation"))
        labels = Labels.asked(label, bool(config["model"].get("conditional")), data.classes)
        denoiser = trained_denoiser(config, data, weights)
        averaged_as_asked(denoiser, request.own, request.run)
        typed, had, devices = request.own["threads"], config.get("threads"), request.own["devices"]
        config["threads"] = taken_up(denoiser, data, settings.chunk, typed, had, devices)
        led = guided(denoiser, request.own, config)
        drawing = Drawing(led, sampler, data, labels, seed, settings.chunk, evaluations(sampler, led))
        name = slug([json.dumps(identity(config, denoiser, request.own), sort_keys=True)])
        folder = request.run / "sample" / f"{name}-n{n}"
        kept = kept_as(request.own["format"], folder, n, drawing)
        lock = Lock(folder)
        if not folder.exists():
            kept.room(0)
        lock.take()
        try:
            with several(devices, config, weights, denoiser, request.own["average"]):
                draw(drawing, kept, name, request.own | {"sampler": config["sampler"], "run": str(request.run)})
        finally:
            lock.release()


@dataclass(frozen=True)
class Labels:
    """The labels of samples by their places: one for all, or each in turn; told to those that ask for them."""

    conditional: bool
    classes: int
    label: int | None

    @classmethod
    def asked(cls, label: int | None, conditional: bool, classes: int | None) -> "Labels":
        """Those that were asked for.

        Raises:
            UserError: for a label that the run was not trained with.
        """
        if label is not None and (not conditional or classes is None):
            told = "this run was trained without labels; model.conditional=true trains with them"
            raise UserError(f"label={label}: {told}")
        if label is not None and classes is not None and not 0 <= label < classes:
            raise UserError(f"label={label}: no such label; possible: 0 ... {classes - 1}")
        return cls(conditional and classes is not None, classes or 1, label)

    @property
    def columns(self) -> int | None:
        """One for each label, where they come in turn and there are not too many."""
        return self.classes if self.conditional and self.label is None and self.classes <= COLUMNS else None

    def at(self, places: range) -> Tensor:
        """Of these places."""
        if self.label is not None:
            return torch.full((len(places),), self.label)
        return torch.arange(places.start, places.stop) % self.classes


@dataclass(frozen=True)
class Drawing:
    """What samples are made by; ``evaluations`` of the network go into each."""

    denoiser: Denoiser
    sampler: Sampler
    data: DataModule
    labels: Labels
    seed: int
    batch: int
    evaluations: int

    def drawn(self, places: range) -> np.ndarray:
        """The samples of these places: bytes (k, H, W, C), or float32 data without levels.

        Raises:
            UserError: where one is no number.
        """
        try:
            with torch.no_grad():
                labels = self.labels.at(places)
                values = draw_chunk(self.denoiser, self.sampler, self.data.shape, labels, self.seed, places.start)
        except Unavailable as error:
            raise UserError(f"{error}: another sampler=, more sampler.steps, or a run that did not diverge") from error
        array = values if self.data.levels is None else to_bytes(values, self.data.levels)
        return (array.permute(0, 2, 3, 1) if array.dim() == 4 else array).contiguous().numpy()


def evaluations(sampler: Sampler, denoiser: Denoiser) -> int:
    """What a sample costs, where the sampler goes with the denoiser.

    Raises:
        UserError: where it does not, in the sampler's own words.
    """
    try:
        return sampler.evaluations(denoiser) * denoiser.evaluations
    except Refusal as error:
        raise UserError(str(error)) from error


def identity(config: dict[str, Any], denoiser: Denoiser, own: dict[str, Any]) -> dict[str, Any]:
    """What decides the samples, in any number and form: every key of what draws them, and the weights themselves."""
    keys = dotted({key: config[key] for key in (*DENOISER, "sampler")})
    weights = digest({key: value.cpu() for key, value in denoiser.state_dict().items()})
    return {key: value for key, value in keys.items() if not is_machine(key)} | {
        **{key: own[key] for key in ("seed", "label", "guidance", "guidance_log_snr")},
        "weights": weights,
    }


def kept_as(form: str, folder: Path, n: int, drawing: Drawing) -> Kept:
    """Where samples are kept in a form.

    Raises:
        UserError: for images that these data are none.
    """
    data = drawing.data
    channels, *place = data.shape
    if form == "png" and (data.levels is None or len(place) != 2 or channels not in (1, 3, 4)):
        raise UserError(
            f"format=png: these data are no images of levels (shape {data.shape}); format=npz keeps numbers"
        )
    shape = (*place, channels) if len(place) == 2 else data.shape
    labels = (lambda places: drawing.labels.at(places).numpy()) if drawing.labels.conditional else None
    return {"png": Images, "npz": Arrays}[form](
        folder, n, shape, np.float32 if data.levels is None else np.uint8, labels
    )


def draw(drawing: Drawing, kept: Kept, name: str, about: dict[str, Any]) -> None:
    """Draw what is missing, and say where it is."""
    remove_temporary(kept.folder, shared=True)
    picture = kept.folder / "samples.png"
    if kept.finished:
        log.info("%s is finished: %s samples", display_path(kept.folder), f"{kept.n:,}")
    else:
        if not kept.there():
            take_over(kept, name, drawing.batch)
        have = sum(map(len, joined(kept.there())))
        kept.room(have)
        told = f", {have:,} of them are there" if have else ""
        log.info("drawing %s samples%s: %s network evaluations each", f"{kept.n:,}", told, f"{drawing.evaluations:,}")
        made = {
            key: about[key]
            for key in ("run", "checkpoint", "average", "n", "seed", "label", "guidance", "guidance_log_snr", "sampler")
        }
        made |= {"batch": drawing.batch, "network_evaluations_per_sample": drawing.evaluations}
        write_json(kept.folder / "samples.json", made)
        with told_where_it_stopped(kept):
            draw_missing(drawing, kept, have)
            save_first(kept, drawing, picture)
            kept.finish(drawing.batch)
    log.info("%s\n%s", picture, kept.result)


def take_over(kept: Kept, name: str, batch: int) -> None:
    """Begin with what another number of the same samples has drawn, in batches of the same size."""
    for other in sorted(kept.folder.parent.glob(f"{name}-n*"), key=lambda each: each.stat().st_mtime, reverse=True):
        if other == kept.folder:
            continue
        try:
            same = json.loads((other / "samples.json").read_text(encoding="utf-8"))["batch"] == batch
        except (OSError, ValueError, KeyError, TypeError):  # not begun, or no longer whole
            continue
        if same:
            kept.take(other, kept.n, batch)


def draw_missing(drawing: Drawing, kept: Kept, have: int) -> None:
    """A batch after the other; after the first, how long the others will take."""
    with tqdm(total=kept.n, initial=have, desc="drawing", unit="", dynamic_ncols=True, disable=None) as bar:
        for number, places in enumerate(batches_missing(kept.there(), kept.n, drawing.batch)):
            began = time.perf_counter()
            kept.put(places.start, drawing.drawn(places))
            bar.update(min(len(places), kept.n - bar.n))
            have += len(places)
            seconds = (time.perf_counter() - began) / len(places) * (kept.n - have)
            if number == 0 and seconds >= 1:
                with bar.external_write_mode():
                    log.info("about %s s to go, at the speed of the first %s", f"{seconds:,.0f}", len(places))


def save_first(kept: Kept, drawing: Drawing, path: Path) -> None:
    """The picture: a grid of the first images, a column for each label in turn, or the first points beside held-out."""
    data, columns = drawing.data, drawing.labels.columns
    images = len(data.shape) == 3
    count = min(kept.n, SHOWN if images else PLACED)
    if columns and images:
        count = min(kept.n, columns * columns)
    first = torch.from_numpy(np.concatenate(list(kept.blocks(count))))
    if not images:
        save_plane(first, data.splits["val"].values, path)
    else:
        pixels = first.permute(0, 3, 1, 2)
        save_grid(pixels if data.levels is not None else to_bytes(pixels, None), path, columns)


@contextmanager
def told_where_it_stopped(kept: Kept) -> Iterator[None]:
    """Have an interruption tell how far it came."""
    try:
        yield
    except Interrupted as stop:
        have = sum(map(len, joined(kept.there())))
        stop.told = f"interrupted by {stop.name}, {have:,} of {kept.n:,} samples drawn: the same command goes on"
        raise
