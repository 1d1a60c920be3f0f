"""Noise schedules: the variance beta_t of every step, t = 0 ... T - 1, as float64 [T].

What is left of the signal after step t is alpha_bar_t = prod_{s <= t} (1 - beta_s).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rec_utils.errors import UserError

#: No step may destroy everything at once: alpha_bar would be 0, and the posterior would divide by it.
MAX_BETA = 0.999


def linear(steps: int, low: float = 1e-4, high: float = 0.02) -> Tensor:
    """beta_t evenly spaced (Ho et al., NeurIPS 2020)."""
    return _checked(torch.linspace(low, high, steps, dtype=torch.float64), steps)


def scaled_linear(steps: int) -> Tensor:
    """`linear` from 0.0001 c to 0.02 c, c = 1000 / T, none above 0.999: the same end for any T."""
    c = 1000 / steps
    return linear(steps, min(1e-4 * c, MAX_BETA), min(0.02 * c, MAX_BETA))


def linear_variance(steps: int, scale: float, low: float, high: float, first: float | None = 1e-5) -> Tensor:
    """DiffRec's schedule: the variance of the noise, 1 - alpha_bar_t, grows linearly from c low to c high.

    c is the scale; beta_0 = 1 - alpha_bar_0 and beta_t = min(1 - alpha_bar_t / alpha_bar_{t-1}, 0.999).
    DiffRec's code then overwrites beta_0 by `first`, which shifts all variances that follow; None leaves it.
    """
    betas = from_alpha_bar(1 - torch.linspace(scale * low, scale * high, steps, dtype=torch.float64))
    if first is not None:
        betas[0] = first
    return _checked(betas, steps)


def cosine(steps: int, offset: float = 0.008) -> Tensor:
    """alpha_bar(u) = cos^2((u + s) / (1 + s) pi / 2) over u = 0 ... 1 (Nichol and Dhariwal, ICML 2021).

    beta_t = min(1 - alpha_bar((t + 1) / T) / alpha_bar(t / T), 0.999).
    """
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    return _checked((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=MAX_BETA), steps)


def exponential(steps: int, low: float = 0.1, high: float = 10.0) -> Tensor:
    """DreamRec's "exp": beta_t = 1 - exp(-low / T - x_t (high - low) / (2 T^2)), x_t from 1 to 2 T + 1."""
    x = torch.linspace(1, 2 * steps + 1, steps, dtype=torch.float64)
    return _checked(1 - torch.exp(-low / steps - x * (high - low) / (2 * steps**2)), steps)


def truncated_linear(steps: int) -> Tensor:
    """DiffuRec's "trunc_lin": linear from 0.0001 c + 0.01 to 0.02 c + 0.01 with c = 1000 / T.

    Where that end is above 1, as with few steps, it is 0.001 c + 0.01.
    """
    c = 1000 / steps
    end = 0.02 * c + 0.01
    return linear(steps, 1e-4 * c + 0.01, end if end <= 1 else 1e-3 * c + 0.01)


def from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """The betas [T] whose running product of 1 - beta is alpha_bar [T], none above 0.999."""
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    return (1 - alpha_bar / before).clamp(max=MAX_BETA)


def _checked(betas: Tensor, steps: int) -> Tensor:
    if steps < 1:
        raise UserError(f"a schedule needs at least 1 step, not {steps}")
    if not ((betas > 0) & (betas < 1)).all():
        worst = int((~((betas > 0) & (betas < 1))).nonzero()[0])
        raise UserError(f"beta of step {worst} is {betas[worst]:.3g}, not between 0 and 1")
    return betas
