"""The house stands as designed: who may import whom, and how large a room may grow."""

import ast
import inspect
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "scorelab"
FLOORS = ("errors", "tensors", "schedules", "denoisers", "likelihood", "samplers", "losses", "judge", "lit")
SIDE = {
    "networks": {"errors"},
    "metrics": {"errors"},
    "report": set(),
    "data": {"errors", "tensors", "denoisers"},
}
ALLOWED = {
    "errors": set(),
    "tensors": set(),
    "schedules": {"errors", "tensors"},
    "denoisers": {"errors", "tensors", "schedules"},
    "likelihood": {*FLOORS[:4]},
    "samplers": {*FLOORS[:4]},
    "losses": {*FLOORS[:6]},
    "judge": {*FLOORS[:7], "metrics"},
    "lit": {*FLOORS[:8], *SIDE},
    **SIDE,
}
MATHS = {"errors", "tensors", "schedules", "denoisers", "likelihood", "samplers", "losses", "networks"}
FRAMEWORKS = {"lightning", "pytorch_lightning", "hydra", "omegaconf", "wandb"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards_only(path: Path) -> None:
    if path.name in ("__init__.py", "train_digits.py") and path.parent.name in ("scorelab", "metrics"):
        return  # the package's docstring; the script that made the digit weights reads the digits
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("scorelab.")}
    assert ours <= ALLOWED[room(path)] | {room(path)}


@pytest.mark.parametrize("path", [p for p in MODULES if room(p) in MATHS], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_maths_imports_torch_alone(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    solver = {"torchdiffeq"} if room(path) in ("likelihood", "samplers") else set()
    assert outside <= {"torch", "scorelab"} | solver


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_frameworks_are_named_under_the_roof_only(path: Path) -> None:
    if room(path) == "lit" or path == PACKAGE / "data" / "module.py":
        return
    assert not {name.split(".")[0] for name in imports(path)} & FRAMEWORKS


def test_every_room_is_on_the_plan() -> None:
    rooms = {room(path) for path in MODULES} - {"__init__"}
    assert rooms == ALLOWED.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_the_lightning_module_and_the_builder_stay_small() -> None:
    from scorelab.lit.build import build

    assert len((PACKAGE / "lit" / "module.py").read_text().splitlines()) <= 150
    assert len(inspect.getsource(build).splitlines()) <= 50


@pytest.mark.parametrize("name", ["train", "eval", "sample"])
def test_entries_are_thin_and_import_nothing_heavy(name: str) -> None:
    path = ROOT / "src" / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 20
    assert imports(path) == {"pathlib", "scorelab.lit.entry"}
    heavy = {"torch", "lightning", "hydra", "wandb", "omegaconf", "sklearn"}
    top = ast.parse((PACKAGE / "lit" / "entry.py").read_text()).body
    named = {
        alias.name.split(".")[0]
        for node in top
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert not named & heavy
