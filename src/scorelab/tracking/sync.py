"""Upload to W&B what runs could not upload themselves: ``python -m scorelab.tracking.sync [DIR ...]``.

A run that was continued has several folders of one id. Their rows are uploaded as one history, in the order of time.
wandb's own ``wandb sync`` does the upload, but always appends after the rows that the server has, says that all went
well when rows or files were refused, and marks them as uploaded. So here the server is asked first what it has, only
the rest is handed to ``wandb sync``, and its log is believed rather than its exit status.
"""

import argparse
import base64
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from scorelab.errors import UserError
from scorelab.run.lock import Lock
from scorelab.run.surroundings import settle
from scorelab.tracking.wandb_files import Folder, errors, folders, one_history, records, rest, value, write

T = TypeVar("T")

# The question that wandb-core asks before it uploads: its answer decides where the rows are put.
QUESTION = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) { historyLineCount eventsLineCount historyTail }
  }
}"""
PATIENCE = 3600.0
# wandb tries a failing request for days; here the next `make sync` is the next try
FEW_TRIES = {
    f"WANDB_X_{of}_{name}": value
    for of in ("FILE_STREAM", "FILE_TRANSFER", "GRAPHQL")
    for name, value in {"RETRY_MAX": "3", "RETRY_WAIT_MIN_SECONDS": "1", "RETRY_WAIT_MAX_SECONDS": "2"}.items()
}


class SyncError(Exception):
    """Why something was not uploaded, in one line."""


@dataclass(frozen=True)
class Account:
    """A server and the key to it."""

    address: str
    key: str


@dataclass(frozen=True)
class Remote:
    """What the server has of a run: how many rows of history and of system figures, and when its last row was."""

    rows: int = 0
    events: int = 0
    last: float | None = None


def account() -> Account:
    """The account that wandb is logged in to.

    Raises:
        SyncError: when there is none.
    """
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    if not wandb.login(prompt=False, verify=False):
        raise SyncError("not logged in to W&B: type `wandb login`, or set WANDB_API_KEY")
    settings = wandb.setup().settings
    return Account(str(settings.base_url), settings.api_key or "")


def within(seconds: float, call: Callable[[], T]) -> T:
    """A call's result; asking for a name may take longer than any timeout of the connection.

    Raises:
        TimeoutError: when there is none in that time. The call goes on, in a daemon thread.
    """
    results: queue.SimpleQueue[T | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(call())
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("timed out") from None
    if isinstance(result, Exception):
        raise result
    return result


def pending(run: Path) -> bool:
    """Whether a run's directory holds something that is not uploaded yet."""
    return any(not folder.uploaded for folder in folders(run))


def upload(run: Path, to: Account, patience: float = PATIENCE) -> int:
    """Upload what the server lacks of a run, mark its folders, and tell how many rows that was.

    Raises:
        SyncError: when not all was uploaded; what is missing goes the next time.
    """
    total = 0
    found = folders(run)
    for name in dict.fromkeys(folder.id for folder in found):
        parts = [folder for folder in found if folder.id == name]
        if any(not folder.uploaded for folder in parts):
            total += _upload(parts, to, patience)
    return total


def _upload(parts: list[Folder], to: Account, patience: float) -> int:
    logs = [list(records(folder.log)) for folder in parts]
    begun = [log for log in logs if any(record.HasField("run") for record in log)]  # others were killed at once
    if not begun:
        _mark(parts)
        return 0
    about = next(record.run for record in begun[0] if record.HasField("run"))
    merged = list(one_history(begun))
    rows = [record for record in merged if record.HasField("history")]
    remote = _remote(to, about, patience)
    known = _known(rows, remote)
    with tempfile.TemporaryDirectory(prefix="scorelab-sync-") as place:
        name = parts[-1].path.name.removeprefix("offline-")
        folder = Folder(Path(place) / f"offline-{name}")  # wandb sync passes over what was online
        for part in parts:
            if (part.path / "files").is_dir():
                shutil.copytree(part.path / "files", folder.path / "files", dirs_exist_ok=True)
        folder.path.mkdir(exist_ok=True)
        write(folder.log, rest(merged, known, remote.events))
        _hand_over(folder, to, patience)
    _mark(parts)
    return len(rows) - known


def _mark(parts: list[Folder]) -> None:
    for folder in parts:
        folder.mark()


def _known(rows: list[Any], remote: Remote) -> int:
    """How many of these rows the server has; they are the first ones.

    Where earlier folders were removed after their upload, the server has more rows, and its last one tells.

    Raises:
        SyncError: when the server's rows are not the first ones of these.
    """
    times = [value(row, "_timestamp") for row in rows]
    if remote.last is None or remote.last not in times:
        if remote.rows and times and remote.last is not None and remote.last > times[0]:
            raise SyncError("the server has newer rows of this id that are not here")
        return 0 if remote.last is not None else min(remote.rows, len(rows))
    known = times.index(remote.last) + 1
    if remote.rows < known:
        raise SyncError("the server lacks earlier rows of this id, and later ones are there already")
    return known


def _remote(to: Account, run: Any, patience: float) -> Remote:
    """What the server has of a run.

    Raises:
        SyncError: when it does not answer, or with an error.
    """
    variables = {"project": run.project, "entity": run.entity or None, "name": run.run_id}
    body = json.dumps({"query": QUESTION, "operationName": "RunResumeStatus", "variables": variables}).encode()
    token = base64.b64encode(f"api:{to.key}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}"}
    asked = urllib.request.Request(f"{to.address.rstrip('/')}/graphql", body, headers)
    seconds = min(patience, 20)

    def ask() -> Any:
        with urllib.request.urlopen(asked, timeout=seconds) as reply:
            return json.load(reply)

    try:
        found = ((within(seconds, ask).get("data") or {}).get("model") or {}).get("bucket")
    except (OSError, ValueError) as error:
        raise SyncError(f"{to.address} does not answer ({error})") from error
    if not found:
        return Remote()
    tail = json.loads(found.get("historyTail") or "[]")
    last = json.loads(tail[-1]).get("_timestamp") if tail else None
    return Remote(int(found.get("historyLineCount") or 0), int(found.get("eventsLineCount") or 0), last)


def _hand_over(folder: Folder, to: Account, patience: float) -> None:
    """Let ``wandb sync`` upload a folder.

    Raises:
        SyncError: unless every request succeeded.
    """
    own = {"WANDB_API_KEY": to.key, "WANDB_BASE_URL": to.address, "WANDB_DIR": str(folder.path)}
    (folder.path / "wandb").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("WANDB_MODE", "WANDB_SERVICE")}
    command = [sys.executable, "-m", "wandb", "sync", str(folder.log)]
    given = environment | FEW_TRIES | own
    try:
        told = subprocess.run(command, env=given, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        raise SyncError(f"{to.address} did not take it all in {patience:.0f} s") from None
    found = [line for log in folder.path.glob("wandb/logs/debug-sync*.log") for line in errors(log)]
    if told.returncode or found or not folder.uploaded:
        why = found[-1] if found else told.stderr.strip().rpartition("\n")[2]
        raise SyncError(" ".join(why.split())[:160] or "wandb sync failed")


def runs(places: list[Path]) -> list[Path]:
    """The directories at or below these places that hold a wandb/ with something not uploaded yet."""
    found = {folder.parent for place in places for folder in place.rglob("wandb") if folder.is_dir()}
    return sorted(run for run in found if pending(run))


def one(run: Path, to: Account) -> bool:
    """Upload one run's directory unless a job works in it, say a line, and tell whether nothing is left."""
    lock = Lock(run)
    try:
        lock.take()
        rows = upload(run, to)
    except UserError:
        print(f"{run}: being worked on, skipped")
        return False
    except (SyncError, OSError) as error:
        print(f"{run}: not uploaded: {error}")
        return False
    finally:
        lock.release()
    print(f"{run}: uploaded, {rows:,} rows")
    return True


def main() -> None:
    """Upload every run below the directories given; exit status 1 when something is left."""
    settle()
    parser = argparse.ArgumentParser(
        prog="python -m scorelab.tracking.sync", description="Upload to W&B what runs kept."
    )
    parser.add_argument("directories", nargs="*", type=Path, default=[Path("logs")], metavar="DIR")
    places = parser.parse_args().directories
    if missing := [place for place in places if not place.is_dir()]:
        sys.exit(f"error: {missing[0]}: no such directory")
    found = runs(places)
    if not found:
        print("W&B: nothing to upload")
        return
    try:
        to = account()
    except SyncError as error:
        sys.exit(f"error: {error}")
    results = [one(run, to) for run in found]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
