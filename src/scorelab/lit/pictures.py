"""Pictures of samples."""

from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def save_grid(images: Tensor, path: Path, least: int = 48) -> None:
    """Save bytes (N, C, H, W) as one PNG, about square, each image enlarged to at least ``least`` pixels."""
    columns = max(1, round(len(images) ** 0.5))
    scale = max(1, -(-least // images.shape[-1]))
    enlarged = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    grid = make_grid(enlarged, columns, padding=2, pad_value=128)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}")
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(whole, format="PNG")
    whole.replace(path)
