"""The thread that makes all calls of wandb, so that training never waits for one."""

import atexit
import contextlib
import logging
import os
import queue
import signal
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorelab.tracking.sync import SyncError, account, pending, upload, within
from scorelab.tracking.wandb_files import Folder

log = logging.getLogger(__name__)

LATER = "make sync uploads it later"


@dataclass(frozen=True)
class HistoryRow:
    """What was logged at one time; pictures by their paths."""

    values: dict[str, float]
    pictures: dict[str, list[str]]


@dataclass(frozen=True)
class End:
    """The run is over."""

    exit_code: int


@dataclass(frozen=True)
class Given:
    """What the run is called and how W&B is to be reached; ``mode`` is auto, online, offline or disabled."""

    directory: Path
    identity: str
    name: str
    config: dict[str, Any]
    project: str
    group: str | None
    mode: str
    timeout: float


@dataclass(frozen=True)
class Session:
    """A W&B run that takes rows, the first of which is number ``first`` of this job."""

    run: Any
    folder: Folder
    first: int
    online: bool


class Recorder(threading.Thread):
    """Logs what is put into ``asked``, in that order, until an End; ``done`` is set when all is over.

    What was logged is kept, for wandb-core may die and take rows along: the .wandb file tells how many it has, the
    others are logged again, offline. A daemon: a call that never returns does not keep the process.
    """

    def __init__(self, given: Given) -> None:
        super().__init__(name="wandb", daemon=True)
        self.given = given
        self.asked: queue.SimpleQueue[HistoryRow | End] = queue.SimpleQueue()
        self.summary: dict[str, float] = {}
        self.done = threading.Event()
        self.rows: list[HistoryRow] = []
        self.setup: Any = None

    def run(self) -> None:
        """Record until the end; whatever wandb throws, SystemExit too, costs a line and no more."""
        try:
            if self.given.mode == "disabled":
                log.info("W&B: disabled by WANDB_MODE")
            else:
                self._record()
        except BaseException as error:
            log.warning("W&B: off (%s); metrics.csv has everything", _brief(error))
        finally:
            self._forget()
            self.done.set()

    def kill(self) -> None:
        """End wandb-core at once, whatever it does: calls that wait for it fail then."""
        with contextlib.suppress(AttributeError, ProcessLookupError):
            os.kill(self.setup._connection._proc._process.pid, signal.SIGKILL)

    def _record(self) -> None:
        session = self._open()
        while isinstance(asked := self.asked.get(), HistoryRow):
            self.rows.append(asked)
            try:
                _log(session.run, asked)
            except Exception as error:
                log.warning("W&B: %s; going on offline, %s", _brief(error), LATER)
                session = self._again(session)
        trouble = self._finish(session, asked)
        if self._missing(session):
            trouble = trouble or "wandb-core did not write all rows"
            again = self._again(session)
            self._finish(again, asked)
            if missing := self._missing(again):
                raise OSError(f"{missing} of {len(self.rows)} rows could not be written to wandb/")
        if session.online and trouble:
            log.warning("W&B: not everything was uploaded (%s); %s", trouble, LATER)
        elif session.online:
            session.folder.mark()

    def _open(self) -> Session:
        """Begin the run, online where that is possible, and say which."""
        asked = self.given.mode == "offline"
        why = "offline was asked for" if asked else self._why_offline()
        if not why:
            try:
                session = self._start(0, online=True)
            except Exception as error:  # a server that fails, mostly
                why = _brief(error)
                self.kill()
                self._forget()
            else:
                log.info("W&B: online, %s", session.run.url)
                return session
        session = self._start(0, online=False)
        log.info("W&B: offline (%s); %s", why, LATER)
        return session

    def _why_offline(self) -> str | None:
        """What is in the way of going online; None for nothing.

        wandb puts a run's rows after those that the server has. So what an earlier job of this run could not upload
        has to be there first.
        """
        directory, patience = self.given.directory, 0.4 * self.given.timeout
        try:
            to = account()
        except SyncError:
            return "no login"
        if pending(directory):
            try:
                upload(directory, to, patience)
            except (SyncError, OSError) as error:
                return f"what an earlier job left is not uploaded yet: {_brief(error)}"
            return None
        return None if answers(to.address, patience) else f"{to.address} does not answer"

    def _start(self, first: int, online: bool) -> Session:
        import wandb

        given = self.given
        _see_writable(given.directory / "wandb")
        os.environ.pop("WANDB_SERVICE", None)  # a wandb-core of our own, which can be ended
        self.setup = wandb.setup(wandb.Settings(silent=True))
        settings = wandb.Settings(
            init_timeout=0.4 * given.timeout,
            finish_timeout=0.4 * given.timeout,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=0.2,  # as many seconds of rows are lost with the whole machine
            silent=True,
            console="off",
            reinit="create_new",
        )
        run = wandb.init(
            project=given.project,
            group=given.group,
            name=given.name,
            id=given.identity,
            dir=str(given.directory),
            config=given.config,
            resume="allow",
            mode="online" if online else "offline",
            settings=settings,
        )
        for handler in logging.getLogger("wandb").handlers:  # of its debug.log, for which there may be no room
            handler.handleError = lambda record: None  # type: ignore[method-assign]
        atexit.register(self._leave)  # before wandb's own, which waits for the server as long as it takes
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return Session(run, Folder(Path(run.dir).parent), first, online)

    def _again(self, session: Session) -> Session:
        """Go on offline in a new folder, beginning with the rows that the last one lacks."""
        self.kill()
        self._forget()
        time.sleep(1.1)  # folders are named by the second
        new = self._start(session.first + session.folder.rows, online=False)
        for row in self.rows[new.first :]:
            _log(new.run, row)
        return new

    def _finish(self, session: Session, end: End) -> str | None:
        """End the run; why it may not be whole on the server, None for nothing."""
        try:
            session.run.summary.update(self.summary)
            session.run.finish(exit_code=end.exit_code)
        except Exception as error:
            self.kill()
            return _brief(error)
        finally:
            self._forget()
        return said[-1] if (said := session.folder.complaints) else None

    def _missing(self, session: Session) -> int:
        return len(self.rows) - session.first - session.folder.rows

    def _forget(self) -> None:
        """End wandb-core, so that the next run starts its own, and the process ends without waiting for it."""
        import wandb

        atexit.unregister(self._leave)
        with contextlib.suppress(Exception, SystemExit):
            wandb.teardown()  # its settings are read afresh then, too
        self.setup = None

    def _leave(self) -> None:
        """Where the process ends without a close: what wandb-core has written is there."""
        self.kill()
        self._forget()


def _log(run: Any, row: HistoryRow) -> None:
    import wandb

    try:
        pictures = {key: [wandb.Image(path) for path in paths] for key, paths in row.pictures.items()}
    except (OSError, ValueError) as error:
        log.warning("W&B: a picture is left out (%s)", _brief(error))
        pictures = {}
    run.log({**row.values, **pictures})


def answers(address: str, patience: float) -> bool:
    """Whether a server answers at all, be it with an error."""

    def ask() -> bool:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(address, timeout=patience).close()
        return True

    try:
        return within(patience, ask)
    except OSError:
        return False


def _see_writable(folder: Path) -> None:
    """See that a folder takes files: wandb would quietly write elsewhere, or say at length that it cannot."""
    folder.mkdir(exist_ok=True)
    probe = folder / ".writable"
    probe.write_text("yes")
    probe.unlink()


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
