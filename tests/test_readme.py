"""The README's examples of Python run as written."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


NOTEBOOK, LIBRARY = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_notebook_example_runs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished.rename(finished.with_name("mine"))
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(NOTEBOOK, scope)
    assert scope["images"].shape == (16, 1, 8, 8) and scope["error"].se > 0
    assert (tmp_path / "samples.png").exists()


def test_the_library_example_runs_and_is_short() -> None:
    code = LIBRARY
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    assert "lightning" not in code and "hydra" not in code
    scope: dict = {}
    exec(code, scope)
    assert scope["images"].shape == (4, 1, 8, 8)
    assert scope["images"].abs().max() <= 1


def test_every_make_target_and_entry_the_readme_names_exists() -> None:
    root = Path(__file__).resolve().parent.parent
    makefile = (root / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for entry in re.findall(r"python (src/\w+\.py)", README):
        assert (root / entry).exists(), entry
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / link).exists(), link
