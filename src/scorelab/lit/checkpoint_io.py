"""How Lightning writes and reads checkpoints: beside the training, whole or not at all."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from scorelab.run.checkpoints import read_checkpoint, write_checkpoint


class Checkpoints(TorchCheckpointIO):
    """Writes last.ckpt in a thread, from a copy; one at a time.

    Training stops for the copy alone. What a write met is raised by the next save, ``check`` or ``wait``.
    """

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None
        self.writing: Future | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Begin to write; with ``{"best": True}`` it is the best one too."""
        self.wait()
        copied = apply_to_collection(checkpoint, Tensor, lambda t: t.detach().to("cpu", copy=True))
        self.pool = self.pool or ThreadPoolExecutor(1, "checkpoint")
        self.writing = self.pool.submit(write_checkpoint, copied, Path(path), bool((storage_options or {}).get("best")))

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read one, verified."""
        return read_checkpoint(Path(path))

    def check(self) -> None:
        """Raise what went wrong in a write that has ended."""
        if self.writing is not None and self.writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until what is being written is on disk, or raise why it is not."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def teardown(self) -> None:
        """Let go of the thread; an error of the last write has its turn in ``wait``, which comes before."""
        if self.pool is not None:
            self.pool.shutdown(wait=True)
            self.pool = None
