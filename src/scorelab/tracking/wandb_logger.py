"""Weights & Biases as a logger that training never waits for."""

import logging
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from scorelab.files import write_text
from scorelab.tracking.logger import RunLogger
from scorelab.tracking.wandb_recorder import End, Given, HistoryRow, Recorder

log = logging.getLogger(__name__)


class Wandb(RunLogger):
    """Weights & Biases, offline where there is no login or the server does not answer; one line says which.

    Nothing here waits for wandb, except ``close``: a thread of its own makes all calls, in the order they were asked
    for. The run's id is random, written once to ``wandb_id`` and reused when the run is continued.

    Args:
        directory: the run's directory.
        name: the run's name.
        config: flat configuration.
        project: W&B project.
        group: W&B group; None for none.
        mode: "auto" goes online where there is a login.
        timeout: seconds after which the server is given up: at the start, and again at the end.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        config: dict[str, Any],
        project: str = "scorelab",
        group: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        timeout: float = 20,
    ) -> None:
        import wandb  # noqa: F401  here and not in the thread, so that no worker of the data is forked meanwhile

        mark = directory / "wandb_id"
        if not mark.exists():
            write_text(mark, uuid.uuid4().hex[:8])
        self.timeout, self.identity = timeout, mark.read_text().strip()
        asked = os.environ.get("WANDB_MODE") or mode
        self._recorder = Recorder(Given(directory, self.identity, name, config, project, group, asked, timeout))
        self._recorder.start()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Have a row logged."""
        self._row(metrics, {}, step)

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Have a picture logged, from its file."""
        self._row({}, {name: [str(path)]}, step)

    def _row(self, metrics: Mapping[str, float], pictures: dict[str, list[str]], step: int) -> None:
        self._recorder.asked.put(
            HistoryRow({**metrics, "trainer/global_step": step, "_timestamp": time.time()}, pictures)
        )

    def summarize(self, metrics: Mapping[str, float | None]) -> None:
        """Put the final numbers where W&B's tables look for them."""
        self._recorder.summary |= {key: value for key, value in metrics.items() if value is not None}

    def close(self, exit_code: int) -> None:
        """End the W&B run, in ``timeout`` seconds at most, so that the next job of a sweep starts its own."""
        self._recorder.asked.put(End(exit_code))
        if self._recorder.done.wait(0.7 * self.timeout):
            return
        self._recorder.kill()  # what waits for wandb-core fails then, and the rest is recorded offline
        if not self._recorder.done.wait(0.3 * self.timeout):
            self._recorder.kill()
            log.warning("W&B: not everything was recorded in time; metrics.csv has it")
