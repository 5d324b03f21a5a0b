"""What a network can be asked to predict."""

import math

import torch
from torch import Tensor

from scorelab.denoisers.estimate import Estimate, Rates
from scorelab.denoisers.parameterization import NetworkInput, Parameterization
from scorelab.errors import Refusal
from scorelab.schedules import Schedule
from scorelab.tensors import like


def ends_without_signal(schedule: Schedule) -> bool:
    """Whether alpha is 0 at the last training time (a zero terminal SNR), or 1/alpha^2 is beyond float32."""
    last = torch.tensor([schedule.t_max], dtype=torch.float64)
    return float(schedule.alpha(last)) ** 2 < torch.finfo(torch.float32).tiny


def refuse_silence(schedule: Schedule) -> None:
    """Where alpha = 0, x_t is the noise, and x_0 cannot be told from it.

    Raises:
        Refusal: where alpha is 0 at the last training time.
    """
    if ends_without_signal(schedule):
        raise Refusal("the noise says nothing of the data where alpha = 0: set prediction=v or x0")


def has_velocity(schedule: Schedule) -> bool:
    """Whether alpha' and sigma' are numbers at both ends of the training times."""
    rates = Rates(schedule, torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64))
    return bool((rates.alpha.isfinite() & rates.sigma.isfinite()).all())


class Eps(Parameterization):
    """The network predicts the noise (Ho et al. 2020, eq. 11)."""

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, rates: Rates) -> Estimate:
        """eps^ is the output."""
        return Estimate.from_eps(x_t, alpha, sigma, output)

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that ends without signal."""
        refuse_silence(schedule)


class Score(Parameterization):
    """The network predicts the score itself, -eps / sigma (Song & Ermon 2019, eq. 5): the larger the less noise."""

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, rates: Rates) -> Estimate:
        """eps^ is -sigma times the output."""
        return Estimate.from_eps(x_t, alpha, sigma, -sigma * output)

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that ends without signal."""
        refuse_silence(schedule)


class X0(Parameterization):
    """The network predicts the data."""

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, rates: Rates) -> Estimate:
        """x^_0 is the output."""
        return Estimate.from_x0(x_t, alpha, sigma, output)


class V(Parameterization):
    """The network predicts v = alpha eps - sigma x_0 (Salimans & Ho 2022, section 4)."""

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, rates: Rates) -> Estimate:
        """v^ is the output."""
        return Estimate.from_v(x_t, alpha, sigma, output)


class Velocity(Parameterization):
    """The network predicts the velocity u = alpha' x_0 + sigma' eps (Lipman et al. 2023, eq. 14).

    With x_t = alpha x_0 + sigma eps, and D = alpha' sigma - sigma' alpha = alpha sigma lambda'/2, it says
    x_0 = (sigma u - sigma' x_t) / D and eps = (alpha' x_t - alpha u) / D; in ``flow``, D is -1 and u is eps - x_0.
    """

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, rates: Rates) -> Estimate:
        """Both solved for; the coefficients in float64."""
        rise, fall = rates.sigma, rates.alpha
        level = rates.schedule.at(rates.t)
        both = fall * level.sigma - rise * level.alpha
        x0 = like(level.sigma / both, x_t) * output - like(rise / both, x_t) * x_t
        return Estimate(x_t, alpha, sigma, x0, like(fall / both, x_t) * x_t - like(level.alpha / both, x_t) * output)

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule without a velocity where training ends."""
        if not has_velocity(schedule):
            raise Refusal("this schedule has no velocity at an end of its training times: set prediction=v or x0")


class Preconditioned(Parameterization):
    """F, of which x_0 is c_skip x~ + c_out F(c_in x~, c_noise), x~ = x_t / alpha and sigma~ = sigma / alpha.

    c_skip = d^2 / (sigma~^2 + d^2), c_out = sigma~ d / sqrt(sigma~^2 + d^2), c_in = 1 / sqrt(sigma~^2 + d^2),
    c_noise = ln(sigma~) / 4, with d = ``sigma_data``, the standard deviation of the data: input and output of the
    network then have about unit variance at every time (Karras et al. 2022, table 1 and appendix B.6). In s^2 = sigma^2
    + alpha^2 d^2: c_in x~ = x_t / s, x_0 = (alpha d^2 / s^2) x_t + (sigma d / s) F, eps = (sigma / s^2) x_t -
    (alpha d / s) F; where alpha^2 + sigma^2 = 1 and d = 1, F is -v.

    Raises:
        Refusal: for sigma_data <= 0.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        if not 0 < sigma_data < math.inf:
            raise Refusal(f"sigma_data must be above 0 and finite, got {sigma_data}")
        self.sigma_data = sigma_data

    def inputs(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, t: Tensor) -> NetworkInput:
        """X_t over its standard deviation, and ln(sigma~) / 4."""
        condition = torch.log(sigma / alpha).flatten() / 4
        return NetworkInput(x_t * torch.rsqrt(sigma**2 + (alpha * self.sigma_data) ** 2), condition.to(x_t))

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, rates: Rates) -> Estimate:
        """Both from x_t and F."""
        square, d = sigma**2 + (alpha * self.sigma_data) ** 2, self.sigma_data
        spread = torch.sqrt(square)
        x0 = alpha * d**2 / square * x_t + sigma * d / spread * output
        return Estimate(x_t, alpha, sigma, x0, sigma / square * x_t - alpha * d / spread * output)

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that ends without signal, where sigma~ is infinite.

        Raises:
            Refusal: where alpha is 0 at the last training time.
        """
        if ends_without_signal(schedule):
            raise Refusal("sigma / alpha is infinite where alpha = 0: set prediction=v or x0")


class Mu(Parameterization):
    """The network predicts the mean of the step before, mu~ = c_t x_t + c_0 x_0 (Ho et al. 2020, eq. 8 and 10).

    x_0 = (mu~ - c_t x_t) / c_0 and, with gain = 1 - e^(lambda_t - lambda_s), eps = (x_t - alpha_t / (alpha_s) mu~) /
    (sigma gain). Of a T-step process alone; at its first step mu~ is x_0.
    """

    def estimate(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, rates: Rates) -> Estimate:
        """Solved for both; the coefficients in float64, s = t - 1/T."""
        schedule, t = rates.schedule, rates.t.double()
        step = schedule.transition((t - 1 / (schedule.num_steps or 1)).clamp(min=0), t)
        x0 = like(1 / step.mean_of_x0, x_t) * output - like(step.mean_of_xt / step.mean_of_x0, x_t) * x_t
        of_xt, of_mean = 1 / (step.sigma_t * step.gain), step.alpha_t / (step.alpha_s * step.sigma_t * step.gain)
        return Estimate(x_t, alpha, sigma, x0, like(of_xt, x_t) * x_t - like(of_mean, x_t) * output)

    def check(self, schedule: Schedule) -> None:
        """Refuse a process without steps, and one that ends without signal.

        Raises:
            Refusal: for a continuous schedule, or where alpha is 0 at t = 1.
        """
        if schedule.num_steps is None:
            raise Refusal("a continuous process has no step before: set schedule.num_steps, or prediction=v")
        refuse_silence(schedule)
