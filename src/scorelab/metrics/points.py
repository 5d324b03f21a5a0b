"""How close two sets of points are, without features: energy distance, sliced Wasserstein distance.

Points are (N, d); what has more axes is flattened.
"""

import torch
from torch import Generator, Tensor

from scorelab.errors import Refusal


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""The energy distance of the laws of x and y, without bias (it may come out below 0).

    .. math:: 2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    (Székely & Rizzo 2013, "Energy statistics", eq. 1), means over pairs of distinct points. It is 0 only where the laws
    are the same.

    Args:
        x: (n, ...), n >= 2.
        y: (m, ...), m >= 2.

    Raises:
        Refusal: for fewer points.

    """
    x, y = _flat(x), _flat(y)
    within = [float(torch.pdist(each).mean()) for each in (x, y)]
    return 2 * float(torch.cdist(x, y).mean()) - sum(within)


def sliced_wasserstein(x: Tensor, y: Tensor, generator: Generator, directions: int = 256) -> float:
    r"""The sliced Wasserstein distance of order 2 of two samples.

    .. math:: \left( E_\theta \int_0^1 (F_{\theta x}^{-1}(u) - F_{\theta y}^{-1}(u))^2 du \right)^{1/2}

    (Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters"), theta uniform on the sphere. Its bias falls as
    1/sqrt(n): compare equal sizes.

    Args:
        x: (n, ...).
        y: (m, ...); where m differs from n, quantiles are read at max(n, m) places.
        generator: of the directions, on the CPU.
        directions: how many.

    Raises:
        Refusal: for fewer than 2 points.

    """
    x, y = _flat(x), _flat(y)
    theta = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64).to(x.device)
    theta = theta / theta.norm(dim=0)
    size = max(len(x), len(y))
    u = (torch.arange(size, dtype=torch.float64, device=x.device) + 0.5) / size
    along = [(each @ theta).sort(0).values[(u * len(each)).long()] for each in (x, y)]
    return float((along[0] - along[1]).square().mean().sqrt())


def _flat(points: Tensor) -> Tensor:
    if len(points) < 2:
        raise Refusal(f"a distance needs at least 2 points, got {len(points)}")
    return points.flatten(1).double()
