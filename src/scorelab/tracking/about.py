"""What a run is called at W&B: what is typed, else what W&B's variables say, else what the run itself is."""

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scorelab.errors import UserError
from scorelab.files import write_text

MODES = ("auto", "online", "offline", "disabled")
VARIABLES = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "notes": "WANDB_NOTES",
    "tags": "WANDB_TAGS",
    "mode": "WANDB_MODE",
}
LONGEST, LONGEST_TAG = 128, 64  # what the server takes
NOT_IN_PROJECTS = "/\\#?%:"


def asked(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What is typed, else what W&B's variables say; None for neither.

    Raises:
        UserError: for what W&B's server would refuse.
    """
    found = {}
    for key, variable in VARIABLES.items():
        value, origin = typed.get(key), f"logger.{key}"
        if value is None and os.environ.get(variable):
            value, origin = os.environ[variable], variable
            if key == "tags":
                value = [tag.strip() for tag in value.split(",") if tag.strip()]
            if key == "mode" and value in ("dryrun", "run"):  # W&B's former words
                value = {"dryrun": "offline", "run": "online"}[value]
        if value is not None and (told := _refused(key, value)):
            raise UserError(f"{origin}={_shown(value)}: {told}")
        found[key] = value
    return found


def _refused(key: str, value: Any) -> str | None:
    """Why the server would refuse a value; None where it would not."""
    if key == "mode":
        return None if value in MODES else f"no such mode; possible: {', '.join(MODES)}"
    if key == "tags":
        wrong = [tag for tag in value if not 1 <= len(str(tag)) <= LONGEST_TAG]
        return f"a tag has 1 to {LONGEST_TAG} characters: shorten {_shown(wrong[0])}" if wrong else None
    if key in ("group", "job_type", "project", "entity") and len(value) > LONGEST:
        return f"at most {LONGEST} characters, not {len(value)}"
    if key == "project" and (found := [sign for sign in NOT_IN_PROJECTS if sign in value]):
        return f"a project's name has no {found[0]}: leave out {' '.join(NOT_IN_PROJECTS)}"
    return None


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def shortened(name: str, most: int = LONGEST) -> str:
    """A name of our own making, as long as the server takes; what is cut off counts in a few letters at its end."""
    if len(name) <= most:
        return name
    return f"{name[: most - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class About:
    """A run at W&B, as far as it does not change: kept beside it, so that it can be uploaded whenever."""

    id: str
    name: str
    project: str
    entity: str | None
    group: str | None
    job_type: str
    tags: list[str]
    notes: str | None
    config: dict[str, Any]
    artifacts: bool = False

    @classmethod
    def of(
        cls, directory: Path, name: str, config: dict[str, Any], given: Mapping[str, Any], artifacts: bool
    ) -> "About":
        """By what was asked for; a job of a sweep is grouped under the sweep's name."""
        sweep = shortened(directory.parent.name) if directory.parent.parent.name == "sweeps" else None
        choices = [str(config[group]) for group in ("loss", "schedule") if group in config]
        return cls(
            id=identity(directory),
            name=shortened(name),
            project=given["project"] or "scorelab",
            entity=given["entity"],
            group=given["group"] or sweep,
            job_type=given["job_type"] or "train",
            tags=given["tags"] if given["tags"] is not None else [shortened(each, LONGEST_TAG) for each in choices],
            notes=given["notes"],
            config=config,
            artifacts=artifacts,
        )

    @classmethod
    def read(cls, directory: Path) -> "About":
        """As the run's job wrote it.

        Raises:
            OSError, ValueError, TypeError: when it cannot be read.
        """
        return cls(**json.loads((directory / "wandb" / "run.json").read_text(encoding="utf-8")))

    def write(self, directory: Path) -> None:
        """Keep it in the run's wandb/."""
        (directory / "wandb").mkdir(exist_ok=True)
        write_text(directory / "wandb" / "run.json", json.dumps(asdict(self), indent=1, default=str))


def identity(directory: Path) -> str:
    """The run's id at W&B: random, or the one that a sweep's agent has given; the same when the run is continued."""
    mark = directory / "wandb_id"
    if not mark.exists():
        given = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        write_text(mark, given or uuid.uuid4().hex[:8])
    return mark.read_text().strip()
