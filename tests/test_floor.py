"""The floor beside the loss: the error of the noise on every line, and for known laws the least that it can be."""

import csv
import io
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import choose, each
from exact_cases import digits_like, network, normal, seeded, truth_of
from test_losses import side_for, variance_for
from torch import Tensor

from scorelab.config.build import exact_denoiser
from scorelab.data.module import DataModule
from scorelab.data.synthetic import Gaussian, Ring
from scorelab.denoisers import Denoiser, Eps, Exact, FixedSmall, NetworkDenoiser
from scorelab.evaluation.curves import ByBin, by_bin, squared
from scorelab.lit.actions import RunContext
from scorelab.lit.callbacks import TrainingLog, Validation, beside
from scorelab.lit.floor import LeastError, LeastOfDrawn
from scorelab.lit.module import DiffusionModule
from scorelab.lit.record import StepRecord
from scorelab.log_snr import SIMPLE
from scorelab.losses import Example, Simple, Terms, Uniform
from scorelab.networks import MLP
from scorelab.report.table import table
from scorelab.samplers import DDIM
from scorelab.schedules import VP, Cosine, Schedule
from scorelab.tracking.logger import RunLogger


def untrained(schedule: Schedule) -> NetworkDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NetworkDenoiser(schedule, MLP((2,), width=8, blocks=1), Eps(), FixedSmall()).requires_grad_(False)


def module_of(denoiser: Denoiser, known: Exact | None) -> DiffusionModule:
    module = DiffusionModule(denoiser, Simple(), Uniform(), DDIM(2), None, None, seed=0, known=known)
    module.trainer = SimpleNamespace(max_steps=10**6, accumulate_grad_batches=1, world_size=1)
    return module


class Lines(RunLogger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []

    def log_metrics(self, metrics, step):
        self.told.append(dict(metrics))


# --- the error of the noise


@each("loss")
def test_a_loss_says_the_error_of_the_noise_beside_itself_and_no_gradient_goes_through_it(loss):
    side = side_for(loss)
    denoiser = network("cosine", "v", variance_for(loss), side=side)
    x0, eps = digits_like(4, side=side), normal(4, 1, side, side).float()
    t, truth = denoiser.schedule.grid()[[1, 30, 500, 900]], truth_of(denoiser, digits_like(10, side=side))
    example = Example.of(denoiser, x0, t, eps, None, truth)
    terms = choose("loss", loss)(denoiser, example, seeded())
    directly = (denoiser(example.x_t, t).eps - eps).square().flatten(1).mean(1)
    torch.testing.assert_close(terms.eps_error, directly)
    assert not terms.eps_error.requires_grad


@pytest.mark.parametrize("space", ["x0", "v"])
def test_an_error_in_another_quantity_says_that_of_the_noise_too(space):
    denoiser, t = network("cosine"), torch.tensor([0.2, 0.7], dtype=torch.float64)
    example = Example.of(denoiser, digits_like(2), t, normal(2, 1, 8, 8).float())
    terms = Simple(space)(denoiser, example)
    directly = (denoiser(example.x_t, t).eps - example.eps).square().flatten(1).mean(1)
    torch.testing.assert_close(terms.eps_error, directly)
    assert not torch.allclose(terms.loss, directly, rtol=0.1)


def test_a_steps_error_is_the_mean_of_all_processes_without_weights_and_of_a_loss_that_says_none_there_is_none():
    def gather(mine: list[Tensor]) -> list[Tensor]:
        return [torch.stack([mine[0], mine[0]]), torch.stack([mine[1], mine[1]]), torch.stack([mine[2], mine[2] + 2])]

    t, weight, losses = torch.tensor([0.1, 0.9]), torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0])
    terms = Terms(losses, {"half": losses / 2}, torch.tensor([0.2, 0.4]))
    record = StepRecord.of(terms, t, weight, gather)
    assert float(record.eps_error) == pytest.approx(0.3 + 1)
    assert float(record.loss) == pytest.approx(3 + 1) and float(record.parts["half"]) == pytest.approx(1.5 + 1)
    assert len(record.t) == len(record.losses) == 4
    silent = StepRecord.of(Terms(losses, {"half": losses / 2}), t, weight, gather)
    assert silent.eps_error is None and silent.parts.keys() == {"half"} and float(silent.loss) == pytest.approx(4)


# --- the least it can be


def of_gaussian(log_snr: Tensor, variances: Tensor) -> Tensor:
    """S tr Var(x_0 | x_t) / d of N(., C): the mean over eigenvalues c of S c / (S c + 1), by log-SNR (n,)."""
    each = log_snr.exp()[:, None] * variances
    return (each / (each + 1)).mean(1)


@pytest.mark.parametrize("schedule", [Cosine(1000), VP()], ids=["steps", "continuous"])
def test_the_least_error_of_a_gaussian_is_that_of_its_covariance(schedule):
    law = Gaussian().law()
    least = LeastError(Exact(schedule, FixedSmall(), law), draws=64)
    low, high = least.edges[:-1], least.edges[1:]
    inside = torch.linspace(0, 1, 201, dtype=torch.float64)
    variances = torch.linalg.eigvalsh(Gaussian().covariance)
    wanted = torch.stack([of_gaussian(a + (b - a) * inside, variances).mean() for a, b in zip(low, high, strict=True)])
    assert float(high[-1]) == pytest.approx(min(12, schedule.log_snr_range()[1]))
    # a Gaussian's posterior variance is the same at every x_t: what scatters is the place in the cell
    assert ((least.by_cell - wanted).abs() <= 4 * (wanted.diff().abs().max() / math.sqrt(12 * 64))).all()


def test_the_least_error_of_what_was_drawn_is_that_of_its_times_and_the_same_after_an_interruption():
    schedule = Cosine(1000)
    least = LeastError(Exact(schedule, FixedSmall(), Gaussian().law()), draws=128)
    draws = [Uniform().draw(schedule, 64, step, 0, 1, seeded(step)).t for step in range(50)]
    whole = LeastOfDrawn()
    for t in draws:
        whole.add(t, least)
    begun = LeastOfDrawn()
    for t in draws[:21]:
        begun.add(t, least)
    state, resumed = begun.state_dict(), LeastOfDrawn()
    resumed.load_state_dict(torch.load(saved(state), weights_only=True))
    for t in draws[21:]:
        resumed.add(t, least)
    log_snr = schedule.log_snr(torch.cat(draws))
    directly = float(of_gaussian(log_snr, torch.linalg.eigvalsh(Gaussian().covariance)).mean())
    found = whole.take(least)
    assert found == pytest.approx(directly, rel=0.01)
    assert resumed.take(least) == found
    assert whole.take(least) is None, "it begins anew"


def saved(content: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("conditional", [False, True])
def test_the_floor_of_validation_is_the_exact_denoisers_error_at_the_same_noise(conditional):
    data, schedule = DataModule(Ring(), seed=3), Cosine(1000)
    denoiser = untrained(schedule)
    known = exact_denoiser(data.law(), denoiser, conditional)
    lines, validation = Lines(), Validation(10**6)
    validation.act(RunContext(module_of(denoiser, known), data, lines, Path()), 1)
    validation.act(RunContext(module_of(denoiser, known), data, lines, Path()), 2)
    val = data.splits["val"]
    network, exact = errors(denoiser, known, val.values, val.labels)
    assert lines.told == [{"val/simple": validation.simple, "val/simple_floor": validation.floor}] * 2
    assert validation.floor == pytest.approx(float(exact.each[SIMPLE].mean()), rel=1e-12)
    assert validation.simple == pytest.approx(float(network.each[SIMPLE].mean()), rel=1e-12)
    above = (network.each - exact.each)[SIMPLE].mean(0)
    assert float(above.mean()) > 10 * float(above.std()) / math.sqrt(len(above)), "untrained"
    assert validation.figures()["val/simple_floor"] == validation.floor


def errors(denoiser: Denoiser, known: Exact, x0: Tensor, labels: Tensor) -> list[ByBin]:
    """||eps - eps^||^2 / d of both by bin, as they answer when asked about single times and noises."""
    return by_bin(
        lambda made, t, label: [squared(one(made.x_t, t, label).eps, made.eps) for one in (denoiser, known)],
        denoiser,
        x0,
        labels,
        columns=2,
    )


def test_the_exact_denoiser_stands_on_its_floor_and_data_of_an_unknown_law_have_none():
    data = DataModule(Ring())
    known = Exact(Cosine(1000), FixedSmall(), data.law())
    lines, validation = Lines(), Validation(10**6)
    validation.act(RunContext(module_of(known, known), data, lines, Path()), 1)
    assert lines.told[0]["val/simple"] == lines.told[0]["val/simple_floor"]
    unknown, lines = Validation(10**6), Lines()
    unknown.act(RunContext(module_of(known, None), data, lines, Path()), 1)
    assert lines.told[0].keys() == {"val/simple"} and unknown.figures().keys() == {"val/simple", "val/simple_best"}


def test_the_log_tells_error_and_floor_of_what_was_drawn_since_its_last_line(tmp_path):
    data, schedule, lines = DataModule(Gaussian()), Cosine(1000), Lines()
    known = Exact(schedule, FixedSmall(), data.law())
    module = module_of(untrained(schedule), known)
    trainer = SimpleNamespace(datamodule=data, is_global_zero=True, global_step=0, max_steps=40, gradient_clip_val=1.0)
    log = TrainingLog(20, bar=False)
    log.on_train_start(trainer, module)
    means, floors = [], []
    for trainer.global_step in range(1, 41):
        t = Uniform().draw(schedule, 16, trainer.global_step, 0, 1, seeded(trainer.global_step)).t
        drawn = data.source.drawn(16, "train", 0, trainer.global_step, 0)
        example = Example.of(module.denoiser, drawn.values, t, normal(16, 2, seed=trainer.global_step).float())
        module.record = StepRecord.of(Simple()(module.denoiser, example), t, torch.ones(16), lambda mine: mine)
        log.on_train_batch_end(trainer, module, None, None, 0)
        means.append(float(module.record.eps_error))
        floors.append(of_gaussian(schedule.log_snr(t), torch.linalg.eigvalsh(Gaussian().covariance)))
        if trainer.global_step % 20 == 0:
            log.rate = 0.1
            log.act(RunContext(module, data, lines, tmp_path), trainer.global_step)
    for number, line in enumerate(lines.told):
        since = slice(20 * number, 20 * number + 20)
        assert line["train/eps_error"] == pytest.approx(sum(means[since]) / 20, rel=1e-5)
        assert line["train/eps_floor"] == pytest.approx(float(torch.cat(floors[since]).mean()), rel=0.02)
        assert line["train/eps_error"] > 1.5 * line["train/eps_floor"]
    assert len(lines.told) == 2


def test_the_bar_shows_the_loss_the_error_and_the_least_where_each_is_known():
    assert beside({"loss": 0.03124}) == "loss 0.0312"
    assert beside({"loss": 0.03124, "eps_error": 0.2124}) == "loss 0.0312, ε-error 0.212"
    told = {"loss": 0.03124, "eps_error": 0.2124, "eps_floor": 0.19}
    assert beside(told) == "loss 0.0312, ε-error 0.212 (least 0.19)"


def test_the_tables_last_row_says_the_least():
    assert "0.300 on average" in table({"val/simple": 0.4, "val/simple_floor": 0.3}, {})
    assert "average" not in table({"val/simple": 0.4}, {})


def test_a_run_tells_the_floor_in_its_history_where_it_draws_without_end_and_not_of_a_list(typed):
    choices = ["data=gaussian", "model.width=8", "metrics=[simple]", "logger=none", "trainer.max_steps=4"]
    choices += ["callbacks.log.every=2", "callbacks.log.bar=false", "callbacks.grid=null", "callbacks.averaging=null"]
    columns = {}
    for name, more in (("endless", []), ("list", ["data.limit=50"])):
        said = typed("train", f"run={name}", *choices, *more)
        assert said.status == 0, said.err
        with Path(f"logs/train/{name}/metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        columns[name] = {key for row in rows for key, value in row.items() if value}
        assert "no denoiser's is below" in said.out + said.err
    assert {"train/eps_error", "val/simple_floor"} <= columns["list"] & columns["endless"]
    assert "train/eps_floor" in columns["endless"] - columns["list"]
