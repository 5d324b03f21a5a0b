"""The matrix: every loss, 0 and 2 data workers, one process and two, and what else a run may be told."""

import os
from dataclasses import dataclass, replace
from random import Random

import yaml
from conftest import CONFIGS, choices

from faults.places import Place, dealt

SEED = os.environ.get("FAULTS_SEED", "1")
KILLS = int(os.environ.get("FAULTS_KILLS", "3"))  # of one scenario
CHAIN = int(os.environ.get("FAULTS_CHAIN", "3"))  # of one run; 1 tells which kill a run did not survive

CORE = ("trainer.max_steps=24", "callbacks.validation.every=6", "evaluation.samples=100", "evaluation.tolerance=0.5",
        "sampler.steps=5", "logger=none")  # fmt: skip
GRID = ("callbacks.grid.every=12", "callbacks.grid.samples=64", "callbacks.log.every=6")
UNET = ("model.channels=8",)
SIMPLE = ("metrics=[simple]",)
ONE, TWO = ("trainer=cpu",), ("trainer=ddp_cpu",)

# what a loss is tried with, so that the choices that keep something from step to step all occur
BESIDE = {
    "simple": ("prediction=v", *UNET),
    "vlb": ("timesteps=importance", "schedule.num_steps=20", *UNET),
    "hybrid": ("sampler=ddpm", "trainer.accumulate_grad_batches=2", *UNET),
    "dsm": ("model.dropout=0.2", "timesteps=stratified", *UNET),
    "likelihood": ("schedule=vp", "timesteps=log_snr_uniform", *UNET),
    "esm": ("data=digits_gaussians", *UNET),
    "ism": ("data=moons",),
    "ssm": ("data=moons", "timesteps=importance", "trainer.accumulate_grad_batches=2"),
}


@dataclass(frozen=True)
class Scenario:
    """A run that is killed, again and again, and compared with one of the same words that is not.

    Attributes:
        family: those of one family are compared with the same whole run.
        words: what both are told.
        more: what the torn run is told besides; it must not make a difference.
        whom: whom to kill, as the killer understands it.
        has: what the run has, of what a place may need.
    """

    family: str
    words: tuple[str, ...]
    more: tuple[str, ...] = ()
    whom: tuple[str, ...] = ("main", "group")
    has: frozenset[str] = frozenset({"averaging", "grid", "simple"})

    @property
    def name(self) -> str:
        """A sentence's worth."""
        return "-".join([self.family, *self.more]).replace("data.", "")


def accepts_workers() -> bool:
    """Whether a run can be told data.workers."""
    from inspect import signature

    from scorelab.data.module import DataModule

    return "workers" in signature(DataModule).parameters


def all_scenarios() -> list[Scenario]:
    """Those that the present configuration accepts."""
    every = CORE + GRID + SIMPLE
    found = [Scenario(loss, (f"loss={loss}", *BESIDE.get(loss, UNET), *every, *ONE)) for loss in choices("loss")]
    evaluated = yaml.safe_load((CONFIGS / "train.yaml").read_text())["defaults"]
    parts = next(entry["metrics"] for entry in evaluated if isinstance(entry, dict) and "metrics" in entry)
    whole = frozenset({"averaging", "grid", *parts})
    found += [
        Scenario("bare", ("callbacks=minimal", *UNET, *CORE, *SIMPLE, *ONE), has=frozenset({"simple"})),
        Scenario("evaluated", (*UNET, *CORE, *GRID, *ONE), has=whole),
        Scenario("restless", (*UNET, *every, "callbacks.keep.minutes=1e-6", *ONE)),
        Scenario("unaligned", (*UNET, *every, "callbacks.log.every=4", "callbacks.validation.every=5", *ONE)),
    ]
    two = [
        Scenario(f"{loss}-two", (f"loss={loss}", *BESIDE[loss], *every, *TWO), whom=("main", "rank", "group"))
        for loss in ("simple", "vlb", "hybrid", "ism")
    ]
    if accepts_workers():
        plain = [scenario for scenario in found if scenario.family in choices("loss")]
        found += [with_workers(scenario) for scenario in plain]
        two += [with_workers(scenario) for scenario in two[:2]]
    return found + two if "ddp_cpu" in choices("trainer") else found


def with_workers(scenario: Scenario) -> Scenario:
    """The torn run has two data workers, and they can be killed too."""
    return replace(scenario, more=("data.workers=2",), whom=(*scenario.whom, "worker"))


SCENARIOS = all_scenarios()
HANDS: dict[str, list[Place]] = dict(
    zip(
        [scenario.name for scenario in SCENARIOS],
        dealt([set(scenario.has) for scenario in SCENARIOS], KILLS, Random(SEED)),
        strict=True,
    )
)
