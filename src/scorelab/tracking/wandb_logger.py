"""Weights & Biases as a logger that training never waits for."""

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorelab.tracking.about import About, asked
from scorelab.tracking.account import Account, SyncError, brief
from scorelab.tracking.folders import Known, mark, offline_folders, synced, was_online
from scorelab.tracking.logger import RunLogger
from scorelab.tracking.session import Core, Session, written

log = logging.getLogger(__name__)

LATER = "make sync uploads it later"


class Wandb(RunLogger):
    """Weights & Biases, offline where there is no login or the server does not answer; one line says which.

    Nothing here waits for wandb, except ``close``: a thread of its own reads metrics.csv on and makes all calls. The
    run's id is random, written once to ``wandb_id`` and reused when the run is continued. What is left out is what
    W&B's variables say (WANDB_PROJECT, ...), else what stands here.

    Args:
        directory: the run's directory.
        name: the run's name.
        config: flat configuration.
        project: W&B project; scorelab.
        entity: whose it is; that of the login.
        group: W&B group; the sweep's name in a sweep, else none.
        job_type: what kind of a run it is; train.
        tags: the loss and the schedule.
        notes: some words about it.
        mode: auto (online where there is a login), online, offline or disabled.
        artifacts: whether the best checkpoint is uploaded when the run is finished.
        timeout: seconds after which the server is given up: at the start, and again at the end.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        config: dict[str, Any],
        project: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        mode: str | None = None,
        artifacts: bool = False,
        timeout: float = 20,
    ) -> None:
        import wandb  # noqa: F401  here and not in the thread, so that no worker of the data is forked meanwhile

        typed = {"project": project, "entity": entity, "group": group, "job_type": job_type, "tags": tags}
        given = asked(typed | {"notes": notes, "mode": mode})
        about = About.of(directory, name, config, given, artifacts)
        self.timeout, self.identity = timeout, about.id
        self._thread = _Projector(about, directory, given["mode"] or "auto", timeout)
        self._thread.start()

    @classmethod
    def check(cls, keys: Mapping[str, Any]) -> None:
        """See that the server would take what is typed, or stands in W&B's variables."""
        asked(keys)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Have metrics.csv read on."""
        self._thread.woken.set()

    def close(self, exit_code: int) -> None:
        """End the W&B run, in ``timeout`` seconds at most, so that the next job of a sweep starts its own."""
        thread = self._thread
        thread.exit_code = exit_code
        thread.woken.set()
        if thread.done.wait(0.7 * self.timeout):
            return
        thread.core.kill()  # what waits for wandb-core fails then
        if not thread.done.wait(0.3 * self.timeout):
            thread.core.kill()
            log.warning("W&B: not everything was taken in time; metrics.csv has it, make sync uploads the rest")


class _Projector(threading.Thread):
    """Sends what metrics.csv has until it is told an exit code; ``done`` is set when all is over.

    A daemon: a call that never returns does not keep the process.
    """

    def __init__(self, about: About, directory: Path, mode: str, timeout: float) -> None:
        super().__init__(name="wandb", daemon=True)
        self.about, self.directory, self.mode, self.timeout = about, directory, mode, timeout
        self.exit_code: int | None = None
        self.woken, self.done = threading.Event(), threading.Event()
        self.core, self.known = Core(), Known(directory)
        self.account: Account | None = None
        self.session: Session | None = None

    def run(self) -> None:
        """Project until the end; whatever wandb throws, SystemExit too, costs a line and no more."""
        try:
            if self.mode == "disabled":
                log.info("W&B: disabled")
                return
            self.about.write(self.directory)
            self.session = self._open()
            if self.session is not None:
                self._follow(self.session)
        except BaseException as error:
            online = self.session is not None and self.session.online
            what = "not everything was uploaded" if online and self.exit_code is not None else "off"
            log.warning("W&B: %s (%s); metrics.csv has everything, make sync uploads the rest", what, brief(error))
            self.core.kill()
        finally:
            self.core.forget()
            self.done.set()

    def _follow(self, session: Session) -> None:
        while True:
            code = self.exit_code  # before reading: all that was logged by then is read
            session.follow()
            if code is not None:
                break
            self.woken.wait()
            self.woken.clear()
        session.finish(code)
        if session.online and self.account is not None:
            session.whole(self.account, 0.2 * self.timeout)
            self.known.write(session.rows.next)
            mark(session.folder)
        elif not self._took_all(session):
            raise OSError("wandb/ did not take all rows")

    def _took_all(self, session: Session) -> bool:
        """Whether the folder has every row; on a busy machine wandb-core says so before it has written the last."""
        end = time.monotonic() + 0.1 * self.timeout
        while written(session.folder) < session.rows.next:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _open(self) -> Session | None:
        """Begin the run, online where that is possible, and say which; None where there is nothing to begin."""
        why = "offline was asked for" if self.mode == "offline" else self._why_offline()
        if not why:
            self.core.start()
            try:
                session = Session(self.about, self.directory, True, 0.4 * self.timeout)
            except Exception as error:  # a server that fails, mostly
                why = brief(error)
                self.core.leave()
            else:
                self.known.forget()
                for folder in offline_folders(self.directory):  # the server gets their rows from metrics.csv
                    mark(folder)
                log.info("W&B: online, %s", session.run.url)
                return session
        return self._offline(why)

    def _why_offline(self) -> str | None:
        """What is in the way of going online; None for nothing."""
        try:
            self.account = Account.of_login()
        except SyncError:
            return "no login"
        return None if self.account.answers(0.4 * self.timeout) else f"{self.account.address} does not answer"

    def _offline(self, why: str) -> Session | None:
        """A folder with all rows that the server does not have, in place of those that were not uploaded.

        Nobody knows how many rows the server has that a job sent which then died: plain ``wandb sync`` would repeat
        some, so there is no folder then, and ``make sync``, which asks, is the way.
        """
        first, old = self.known.rows, offline_folders(self.directory)
        if first is None and was_online(self.directory):
            log.info("W&B: offline (%s), and an earlier job was online; make sync uploads the rest", why)
            return None
        uploaded = [folder for folder in old if synced(folder)]
        first = max([first or 0, *map(written, uploaded)])
        self.core.start()
        session = Session(self.about, self.directory, False, 0.4 * self.timeout, first=first)
        log.info("W&B: offline (%s); %s", why, LATER)
        session.follow()
        for folder in old:
            if folder not in uploaded and folder != session.folder:
                shutil.rmtree(folder, ignore_errors=True)
        return session
