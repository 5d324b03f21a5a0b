"""How many processor cores a process may use, and with how many threads libraries begin.

Nothing heavy is imported here: what is said stands in the environment before any library reads it.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

GIVEN = "SCORELAB_CORES"  # set: OMP_NUM_THREADS is this program's, not the user's; a number but 0: the cores to share
THREADS = "OMP_NUM_THREADS"
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SPIN = "1000"  # rounds in which a thread waits for the others before it sleeps: see benchmarks/busy.py


def settle_threads() -> None:
    """Have libraries begin with one thread, and threads that wait let others work, where the user says nothing of it.

    NumPy keeps its one; how many PyTorch has for a run is chosen once it is known (``config/threads``).
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPIN
    if THREADS not in os.environ:
        os.environ.setdefault(GIVEN, "0")
    if GIVEN in os.environ:
        os.environ[THREADS] = "1"


def said() -> int | None:
    """How many threads the user's OMP_NUM_THREADS says."""
    found = None if GIVEN in os.environ else re.match(r"\d+", os.environ.get(THREADS, ""))
    return max(1, int(found[0])) if found else None


def share(number: int) -> dict[str, str]:
    """What the environment says to a process that is to use so many cores; nothing where the user has said it."""
    return {} if said() else {GIVEN: str(number)}


def cores() -> int:
    """How many cores this process may use: of those it is bound to, no more than it was given of them."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = re.fullmatch(r"\d+", os.environ.get(GIVEN, ""))
    limits = (bound, int(given[0]) if given else None, of_slurm(), quota())
    return max(1, min(each for each in limits if each))


def of_slurm() -> int | None:
    """How many processors Slurm has given each process of a job.

    It binds processes to theirs on some clusters alone; elsewhere the jobs of a node would slow each other.
    """
    given = os.environ
    if "SLURM_JOB_ID" not in given:
        return None
    tasks = re.match(r"\d+", given.get("SLURM_STEP_TASKS_PER_NODE") or given.get("SLURM_NTASKS_PER_NODE") or "1")
    each = given.get("SLURM_CPUS_PER_TASK", "")
    on_node = given.get("SLURM_CPUS_ON_NODE", "")
    if each.isdecimal():
        return int(each)
    return max(1, int(on_node) // max(1, int(tasks[0]) if tasks else 1)) if on_node.isdecimal() else None


def quota(root: Path = Path("/sys/fs/cgroup"), of: Path = Path("/proc/self/cgroup")) -> int | None:
    """How many cores' time the process's control groups let it have, as containers limit it; None without a limit."""
    found: list[float] = []
    with suppress(OSError, ValueError):
        for line in of.read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds and "cpu" not in kinds.split(","):
                continue
            top = root / "cpu" if kinds else root
            group = top / place.strip("/")
            for folder in (group, *group.parents):
                found += _limit(folder)
                if folder == top:
                    break
    return max(1, int(min(found))) if found else None


def _limit(folder: Path) -> list[float]:
    """The limit of one control group, of the second version or the first."""
    with suppress(OSError, ValueError):
        if (file := folder / "cpu.max").exists():
            time, of = file.read_text().split()
        else:
            time, of = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(time) / int(of)] if time.strip() != "max" and int(time) > 0 else []
    return []
