"""Pictures: of samples, and of what was evaluated."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from scorelab.data.module import DataModule
from scorelab.evaluation import EvaluationContext
from scorelab.evaluation.field import score_fields
from scorelab.files import whole
from scorelab.report.exact import draw_truth
from scorelab.report.field import draw_fields
from scorelab.report.guidance import draw_guidance
from scorelab.report.plane import draw_plane
from scorelab.report.samplers import draw_samplers
from scorelab.report.schedule import draw_schedule
from scorelab.schedules import Schedule
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
    """Save points (n, D) beside as many held-out ones as there are, by their first two coordinates.

    Those of one dimension are spread out evenly across it.
    """
    draw_plane(path, {"samples": _in_plane(samples).tolist(), "held-out data": _in_plane(held_out).tolist()})


def _in_plane(points: Tensor) -> Tensor:
    if points.shape[1] > 1:
        return points[:, :2]
    return torch.cat([points.cpu(), torch.linspace(-1, 1, len(points))[:, None].to(points.dtype)], 1)


def grid_of(images: Tensor, least: int = 48, columns: int | None = None) -> Image.Image:
    """Bytes (N, C, H, W) as one picture, about square, each image enlarged to at least ``least`` pixels.

    Of labels in turn, a column for each is asked for by ``columns``.
    Of other channels than one or three, the first three are shown as red, green and blue; of two, no blue.
    """
    if images.shape[1] not in (1, 3):
        images = torch.cat([images[:, :3], torch.zeros_like(images[:, : max(0, 3 - images.shape[1])])], 1)
    columns = columns or max(1, round(len(images) ** 0.5))
    scale = max(1, -(-least // images.shape[-1]))
    enlarged = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(enlarged, columns, padding=2, pad_value=128)
    return Image.fromarray(grid.permute(1, 2, 0).numpy())


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Save bytes (N, C, H, W) as one PNG: see ``grid_of``."""
    with whole(path) as file:
        grid_of(images, columns=columns).save(file, format="PNG")


def draw_results(records: dict[str, Any], context: EvaluationContext, folder: Path) -> None:
    """The pictures of what was evaluated."""
    draw_truth(folder / "truth.png", records)
    if "scale" in records.get("guidance", {}):
        draw_guidance(folder / "guidance.png", records["guidance"])
    if "by_sampler" in records.get("samplers", {}):
        draw_samplers(folder / "samplers.png", records["samplers"])
    if context.denoiser.schedule.learns:
        draw_schedule(folder / "schedule.png", learned_curve(context.denoiser.schedule))
    if context.exact_held_out is not None and context.train[0].numel() == 2:
        fields = score_fields(context.denoiser, context.exact_held_out)
        if fields:
            draw_fields(folder / "field.png", [asdict(field) for field in fields])
        if "sample_sets" in vars(context):
            save_plane(context.samples, context.held_out, folder / "samples.png")


@torch.no_grad()
def learned_curve(schedule: Schedule, places: int = 100) -> dict[str, list[float]]:
    """Log-SNR by time, evenly over the training times, from data to noise."""
    t = torch.linspace(schedule.t_min, schedule.t_max, places + 1, dtype=torch.float64)
    return {"t": t.tolist(), "log_snr": schedule.log_snr(t).tolist()}
