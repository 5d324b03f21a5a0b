"""scorelab: which objective, under which noise schedule, learns the score best?

The maths (schedules, laws, denoisers, networks, likelihood, losses, samplers) imports torch, and torchdiffeq for its
ODE, and works as a plain library; ``scorelab.lit`` (Lightning), ``scorelab.config`` and ``scorelab.app`` (Hydra) are
the roof over it.
"""

from typing import Any


def load(directory: str, checkpoint: str = "last", device: Any = None, average: float | None = None) -> Any:
    """A stored run for a notebook: its denoiser, sampler, schedule and data. See ``scorelab.app.load``."""
    from scorelab.app.load import load as loaded  # imports torch and what it needs when it is asked for

    return loaded(directory, checkpoint, device, average)
