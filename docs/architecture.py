"""Draw the house from its own imports: python docs/architecture.py writes docs/architecture.png.

A room is a package or a module directly under src/scorelab. It stands one floor above the highest room that it
imports; an arrow says "imports", and one that follows from others is left out.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "src" / "scorelab"
NAMED = re.compile(r"(?<![\w.])scorelab\.([a-z_]+)\.[a-z_]+")
WORKSHOP = {"errors", "files", "formats", "log_snr", "run", "comparison", "tracking", "report"}
HUES = {  # who a room may know
    "the maths: torch alone": ("#dbe9f6", {"tensors", "mapped", "schedules", "laws", "denoisers", "networks"}),
    "maths that is asked of a run": ("#c6dbef", {"likelihood", "samplers", "losses", "data", "metrics", "evaluation"}),
    "the workshop: no framework": ("#e5f0d9", WORKSHOP),
    "the roof: Lightning, Hydra": ("#fde3cb", {"lit", "config", "app"}),
}


@dataclass(frozen=True)
class House:
    """Its rooms by name: how many lines each has, which others it imports."""

    lines: dict[str, int]
    imports: dict[str, set[str]]

    def floor(self, room: str) -> int:
        """How many rooms lie below it, one on another."""
        return 1 + max((self.floor(each) for each in self.imports[room]), default=-1)

    def below(self, room: str) -> set[str]:
        """All that it stands on, at any depth."""
        return self.imports[room].union(*(self.below(each) for each in self.imports[room]))

    def arrows(self) -> list[tuple[str, str]]:
        """Imports that do not follow from others, from the importing room."""
        return [
            (room, other)
            for room, others in self.imports.items()
            for other in others
            if not any(other in self.below(between) for between in others)
        ]


def named(text: str) -> set[str]:
    """The rooms that a module imports, at the top or inside a function, or names by a string."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
            found |= set(NAMED.findall(node.value))
        found |= {name.split(".")[1] for name in names if name.startswith("scorelab.")}
    return found


def house(package: Path = PACKAGE) -> House:
    """Read it."""
    lines: dict[str, int] = {}
    imports: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        text = path.read_text(encoding="utf-8")
        lines[room] = lines.get(room, 0) + len(text.splitlines())
        imports.setdefault(room, set()).update(named(text) - {room})
    return House(lines, {room: others & lines.keys() for room, others in imports.items()})


def places(built: House) -> dict[str, tuple[float, float]]:
    """Where each room's middle stands: on its floor, the workshop to the left of all others, those about the middle."""
    floors: dict[tuple[int, bool], list[str]] = {}
    for room in sorted(built.lines, reverse=True):
        floors.setdefault((built.floor(room), room in WORKSHOP), []).append(room)
    wide = {workshop: max(len(rooms) for (_, of), rooms in floors.items() if of == workshop) for workshop in (0, 1)}
    left = 2.1 * (wide[0] + wide[1]) / 2
    return {
        room: (2.1 * (number - (len(rooms) - 1) / 2) - left * workshop, 1.25 * floor)
        for (floor, workshop), rooms in floors.items()
        for number, room in enumerate(rooms)
    }


def draw(built: House, path: Path) -> None:
    """One box a room, with its share of the lines."""
    at, total = places(built), sum(built.lines.values())
    width, height = 1.7, 0.62
    figure = Figure(figsize=(13, 10), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    for room, other in built.arrows():
        (x, y), (x_below, y_below) = at[room], at[other]
        axes.annotate(
            "",
            (x_below, y_below + height / 2),
            (x, y - height / 2),
            arrowprops={"arrowstyle": "-|>", "color": "0.55", "linewidth": 0.9, "shrinkA": 0, "shrinkB": 1},
        )
    for room, (x, y) in at.items():
        (hue,) = (hue for hue, rooms in HUES.values() if room in rooms)
        box = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02",
            facecolor=hue,
            edgecolor="0.4",
            zorder=3,
        )
        axes.add_patch(box)
        axes.text(x, y + 0.08, room, ha="center", va="center", fontsize=11, weight="bold", zorder=4)
        told = f"{built.lines[room]:,} lines, {built.lines[room] / total:.1%}"
        axes.text(x, y - 0.16, told, ha="center", va="center", fontsize=7.5, color="0.3", zorder=4)
    left = min(x for x, _ in at.values()) - width / 2
    top = max(y for _, y in at.values())
    for number, (name, (hue, _)) in enumerate(HUES.items()):
        y = top - 0.3 * number
        axes.add_patch(
            FancyBboxPatch((left, y - 0.08), 0.25, 0.16, facecolor=hue, edgecolor="0.4", boxstyle="round,pad=0.01")
        )
        axes.text(left + 0.4, y, name, va="center", fontsize=9)
    axes.set(xlim=(left - 0.3, max(x for x, _ in at.values()) + width / 2 + 0.3), ylim=(-0.6, top + 0.6))
    axes.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    draw(house(), HERE / "architecture.png")
