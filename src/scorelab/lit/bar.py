"""A bar of network evaluations."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from tqdm import tqdm


@contextmanager
def evaluations_shown(denoiser: nn.Module, total: int) -> Iterator[None]:
    """Show on a bar how many images a denoiser has been shown meanwhile, of so many at least."""
    with tqdm(
        total=total,
        desc="evaluating",
        unit="",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 15,
        dynamic_ncols=True,
    ) as bar:

        def count(_: nn.Module, given: tuple[Any, ...]) -> None:
            bar.update(len(given[0]))

        hook = denoiser.register_forward_pre_hook(count)
        try:
            yield
        finally:
            hook.remove()
