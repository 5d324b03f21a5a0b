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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU.

    Raises:
        UserError: when the file is no whole checkpoint.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as a checkpoint ({reason}): overwrite=true starts anew") from error


def load_weights(module: DiffusionModule, path: Path) -> int:
    """Read a checkpoint's weights, averaged ones too where it has them, and return its step.

    Raises:
        UserError: when the file cannot be read, or is of another network.
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint["state_dict"]
    if any(key.startswith("averaged.") for key in state):
        module.averaged = follower(module.denoiser)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} is of another network: {str(error).splitlines()[-1].strip()}") from error
    module.eval()
    return int(checkpoint["global_step"])
