"""What is done between two steps of training: when, on what, and what a checkpoint holds of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback

from scorelab.data.module import DataModule
from scorelab.errors import CheckpointError, Refusal
from scorelab.lit.module import DiffusionModule
from scorelab.run.checkpoints import ANEW
from scorelab.tracking.logger import RunLogger


@dataclass(frozen=True)
class RunContext:
    """What an action between two steps works on: what is trained, on which data, who is told, the run's directory."""

    module: DiffusionModule
    data: DataModule
    logger: RunLogger
    directory: Path


def kept(callback: Callback, state: Mapping[str, Any], key: str) -> Any:
    """What a checkpoint holds of a callback under a key.

    Raises:
        CheckpointError: when it holds no such thing.
    """
    if key not in state:
        raise CheckpointError(f"the checkpoint does not hold {type(callback).__name__}.{key}: {ANEW}")
    return state[key]


class EverySteps(Callback, ABC):
    """Something done after every ``every``-th optimiser step and after the last one; ``Checkpointing`` sees to it.

    Lightning's hooks may be there besides. Where ``every`` is left open in a config, a run does it ``times`` times,
    whatever its length; one that is made without it does it after the last step alone.

    ``done`` is the last step it was done at: what an interruption came before is made up for. ``brief`` says that a
    signal may wait for it; ``memory`` is the key that makes it need less. Of several processes the first does it.

    Raises:
        Refusal: for every < 1.
    """

    times = 20
    brief = False
    memory = ""

    def __init__(self, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise Refusal(f"every must be at least 1 step, got {every}")
        self.every = every
        self.done = 0

    def state_dict(self) -> dict[str, Any]:
        """When it was last done."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.done = kept(self, state_dict, "done")

    def due(self, step: int, last: bool) -> bool:
        """Whether it is to be done after ``step`` steps and has not been."""
        return self.done < step and (last or (self.every is not None and step % self.every == 0))

    @abstractmethod
    def act(self, run: RunContext, step: int) -> None:
        """What is done after ``step`` steps."""

    def leave_out(self, seconds: float) -> None:
        """So many seconds were spent on something else than training."""

    def take_best(self) -> bool:
        """Whether what was found since this was last asked makes the next checkpoint the best so far."""
        return False

    def figures(self) -> dict[str, float]:
        """What is told of it in the end, beside the yardsticks."""
        return {}


def affordable(run: RunContext, every: int | None, cost: int) -> int:
    """How many items may be looked at, for ``cost`` evaluations each, within a tenth of the work of ``every`` steps.

    A step shows the network each image of its batch once, and twice again in going back: three evaluations. The
    count depends on the config alone, so it is the same on every machine.
    """
    trainer = run.module.trainer
    steps = min(every or trainer.max_steps, trainer.max_steps)
    images = run.data.batch_size * trainer.accumulate_grad_batches * trainer.world_size
    return steps * 3 * images // (10 * cost)
