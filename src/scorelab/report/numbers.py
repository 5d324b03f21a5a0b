"""What the numbers of a run are: in a few plain words, whether less is better, and what good looks like."""

import math
from dataclasses import dataclass

LESS, MORE = "less is better", "more is better"


@dataclass(frozen=True)
class Number:
    """A number's meaning.

    Attributes:
        meaning: what it is, in a few words.
        better: ``LESS``, ``MORE``, or "" for what only stands beside another.
        good: what good looks like.
    """

    meaning: str
    better: str = LESS
    good: str = ""

    def __str__(self) -> str:
        return "; ".join(part for part in (self.meaning, self.better, self.good) if part)


FRECHET = "distance between the features of samples and of training data"
BY_YARDSTICK: dict[str, dict[str, Number]] = {
    "fid": {
        "fid": Number(f"Fréchet {FRECHET}", LESS, "good is its floor, what perfect samples have"),
        "fid_floor": Number("Fréchet distance that as many perfect samples would have", ""),
        "fid_excess": Number("Fréchet distance above that of perfect samples", LESS, "perfect is 0"),
    },
    "fd_dino": {
        "fd_dino": Number(f"Fréchet {FRECHET}, by DINOv2", LESS, "good is its floor"),
        "fd_dino_floor": Number("DINOv2 distance that as many perfect samples would have", ""),
        "fd_dino_excess": Number("DINOv2 distance above that of perfect samples", LESS, "perfect is 0"),
    },
    "kid": {
        "kid": Number(f"kernel {FRECHET}", LESS, "good is its floor, about 0"),
        "kid_floor": Number("kernel distance that as many perfect samples would have", ""),
    },
    "is": {
        "is": Number("inception score: sure classes, many of them", MORE, "good is that of held-out images"),
        "is_control": Number("inception score of held-out images", ""),
    },
    "prc": {
        "precision": Number("share of samples that look like data", MORE, "good is that of held-out images"),
        "recall": Number("share of the data that the samples cover", MORE, "good is that of held-out images"),
        "precision_control": Number("precision of held-out images", ""),
        "recall_control": Number("recall of held-out images", ""),
    },
    "recognised": {
        "recognised": Number("share of samples that a classifier is sure of", MORE, "good is that of held-out images"),
        "recognised_control": Number("share of held-out images that the classifier is sure of", ""),
        "rarest_class": Number("share of samples in the class seen least", MORE, "of ten classes at best 0.1"),
        "commonest_class": Number("share of samples in the class seen most", LESS, "of ten classes at best 0.1"),
    },
    "memorization": {
        "memorization": Number("share of samples that copy a training image", LESS, "good is that of held-out images"),
        "memorization_control": Number("share of held-out images that count as copies", ""),
    },
    "vlb": {
        "vlb": Number("bits per dimension to code held-out data, at most: the run's own process", LESS, "0.01 counts"),
        "vlb_prior": Number("part of the bound: what is left of the data at the noisiest level", LESS, "good is 0"),
        "vlb_diffusion": Number("part of the bound: the denoising between the ends", LESS),
        "vlb_decoder": Number("part of the bound: reading data from the least noisy level", LESS),
    },
    "simple": {
        "simple": Number("mean squared error of the predicted noise, the same images and noise levels for all runs"),
        "vlb_common": Number("bits per dimension to code held-out data, at most: one process for all runs", LESS),
    },
    "score_error": {
        "score_error": Number("squared error against the true score", LESS, "perfect is 0"),
        "excess": Number("bits per dimension that the bound loses to score error", LESS, "perfect is 0"),
        "score_error_linear": Number("squared error of the best linear denoiser against the true score", ""),
    },
    "exact_gap": {
        "exact_gap": Number(
            "error less that of the training set's exact score, both on held-out images",
            LESS,
            "below 0 is generalising, 0 is memorising",
        ),
        "exact_gap_linear": Number("exact gap of the best linear denoiser: what mean and covariance alone give", ""),
    },
    "exact_nll": {
        "exact_nll": Number("bits per dimension of held-out data under their true law: no bound is below it", ""),
    },
    "ode_nll": {
        "ode_nll": Number(
            "bits per dimension of held-out data, by the probability flow", LESS, "at best that of the law"
        ),
        "ode_nll_exact": Number("the same under the true law", ""),
    },
    "distances": {
        "energy": Number("energy distance between samples and held-out data", LESS, "good is its floor"),
        "energy_floor": Number("energy distance that fresh draws of the law have", ""),
        "sliced_wasserstein": Number(
            "mean Wasserstein distance of projections to held-out data", LESS, "good is its floor"
        ),
        "sliced_wasserstein_floor": Number("the same of fresh draws of the law", ""),
    },
    "guidance": {
        "guidance_fid": Number("least Fréchet distance over guidance scales", LESS, "good is the floor"),
        "guidance_scale": Number("guidance scale of the least Fréchet distance", ""),
        "guidance_asked": Number(
            "greatest share, over guidance scales, of samples recognised as the label asked for", MORE, "perfect is 1"
        ),
        "guidance_control": Number("share of held-out images recognised as their label", ""),
    },
    "own_path": {
        "own_path": Number(
            "squared error against the true score where the run's own sampler goes", LESS, "perfect is 0"
        ),
        "own_path_data": Number("the same at noised data, at the same times", LESS, "perfect is 0"),
    },
    "gradient_part": {
        "gradient_part": Number(
            "part of the score error that is a gradient: all that samples can show", LESS, "perfect is 0"
        ),
        "gradient_rest": Number("rest of the score error: it moves no marginal", ""),
        "gradient_rate": Number("squared rate at which the score error moves the density", LESS, "perfect is 0"),
        "score_curl": Number("squared curl of the score error: it moves no marginal", ""),
    },
    "noise_profile": {
        "p_mean": Number("mean of ln(sigma/alpha) where the noise decides the data: for timesteps=lognormal", ""),
        "p_std": Number("spread of ln(sigma/alpha) there", ""),
        "log_snr_low": Number("log-SNR below which half a percent of the data is decided", ""),
        "log_snr_high": Number("log-SNR above which half a percent of the data is decided", ""),
        "log_snr_shift": Number("what would move the schedule's mean log-SNR there", ""),
    },
    "agreement": {
        "agreement": Number("squared difference to another run's predicted noise", LESS, "0 is the same function"),
    },
    "gradient_noise": {
        "gradient_noise": Number("variance of the gradient over its squared mean", LESS),
        "gradient_noise_importance": Number(
            "share of the gradient's variance left by importance times", LESS, "1 is none"
        ),
        "gradient_noise_stratified": Number(
            "share of the gradient's variance left by stratified times", LESS, "1 is none"
        ),
        "gradient_noise_logitnormal": Number("share of the gradient's variance left by logit-normal times", LESS),
    },
    "budget": {
        "budget_run": Number("Fréchet distance of the network with its sampler", LESS),
        "budget_sampler": Number("Fréchet distance of the exact score with this sampler: the sampler's own part", LESS),
        "budget_network": Number("Fréchet distance of the network with many steps: the network's own part", LESS),
        "budget_floor": Number("Fréchet distance of perfect samples", ""),
        "budget_copies": Number("Fréchet distance of training images drawn anew", ""),
    },
    "colour": {
        "colour_mean": Number("how far the brightness of samples is off, in bytes", LESS, "good is its floor"),
        "colour_cov": Number("how far the covariance of colours is off, relative", LESS, "good is its floor"),
        "colour_spectrum": Number("how far the spectrum is off, log ratio", LESS, "good is its floor"),
        "colour_low": Number(
            "how far the brightness is off at the noisiest levels, in bytes", LESS, "good is its floor"
        ),
    },
    "validation": {
        "simple_floor": Number("simple of the exact score: no denoiser's is below it on average", ""),
        "simple_best": Number("the least simple of all validations: what best.ckpt is chosen by", LESS),
        "loss": Number("the run's own objective, in its own units: not comparable between objectives", ""),
    },
}
NUMBERS = {name: each for numbers in BY_YARDSTICK.values() for name, each in numbers.items()}
YARDSTICK = {name: yardstick for yardstick, numbers in BY_YARDSTICK.items() for name in numbers}
OF_TRAINING = {
    "score_error": Number("squared error against the training set's exact score, on noised training data", ""),
    "excess": Number("the same in bits per dimension of the bound", ""),
}


def number(name: str) -> Number:
    """What test/fid, val/simple, train/test/score_error ... is; nothing is said of one that is not known."""
    if name.startswith(("seconds to ", "images to ")):
        what, _, target = name.partition(" to ")
        return Number(f"{what} of training until {target}")
    if name == "seconds":
        return Number("seconds the run took, evaluation included: of the machine too")
    split, _, short = name.rpartition("/")
    if split.endswith("train") and short in OF_TRAINING:
        return OF_TRAINING[short]
    if short in NUMBERS:
        return NUMBERS[short]
    if short.startswith("objective_"):
        return Number(f"the objective {short.removeprefix('objective_')}, as a noise error under its own weights")
    if short.startswith("sampler_"):
        told = f"least Fréchet distance of the sampler {short.removeprefix('sampler_')} over numbers of evaluations"
        return Number(told, LESS, "good is the floor")
    if short.startswith("colour_"):
        return Number("what perfect samples have", "")
    return Number("", "")


def yardstick(name: str) -> str:
    """Which yardstick tells a number, and so where its records are: that of test/fid_floor is fid."""
    short = name.rpartition("/")[2]
    first = short.partition("_")[0]
    return YARDSTICK.get(short) or {"objective": "objectives", "sampler": "samplers", "colour": "colour"}.get(
        first, short
    )


def goal(name: str) -> str | None:
    """``maximize`` or ``minimize`` for a yardstick's number of val or test; None for what is no yardstick."""
    if name.partition("/")[0] not in ("test", "val"):
        return None
    return {LESS: "minimize", MORE: "maximize"}.get(number(name).better)


def with_error(value: float, se: float | None) -> tuple[str, str | None]:
    """A number and its standard error as one writes them: two digits of the error, the number to the same place."""
    if se is None or not 0 < se < float("inf"):
        return shown(value), None if se is None else shown(se)
    places = 1 - math.floor(math.log10(float(f"{se:.1e}")))
    return f"{value:.{max(0, places)}f}", f"{se:.{max(0, places)}f}"


def shown(value: float | None) -> str:
    """Three digits after the point, or three that count where there would be none left; whole numbers from 100 on."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return "–"
    if abs(value) >= 100 and value == int(value):  # images, steps
        return f"{value:.0f}"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.1 else f"{value:.3g}"
