"""The weights of a run, for whoever evaluates it or begins another run with them."""

from pathlib import Path
from typing import Any

import torch

from scorelab.denoisers import Denoiser
from scorelab.errors import CheckpointError, DamagedCheckpoint, UserError
from scorelab.lit.module import DiffusionModule
from scorelab.run.checkpoints import NAMES, read_checkpoint


def whole_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, for whoever asked for this one.

    Raises:
        UserError: when it is damaged: with the others there are.
    """
    try:
        return read_checkpoint(path)
    except DamagedCheckpoint as error:
        others = [name for name in NAMES if name != path.stem and path.with_name(f"{name}.ckpt").exists()]
        told = f"; there is also checkpoint={' or '.join(others)}" if others else ""
        raise CheckpointError(f"{error}{told}") from error


def load_weights(module: DiffusionModule, path: Path) -> int:
    """Read a checkpoint's weights, averaged ones too where it has them, and return its step.

    Raises:
        UserError: when the file cannot be read, or is of another network.
    """
    checkpoint = whole_checkpoint(path)
    state = checkpoint["state_dict"]
    if any(key.startswith("averaged.") for key in state):
        module.average()
    load_state(module, state, path)
    module.eval()
    return int(checkpoint["global_step"])


def load_evaluated(denoiser: Denoiser, path: Path) -> None:
    """Give a denoiser the weights of a checkpoint that count: the averaged ones where it has some.

    Raises:
        UserError: when the file cannot be read, or is of another network.
    """
    load_state(denoiser, evaluated_weights(whole_checkpoint(path)["state_dict"]), path)
    denoiser.eval()


def evaluated_weights(state: dict[str, Any]) -> dict[str, Any]:
    """What a module's state says of the denoiser to evaluate, by its own names."""
    prefix = "averaged." if any(key.startswith("averaged.") for key in state) else "denoiser."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def load_state(into: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    """Give a network the state that a file holds.

    Raises:
        UserError: when it is another network's.
    """
    try:
        into.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} is of another network: {str(error).splitlines()[-1].strip()}") from error
