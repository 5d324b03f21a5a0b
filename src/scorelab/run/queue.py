"""What stands in Slurm's queue."""

import shutil
import subprocess
from collections.abc import Mapping

PREFIX = "slurm "  # of a job's name in status.json


def queued() -> Mapping[str, str]:
    """The state (PENDING, RUNNING, COMPLETING ...) of each of this user's Slurm jobs, by "slurm ID" or "slurm ID_N".

    Empty where there is no Slurm.

    Raises:
        ConnectionError: when Slurm does not answer.
    """
    if shutil.which("squeue") is None:
        return {}
    asked = subprocess.run(
        ["squeue", "--me", "-h", "-r", "-o", "%i %T"], capture_output=True, text=True, timeout=60, check=False
    )
    if asked.returncode:
        raise ConnectionError(" ".join(asked.stderr.split()) or "squeue failed")
    return {PREFIX + name: state for name, state in (line.split() for line in asked.stdout.splitlines())}
