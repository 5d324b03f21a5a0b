"""Hydra's launchers and its search as sweeps of runs need them: a job's end is on disk, whoever ran it.

Each is a plugin of Hydra's own family (joblib, submitit, optuna), where that is installed. What differs: a job that
fails ends nobody else; what is finished or at work is not submitted again; jobs on one machine share its cores;
Slurm's queue, not a job's last words, says when an array is over. ``register`` puts them under the families' own names,
for this program alone: other programs of the same environment find the plugins as they are.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn

NODES: dict[tuple[str, str], Callable[[], Any]] = {}


def register() -> None:
    """Have this program's configs mean these launchers, once Hydra has found its plugins."""
    from hydra.core.plugins import Plugins

    Plugins.instance()
    for (group, name), node in NODES.items():
        ConfigStore.instance().store(group=group, name=name, node=node(), provider="scorelab")


@contextmanager
def environment(**given: str) -> Iterator[None]:
    """What processes started meanwhile inherit."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


with suppress(ImportError):
    from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

    class SharedMachineLauncher(JoblibLauncher):
        """Jobs side by side in processes of this machine, each with its share of the cores."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """No more at a time than there are jobs to be done: they have more cores then. Ctrl-C waits for them."""
            import joblib

            from scorelab.run.beside import patient
            from scorelab.run.cores import cores, share

            task: Any = self.task_function
            todo = sum(not task.leaves(overrides) for overrides in job_overrides)
            self.joblib["n_jobs"] = max(1, min(joblib.effective_n_jobs(self.joblib["n_jobs"]), todo))
            task.quiet = True
            each = share(max(1, cores() // self.joblib["n_jobs"]))
            with environment(TQDM_DISABLE=os.environ.get("TQDM_DISABLE", "1"), **each), patient():
                return super().launch(job_overrides, initial_job_idx)

    @dataclass
    class SharedMachineConf(JobLibLauncherConf):
        """The same keys."""

        _target_: str = "hydra_plugins.scorelab_launchers.SharedMachineLauncher"

    NODES["hydra/launcher", "joblib"] = SharedMachineConf


with suppress(ImportError):
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher as submitit_plugin
    from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf

    class LocalLauncher(submitit_plugin.LocalLauncher):
        """Jobs in processes of their own on this machine, as many at a time as the cores allow."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Submit each when there is room for it; Ctrl-C has those at work save and end."""
            from scorelab.app.submitting import side_by_side

            return side_by_side(self, job_overrides, initial_job_idx)

    class SlurmLauncher(submitit_plugin.SlurmLauncher):
        """Jobs as arrays of Slurm's."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Submit all, and wait until none is in the queue; with ``detach=true`` do not wait."""
            from scorelab.app.submitting import as_arrays

            return as_arrays(self, job_overrides, initial_job_idx)

    @dataclass
    class LocalConf(LocalQueueConf):
        """The same keys; no job is ended for taking longer than an hour."""

        _target_: str = "hydra_plugins.scorelab_launchers.LocalLauncher"
        timeout_min: int = 60 * 24 * 365

    @dataclass
    class SlurmConf(SlurmQueueConf):
        """The same keys; a job that is out of time is requeued by the run itself, so submitit need not count."""

        _target_: str = "hydra_plugins.scorelab_launchers.SlurmLauncher"
        max_num_timeout: int = 1000
        name: str = "scorelab"

    NODES["hydra/launcher", "submitit_local"] = LocalConf
    NODES["hydra/launcher", "submitit_slurm"] = SlurmConf


with suppress(ImportError):
    from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf, RandomSamplerConfig, TPESamplerConfig

    @dataclass
    class SearchConf(OptunaSweeperConf):
        """The same keys; one trial at a time unless more are asked for, and one that fails does not end the search."""

        n_jobs: int = 1
        max_failure_rate: float = 1.0

    NODES["hydra/sweeper", "optuna"] = SearchConf  # seeded, so the same command makes the same trials, and goes on
    NODES["hydra/sweeper/sampler", "tpe"] = lambda: TPESamplerConfig(seed=0)
    NODES["hydra/sweeper/sampler", "random"] = lambda: RandomSamplerConfig(seed=0)
