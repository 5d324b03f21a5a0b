"""What a run says of itself before its first step: how long it will take, and what judging will."""

import logging

import lightning
import torch

from scorelab.config.build import Experiment
from scorelab.evaluation import expected_cost
from scorelab.lit.timing import seconds_per_step
from scorelab.report.words import span
from scorelab.schedules import Schedule

log = logging.getLogger("scorelab")


def expectation(experiment: Experiment, trainer: lightning.Trainer, done: int) -> str:
    """Weights, steps left, seconds of each as measured now, and of the whole; then what evaluating costs at least.

    What cannot be measured is left out, and train.log says why: what is wrong, or too large for memory, shows itself
    where it is needed.
    """
    module = experiment.module
    weights = sum(p.numel() for p in module.denoiser.parameters())
    steps = trainer.max_steps - done
    length = f"{weights:,} weights, {trainer.max_steps:,} steps"
    try:
        module.to(trainer.strategy.root_device)
        if module.exact is not None:
            module.exact.to(module.device)
        with trainer.precision_plugin.forward_context():
            step = seconds_per_step(module, experiment.data) * trainer.accumulate_grad_batches
    except Exception as error:
        log.debug("how long a step lasts is not known: %r", error)
        return length
    left = f"{steps:,} left, " if done else ""
    told = f"{length}: {left}{step:.2g} s each, about {span(steps * step)}"
    if not experiment.yardsticks:
        return told
    try:
        with torch.no_grad():
            judging = expected_cost(experiment.yardsticks, experiment.context(module.denoiser))
    except Exception as error:
        log.debug("what evaluating costs is not known: %r", error)
        return told
    told += f"; evaluating: at least {judging.evaluations:,} network evaluations, {span(judging.seconds)}"
    if judging.most is None or judging.most == judging.evaluations:
        return told
    return f"{told}, at most {judging.most:,}, {span(judging.most_seconds)}"


JUMP = 3.0  # of log-SNR in one step: a twentieth of the signal's power is left of it


@torch.no_grad()
def noise_levels(schedule: Schedule) -> str:
    """Between which log-SNRs a run is trained, and whether the last step of its grid is a jump."""
    low, high = schedule.log_snr_range()
    told = f"log-SNR from {high:.1f} to {low:.1f}"
    if schedule.num_steps is None or schedule.num_steps < 2:
        return told
    last = schedule.log_snr(schedule.grid()[-2:])
    fall = float(last[0] - last[1])
    if fall < JUMP:
        return told
    size = "to no signal at all" if fall == float("inf") else f"by {fall:.1f}"
    return f"{told}; the last of {schedule.num_steps:,} steps is a jump: it falls {size} there"
