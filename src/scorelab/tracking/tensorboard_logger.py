"""TensorBoard: scalars and pictures in the run's directory."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scorelab.errors import UserError
from scorelab.tracking.logger import RunLogger


class TensorBoard(RunLogger):
    """Writes ``tensorboard/`` in the run's directory, which ``tensorboard --logdir logs`` shows.

    What an earlier job wrote after the step that it is continued from is hidden, so that no point is there twice.

    Args:
        directory: the run's directory.
        name: the run's name.
        config: flat configuration.
    """

    def __init__(self, directory: Path, name: str, config: dict[str, Any]) -> None:
        self.place = directory / "tensorboard"
        self.text = "\n".join(f"    {key}: {value}" for key, value in {"run": name, **config}.items())
        self._open: Any | None = None

    @classmethod
    def check(cls, keys: Mapping[str, Any]) -> None:
        """See that it is installed."""
        if find_spec("tensorboard") is None:
            raise UserError("logger=tensorboard: not installed: pip install tensorboard")

    def truncate_after(self, step: int) -> None:
        """Hide what came after this step."""
        if self.place.exists():
            self._start(step + 1)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """A point of each."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_image(self, name: str, path: Path, step: int) -> None:
        """A picture, from its file."""
        with Image.open(path) as picture:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self, exit_code: int) -> None:
        """Write what is left."""
        if self._open is not None:
            self._open.close()

    @property
    def _writer(self) -> Any:
        if self._open is None:
            self._start(None)
            assert self._open is not None
            self._open.add_text("config", self.text, 0)
        return self._open

    def _start(self, purge: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._open is not None:
            self._open.close()
        self._open = SummaryWriter(str(self.place), purge_step=purge)
