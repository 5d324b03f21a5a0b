"""Repeat the sweeps of results/: make results. What a sweep leaves is copied there without weights and pictures.

Finished runs in logs/sweeps are not repeated; python scripts/results.py copy only copies what is there.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SWEEPS = {  # by directory of results/; a continuous schedule has no steps whose variance hybrid could learn
    "digits_gaussians": [
        ["sweep=results_gaussians"],
        ["sweep=results_gaussians", "schedule=vp", "loss=simple,vlb,dsm,likelihood,esm,ssm"],
    ],
    "digits": [
        ["sweep=results_digits"],
        ["sweep=results_digits", "schedule=vp", "loss=simple,vlb,likelihood"],
    ],
    "objectives": [  # steps by what one costs: an exact score 1.12 of a plain one, a derivative of it 2.6, all of it 96
        ["sweep=results_objectives"],
        ["sweep=results_objectives", "schedule=cosine,linear", "loss=hybrid"],
        ["sweep=results_objectives", "loss=esm", "trainer.max_steps=670"],
        ["sweep=results_objectives", "loss=ssm", "trainer.max_steps=286"],
        ["sweep=results_objectives", "loss=ism", "trainer.max_steps=8"],
        ["sweep=results_objectives", "schedule=learned", "loss=vlb"],
    ],
    "embedded": [["sweep=results_embedded"]],
    "timesteps": [["sweep=results_timesteps"]],
}
DIGITS = 6  # of a number that are kept: more differ from one kind of processor to the next


def short(value: object) -> object:
    """Plain values with their numbers cut to six digits."""
    if isinstance(value, dict):
        return {key: short(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [short(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def copy(name: str) -> int:
    """Copy figures and history of every finished run, of seed 0 the weight card too; how many there are."""
    count = 0
    for file in sorted((ROOT / "logs" / "sweeps" / name).glob("*/metrics.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["status"] != "finished":
            continue
        target = ROOT / "results" / name / file.parent.name
        target.mkdir(parents=True, exist_ok=True)
        for unneeded in ("rows", "traceback"):
            for record in content["records"].values():
                record.pop(unneeded, None)
        (target / "metrics.json").write_text(json.dumps(short(content), separators=(",", ":")) + "\n", encoding="utf-8")
        shutil.copyfile(file.parent / "metrics.csv", target / "metrics.csv")
        if content["config"]["seed"] == 0:
            shutil.copyfile(file.parent / "card.csv", target / "card.csv")
        count += 1
    return count


def main() -> int:
    """Run what is missing, copy, compare."""
    if sys.argv[1:] != ["copy"]:
        for name, commands in SWEEPS.items():
            for words in commands:
                command = [sys.executable, "src/train.py", *words, f"name={name}", "hydra/launcher=joblib"]
                if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
                    return status
    for name in SWEEPS:
        print(f"results/{name}: {copy(name)} runs")
    for name in SWEEPS:
        if not (ROOT / "results" / name).is_dir():  # none of its runs is finished
            continue
        command = [sys.executable, "src/compare.py", f"results/{name}"]
        if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
