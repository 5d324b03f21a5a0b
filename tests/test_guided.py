"""Labels that training leaves out now and then, and denoisers that are led towards one."""

import math

import pytest
import torch
from exact_cases import Watched, normal, seeded
from test_configs import built

from scorelab.data.synthetic import Ring
from scorelab.denoisers import NO_LABEL, Denoiser, Exact, FixedSmall, Guided
from scorelab.errors import Refusal
from scorelab.evaluation import GuidanceScales
from scorelab.laws import FiniteSet
from scorelab.networks import MLP, Transformer, UNet
from scorelab.report.guidance import draw_guidance
from scorelab.samplers import DDIM, Heun
from scorelab.schedules import VP, Flow


def exact(schedule=None) -> Exact:
    return Exact(schedule or VP(), FixedSmall(), Ring().law(), conditional=True)


def asked(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return normal(n, 2), torch.linspace(0.2, 0.8, n).double(), torch.arange(n) % 8


def test_no_label_is_the_whole_law_and_a_label_its_part() -> None:
    x, t, label = asked()
    none, whole = exact()(x, t, torch.full_like(label, NO_LABEL)), Exact(VP(), FixedSmall(), Ring().law())(x, t)
    assert torch.allclose(none.x0, whole.x0, rtol=1e-9)
    assert not torch.allclose(exact()(x, t, label).x0, whole.x0, rtol=1e-2)


def test_no_label_is_the_whole_of_a_finite_set_too() -> None:
    points, (x, t, label) = normal(40, 2, seed=5), asked()
    told, untold = FiniteSet(points, torch.arange(40) % 8), FiniteSet(points)
    mixed = torch.where(label > 2, label, NO_LABEL)
    found = Exact(VP(), FixedSmall(), told, conditional=True)(x, t, mixed).x0
    whole, part = (Exact(VP(), FixedSmall(), law, conditional=law is told)(x, t, label).x0 for law in (untold, told))
    assert torch.allclose(found, torch.where((label > 2)[:, None], part, whole), rtol=1e-9)


@pytest.mark.parametrize("schedule", [VP(), Flow()])
def test_a_guided_score_is_that_of_the_tilted_density(schedule) -> None:
    """Its score is s(x | none) + scale (s(x | label) - s(x | none)), the gradient of log p (p(label | x))^scale."""
    x, t, label = asked()
    x.requires_grad_()
    inner, scale = exact(schedule), 2.5
    log_prob = [inner.posterior(x, t, each).log_prob for each in (label, torch.full_like(label, NO_LABEL))]
    (expected,) = torch.autograd.grad((log_prob[1] + scale * (log_prob[0] - log_prob[1])).sum(), x)
    found = Guided(inner, scale)(x.detach(), t, label)
    assert torch.allclose(found.score, expected, rtol=1e-6)
    assert torch.allclose(found.alpha * found.x0 + found.sigma * found.eps, x.detach(), rtol=1e-9)


def test_scale_1_is_the_conditional_denoiser_and_0_that_without_labels() -> None:
    x, t, label = asked()
    assert torch.allclose(Guided(exact(), 1.0)(x, t, label).x0, exact()(x, t, label).x0)
    assert torch.allclose(Guided(exact(), 0.0)(x, t, label).x0, exact()(x, t, torch.full_like(label, NO_LABEL)).x0)


def test_outside_its_interval_it_is_the_conditional_denoiser_and_asks_once() -> None:
    x, t, label = asked()
    log_snr = VP().log_snr(t)
    middle = float(log_snr.median())
    guided, plain = Guided(exact(), 3.0, low=middle)(x, t, label), exact()(x, t, label)
    inside = log_snr >= middle
    assert torch.allclose(guided.x0[~inside], plain.x0[~inside]) and not torch.allclose(guided.x0, plain.x0)
    watched = Watched(exact())
    Guided(watched, 3.0, low=100.0)(x, t, label)
    assert len(watched.times) == 1
    Guided(watched, 3.0)(x, t, label)
    assert len(watched.times) == 3 and Guided(watched, 3.0).evaluations == 2


@pytest.mark.parametrize("sampler", [DDIM(40), Heun(20)])
def test_samplers_take_it_and_more_of_it_leads_nearer_to_the_middle_of_the_class_and_beyond(sampler) -> None:
    label = torch.zeros(300, dtype=torch.long)
    away = []
    for scale in (1.0, 3.0):
        drawn = sampler(Guided(exact(), scale), (300, 2), label, seeded())
        away.append(float(torch.atan2(drawn[:, 1], drawn[:, 0]).std()))
    assert away[1] < 0.9 * away[0]
    with pytest.raises(Refusal, match="give labels"):
        Guided(exact(), 2.0)(*asked()[:2])


@pytest.mark.parametrize(
    ("kind", "shape", "sizes"),
    [
        (UNet, (1, 8, 8), {"channels": 8, "multipliers": (1, 2)}),
        (MLP, (2,), {}),
        (Transformer, (1, 8, 8), {"channels": 8, "blocks": 1}),
        (Transformer, (2,), {"channels": 8, "blocks": 1}),
    ],
)
def test_a_network_learns_to_do_without_a_label_as_often_as_it_is_told(kind, shape, sizes) -> None:
    network, shape = kind(shape, conditional=True, label_dropout=0.25, classes=8, **sizes), (2000, *shape)
    seen = []
    network.label.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x, t, label = torch.zeros(shape), torch.ones(shape[0]), torch.arange(shape[0]) % 8
    with torch.no_grad():
        network.train()(x, t, label)
        network.eval()(x, t, label)
        network(x, t, None)
        network(x, t, torch.full_like(label, NO_LABEL))
    assert float((seen[0] == 8).float().mean()) == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 2000))
    assert torch.equal(seen[0][seen[0] != 8], label[seen[0] != 8])
    assert torch.equal(seen[1], label) and (seen[2] == 8).all() and (seen[3] == 8).all()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"label_dropout": 0.1, "classes": 8}, "set model.conditional=true"),
        ({"conditional": True, "label_dropout": 1.0, "classes": 8}, "label_dropout must lie in"),
        ({"conditional": True}, "needs data with labels"),
    ],
)
def test_labels_that_a_network_cannot_have_are_refused(more, told) -> None:
    with pytest.raises(Refusal, match=told):
        MLP((2,), **more)


def test_without_labels_only_a_network_that_was_trained_so_answers() -> None:
    with pytest.raises(Refusal, match=r"model\.label_dropout=0\.1"):
        MLP((2,), conditional=True, classes=8)(torch.zeros(2, 2), torch.ones(2))


@pytest.mark.parametrize(("scale", "low", "high"), [(math.inf, -1.0, 1.0), (2.0, 1.0, 1.0)])
def test_guidance_that_cannot_be_is_refused(scale, low, high) -> None:
    with pytest.raises(Refusal, match="guidance"):
        Guided(exact(), scale, low, high)


def test_it_says_that_it_is_no_posterior_mean() -> None:
    inner: Denoiser = exact()
    assert Guided(inner, 2.0).guided and not inner.guided and inner.evaluations == 1


CONDITIONAL = ("data=digits", "++model.conditional=true", "++model.label_dropout=0.1", "++model.channels=8")


def guidance(*words: str):
    experiment = built(*CONDITIONAL, "metrics=[guidance]", "++sampler.steps=6", "++evaluation.samples=40", *words)
    return experiment, experiment.context(experiment.module.denoiser)


def test_all_samples_of_the_exact_score_are_what_was_asked_for_and_of_no_score_a_tenth() -> None:
    _, of = guidance()
    untrained = GuidanceScales([1.0]).run(of, None)
    assert untrained.metrics["guidance_asked"] < 0.4
    of.denoiser = of.exact_train
    found = GuidanceScales([1.0, 2.0]).run(of, None)
    assert found.metrics["guidance_asked"] >= 0.95 and 0.9 < found.metrics["guidance_control"] <= 1
    assert found.metrics["guidance_fid"] == min(found.records["fid"]) < untrained.metrics["guidance_fid"]
    assert found.metrics["guidance_scale"] == [1, 2][found.records["fid"].index(min(found.records["fid"]))]
    assert found.evaluations == GuidanceScales([1.0, 2.0]).cost(of) == 40 * 6 * 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["++model.conditional=false", "++model.label_dropout=0"], "trained without labels"),
        (["++model.label_dropout=0"], "never did without labels"),
    ],
)
def test_guidance_is_not_tried_on_what_never_learned_it(words, told) -> None:
    assert told in GuidanceScales().inapplicable(guidance(*words)[1])


def test_the_picture_of_guidance_is_drawn_with_and_without_a_classifier(tmp_path) -> None:
    record = {"scale": [1, 2], "fid": [3.0, 2.0], "asked": [0.9, 1.0], "control": 0.97, "control_n": 40, "n": 1000}
    for name, control in (("with", 0.97), ("without", None)):
        draw_guidance(tmp_path / f"{name}.png", record | {"control": control, "floor_value": 1.0})
    assert (tmp_path / "with.png").stat().st_size > (tmp_path / "without.png").stat().st_size > 0
