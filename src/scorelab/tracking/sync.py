"""Upload to W&B what runs could not upload themselves: ``python -m scorelab.tracking.sync [DIR ...]``.

The same as a run's own job does: the server is asked how far it is, and gets the other rows of metrics.csv.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from scorelab.errors import UserError
from scorelab.run.lock import Lock
from scorelab.run.surroundings import settle
from scorelab.tracking.about import About
from scorelab.tracking.account import Account, SyncError, brief
from scorelab.tracking.folders import Known, mark, offline_folders
from scorelab.tracking.projection import Ending
from scorelab.tracking.session import Core, Session

PATIENCE = 600.0
# wandb tries a failing request for days; here the next `make sync` is the next try
FEW_TRIES = {
    f"WANDB_X_{of}_{name}": value
    for of in ("FILE_STREAM", "FILE_TRANSFER", "GRAPHQL")
    for name, value in {"RETRY_MAX": "3", "RETRY_WAIT_MIN_SECONDS": "1", "RETRY_WAIT_MAX_SECONDS": "2"}.items()
}
TAKEN_AWAY = ("WANDB_MODE", "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_RESUME", "WANDB_DIR")


def upload(directory: Path, to: Account, core: Core, patience: float = PATIENCE) -> int:
    """Send what the server lacks of a run, end it there as it ended here, and tell how many rows that was.

    Raises:
        SyncError: when not all was taken; what is missing goes the next time.
    """
    known = Known(directory)
    core.start()
    try:
        with tempfile.TemporaryDirectory(prefix="scorelab-sync-", ignore_cleanup_errors=True) as place:
            about = About.read(directory)
            session = Session(about, directory, True, patience, Path(place))
            known.forget()
            first = session.rows.next
            for file in sorted(directory.glob("wandb/run-*-*/files/media/**/*")):  # of jobs that died over them
                if file.is_file():
                    session.run.save(str(file), base_path=str(base_of(file)), policy="now")
            session.follow()
            session.finish(0 if Ending.of(directory).finished else 1)
            session.whole(to, min(patience, 20))
    except SyncError:
        raise
    except Exception as error:
        core.kill()
        raise SyncError(brief(error)) from error
    finally:
        core.forget()
    known.write(session.rows.next)
    for folder in [*offline_folders(directory), *directory.glob("wandb/run-*-*")]:
        mark(folder)
    return session.rows.next - first


def base_of(file: Path) -> Path:
    """The folder ``files`` of a job's folder, which W&B's names of files begin below."""
    return next(parent for parent in file.parents if parent.name == "files" and parent.parent.parent.name == "wandb")


def runs(places: list[Path]) -> list[Path]:
    """The directories at or below these places whose W&B run is not known to be whole on the server."""
    found = {file.parent.parent for place in places for file in place.rglob("wandb/run.json")}
    return sorted(run for run in found if not Known(run).whole)


def one(run: Path, to: Account, core: Core) -> bool:
    """Upload one run's directory unless a job works in it, say a line, and tell whether nothing is left."""
    lock = Lock(run)
    try:
        lock.take()
        rows = upload(run, to, core)
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
    for name in TAKEN_AWAY:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in FEW_TRIES.items() if name not in os.environ})
    try:
        to = Account.of_login()
    except SyncError as error:
        sys.exit(f"error: {error}")
    if not to.answers(20):
        sys.exit(f"error: {to.address} does not answer")
    core = Core()
    results = [one(run, to, core) for run in found]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
