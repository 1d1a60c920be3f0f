"""Layers that the models share: perceptron, DIN's attention, DIEN's attentional GRU, Transformer block.

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
            layers += [nn.Linear(in_dim, width), nn.ReLU(), nn.Dropout(dropout)]
            in_dim = width
        if out_dim is not None:
            layers.append(nn.Linear(in_dim, out_dim))
        super().__init__(*layers)


class Dice(nn.Module):
    """Data-adaptive activation of DIN (Zhou et al., KDD 2018, section 5.3).

    f(s) = p(s) s + (1 - p(s)) alpha s with p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + eps)); alpha is
    learned for each feature. E and Var are the batch's in training and running averages in evaluation,
    as the paper says. KAR's code takes the batch's in evaluation too, so that there a prediction depends on
    what else is in the batch; `batch_statistics = True` on the module does the same.
    """

    batch_statistics = False

    def __init__(self, dim: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(dim))
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [n, D] -> [n, D]; pass real steps only, so that padding never enters the statistics."""
        # One row has no variance; such a batch is normalised by the running averages.
        of_batch = (self.training or self.batch_statistics) and len(rows) > 1
        momentum = 0.1 if self.training else 0.0
        normed = F.batch_norm(
            rows, self.running_mean, self.running_var, training=of_batch, momentum=momentum, eps=self.eps
        )
        return rows * (self.alpha + (1 - self.alpha) * normed.sigmoid())


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
        # Not a matrix product: for a few steps a sample that is several times slower.
        return (self.weights(query, keys, mask)[..., None] * keys).sum(1)


class AUGRU(nn.Module):
    """GRU with an attentional update gate (DIEN, Zhou et al., AAAI 2019).

    With attention a_t, reset gate r and candidate state n of a GRU: h_t = (1 - a_t u) h_{t-1} + a_t u n.
    A step with attention 0 leaves the state as it was, so padding needs no more than that.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(in_dim, 3 * dim)
        self.of_state = nn.Linear(dim, 3 * dim)

    def forward(self, steps: Tensor, attention: Tensor) -> Tensor:
        """Last state [B, D] for steps [B, L, in_dim] and attention [B, L] in 0..1."""
        state = steps.new_zeros(len(steps), self.of_state.in_features)
        # Only the recurrence runs step by step; the inputs' part of all gates is one product before it.
        for of_input, weight in zip(self.of_input(steps).unbind(1), attention.unbind(1), strict=True):
            reset, update, new = of_input.chunk(3, dim=1)
            state_reset, state_update, state_new = self.of_state(state).chunk(3, dim=1)
            new = torch.tanh(new + torch.sigmoid(reset + state_reset) * state_new)
            update = weight[:, None] * torch.sigmoid(update + state_update)
            state = state + update * (new - state)
        return state


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the real steps of scores [..., L]; zeros in padding, also where no step is real."""
    lowest = torch.finfo(scores.dtype).min  # not -inf: a sample without a real step would become NaN
    return scores.masked_fill(~mask, lowest).softmax(dim=-1) * mask


def padding_last(history: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the padding of history [B, L, ...] and mask [B, L] from the left of the real steps to their right.

    A recurrent layer then meets every real step with a state that no padding has touched.
    """
    length = mask.sum(1, keepdim=True)
    steps = torch.arange(mask.shape[1], device=mask.device)
    source = (steps - length) % mask.shape[1]
    return history[torch.arange(len(mask), device=mask.device)[:, None], source], steps < length


class Dropout(nn.Module):
    """`nn.Dropout` several times faster on a CPU: 16 random bits decide on each value, not a double.

    So p is rounded to a multiple of 2^-16; the mean stays exact. The bits are torch's global generator's.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        dropped = round(self.p * 2**16)
        if not self.training or not dropped:
            return x
        if x.is_cuda:
            return F.dropout(x, self.p)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = (bits[: x.numel()] >= dropped - 2**15).view(x.shape).to(x.dtype)
        return x * kept.mul_(2**16 / (2**16 - dropped))


class Block(nn.Module):
    """Transformer block, normalised before each part: x + attention(norm(x)), then x + MLP(norm(x)).

    As `nn.TransformerEncoderLayer` with `norm_first`, but with `Dropout`; and it may compute the state of one
    step a sequence alone, as a last block should whose other states nobody reads.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, activation: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.query, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, hidden), activation, Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor, step: Tensor | None = None) -> Tensor:
        """States [B, L, D] -> [B, L, D], or [B, 1, D] at the steps `step` [B].

        `visible` [B or 1, L or 1, L] is True where the step of its row may look at that of its column.
        """
        normed = self.norms[0](x)
        own = normed
        if step is not None:
            rows = torch.arange(len(x), device=x.device)
            own, x = normed[rows, step][:, None], x[rows, step][:, None]
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(own), *self.key_value(normed).chunk(2, dim=2))
        )
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(dim=3)
        met = self.out((self.dropout(weights) @ value).transpose(1, 2).flatten(2))
        x = x + self.dropout(met)
        return x + self.dropout(self.feed_forward(self.norms[1](x)))
