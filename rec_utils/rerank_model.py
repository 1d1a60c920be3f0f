"""What all re-ranking models share: the look-up of candidates, the losses of lists, and their size.

Shapes: B lists, n candidates, D width of a candidate's vector x_j = [embeddings of its fields ; dense_j].
A score of -inf marks padding: no loss counts it, and no metric ranks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.ctr import HIDDEN
from rec_utils.ctr_model import Fields, Inputs
from rec_utils.errors import UserError
from rec_utils.metrics import map_at_k
from rec_utils.rerank_lists import ListBatch

#: Width of the recurrent states of DLCM, MIR and Seq2Slate.
STATE_DIM = 64
#: Heads of every self-attention.
HEADS = 2


class ListFields(Fields, Protocol):
    """What lists tell a model: their ids, and how many candidates they have."""

    @property
    def n_candidates(self) -> int:
        """Candidates of a list, n, padding included."""


def item_loss(scores: Tensor, label: Tensor) -> Tensor:
    """Mean binary cross-entropy of every candidate's logit; scores and label [B, n]."""
    real = scores > -torch.inf
    return F.binary_cross_entropy_with_logits(scores[real], label[real])


def attention_loss(scores: Tensor, label: Tensor, temperature: float = 0.5) -> Tensor:
    """Attention rank loss (Ai et al., SIGIR 2018, section 4.3) as in KAR's code; scores and label [B, n].

    Scores and labels become distributions over the list, p_j = t(x_j) / sum_k t(x_k) with t(x) =
    exp(x / temperature) where x > 0 and 0 elsewhere. The loss is the mean of the binary cross-entropy
    between p(label)_j and p(scores)_j. A list without a positive label has p(label) = 0, and a candidate
    with a score of 0 or less gets no gradient.
    """
    real = scores > -torch.inf
    shares = _distribution(scores, temperature), _distribution(label, temperature)
    return F.binary_cross_entropy(shares[0][real], shares[1][real])


def _distribution(x: Tensor, temperature: float) -> Tensor:
    positive = x > 0
    highest = x.detach().amax(dim=1, keepdim=True)  # shifting all x of a list changes no ratio
    weight = torch.where(positive, torch.exp((x - highest) / temperature), 0)
    return weight / weight.sum(1, keepdim=True).clamp(min=1e-20)


def map5(label: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """MAP@5 of lists [N, n]: what chooses the epoch of a re-ranker, as the score of an `Objective`."""
    return {"map5": float(map_at_k(label, score, 5).mean())}


class Reranker(nn.Module):
    """One table of embeddings for all ids, and the candidates looked up in it.

    A model implements `_scores(batch, x)` for candidates x [B, n, D].
    """

    loss: Callable[[Tensor, Tensor], Tensor] = staticmethod(item_loss)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        self.width = inputs.item_dim + inputs.dense_dim
        self.embedding = nn.Embedding(inputs.n_ids, inputs.embed_dim, padding_idx=0)

    def forward(self, batch: ListBatch, dense: Tensor | None = None) -> Tensor:
        """Scores [B, n] of a batch, given dense [B, n, dense_dim] if the model was built with it."""
        scores = self._scores(batch, self._candidates(batch, dense))
        return scores if batch.real is None else scores.masked_fill(~batch.real, -torch.inf)

    def _candidates(self, batch: ListBatch, dense: Tensor | None) -> Tensor:
        """x [B, n, D]."""
        items = self.embedding(batch.item).flatten(2)
        columns = 0 if dense is None else dense.shape[2]
        if columns != self.inputs.dense_dim:
            raise UserError(f"dense has {columns} columns, not dense_dim={self.inputs.dense_dim}")
        return items if dense is None else torch.cat([items, dense], dim=2)

    def _scores(self, batch: ListBatch, x: Tensor) -> Tensor:
        raise NotImplementedError


def padded(batch: ListBatch) -> Tensor | None:
    """[B, n] True where a candidate is padding, as PyTorch's attention takes it; None if all are real."""
    return None if batch.real is None else ~batch.real


def tapered(width: int) -> tuple[int, int]:
    """Widths of a final perceptron whose first layer has `width` units: (200, 80) for 200."""
    return width, round(width * HIDDEN[1] / HIDDEN[0])


def n_parameters(model: nn.Module) -> int:
    """How many numbers are trained outside the table of embeddings, `model.embedding`."""
    table = model.embedding.weight
    return sum(p.numel() for p in model.parameters() if p.requires_grad and p is not table)


def width_for(build: Callable[[int], nn.Module], budget: int, *, step: int = 1, most: int = 4096) -> int:
    """The width, a multiple of `step` up to `most`, with which a model comes nearest to `budget` parameters.

    Parameters are those of `n_parameters`, and must grow with the width.

    Args:
        build: width -> model.
        budget: parameters to come near to.
        step: of what the width must be a multiple, such as the number of heads.
        most: the widest that may be chosen.
    """
    low, high = 1, most // step
    while low < high:
        middle = (low + high) // 2
        if n_parameters(build(middle * step)) < budget:
            low = middle + 1
        else:
            high = middle
    nearest = (step * low, step * max(1, low - 1))  # the first that reaches the budget, and the one below
    return min(nearest, key=lambda width: abs(n_parameters(build(width)) - budget))
