"""Files of weights that others have published: given, or where torch keeps what it has fetched before, or fetched."""

import hashlib
import socket
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor

from scorelab.errors import Refusal

PATIENCE = 30  # seconds without a byte after which fetching is given up


@dataclass(frozen=True)
class Published:
    """A file of weights: where it is to be had, torch's name for it, how its SHA-256 begins where that is known.

    Where ``model`` is given, ``source`` is a repository whose ``hubconf.py`` fetches the file with the model so called;
    else it is the file's address.
    """

    source: str
    name: str
    begins: str | None = None
    model: str | None = None

    @property
    def called(self) -> str:
        """What to look for."""
        return self.source if self.model is None else f"{self.name} of {self.source}"

    @property
    def kept(self) -> Path:
        """Where torch keeps it, and torch-fidelity looks for it too."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.name

    def file(self, weights: str | Path | None) -> Path:
        """The file that is given, else that which was fetched before, else what is fetched now.

        Raises:
            Refusal: there is none.
        """
        if weights is not None:
            if not (given := Path(weights).expanduser()).is_file():
                raise Refusal(
                    f"weights={weights} is no file: name a copy of {self.called}, or leave it out to fetch it"
                )
            return given
        if not self.kept.is_file():
            self._fetch()
        return self.kept

    def _fetch(self) -> None:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)
        try:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            if self.model is not None:  # as torch-fidelity does; the network it builds is not used
                torch.hub.load(f"{self.source}:main", self.model, trust_repo=True, verbose=False)
            else:  # under another name until it is whole
                torch.hub.download_url_to_file(self.source, str(self.kept), self.begins)
        except (OSError, HTTPException, RuntimeError) as error:
            reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
            told = f"its weights are not here and cannot be fetched ({reason})"
            raise Refusal(
                f"{told}: set its weights=FILE to a copy of {self.called}, or put one at {self.kept}"
            ) from error
        finally:
            socket.setdefaulttimeout(before)


def hash_of(file: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256.

    Raises:
        Refusal: for a file that cannot be read.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()[:12]
    except OSError as error:
        raise Refusal(f"weights={file} cannot be read: {error.strerror}") from error


def state(file: Path) -> dict[str, Tensor]:
    """The tensors of a file that ``torch.save`` has written of a network's state, and nothing that could be run.

    Raises:
        RuntimeError, UnpicklingError ...: for a file of something else.
        TypeError: for one of other things than tensors by name.
    """
    found = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise TypeError("no tensors by name")
    return found
