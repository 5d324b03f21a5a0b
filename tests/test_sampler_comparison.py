"""All samplers by what they cost, on one network and on the exact score."""

import pytest
from conftest import choices
from test_configs import built

from scorelab.evaluation import SamplerComparison, run_yardsticks
from scorelab.evaluation.samplers import fitting
from scorelab.report.samplers import draw_samplers
from scorelab.report.table import table
from scorelab.samplers import DDIM, DDPM, RK45, EulerMaruyama, Heun


def context(*words: str):
    experiment = built("data=digits_gaussians", "++model.channels=8", "++evaluation.samples=64", *words)
    return experiment.context(experiment.module.denoiser)


def test_it_has_every_sampler_there_is() -> None:
    yardstick = built("metrics=[samplers]").yardsticks["samplers"]
    assert sorted(yardstick.samplers) == sorted(choices("sampler"))
    assert set(yardstick.names_of(context())) == {f"sampler_{name}" for name in choices("sampler")}


@pytest.mark.parametrize(("sampler", "steps"), [(DDIM(), 20), (Heun(), 10), (DDPM(), 20)])
def test_as_many_steps_are_taken_as_fit(sampler, steps) -> None:
    fits = fitting(sampler, context().denoiser, 20)
    assert fits.steps == steps and fits.evaluations(context().denoiser) in (19, 20)


def test_the_exact_score_comes_nearer_with_more_evaluations_and_all_of_them_are_counted(tmp_path) -> None:
    of = context("++evaluation.repeats=2")
    part = SamplerComparison([4, 24], ddim=DDIM(), heun=Heun(), euler_maruyama=EulerMaruyama(), rk45=RK45(1e-2))
    results = run_yardsticks({"samplers": part}, of, lambda line: None)
    assert "at 4, 24 evaluations: " in table(results.metrics, results.records)
    found = part.run(of, None)
    for name in ("ddim", "heun", "euler_maruyama"):
        few, many = found.records["by_sampler"][name]
        assert few["evaluations"] in (3, 4) and many["evaluations"] in (23, 24)
        assert many["exact_fid_se"] > 0
        assert many["exact_fid"] < few["exact_fid"] or name == "euler_maruyama", "which needs hundreds"
        assert found.metrics[f"sampler_{name}"] == min(few["fid"], many["fid"])
        assert many["fid"] > 2 * many["exact_fid"], "the network knows nothing yet"
    (alone,) = found.records["by_sampler"]["rk45"]
    assert alone["steps"] is None
    counted = [line["evaluations"] for lines in found.records["by_sampler"].values() for line in lines]
    assert found.evaluations == part.cost(of) == 2 * 64 * sum(counted)
    draw_samplers(tmp_path / "samplers.png", found.records)
    assert (tmp_path / "samplers.png").stat().st_size > 10_000


def test_what_does_not_go_with_a_schedule_is_left_out() -> None:
    of = context("schedule=linear_zero_snr", "++loss.space=v", "sampler=ddim")
    assert SamplerComparison(ddim=DDIM(), heun=Heun()).names_of(of) == ("sampler_ddim",)


@pytest.mark.parametrize("wrong", [{"evaluations": [1]}, {"evaluations": []}, {"ddim": None}, {"ddim": 3}])
def test_nothing_to_compare_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"needed|no sampler"):
        SamplerComparison(**{"ddim": DDIM()} | wrong)
