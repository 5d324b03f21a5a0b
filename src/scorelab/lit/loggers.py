"""Where numbers go: metrics.csv always, W&B where it is wanted."""

import csv
import json
import logging
import os
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

log = logging.getLogger(__name__)


class History(Logger):
    """metrics.csv: one row per call, flushed at once; a new column rewrites the file with the longer header."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.path = directory / "metrics.csv"
        self.rows: list[dict[str, Any]] = []
        self.columns = ["step"]
        if self.path.exists():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                self.rows, self.columns = list(reader), list(reader.fieldnames or self.columns)

    @property
    def name(self) -> str:
        """What Lightning calls it."""
        return "history"

    @property
    def version(self) -> str:
        """There is one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Config is in config.yaml."""
        return

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {"step": step, **metrics}
        self.rows.append(row)
        if new := [key for key in row if key not in self.columns]:
            self.columns += new
            self._rewrite()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Forget rows after this step: the run is continued from there and will write them again."""
        self.rows = [row for row in self.rows if int(row["step"]) <= step]
        self._rewrite()

    def _rewrite(self) -> None:
        whole = self.path.with_suffix(".csv.part")
        with whole.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        whole.replace(self.path)


class Wandb(WandbLogger):
    """Weights & Biases, offline where there is no login or the server does not answer; one line says which.

    The run's id is random, written once to ``wandb_id`` and reused when the run is continued.

    Args:
        directory: the run's directory.
        name: the run's name.
        config: flat configuration.
        project: W&B project.
        group: W&B group; None for none.
        mode: "auto" goes online where there is a login.
        timeout: seconds to wait for the server before going offline.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        config: dict[str, Any],
        project: str = "scorelab",
        group: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        timeout: float = 20,
    ) -> None:
        import wandb

        mark = directory / "wandb_id"
        if not mark.exists():
            mark.write_text(uuid.uuid4().hex[:8])
        common: dict[str, Any] = {
            "project": project,
            "group": group,
            "name": name,
            "id": mark.read_text().strip(),
            "dir": str(directory),
            "config": config,
            "resume": "allow",
            "settings": wandb.Settings(init_timeout=timeout, silent=True, console="off"),
        }
        asked = os.environ.get("WANDB_MODE") or mode
        online = asked not in ("offline", "disabled") and wandb.login(prompt=False, verify=False)
        why = f" ({asked} was asked for)" if asked in ("offline", "disabled") else " (no login)"
        if online and not answers(base := str(wandb.setup().settings.base_url), timeout):
            online, why = False, f" ({base} does not answer)"
        chosen: Any = "disabled" if asked == "disabled" else "online" if online else "offline"
        try:
            run = wandb.init(**common, mode=chosen)
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            online, why = False, f" ({' '.join(str(error).split())[:100]})"
            mark.write_text(uuid.uuid4().hex[:8])  # wandb's service still holds the id of the run that failed
            run = wandb.init(**common | {"id": mark.read_text()}, mode="offline")
        if chosen == "disabled":
            log.info("W&B: disabled by WANDB_MODE")
        elif online:
            log.info("W&B: online, %s", run.url)
        else:
            log.info(
                "W&B: offline%s; upload later with: wandb sync %s/wandb/offline-run-*", why, os.path.relpath(directory)
            )
        super().__init__(experiment=run)

    def finalize(self, status: str) -> None:
        """Lightning finalizes after fit; the run goes on to be judged, and ``close`` ends it."""
        return

    def summarize(self, metrics: dict[str, float | None]) -> None:
        """Put the final numbers where W&B's tables look for them."""
        self.experiment.summary.update({key: value for key, value in metrics.items() if value is not None})

    def close(self, exit_code: int) -> None:
        """End the W&B run, so that the next job of a sweep starts its own."""
        self.experiment.finish(exit_code=exit_code)


def answers(address: str, timeout: float) -> bool:
    """Whether a server answers at all, be it with an error."""
    try:
        urllib.request.urlopen(address, timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def flat(config: dict[str, Any], choices: dict[str, str]) -> dict[str, Any]:
    """Configuration as W&B compares it: each group by the name of its choice, arguments dotted, lists as JSON."""
    found: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{prefix}.{key}".removesuffix("._target_").lstrip("."), inner)
        else:
            found[prefix] = json.dumps(value) if isinstance(value, list) else value

    visit("", config)
    return found | {group: choice for group, choice in choices.items() if group in found}
