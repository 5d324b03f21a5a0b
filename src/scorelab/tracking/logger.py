"""What a run tells its loggers, and how several are told at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RunLogger:
    """Something that takes a run's numbers and pictures; what it does not care for it passes over.

    A logger of someone's own is a subclass whose constructor takes ``directory`` (the run's), ``name`` and ``config``
    (flat), and any keys of its own.
    """

    @classmethod
    def check(cls, keys: Mapping[str, Any]) -> None:
        """Refuse, before a run begins, what it could not be made with; ``keys`` are its own.

        Raises:
            UserError: for what the person at the keyboard can change.
        """

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Take what was measured after so many steps."""

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Take a picture, of the file it is in."""

    def truncate_after(self, step: int) -> None:
        """Forget what came after this step: the run is continued from there and will say it again."""

    def summarize(self, metrics: Mapping[str, float | None]) -> None:
        """Take the final numbers of a run that was evaluated; None where there is none."""

    def close(self, exit_code: int) -> None:
        """End, with 0 where the run is finished."""


class Loggers(RunLogger):
    """All loggers of a run, each told in turn."""

    def __init__(self) -> None:
        self.each: list[RunLogger] = []

    def add(self, logger: RunLogger) -> None:
        """Tell this one too, from now on."""
        self.each.append(logger)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Tell all."""
        for logger in self.each:
            logger.log_metrics(metrics, step)

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Tell all."""
        for logger in self.each:
            logger.log_image(name, path, step)

    def truncate_after(self, step: int) -> None:
        """Tell all."""
        for logger in self.each:
            logger.truncate_after(step)

    def summarize(self, metrics: Mapping[str, float | None]) -> None:
        """Tell all."""
        for logger in self.each:
            logger.summarize(metrics)

    def close(self, exit_code: int) -> None:
        """Tell all."""
        for logger in self.each:
            logger.close(exit_code)
