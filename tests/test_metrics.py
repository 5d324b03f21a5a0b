"""The metrics measure what their definitions say, on the real digits."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import scorelab.metrics
from scorelab.data.images import Digits
from scorelab.metrics.copies import memorization
from scorelab.metrics.features import Coordinates, DigitsExtractor, Extractor, Thumbnails
from scorelab.metrics.fidelity import Chance, frechet, frechet_floor, recognition, running_frechet
from scorelab.tensors import to_bytes


@cache
def extractor() -> DigitsExtractor:
    return DigitsExtractor()


@cache
def bytes_of(split: str) -> Tensor:
    return to_bytes(Digits().splits()[split].values, Digits().levels)


def perturbed(images: Tensor, std: float = 40.0) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + std * noise).round().clamp(0, 255).to(torch.uint8)


def gaussian_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The closed form, by symmetric square roots: tr (Σ_a^½ Σ_b Σ_a^½)^½ has real eigenvalues throughout."""
    mean_a, mean_b, cov_a, cov_b = a.mean(0), b.mean(0), np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


class LinearExtractor(Extractor):
    """Features that are a fixed linear map of the pixels, and no classes."""

    num_features = 5
    name = "test-linear"
    hash = "0" * 12

    def features(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        pixels = images.flatten(1).double()
        return pixels @ torch.randn(pixels.shape[1], 5, generator=generator, dtype=torch.float64)


def test_torchmetrics_and_torch_fidelity_agree():
    real, fake = bytes_of("train"), perturbed(bytes_of("train"))
    metric = running_frechet(extractor())
    for chunk in real.split(500):
        metric.update(chunk, real=True)
    for chunk in fake.split(300):
        metric.update(chunk, real=False)
    assert metric.compute().item() == pytest.approx(frechet(real, fake, extractor()), rel=1e-6)


def test_the_running_distance_keeps_its_reference_over_a_reset_and_forgets_the_samples():
    metric = running_frechet(extractor())
    metric.update(bytes_of("train"), real=True)
    metric.update(perturbed(bytes_of("test")), real=False)
    metric.compute()
    metric.reset()
    metric.update(bytes_of("val"), real=False)
    expected = frechet(bytes_of("train"), bytes_of("val"), extractor())
    assert metric.compute().item() == pytest.approx(expected, rel=1e-6)


def test_a_set_is_at_distance_zero_from_itself_in_any_order():
    images = bytes_of("train")
    shuffled = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    assert frechet(images, shuffled, extractor()) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("make", [DigitsExtractor, LinearExtractor])
def test_the_distance_is_the_closed_form_for_two_gaussians(make):
    space = make()
    real, fake = bytes_of("train"), perturbed(bytes_of("val"))
    a, b = space.features(real).numpy(), space.features(fake).numpy()
    assert frechet(real, fake, space) == pytest.approx(gaussian_frechet(a, b), rel=1e-6)


def test_real_images_are_nearer_than_noisy_ones_and_those_nearer_than_a_gaussian_of_the_pixels():
    train = bytes_of("train")
    pixels = train.flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(pixels.T))
    white = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = pixels.mean(0) + white * values.clamp(min=0).sqrt() @ vectors.T
    gaussian = drawn.round().clamp(0, 255).to(torch.uint8).reshape(train.shape)
    held_out = torch.cat([bytes_of("val"), bytes_of("test")])
    distances = [frechet(train, x, extractor()) for x in (held_out, perturbed(train, 60.0), gaussian)]
    assert distances == sorted(distances)
    assert distances[-1] > 10 * distances[0]


def test_the_distance_is_silent_writes_nothing_and_draws_from_nobodys_generator(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    state = torch.random.get_rng_state()
    frechet(bytes_of("val"), bytes_of("test"), DigitsExtractor())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_features_of_the_train_split_have_a_covariance_of_trace_400():
    features = extractor().features(bytes_of("train"))
    assert features.var(0).sum().item() == pytest.approx(400, abs=1e-3)


def test_the_features_of_an_image_depend_on_nothing_else():
    images = bytes_of("val")
    alone = torch.cat([extractor().features(image[None]) for image in images[:20]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together = extractor().train().features(images)[:20]
    assert torch.allclose(alone, together, rtol=0, atol=1e-9)
    assert not together.requires_grad


@pytest.mark.parametrize("splits", [("val",), ("test",), ("val", "test")])
def test_the_classifier_is_right_on_99_percent_of_held_out_images(splits):
    images = torch.cat([bytes_of(split) for split in splits])
    labels = torch.cat([Digits().splits()[split].labels for split in splits])
    probabilities = extractor().probabilities(images)
    assert torch.allclose(probabilities.sum(1), torch.ones(len(images), dtype=torch.float64))
    assert (probabilities.argmax(1) == labels).double().mean() >= 0.99


def test_the_weights_are_small_and_their_hash_is_the_files():
    import hashlib

    file = Path(scorelab.metrics.__file__).parent / "weights" / "digits.safetensors"
    assert file.stat().st_size < 1_000_000
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(extractor().hash)
    assert len(extractor().hash) == 12
    assert DigitsExtractor(file).name == extractor().name


@pytest.mark.parametrize("n", [None, 1437, 50])
@pytest.mark.parametrize("chance", [Chance(), Chance(1.0, 0.0), Chance(0.0, 0.0), Chance(0.5, 0.2)])
def test_the_floor_adds_up_both_sides_each_with_its_share_of_class_chance(n, chance):
    features, labels = extractor().features(bytes_of("val")), Digits().splits()["val"].labels
    floor = frechet_floor(features, None, n, labels, chance, halves=20, seed=4)
    generator = torch.Generator().manual_seed(4)
    found = []
    for order_of in (torch.zeros(180), labels):
        values = []
        for _ in range(20):
            rows = torch.randperm(180, generator=generator)
            rows = rows[order_of[rows].argsort(stable=True)]
            a, b = features[rows[::2]].numpy(), features[rows[1::2]].numpy()
            values.append(gaussian_frechet(a, b) * 90 / 2)
        found.append(np.array(values))
    drawn, within = (each.mean() for each in found)
    n, sides = n or 180, (chance.samples, chance.reference)
    ours, theirs = (within + share * (drawn - within) for share in sides)
    assert floor.value == pytest.approx(ours / n + theirs / 180, rel=1e-5)
    of_drawn, of_within = (each.var(ddof=1) for each in found)
    share = (sides[0] / n + sides[1] / 180, (1 - sides[0]) / n + (1 - sides[1]) / 180)
    assert floor.se == pytest.approx(math.sqrt((share[0] ** 2 * of_drawn + share[1] ** 2 * of_within) / 20), rel=1e-5)
    ours, theirs = (of_within + share**2 * (of_drawn - of_within) for share in sides)
    assert floor.samples == pytest.approx(math.sqrt(ours / n**2 + 2 * theirs / (n * 180)), rel=1e-5)
    assert floor.references == pytest.approx(math.sqrt(theirs) / 180, rel=1e-5)
    assert floor.excess_se == pytest.approx(math.hypot(floor.se, floor.samples, floor.references))


def test_halves_of_each_class_hold_no_chance_in_their_class_counts():
    """Where classes are points, halving each leaves no distance at all, and random halves one."""
    labels = torch.arange(200) % 5
    points = torch.nn.functional.one_hot(labels).double()
    told, drawn = (
        frechet_floor(points, Coordinates(5), None, labels, chance, halves=5) for chance in (Chance(0, 0), Chance())
    )
    assert told.value == pytest.approx(0, abs=1e-5) and drawn.value > 0.005


def test_thumbnails_are_the_means_of_patches_in_the_units_of_data():
    images = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).remainder(256).to(torch.uint8)
    space = Thumbnails(3, 4)
    found = space.features(images)
    assert found.shape == (2, space.num_features) and found.dtype == torch.float64
    assert float(found[1, 16]) == pytest.approx(float(images[1, 1, :8, :8].double().mean()) / 127.5 - 1)
    assert frechet(images, images, space) == pytest.approx(0, abs=1e-4)


# --- what perfect samples of a known law score


CLASSES = torch.tensor([[0.0, 0, 0], [4, 0, 1], [0, 6, 2], [5, 5, 0]], dtype=torch.float64)
SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


def labelled(labels: Tensor, generator: torch.Generator) -> Tensor:
    return CLASSES[labels] + torch.randn(len(labels), 3, generator=generator, dtype=torch.float64)


def drawn_labels(n: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(SHARES, n, True, generator=generator)


def in_proportion(n: int) -> Tensor:
    return torch.arange(len(SHARES)).repeat_interleave((SHARES * n).long())


@pytest.mark.parametrize("n", [400, 150])
@pytest.mark.parametrize(
    ("split_by_class", "told"), [(True, False), (True, True), (False, True), (False, False)], ids=str
)
def test_perfect_samples_have_no_excess_on_average_and_scatter_as_told(split_by_class, told, n):
    """Samples' classes drawn, or the reference's labels; a reference split by class, or drawn itself."""
    generator, space, size = torch.Generator().manual_seed(7), Coordinates(3), 400
    excess, se = [], []
    for seed in range(40):
        labels = in_proportion(size) if split_by_class else drawn_labels(size, generator)
        reference = labelled(labels, generator)
        mine = labels[torch.randperm(size, generator=generator)][:n] if told else drawn_labels(n, generator)
        samples = labelled(mine, generator)
        chance = Chance(1 - n / size, 0.0) if told else Chance(1.0, 0.0 if split_by_class else 1.0)
        floor = frechet_floor(reference, space, n, labels, chance, halves=20, seed=seed)
        excess.append(gaussian_frechet(reference.numpy(), samples.numpy()) - floor.value)
        se.append(floor.excess_se)
    scatter, expected = np.std(excess, ddof=1), math.sqrt(np.mean(np.square(se)))
    assert abs(np.mean(excess)) < 3 * scatter / math.sqrt(len(excess))
    assert 0.6 < expected / scatter < 1.6, "the scatter of 40 is known to a ninth, longer tails aside"


def test_the_floor_is_the_same_from_bytes_as_from_features():
    images = bytes_of("val")
    assert frechet_floor(images, extractor()) == frechet_floor(extractor().features(images))


def test_copies_with_a_little_noise_are_memorised():
    train = bytes_of("train").double()
    noise = torch.randn(train.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert memorization(train + noise, train) == 1
    assert memorization(train, train) == 1


def test_held_out_images_are_not_memorised():
    held_out = torch.cat([bytes_of("val"), bytes_of("test")])
    assert memorization(held_out, bytes_of("train")) < 0.01


def test_a_copy_counts_though_the_training_set_holds_its_image_twice():
    train = bytes_of("train")
    twice = torch.cat([train, train[:10]])
    assert memorization(perturbed(train[:10], 2.0), twice) == 1


def test_a_sample_is_memorised_below_a_third_of_the_second_distance_and_not_above():
    train = torch.tensor([[0.0], [4.0], [100.0]])
    samples = torch.tensor([[0.999], [1.001], [2.0], [3.001], [-1.999], [-2.001]])
    # nearest / second nearest: 0.999/3.001, 1.001/2.999, 2/2, 0.999/3.001, 1.999/5.999, 2.001/6.001
    assert memorization(samples, train) == pytest.approx(3 / 6)


def test_memorisation_does_not_depend_on_the_chunks(monkeypatch):
    train, samples = bytes_of("train"), perturbed(bytes_of("train"), 30.0)
    whole = memorization(samples, train)
    monkeypatch.setattr("scorelab.metrics.copies.ENTRIES", 100_000)
    assert memorization(samples, train) == whole
    assert 0 < whole < 1


def test_digits_are_recognised_and_their_classes_shared_out_and_noise_is_not():
    splits = Digits().splits()
    labels = splits["test"].labels
    real = recognition(bytes_of("test"), extractor())
    assert real.share > 0.97
    assert real.class_shares == pytest.approx((labels.bincount() / len(labels)).tolist(), abs=0.02)
    assert sum(real.class_shares) == pytest.approx(1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (500, 1, 8, 8), generator=generator, dtype=torch.uint8)
    assert recognition(noise, extractor()).share < real.share - 0.2
    assert recognition(noise, extractor(), confidence=0.0).share == 1


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: frechet(x, x[:1], extractor()), "2 images"),
        (lambda x: frechet(x.float(), x, extractor()), "bytes"),
        (lambda x: extractor().features(x[:, :, :4]), "uint8 images"),
        (lambda x: frechet_floor(x[:3], extractor()), "4 images"),
        (lambda x: frechet_floor(x, extractor(), halves=1), "2 halvings"),
        (lambda x: frechet_floor(x, extractor(), chance=Chance(1.0, 0.0)), "need the reference's labels"),
        (lambda x: memorization(x, x[:1].repeat(3, 1, 1, 1)), "2 distinct"),
        (lambda x: memorization(x[:, :, :4], x), "cannot compare"),
        (lambda x: recognition(x[:0], extractor()), "1 images"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(call, error):
    with pytest.raises(ValueError, match=error):
        call(bytes_of("val"))


def test_an_extractor_that_is_no_classifier_recognises_nothing():
    with pytest.raises(NotImplementedError, match="LinearExtractor"):
        recognition(bytes_of("val"), LinearExtractor())
