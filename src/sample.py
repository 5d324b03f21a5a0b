"""Draw samples from a stored run: python src/sample.py run=DIR n=64 sampler=ddim sampler.steps=50 seed=0."""

from pathlib import Path

from scorelab.app.entry import entry

if __name__ == "__main__":
    entry(Path(__file__).resolve().parent.parent / "configs", "sample", "scorelab.app.sample:sample")
