"""What eval and sample share: what was asked of a stored run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from scorelab.config.check import checked
from scorelab.config.stored import Changes, run_directory
from scorelab.errors import UserError
from scorelab.run.identity import is_machine, key_of


@dataclass(frozen=True)
class Request:
    """What eval or sample was asked: its own keys, checked, and what is to be changed in the run."""

    own: dict[str, Any]
    changes: Changes

    @property
    def run(self) -> Path:
        """The directory of the run."""
        return run_directory("run", self.own["run"])


def read_request(cfg: DictConfig, allowed: tuple[str, ...]) -> Request:
    """Sort what was typed; ``allowed`` are the run's nodes that may be changed.

    Raises:
        UserError: for a value of the wrong type, or what belongs to training.
    """
    if OmegaConf.is_missing(cfg, "run"):
        raise UserError("run=DIR is needed: the directory of a trained run")
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    own = {key: checked(value, key) for key, value in plain.items() if not isinstance(value, dict)}
    overrides = [word for word in HydraConfig.get().overrides.task if key_of(word) not in own]
    return Request(own, Changes(overrides, plain, allowed))


def typed_words() -> list[str]:
    """What was typed of what is to be computed."""
    words = HydraConfig.get().overrides.task
    return [word.lstrip("+") for word in words if not is_machine(key_of(word)) and key_of(word) != "devices"]
