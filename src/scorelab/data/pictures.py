"""Stub."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Unreadable(ValueError):
    """Stub."""


@dataclass(frozen=True)
class Rules:
    """Stub."""

    size: int
    channels: int = 3


def decode(data: bytes | Path, rules: Rules) -> Tensor:
    """Stub."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            image = image.convert("L" if rules.channels == 1 else "RGB").resize((rules.size, rules.size))
            array = np.asarray(image)
    except Exception as error:
        raise Unreadable(str(error)) from error
    return torch.from_numpy(array.copy()).reshape(*array.shape[:2], -1).permute(2, 0, 1).contiguous()
