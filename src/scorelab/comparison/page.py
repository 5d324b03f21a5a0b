"""compare.html: one file that needs nothing else, neither a server nor a network."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scorelab.errors import UserError
from scorelab.files import write_text

PARTS = Path(__file__).with_name("page")
TABLE = ("state.js", "seeds.js", "look.js", "table.js", "shown.js")  # is there before Plotly has been read
FIGURES = ("figures.js", "curves.js", "panels.js", "main.js")


def plotly() -> str:
    """The text of plotly.js, as its Python package brings it; the package itself, slow to import, is not needed.

    Raises:
        UserError: where it is not installed.
    """
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("the page needs plotly: pip install plotly, or page=false")
    return (Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def write_page(path: Path, payload: dict[str, Any]) -> None:
    """Markup, style, data and scripts in one file; a run's words are never markup, but data that a script shows."""
    data = json.dumps(payload, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "STYLE": (PARTS / "page.css").read_text(encoding="utf-8"),
        "DATA": data,
        "PLOTLY": plotly(),
        "TABLE": _joined(TABLE),
        "FIGURES": _joined(FIGURES),
    }
    before, *pieces = (PARTS / "page.html").read_text(encoding="utf-8").split("<!--=")
    found = [before]
    for piece in pieces:
        name, _, rest = piece.partition("=-->")
        found += [parts[name], rest]
    write_text(path, "".join(found))


def _joined(names: Sequence[str]) -> str:
    return "\n".join((PARTS / name).read_text(encoding="utf-8") for name in names)
