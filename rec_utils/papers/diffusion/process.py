"""The Gaussian diffusion process: forward steps, posterior steps, weights of the loss, and samplers.

Steps count from 0: x_t is x_0 after step t, q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) 1). A
denoiser predicts x_0 or the noise eps from x_t and t; both say the same, since
x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps. Equations are those of Ho et al. (DDPM, NeurIPS 2020)
unless stated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rec_utils.errors import UserError

#: (x_t [B, ...], t [B]) -> predicted x_0 [B, ...]
Denoise = Callable[[Tensor, Tensor], Tensor]


class Process(nn.Module):
    """A schedule's coefficients as buffers [T], float32, which move with the model; no parameters."""

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        betas = betas.double()
        alpha_bar = torch.cumprod(1 - betas, 0)
        before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])  # alpha_bar_{t-1}, 1 before the first
        coefficients = {
            "beta": betas,
            "alpha_bar": alpha_bar,
            "signal": alpha_bar.sqrt(),
            "noise": (1 - alpha_bar).sqrt(),
            "of_x0": betas * before.sqrt() / (1 - alpha_bar),
            "of_xt": (1 - before) * (1 - betas).sqrt() / (1 - alpha_bar),
            "variance": betas * (1 - before) / (1 - alpha_bar),
            "snr": alpha_bar / (1 - alpha_bar),
        }
        for name, values in coefficients.items():
            self.register_buffer(name, values.float(), persistent=False)

    def __len__(self) -> int:
        return len(self.beta)

    def q_sample(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t [B, ...] of x_0 [B, ...] at steps t [B], with standard normal noise [B, ...]."""
        return at(self.signal, t, x0) * x0 + at(self.noise, t, x0) * noise

    def posterior_mean(self, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0), equation 7; x_0 itself at t = 0. Its variance is `variance[t]`."""
        return at(self.of_x0, t, x0) * x0 + at(self.of_xt, t, xt) * xt

    def x0_of(self, noise: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The x_0 that gives x_t with that noise."""
        return (xt - at(self.noise, t, xt) * noise) / at(self.signal, t, xt)

    def noise_of(self, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The noise that leads from x_0 to x_t."""
        return (xt - at(self.signal, t, xt) * x0) / at(self.noise, t, xt)

    def bound_weight(self, t: Tensor) -> Tensor:
        """DiffRec's weights [B] of the squared error of x_0: SNR(t-1) - SNR(t), and 1 at t = 0.

        Up to a factor 1/2 these are the weights of the terms of the variational bound (Kingma et al., 2021).
        """
        return torch.where(t == 0, 1.0, self.snr[(t - 1).clamp(min=0)] - self.snr[t])

    def min_snr_weight(self, t: Tensor, gamma: float = 5.0) -> Tensor:
        """Weights [B] min(SNR, gamma) / SNR of the squared error of the noise (Hang et al., ICCV 2023)."""
        return (gamma / self.snr[t]).clamp(max=1)


def at(values: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """values[t] [B], shaped to be multiplied with `like` [B, ...]."""
    return values[t].view(-1, *[1] * (like.ndim - 1))


def time_embedding(t: Tensor, dim: int, period: float = 10_000.0) -> Tensor:
    """Sinusoids [B, dim] of steps t [B]: cos(t f_k), then sin(t f_k), with f_k = period^(-k / (dim / 2)).

    An odd dim ends in a zero.
    """
    half = dim // 2
    frequency = period ** (-torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t[:, None].float() * frequency
    return nn.functional.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, dim % 2))


def ancestral(
    process: Process,
    denoise: Denoise,
    start: Tensor,
    *,
    generator: torch.Generator | None,
    steps: int | None = None,
) -> Tensor:
    """From x_start down to x_0: x_{t-1} ~ q(x_{t-1} | x_t, predicted x_0) for t = steps - 1 ... 0.

    Args:
        process: the schedule.
        denoise: predicts x_0.
        start: [B, ...] what stands at the first of these steps.
        generator: draws the noise of each step; None takes the mean each time, without any noise.
        steps: how many; all by default.
    """
    x = start
    for step in reversed(range(_checked_steps(steps, process))):
        t = torch.full((len(x),), step, device=x.device)
        x = process.posterior_mean(denoise(x, t), x, t)
        if generator is not None and step > 0:
            x = x + process.variance[step].sqrt() * standard_normal(x.shape, generator, x.device)
    return x


def ddim(process: Process, denoise: Denoise, start: Tensor, *, steps: int) -> Tensor:
    """Deterministic sampling in `steps` of the T steps (Song et al., DDIM, ICLR 2021, eta = 0).

    The steps are those of `ddim_steps`; each goes from x_t to sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s)
    eps of the next lower step s with the predicted x_0 and its noise, and the last one to x_0.
    """
    places = ddim_steps(len(process), steps)
    x = start
    for step, lower in zip(places, [*places[1:], None], strict=True):
        t = torch.full((len(x),), step, device=x.device)
        x0 = denoise(x, t)
        if lower is None:
            x = x0
        else:
            x = process.signal[lower] * x0 + process.noise[lower] * process.noise_of(x0, x, t)
    return x


def ddim_steps(total: int, steps: int) -> list[int]:
    """`steps` of 0 ... total - 1, evenly spaced, the highest first: 800, 600, 400, 200, 0 for 5 of 1000."""
    if not 1 <= steps <= total:
        raise UserError(f"steps must lie between 1 and {total}, not at {steps}")
    return [place * total // steps for place in reversed(range(steps))]


def standard_normal(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Normal draws that are the same on every device: drawn where the generator is, then moved."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


class LossAwareSteps(nn.Module):
    """DiffRec's choice of steps: t with probability ~ sqrt(E[loss_t^2]) over the last ten losses of each t.

    As in Nichol and Dhariwal (2021): uniform until every step has ten losses, and with a share of 0.001
    uniform from then on. A loss must be divided by `weight`, p_t T, so that its mean stays unbiased.
    """

    KEPT, UNIFORM = 10, 0.001

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("history", torch.zeros(steps, self.KEPT))
        self.register_buffer("count", torch.zeros(steps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """p_t [T]."""
        steps = len(self.count)
        if (self.count < self.KEPT).any():
            return self.history.new_full((steps,), 1 / steps)
        size = self.history.square().mean(1).sqrt()
        return (1 - self.UNIFORM) * size / size.sum() + self.UNIFORM / steps

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """Steps t [n] from torch's global generator, and their weights p_t T [n]."""
        p = self.probabilities()
        t = torch.multinomial(p, n, replacement=True)
        return t, p[t] * len(p)

    @torch.no_grad()
    def update(self, t: Tensor, loss: Tensor) -> None:
        """Take in losses [n] of steps t [n], as if one came after the other."""
        t, order = t.sort(stable=True)
        total = torch.bincount(t, minlength=len(self.count))
        first = total.cumsum(0) - total
        rank = torch.arange(len(t), device=t.device) - first[t]
        last = rank >= total[t] - self.KEPT  # earlier ones are overwritten at once
        t, rank = t[last], rank[last]
        self.history[t, (self.count[t] + rank) % self.KEPT] = loss[order][last].float()
        self.count += total


def _checked_steps(steps: int | None, process: Process) -> int:
    steps = len(process) if steps is None else steps
    if not 1 <= steps <= len(process):
        raise UserError(f"steps must lie between 1 and the {len(process)} of the schedule, not at {steps}")
    return steps
