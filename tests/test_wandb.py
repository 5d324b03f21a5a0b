"""W&B: training never waits for it, and nothing that was logged is lost; with the real wandb and a local server."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import Said, captured
from PIL import Image
from scorelab.tracking.wandb_files import Folder, folders, records, write
from wandb_server import StoredRun, WandbServer

from scorelab.tracking import sync
from scorelab.tracking.sync import pending, within
from scorelab.tracking.wandb_logger import Wandb

pytestmark = pytest.mark.usefixtures("server")
PATIENCE = 20.0
FLOATS = [float(number) for number in range(200)]


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The seconds that wandb's first import and first start take are no test's own."""
    Wandb(tmp_path_factory.mktemp("warm"), "name", {}, timeout=60).close(0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server, and a login to it."""
    own = WandbServer()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", own.address)
    yield own
    own.close()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines about W&B so far."""
    caplog.set_level("INFO")
    return lambda: [record.getMessage() for record in caplog.records if record.getMessage().startswith("W&B: ")]


def logged(place: Path, rows: int = 100, first: int = 0, during: Callable[[], None] = lambda: None, **more: Any) -> str:
    """Log rows as a training would, half of them before ``during``; no call may take long. Returns the run's id."""
    place.mkdir(parents=True, exist_ok=True)
    logger = Wandb(place, "name", {"loss": "a.B"}, **more)
    slowest = 0.0
    for number in range(first, first + rows):
        if number == first + rows // 2:
            during()
        began = time.monotonic()
        logger.log_metrics({"a": float(number)}, number)
        slowest = max(slowest, time.monotonic() - began)
    logger.summarize({"final": float(rows), "nothing": None})
    began = time.monotonic()
    logger.close(0)
    assert slowest < 2  # on a busy machine; a call that waits for wandb takes ten times as long
    assert time.monotonic() - began < PATIENCE
    return logger.identity


def synced(*places: Path, **environment: str) -> Said:
    """What ``make sync`` runs."""
    status: object = 0
    with pytest.MonkeyPatch.context() as patch, captured() as (out, err):
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["sync", *map(str, places)])
        try:
            sync.main()
        except SystemExit as end:
            status = end.code
            if isinstance(status, str):  # as Python does where nobody catches it
                print(status, file=sys.stderr)
                status = 1
        finally:
            wandb.teardown()  # its settings are read afresh then
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        for file in (out, err):
            file.seek(0)
        return Said(status, out.read(), err.read())


def whole(run: StoredRun, rows: int) -> None:
    """Every row is there, once, in the order it was logged, and W&B's own count goes on from row to row."""
    assert run.column("a") == FLOATS[:rows]
    assert run.column("trainer/global_step") == list(range(rows))
    assert run.column("_step") == list(range(rows))
    times = run.column("_runtime")
    start = times[0]  # a process's first start of wandb takes a second, which it does not count as the run's
    assert all(later > earlier - 1 - start for earlier, later in pairwise(times))  # it goes on from whole seconds


def after(what: str, number: int, answer: float = 500, until: int = 10**9) -> Callable[[str], float | None]:
    """A server that takes the first few requests of a kind and fails the others."""
    seen: Counter[str] = Counter()

    def fails(asked: str) -> float | None:
        seen[asked] += 1
        return answer if asked == what and number < seen[asked] <= until else None

    return fails


def core() -> int:
    """The process of our wandb-core, once it runs."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                number, rest = file.read_text().split(" (wandb-core) ")
            except (OSError, ValueError):
                continue
            if rest.split()[:2] == ["S", str(os.getpid())]:
                return int(number)
        time.sleep(0.05)
    raise AssertionError("no wandb-core")


def online(server: WandbServer) -> None:
    """Wait until a run has begun on the server."""
    until = time.monotonic() + 15
    while "UpsertBucket" not in server.asked and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)


def test_a_run_is_on_the_server_with_its_pictures_and_its_final_numbers(
    tmp_path: Path, server: WandbServer, said: Callable[[], list[str]]
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "step_1.png")
    logger = Wandb(tmp_path, "name", {"loss": "a.B"}, group="sweep")
    logger.log_metrics({"a": 0.0}, 0)
    logger.log_image("samples", tmp_path / "step_1.png", 1)
    logger.summarize({"test/fid": 3.5, "test/kid": None})
    logger.close(0)
    run = server.runs[logger.identity]
    assert run.column("a") == [0.0]
    assert run.column("trainer/global_step") == [0, 1]
    assert run.summary["test/fid"] == 3.5 and "test/kid" not in run.summary
    assert run.exit_code == 0 and run.fields["groupName"] == "sweep" and '"loss"' in run.fields["config"]
    assert '"1":"trainer/global_step"' in run.fields["config"] and '"2":"*"' in run.fields["config"]  # all on one axis
    assert any(name.startswith("media/images/samples") for name in run.files)
    assert len(said()) == 1 and said()[0].startswith("W&B: online, ")
    assert not pending(tmp_path)


def test_without_a_login_it_is_offline_and_says_how_to_upload(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "")
    name = logged(tmp_path)
    assert len(said()) == 1 and all(part in said()[0] for part in ("offline", "no login", "make sync"))
    assert len(name) == 8 and (tmp_path / "wandb_id").read_text() == name
    assert [folder.rows for folder in folders(tmp_path)] == [100]
    assert list(tmp_path.glob(f"wandb/offline-run-*-{name}/run-{name}.wandb"))


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_mode_in_the_environment_is_obeyed_and_named(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, server: WandbServer, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    logged(tmp_path)
    assert len(said()) == 1 and mode in said()[0] and "no login" not in said()[0]
    assert len(folders(tmp_path)) == (mode == "offline")
    assert not server.runs


def test_where_nothing_listens_it_is_offline(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    logged(tmp_path)
    assert len(said()) == 1 and all(part in said()[0] for part in ("offline", "http://127.0.0.1:9 ", "make sync"))
    assert [folder.rows for folder in folders(tmp_path)] == [100]


def test_a_server_that_accepts_and_never_answers_means_offline_in_time(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        logged(tmp_path, timeout=5)
    assert len(said()) == 1 and "does not answer" in said()[0]
    assert [folder.rows for folder in folders(tmp_path)] == [100]


def test_a_name_that_is_never_resolved_means_offline_in_time(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))  # no timeout of a connection ends this
    monkeypatch.setenv("WANDB_BASE_URL", "http://w-and-b.invalid")
    logged(tmp_path, timeout=5)
    assert len(said()) == 1 and all(part in said()[0] for part in ("offline", "w-and-b.invalid does not answer"))
    assert [folder.rows for folder in folders(tmp_path)] == [100]


def test_a_call_ends_with_its_result_or_in_time() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        within(0.2, lambda: time.sleep(30))
    assert time.monotonic() - began < 2
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)


@pytest.mark.slow
def test_a_server_that_fails_from_the_start_means_offline_under_the_same_id(
    tmp_path: Path, server: WandbServer, said: Callable[[], list[str]]
) -> None:
    server.fails = lambda what: 500 if what != "file_stream" else None
    name = logged(tmp_path, timeout=12)
    assert len(said()) == 1 and said()[0].startswith("W&B: offline (") and "500" in said()[0]
    assert (tmp_path / "wandb_id").read_text() == name
    server.fails = lambda what: None
    assert synced(tmp_path).status == 0
    whole(server.runs[name], 100)


@pytest.mark.parametrize(
    ("what", "answer"),
    [
        ("file_stream", 500),
        pytest.param("file_stream", 400, marks=pytest.mark.slow),
        pytest.param("UpsertBucket", 500, marks=pytest.mark.slow),
        pytest.param("upload", 500, marks=pytest.mark.slow),
    ],
)
def test_a_server_that_fails_in_the_middle_costs_no_row_and_no_time(
    tmp_path: Path, server: WandbServer, said: Callable[[], list[str]], what: str, answer: int
) -> None:
    server.fails = after(what, 1, answer)
    name = logged(tmp_path, during=lambda: online(server), timeout=10)
    assert "W&B: not everything was uploaded" in said()[-1] and "make sync" in said()[-1]
    assert len(said()) == 2
    server.fails = lambda what: None
    told = synced(tmp_path)
    assert told.status == 0 and "uploaded" in told.out, told.out
    whole(server.runs[name], 100)
    assert server.runs[name].summary["final"] == 100.0
    assert "wandb-summary.json" in server.runs[name].files


def test_a_server_that_fails_for_a_while_gets_everything(tmp_path: Path, server: WandbServer) -> None:
    server.fails = after("file_stream", 0, until=1)
    name = logged(tmp_path)
    whole(server.runs[name], 100)
    assert not pending(tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_wandb_core_that_dies_or_stops_costs_no_row_and_the_next_run_works(
    tmp_path: Path, server: WandbServer, said: Callable[[], list[str]], how: signal.Signals
) -> None:
    def hit() -> None:
        online(server)
        os.kill(core(), how)
        time.sleep(0.2)

    name = logged(tmp_path / "first", during=hit)
    assert "make sync uploads it later" in said()[-1]
    assert sum(folder.rows for folder in folders(tmp_path / "first")) == 100
    following = logged(tmp_path / "second")
    whole(server.runs[following], 100)
    assert synced(tmp_path).status == 0
    whole(server.runs[name], 100)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A run's directory whose wandb/ is a file system of two megabytes."""
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path / "run" / "wandb")]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield tmp_path / "run"
    subprocess.run(["umount", "-l", str(tmp_path / "run" / "wandb")], check=True)


def fill(folder: Path) -> None:
    """Leave no room."""
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.mark.parametrize("mode", [pytest.param("online", marks=pytest.mark.slow), "offline"])
def test_a_folder_that_fills_up_costs_one_line(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], capsys: Any, mode: str
) -> None:
    def full() -> None:
        core()
        time.sleep(1.5)
        fill(tiny / "wandb")

    monkeypatch.setenv("WANDB_MODE", mode)
    logged(tiny, rows=2000, during=full)
    assert len(said()) == 2
    assert "metrics.csv has" in said()[-1]
    assert "Error" not in capsys.readouterr().err


def test_a_folder_that_is_full_from_the_start_costs_one_line(tiny: Path, said: Callable[[], list[str]]) -> None:
    fill(tiny / "wandb")
    logged(tiny)
    assert len(said()) == 1 and "No space left" in said()[0] and "metrics.csv has everything" in said()[0]


def test_a_folder_that_cannot_be_made_costs_one_line(tmp_path: Path, said: Callable[[], list[str]]) -> None:
    (tmp_path / "wandb").write_text("in the way")
    logged(tmp_path)
    assert len(said()) == 1 and "metrics.csv has everything" in said()[0]


JOB = """
import os, sys, time
from pathlib import Path
from scorelab.tracking.wandb_recorder import Given, Recorder, HistoryRow
directory, first, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
recorder = Recorder(Given(directory, "abcd1234", "name", {}, "scorelab", None, "auto", 20.0))
recorder.start()
for number in range(first, first + rows):
    values = {"a": float(number), "trainer/global_step": number, "_timestamp": time.time()}
    recorder.asked.put(HistoryRow(values, {}))
while recorder.asked.qsize():
    time.sleep(0.1)
time.sleep(2.5)
"""


def killed(place: Path, first: int, rows: int, **environment: str) -> None:
    """Log rows in a process that is then killed."""
    command = [sys.executable, "-c", f"{JOB}os.kill(os.getpid(), 9)", str(place), str(first), str(rows)]
    assert subprocess.run(command, env=os.environ | environment, timeout=60).returncode == -9


@pytest.mark.slow
def test_a_process_that_leaves_without_a_close_does_not_wait_for_the_server(
    tmp_path: Path, server: WandbServer
) -> None:
    server.fails = after("file_stream", 0)
    command = [sys.executable, "-c", f"{JOB}print(time.time())", str(tmp_path), "0", "50"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert time.time() - float(told.stdout) < 5
    assert told.returncode == 0 and "Traceback" not in told.stderr
    assert [folder.rows for folder in folders(tmp_path)] == [50] and pending(tmp_path)


def test_a_killed_run_is_uploaded_as_far_as_its_records_are_whole(tmp_path: Path, server: WandbServer) -> None:
    killed(tmp_path, 0, 50, WANDB_MODE="offline")
    (folder,) = folders(tmp_path)
    kept = folder.rows
    assert kept == 50
    data = folder.log.read_bytes()
    folder.log.write_bytes(data[:-30])
    assert 0 < folder.rows <= kept
    assert synced(tmp_path).status == 0
    whole(server.runs["abcd1234"], folder.rows)


@pytest.mark.slow
def test_a_run_killed_online_and_continued_is_one_history(tmp_path: Path, server: WandbServer) -> None:
    server.fails = after("file_stream", 0)
    killed(tmp_path, 0, 50)
    assert pending(tmp_path)
    server.fails = lambda what: None
    (tmp_path / "wandb_id").write_text("abcd1234")
    logged(tmp_path, 30, first=50)
    assert synced(tmp_path).status == 0
    whole(server.runs["abcd1234"], 80)


def offline(place: Path, rows: int, first: int = 0) -> str:
    """A job without a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        name = logged(place, rows, first)
    time.sleep(1.1)  # wandb names its folders by the second
    return name


def test_several_folders_of_one_run_are_uploaded_in_order_and_only_once(tmp_path: Path, server: WandbServer) -> None:
    names = [offline(tmp_path / "one", 60), offline(tmp_path / "one", 40, first=60)]
    other = offline(tmp_path / "deep" / "two", 10)
    assert names[0] == names[1]
    told = synced(tmp_path)
    assert told.status == 0 and len(told.out.splitlines()) == 2
    whole(server.runs[names[0]], 100)
    whole(server.runs[other], 10)
    given = len(server.asked)
    assert synced(tmp_path).out == "W&B: nothing to upload\n"
    assert len(server.asked) == given
    for folder in folders(tmp_path / "one"):  # as `wandb clean` does with what is uploaded
        shutil.rmtree(folder.path)
    offline(tmp_path / "one", 20, first=100)
    assert "uploaded, 20 rows" in synced(tmp_path).out
    whole(server.runs[names[0]], 120)


@pytest.mark.parametrize("what", ["file_stream", pytest.param("upload", marks=pytest.mark.slow)])
def test_an_upload_that_breaks_off_is_completed_by_the_next(tmp_path: Path, server: WandbServer, what: str) -> None:
    name = offline(tmp_path, 60)
    offline(tmp_path, 140, first=60)
    server.fails = after(what, 1 if what == "file_stream" else 0)
    told = synced(tmp_path)
    assert told.status == 1 and "not uploaded" in told.out and len(told.out.splitlines()) == 1
    assert pending(tmp_path)
    server.fails = lambda what: None
    assert synced(tmp_path).status == 0
    whole(server.runs[name], 200)


WORKING = """
import fcntl, sys
with open(sys.argv[1], "a+") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_being_worked_on_is_passed_over(tmp_path: Path, server: WandbServer) -> None:
    offline(tmp_path, 5)
    with subprocess.Popen(
        [sys.executable, "-c", WORKING, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline()
        told = synced(tmp_path)
        other.communicate()
    assert told.status == 1 and "being worked on" in told.out
    assert not server.runs


def test_without_a_login_or_a_server_nothing_is_uploaded_and_one_line_says_why(tmp_path: Path) -> None:
    offline(tmp_path, 5)
    told = synced(tmp_path, WANDB_API_KEY="")
    assert told.status == 1 and told.err.startswith("error: not logged in") and len(told.err.splitlines()) == 1
    told = synced(tmp_path, WANDB_BASE_URL="http://127.0.0.1:9")
    assert told.status == 1 and "does not answer" in told.out + told.err
    assert pending(tmp_path)


def test_records_are_read_as_they_were_written_across_blocks_and_up_to_a_break(tmp_path: Path) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    sizes = [0, 1, 32700, 32740, 32761, 32768, 70000, 5]
    sent = [Record(num=number, uuid="x" * size) for number, size in enumerate(sizes)]
    log = Folder(tmp_path / "run-20260101_000000-abcd1234").log
    log.parent.mkdir()
    write(log, sent)
    assert list(records(log)) == sent
    data = log.read_bytes()
    log.write_bytes(data[:-2])
    assert list(records(log)) == sent[:-1]
    log.write_bytes(data[:40000] + b"?" + data[40001:])
    assert list(records(log)) == sent[:3]
