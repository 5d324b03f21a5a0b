"""The house stands as designed: who may import whom, by name or by a string, and how large a room may grow."""

import ast
import inspect
import re
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "scorelab"
BELOW = {  # the rooms right beneath each room; what those stand on may be imported too
    "app": {"config", "comparison"},
    "config": {"lit"},
    "lit": {"evaluation", "tracking", "report"},
    "evaluation": {"losses", "metrics"},
    "losses": {"samplers", "likelihood", "data"},
    "samplers": {"denoisers"},
    "likelihood": {"denoisers"},
    "data": {"denoisers", "files", "formats"},
    "denoisers": {"laws", "schedules"},
    "laws": {"tensors", "mapped"},
    "schedules": {"tensors"},
    "tensors": {"log_snr", "errors"},
    "comparison": {"run", "report"},
    "tracking": {"run", "report"},
    "run": {"files", "errors"},
    "networks": {"errors"},
    "metrics": {"errors"},
    "report": {"files", "log_snr"},
    "formats": {"errors"},
    "files": set(),
    "log_snr": set(),
    "mapped": set(),
    "errors": set(),
}
MATHS = {
    "errors",
    "log_snr",
    "mapped",
    "tensors",
    "schedules",
    "laws",
    "denoisers",
    "networks",
    "likelihood",
    "samplers",
    "losses",
}
WORKSHOP = {"errors", "files", "run", "report", "comparison", "tracking"}
NAMES_FRAMEWORKS = {"lit", "config", "app"}
FRAMEWORKS = {"lightning", "pytorch_lightning", "lightning_utilities", "hydra", "omegaconf", "submitit"}
MODULES = sorted(PACKAGE.rglob("*.py"))
DOTTED = re.compile(r"(?<![\w.])scorelab((?:\.[A-Za-z_]\w*)+)")
BY_NAME = pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def stands_on(name: str) -> set[str]:
    """Every room that a room may import: what is beneath it, at any depth."""
    found: set[str] = set()
    for each in BELOW[name]:
        found |= {each} | stands_on(each)
    return found


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


def in_strings(path: Path) -> set[str]:
    """Dotted names of ours in a file's strings, docstrings aside: what is imported by its name."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and is_text(node.body)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]
    return {f"scorelab{name}" for text in texts for name in DOTTED.findall(text)}


def is_text(body: list[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def rooms_named(path: Path) -> set[str]:
    """The rooms whose modules a file names, in an import or in a string."""
    return {name.split(".")[1] for name in imports(path) | in_strings(path) if name.startswith("scorelab.")}


def test_every_room_is_on_the_plan() -> None:
    assert {room(path) for path in MODULES} - {"__init__"} == BELOW.keys()


def test_the_page_about_the_house_tells_of_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    told = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert told == BELOW.keys()


def test_the_files_that_the_page_names_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for room_, module in re.findall(r"`(\w+)/(\w+)[.`]", page):
        if room_ in BELOW:
            assert (PACKAGE / room_ / f"{module}.py").exists(), f"{room_}/{module}"


def test_the_plan_has_no_circle() -> None:
    assert list(TopologicalSorter(BELOW).static_order())


@BY_NAME
def test_imports_point_downwards_only(path: Path) -> None:
    if path != PACKAGE / "__init__.py":
        assert rooms_named(path) <= stands_on(room(path)) | {room(path)}


def test_no_module_is_its_own_ancestor() -> None:
    graph = {}
    for path in MODULES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] != "__init__":
            tops = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
            graph[".".join(parts)] = {node.module or "" for node in tops}
    assert list(TopologicalSorter(graph).static_order())


@BY_NAME
def test_the_maths_imports_torch_alone_but_for_what_solves_the_ode(path: Path) -> None:
    if room(path) not in MATHS:
        return
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    solver = {"torchdiffeq"} if room(path) in ("likelihood", "samplers") else set()
    assert outside <= {"torch", "scorelab"} | solver


@BY_NAME
def test_frameworks_are_named_under_the_roof_only(path: Path) -> None:
    if room(path) not in NAMES_FRAMEWORKS and path != PACKAGE / "data" / "module.py":
        assert not {name.split(".")[0] for name in imports(path)} & FRAMEWORKS


@BY_NAME
def test_nothing_private_of_a_library_is_imported(path: Path) -> None:
    private = {name for name in imports(path) for part in name.split(".") if part.startswith("_")}
    assert private <= {"__future__"}


@BY_NAME
def test_wandb_is_named_where_runs_are_tracked_only(path: Path) -> None:
    assert room(path) == "tracking" or "wandb" not in {name.split(".")[0] for name in imports(path)}


@BY_NAME
def test_the_workshop_knows_no_networks(path: Path) -> None:
    if room(path) in WORKSHOP:
        assert not {name for name in imports(path) if name.startswith("torch.nn")}


def test_no_room_holds_more_than_its_share() -> None:
    lines = Counter({"all": 0})
    for path in MODULES:
        lines[room(path)] += len(path.read_text().splitlines())
    assert max(lines.values()) <= 0.15 * sum(lines.values())


@BY_NAME
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_the_lightning_module_and_the_builder_stay_small() -> None:
    from scorelab.config.build import build

    assert len((PACKAGE / "lit" / "module.py").read_text().splitlines()) <= 150
    assert len(inspect.getsource(build).splitlines()) <= 50


@pytest.mark.parametrize("name", ["train", "eval", "sample"])
def test_entries_are_thin_and_import_nothing_heavy(name: str) -> None:
    path = ROOT / "src" / f"{name}.py"
    assert len(path.read_text().splitlines()) <= 20
    assert imports(path) == {"pathlib", "scorelab.app.entry"}
    heavy = {"torch", "lightning", "hydra", "wandb", "omegaconf", "sklearn"}
    top = ast.parse((PACKAGE / "app" / "entry.py").read_text()).body
    named = {
        alias.name.split(".")[0]
        for node in top
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert not named & heavy
