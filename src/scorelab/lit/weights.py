"""The weights of a run, for whoever judges it or begins another run with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scorelab.denoisers import Denoiser
from scorelab.errors import UserError
from scorelab.lit.checkpoints import NAMES, CheckpointError, DamagedCheckpoint, newest_checkpoint, read_checkpoint
from scorelab.lit.ema import follower
from scorelab.lit.identity import STORED, read_config
from scorelab.lit.module import DiffusionModule
from scorelab.lit.refusals import called


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
        module.averaged = follower(module.denoiser)
    _load(module, state, path)
    module.eval()
    return int(checkpoint["global_step"])


def load_judged(denoiser: Denoiser, path: Path) -> None:
    """Give a denoiser the weights of a checkpoint that count: the averaged ones where it has some.

    Raises:
        UserError: when the file cannot be read, or is of another network.
    """
    _load(denoiser, judged_weights(whole_checkpoint(path)["state_dict"]), path)
    denoiser.eval()


def judged_weights(state: dict[str, Any]) -> dict[str, Any]:
    """What a module's state says of the denoiser to judge, by its own names."""
    prefix = "averaged." if any(key.startswith("averaged.") for key in state) else "denoiser."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class Origin:
    """Where a run's first weights come from."""

    run: str
    step: int


def start_from(module: DiffusionModule, run: Path, prediction: dict[str, Any]) -> Origin:
    """Give the network the judged weights of another run's newest whole checkpoint: averaged ones where it has some.

    Schedule, loss and optimiser are this run's own; what the network predicts has to be the same.

    Raises:
        UserError: when there is no such run, or its network is another or predicts something else.
    """
    if not run.is_dir():
        raise UserError(f"init_from={run}: no such directory")
    found = newest_checkpoint(run / "checkpoints", "train that run anew, or begin without it")
    if found is None or not (run / "config.yaml").exists():
        raise UserError(f"init_from={run}: holds no run with a checkpoint")
    its = read_config(run / "config.yaml", STORED).get("prediction")
    if not isinstance(its, dict) or "_target_" not in its:
        raise UserError(f"{run / 'config.yaml'} is damaged, it names no prediction: {STORED}")
    if its["_target_"] != prediction["_target_"]:
        raise UserError(
            f"init_from={run}: its network was trained with another prediction: set {called('prediction', its)}"
        )
    judged = judged_weights(read_checkpoint(found.path)["state_dict"])
    weights = {key.removeprefix("network."): value for key, value in judged.items() if key.startswith("network.")}
    network: Any = module.denoiser.network
    _load(network, weights, found.path)
    return Origin(str(run), found.step)


def _load(into: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    try:
        into.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} is of another network: {str(error).splitlines()[-1].strip()}") from error
