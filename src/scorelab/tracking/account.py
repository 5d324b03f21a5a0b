"""The W&B server: who is logged in to it, whether it answers, and what it has of a run."""

import base64
import contextlib
import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# The question that wandb-core asks before it continues a run.
QUESTION = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) { historyLineCount historyTail }
  }
}"""


class SyncError(Exception):
    """Why something was not uploaded, in one line."""


@dataclass(frozen=True)
class Account:
    """A server and the key to it."""

    address: str
    key: str

    @classmethod
    def of_login(cls) -> "Account":
        """The account that wandb is logged in to.

        Raises:
            SyncError: when there is none.
        """
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        if not wandb.login(prompt=False, verify=False):
            raise SyncError("not logged in to W&B: type `wandb login`, or set WANDB_API_KEY")
        settings = wandb.setup().settings
        return cls(str(settings.base_url), settings.api_key or "")

    def answers(self, patience: float) -> bool:
        """Whether the server answers at all, be it with an error."""

        def ask() -> bool:
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(self.address, timeout=patience).close()
            return True

        try:
            return within(patience, ask)
        except OSError:
            return False

    def rows(self, name: str, project: str, entity: str | None, patience: float) -> int:
        """How many rows of a run the server has.

        Raises:
            SyncError: when it does not answer, or with an error.
        """
        variables = {"project": project, "entity": entity, "name": name}
        body = json.dumps({"query": QUESTION, "operationName": "RunResumeStatus", "variables": variables}).encode()
        token = base64.b64encode(f"api:{self.key}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {token}"}
        asked = urllib.request.Request(f"{self.address.rstrip('/')}/graphql", body, headers)

        def ask() -> Any:
            with urllib.request.urlopen(asked, timeout=patience) as reply:
                return json.load(reply)

        try:
            found = ((within(patience, ask).get("data") or {}).get("model") or {}).get("bucket") or {}
            tail = json.loads(found.get("historyTail") or "[]")
            last = int(json.loads(tail[-1])["_step"]) + 1 if tail else 0
            return max(last, int(found.get("historyLineCount") or 0))  # as wandb-core does where the tail is stale
        except (OSError, ValueError, KeyError) as error:
            raise SyncError(f"{self.address} does not answer ({error})") from error


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


def brief(error: BaseException) -> str:
    """An error in a line that is not long."""
    return " ".join(str(error).split())[:120] or type(error).__name__
