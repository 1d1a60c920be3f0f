"""DiffRec and T-DiffRec: a user's row of choices is noised and denoised.

Wang et al., "Diffusion Recommender Model", SIGIR 2023, arXiv 2304.04971. x_0 is the user's 0/1 row over all
items. The forward process adds little noise by `schedules.linear_variance`, so that the user's taste
survives; a perceptron predicts x_0 from x_t and t. A user's scores are what denoising makes of the row.

T-DiffRec gives the choices of a user weights that grow with time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.errors import UserError
from rec_utils.implicit import ImplicitTask, RowBatch
from rec_utils.layers import Dropout
from rec_utils.papers.diffusion.process import LossAwareSteps, Process, standard_normal, time_embedding
from rec_utils.papers.diffusion.schedules import linear_variance


class Denoiser(nn.Module):
    """The perceptron that predicts x_0 [B, n] from x_t and t.

    [dropout(x_t) ; tau_t] -> widths, there and back -> n, tanh between layers, where tau_t is a linear map of
    the sinusoids of t. With widths [200, 600] the layers are n + 10 -> 600 -> 200 -> 600 -> n.
    """

    def __init__(self, n: int, widths: Sequence[int], *, time_dim: int = 10, dropout: float = 0.5) -> None:
        super().__init__()
        widths = [*reversed(widths), *widths[1:]]
        self.n, self.time_dim = n, time_dim
        self.dropout = Dropout(dropout)
        self.of_time = nn.Linear(time_dim, time_dim)
        self.first = nn.Linear(n + time_dim, widths[0])
        self.middle = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.last = nn.Linear(widths[-1], n)
        for layer in (self.of_time, self.first, *self.middle, self.last):
            nn.init.xavier_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predicted x_0 [B, n] of x_t [B, n] at steps t [B]."""
        return self.last(self.hidden(self.reads(self.dropout(x)) + self.offset(t)))

    # The first layer in two parts: without the product [x ; tau] no gradient of x is ever computed

    def reads(self, x: Tensor) -> Tensor:
        """What the first layer makes of x [B, n]."""
        return F.linear(x, self.first.weight[:, : self.n])

    def offset(self, t: Tensor) -> Tensor:
        """What the first layer makes of steps t [B], its bias included."""
        tau = self.of_time(time_embedding(t, self.time_dim))
        return F.linear(tau, self.first.weight[:, self.n :], self.first.bias)

    def hidden(self, read: Tensor) -> Tensor:
        """The last hidden layer [B, width], given the first before its tanh."""
        h = read.tanh()
        for layer in self.middle:
            h = layer(h).tanh()
        return h


class RowDiffusion(nn.Module):
    """Diffusion over vectors [B, n]: the loss of training and the steps of inference.

    DiffRec uses it on rows of choices, L-DiffRec on latent vectors.
    """

    def __init__(
        self,
        n: int,
        *,
        widths: Sequence[int],
        steps: int,
        scale: float,
        low: float,
        high: float,
        dropout: float = 0.5,
        reweight: bool = True,
    ) -> None:
        super().__init__()
        if steps < 1 or scale < 0:
            raise UserError(f"steps must be at least 1 and scale at least 0, not {steps} and {scale}")
        self.steps, self.reweight = steps, reweight
        self.process = Process(linear_variance(steps, scale, low, high)) if scale else None
        self.denoiser = Denoiser(n, widths, dropout=dropout)
        self.choice = LossAwareSteps(steps)

    def losses(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """(loss [B], predicted x_0 [B, n]) of vectors x_0 [B, n] at steps that are drawn.

        w_t |x_0 - predicted|^2 / n, divided by p_t T; w_t = SNR(t-1) - SNR(t), and 1 at t = 0. Without noise
        (scale 0) it is a denoising auto-encoder, and w_t = 1, as in DiffRec's code.
        """
        t, chance = self.choice.sample(len(x0))
        xt = x0 if self.process is None else self.process.q_sample(x0, t, torch.randn_like(x0))
        predicted = self.denoiser(xt, t)
        loss = (x0 - predicted).square().mean(1)
        if self.reweight and self.process is not None:
            loss = self.process.bound_weight(t) * loss
        if self.training:
            self.choice.update(t, loss.detach())
        return loss / chance, predicted

    @torch.no_grad()
    def denoise(
        self,
        x: Tensor,
        *,
        steps: int | None = None,
        corrupt: int = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """x_0 [B, n] after the steps t = steps - 1 ... 0 from x [B, n], each to the posterior's mean.

        Every step is x_{t-1} = p_t f(x_t, t) + r_t x_t, and f = V h + c with the last hidden layer h. Of
        x_{t-1} the next step reads W x_{t-1} = p_t (W V h + W c) + r_t W x_t only. So with the small matrix
        W V at hand, no step but the last has to go through all n items. The result is the same.

        Args:
            x: where to start; DiffRec starts from the user's row as it is.
            steps: how many steps; all by default.
            corrupt: noise x first, up to this many steps; 0 for none.
            generator: draws that noise.
        """
        net, steps = self.denoiser, self.steps if steps is None else steps
        if not 1 <= steps <= self.steps or not 0 <= corrupt <= self.steps:
            raise UserError(
                f"steps must lie between 1 and {self.steps}, and corrupt between 0 and {self.steps}, "
                f"not at {steps} and {corrupt}"
            )
        if corrupt and self.process is not None:
            t = torch.full((len(x),), corrupt - 1, device=x.device)
            x = self.process.q_sample(x, t, standard_normal(x.shape, generator, x.device))
        offsets = net.offset(torch.arange(self.steps, device=x.device))
        if steps > 1:
            back, constant = net.reads(net.last.weight.T).T, net.reads(net.last.bias[None])  # W V and W c
        read = net.reads(x)
        for t in reversed(range(1, steps)):
            of_x0, of_xt = (
                (1.0, 0.0) if self.process is None else (self.process.of_x0[t], self.process.of_xt[t])
            )
            predicted = F.linear(net.hidden(read + offsets[t]), back) + constant
            read = of_x0 * predicted + of_xt * read
        return net.last(net.hidden(read + offsets[0]))


class DiffRec(nn.Module):
    """DiffRec on rows of choices; the defaults are those of the released model for MovieLens-1M (clean)."""

    def __init__(
        self,
        n_items: int,
        *,
        widths: Sequence[int] = (200, 600),
        steps: int = 40,
        scale: float = 0.005,
        low: float = 0.005,
        high: float = 0.01,
        dropout: float = 0.5,
        reweight: bool = True,
    ) -> None:
        super().__init__()
        self.diffusion = RowDiffusion(
            n_items,
            widths=widths,
            steps=steps,
            scale=scale,
            low=low,
            high=high,
            dropout=dropout,
            reweight=reweight,
        )

    def forward(self, batch: RowBatch) -> Tensor:
        """Loss [B]."""
        return self.diffusion.losses(batch.x)[0]

    def scores(
        self,
        x: Tensor,
        *,
        steps: int | None = None,
        corrupt: int = 0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Scores [B, I] of rows [B, I]; see `RowDiffusion.denoise`."""
        return self.diffusion.denoise(x, steps=steps, corrupt=corrupt, generator=generator)


def time_weighted(task: ImplicitTask, low: float = 0.1, high: float = 1.0) -> sparse.csr_array:
    """T-DiffRec's rows [U, I]: a user's k-th training choice of n weighs low + (high - low) k / (n - 1)."""
    user = task.train[:, 0]
    _, first, of, count = np.unique(user, return_index=True, return_inverse=True, return_counts=True)
    if (np.diff(user) < 0).any():
        raise UserError(f"{task.name}: the training choices must stand user by user, in time order")
    place = np.arange(len(user)) - first[of]
    weights = low + (high - low) * place / np.maximum(count[of] - 1, 1)
    return task.matrix("train", weights=weights)
