"""The report of the kills, after the last."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print it where there were kills; FAULTS_REPORT names a file for it too."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    records = [value for report in reports for key, value in report.user_properties if key == "faults"]
    if not records:
        return
    text = report_of(records)
    terminalreporter.section("kills")
    terminalreporter.write_line(text)
    if file := os.environ.get("FAULTS_REPORT"):
        Path(file).write_text(f"{text}\n")


def report_of(records: list[dict[str, Any]]) -> str:
    """Place by place, kills made and survived; then, run by run, what differed first and what was typed."""
    from faults.scenarios import CHAIN, KILLS, SEED

    kills = [kill for record in records for kill in record["kills"]]
    made = Counter(row_of(kill) for kill in kills)
    survived = Counter(row_of(kill) for kill in kills if kill["survived"])
    width = max(map(len, [*made, "place"]))
    rows = [("place", "made", "survived"), *((place, made[place], survived[place]) for place in sorted(made))]
    rows.append(("all", made.total(), survived.total()))
    table = [f"{place:<{width}}  {one:>4}  {other:>8}" for place, one, other in rows]
    head = f"FAULTS_SEED={SEED} FAULTS_KILLS={KILLS} FAULTS_CHAIN={CHAIN}"
    return "\n".join([head, *table, *(told for record in records if record["wrong"] for told in failure(record))])


def row_of(kill: dict[str, Any]) -> str:
    """The place, and whom the kill hit where others of the run were left alive."""
    return kill["place"] if kill["whom"] in ("main", "group") else f"{kill['place']} ({kill['whom']} alone)"


def failure(record: dict[str, Any]) -> list[str]:
    """A run that did not end as it should have."""
    killed = ", then ".join(f"{kill['place']} ({kill['whom']})" for kill in record["kills"])
    wrong = [f"  {told}" for told in record["wrong"]]
    typed = [f"  $ {line}" for line in record["lines"]]
    return ["", f"{record['scenario']}, killed at {killed or 'nothing'}:", *wrong, *typed]
