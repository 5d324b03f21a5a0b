"""What Lightning's own callbacks are told of a run's loggers."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger

from scorelab.tracking.logger import RunLogger


class ForLightning(Logger):
    """The run's loggers as one of Lightning's, for callbacks that ask the trainer for one (LearningRateMonitor)."""

    def __init__(self, logger: RunLogger) -> None:
        super().__init__()
        self.logger = logger

    @property
    def name(self) -> str:
        """What Lightning calls it."""
        return "scorelab"

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They are in config.yaml."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Tell the run's loggers."""
        self.logger.log_metrics(metrics, step or 0)
