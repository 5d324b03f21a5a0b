"""Whether a schedule keeps what ``Schedule`` promises, so that a new one's first error names its cause."""

import math

import torch
from torch import Tensor

from scorelab.errors import Refusal
from scorelab.schedules.base import Schedule

PLACES = 64  # between which a continuous schedule is looked at


def check_contract(schedule: Schedule) -> None:
    """Look at a schedule at its grid times, or evenly over [0, 1].

    Raises:
        Refusal: one sentence that names the method, the time, and what is wrong there.
    """
    of = type(schedule).__name__
    if "num_steps" not in vars(schedule):
        raise Refusal(f"{of}.__init__ must call super().__init__(num_steps), or super().__init__()")
    steps = schedule.num_steps or PLACES
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha, sigma, log_snr = (_answer(schedule, name, t) for name in ("alpha", "sigma", "log_snr"))
    for name, value in (("alpha", alpha), ("sigma", sigma)):
        _refuse(~(value.isfinite() & (value >= 0)), f"{of}.{name} must be finite and at least 0", t, value)
    _refuse((alpha == 0) & (sigma == 0), f"{of}.alpha and sigma must not both be 0", t, sigma)
    for name, value in (("alpha", alpha), ("sigma", sigma)):
        _refuse(value[1:-1] == 0, f"{of}.{name} must be above 0 inside (0, 1)", t[1:-1], value[1:-1])
    expected = 2 * (alpha.log() - sigma.log())
    same = (log_snr == expected) | ((log_snr - expected).abs() < 1e-6 * (1 + expected.abs()))
    _refuse(~same, f"{of}.log_snr must be 2 ln(alpha / sigma)", t, log_snr)
    _refuse(~(log_snr.diff() < 0), f"the log-SNR of {of} must fall, and does not after", t[:-1], log_snr[:-1])
    inner = t[1:-1]
    f, g2 = (_answer(schedule, name, inner) for name in ("f", "g2"))
    _refuse(~f.isfinite(), f"{of}.f, the derivative of ln(alpha), must be finite inside (0, 1)", inner, f)
    _refuse(~(g2.isfinite() & (g2 > 0)), f"{of}.g2 must be finite and above 0 inside (0, 1)", inner, g2)
    if schedule.num_steps is None and not schedule.t_min < schedule.t_max:
        low, high = schedule.log_snr_ends
        raise Refusal(f"the log-SNR of {of} is never between its log_snr_ends {low:g} and {high:g}")
    if not 0 < schedule.prior_std < math.inf:
        raise Refusal(f"{of}.prior_std must be above 0 and finite, got {schedule.prior_std}")


def _answer(schedule: Schedule, name: str, t: Tensor) -> Tensor:
    """What a method says of times in either precision, seen to be a number for each in float64."""
    of = f"{type(schedule).__name__}.{name}"
    for times in (t.float(), t):
        value = getattr(schedule, name)(times)
        if not isinstance(value, Tensor):
            raise Refusal(f"{of} must answer a tensor, got {type(value).__name__}")
        if value.shape != times.shape:
            raise Refusal(f"{of} must answer one number a time, {tuple(t.shape)}, got {tuple(value.shape)}")
        if value.dtype != torch.float64:
            raise Refusal(f"{of} must compute in float64, t.double(), got {value.dtype} for times in {times.dtype}")
    return value.detach()


def _refuse(wrong: Tensor, what: str, t: Tensor, value: Tensor) -> None:
    """Refuse at the first time where something is wrong, and say what was found there."""
    if bool(wrong.any()):
        at = int(wrong.nonzero()[0])
        raise Refusal(f"{what}: {value[at]:.6g} at t = {t[at]:.4g}")
