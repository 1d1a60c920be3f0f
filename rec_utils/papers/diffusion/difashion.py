"""DiFashion's guided generation of matching items, on pictures of digits.

Xu et al., "Diffusion Models for Generative Outfit Recommendation", SIGIR 2024, arXiv 2402.17279. The items of
an outfit are generated together from noise, all at the same step t, under three conditions each:

- *category*: what the item is to be; in the paper a text prompt, here an embedding of the digit;
- *mutual*: the mean of the other items' noisy pictures, mapped by an MLP to m and mixed into the item's own,
  (1 - eta) x_t + eta m, so that the items match;
- *history*: the mean of the user's past items of that category, as further input channels.

The paper finetunes Stable Diffusion on 512 x 512 pictures; here a perceptron denoises 8 x 8 ones. The
mechanism is the paper's: conditions are dropped in training, and in sampling each adds its term. The loss is
that of the noise, too, but the perceptron gives x_0, from which the noise follows: to give the noise, it
would have to copy x_t, and does not learn what the other items tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.errors import UserError
from rec_utils.papers.diffusion.digits import N_CATEGORIES, SIDE, OutfitBatch
from rec_utils.papers.diffusion.process import Process, ddim, standard_normal, time_embedding
from rec_utils.papers.diffusion.schedules import scaled_linear

PIXELS = SIDE * SIDE


@dataclass(frozen=True)
class Guidance:
    """Strength of each term in sampling; 0 leaves it out.

    The paper has 12, 5 and 4 for Stable Diffusion; these are set for the small denoiser.
    """

    category: float = 3.0
    mutual: float = 3.0
    history: float = 2.0

    def combine(self, null: Tensor, category: Tensor, mutual: Tensor, all_three: Tensor) -> Tensor:
        """The guided noise from predictions without conditions, with the first, the first two and all three.

        null + s_c (category - null) + s_m (mutual - category) + s_h (all_three - mutual).
        """
        return (
            null
            + self.category * (category - null)
            + self.mutual * (mutual - category)
            + self.history * (all_three - mutual)
        )


class Denoiser(nn.Module):
    """Predicts x_0 [n, P] from the mixed picture and the history [n, P], the category [n] and t [n].

    A perceptron with residual blocks, in which category and time are added to every hidden layer. Category
    10 stands for none.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Linear(2 * PIXELS, width)
        self.of_time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.of_category = nn.Embedding(N_CATEGORIES + 1, width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)])
            for _ in range(blocks)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, PIXELS))

    def forward(self, x: Tensor, history: Tensor, category: Tensor, t: Tensor) -> Tensor:
        """x_0 [n, P]."""
        condition = self.of_time(time_embedding(t, self.width)) + self.of_category(category)
        h = self.enter(torch.cat([x, history], dim=1))
        for norm, first, second in self.blocks:
            h = h + second(F.silu(first(norm(h)) + condition))
        return self.leave(h)


class DiFashion(nn.Module):
    """The generator of outfits.

    In training each item loses its history with r < 0.5 and the mutual part with 0.2 <= r < 0.7 of one r
    drawn from 0 to 1, and its category with probability 0.2, independently. A lost picture is a grey one, 0.

    Args:
        width: of the denoiser.
        blocks: of the denoiser.
        steps: T, see `schedules.scaled_linear`.
        eta: share of the mutual part.
        gamma: of the loss weights min(SNR, gamma) / SNR.
    """

    NO_HISTORY, NO_MUTUAL, NO_CATEGORY = (0.0, 0.5), (0.2, 0.7), 0.2

    def __init__(
        self, *, width: int = 192, blocks: int = 3, steps: int = 1000, eta: float = 0.1, gamma: float = 5.0
    ) -> None:
        super().__init__()
        self.process = Process(scaled_linear(steps))
        self.denoiser = Denoiser(width, blocks)
        self.mutual = nn.Sequential(
            nn.Linear(PIXELS, width), nn.LeakyReLU(), nn.Dropout(0.1), nn.Linear(width, PIXELS), nn.Tanh()
        )
        self.eta, self.gamma = eta, gamma

    def predict(
        self,
        x: Tensor,
        batch: OutfitBatch,
        t: Tensor,
        category: Tensor,
        mutual: Tensor,
        history: Tensor,
        wanted: Tensor,
    ) -> Tensor:
        """Noise [n, P] in the n `wanted` ones of pictures x [B, 4, P] at steps t [B].

        The last four are [B, 4]: for which items the three conditions are known, and which are wanted.
        """
        others = (x.sum(1, keepdim=True) - x) / (x.shape[1] - 1)
        known = torch.where(category, batch.category, N_CATEGORIES)
        past = batch.history * history[..., None]
        parts = (x, others, mutual, past, known, t[:, None].expand_as(known))
        x, others, mutual, past, known, steps = (part[wanted] for part in parts)
        mixed = (1 - self.eta) * x + self.eta * self.mutual(others) * mutual[:, None]
        return self.process.noise_of(self.denoiser(mixed, past, known, steps), x, steps)

    def forward(self, batch: OutfitBatch) -> Tensor:
        """Weighted squared error [B, 4] of the noise; all items of an outfit are at the same step."""
        x0 = batch.image
        t = torch.randint(len(self.process), (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        r, s = torch.rand(2, *x0.shape[:2], device=x0.device)
        history, mutual = (~((r >= low) & (r < high)) for low, high in (self.NO_HISTORY, self.NO_MUTUAL))
        xt = self.process.q_sample(x0, t, noise)
        every = torch.ones_like(mutual)
        predicted = self.predict(xt, batch, t, s >= self.NO_CATEGORY, mutual, history, every).view_as(noise)
        return self.process.min_snr_weight(t, self.gamma)[:, None] * (noise - predicted).square().mean(2)

    @torch.no_grad()
    def generate(
        self,
        batch: OutfitBatch,
        blank: Tensor,
        guidance: Guidance = Guidance(),
        *,
        steps: int = 50,
        seed: int = 0,
    ) -> Tensor:
        """Pictures [B, 4, P]: those of `batch`, with new ones where `blank` [B, 4] is True.

        One blank is the paper's task "fill in the blank", four are "generative outfit recommendation". The
        items that are there take part as their noisy pictures at each step. Predicted pictures are clipped
        to -1 ... 1. The same seed draws the same noise, whatever the guidance.

        Raises:
            UserError: no item is blank.
        """
        if not blank.any():
            raise UserError("nothing to generate: no item of the outfits is blank")
        generator = torch.Generator().manual_seed(seed)
        start, noise = (standard_normal(batch.image.shape, generator, blank.device) for _ in range(2))
        none, every = torch.zeros_like(blank), torch.ones_like(blank)
        known = ((none, none, none), (every, none, none), (every, every, none), (every, every, every))

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            x = torch.where(blank[..., None], x, self.process.q_sample(batch.image, t, noise))
            guided = guidance.combine(*(self.predict(x, batch, t, *what, blank) for what in known))
            x0 = self.process.x0_of(guided, x[blank], t[:, None].expand_as(blank)[blank]).clamp(-1, 1)
            return batch.image.masked_scatter(blank[..., None], x0)

        return ddim(self.process, denoise, start, steps=steps)
