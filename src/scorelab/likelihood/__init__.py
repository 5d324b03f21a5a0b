"""Likelihoods: Gaussian terms and decoders, the variational bound and its estimates, the probability flow."""

from scorelab.likelihood.bound import FEW, PILOT, Bound, exact_bound, sampled_bound
from scorelab.likelihood.formulas import (
    FlowDensity,
    bits_per_dim,
    bound_rate,
    bound_term,
    decoder_nll,
    flow_log_prob,
    gaussian_log_prob,
    lattice_gap,
    lattice_log_prob,
    level_decoder_nll,
    marginal_kl,
    prior_kl,
    step_kl,
)

__all__ = [
    "FEW",
    "PILOT",
    "Bound",
    "FlowDensity",
    "bits_per_dim",
    "bound_rate",
    "bound_term",
    "decoder_nll",
    "exact_bound",
    "flow_log_prob",
    "gaussian_log_prob",
    "lattice_gap",
    "lattice_log_prob",
    "level_decoder_nll",
    "marginal_kl",
    "prior_kl",
    "sampled_bound",
    "step_kl",
]
