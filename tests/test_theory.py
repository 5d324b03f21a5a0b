"""docs/theory.md: all it names exists, and the equations that no other test looks at hold."""

import importlib.util
import math
import re
import sys
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from conftest import CONTINUOUS, choose, each_form
from exact_cases import ExactReverse, Exploding, GaussianOracle, Straight, normal, seeded
from torch import Tensor
from torch.distributions import Normal

from scorelab.data.synthetic import Ring
from scorelab.denoisers import Exact, FixedLarge, FixedSmall
from scorelab.evaluation.gradient import levels_by_bin
from scorelab.laws import Boxes, FiniteSet, GaussianMixture
from scorelab.likelihood import bound_term, prior_kl
from scorelab.losses.exact_score import averaged_score
from scorelab.samplers import DDIM, DDPM
from scorelab.schedules import VP, Cosine, Schedule, VarianceExploding
from scorelab.tensors import divergence

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "theory.md").read_text()
OTHERS = {"exploding": Exploding, "straight": Straight}  # processes that do not preserve variance
each_process = pytest.mark.parametrize("process", [*CONTINUOUS, *OTHERS])


# --- the page


def cited() -> list[list[str]]:
    """What stands in backticks below each numbered equation, in order."""
    found = re.findall(r"\\qquad \((\d+)\)\$\$\n\n> (.*)\n", PAGE)
    count = len(re.findall(r"\\qquad \(\d", PAGE))
    assert [int(number) for number, _ in found] == list(range(1, count + 1)), "numbers, in order"
    return [re.findall(r"`([^`]+)`", lines) for _, lines in found]


def exists(name: str) -> bool:
    """Whether scorelab has it: a module's class or function, a class's method, property or field."""
    module, *rest = name.split(".")
    here = importlib.import_module(f"scorelab.{module}")
    for number, part in enumerate(rest):
        if hasattr(here, part):
            here = getattr(here, part)
        elif part in getattr(here, "__annotations__", {}):
            return number == len(rest) - 1
        else:
            try:
                here = importlib.import_module(f"{here.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
    return True


def test_below_every_equation_stand_code_that_computes_it_and_a_test_that_checks_it():
    assert len(cited()) > 25
    for number, names in enumerate(cited(), start=1):
        assert any("::" in name for name in names), f"equation ({number}) names no test"
        assert any("::" not in name for name in names), f"equation ({number}) names no code"


def test_all_code_the_page_names_exists():
    rooms = "schedules|denoisers|likelihood|losses|samplers|evaluation|laws|data|networks|tensors"
    named = set(re.findall(rf"`((?:{rooms})\.[\w.]+)`", PAGE))
    assert named >= {name for names in cited() for name in names if "::" not in name}
    for name in sorted(named):
        assert exists(name), name
    assert not exists("losses.Nothing") and not exists("schedules.Transition.nothing")


def test_all_tests_the_page_names_exist():
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE)
    assert len(named) == PAGE.count("::")
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.M), f"{file}::{name}"


def test_all_files_the_page_names_exist_and_its_figures_are_those_drawn_and_small():
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
    shown = re.findall(r"!\[[^\]]+\]\(theory_(\w+)\.png\)", PAGE)
    drawn = re.findall(r'save\(figure, "(\w+)"\)', (ROOT / "docs" / "theory.py").read_text())
    assert sorted(shown) == sorted(drawn)
    for name in shown:
        assert (ROOT / "docs" / f"theory_{name}.png").stat().st_size < 200_000, name


def test_what_the_figures_are_drawn_of_can_be_made_anew():
    """At tiny size: a network is trained, compared with a known law under two objectives, and has gradients."""
    spec = importlib.util.spec_from_file_location("figures_of_theory", ROOT / "docs" / "theory.py")
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = figures = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(figures)
    ring = Ring().law()
    fresh, network = figures.trained(ring, VP(), 0), figures.trained(ring, VP(), 3)
    assert not all(map(torch.equal, fresh.parameters(), network.parameters()))
    case = figures.case_of(network, ring, figures.Simple(), 20)
    losses = {name: figures.SCORE[name] for name in ("dsm", "esm")}
    records = figures.Objectives(items=None, **losses).run(case, None).records
    for name, key in product(losses, ("value", "noise_error")):
        assert len(records[name][key]) == len(records["log_snr"])
        assert any(value is not None and value > 0 for value in records[name][key])
    assert figures.Gradients(case).bin(0, levels_by_bin(figures.Gradients(case).card)[0], 4, 1).variance > 0


def test_every_equation_the_text_refers_to_is_there():
    for number in re.findall(r"\((\d+)\)", PAGE):
        assert 1 <= int(number) <= len(cited()), number


def test_the_maths_keeps_to_what_github_shows():
    """Markdown eats a backslash before punctuation, reads }_ as emphasis and < as a tag; some macros are refused."""
    displays = re.findall(r"^\$\$(.*)\$\$$", PAGE, re.M)
    text = re.sub(r"\$\$.*\$\$", "", PAGE)
    inline = re.findall(r"\$([^$]+)\$", text)
    assert PAGE.count("$$") == 2 * len(displays)
    for line in text.splitlines():
        assert line.count("$") % 2 == 0, line
    eaten = r"\\[^A-Za-z]|[^A-Za-z0-9]_|[<>*`]|\\(operatorname|mbox|phantom|def|newcommand)"
    for formula in displays + inline:
        assert not re.search(eaten, formula), formula
        assert formula.count("{") == formula.count("}"), formula
    for row in text.splitlines():
        if row.startswith("|"):
            assert not any("|" in formula for formula in re.findall(r"\$([^$]+)\$", row)), row


# --- the forward process, and one step back


def process_of(name: str) -> Schedule:
    return OTHERS[name](None) if name in OTHERS else choose("schedule", name, num_steps=None)


def at(*times: float) -> Tensor:
    return torch.tensor(times, dtype=torch.float64)


def order(lengths: list[float], errors: list[float]) -> float:
    """The power of the length with which an error falls."""
    x, y = torch.log(at(*lengths)), torch.log(at(*errors))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


LENGTHS = [1e-2, 1e-3, 1e-4, 1e-5]
TIMES = at(0.15, 0.3, 0.5, 0.75, 0.9)


@each_process
def test_a_forward_step_of_length_dt_has_the_drift_f_and_the_variance_g2_of_the_sde_up_to_order_dt(process):
    schedule, drifts, spreads = process_of(process), [], []
    for dt in LENGTHS:
        step = schedule.transition(TIMES - dt, TIMES)
        drifts.append(float(((step.alpha_t / step.alpha_s - 1) / dt - schedule.f(TIMES)).norm()))
        spreads.append(float((step.forward_variance / dt - schedule.g2(TIMES)).norm()))
    assert order(LENGTHS, spreads) == pytest.approx(1, abs=0.05)
    grows = isinstance(schedule, Exploding | VarianceExploding)
    assert drifts == [0, 0, 0, 0] if grows else order(LENGTHS, drifts) == pytest.approx(1, abs=0.05)
    assert spreads[-1] < 1e-3 * float(schedule.g2(TIMES).norm())


@each_form(1000)
def test_the_posterior_mean_is_one_whether_written_in_x0_or_in_eps(schedule, steps):
    """mu~ = c_t x_t + c_0 x_0 = (x_t - sigma^2_{t|s} / sigma_t eps) / alpha_{t|s}, off the circle too."""
    for process in (choose("schedule", schedule, num_steps=steps), Exploding(steps), Straight(steps)):
        s, t = at(0.02, 0.1, 0.3, 0.5, 0.9), at(0.04, 0.101, 0.7, 0.52, 0.95)
        step, x0, eps = process.transition(s, t), normal(5, seed=1), normal(5, seed=2)
        x_t = step.alpha_t * x0 + step.sigma_t * eps
        by_eps = (x_t - step.forward_variance / step.sigma_t * eps) * step.alpha_s / step.alpha_t
        assert torch.allclose(step.mean_of_xt * x_t + step.mean_of_x0 * x0, by_eps, rtol=1e-9, atol=1e-12)


@each_form(1000)
def test_the_mean_of_x_s_given_x_t_is_the_forward_step_undone_along_the_score(schedule, steps):
    """E[x_s | x_t] = c_t x_t + c_0 E[x_0 | x_t] = (x_t + sigma^2_{t|s} s_t) / alpha_{t|s}."""
    for process in (choose("schedule", schedule, num_steps=steps), Exploding(steps)):
        truth, x = Exact(process, FixedSmall(), mixture()), normal(4, 2)
        s, t = at(0.02, 0.1, 0.3, 0.5), at(0.04, 0.101, 0.7, 0.52)
        step, said = process.transition(s, t), truth(x, t)
        by_score = (x + step.forward_variance[:, None] * said.score) * (step.alpha_s / step.alpha_t)[:, None]
        assert torch.allclose(step.mean_of_xt[:, None] * x + step.mean_of_x0[:, None] * said.x0, by_score, rtol=1e-8)


def test_only_a_linear_chain_keeps_x_t_given_x0_gaussian():
    """Eight steps from one x_0: as the schedule takes them, and with a bent mean in each."""
    n, schedule = 200_000, Cosine(16)
    grid, x0 = schedule.grid(), 0.4

    def excess_kurtosis(x: Tensor) -> float:
        centred = x - x.mean()
        return float((centred**4).mean() / (centred**2).mean() ** 2) - 3

    def walked(bend: float) -> Tensor:
        x = torch.full((n,), x0, dtype=torch.float64)
        for i in range(8):
            step = schedule.transition(grid[i : i + 1], grid[i + 1 : i + 2])
            mean = x + bend * torch.sin(4 * x)
            x = step.alpha_t / step.alpha_s * mean + step.forward_variance.sqrt() * normal(n, seed=i)
        return x

    straight, bent = walked(0.0), walked(0.2)
    alpha, sigma = float(schedule.alpha(grid[8:9])), float(schedule.sigma(grid[8:9]))
    assert abs(float(straight.mean()) - alpha * x0) < 5 * sigma / math.sqrt(n)
    assert float(straight.var()) == pytest.approx(sigma**2, abs=5 * sigma**2 * math.sqrt(2 / n))
    assert abs(excess_kurtosis(straight)) < 5 * math.sqrt(24 / n) < abs(excess_kurtosis(bent)) / 10


# --- the score as a mean

MEANS = torch.tensor([[0.8, -0.3], [-0.7, 0.6], [0.1, 0.9]], dtype=torch.float64)
COVARIANCES = torch.tensor(
    [[[0.20, 0.10], [0.10, 0.15]], [[0.05, 0.0], [0.0, 0.30]], [[0.1, -0.05], [-0.05, 0.06]]], dtype=torch.float64
)


def mixture() -> GaussianMixture:
    return GaussianMixture(MEANS, COVARIANCES, torch.tensor([0.5, 0.2, 0.3]))


LAWS = {
    "mixture": mixture,
    "boxes": lambda: Boxes(at(-1.0, -0.8, 0.2, 0.0).reshape(2, 2), at(-0.2, 0.9, 0.9, 0.4).reshape(2, 2)),
    "points": lambda: FiniteSet(normal(9, 2, seed=4)),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("log_snr", [-3.0, 2.0])
def test_the_mean_of_the_conditional_score_given_x_t_is_the_exact_score(law, log_snr):
    """By draws of x_0 weighed by q(x_t | x_0), at five x_t; so are E[eps | x_t] and E[x_0 | x_t]."""
    truth, n = Exact(VP(), FixedSmall(), LAWS[law]()), 100_000
    t = truth.schedule.inverse(at(log_snr)).expand(5)
    alpha, sigma = truth.schedule.alpha(t[:1]), truth.schedule.sigma(t[:1])
    x_t = alpha * truth.law.draw(5, seeded(1)).x0 + sigma * normal(5, 2, seed=2)
    x0 = truth.law.draw(n, seeded(3)).x0.double()
    said = truth(x_t, t)
    for i in range(5):
        share = torch.softmax(Normal(alpha * x0, sigma).log_prob(x_t[i]).sum(1), 0)[:, None]
        conditional = (alpha * x0 - x_t[i]) / sigma**2
        for each, exact in ((conditional, said.score), (x0, said.x0), (-sigma * conditional, said.eps)):
            mean = (share * each).sum(0)
            error = (share * (each - mean)).square().sum(0).sqrt()  # of a ratio of two means
            assert ((mean - exact[i]).abs() < 5 * error + 1e-5).all(), (i, mean, exact[i])
            assert (error < 0.1 * each.std(0)).all(), "enough draws count"


@pytest.mark.parametrize("log_snr", [-2.0, 0.0, 2.0])
def test_at_every_x_t_a_weighted_square_is_that_to_the_score_plus_the_variance_by_any_normalisation(log_snr):
    """E[w ||s^ - s(x|x_0)||^2] = E[w] (||s^ - s_t||^2 + tr Var(s(x|x_0) | x)), w = q(x|x_0), E[w] = p_t(x)."""
    points = normal(7, 2, seed=4)
    truth = Exact(VP(), FixedSmall(), GaussianMixture(points, torch.zeros(7, 2, 2)))  # a finite set, in float64
    t = truth.schedule.inverse(at(log_snr)).expand(4)
    alpha, sigma = truth.schedule.alpha(t[:1]), truth.schedule.sigma(t[:1])
    x, guess = normal(4, 2, seed=5), normal(4, 2, seed=6)
    density = Normal(alpha * points, sigma).log_prob(x[:, None]).sum(2).exp()
    conditional = (alpha * points - x[:, None]) / sigma**2
    posterior, score = truth.posterior(x, t), truth(x, t).score
    assert torch.allclose(density.mean(1), posterior.log_prob.exp(), rtol=1e-9)
    variance = alpha**2 / sigma**4 * posterior.trace
    square = (guess[:, None] - conditional).square().sum(2)
    apart = (guess - score).square().sum(1)
    assert torch.allclose((density * square).mean(1), posterior.log_prob.exp() * (apart + variance), rtol=1e-9)
    kept = density / density.sum(1, keepdim=True)
    assert torch.allclose((kept * square).sum(1), apart + variance, rtol=1e-9)


def test_the_target_over_references_is_the_least_of_the_weighted_square_over_them():
    """argmin_y E[w ||y - s||^2] = E[w s] / E[w]: the gradient is 0 there, and y costs E[w] ||y - y*||^2 more."""
    truth, references = Exact(VP(), FixedSmall(), mixture()), normal(6, 2, seed=7)
    t, x0, eps = at(0.3, 0.3, 0.3), references[:3], normal(3, 2, seed=8)
    made = truth.noised(x0, t, eps)
    alpha, sigma = made.alpha, made.sigma
    weight = Normal(alpha[:, None] * references, sigma[:, None]).log_prob(made.x_t[:, None]).sum(2).exp()
    conditional = (alpha[:, None] * references - made.x_t[:, None]) / sigma[:, None] ** 2

    def square(y: Tensor) -> Tensor:
        return (weight * (y[:, None] - conditional).square().sum(2)).mean(1)

    best = averaged_score(made, references).requires_grad_(True)
    (slope,) = torch.autograd.grad(square(best).sum(), best)
    assert (slope.abs() < 1e-9 * weight.mean(1, keepdim=True)).all()
    away = normal(3, 2, seed=9)
    more = weight.mean(1) * away.square().sum(1)
    assert torch.allclose(square(best + away) - square(best), more, rtol=1e-9)


def fitted(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of the line of least weighted square, and their standard errors."""
    design = torch.stack([x, torch.ones_like(x)], 1)
    inverse = torch.linalg.inv((weight[:, None] * design).T @ design)
    line = inverse @ (weight[:, None] * design).T @ y
    pull = weight[:, None] * design * (y - design @ line)[:, None]
    return line, (inverse @ pull.T @ pull @ inverse).diagonal().sqrt()


@pytest.mark.parametrize("denominator", [True, False])
def test_a_regression_at_independent_x_t_weighed_by_q_finds_the_score_with_or_without_the_denominator(
    denominator,
):
    """Of N(0.4, 0.7^2), whose score is a line: x_t from elsewhere, x_0 drawn apart from it, w = q(x_t|x_0) [/ p_t]."""
    oracle, n = GaussianOracle(VP(), FixedSmall(), [0.4], [0.7]), 400_000
    t = oracle.schedule.inverse(at(0.5))
    alpha, sigma = float(oracle.schedule.alpha(t)), float(oracle.schedule.sigma(t))
    x0, x_t = oracle.draw(n, seeded(1))[:, 0], -0.2 + 0.9 * normal(n, seed=2)
    conditional = (alpha * x0 - x_t) / sigma**2
    weight = Normal(alpha * x0, sigma).log_prob(x_t).exp()
    if denominator:
        weight = weight / oracle.marginal(t).log_prob(x_t[:, None])[:, 0].exp()
    found, error = fitted(x_t, conditional, weight)
    ends = oracle(at(0.0, 1.0)[:, None], t.expand(2)).score[:, 0]
    exact = torch.stack([ends[1] - ends[0], ends[0]])
    assert ((found - exact).abs() < 5 * error).all()
    assert (error < 0.02).all()
    unweighed, error = fitted(x_t, conditional, torch.ones(n, dtype=torch.float64))
    assert ((unweighed - exact).abs() > 20 * error).all(), "without weights, x_0 knows nothing of x_t"


# --- lists


def test_where_noise_is_small_the_score_of_a_list_points_at_the_nearest_of_it_whatever_is_asked():
    """A held-out x_0 too: the error stays, the belief does not."""
    listed, others = normal(60, 16), normal(20, 16, seed=1)
    truth = Exact(VP(), FixedSmall(), FiniteSet(listed))
    t = truth.schedule.inverse(at(9.0)).expand(20)
    posterior = truth.posterior(truth.noised(others, t, normal(20, 16, seed=2)).x_t, t)
    nearest = listed[torch.cdist(others, listed).argmin(1)]
    assert (posterior.mean - nearest).abs().max() < 1e-4
    assert posterior.trace.max() < 1e-4 < 1 < (posterior.mean - others).square().sum(1).min()


def test_references_without_the_own_point_have_another_mean_than_the_score_and_all_of_them_the_same():
    """Each of the sets of M points as likely: E[sum w s / sum w] is not E[w s] / E[w]."""
    points, schedule, t = 0.7 * normal(6, 2, seed=4), VP(), at(0.35)
    truth, x = Exact(schedule, FixedSmall(), FiniteSet(points)), normal(1, 2, seed=5)
    score, away = truth(x, t).score, []
    for m in (1, 2, 4, 6):
        chosen = [points[list(rows)] for rows in combinations(range(6), m)]
        found = torch.cat([Exact(schedule, FixedSmall(), FiniteSet(each))(x, t).score for each in chosen])
        away.append(float((found.mean(0) - score).norm()))
    assert away[0] > 2 * away[1] > 4 * away[2] > 1e-3
    assert away[3] < 1e-5


# --- the bound


class Wide(Cosine):
    """Sampling starts from another law than where the process ends."""

    prior_std = 1.3


def test_the_log_ratio_of_both_chains_averages_to_prior_steps_and_decoder():
    """E log q(x_1 ... x_T | x_0) / p(x_0 ... x_T), from the kernels alone, over paths from one x_0."""
    n, schedule = 40_000, Wide(5)
    denoiser, grid = Exact(schedule, FixedLarge(), mixture()), schedule.grid()
    x0 = at(0.5, -0.1).expand(n, 2)
    ratio, terms, before = torch.zeros(n).double(), prior_kl(schedule, x0), x0
    for i in range(1, 6):
        s, t = (grid[[k]].expand(n) for k in (i - 1, i))
        step = schedule.transition(s, t)
        kernel = Normal((step.alpha_t / step.alpha_s)[:, None] * before, step.forward_variance.sqrt()[:, None])
        now = kernel.mean + kernel.stddev * normal(n, 2, seed=i)
        said = denoiser(now, t)
        mean = step.mean_of_xt[:, None] * now + step.mean_of_x0[:, None] * said.x0
        back = Normal(mean, step.forward_variance.sqrt()[:, None])
        ratio += (kernel.log_prob(now) - back.log_prob(before)).sum(1)
        terms = terms + bound_term(denoiser, said, x0, t)
        before = now
    ratio -= Normal(0.0, 1.3).log_prob(before).sum(1)
    difference = ratio - terms
    assert abs(float(difference.mean())) < 5 * float(difference.std()) / math.sqrt(n)
    assert float(difference.std()) / math.sqrt(n) < 0.02 < 0.2 < float(terms.mean())


# --- the limit of many steps


@each_process
def test_the_marginals_obey_the_fokker_planck_equation_of_the_sde(process):
    """The rate of log p_t is -f d - f x . s + g^2/2 (tr ds/dx + ||s||^2), s the exact score."""
    schedule = process_of(process)
    truth, x, h = Exact(schedule, FixedSmall(), mixture()), normal(5, 2).requires_grad_(True), 1e-5
    score = truth(x, TIMES).score
    f, g2 = schedule.f(TIMES), schedule.g2(TIMES)
    expected = -2 * f - f * (x * score).sum(1) + 0.5 * g2 * (divergence(score, x) + score.square().sum(1))
    with torch.no_grad():
        later, sooner = (truth.posterior(x, TIMES + sign * h).log_prob for sign in (1, -1))
    assert torch.allclose((later - sooner) / (2 * h), expected, rtol=1e-5, atol=1e-6)


@each_process
@pytest.mark.parametrize("variance", [FixedSmall, FixedLarge, ExactReverse])
def test_an_ancestral_step_of_length_dt_is_one_of_the_reverse_sde_up_to_order_dt(process, variance):
    """(x_s - x_t)/dt has mean -(f x - g^2 s_t) and variance g^2/dt, whichever of the variances it takes."""
    schedule, n = process_of(process), len(TIMES)
    law = GaussianMixture(MEANS[:1], 0.25 * torch.eye(2)[None].double()) if variance is ExactReverse else mixture()
    truth = Exact(schedule, ExactReverse(0.5) if variance is ExactReverse else variance(), law)
    x = normal(n, 2)
    said = truth(x, TIMES)
    drift = -(schedule.f(TIMES)[:, None] * x - schedule.g2(TIMES)[:, None] * said.score)
    one, two = (torch.randn((n, 2), generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    drifts, spreads = [], []
    for dt in LENGTHS[:3]:
        first, second = (DDPM().step(truth, said, TIMES - dt, TIMES, seeded(k)) for k in (1, 2))
        spread = (first - second) / (one - two)
        drifts.append(float(((first - spread * one - x) / dt - drift).norm()))
        spreads.append(float((spread**2 / dt - schedule.g2(TIMES)[:, None]).norm()))
    assert order(LENGTHS[:3], drifts) == pytest.approx(1, abs=0.1)
    assert order(LENGTHS[:3], spreads) == pytest.approx(1, abs=0.1)


@each_process
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_a_ddim_step_of_length_dt_is_one_of_the_family_between_flow_and_reverse_sde_up_to_order_dt(process, eta):
    """(x_s - x_t)/dt has mean -(f x - (1 + eta^2)/2 g^2 s_t) and variance eta^2 g^2/dt.

    Where alpha and sigma are lines in t, as in alpha = 1 - t, sigma = t, a step of eta = 0 is that of Euler itself.
    """
    schedule, n = process_of(process), len(TIMES)
    truth, x = Exact(schedule, FixedSmall(), mixture()), normal(n, 2)
    said = truth(x, TIMES)
    g2 = schedule.g2(TIMES)[:, None]
    drift = -(schedule.f(TIMES)[:, None] * x - 0.5 * (1 + eta**2) * g2 * said.score)
    one, two = (torch.randn((n, 2), generator=seeded(k), dtype=torch.float64) for k in (1, 2))
    drifts, spreads = [], []
    for dt in LENGTHS[:3]:
        first, second = (DDIM(eta=eta).step(truth, said, TIMES - dt, TIMES, seeded(k)) for k in (1, 2))
        spread = (first - second) / (one - two)
        drifts.append(float(((first - spread * one - x) / dt - drift).norm()))
        spreads.append(float((spread**2 / dt - eta**2 * g2).norm()))
    places = at(0.2, 0.4, 0.6)
    bend = torch.cat([curve(places).diff().diff().abs() for curve in (schedule.alpha, schedule.sigma)])
    if bend.max() < 1e-12 and eta == 0:
        assert max(drifts) < 1e-9
    else:
        assert order(LENGTHS[:3], drifts) == pytest.approx(1, abs=0.1)
    assert max(spreads) == 0 if eta == 0 else order(LENGTHS[:3], spreads) == pytest.approx(1, abs=0.1)
