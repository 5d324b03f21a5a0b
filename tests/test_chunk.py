"""Keys that say how much is done at once change the memory that is needed, and no figure."""

import csv
import json
from pathlib import Path

import pytest
import torch
from conftest import SMALL, TINY
from exact_cases import Watched, digits_like, network, shaken, truth_of
from torch import Tensor

from scorelab.data.synthetic import Moons
from scorelab.denoisers import Denoiser, Eps, Exact, FixedSmall, NetworkDenoiser
from scorelab.evaluation import EvaluationContext, EvaluationSettings, FlowLikelihood, GradientNoise, Objectives
from scorelab.laws import FiniteSet
from scorelab.losses import ESM, ISM, SSM, Simple, Uniform
from scorelab.networks import MLP, UNet
from scorelab.samplers import DDIM, DDPM, Sampler, draw_samples
from scorelab.samplers.base import noise
from scorelab.schedules import VP, Cosine
from scorelab.tensors import Rows, generator, standard_normal, to_levels

SAMPLERS = [DDIM(3), DDIM(3, eta=1.0), DDPM(4)]


def conditional(points: bool = False) -> NetworkDenoiser:
    """A tiny network that knows labels, none of whose layers is zero."""
    net = MLP((2,), 8, 1, True, classes=3) if points else UNet((1, 4, 4), 4, [1, 2], conditional=True, classes=3)
    return NetworkDenoiser(Cosine(20), shaken(net), Eps(), FixedSmall(), None if points else 17)


# --- noise


def test_rows_are_cut_from_whole_blocks_and_go_on_as_their_generators_do():
    blocks = [torch.randn(2, 16, 3, generator=generator("a", k)) for k in range(3)]
    given = [generator("a", k) for k in range(3)]
    for _ in range(2):  # the generators themselves stay where they are
        cut = Rows(given, 16, slice(3, 35))
        assert torch.equal(standard_normal((32, 3), cut), torch.cat([each[0] for each in blocks])[3:35])
        assert torch.equal(standard_normal((32, 3), cut), torch.cat([each[1] for each in blocks])[3:35])
        assert torch.equal(torch.randn(2, 16, 3, generator=cut), blocks[0]), "what is drawn for all rows together"
    assert torch.equal(standard_normal((2, 3), generator("b")), torch.randn(2, 3, generator=generator("b")))


class Noise(Sampler):
    """Draws twice and stops there."""

    def __init__(self) -> None:
        super().__init__(1, False)

    def step(self, ask, estimate, s, t, generator) -> Tensor:
        raise AssertionError("it takes none")

    def __call__(self, denoiser, shape, label=None, generator=None) -> Tensor:
        first = noise(torch.zeros(shape), generator)
        return torch.stack([first, noise(first, generator)], -1)


def test_the_noise_of_256_samples_comes_from_one_generator_of_the_seed_and_their_number():
    drawn = draw_samples(conditional(points=True), Noise(), (2,), torch.zeros(600).long(), 5, 100)
    for block in range(3):
        twice = torch.randn(2, 256, 2, generator=generator("samples", 5, block)).permute(1, 2, 0)
        rows = slice(256 * block, min(600, 256 * block + 256))
        assert torch.equal(drawn[rows], twice[: len(drawn[rows])])


# --- samples


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["ddim", "eta", "ddpm"])
@pytest.mark.parametrize("points", [False, True], ids=["pixels", "points"])
def test_samples_are_the_same_in_any_chunk_and_however_many_follow(points, sampler):
    denoiser, labels = conditional(points), torch.arange(300) % 3
    shape = (2,) if points else (1, 4, 4)
    whole = draw_samples(denoiser, sampler, shape, labels, 1, 256)
    assert len(whole.unique(dim=0)) > 250 and not torch.equal(whole[:40], whole[256:296])
    for n, chunk in ((300, 64), (300, 7), (300, 300), (20, 1), (3, 256)):
        found = draw_samples(denoiser, sampler, shape, labels[:n], 1, chunk)
        assert torch.allclose(found.float(), whole[:n].float(), rtol=1e-4, atol=1e-5), (n, chunk)


@pytest.mark.parametrize(("n", "chunk"), [(1, 256), (7, 256), (40, 16), (300, 7)])
def test_no_sample_is_drawn_that_was_not_asked_for(n, chunk):
    watched = Watched(conditional())
    assert len(draw_samples(watched, DDIM(3), (1, 4, 4), torch.zeros(n).long(), 0, chunk)) == n
    assert watched.images == 3 * n and max(map(len, watched.times)) == min(n, chunk)


# --- yardsticks


def case(denoiser: Denoiser, chunk: int, loss=None, n: int = 40, law: Exact | None = None) -> EvaluationContext:
    values = digits_like(n) if denoiser.levels else Moons().drawn(n, "chunk").values
    held = to_levels(values, 17) if denoiser.levels else values
    labels = torch.zeros(n, dtype=torch.long)
    split = (held, labels, held, labels)
    return EvaluationContext(
        denoiser,
        DDIM(2),
        EvaluationSettings(chunk=chunk),
        *split,
        None,
        loss or Simple(),
        Uniform(),
        exact_train=law,
        exact_held_out=law,
    )


class Most:
    """The most images that a denoiser, or a copy of it, has been shown at once."""

    def __init__(self, denoiser: Denoiser) -> None:
        seen = self.seen = [0]

        def see(_, given) -> None:
            seen[0] = max(seen[0], len(given[0]))

        denoiser.register_forward_pre_hook(see)


@pytest.mark.parametrize("images", [False, True], ids=["points", "images"])
def test_the_likelihood_of_the_flow_is_the_same_in_any_chunk(images):
    """The solver's steps are chosen for 256 items in any chunk; the divergence of images is along one direction each.

    Exact denoisers here: what float32 rounds in a network's products moves the solver's steps by far more than 1e-6.
    """
    law = FiniteSet(digits_like(40)) if images else Moons().law()
    denoiser = Exact(VP(), FixedSmall(), law, 17 if images else None)
    part, found = FlowLikelihood(40, tolerance=1e-2), []
    for chunk in (256, 64, 7):
        most = Most(denoiser)
        found.append(part.run(case(denoiser, chunk, law=None if images else denoiser), None))
        assert most.seen[0] == min(chunk, 40)
    for other in found[1:]:
        assert other.metrics == pytest.approx(found[0].metrics, rel=1e-6)
        assert other.evaluations == found[0].evaluations


LOSSES = {"simple": Simple(), "ism": ISM(), "ssm": SSM(), "esm": ESM(), "stf": ESM(references=8)}


def test_objectives_heed_the_chunk_and_are_the_same_in_any():
    denoiser = NetworkDenoiser(VP(), shaken(MLP((2,), 8, 1)), Eps(), FixedSmall())
    law, found = Exact(VP(), FixedSmall(), Moons().law()), []
    for chunk in (256, 7):
        most = Most(denoiser)
        found.append(Objectives(None, **LOSSES).run(case(denoiser, chunk, law=law), None))
        assert most.seen[0] == min(chunk, 40)
    assert found[1].metrics == pytest.approx(found[0].metrics, rel=1e-5)
    assert found[1].records["ssm"]["se"][20] == pytest.approx(found[0].records["ssm"]["se"][20], rel=1e-4)


@pytest.mark.parametrize("loss", [Simple(), SSM(), ESM(references=5)], ids=["simple", "ssm", "esm"])
def test_gradients_heed_the_chunk_and_are_the_same_in_any(loss):
    denoiser = network("cosine", steps=20)
    found = []
    for chunk in (256, 3):
        told, most = case(denoiser, chunk, loss), Most(denoiser)
        told.exact_train = truth_of(denoiser, told.data(told.train))
        found.append(GradientNoise(2, 8).run(told, None))
        assert most.seen[0] == min(chunk, 8)
    assert found[1].metrics == pytest.approx(found[0].metrics, rel=1e-3)
    assert found[1].records["variance"] == pytest.approx(found[0].records["variance"], rel=1e-3)


# --- a run


def history(folder: Path) -> dict[str, list[float]]:
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    named = [key for key in rows[0] if key.startswith(("val/", "test/"))]
    return {key: [float(row[key]) for row in rows if row[key]] for key in named}


@pytest.mark.slow
def test_no_figure_of_a_run_depends_on_a_chunk(typed, tmp_path: Path):
    """But for the rounding of products of other sizes, which may move the last digits."""
    words = [*SMALL, "trainer.max_steps=4", "sampler=ddpm", "sampler.steps=3", "callbacks.grid.samples=70"]
    words += ["callbacks.grid.every=2", "callbacks.validation.every=4", "model.conditional=true"]
    words += ["metrics=[simple,vlb,fid]", "evaluation.tolerance=2", "evaluation.samples=70"]
    keys = ("evaluation.chunk", "callbacks.grid.chunk", "callbacks.validation.chunk")
    for run, chunk in (("a", 256), ("b", 33)):
        told = typed("train", f"run={run}", *words, *(f"{key}={chunk}" for key in keys))
        assert told.status == 0, told.err
    folders = [tmp_path / "logs" / "train" / run for run in "ab"]
    first, found = (json.loads((folder / "metrics.json").read_text())["metrics"] for folder in folders)
    then, now = map(history, folders)
    assert first["test/fid"] > 0 and len(then["val/fid"]) == 2
    assert found == pytest.approx(first, rel=1e-4)
    for name in ("test/fid", "val/simple", "test/simple"):
        assert found[name] == pytest.approx(first[name], rel=1e-6)
    assert now["val/fid"] == pytest.approx(then["val/fid"], rel=1e-6)
    pictures = [[path.read_bytes() for path in sorted((folder / "samples").glob("*.png"))] for folder in folders]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 2


def test_a_conditional_run_is_sampled_from_and_one_sample_costs_one(typed, tmp_path: Path):
    words = ["run=a", *TINY, "model.conditional=true"]
    assert typed("train", *words).status == 0
    for n in (1, 20):
        assert typed("sample", "run=logs/train/a", f"n={n}").status == 0
    import numpy as np

    few, many = sorted(
        (np.load(path)["arr_0"] for path in (tmp_path / "logs/train/a/sample").glob("*/samples.npz")), key=len
    )
    assert len(few) == 1 and len(many) == 20 and (few[0] == many[0]).all()
