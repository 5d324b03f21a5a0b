"""Evaluate a stored run: python src/eval.py run=DIR sampler=ddpm evaluation.bound=exact."""

from pathlib import Path

from scorelab.app.entry import entry

if __name__ == "__main__":
    entry(Path(__file__).resolve().parent.parent / "configs", "eval", "scorelab.app.evaluate:evaluate")
