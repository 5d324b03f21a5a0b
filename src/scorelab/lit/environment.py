"""Which of a run's processes this is, as Lightning asks for it."""

import os

from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from scorelab.run.launch import Launched
from scorelab.run.processes import HOST


class ProcessEnvironment(LightningEnvironment):
    """Which of a run's processes this is, as the run itself has it: no variable of a launcher is looked at.

    Lightning neither starts a process nor asks whether Slurm, torchrun, MPI, LSF or Kubeflow did.
    """

    def __init__(self, rank: int = 0, port: int = 0) -> None:
        super().__init__()
        self.rank, self.port = rank, port
        self.set_global_rank(rank)  # an import of Lightning may have found another one

    @property
    def creates_processes_externally(self) -> bool:
        """They are there already."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first process is met: on this machine."""
        return HOST

    @property
    def main_port(self) -> int:
        """Its port."""
        return self.port

    def local_rank(self) -> int:
        """The same as the rank: there is one machine."""
        return self.rank

    def node_rank(self) -> int:
        """The only machine's."""
        return 0

    def teardown(self) -> None:
        """There is nothing to take back."""


def launched_place(launched: Launched) -> ClusterEnvironment:
    """Which of several nodes' processes this is, as Lightning reads it from a launcher's variables; set again here."""
    os.environ |= launched.environment
    return SLURMEnvironment(auto_requeue=False) if launched.launcher == "srun" else TorchElasticEnvironment()
