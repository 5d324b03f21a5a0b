"""The weighted Helmholtz decomposition of a field in the plane, on a grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-14  # of the greatest density: where there is less, no part of a mean lies
HELD = 1e-10  # of each node's own weight: holds a potential that is free to be shifted


@dataclass(frozen=True)
class Lattice:
    """Nodes of a rectangle of the plane, ``side`` of them along either axis, and the middles of the edges between."""

    low: Tensor  # (2,)
    high: Tensor  # (2,)
    side: int

    @property
    def steps(self) -> Tensor:
        """The lengths of edges along x and along y, (2,)."""
        return (self.high - self.low) / (self.side - 1)

    def middles(self, axis: int) -> Tensor:
        """Of the edges along one axis, as points (n, 2): the last coordinate runs fastest."""
        along = [torch.linspace(0, 1, self.side, dtype=torch.float64) for _ in range(2)]
        along[axis] = (torch.arange(self.side - 1, dtype=torch.float64) + 0.5) / (self.side - 1)
        places = torch.cartesian_prod(*along).to(self.low)
        return self.low + places * (self.high - self.low)


@dataclass(frozen=True)
class Split:
    """E||e||^2 of a field, and what of it belongs to its gradient part: the rest is their difference."""

    whole: float
    gradient: float


def split(lattice: Lattice, log_prob: Sequence[Tensor], along: Sequence[Tensor]) -> Split:
    """E_p||e||^2 and E_p||grad phi||^2, where e = grad phi + r and div(p r) = 0.

    phi is what makes E_p||e - grad phi||^2 least, a weighted Poisson problem: div(p grad phi) = div(p e). On the grid a
    potential stands at nodes and a field's component at the middles of the edges along it, so that the gradient is a
    difference of neighbours, and the least square is that over edges, weighed by p there. No flux leaves the rectangle.
    The two parts are orthogonal on the grid too; they are off by the square of an edge over the width of p.

    Args:
        lattice: the grid; outside of it p is taken for 0.
        log_prob: log p at the middles of the edges along x and along y, up to a constant.
        along: the component of e along each of these edges.
    """
    from scipy.sparse import coo_matrix, diags, identity
    from scipy.sparse.linalg import splu

    top = max(float(each.max()) for each in log_prob)  # a density may be far from 1
    weights = [torch.exp(each.cpu().double() - top) for each in log_prob]
    weights = [each / each.sum() for each in weights]  # of an axis each, so both are means
    number = torch.arange(lattice.side**2).reshape(lattice.side, lattice.side)
    ends = [(number[:-1], number[1:]), (number[:, :-1], number[:, 1:])]
    start, stop = (torch.cat([pair[k].flatten() for pair in ends]) for k in range(2))
    weight, field = torch.cat(weights), torch.cat([each.cpu().double() for each in along])
    length = torch.cat([step.cpu().expand(len(each)) for step, each in zip(lattice.steps, weights, strict=True)])
    kept = weight > TINY * weight.max()
    nodes, place = torch.unique(torch.cat([start[kept], stop[kept]]), return_inverse=True)
    start, stop = place.chunk(2)
    weight, field, length = weight[kept], field[kept], length[kept]
    edge = torch.arange(len(weight))
    slope = torch.cat([1 / length, -1 / length]).numpy()
    places = (torch.cat([edge, edge]).numpy(), torch.cat([stop, start]).numpy())
    gradient = coo_matrix((slope, places), (len(edge), len(nodes))).tocsr()
    laplacian = gradient.T @ diags(weight.numpy()) @ gradient
    own = laplacian.diagonal() ** -0.5
    scaled = diags(own) @ laplacian @ diags(own) + HELD * identity(len(nodes))
    source = own * (gradient.T @ (weight * field).numpy())
    solved = splu(scaled.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(source)
    return Split(float((weight * field**2).sum()), float(source @ solved))
