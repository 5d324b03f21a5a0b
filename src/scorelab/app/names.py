"""What the jobs of a sweep are called: a directory each, named by what was typed."""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from scorelab.app.again import TYPED
from scorelab.app.words import value_of
from scorelab.run.identity import is_machine, key_of

LONGEST = 120


def identity(overrides: list[str]) -> list[str]:
    """The overrides that say what a run is, as key=value: choices of groups, then single values."""
    pairs = [(key_of(word), value_of(word)) for word in overrides if not is_machine(key_of(word))]
    return [f"{key}={value}" for key, value in sorted(pairs, key=lambda pair: ("." in pair[0], pair))]


def job_directory(overrides: list[str], swept: Collection[str] = ()) -> str:
    """A directory's name that says a job's swept keys and can be typed back: loss-vlb_schedule-cosine.

    Six digits at its end stand for the other overrides, where there are any; where nothing is swept the name says all.
    What Hydra's grammar or a file system would trip over becomes a dash; a hash then tells such names apart.
    """
    words = identity(overrides)
    own = [word for word in words if key_of(word) in swept] or words
    rest = [word for word in words if word not in own]
    whole = "_".join(word.replace("=", "-", 1) for word in own) or "default"
    clean = re.sub(r"[^\w.+-]", "-", whole)
    if clean == whole and len(clean) <= LONGEST and not rest:
        return clean
    return f"{clean[: LONGEST - 7]}-{digest(rest if rest and clean == whole else words)}"


def digest(words: list[str]) -> str:
    """Six hex digits of a list of words."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:6]


def place_in_sweep() -> Path | None:
    """Where this job works, if it is one of several: in the sweep's directory, in one that its overrides name."""
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return None
    return Path(hydra.runtime.output_dir) / job_directory(list(hydra.overrides.task), TYPED.swept)
