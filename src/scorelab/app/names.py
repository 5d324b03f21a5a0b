"""What the jobs of a sweep are called: a directory each, named by what was typed."""

import hashlib
import re
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from scorelab.app.words import value_of
from scorelab.run.identity import is_machine, key_of

LONGEST = 120


def identity(overrides: list[str]) -> list[str]:
    """The overrides that say what a run is, as key=value: choices of groups, then single values."""
    pairs = [(key_of(word), value_of(word)) for word in overrides if not is_machine(key_of(word))]
    return [f"{key}={value}" for key, value in sorted(pairs, key=lambda pair: ("." in pair[0], pair))]


def job_directory(overrides: list[str]) -> str:
    """A directory's name that says a job's overrides and can be typed back: loss-vlb_schedule-cosine.

    What Hydra's grammar or a file system would trip over becomes a dash; a hash then tells such names apart.
    """
    words = identity(overrides)
    whole = "_".join(word.replace("=", "-", 1) for word in words) or "default"
    clean = re.sub(r"[^\w.+-]", "-", whole)
    if clean == whole and len(clean) <= LONGEST:
        return clean
    return f"{clean[: LONGEST - 7]}-{digest(words)}"


def digest(words: list[str]) -> str:
    """Six hex digits of a list of words."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:6]


def place_in_sweep() -> Path | None:
    """Where this job works, if it is one of several: in the sweep's directory, in one that its overrides name."""
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return None
    return Path(hydra.runtime.output_dir) / job_directory(list(hydra.overrides.task))
