"""Fit the mixture of ``data=digits_gaussians`` to the digits, and write its parameters.

    python scripts/fit_digits.py [path]

Three Gaussians for each class, by EM on the train split in data units, with FLOOR added to every eigenvalue: 48
images for a component of 64 dimensions leave most of its covariance to that floor, and 0.01, a standard deviation of
0.8 of a level, is what keeps a draw as blurred as a scan. Prints the log-likelihood of the real train and test digits
under it, and of its own draws.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

import scorelab.data
from scorelab.data.images import Digits
from scorelab.tensors import from_levels

COMPONENTS, FLOOR = 3, 0.01


def fitted() -> dict[str, Tensor]:
    """Means (30, 64), Cholesky factors (30, 64, 64), weights (30,) and labels (30,) in float32."""
    from sklearn.mixture import GaussianMixture

    split = Digits().splits()["train"]
    x = from_levels(split.values, Digits().levels).flatten(1).double()
    parts: dict[str, list[Tensor]] = {"means": [], "factors": [], "weights": [], "labels": []}
    for label in range(Digits().classes):
        mine = x[split.labels == label]
        fit = GaussianMixture(COMPONENTS, reg_covar=FLOOR, n_init=5, random_state=0).fit(mine.numpy())
        parts["means"].append(torch.from_numpy(fit.means_))
        parts["factors"].append(torch.linalg.cholesky(torch.from_numpy(fit.covariances_)))
        parts["weights"].append(torch.from_numpy(fit.weights_) * len(mine) / len(x))
        parts["labels"].append(torch.full((COMPONENTS,), label))
    whole = {name: torch.cat(part) for name, part in parts.items()}
    return {name: part if name == "labels" else part.float() for name, part in whole.items()}


def main(path: Path) -> None:
    """Fit, write, and tell how well it fits."""
    from safetensors.torch import save

    from scorelab.data.synthetic import DigitsGaussians

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(fitted()))
    source = DigitsGaussians()
    told = {name: from_levels(split.values, Digits().levels) for name, split in Digits().splits().items()}
    told["draws"] = source.drawn(5000, "fit").values
    for name, x in told.items():
        print(f"{name}: {float(source.law().log_prob(x).mean()):.2f} nats")


if __name__ == "__main__":
    default = Path(scorelab.data.__file__).parent / "weights" / "digits_gaussians.safetensors"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
