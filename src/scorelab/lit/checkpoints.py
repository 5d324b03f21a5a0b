"""Checkpoints: written whole or not at all, read as tensors and plain values only."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from scorelab.lit.config import UserError
from scorelab.lit.ema import follower
from scorelab.lit.module import DiffusionModule


class AtomicCheckpoints(TorchCheckpointIO):
    """A temporary file in the same directory, synced, then renamed over the old one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def load_weights(module: DiffusionModule, path: Path) -> int:
    """Read a checkpoint's weights, averaged ones too where it has them, and return its step.

    Raises:
        UserError: when the file cannot be read, or is of another network.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state = checkpoint["state_dict"]
        if any(key.startswith("averaged.") for key in state):
            module.averaged = follower(module.denoiser)
        module.load_state_dict(state)
    except Exception as error:
        raise UserError(f"{path}: cannot be read as this run's checkpoint: {str(error).splitlines()[0]}") from error
    module.eval()
    return int(checkpoint["global_step"])
