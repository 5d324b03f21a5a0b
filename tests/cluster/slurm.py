"""A Slurm for the cluster's tests: the one that is there, or one of two nodes on this machine, all in one folder.

``python tests/cluster/slurm.py WORDS`` runs pytest with these words on it; without any it keeps a Slurm until Ctrl-C
and says what to export. With INSTALL=1 (root on Debian) missing packages are installed.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PACKAGES = ("slurm-wlm", "munge")
NODES = ("node1", "node2")
CONF = """
ClusterName=scorelab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
ReturnToService=2
JobRequeue=1
KillWait=15
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory={memory}
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory={memory}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=8 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def there() -> bool:
    """Whether a Slurm answers that has a partition to run jobs in."""
    if shutil.which("sinfo") is None:
        return False
    asked = subprocess.run(["sinfo", "-h", "-o", "%P %a"], capture_output=True, text=True, timeout=60, check=False)
    return asked.returncode == 0 and " up" in asked.stdout


def installed() -> None:
    """See that Slurm's programs are there; install them where INSTALL=1 says so.

    Raises:
        SystemExit: in one line, when they are not.
    """
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if not missing:
        return
    can = os.environ.get("INSTALL") == "1" and os.getuid() == 0 and shutil.which("apt-get")
    if not can:
        how = "INSTALL=1 make test-cluster (root on Debian) installs them"
        raise SystemExit(f"no Slurm answers here, and {', '.join(missing)} to start one are missing: {how}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    if subprocess.run(install, env=quiet, stdout=subprocess.DEVNULL, check=False).returncode:
        subprocess.run(["apt-get", "update", "-qq"], env=quiet, stdout=subprocess.DEVNULL, check=True)
        subprocess.run(install, env=quiet, stdout=subprocess.DEVNULL, check=True)


@contextmanager
def running() -> Iterator[None]:
    """A Slurm of two nodes while this is entered; SLURM_CONF leads every command to it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    before = os.environ.get("SLURM_CONF")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        write_configuration(folder)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        stack.callback(restore, "SLURM_CONF", before)
        munge = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file")]
        munge += [f"--key-file={folder}/munge.key", f"--seed-file={folder}/munge.seed"]
        start(stack, folder, "munged", "--foreground", *munge)
        start(stack, folder, "slurmctld", "-D", "-i")
        for node in NODES:
            start(stack, folder, "slurmd", "-D", "-N", node)
        stack.callback(end_jobs)
        wait_until_idle(folder)
        yield


def write_configuration(folder: Path) -> None:
    """slurm.conf with free ports, and munge's key."""
    folder.chmod(0o755)
    (folder / "state").mkdir()
    for node in NODES:
        (folder / node).mkdir()
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(os.urandom(128))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    told = {"host": socket.gethostname().partition(".")[0], "ports": free_ports(3), "user": getpass.getuser()}
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, memory=memory, **told))


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nothing listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def start(stack: ExitStack, folder: Path, *words: str) -> None:
    """Start a daemon that ends with the stack, whatever ends it."""
    with (folder / f"{words[0]}.out").open("a") as said:
        daemon = subprocess.Popen(words, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True)
    stack.callback(stop, daemon)
    time.sleep(0.5)
    if daemon.poll() is not None:
        raise SystemExit(f"{words[0]} does not start: {(folder / f'{words[0]}.out').read_text().strip()[-500:]}")


def stop(daemon: subprocess.Popen) -> None:
    """End a daemon, by force where it takes longer than ten seconds."""
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def end_jobs() -> None:
    """End what still runs there, and wait until it has ended: its daemons would leave it behind."""
    for _ in range(30):
        subprocess.run(["scancel", "--full", "--signal=KILL", "--user", getpass.getuser()], timeout=60, check=False)
        if not subprocess.run(["squeue", "-h"], capture_output=True, text=True, timeout=60, check=False).stdout:
            return
        subprocess.run(["scancel", "--user", getpass.getuser()], timeout=60, check=False)
        time.sleep(1)


def restore(name: str, value: str | None) -> None:
    """Give a variable its value back."""
    os.environ.pop(name) if value is None else os.environ.update({name: value})


def wait_until_idle(folder: Path) -> None:
    """Wait until all nodes take jobs.

    Raises:
        SystemExit: when they do not within a minute.
    """
    for _ in range(120):
        asked = subprocess.run(["sinfo", "-h", "-N", "-p", "main", "-o", "%T"], capture_output=True, text=True)
        if asked.stdout.split() == ["idle"] * len(NODES):
            return
        time.sleep(0.5)
    log = (folder / "slurmctld.log").read_text().strip().splitlines()
    raise SystemExit(f"Slurm's nodes do not come up ({' '.join(asked.stdout.split())}): {log[-1] if log else ''}")


def main(words: list[str]) -> int:
    """Have pytest run on a Slurm, or keep one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is started is stopped
    with ExitStack() as stack:
        if not there():
            installed()
            stack.enter_context(running())
        if words:
            return subprocess.run([sys.executable, "-m", "pytest", *words], check=False).returncode
        print(f"export SLURM_CONF={os.environ.get('SLURM_CONF', '')}", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
