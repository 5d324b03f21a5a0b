"""What a command means whose job Slurm has requeued: go on with what this very job has begun, not begin anew."""

import logging
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from scorelab.config.stored import of_today
from scorelab.errors import UserError
from scorelab.files import display_path
from scorelab.run.directory import RunDir, first_free
from scorelab.run.identity import first_difference, key_of, read_config
from scorelab.run.slurm import restarts
from scorelab.run.status import Status, cluster_job, read_status

log = logging.getLogger("scorelab")


def taken(run: RunDir, config: dict[str, Any]) -> RunDir:
    """The directory locked; a free one beside it where nobody chose its name and another run has it.

    Raises:
        UserError: when the name was chosen, and another job works there.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN and "run" not in map(key_of, hydra.overrides.task):
        return begun_before(run, config) or first_free(run.path)
    run.lock()
    return run


def is_own(status: Status | None) -> bool:
    """Whether a run was begun by this job before Slurm requeued it."""
    return restarts() > 0 and status is not None and status.job == cluster_job() and status.state != "waiting"


def going_on(config: dict[str, Any], run: RunDir) -> dict[str, Any]:
    """The config, without its ``overwrite=true`` where that has been obeyed before the job was requeued."""
    if not config["overwrite"] or not is_own(run.left_by):
        return config
    log.info("overwrite=true is done: requeued, this job goes on with what it has begun")
    return config | {"overwrite": False}


def begun_before(new: RunDir, config: dict[str, Any]) -> RunDir | None:
    """The run that this job has begun under a name that the clock made, beside the one it would make now; locked."""
    if not restarts():
        return None
    for file in sorted(new.path.parent.glob("*/status.json")):
        run = RunDir(file.parent)
        if not is_own(read_status(run.path)):
            continue
        try:
            if first_difference(of_today(read_config(run.path / "config.yaml")), config) is None:
                run.lock()
                new.discard()
                log.info("requeued: goes on with %s", display_path(run.path))
                return run
        except (UserError, OSError):  # damaged, or another command of this job is at work there
            continue
    return None
