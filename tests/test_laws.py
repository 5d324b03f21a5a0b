"""Data whose law is known: its draws follow its density, its splits and lists are fixed, its batches never end."""

import math
from itertools import islice, product
from types import SimpleNamespace

import pytest
import torch
from exact_cases import normal, seeded
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from scorelab.data.images import Digits
from scorelab.data.module import DataModule
from scorelab.data.synthetic import Checkerboard, DigitsGaussians, Gaussian, Moons, Ring, SwissRoll
from scorelab.denoisers import Exact, FixedSmall
from scorelab.laws import FiniteSet
from scorelab.schedules import VP
from scorelab.tensors import from_levels

PLANE = [Gaussian, Ring, Moons, SwissRoll, Checkerboard]
KNOWN = [*PLANE, DigitsGaussians]
each_plane = pytest.mark.parametrize("source", PLANE, ids=lambda source: source.__name__)
each_known = pytest.mark.parametrize("source", KNOWN, ids=lambda source: source.__name__)


def near(each: Tensor, expected: Tensor | float) -> bool:
    """Whether the mean over rows is as expected, within 5 standard errors."""
    return bool(((each.mean(0) - expected).abs() <= 5 * each.std(0) / math.sqrt(len(each))).all())


def rows_of(values: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in values.flatten(1).tolist()}


# --- the laws


@each_plane
def test_draws_follow_their_density_which_is_one(source):
    """Its mass, entropy and moments by a sum over the plane, against draws."""
    law = source().law()
    reach, step = (3.0, 0.02) if source is Gaussian else (1.3, 0.02)
    side = torch.arange(-reach + step / 2, reach, step, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    log_prob = torch.cat([law.log_prob(part) for part in x.split(4096)])
    density = log_prob.exp() * step**2
    assert float(density.sum()) == pytest.approx(1, abs=1e-6)
    drawn = law.draw(4000, seeded(1)).x0
    entropy = -float((density * log_prob.clamp(min=-1e3)).sum())
    if source is Checkerboard:
        assert torch.allclose(law.log_prob(drawn), torch.full((4000,), -math.log(2)).double())
        assert entropy == pytest.approx(math.log(2))
    else:
        assert near(-law.log_prob(drawn), entropy)
    for i, j in list(product(range(4), range(4)))[1:]:
        power = x[:, 0] ** i * x[:, 1] ** j
        assert near(drawn[:, 0] ** i * drawn[:, 1] ** j, (density * power).sum()), (i, j)
    cells = torch.floor((x + 3) / 0.25) @ torch.tensor([100.0, 1.0]).double()
    of_draws = torch.floor((drawn + 3) / 0.25) @ torch.tensor([100.0, 1.0]).double()
    for cell in cells.unique().tolist():
        mass, n = float(density[cells == cell].sum()), len(drawn)
        found = int((of_draws == cell).sum())
        assert abs(found - n * mass) < 5 * math.sqrt(n * mass) + 2, "cell by cell"


@each_known
def test_the_score_of_noised_draws_is_0_on_average_and_minus_the_identity_along_x(source):
    """E s_t = 0 and E s_t x_t^T = -I: the law whose score it is, is that of the draws."""
    oracle = Exact(VP(), FixedSmall(), source().law())
    n = 1000 if source is DigitsGaussians else 3000
    for level in (-3.0, 0.0, 3.0):
        t = oracle.schedule.inverse(torch.full((n,), level, dtype=torch.float64))
        x0 = oracle.law.draw(n, seeded(1)).x0
        x_t = oracle.noised(x0, t, normal(*x0.shape, seed=2)).x_t
        score, flat = oracle(x_t, t).score.flatten(1), x_t.flatten(1)
        assert near(score, 0.0)
        outer = score[:, :5, None] * flat[:, None, :5]
        assert near(outer, -torch.eye(outer.shape[1]).double())
        assert near((score * flat).sum(1) / flat.shape[1], -1.0)


def test_the_gaussian_is_the_one_it_is_given():
    source = Gaussian((0.4, -0.3), ((0.3, -0.1), (-0.1, 0.2)))
    expected = MultivariateNormal(source.mean, source.covariance)
    x = normal(50, 2)
    assert torch.allclose(source.law().log_prob(x), expected.log_prob(x), rtol=1e-10)
    assert torch.equal(source.mean, torch.tensor([0.4, -0.3], dtype=torch.float64))


def test_the_ring_has_eight_equal_gaussians_and_the_label_is_which():
    drawn = Ring(radius=0.5, std=0.03).law().draw(8000, seeded(1))
    for k in range(8):
        mine = drawn.x0[drawn.label == k]
        assert abs(len(mine) - 1000) < 5 * math.sqrt(1000)
        centre = 0.5 * torch.tensor([math.cos(math.pi * k / 4), math.sin(math.pi * k / 4)], dtype=torch.float64)
        assert near(mine, centre)
        assert near((mine - centre).square(), 0.03**2)


def test_the_moons_are_two_half_circles_one_up_and_one_down_and_the_label_is_which():
    law = Moons(std=0.02).law()
    drawn = law.draw(4000, seeded(1))
    for k, up in ((0, 1), (1, -1)):
        mine, links = drawn.x0[drawn.label == k], law.means[law.labels == k]
        assert abs(len(mine) - 2000) < 5 * math.sqrt(1000)
        middle = torch.stack([(links[:, 0].min() + links[:, 0].max()) / 2, links[0, 1]])
        assert torch.allclose((links - middle).norm(dim=1), torch.tensor(0.6).double(), atol=0.02), "a circle"
        assert (up * (links[:, 1] - middle[1]) > -1e-9).all(), "half of it"
        away = (mine - middle).norm(dim=1) - 0.6
        assert abs(float(away.mean())) < 0.02 and float(away.abs().max()) < 0.02 * 6
    mirrored = law.means[law.labels == 1]
    assert torch.allclose(mirrored, -law.means[law.labels == 0])


def test_the_moons_interleave():
    """An end of each lies inside the other: no line parts them."""
    law = Moons().law()
    upper, lower = (law.means[law.labels == k] for k in (0, 1))
    assert upper[:, 1].min() < lower[:, 1].max()
    for angle in torch.linspace(0, math.pi, 181, dtype=torch.float64):
        along = torch.stack([angle.cos(), angle.sin()])
        first, second = upper @ along, lower @ along
        assert first.min() < second.max() and second.min() < first.max(), f"parted at {float(angle):.2f}"


def test_the_swiss_roll_winds_one_and_a_half_times_and_its_radius_is_in_proportion_to_the_angle():
    means = SwissRoll().law().means
    angle = torch.atan2(means[:, 1], means[:, 0])
    turned = torch.remainder(angle.diff(), 2 * math.pi)
    assert float(turned.sum()) == pytest.approx(3 * math.pi, rel=0.01)
    radius = means.norm(dim=1)
    assert float(radius.max()) == pytest.approx(0.95)
    assert torch.allclose(radius.diff() / turned, (0.95 / (4.5 * math.pi)) * torch.ones(255).double(), rtol=0.01)


def test_the_checkerboard_is_black_where_row_and_column_are_both_even_or_both_odd():
    drawn = Checkerboard().law().draw(4000, seeded(1)).x0
    column, row = torch.floor((drawn + 1) * 2).long().unbind(1)
    assert ((column + row) % 2 == 0).all()
    assert (drawn.abs() <= 1).all()
    count = torch.bincount(4 * column + row)
    assert int((count > 0).sum()) == 8 and ((count[count > 0] - 500).abs() < 5 * math.sqrt(500)).all()


@pytest.mark.parametrize("source", [Ring, Moons, SwissRoll], ids=lambda source: source.__name__)
def test_a_spread_is_the_standard_deviation_of_each_gaussian(source):
    narrow, wide = (source(std=std).law() for std in (0.01, 0.2))
    assert torch.equal(narrow.means, wide.means)
    assert torch.allclose(wide.eigenvalues, torch.tensor(0.04).double())


def test_the_digits_gaussians_are_thirty_gaussians_three_to_a_class_as_torch_has_them():
    source = DigitsGaussians()
    law = source.law()
    assert torch.equal(law.labels.bincount(), torch.full((10,), 3))
    covariances = torch.einsum("kde,ke,kfe->kdf", law.eigenvectors, law.eigenvalues, law.eigenvectors)
    reference = MixtureSameFamily(Categorical(law.log_weights.exp()), MultivariateNormal(law.means, covariances))
    drawn, n = law.draw(1500, seeded(1)).x0, 1500
    log_prob = law.log_prob(drawn)
    assert torch.allclose(log_prob, reference.log_prob(drawn.flatten(1)), rtol=1e-8)
    torch.manual_seed(0)
    theirs = reference.log_prob(reference.sample((n,)))
    se = math.sqrt((float(log_prob.var()) + float(theirs.var())) / n)
    assert abs(float(log_prob.mean() - theirs.mean())) < 5 * se
    assert float(law.eigenvalues.min()) > 0.0099, "no component is flatter than the floor it was fitted with"


def test_the_digits_gaussians_look_like_the_digits():
    """Means and covariance of the train split and of each class, which EM keeps up to the floor it adds."""
    source, split = DigitsGaussians(), Digits().splits()["train"]
    real, law = from_levels(split.values, Digits().levels).flatten(1).double(), source.law()
    weights = law.log_weights.exp()
    assert torch.allclose(weights @ law.means, real.mean(0), atol=1e-4)
    second = torch.einsum("kde,ke,kfe->kdf", law.eigenvectors, law.eigenvalues, law.eigenvectors)
    second = torch.einsum("k,kdf->df", weights, second + torch.einsum("kd,kf->kdf", law.means, law.means))
    assert torch.allclose(second - 0.01 * torch.eye(64), real.mT @ real / len(real), atol=1e-3)
    for label in range(10):
        of_class = law.labels == label
        share = float(weights[of_class].sum())
        mine = real[split.labels == label]
        assert share == pytest.approx(len(mine) / len(real), rel=1e-5)
        assert torch.allclose(weights[of_class] @ law.means[of_class] / share, mine.mean(0), atol=1e-3)


@each_known
def test_a_source_is_without_levels_of_its_own_shape_and_says_which_labels_there_are(source):
    made = source()
    split = made.splits()["test"]
    assert made.levels is None and split.values.shape[1:] == made.shape
    assert split.values.dtype == torch.float32 and split.labels.dtype == torch.int64
    assert float(split.values.abs().quantile(0.95)) < 1.5
    if made.classes is None:
        assert not split.labels.any() and made.law().labels is None
    else:
        assert torch.equal(split.labels.unique(), torch.arange(made.classes))
        assert torch.equal(made.law().labels.unique(), torch.arange(made.classes))
    assert made.law() is not made.law(), "whoever asks may move it"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Gaussian((0.0, 0.0, 0.0)), "mean has 2 numbers"),
        (lambda: Gaussian(covariance=((1.0, 0.0), (0.5, 1.0))), "not symmetric"),
        (lambda: Gaussian(covariance=((1.0, 2.0), (2.0, 1.0))), "below 0"),
        (lambda: Gaussian(covariance=((1.0,),)), "2 rows of 2 numbers"),
        (lambda: Ring(radius=0.0), "radius must be above 0 and finite, got 0.0"),
        (lambda: Ring(std=-1.0), "std must be above 0 and finite, got -1.0"),
        (lambda: Moons(std=0.0), "std must be above 0"),
        (lambda: SwissRoll(std=math.inf), "std must be above 0 and finite, got inf"),
        (lambda: Ring().first(0, "A"), "limit must be at least 1, got 0"),
    ],
)
def test_a_law_that_cannot_be_is_refused_in_one_line(make, told):
    with pytest.raises(ValueError, match=told) as refused:
        make()
    assert "\n" not in str(refused.value)


# --- splits and lists


@each_known
def test_splits_are_fixed_by_their_seed_alone_and_share_no_point(source):
    first, again, other = (source(split_seed=seed).splits() for seed in (0, 0, 1))
    assert {name: len(split) for name, split in first.items()} == dict(source.sizes)
    seen: set[tuple[float, ...]] = set()
    for name, split in first.items():
        assert torch.equal(split.values, again[name].values) and torch.equal(split.labels, again[name].labels)
        for rows in (rows_of(split.values), rows_of(other[name].values)):
            assert not rows & seen
            seen |= rows


@each_known
def test_two_splits_are_independent_draws(source):
    """Item by item they do not go together, whatever shares their place."""
    splits = source().splits()
    n = min(len(split) for split in splits.values())
    for one, other in (("train", "test"), ("val", "test")):
        pairs = splits[one].values[:n].flatten(1) * splits[other].values[:n].flatten(1)
        expected = splits[one].values[:n].flatten(1).mean(0) * splits[other].values[:n].flatten(1).mean(0)
        assert near(pairs[:, :20], expected[:20])


def test_lists_are_nested_over_blocks_and_halves_share_nothing():
    source = Moons()
    long = {half: source.first(2500, half) for half in "AB"}
    for half in "AB":
        for n in (1, 7, 1024, 1025, 2048):
            short = source.first(n, half)
            assert len(short) == len(short.labels) == n
            assert torch.equal(short.values, long[half].values[:n])
            assert torch.equal(short.labels, long[half].labels[:n])
        assert len(rows_of(long[half].values)) == 2500, "nothing twice"
    held = set().union(*(rows_of(split.values) for split in source.splits().values()))
    assert not rows_of(long["A"].values) & rows_of(long["B"].values)
    assert not rows_of(long["A"].values) & held
    assert not rows_of(long["A"].values) & rows_of(Moons(split_seed=1).first(2500, "A").values)


def test_labels_of_a_list_belong_to_its_points():
    split = Ring(std=0.02).first(1500, "B")
    angle = torch.atan2(split.values[:, 1], split.values[:, 0]) / (math.pi / 4)
    assert torch.equal(angle.round().long() % 8, split.labels)


# --- endless batches


def endless(seed: int = 3, step: int = 0, rank: int = 0, world: int = 1, source=None, batch_size: int = 16):
    """The loader of a run that has come to this step."""
    data = DataModule(source or Ring(), batch_size, seed=seed)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, global_step=step, accumulate_grad_batches=1)
    return data.train_dataloader()


def test_endless_batches_depend_on_seed_step_and_rank_alone():
    torch.manual_seed(1)
    first = list(islice(endless(), 6))
    torch.manual_seed(2)
    resumed = list(islice(endless(step=4), 2))
    for (x, label), (again, same) in zip(first[4:], resumed, strict=True):
        assert torch.equal(x, again) and torch.equal(label, same)
    assert first[0][0].shape == (16, 2) and first[0][0].dtype == torch.float32
    for other in (endless(seed=4), endless(rank=1, world=2), endless(step=1)):
        assert not torch.isin(next(iter(other))[0], first[0][0]).any()


def test_endless_batches_never_repeat_and_are_no_held_out_points():
    data = DataModule(Ring(), 64)
    drawn = [x for x, _ in islice(data.train_dataloader(), 100)]
    assert len(rows_of(torch.cat(drawn))) == 6400
    for split in data.splits.values():
        assert not rows_of(torch.cat(drawn)) & rows_of(split.values)


def test_accumulated_steps_go_on_where_they_were():
    data = DataModule(Ring(), 16, seed=3)
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, global_step=2, accumulate_grad_batches=3)
    assert torch.equal(next(iter(data.train_dataloader()))[0], list(islice(endless(), 7))[6][0])


def test_endless_batches_follow_the_law_with_its_labels():
    batches = list(islice(endless(source=Moons(), batch_size=500), 8))
    x, label = torch.cat([x for x, _ in batches]).double(), torch.cat([label for _, label in batches])
    law = Moons().law()
    drawn = law.draw(4000, seeded(9)).x0
    se = math.sqrt((float(law.log_prob(x).var()) + float(law.log_prob(drawn).var())) / 4000)
    assert abs(float(law.log_prob(x).mean() - law.log_prob(drawn).mean())) < 5 * se
    right, wrong = (law.log_prob(x, each).mean() for each in (label, 1 - label))
    assert right > wrong + 10


def test_the_truth_of_endless_draws_is_the_law_and_that_of_a_list_the_list():
    drawn = DataModule(Ring())
    assert drawn.endless and drawn.training_law().means.shape == (8, 2)
    listed = DataModule(Ring(), limit=50)
    assert not listed.endless and isinstance(listed.training_law(), FiniteSet)
    assert torch.equal(listed.training_law().points, Ring().first(50, "A").values)
    assert torch.equal(listed.training_law().labels, Ring().first(50, "A").labels)
    assert listed.law().means.shape == (8, 2), "held-out data follow the law whatever is trained on"
    assert DataModule(Checkerboard(), limit=50).training_law().labels is None
    assert torch.equal(DataModule(Ring(), limit=50, half="B").training_law().points, Ring().first(50, "B").values)
    assert torch.equal(listed.splits["test"].values, Ring().splits()["test"].values)


def test_a_list_is_trained_on_whole_in_every_epoch():
    data = DataModule(Ring(), 10, limit=40)
    epoch = torch.cat([x for x, _ in islice(data.train_dataloader(), 4)])
    assert rows_of(epoch) == rows_of(data.splits["train"].values)
    assert DataModule(Ring(), limit=40).splits["train"].values.dtype == torch.float32


# --- parts of real data


def train_rows(**words) -> Tensor:
    """The digits that are trained on, each known by its place in the whole train split."""
    whole = {row: k for k, row in enumerate(map(tuple, Digits().splits()["train"].values.flatten(1).tolist()))}
    split = DataModule(Digits(), **words).splits["train"]
    rows = torch.tensor([whole[tuple(row)] for row in split.values.flatten(1).tolist()])
    assert torch.equal(Digits().splits()["train"].labels[rows], split.labels), "with their labels"
    return rows


def test_limits_of_the_digits_are_nested_and_halves_disjoint_and_cover():
    everything, some, few = train_rows(), train_rows(limit=300), train_rows(limit=20)
    assert torch.equal(everything, torch.arange(1437))
    assert (len(some), len(few)) == (300, 20) and torch.equal(some[:20], few)
    assert not torch.equal(few.sort().values, torch.arange(20)), "not merely the first"
    a, b = train_rows(half="A"), train_rows(half="B")
    assert abs(len(a) - len(b)) <= 1
    assert torch.equal(torch.cat([a, b]).sort().values, everything)
    for half, whole in (("A", a), ("B", b)):
        assert torch.equal(train_rows(half=half, limit=50), whole[:50])


def test_a_limit_is_the_same_for_every_seed_and_leaves_held_out_data_alone():
    torch.manual_seed(7)
    data = DataModule(Digits(), limit=30)
    torch.manual_seed(8)
    assert torch.equal(data.splits["train"].values, DataModule(Digits(), limit=30).splits["train"].values)
    for name in ("val", "test"):
        assert torch.equal(data.splits[name].values, Digits().splits()[name].values)


def test_mirror_images_double_what_is_trained_on_and_the_truth_knows_them():
    data = DataModule(Digits(), 100, limit=50, flip=True)
    train = data.splits["train"]
    assert len(train) == 50 and data.training_law().size == 100
    labels = torch.cat([train.labels, train.labels])
    points = from_levels(torch.cat([train.values, train.values.flip(3)]), 17)
    drawn = data.training_law().references(100, None)
    assert rows_of(drawn.x0) == rows_of(points)
    assert torch.equal(data.training_law().labels, labels)
    batch, label = next(iter(data.train_dataloader()))
    assert rows_of(batch) == rows_of(points), "an epoch is both"
    order = {tuple(row): int(k) for row, k in zip(points.flatten(1).tolist(), labels, strict=True)}
    assert [order[tuple(row)] for row in batch.flatten(1).tolist()] == label.tolist()
    plain = DataModule(Digits(), limit=50)
    assert plain.training_law().size == 50


def test_a_list_of_drawn_images_can_be_mirrored():
    data = DataModule(DigitsGaussians(), limit=10, flip=True)
    own = data.splits["train"].values
    assert data.training_law().size == 20
    assert rows_of(data.training_law().references(20, None).x0) == rows_of(torch.cat([own, own.flip(3)]))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DataModule(Digits(), batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: DataModule(Digits(), limit=0), "limit must lie in 1 ... 1437, got 0"),
        (lambda: DataModule(Digits(), limit=1438), "limit must lie in 1 ... 1437, got 1438"),
        (lambda: DataModule(Digits(), limit=719, half="A"), "limit must lie in 1 ... 718, got 719"),
        (lambda: DataModule(Ring(), limit=0), "limit must be at least 1, got 0"),
        (lambda: DataModule(Ring(), half="A"), "endless draws have no halves and no mirror images: set data.limit"),
        (lambda: DataModule(DigitsGaussians(), flip=True), "endless draws have no halves and no mirror images"),
        (lambda: DataModule(Ring(), limit=10, flip=True), "flip mirrors images; this data has none"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(make, told):
    with pytest.raises(ValueError, match=told.replace(".", r"\.")) as refused:
        make()
    assert "\n" not in str(refused.value)
