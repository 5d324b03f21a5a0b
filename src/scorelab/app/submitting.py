"""Jobs handed to submitit: side by side on this machine, or as arrays of Slurm's."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus

from scorelab.app.again import TYPED
from scorelab.app.names import job_directory
from scorelab.app.task import on_disk
from scorelab.errors import UserError
from scorelab.run.cores import cores, share
from scorelab.run.directory import RunDir
from scorelab.run.queue import PREFIX, queued
from scorelab.run.status import AT_WORK, read_status, told, write_status
from scorelab.run.surroundings import FORGOTTEN

ARRAY = 1000  # jobs of an array: Slurm's own limit is 1001 where nobody has raised or lowered it


def side_by_side(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run jobs in processes of this machine, as many at a time as there are cores for; what they came to.

    ``hydra.launcher.cpus_per_task`` is how many cores each has: by default an equal share, where there are fewer jobs
    than cores more than one.
    """
    todo = [job for job in numbered(launcher, job_overrides, first) if not launcher.task_function.leaves(job[0])]
    here = cores()
    each = launcher.params.get("cpus_per_task") or max(1, here // max(1, len(todo)))
    executor = executor_of(launcher)
    jobs: dict[Path, Any] = {}
    waiting = dict(zip(directories(launcher, [overrides for overrides, *_ in todo]), todo, strict=True))
    try:
        with inherited(**share(each)):
            while waiting or jobs:
                while waiting and len(jobs) < max(1, here // each):
                    place = next(iter(waiting))
                    with deaf():
                        jobs[place] = executor.submit(launcher, *waiting.pop(place))
                time.sleep(0.2)
                for place in [place for place, job in jobs.items() if job.done()]:
                    say_end(place, jobs.pop(place).job_id)
    finally:
        for job in jobs.values():
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)  # which its controller hands on; SIGINT would kill at once
        while not all(job.done() for job in jobs.values()):
            time.sleep(0.2)
    return returns(launcher, job_overrides)


def as_arrays(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Submit jobs to Slurm, and wait until none of them, nor of those submitted earlier, is in its queue.

    With ``detach=true`` nothing is waited for. While it waits the command may be ended: Slurm has the jobs.

    Raises:
        UserError: for what Slurm refuses.
    """
    places = directories(launcher, job_overrides)
    todo = [job for job in numbered(launcher, job_overrides, first) if not launcher.task_function.leaves(job[0])]
    most = array_limit()
    for some in (todo[place : place + most] for place in range(0, len(todo), most)):
        with refusals_told(), inherited():
            jobs = executor_of(launcher).map_array(launcher, *zip(*some, strict=True))
        print(f"submitted to Slurm as {jobs[0].job_id.partition('_')[0]}: {len(jobs)} jobs", flush=True)
        for job, (overrides, *_) in zip(jobs, some, strict=True):
            mark_waiting(directories(launcher, [overrides])[0], PREFIX + job.job_id)
    if not launcher.config.detach:
        follow(places)
    return returns(launcher, job_overrides)


def numbered(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[tuple[Any, ...]]:
    """What each job is called with, as Hydra's own launcher has it."""
    state = Singleton.get_state()
    return [
        (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", state)
        for number, overrides in enumerate(job_overrides, first)
    ]


def executor_of(launcher: Any) -> Any:
    """Submitit's executor, with the keys of ``hydra.launcher``."""
    import submitit
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    kind, params = launcher._EXECUTOR, dict(launcher.params)
    folder, timeouts = params.pop("submitit_folder"), params.pop("max_num_timeout", None)
    limit = {} if timeouts is None else {f"{kind}_max_num_timeout": timeouts}
    executor = submitit.AutoExecutor(folder, cluster=kind, **limit)
    common = BaseQueueConf.__dataclass_fields__
    executor.update_parameters(**{key if key in common else f"{kind}_{key}": each for key, each in params.items()})
    return executor


@contextmanager
def refusals_told() -> Iterator[None]:
    """Tell what sbatch says in one line.

    Raises:
        UserError: then.
    """
    import submitit

    try:
        yield
    except (RuntimeError, submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
        lines = [line for line in str(error).splitlines() if "sbatch: error" in line] or [str(error)]
        raise UserError(f"Slurm refuses: {' '.join(lines[-1].split())} (hydra.launcher.KEY=... changes it)") from error


def directories(launcher: Any, job_overrides: Sequence[Sequence[str]]) -> list[Path]:
    """Where jobs work."""
    sweep = Path(str(launcher.config.hydra.sweep.dir))
    return [sweep / job_directory(list(overrides), TYPED.swept) for overrides in job_overrides]


def array_limit() -> int:
    """How many jobs an array may have here."""
    asked = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", asked.stdout)
    return max(1, min(ARRAY, int(found[1]) - 1)) if found else ARRAY


def mark_waiting(place: Path, job: str) -> None:
    """Say that a job has been submitted, unless it is at work already; how far an earlier one came stays there."""
    before = read_status(place)
    if before is None or (before.state not in AT_WORK and before.job != job):  # it may be over by now
        place.mkdir(parents=True, exist_ok=True)
        step, seconds = (before.step, before.seconds) if before else (None, 0.0)
        write_status(place, "waiting", step, seconds=seconds, job=job)


def follow(places: Sequence[Path]) -> None:
    """Wait until none of these jobs is in Slurm's queue, and say of each how it ended."""
    waiting = list(places)
    try:
        while waiting:
            time.sleep(min(10.0, 1 + len(places) / 100))
            with suppress(ConnectionError, subprocess.TimeoutExpired):  # it does not answer now and then
                there = queued()
                ended = [place for place in waiting if job_of(place) not in there]
                waiting = [place for place in waiting if place not in ended]
                for place in ended:
                    say_end(place, (job_of(place) or "").removeprefix(PREFIX))
    except KeyboardInterrupt:
        print(f"{len(waiting)} jobs stay with Slurm: the same command waits for them, scancel ends them", flush=True)
        raise


def say_end(place: Path, job: str) -> None:
    """Say how a job has ended. One that could not say so itself has failed; its log's last line may tell why."""
    status = read_status(place)
    if status is None or status.state in ("waiting", "lost", *AT_WORK):
        logs = sorted(place.parent.glob(f".submitit/*/{job}_*log.err"))
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1].split("\r")[-1].strip() if lines else "nothing"
        step = "before its first step" if status is None or status.step is None else f"at step {status.step:,} or later"
        RunDir(place).refused(f"ended without a word {step}; its log ends with: {last}")
        status = read_status(place)
    print(f"{place.name}: {told(status) if status else 'not begun'}", flush=True)


@contextmanager
def deaf() -> Iterator[None]:
    """Have processes started meanwhile not hear the terminal's Ctrl-C: they are told by this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def inherited(**given: str) -> Iterator[None]:
    """What processes started meanwhile inherit: where modules are found here, where nodes meet, and what is given."""
    new = {"PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in sys.path if each), **given}
    new |= {name: FORGOTTEN[name] for name in ("MASTER_ADDR",) if name in FORGOTTEN}
    before = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def job_of(place: Path) -> str | None:
    """The Slurm job that works in a directory, or has last."""
    status = read_status(place)
    return status.job if status else None


def returns(launcher: Any, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """What Hydra is told of jobs, by what they have left."""
    wanted = str(launcher.config.optimized_metric)
    found = []
    for overrides, place in zip(job_overrides, directories(launcher, job_overrides), strict=True):
        told = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
        told.return_value = on_disk(place, wanted)
        found.append(told)
    return found
