"""Next-item models on sequences: SASRec and GRU4Rec, both with full cross-entropy.

A model reads a user's items in time order and scores every item as the next. Training asks for the next item
after every step at once, against all items: with the loss of a few sampled negatives that the papers used,
these models look weaker than they are (Klenitskiy and Vasilev, RecSys 2023).

Shapes: B sequences, L steps, I items, d `dim`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.layers import Block, Dropout
from rec_utils.sequences import SequenceBatch, by_length, in_order


class NextItem(nn.Module):
    """An embedding of the items, a reader of sequences, and scores <state, item>; 0 is padding.

    A model implements `read(history)`: items [B, L], padded on the right, to states [B, L, d], of which the
    one at step l knows the items up to l and no others.
    """

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, dim, padding_idx=0)
        nn.init.normal_(self.items.weight, std=dim**-0.5)
        self.items.weight.data[0] = 0

    def read(self, history: Tensor) -> Tensor:
        """States [B, L, d]."""
        raise NotImplementedError

    def forward(self, batch: SequenceBatch) -> Tensor:
        """Cross-entropy [n] of the n real targets in `batch.label` [B, L], in no particular order."""
        losses = []
        for _, part in by_length(batch):
            real = part.label > 0
            logits = self.read(part.history)[real] @ self.items.weight[1:].T
            losses.append(F.cross_entropy(logits, part.label[real] - 1, reduction="none"))
        return torch.cat(losses)

    @torch.no_grad()
    def scores(self, batch: SequenceBatch) -> Tensor:
        """Scores [B, I] of items 1 … I after the last step of every history."""
        states = in_order(
            (rows, last(self.read(part.history), part.length)) for rows, part in by_length(batch)
        )
        return states @ self.items.weight[1:].T


class SASRec(NextItem):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

    Causal Transformer blocks, normalised before each part, over items plus learned positions.
    """

    def __init__(
        self,
        n_items: int,
        *,
        length: int = 50,
        dim: int = 64,
        blocks: int = 2,
        heads: int = 1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(n_items, dim)
        self.position = nn.Parameter(torch.randn(length, dim) * dim**-0.5)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, dim, dropout, nn.ReLU()) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)

    def read(self, history: Tensor) -> Tensor:
        """States [B, L, d]; padding comes last, so the causal mask alone hides it from every real step."""
        steps = history.shape[1]
        states = self.items(history) * self.items.embedding_dim**0.5 + self.position[:steps]
        states = self.dropout(states)
        earlier = torch.ones(1, steps, steps, dtype=torch.bool, device=states.device).tril()
        for block in self.blocks:
            states = block(states, earlier)
        return self.norm(states)


class GRU4Rec(NextItem):
    """A GRU over the sequence (Hidasi et al., ICLR 2016), its states mapped to the width of the items."""

    def __init__(self, n_items: int, *, dim: int = 64, hidden: int = 128, dropout: float = 0.2) -> None:
        super().__init__(n_items, dim)
        self.reader = nn.GRU(dim, hidden, batch_first=True)
        self.out = nn.Linear(hidden, dim)
        self.dropout = Dropout(dropout)

    def read(self, history: Tensor) -> Tensor:
        """States [B, L, d]."""
        return self.out(self.reader(self.dropout(self.items(history)))[0])


def last(states: Tensor, length: Tensor) -> Tensor:
    """The state [B, d] at the last real step of states [B, L, d]; length [B] >= 1."""
    return states[torch.arange(len(states), device=states.device), length - 1]
