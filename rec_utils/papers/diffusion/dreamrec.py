"""DreamRec: the embedding of the next item is generated from noise, guided by the history.

Yang et al., "Generate What You Prefer: Reshaping Sequential Recommendation via Guided Diffusion", NeurIPS
2023, arXiv 2310.20453. x_0 is the embedding of the next item, the "oracle item"; a denoiser predicts it from
x_t, t and the state h of a causal Transformer over the last ten items. The loss is |x_0 - predicted|^2 alone,
without any negative item. At inference a vector is generated from pure noise with classifier-free guidance,
and the items are ranked by their inner product with it.

Nothing but their random start keeps the embeddings apart, since they move under a loss that is lowest when
all are equal; `mean_cosine` watches for that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.layers import Dropout, masked_softmax
from rec_utils.papers.diffusion.process import Process, ancestral, standard_normal, time_embedding
from rec_utils.papers.diffusion.schedules import linear
from rec_utils.sequences import SequenceBatch


class Reader(nn.Module):
    """The state h [B, d] at the last step of one causal Transformer block with one head.

    Only the last step's state is needed, so only its query is computed. As in the authors' code the query is
    normalised and added to what it attends to, keys and values are not normalised.
    """

    def __init__(self, dim: int, length: int, dropout: float) -> None:
        super().__init__()
        self.position = nn.Embedding(length, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), Dropout(dropout), nn.Linear(dim, dim), Dropout(dropout)
        )
        self.dropout = Dropout(dropout)

    def forward(self, items: Tensor, length: Tensor) -> Tensor:
        """State [B, d] of embeddings [B, L, d], of which the first `length` [B] are real."""
        step = torch.arange(items.shape[1], device=items.device)
        x = self.dropout(items + self.position(step))
        query = self.norms[0](x[torch.arange(len(x), device=x.device), length - 1])
        real = step < length[:, None]
        scores = (self.query(query)[:, None] * self.key(x)).sum(2) * query.shape[1] ** -0.5
        weights = self.dropout(masked_softmax(scores, real))
        met = (weights[..., None] * self.value(x)).sum(1)
        met = self.norms[1](met + query)
        return self.norms[2](met + self.feed_forward(met))


class DreamRec(nn.Module):
    """DreamRec with the denoiser "mlp1": one linear map of [x_t ; h ; tau_t].

    Args:
        n_items: I; items count from 1.
        betas: schedule [T]; linear from 1e-4 to 0.02 over 500 steps by default.
        length: L, the last items that are read.
        dim: d.
        guidance: w of (1 + w) f(x_t, h, t) - w f(x_t, null, t); 0 for none.
        null_share: how often h is replaced by the learned null vector in training.
        dropout: of the reader.
    """

    def __init__(
        self,
        n_items: int,
        *,
        betas: Tensor | None = None,
        length: int = 10,
        dim: int = 64,
        guidance: float = 2.0,
        null_share: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.process = Process(linear(500) if betas is None else betas)
        self.items = nn.Embedding(n_items + 1, dim)  # N(0, 1); row 0 is padding
        self.null = nn.Parameter(torch.randn(dim))
        self.reader = Reader(dim, length, dropout)
        self.of_time = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.denoiser = nn.Linear(3 * dim, dim)
        self.guidance, self.null_share = guidance, null_share

    def denoise(self, x: Tensor, h: Tensor, t: Tensor) -> Tensor:
        """Predicted x_0 [B, d]."""
        tau = self.of_time(time_embedding(t, x.shape[1]))
        return self.denoiser(torch.cat([x, h, tau], dim=1))

    def forward(self, batch: SequenceBatch) -> Tensor:
        """Loss [B] at uniform steps t."""
        x0 = self.items(batch.label)
        h = self.reader(self.items(batch.history), batch.length)
        dropped = torch.rand(len(h), 1, device=h.device) < self.null_share
        h = torch.where(dropped, self.null, h)
        t = torch.randint(len(self.process), (len(h),), device=h.device)
        xt = self.process.q_sample(x0, t, torch.randn_like(x0))
        return (x0 - self.denoise(xt, h, t)).square().mean(1)

    @torch.no_grad()
    def generate(
        self,
        batch: SequenceBatch,
        *,
        generator: torch.Generator,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """An embedding [B, d] for the item after each history.

        Args:
            batch: the histories.
            generator: draws x_T and the noise of each step.
            guidance: w; that of the model by default.
            steps: how many of the last steps, from noise; all by default.
        """
        w = self.guidance if guidance is None else guidance
        h = self.reader(self.items(batch.history), batch.length)

        def guided(x: Tensor, t: Tensor) -> Tensor:
            predicted = self.denoise(x, h, t)
            return (
                predicted if w == 0 else (1 + w) * predicted - w * self.denoise(x, self.null.expand_as(h), t)
            )

        start = standard_normal(h.shape, generator, h.device)
        return ancestral(self.process, guided, start, generator=generator, steps=steps)

    def scores(self, batch: SequenceBatch, *, seed: int = 0, **sampling: float | int | None) -> Tensor:
        """Scores [B, I] of items 1 … I; padding is no candidate (in the authors' code it is).

        `sampling` are settings of `generate`; the noise is drawn by `seed`.
        """
        generator = torch.Generator().manual_seed(seed)
        return (self.generate(batch, generator=generator, **sampling) @ self.items.weight[1:].T).detach()


def mean_cosine(vectors: Tensor) -> float:
    """Mean cosine of all pairs of different rows of [n, d]: 0 for random directions, 1 for a collapse."""
    unit = F.normalize(vectors.detach().double())
    n = len(unit)
    return float((unit.sum(0).square().sum() - n) / (n * (n - 1)))
