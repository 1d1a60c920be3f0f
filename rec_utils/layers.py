"""Layers that the models share: perceptron, pooling over the history, DIN's attention with Dice.

Shapes: B samples, L history steps, D features. A mask [B, L] is True where a step is real.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLP(nn.Sequential):
    """Linear, ReLU and dropout for every width in `hidden`; then a plain Linear to `out_dim`, if given."""

    def __init__(
        self, in_dim: int, hidden: Sequence[int], out_dim: int | None = None, *, dropout: float = 0.0
    ) -> None:
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(in_dim, width), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_dim = width
        if out_dim is not None:
            layers.append(nn.Linear(in_dim, out_dim))
        super().__init__(*layers)


def masked_mean(steps: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real steps: steps [B, L, ...], mask [B, L] -> [B, ...]; zeros where no step is real."""
    weight = mask.to(steps.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bl,bl...->b...", weight, steps)


class Dice(nn.Module):
    """Data-adaptive activation of DIN (Zhou et al., KDD 2018, section 5.3).

    f(s) = p(s) s + (1 - p(s)) alpha s with p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + eps)); alpha is
    learned for each feature. E and Var are the batch's in training, and running averages of them in
    evaluation. The original code, and KAR's, take the batch's in evaluation too, so there a prediction
    depends on what else is in the batch.
    """

    def __init__(self, dim: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(dim))
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [n, D] -> [n, D]; pass real steps only, so that padding never enters the statistics."""
        # One row has no variance; such a batch is normalised by the running averages.
        training = self.training and len(rows) > 1
        normed = F.batch_norm(rows, self.running_mean, self.running_var, training=training, eps=self.eps)
        return rows * torch.lerp(self.alpha, torch.ones_like(self.alpha), normed.sigmoid())


class TargetAttention(nn.Module):
    """DIN's attention of the candidate over the history, a weighted sum without softmax.

    The weight of a step is an MLP with Dice on [q, k, q - k, q * k], q the candidate and k the step.
    Its first layer W = [W1 W2 W3 W4] is applied as (W1 + W3) q + (W2 - W3) k + W4 (q * k), so the part
    of the candidate is computed once a sample and the [B, L, 4D] input is never built.
    """

    def __init__(self, dim: int, hidden: tuple[int, int] = (32, 16), *, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(4 * dim, hidden[0])
        self.rest = nn.Sequential(
            Dice(hidden[0]),
            nn.Dropout(dropout),
            nn.Linear(hidden[0], hidden[1]),
            Dice(hidden[1]),
            nn.Dropout(dropout),
            nn.Linear(hidden[1], 1),
        )

    def weights(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Weight [B, L] of every step of keys [B, L, D] for query [B, D]; 0 where the step is padding."""
        w_query, w_key, w_difference, w_product = self.first.weight.chunk(4, dim=1)
        of_query = F.linear(query, w_query + w_difference, self.first.bias)
        of_keys = F.linear(keys, w_key - w_difference)
        of_product = F.linear(query[:, None] * keys, w_product)
        hidden = of_query[:, None] + of_keys + of_product
        real = mask.flatten().nonzero().squeeze(1)
        scores = self.rest(hidden.flatten(0, 1).index_select(0, real)).squeeze(1)
        return scores.new_zeros(mask.numel()).index_copy(0, real, scores).view_as(mask)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """Interest [B, D] of query [B, D] in keys [B, L, D]."""
        return torch.einsum("bl,bld->bd", self.weights(query, keys, mask), keys)
