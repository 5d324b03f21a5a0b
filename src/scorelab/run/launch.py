"""Which of several nodes' processes this is, as srun or torchrun has it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from scorelab.run.surroundings import FORGOTTEN

PORTS = 15000, 10000  # of Slurm's jobs: the first, and how many; a job's steps lie apart


@dataclass(frozen=True)
class Launched:
    """This process as its launcher knows it.

    Attributes:
        launcher: srun or torchrun.
        world: how many there are.
        local: how many of them on this node.
        environment: the variables that say so, as Lightning and torch look for them.
    """

    launcher: str
    rank: int
    world: int
    local: int
    environment: Mapping[str, str]


def launched() -> Launched | None:
    """What the environment says, or said before it was settled; None where no launcher started this process."""
    given = {**os.environ, **FORGOTTEN}
    try:
        if "TORCHELASTIC_RUN_ID" in given and "RANK" in given:  # srun may have started torchrun
            rank, world, local = (int(given[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
            return Launched("torchrun", rank, world, local, dict(FORGOTTEN))
        if "SLURM_STEP_NUM_TASKS" in given and "SLURM_PROCID" in given:  # a batch script itself is in no step
            return _of_slurm(given)
    except (KeyError, ValueError):
        return None
    return None


def _of_slurm(given: Mapping[str, str]) -> Launched:
    """A task of a step. A step may be smaller than its job, of which alone some variables tell."""
    rank, world, nodes = (int(given[f"SLURM_{name}"]) for name in ("PROCID", "STEP_NUM_TASKS", "STEP_NUM_NODES"))
    local = int(re.split(r"[(,]", given["SLURM_STEP_TASKS_PER_NODE"])[0])
    first, many = PORTS
    port = first + (int(given["SLURM_JOB_ID"]) + 101 * int(given.get("SLURM_STEP_ID", 0))) % many
    said = {
        "SLURM_PROCID": str(rank),
        "SLURM_NTASKS": str(world),
        "SLURM_NTASKS_PER_NODE": str(local),
        "SLURM_NNODES": str(nodes),
        "SLURM_NODELIST": given["SLURM_STEP_NODELIST"],
        "MASTER_PORT": given.get("MASTER_PORT", str(port)),
    }
    if "MASTER_ADDR" in given:  # typed, where the nodes' names lead nowhere
        said["MASTER_ADDR"] = given["MASTER_ADDR"]
    return Launched("srun", rank, world, local, said)
