"""DiffuRec: a Transformer reads the history mixed with the noised target, and predicts the target.

Li et al., "DiffuRec: A Diffusion Model for Sequential Recommendation", ACM TOIS 2023, arXiv 2304.00686. The
embedding of the target is noised to x_t and mixed into every step of the history,
z_l = e_l + lambda_l * (x_t + tau_t), with lambda drawn from N(delta, delta) for every element. The output at
the last step is the prediction of x_0. The loss is not a distance to x_0 but the cross-entropy of
<prediction, e_i> over all items, so the embeddings cannot collapse. At inference x_T is pure noise, and every
one of the T steps runs the whole Transformer.

With delta = 0.001, x_t hardly enters: what the T steps add can be seen by `steps` = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.layers import Block, Dropout
from rec_utils.papers.diffusion.process import Process, ancestral, standard_normal, time_embedding
from rec_utils.papers.diffusion.schedules import truncated_linear
from rec_utils.sequences import SequenceBatch, by_length, in_order


class DiffuRec(nn.Module):
    """DiffuRec; the defaults are those of the authors' code.

    There the attention's mask is laid over the queries, so that real steps attend to padding; here padding is
    hidden. There is no embedding of positions, in their code neither (it is commented out): the model knows
    the last step only as the place where the output is read.

    Args:
        n_items: I; items count from 1.
        steps: T of the schedule.
        dim: d.
        blocks: Transformer blocks.
        heads: of each block.
        delta: mean and standard deviation of lambda.
        dropout: of blocks and output.
        item_dropout: of the history's embeddings.
    """

    def __init__(
        self,
        n_items: int,
        *,
        steps: int = 32,
        dim: int = 128,
        blocks: int = 4,
        heads: int = 4,
        delta: float = 1e-3,
        dropout: float = 0.1,
        item_dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.process = Process(truncated_linear(steps))
        self.items = nn.Embedding(n_items + 1, dim)
        self.norm = nn.LayerNorm(dim)
        self.of_time = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, 4 * dim, dropout, nn.GELU("tanh")) for _ in range(blocks)
        )
        self.out_norm = nn.LayerNorm(dim)
        self.delta, self.dropout, self.item_dropout = delta, Dropout(dropout), Dropout(item_dropout)

    def read(self, history: Tensor) -> Tensor:
        """Embeddings e [B, L, d] of the history."""
        return self.norm(self.item_dropout(self.items(history)))

    def denoise(self, e: Tensor, length: Tensor, x: Tensor, t: Tensor, mix: Tensor) -> Tensor:
        """Predicted x_0 [B, d] from the history's e [B, L, d], x_t [B, d], t [B] and lambda [B, L, d]."""
        # t runs to 1000, whatever T is
        tau = self.of_time(time_embedding(t * (1000 / len(self.process)), x.shape[1]))
        states = e + mix * (x + tau)[:, None]
        real = (torch.arange(e.shape[1], device=e.device) < length[:, None])[:, None]
        for block in self.blocks[:-1]:
            states = block(states, real)
        at_last = self.blocks[-1](states, real, length - 1)[:, 0]
        return self.out_norm(self.dropout(at_last))

    def forward(self, batch: SequenceBatch) -> Tensor:
        """Cross-entropy [B] at uniform steps t."""
        x0 = self.items(batch.label)
        t = torch.randint(len(self.process), (len(x0),), device=x0.device)
        xt = self.process.q_sample(x0, t, torch.randn_like(x0))
        parts = []
        for rows, part in by_length(batch):
            e = self.read(part.history)
            mix = self.delta * (1 + torch.randn_like(e))
            parts.append((rows, self.denoise(e, part.length, xt[rows], t[rows], mix)))
        logits = in_order(parts) @ self.items.weight[1:].T
        return F.cross_entropy(logits, batch.label - 1, reduction="none")

    @torch.no_grad()
    def scores(self, batch: SequenceBatch, *, seed: int = 0, steps: int | None = None) -> Tensor:
        """Scores [B, I] of items 1 … I, after `steps` ancestral steps from noise, all T by default."""
        generator = torch.Generator().manual_seed(seed)

        def generate(part: SequenceBatch) -> Tensor:
            e = self.read(part.history)

            def predict(x: Tensor, t: Tensor) -> Tensor:
                mix = self.delta * (1 + standard_normal(e.shape, generator, e.device))
                return self.denoise(e, part.length, x, t, mix)

            start = standard_normal(e[:, 0].shape, generator, e.device)
            return ancestral(self.process, predict, start, generator=generator, steps=steps)

        x0 = in_order((rows, generate(part)) for rows, part in by_length(batch))
        return x0 @ self.items.weight[1:].T
