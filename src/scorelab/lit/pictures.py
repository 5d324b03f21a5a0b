"""Pictures: of samples, and of what was judged."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from scorelab.data.module import DataModule
from scorelab.evaluation import Case
from scorelab.evaluation.field import score_fields
from scorelab.files import whole
from scorelab.report.field import draw_fields
from scorelab.report.plane import draw_plane
from scorelab.report.truth import draw_truth
from scorelab.tensors import to_bytes


def save_samples(values: Tensor, data: DataModule, path: Path, most: int) -> None:
    """Save samples as a picture: a grid of the first ``most`` images, or all points beside held-out ones.

    Points of more than two dimensions are shown by their first two.
    """
    if values.dim() == 4:
        save_grid(to_bytes(values[:most], data.levels), path)
    else:
        save_plane(values, data.splits["val"].values, path)


def save_plane(samples: Tensor, held_out: Tensor, path: Path) -> None:
    """Save points (n, D) beside as many held-out ones as there are, by their first two coordinates."""
    draw_plane(path, {"samples": samples[:, :2].tolist(), "held-out data": held_out[:, :2].tolist()})


def save_grid(images: Tensor, path: Path, least: int = 48) -> None:
    """Save bytes (N, C, H, W) as one PNG, about square, each image enlarged to at least ``least`` pixels."""
    columns = max(1, round(len(images) ** 0.5))
    scale = max(1, -(-least // images.shape[-1]))
    enlarged = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(enlarged, columns, padding=2, pad_value=128)
    with whole(path) as file:
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(file, format="PNG")


def draw_judged(records: dict[str, Any], case: Case, folder: Path) -> None:
    """The pictures of what was judged."""
    draw_truth(folder / "truth.png", records)
    if case.law is not None and case.train[0].numel() == 2:
        fields = score_fields(case.denoiser, case.law)
        if fields:
            draw_fields(folder / "field.png", [asdict(field) for field in fields])
        if "samples" in vars(case):
            save_plane(case.samples, case.held_out, folder / "samples.png")
