"""Train, evaluate and record a diffusion model: python src/train.py loss=vlb schedule=cosine."""

from pathlib import Path

from scorelab.app.entry import entry

if __name__ == "__main__":
    entry(Path(__file__).resolve().parent.parent / "configs", "train", "scorelab.app.train:train")
