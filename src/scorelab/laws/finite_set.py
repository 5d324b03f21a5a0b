"""The uniform law over a finite set of points, such as a training set."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from scorelab.laws.base import Drawn, Law, Moments, Posterior
from scorelab.mapped import Reader
from scorelab.tensors import from_levels

UNIT = 2.0**-24  # the rounding of float32
FACTOR = 8.0  # a float32 product of d terms is off by at most this many UNIT |q| |y|, seen for d up to 10,000
REACH = 50.0  # nats below the largest term at which a term no longer counts
FINE = 1e-4  # nats: an error below this is left as it is
SMALL = 2**24  # numbers of a set that is kept centred beside its points: 64 MB in float32
LARGEST = 2**21  # numbers of a chunk: 16 MB in float64; larger ones are slower, for no cache holds them
BLOCK = 2**18  # numbers that are looked at together, one by one
CROWD = 16  # a query that more than one point in so many may count for is better served by products in float64
CROWD_UNKEPT = 64  # of a set that is not kept centred: a point of it costs more to list


@dataclass
class Sums:
    """Running sums over points y with weights e^(logit - top): of 1, y and ||y||^2, for each of B queries."""

    top: Tensor
    one: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def empty(cls, queries: int, dims: int, device: torch.device) -> "Sums":
        """Nothing seen yet."""
        zeros = torch.zeros(queries, dtype=torch.float64, device=device)
        return cls(torch.full_like(zeros, -math.inf), zeros, zeros.new_zeros(queries, dims), zeros.clone())

    def rise(self, top: Tensor) -> None:
        """Take new largest logits (B,) into account."""
        top = torch.maximum(self.top, top)
        shrink = torch.exp(self.top - top).nan_to_num(0.0)  # -inf before the first
        self.top, self.one, self.second = top, self.one * shrink, self.second * shrink
        self.first = self.first * shrink[:, None]

    def put(self, rows: Tensor, part: "Sums") -> None:
        """Take some queries' sums from another."""
        self.top[rows], self.one[rows] = part.top, part.one
        self.first[rows], self.second[rows] = part.first, part.second


@dataclass(frozen=True)
class Chunk:
    """Some of the points: where they stand, centred (n, d), and what is known of log w for each of B queries (B, n)."""

    here: slice
    centred: Tensor
    logits: Tensor


class FiniteSet(Law):
    """x_0 uniform over N points: E[x_0 | x_t] = sum_i w_i x_i, w = softmax(-||x_t - alpha x_i||^2 / 2 sigma^2).

    log p_t = log mean_i N(x_t; alpha x_i, sigma^2 I) (Karras et al. 2022, appendix B.3). A label leaves only the points
    that carry it, where they have some. Squared distances come from float32 products over chunks of centred points.
    Where their rounding could move a logit by more than 1e-4 nats, the points within reach of the largest logit are
    listed and their distances taken anew, as differences in float64; where too many are, all products are in float64.

    Args:
        points: x_1 ... x_N (N, ...): data, or pixel levels in uint8, which become data a chunk at a time. They are kept
            as they are, mapped from a file or not; a set of up to 64 MB of numbers is kept centred too.
        labels: of the points (N,), or None.
        chunk: points per product, at most; fewer where they have many dimensions.
        levels: of pixels, for points that are such.
        mirrored: whether the mirror image of every point, along its last axis, is in the set too: point N + i is that
            of point i, and carries its label. It is made of it a chunk at a time.

    Raises:
        ValueError: without points, or for another number of labels.
    """

    points: Tensor
    centred: Tensor | None
    squares: Tensor
    centre: Tensor
    has_density = False

    def __init__(
        self,
        points: Tensor,
        labels: Tensor | None = None,
        chunk: int = 8192,
        levels: int | None = None,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        if not len(points):
            raise ValueError("a finite set needs at least one point")
        if labels is not None and len(labels) != len(points):
            raise ValueError(f"{len(points)} points, but {len(labels)} labels")
        self.shape, self.levels, self.size = points.shape[1:], levels, (1 + mirrored) * len(points)
        labels = labels.repeat(2) if mirrored and labels is not None else labels
        dims = points[0].numel()
        self.chunk = min(chunk, max(1, LARGEST // dims))
        buffers = {"points": points.flatten(1), "labels": labels, "centred": None, "squares": None}
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)
        self.register_buffer("centre", self._mean(), persistent=False)
        if self.size * dims <= SMALL:
            self.centred = torch.cat([self._centred(here, torch.float32) for here in self._chunks()])
        self.squares = torch.empty(self.size, dtype=torch.float64, device=points.device)
        for here in self._chunks(max(1, BLOCK // dims)):  # into one tensor: small ones between large ones hold memory
            self.squares[here] = self._centred(here, torch.float32).double().square().sum(1)

    def _chunks(self, size: int | None = None) -> Iterator[slice]:
        """All points, so many at a time."""
        size = size or self.chunk
        for start in range(0, self.size, size):
            yield slice(start, min(start + size, self.size))

    def _mean(self) -> Tensor:
        """Of all points, float64 (d,)."""
        dims = self.points.shape[1]
        if self.levels is None and self.size <= self.chunk:
            return self._between(slice(0, self.size)).mean(0, dtype=torch.float64)
        size = None if self.size * dims <= SMALL else max(1, BLOCK // dims)
        sums = (self._data(self._between(here)) for here in self._chunks(size))
        return sum((part.sum(0, dtype=torch.float64) for part in sums), torch.zeros(())) / self.size

    def _between(self, here: slice) -> Tensor:
        """Some of the points as they were given (n, d), mirror images behind all others."""
        reader, n = Reader(self.points), len(self.points)
        own = reader.between(min(here.start, n), min(here.stop, n))
        if here.stop <= n:
            return own
        mirrored = self._mirror(reader.between(max(here.start - n, 0), here.stop - n))
        return torch.cat([own, mirrored]) if len(own) else mirrored

    def _mirror(self, values: Tensor) -> Tensor:
        """The mirror images of points (n, d)."""
        return values.unflatten(1, self.shape).flip(-1).flatten(1)

    def _data(self, values: Tensor) -> Tensor:
        """Some of the points as data, float32 or as they were given."""
        return values if self.levels is None else from_levels(values, self.levels)

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None = None) -> Posterior:
        """The law of x_0 given x = alpha x_0 + sigma eps (B, ...), for alpha and sigma (B,), in float64.

        Raises:
            ValueError: for a label that no point has.
        """
        flat, chosen = x.double().flatten(1), self.chosen(label)
        count = self.size if chosen is None else chosen.sum(1)
        asked = Queries(flat, flat - alpha[:, None] * self.centre, alpha, sigma, None if chosen is None else label)
        error = asked.error(float(self.squares.max()))
        sums = Sums.empty(len(flat), flat.shape[1], flat.device)
        sums.put(error <= FINE, self._all(asked.only(error <= FINE), torch.float32))
        fine = torch.nonzero(error > FINE).flatten()
        pairs, crowded = self._near(asked.only(fine), error[fine])
        sums.put(fine[~crowded], self._few(asked.only(fine[~crowded]), pairs))
        sums.put(fine[crowded], self._all(asked.only(fine[crowded]), torch.float64))
        mean = sums.first / sums.one[:, None]
        trace = (sums.second / sums.one - mean.square().sum(1)).clamp(min=0)
        density = -0.5 * flat.shape[1] * torch.log(2 * math.pi * asked.sigma**2)
        log_prob = sums.top + torch.log(sums.one / count) + density
        return Posterior((mean + self.centre).reshape(x.shape), trace, log_prob)

    def moments(self) -> Moments:
        """Of all points; the covariance is divided by N, for these points are the law."""
        parts = (self._centred(here, torch.float64) for here in self._chunks(max(1, BLOCK // self.points.shape[1])))
        squares = sum((part.mT @ part for part in parts), self.centre.new_zeros((), dtype=torch.float64))
        return Moments(self.centre.double(), squares / self.size)

    def draw(self, n: int, generator: Generator | None) -> Drawn:
        """N of the points, each any of them."""
        rows = torch.randint(self.size, (n,), generator=generator).to(self.points.device)
        return self._at(rows)

    def references(self, n: int, generator: Generator | None) -> Drawn:
        """N distinct points; all where there are no more."""
        rows = torch.randperm(self.size, generator=generator)[:n].to(self.points.device)
        return self._at(rows)

    def _at(self, rows: Tensor) -> Drawn:
        points = self._rows(rows).reshape(len(rows), *self.shape)
        return Drawn(points, None if self.labels is None else self.labels[rows])

    def _logits(self, asked: "Queries", dtype: torch.dtype) -> Iterator["Chunk"]:
        """Chunk by chunk: log w up to ||x||^2 / 2 sigma^2, by products, (B, chunk); -inf for points of other labels."""
        scaled = (asked.scale[:, None] * asked.centred).to(dtype)
        half = (0.5 * asked.scale * asked.alpha).to(dtype)
        for here in self._chunks():
            points = self._centred(here, dtype)
            squares = self.squares[here].float() if dtype == torch.float32 else points.square().sum(1)
            logits = torch.addmm(-half[:, None] * squares, scaled, points.T)
            if asked.label is not None and self.labels is not None:
                of = asked.label[:, None]
                logits.masked_fill_((self.labels[None, here] != of) & (of >= 0), -math.inf)
            yield Chunk(here, points, logits)

    def _rows(self, rows: Tensor) -> Tensor:
        """Some points as data (n, d)."""
        n = len(self.points)
        values = Reader(self.points)[rows % n]
        if self.size > n:
            values = torch.where((rows >= n)[:, None], self._mirror(values), values)
        return self._data(values)

    def _centred(self, here: slice, dtype: torch.dtype) -> Tensor:
        """Centred points: as they are kept, rounded, or in float64 from those that were given."""
        if dtype == torch.float32 and self.centred is not None:
            return self.centred[here]
        values = self._between(here)
        if dtype == torch.float32 and self.levels is not None and self.size * self.points.shape[1] > SMALL:
            # rounded three times and not once, by no more than a product of many terms is: see FACTOR
            return values.float().mul_(2.0 / (self.levels - 1)).sub_((self.centre + 1).float())
        return torch.sub(self._data(values), self.centre).to(dtype)

    def _all(self, asked: "Queries", dtype: torch.dtype) -> Sums:
        """Over every point, by products alone."""
        sums = Sums.empty(len(asked.x), asked.x.shape[1], asked.x.device)
        for part in self._logits(asked, dtype) if len(asked.x) else ():
            logits = part.logits
            top = logits.max(1).values.double()
            if not bool((top >= sums.top - REACH).any()):
                continue
            sums.rise(top)
            # a query that has met no point of its label yet has no largest logit to take off
            weights = logits.sub_(sums.top.nan_to_num(neginf=0.0).to(dtype)[:, None]).exp_()
            sums.one += weights.sum(1)
            # only a logit needs float64; a mean by weights of float32 is as good as one where float32 serves for all
            back = dtype if self.centred is not None else torch.float32
            sums.first += weights.to(back) @ part.centred.to(back)
            sums.second += weights @ self.squares[part.here].to(dtype)
        sums.top = sums.top - asked.centred.square().sum(1) / (2 * asked.sigma**2)
        return sums

    def _near(self, asked: "Queries", error: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (2, P) of a query and a point whose weight may count; and which queries (B,) have too many to list.

        Those that do are no longer listed, so that memory is bounded by a chunk; a query in the pairs is counted
        among those that are not crowded.
        """
        top, reach = torch.full_like(error, -math.inf), REACH + 2 * error
        count = torch.zeros_like(error)
        most = max(256, self.size // (CROWD_UNKEPT if self.centred is None else CROWD))
        listed = [torch.zeros(2, 0, dtype=torch.long, device=error.device)]
        for part in self._logits(asked, torch.float32) if len(error) else ():
            logits = part.logits
            top = torch.maximum(top, logits.max(1).values.double())
            near = (logits >= (top - reach).float()[:, None]) & logits.isfinite() & (count <= most)[:, None]
            count += near.sum(1)
            query, place = torch.nonzero(near, as_tuple=True)
            listed.append(torch.stack([query, place + part.here.start]))
        pairs, crowded = torch.cat(listed, 1), count > most
        pairs = pairs[:, ~crowded[pairs[0]]]
        return torch.stack([(~crowded).cumsum(0)[pairs[0]] - 1, pairs[1]]), crowded

    def _few(self, asked: "Queries", pairs: Tensor) -> Sums:
        """Over listed points, their distances taken anew."""
        sums = Sums.empty(len(asked.x), asked.x.shape[1], asked.x.device)
        if not len(asked.x):
            return sums
        size = max(1, BLOCK // self.points.shape[1])
        logits = torch.cat([self._exact(asked, part) for part in pairs.split(size, 1)])
        sums.top = sums.top.scatter_reduce(0, pairs[0], logits, "amax")
        kept = logits >= sums.top[pairs[0]] - REACH
        pairs, weights = pairs[:, kept], torch.exp(logits[kept] - sums.top[pairs[0, kept]])
        sums.one.index_add_(0, pairs[0], weights)
        sums.second.index_add_(0, pairs[0], weights * self.squares[pairs[1]])
        for (query, place), weight in zip(pairs.split(size, 1), weights.split(size), strict=True):
            centred = self._rows(place).double() - self.centre
            sums.first.index_add_(0, query, weight[:, None] * centred)
        return sums

    def _exact(self, asked: "Queries", pairs: Tensor) -> Tensor:
        """-||x - alpha y||^2 / 2 sigma^2 of pairs (2, P) of a query and a point, by differences in float64."""
        query, place = pairs
        away = asked.x[query] - asked.alpha[query, None] * self._rows(place).double()
        return -away.square().sum(1) / (2 * asked.sigma[query] ** 2)


class Queries:
    """Points x (B, d) in float64 as a finite set is asked about them; ``centred`` is x - alpha centre."""

    def __init__(self, x: Tensor, centred: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None) -> None:
        self.x, self.centred, self.alpha, self.sigma, self.label = x, centred, alpha, sigma, label
        self.scale = alpha / sigma**2

    def error(self, largest: float) -> Tensor:
        """How far a logit (B,) may be off for points of at most this squared norm."""
        size = largest**0.5
        return FACTOR * UNIT * self.scale * (self.centred.norm(dim=1) * size + 0.5 * self.alpha * size**2)

    def only(self, rows: Tensor) -> "Queries":
        """Some of them."""
        label = None if self.label is None else self.label[rows]
        return Queries(self.x[rows], self.centred[rows], self.alpha[rows], self.sigma[rows], label)
