"""W&B: training never waits for it, and nothing that was logged is lost; with the real wandb and a local server."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from conftest import CONFIGS, SMALL, Said, captured
from PIL import Image
from test_comparison import left, run
from wandb_server import StoredRun, WandbServer

from scorelab.app.compare import main as compare
from scorelab.config.choices import that_ran
from scorelab.errors import UserError
from scorelab.tracking import sync
from scorelab.tracking.account import within
from scorelab.tracking.dashboard import dashboard
from scorelab.tracking.folders import Known, offline_folders
from scorelab.tracking.history import History, flat
from scorelab.tracking.projection import Ending, Rows, curves
from scorelab.tracking.session import _charts, written
from scorelab.tracking.sync import runs
from scorelab.tracking.tensorboard_logger import TensorBoard
from scorelab.tracking.wandb_logger import Wandb

pytestmark = pytest.mark.usefixtures("server")
PATIENCE = 20.0
KILLS = 20
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


def finish(place: Path) -> None:
    """What evaluation leaves."""
    Image.new("L", (8, 8)).save(place / "truth.png")
    (place / "card.csv").write_text("# a note\nt,weight\n0.1,2\n0.2,inf\n")
    records = {"simple": {"log_snr": [1.0, 2.0, 3.0], "error": [None, 2.0, 3.0]}}
    told = {"status": "finished", "metrics": {"test/fid": 3.5, "test/kid": None}, "records": records}
    (place / "metrics.json").write_text(json.dumps(told))


def logged(
    place: Path,
    rows: int = 100,
    first: int = 0,
    during: Callable[[], None] = lambda: None,
    done: bool = True,
    **more: Any,
) -> str:
    """Log rows as a training would, half of them before ``during``; no call may take long. Returns the run's id."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "samples").mkdir(exist_ok=True)
    history, logger = History(place), Wandb(place, "name", {"loss": "simple", "schedule": "cosine"}, **more)
    history.truncate_after(first - 1)
    slowest = 0.0
    for number in range(first, first + rows):
        if number == first + rows // 2:
            during()
        if number % 50 == 10:
            Image.new("L", (8, 8), number).save(place / "samples" / f"step_{number:07d}.png")
        began = time.monotonic()
        history.log_metrics({"a": float(number)}, number)
        logger.log_metrics({"a": float(number)}, number)
        slowest = max(slowest, time.monotonic() - began)
    if done:
        finish(place)
    began = time.monotonic()
    logger.close(0 if done else 1)
    assert slowest < 2  # on a busy machine; a call that waits for wandb takes ten times as long
    assert time.monotonic() - began < PATIENCE
    return logger.identity


def upload(place: Path) -> None:
    """A run's directory as its job would have sent it."""
    history = History(place)
    logger = Wandb(place, place.name, {})
    for row in history.rows:
        logger.log_metrics({key: float(value) for key, value in row.items() if key != "step"}, int(row["step"]))
    logger.close(0)


def compared_there(*words: str) -> None:
    """Compare, and have wandb read its settings afresh for the next test."""
    try:
        compare(list(words))
    finally:
        wandb.teardown()


def payload_of(page: Path) -> dict[str, Any]:
    """What a comparison's page shows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


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


def whole(run: StoredRun, rows: int, done: bool = True) -> None:
    """Every row is there, once, in order, its number as W&B's step; of a finished run one more with its results."""
    assert run.column("a") == FLOATS[:rows]
    assert run.column("_step") == list(range(rows + done))
    assert run.column("trainer/global_step")[:rows] == list(range(rows))


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


def test_a_run_is_on_the_server_with_its_pictures_tables_charts_and_final_numbers(
    tmp_path: Path, server: WandbServer, said: Callable[[], list[str]]
) -> None:
    place = tmp_path / "sweeps" / "mine" / "job"
    (place / "checkpoints").mkdir(parents=True)
    (place / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    (place / "config.yaml").write_text("loss: {scale: 3}\n")
    run = server.runs[logged(place, 60, artifacts=True)]
    whole(run, 60)
    assert run.summary["test/fid"] == 3.5 and "test/kid" not in run.summary and run.exit_code == 0
    assert run.fields["groupName"] == "mine" and run.fields["jobType"] == "train"
    assert run.fields["tags"] == ["simple", "cosine"]
    config = json.loads(run.fields["config"])
    assert config["loss"]["value"] == "simple" and config["full"]["value"] == {"loss": {"scale": 3}}
    last = run.history[-1]
    assert {"results", "card", "truth", "curves/simple_table"} <= last.keys()
    assert "samples" in run.history[11] and "samples" not in run.history[10]  # made at 10, shown with the row after
    assert any(name.startswith("media/images/samples") for name in run.files)
    assert any(content == b"weights" for content in server.artifact_files.values())
    assert {made["artifactTypeName"] for made in server.committed} >= {"run_table", "model"}
    assert len(said()) == 1 and said()[0].startswith("W&B: online, ")
    assert runs([tmp_path]) == []


def test_a_row_is_given_once_with_its_number_though_read_half_written_and_written_anew(tmp_path: Path) -> None:
    history, rows = History(tmp_path), Rows(tmp_path)
    given = []
    for step in range(3):
        history.log_metrics({"a": float(step)}, step)
        given += rows.new()
    with (tmp_path / "metrics.csv").open("ab") as half:
        half.write(b"3,3")
        half.flush()
        given += rows.new()
        half.write(b".0\n")
    given += rows.new()
    History(tmp_path).log_metrics({"b": 4.0}, 4)  # a new column: the file is written anew
    given += rows.new()
    given += rows.new()
    assert [(row.number, row.values["trainer/global_step"]) for row in given] == [(n, n) for n in range(5)]
    assert [row.values.get("a") for row in given] == [0.0, 1.0, 2.0, 3.0, None] and given[4].values["b"] == 4.0
    rows.close()


def test_runs_at_wandb_are_compared_as_those_on_disk_are(tmp_path: Path, server: WandbServer, capsys) -> None:
    """Table and figures of a project are those of the directories that its runs were uploaded from."""
    for loss, base in (("simple", 1.0), ("vlb", 2.0)):
        for seed in range(3):
            made = run(loss, seed, {"test/simple": base + 0.01 * seed**2}, records={"simple": {"n": 7}})
            place = tmp_path / "runs" / f"loss-{loss}_seed-{seed}"
            left(place, made)
            upload(place)
    folder = [str(tmp_path / "runs")]
    compare([*folder, "columns=simple", "page=false"])
    here = capsys.readouterr().out
    compared_there("wandb=me/scorelab", "columns=simple", f"out={tmp_path / 'there'}")
    assert capsys.readouterr().out == here
    data = payload_of(tmp_path / "there" / "compare.html")
    (curve, *_) = (each["curves"]["val/simple"] for each in data["configurations"][0]["runs"])
    assert curve == {"steps": [10, 20], "values": [0.9, 0.8], "of": 2}


@pytest.mark.parametrize(
    ("project", "told"),
    [("scorelab", "type wandb=ENTITY/PROJECT"), ("me/other", "0 runs, none of them made by this program")],
)
def test_a_project_that_cannot_be_compared_is_told_in_one_line(project: str, told: str, capsys) -> None:
    with pytest.raises(SystemExit):
        compared_there(f"wandb={project}")
    assert capsys.readouterr().err == f"error: wandb={project}: {told}\n"


def test_without_a_login_it_is_offline_and_says_how_to_upload(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "")
    name = logged(tmp_path)
    assert len(said()) == 1 and all(part in said()[0] for part in ("offline", "no login", "make sync"))
    assert len(name) == 8 and (tmp_path / "wandb_id").read_text() == name
    assert [written(folder) for folder in offline_folders(tmp_path)] == [101]
    assert list(tmp_path.glob(f"wandb/offline-run-*-{name}/run-{name}.wandb"))


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_mode_in_the_environment_is_obeyed_and_named(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, server: WandbServer, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    logged(tmp_path)
    assert len(said()) == 1 and mode in said()[0] and "no login" not in said()[0]
    assert len(offline_folders(tmp_path)) == (mode == "offline")
    assert not server.runs


def test_where_nothing_listens_it_is_offline(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    logged(tmp_path)
    assert len(said()) == 1 and all(part in said()[0] for part in ("offline", "http://127.0.0.1:9 ", "make sync"))
    assert [written(folder) for folder in offline_folders(tmp_path)] == [101]


def test_a_server_that_accepts_and_never_answers_means_offline_in_time(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        logged(tmp_path, timeout=5)
    assert len(said()) == 1 and "does not answer" in said()[0]
    assert [written(folder) for folder in offline_folders(tmp_path)] == [101]


def test_a_name_that_is_never_resolved_means_offline_in_time(
    tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))  # no timeout of a connection ends this
    monkeypatch.setenv("WANDB_BASE_URL", "http://w-and-b.invalid")
    logged(tmp_path, timeout=5)
    assert len(said()) == 1 and all(part in said()[0] for part in ("offline", "w-and-b.invalid does not answer"))
    assert [written(folder) for folder in offline_folders(tmp_path)] == [101]


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
    assert "W&B: not everything was" in said()[-1] and "make sync" in said()[-1]
    assert len(said()) == 2
    server.fails = lambda what: None
    told = synced(tmp_path)
    assert told.status == 0 and "uploaded" in told.out, told.out
    whole(server.runs[name], 100)
    assert server.runs[name].summary["test/fid"] == 3.5
    assert "wandb-summary.json" in server.runs[name].files


def test_a_server_that_fails_for_a_while_gets_everything(tmp_path: Path, server: WandbServer) -> None:
    server.fails = after("file_stream", 0, until=1)
    name = logged(tmp_path)
    whole(server.runs[name], 100)
    assert runs([tmp_path]) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_wandb_core_that_dies_or_stops_costs_no_row_and_the_next_run_works(
    tmp_path: Path, server: WandbServer, said: Callable[[], list[str]], how: signal.Signals
) -> None:
    def hit() -> None:
        online(server)
        os.kill(core(), how)
        time.sleep(0.2)

    name = logged(tmp_path / "first", during=hit)
    assert "make sync uploads the rest" in said()[-1]
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
from scorelab.tracking.history import History
from scorelab.tracking.tensorboard_logger import TensorBoard
from scorelab.tracking.wandb_logger import Wandb
directory, first, rows, pause = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
history, logger = History(directory), Wandb(directory, "name", {})
history.truncate_after(first - 1)
print("begun", flush=True)
for number in range(first, first + rows):
    history.log_metrics({"a": float(number)}, number)
    logger.log_metrics({"a": float(number)}, number)
    time.sleep(pause)
time.sleep(3)
"""


def killed(place: Path, first: int, rows: int, after: float | None = None, **environment: str) -> None:
    """Log rows in a process that is then killed: at its end, or so many seconds after its beginning."""
    pause = "0" if after is None else "0.01"
    command = [sys.executable, "-c", f"{JOB}os.kill(os.getpid(), 9)", str(place), str(first), str(rows), pause]
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE) as job:
        assert job.stdout is not None and job.stdout.readline()
        if after is not None:
            time.sleep(after)
            job.kill()
        assert job.wait(60) == -9


@pytest.mark.slow
def test_a_process_that_leaves_without_a_close_does_not_wait_for_the_server(
    tmp_path: Path, server: WandbServer
) -> None:
    server.fails = after("file_stream", 0)
    command = [sys.executable, "-c", f"{JOB}print(time.time())", str(tmp_path), "0", "50", "0"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert time.time() - float(told.stdout.split()[-1]) < 5
    assert told.returncode == 0 and "Traceback" not in told.stderr
    assert runs([tmp_path]) == [tmp_path]


def test_a_run_killed_online_and_continued_from_an_earlier_step_is_one_history(
    tmp_path: Path, server: WandbServer
) -> None:
    killed(tmp_path, 0, 50)
    name = logged(tmp_path, 60, first=30)
    whole(server.runs[name], 90)
    assert any("samples_" in file for file in server.runs[name].files)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_a_run_killed_at_any_moment_has_each_row_once(tmp_path: Path, server: WandbServer, number: int) -> None:
    killed(tmp_path, 0, 190, after=random.Random(number).uniform(0, 3))
    there = len((tmp_path / "metrics.csv").read_text().splitlines()) - 1
    name = logged(tmp_path, 200 - there // 2, first=there // 2)
    whole(server.runs[name], 200)


def test_a_run_that_died_is_uploaded_as_it_stands_and_ended_as_failed(tmp_path: Path, server: WandbServer) -> None:
    server.fails = after("file_stream", 0)
    killed(tmp_path, 0, 50)
    server.fails = lambda what: None
    assert synced(tmp_path).status == 0
    (run,) = server.runs.values()
    whole(run, 50, done=False)
    assert run.exit_code == 1


def offline(place: Path, rows: int, first: int = 0, done: bool = True) -> str:
    """A job without a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        name = logged(place, rows, first, done=done)
    time.sleep(1.1)  # wandb names its folders by the second
    return name


def plain_sync(*places: Path) -> None:
    """Wandb's own ``wandb sync``."""
    command = [sys.executable, "-m", "wandb", "sync", *map(str, places)]  # which leaves a log where it is called
    subprocess.run(command, check=True, capture_output=True, cwd=places[0].parent)


def test_plain_wandb_sync_takes_the_folder_whole_and_after_it_only_what_is_new(
    tmp_path: Path, server: WandbServer
) -> None:
    offline(tmp_path, 60, done=False)
    name = offline(tmp_path, 60, first=40, done=False)
    (folder,) = offline_folders(tmp_path)
    plain_sync(folder)
    whole(server.runs[name], 100, done=False)
    offline(tmp_path, 40, first=80)
    plain_sync(offline_folders(tmp_path)[-1])
    whole(server.runs[name], 120)
    assert "uploaded, 0 rows" in synced(tmp_path).out
    whole(server.runs[name], 120)


def test_an_upload_asks_nothing_about_what_is_whole(tmp_path: Path, server: WandbServer) -> None:
    name, other = offline(tmp_path / "one", 60), offline(tmp_path / "deep" / "two", 10)
    told = synced(tmp_path)
    assert told.status == 0 and len(told.out.splitlines()) == 2
    whole(server.runs[name], 60)
    whole(server.runs[other], 10)
    given = len(server.asked)
    assert synced(tmp_path).out == "W&B: nothing to upload\n"
    assert len(server.asked) == given and Known(tmp_path / "one").rows == 61


@pytest.mark.parametrize("what", ["file_stream", pytest.param("upload", marks=pytest.mark.slow)])
def test_an_upload_that_breaks_off_is_completed_by_the_next(tmp_path: Path, server: WandbServer, what: str) -> None:
    name = offline(tmp_path, 200)
    server.fails = after(what, 1 if what == "file_stream" else 0)
    told = synced(tmp_path)
    assert told.status == 1 and "not uploaded" in told.out and len(told.out.splitlines()) == 1
    server.fails = lambda what: None
    assert synced(tmp_path).status == 0
    whole(server.runs[name], 200)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("group", "g" * 150, "128"),
        ("project", "a/b", "has no /"),
        ("mode", "sometimes", "possible: auto, online, offline, disabled"),
        ("tags", ["t" * 65], "64"),
    ],
)
def test_what_the_server_would_refuse_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, key: str, value: Any, part: str
) -> None:
    with pytest.raises(UserError, match=re.escape(part)) as caught:
        Wandb.check({key: value})
    assert f"logger.{key}=" in str(caught.value) and "\n" not in str(caught.value)
    variable = "WANDB_RUN_GROUP" if key == "group" else f"WANDB_{key.upper()}"
    monkeypatch.setenv(variable, value if isinstance(value, str) else ",".join(value))
    with pytest.raises(UserError, match=f"{variable}="):
        Wandb.check({key: None})


def test_variables_count_unless_a_key_is_typed(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"PROJECT": "theirs", "RUN_GROUP": "g", "TAGS": "x,y", "JOB_TYPE": "j", "NOTES": "n", "RUN_ID": "no"}
    for name, value in (given | {"RESUME": "must", "DIR": "/nowhere"}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    name = logged(tmp_path, 5, project="typed")
    fields = server.runs[name].fields
    assert name != "no" and (fields["project"], fields["groupName"], fields["jobType"]) == ("typed", "g", "j")
    assert fields["tags"] == ["x", "y"] and fields["notes"] == "n"


def test_a_run_of_a_sweeps_agent_has_the_id_that_the_agent_gave(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert logged(tmp_path, 5) == "given" and server.runs["given"].fields["sweep"] == "sweep"


def test_a_class_that_was_typed_is_recorded_and_not_the_choice_it_replaced() -> None:
    chosen = {"optimizer": "adamw"}
    config = {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 1.0}}
    assert flat(config, that_ran(config, chosen, [CONFIGS]))["optimizer"] == "adamw"
    config = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 1.0}}
    assert flat(config, that_ran(config, chosen, [CONFIGS]))["optimizer"] == "torch.optim.SGD"


def test_tensorboard_has_no_point_twice_after_a_run_is_continued(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first, last in ((0, 6), (3, 9)):
        logger = TensorBoard(tmp_path, "name", {"loss": "simple"})
        logger.truncate_after(first - 1)
        for step in range(first, last):
            logger.log_metrics({"a": float(step)}, step)
        logger.close(0)
    read = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(each.step, each.value) for each in read.Scalars("a")] == [(step, float(step)) for step in range(9)]


def test_the_dashboard_groups_runs_by_loss_and_schedule(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    told = dashboard(["entity=me", "project=mine", f"out={tmp_path / 'board.json'}"])
    board = json.loads((tmp_path / "board.json").read_text())
    assert "board.json" in told and board["grouped_by"] == ["loss", "schedule"]
    assert [len(part["panels"]) > 1 for part in board["sections"]] == [True] * 4
    with pytest.raises(UserError, match="possible: entity"):
        dashboard(["entty=me"])


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
    assert runs([tmp_path]) == [tmp_path]


@pytest.mark.slow
def test_the_command_of_the_ready_sweeps_agent_joins_the_sweep_and_shows_what_it_goes_by(
    tmp_path: Path, server: WandbServer
) -> None:
    root = CONFIGS.parent
    sweep = yaml.safe_load((root / "sweeps" / "wandb.yaml").read_text())
    words = [f"{key}={each['values'][-1]}" for key, each in sweep["parameters"].items()]
    parts = {"${env}": ["/usr/bin/env"], "python": [sys.executable], "${program}": [str(root / sweep["program"])]}
    parts["${args_no_hyphens}"] = [*words, *SMALL, "metrics=[]", "logger=wandb"]
    command = [word for part in sweep["command"] for word in parts[part]]
    agent = {"WANDB_SWEEP_ID": "mysweep", "WANDB_RUN_ID": "agents", "WANDB_PROJECT": "scorelab"}
    told = subprocess.run(command, cwd=tmp_path, env=os.environ | agent, capture_output=True, text=True, timeout=200)
    assert told.returncode == 0, told.stderr
    run = server.runs["agents"]
    assert run.fields["sweep"] == "mysweep" and run.exit_code == 0
    assert sweep["metric"]["name"] in run.summary and sweep["metric"]["goal"] == "minimize"
    config = json.loads(run.fields["config"])
    assert {key: config[key]["value"] for key in sweep["parameters"]} == {
        key: each["values"][-1] for key, each in sweep["parameters"].items()
    }


def test_what_is_a_curve_over_log_snr_is_a_chart_and_a_range_or_a_list_of_ranges_is_none(tmp_path: Path) -> None:
    """As the records of a default run have them: the bound's two ends, the gradient noise's bins."""
    records = {
        "simple": {"log_snr": [-11.7, -11.1, -10.5], "error": [0.1, None, 0.3], "n": 720},
        "vlb": {"log_snr": [-19.8, 10.1], "decoder_std": [0.01, 0.02]},
        "gradient_noise": {"log_snr": [[10.1, 10.1], [8.5, 9.3], [7.2, 8.3]], "variance": [1.0, 2.0, 3.0]},
    }
    assert curves(records) == {"simple": {"log_snr": [-11.7, -11.1, -10.5], "error": [0.1, None, 0.3]}}
    assert list(_charts(tmp_path, Ending(True, {}, records))) == ["curves/simple"]
