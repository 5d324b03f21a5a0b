"""What a run says of itself before its first step: how long it will take, and what judging will."""

import logging

import lightning
import torch

from scorelab.config.build import Experiment
from scorelab.evaluation import expected_cost
from scorelab.lit.timing import seconds_per_step
from scorelab.report.words import span

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
