"""Gradient noise by log-SNR, against laws of gradients known in closed form."""

import copy
import math

import pytest
import torch
from exact_cases import GaussianOracle, Says, digits_like, network, normal, seeded, truth_of
from torch import Tensor, nn

from scorelab.denoisers import Denoiser, Eps, FixedSmall, NetworkDenoiser
from scorelab.errors import Unavailable
from scorelab.evaluation import EvaluationContext, EvaluationSettings, GradientNoise, run_yardsticks
from scorelab.evaluation.gradient import Gradients, Noise, levels_by_bin
from scorelab.losses import (
    DSM,
    ESM,
    SSM,
    Hybrid,
    Likelihood,
    Loss,
    Simple,
    TimestepSampler,
    Uniform,
    VariationalBound,
    weight_card,
)
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Linear, Schedule
from scorelab.tensors import to_levels

SHAPE, LEVELS = (1, 2, 2), 17
D, THETA = 4, 0.5 * normal(1, 1, 2, 2, seed=4).float()


class Scales(nn.Module):
    """A network with one factor for each pixel of what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((1, *SHAPE), 0.3))

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return self.factor * x


def denoiser(schedule: Schedule, net: nn.Module | None = None) -> NetworkDenoiser:
    return NetworkDenoiser(schedule, net or Says(THETA.clone()), Eps(), FixedSmall(), LEVELS)


def case(
    evaluated: Denoiser,
    loss: Loss | None = None,
    seed: int = 0,
    times: TimestepSampler | None = None,
    metric: EvaluationSettings | None = None,
    train: Tensor | None = None,
) -> EvaluationContext:
    if train is None:
        train = torch.randint(0, LEVELS, (30, *SHAPE), generator=seeded(1)).to(torch.uint8)
    labels = torch.arange(len(train)) % 2
    objective, law = loss or Simple(), times or Uniform()
    return EvaluationContext(
        evaluated, DDIM(5), metric or EvaluationSettings(), train, labels, train, labels, None, objective, law, seed
    )


def measured(evaluated: Denoiser, loss: Loss, seed: int, batches: int = 6, images: int = 8) -> Noise:
    """What the part measures before it makes ratios of it."""
    gradients = Gradients(case(evaluated, loss, seed))
    bins = [gradients.bin(k, levels, batches, images) for k, levels in enumerate(levels_by_bin(gradients.card))]
    return Noise(bins, gradients.mean)


class Closed:
    """The law of the gradient where eps^ is a constant theta, by bin of log-SNR: the loss is w mean (eps - theta)^2.

    Its gradient is w 2 (theta - eps) / d. Everything follows from the moments of w and of eps ~ N(0, I).
    """

    def __init__(self, schedule: Schedule, weight: Tensor) -> None:
        steps = schedule.num_steps
        log_snr = schedule.log_snr(schedule.grid()[1:])
        theta2 = float(THETA.double().square().sum())
        number = torch.ceil((log_snr + 12) / 1.2).clamp(min=0, max=21)
        self.p, self.mean, self.moment, self.loss2, self.ends = [], [], [], [], []
        for each in sorted(set(number.tolist()), reverse=True):
            of = number == each
            w, w2 = float(weight[of].mean()), float(weight[of].square().mean())
            self.p.append(int(of.sum()) / steps)
            self.mean.append(w * 2 * THETA.double().flatten() / D)
            self.moment.append(w2 * 4 * (D + theta2) / D**2)
            self.loss2.append(w2 * ((D + theta2) ** 2 + 2 * (D + 2 * theta2)) / D**2)
            t = torch.nonzero(of).flatten()
            self.ends.append((int(t.min()) / steps, (int(t.max()) + 1) / steps))
        self.square = float(sum(p * m for p, m in zip(self.p, self.mean, strict=True)).square().sum())

    def under(self, q: list[float]) -> float:
        return sum(p**2 * m / each for p, m, each in zip(self.p, self.moment, q, strict=True)) - self.square

    @property
    def uniform(self) -> float:
        return sum(p * m for p, m in zip(self.p, self.moment, strict=True)) - self.square

    @property
    def stratified(self) -> float:
        within = [m - float(mean.square().sum()) for m, mean in zip(self.moment, self.mean, strict=True)]
        return sum(p * v for p, v in zip(self.p, within, strict=True))

    @property
    def importance(self) -> float:
        root = [p * math.sqrt(l2) for p, l2 in zip(self.p, self.loss2, strict=True)]
        return self.under([0.999 * r / sum(root) + 0.001 * p for r, p in zip(root, self.p, strict=True)])

    @property
    def logitnormal(self) -> float:
        def cdf(t: float) -> float:
            z = math.inf if t == 1 else math.log(t / (1 - t)) if t else -math.inf
            return 0.5 * (1 + math.erf(z / math.sqrt(2)))

        law = [cdf(high) - cdf(low) for low, high in self.ends]
        return self.under([0.9 * each + 0.1 * p for each, p in zip(law, self.p, strict=True)])

    @property
    def least(self) -> float:
        """By Cauchy and Schwarz: (sum p sqrt(M))^2 at q in proportion to p sqrt(M)."""
        return sum(p * math.sqrt(m) for p, m in zip(self.p, self.moment, strict=True)) ** 2 - self.square


def weights(schedule: Schedule, loss: Loss) -> Tensor:
    """Sigma^-2 for the score, 1 for the noise."""
    t = schedule.grid()[1:]
    return 1 / schedule.sigma(t) ** 2 if isinstance(loss, DSM) else torch.ones_like(t)


# --- the numbers


@pytest.mark.parametrize(
    ("schedule", "loss"), [(Cosine(16), DSM()), (Linear(60), Simple())], ids=["cosine-dsm", "linear-simple"]
)
def test_the_measured_noise_is_that_of_the_gradients_law(schedule, loss):
    """Mean over seeds within standard errors: by bin its probability, variance and mean; under each law of times."""
    evaluated, law = denoiser(schedule), Closed(schedule, weights(schedule, loss))
    found = [measured(evaluated, loss, seed) for seed in range(16)]
    for k, bins in enumerate(zip(*(each.bins for each in found), strict=True)):
        assert bins[0].probability == pytest.approx(law.p[k])
        assert (bins[0].t_low, bins[0].t_high) == pytest.approx(law.ends[k], abs=1e-9)
        for name, expected in (
            ("variance", law.moment[k] - float(law.mean[k].square().sum())),
            ("mean_square", float(law.mean[k].square().sum())),
            ("second_moment", law.moment[k]),
            ("loss_square", law.loss2[k]),
        ):
            agrees([getattr(each, name) for each in bins], expected, f"{name} of bin {k}")
    agrees([float(each.mean[0]) for each in found], sum(p * float(m[0]) for p, m in zip(law.p, law.mean, strict=True)))
    agrees([each.mean_square for each in found], law.square, "mean_square")
    for name in ("uniform", "stratified", "logitnormal"):
        agrees([getattr(each, name) for each in found], getattr(law, name), name)
    for name in ("importance", "least"):  # whose law is estimated from the same gradients
        agrees([getattr(each, name) for each in found], getattr(law, name), name, slack=0.02)
    if isinstance(loss, DSM):
        assert law.importance < 0.9 * law.uniform, "there is something to save"


def agrees(values: list[float], expected: float, name: str = "", slack: float = 0.0) -> None:
    """Their mean is the expected value within 5 standard errors, which are small enough to tell."""
    values = torch.tensor(values, dtype=torch.float64)
    se = float(values.std()) / math.sqrt(len(values))
    assert se < 0.25 * abs(expected) or expected == 0, name
    assert abs(float(values.mean()) - expected) < 5 * se + slack * abs(expected) + 1e-12, name


def test_the_noise_of_uniform_times_is_that_of_gradients_one_by_one():
    """Where the gradient depends on the data: 40,000 single ones, drawn and differentiated by hand."""
    schedule, n = Cosine(16), 40_000
    evaluated = denoiser(schedule, Scales())
    train = case(evaluated).train
    draws = seeded(9)
    x0 = (train.double() / 8 - 1)[torch.randint(30, (n,), generator=draws)].flatten(1)
    t = torch.randint(1, 17, (n,), generator=draws).double() / 16
    eps = torch.randn(n, D, generator=draws, dtype=torch.float64)
    sigma = schedule.sigma(t)[:, None]
    x = schedule.alpha(t)[:, None] * x0 + sigma * eps
    gradient = 2 / D * (0.3 * x - eps) * x / sigma**2
    variance = gradient.var(0).sum()
    found = [measured(evaluated, DSM(), seed) for seed in range(16)]
    blocks = gradient.reshape(20, -1, D).var(1).sum(1)
    scatter = float(blocks.std()) / math.sqrt(20)
    values = torch.tensor([each.uniform for each in found])
    se = math.hypot(scatter, float(values.std()) / 4)
    assert se < 0.15 * float(variance)
    assert abs(float(values.mean()) - float(variance)) < 4 * se


def test_the_squared_mean_is_unbiased_where_there_is_no_mean():
    """Where theta is 0: E g = 0, so its estimated square is as often below 0 as above."""
    evaluated = denoiser(Cosine(16), Says(torch.zeros(1, *SHAPE)))
    found = [measured(evaluated, Simple(), seed, batches=3, images=2) for seed in range(40)]
    agrees([each.mean_square for each in found], 0.0)
    agrees([each.bins[2].mean_square for each in found], 0.0)
    assert min(each.mean_square for each in found) < 0 < max(each.mean_square for each in found)
    raw = torch.tensor([float(each.mean.square().sum()) for each in found])
    assert float(raw.mean()) > 5 * float(raw.std()) / math.sqrt(40), "the estimate's own square is biased"


@pytest.mark.parametrize("loss", [Simple(), DSM(), Likelihood()], ids=["simple", "dsm", "likelihood"])
def test_no_law_over_the_bins_is_better_than_the_best_and_uniform_is_the_one_in_proportion_to_time(loss):
    found = measured(denoiser(Cosine(40)), loss, 0)
    p = [each.probability for each in found.bins]
    assert found.under(p) == found.uniform == pytest.approx(found.under([7 * each for each in p]))
    for other in (found.uniform, found.importance, found.logitnormal):
        assert found.least <= other + 1e-9
    for seed in range(50):
        assert found.least <= found.under((0.01 + torch.rand(len(p), generator=seeded(seed))).tolist())
    best = [each.probability * math.sqrt(each.second_moment) for each in found.bins]
    assert found.least == pytest.approx(found.under(best))


def test_a_continuous_process_is_measured_by_the_lengths_of_time_its_bins_take():
    evaluated = denoiser(VP())
    found = [measured(evaluated, Simple(), seed) for seed in range(10)]
    schedule, theta2 = evaluated.schedule, float(THETA.double().square().sum())
    low, high = schedule.log_snr_range()
    edges = [high, *(x for x in (12 - 1.2 * k for k in range(21)) if low < x < high), low]
    ends = schedule.inverse(torch.tensor(edges, dtype=torch.float64))
    share = ends.diff() / schedule.duration
    assert len(found[0].bins) == len(edges) - 1
    probability = torch.tensor([each.probability for each in found[0].bins]).double()
    assert float(probability.sum()) == pytest.approx(1, rel=1e-3)
    assert torch.allclose(probability, share, rtol=0.15, atol=2e-4), "to an interval of the card at either end"
    for k, one in enumerate(found[0].bins):
        assert (one.t_low, one.t_high) == pytest.approx(ends[k : k + 2].tolist(), rel=0.05, abs=1e-3)
        agrees([each.bins[k].variance for each in found], 4 / D)
    agrees([each.mean_square for each in found], 4 * theta2 / D**2)
    agrees([each.uniform for each in found], 4 / D)
    assert all(math.isfinite(each.logitnormal) for each in found)


@pytest.mark.parametrize("schedule", [VP(), Cosine(None), Cosine(50), Linear(50)], ids=["vp", "cosine", "50", "linear"])
def test_every_number_is_finite_under_every_form_of_schedule(schedule):
    result = judged_noise(case(denoiser(schedule), Likelihood()))
    assert all(math.isfinite(value) for value in result.metrics.values())


SEEN: list[tuple[Tensor, Tensor, Tensor]] = []


class Remembers(NetworkDenoiser):
    """Tells what it was asked, even where it was copied."""

    def forward(self, x_t, t, label=None):
        SEEN.append((x_t.detach().clone(), t.clone(), label.clone()))
        assert not self.training
        return super().forward(x_t, t, label)


@pytest.mark.parametrize("schedule", [Cosine(50), VP()], ids=["steps", "continuous"])
def test_each_bin_shows_the_denoiser_images_with_their_labels_at_times_in_that_bin_as_training_draws_them(schedule):
    evaluated = Remembers(schedule, Says(THETA.clone()), Eps(), FixedSmall(), LEVELS).train()
    train = (torch.arange(30) % 2 * 16).reshape(-1, 1, 1, 1).expand(30, *SHAPE).to(torch.uint8)  # white is label 1
    gradients = Gradients(case(evaluated, train=train))
    SEEN.clear()
    by_bin = levels_by_bin(gradients.card)
    assert torch.equal(torch.cat(by_bin), torch.arange(len(gradients.card.t)))
    for k, levels in enumerate(by_bin):
        SEEN.clear()
        gradients.bin(k, levels, 4, 50)
        x, t, labels = (torch.cat(part) for part in zip(*SEEN, strict=True))
        assert len(x) == 200
        log_snr = schedule.log_snr(t)
        assert float(log_snr.max()) <= float(gradients.card.high[levels].max()) + 1e-9
        assert float(log_snr.min()) >= float(gradients.card.low[levels].min()) - 1e-9
        if schedule.num_steps is not None:
            assert {round(50 * float(each)) for each in t} == {int(level) + 1 for level in levels}
            assert torch.equal((50 * t).round() / 50, t)
        else:
            assert len(t.unique()) == 200
        if float(log_snr.min()) > 3:
            assert torch.equal((x.mean((1, 2, 3)) > 0).long(), labels)
            assert 50 < int(labels.sum()) < 150


# --- the part


def judged_noise(told: EvaluationContext, batches: int = 4, images: int = 6):
    return GradientNoise(batches, images).run(told, None)


def test_the_part_tells_the_noise_scale_and_what_each_law_would_leave_of_the_variance():
    """The scale tr Var(g) / ||E g||^2 under uniform times, and shares of it; all from one measurement."""
    evaluated = denoiser(Cosine(16))
    found, result = measured(evaluated, DSM(), 3, 8, 16), judged_noise(case(evaluated, DSM(), 3), 8, 16)
    assert result.metrics == pytest.approx(
        {
            "gradient_noise": found.uniform / found.mean_square,
            "gradient_noise_importance": found.importance / found.uniform,
            "gradient_noise_stratified": found.stratified / found.uniform,
            "gradient_noise_logitnormal": found.logitnormal / found.uniform,
        }
    )
    assert tuple(result.metrics) == GradientNoise.names
    law = Closed(evaluated.schedule, weights(evaluated.schedule, DSM()))
    assert result.metrics["gradient_noise"] == pytest.approx(law.uniform / law.square, rel=0.5)
    records = result.records
    assert records["images_per_bin"] == 128
    assert records["best_law_of_bins"] == pytest.approx(found.least / found.uniform)
    assert sum(records["probability"]) == pytest.approx(1, rel=1e-4)
    assert sum(records["share"]) == pytest.approx(1, rel=1e-4)
    assert records["variance"] == pytest.approx([each.variance for each in found.bins], rel=1e-4)
    share = [each.probability * each.second_moment for each in found.bins]
    assert records["share"] == pytest.approx([each / sum(share) for each in share], rel=1e-4)
    ends = torch.tensor(records["log_snr"])
    assert (ends[:, 0] <= ends[:, 1]).all()
    assert (ends[1:, 1] < ends[:-1, 0]).all(), "from data to noise"
    assert (ends[:, 1] - ends[:, 0] <= 1.2).all()
    assert float(ends[0, 1]) == pytest.approx(float(evaluated.schedule.log_snr_range()[1]), abs=1e-3)


def test_the_scale_of_the_loss_cancels():
    """Twice the gradients have the same noise scale: DSM with g^2 is the likelihood but for a factor."""
    evaluated = denoiser(VP())
    one, other = (judged_noise(case(evaluated, loss)).metrics for loss in (Likelihood(), DSM("g2")))
    assert one == pytest.approx(other, rel=1e-4)


def test_it_is_the_same_for_the_same_seed_and_another_for_another():
    evaluated = denoiser(Cosine(16))
    first = judged_noise(case(evaluated, seed=1))
    torch.rand(100)
    assert judged_noise(case(evaluated, seed=1)) == first
    assert judged_noise(case(evaluated, seed=2)).metrics != first.metrics


@pytest.mark.parametrize("loss", [Simple(), VariationalBound(), ESM(), SSM()], ids=["simple", "vlb", "esm", "ssm"])
def test_the_judged_denoiser_is_left_as_it_was(loss):
    evaluated = network("cosine", steps=20)
    evaluated.requires_grad_(False).train()
    before = copy.deepcopy(evaluated.state_dict())
    train = to_levels(digits_like(12), LEVELS)
    told = case(evaluated, loss, train=train)
    told.exact_train = truth_of(evaluated, told.data(train)) if loss.needs_exact else None
    results = run_yardsticks({"gradient_noise": GradientNoise(2, 3)}, told, lambda line: None)
    assert results.metrics["test/gradient_noise_stratified"] > 0
    assert evaluated.training
    assert all(not p.requires_grad and p.grad is None for p in evaluated.parameters())
    assert all(torch.equal(value, before[name]) for name, value in evaluated.state_dict().items())


def test_what_trains_a_variance_counts_too():
    """The hybrid's gradient reaches the output of the variance, so it is noisier than L_simple's alone."""
    evaluated = network("cosine", variance="learned", steps=20)
    train = to_levels(digits_like(12), LEVELS)
    gradients = Gradients(case(evaluated, Hybrid(bound=100.0), train=train))
    plain = Gradients(case(evaluated, Simple(), train=train))
    levels = levels_by_bin(gradients.card)[3]
    one, other = (each.bin(3, levels, 2, 4).variance for each in (gradients, plain))
    assert one > 1.5 * other


def test_a_denoiser_with_nothing_to_train_is_left_out_with_that_reason():
    evaluated = GaussianOracle(Cosine(16), FixedSmall(), torch.zeros(SHAPE), 0.3, LEVELS)
    results = run_yardsticks({"gradient_noise": GradientNoise()}, case(evaluated), lambda line: None)
    assert results.metrics == {}
    assert "nothing to train" in results.records["gradient_noise"]["inapplicable"]
    assert results.records["gradient_noise"]["evaluations"] == 0


def test_gradients_that_are_not_finite_are_left_out_with_that_reason_and_paid():
    evaluated = denoiser(Cosine(16), Says(torch.full((1, *SHAPE), math.nan)))
    part = GradientNoise(2, 3)
    with pytest.raises(Unavailable, match="not finite") as refused:
        part.run(case(evaluated), None)
    assert refused.value.evaluations == part.cost(case(evaluated))


def test_a_mean_gradient_that_is_lost_in_its_noise_has_no_scale_and_the_other_numbers_stand():
    evaluated = denoiser(Cosine(16), Says(torch.zeros(1, *SHAPE)))
    found = [judged_noise(case(evaluated, seed=seed), 2, 2).metrics for seed in range(12)]
    scales = [each["gradient_noise"] for each in found]
    assert None in scales
    assert all(scale is None or scale > 0 for scale in scales)
    assert all(each["gradient_noise_stratified"] is not None for each in found)


def test_it_costs_three_evaluations_for_each_gradient_and_keeps_to_the_budget():
    evaluated, part = denoiser(Cosine(16)), GradientNoise(3, 5)
    bins = len(levels_by_bin(weight_card(evaluated, Simple(), Uniform())))
    cost = 3 * bins * 3 * 5
    assert part.cost(case(evaluated)) == cost
    for budget in (cost, cost - 1):
        said: list[str] = []
        told = case(evaluated, metric=EvaluationSettings(budget=budget))
        results = run_yardsticks({"gradient_noise": part}, told, said.append)
        if budget == cost:
            assert results.metrics["test/gradient_noise_stratified"] > 0
            assert results.records["gradient_noise"]["evaluations"] == cost
        else:
            assert results.metrics == {f"test/{name}": None for name in part.names}
            assert "raise evaluation.budget" in results.records["gradient_noise"]["skipped"]
            assert "gradient_noise skipped" in said[1]


@pytest.mark.parametrize("numbers", [(1, 16), (0, 1), (2, 0)])
def test_too_few_gradients_to_tell_a_variance_are_refused(numbers):
    with pytest.raises(ValueError, match="at least 2 batches of 1 image"):
        GradientNoise(*numbers)
