"""Multi-head attention over tokens of which some, or even all, are padding.

PyTorch's own module returns NaN for a sample in which all is padding, such as a user without a history.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.layers import masked_softmax


class Attention(nn.Module):
    """Multi-head attention of queries [N, q, d] over tokens [N, t, d], some of which may be padding."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """[N, q, d]; mask [N, t] is False in padding. Where all is padding, nothing is mixed in."""
        parts = (
            self._split(self.query(queries)),
            self._split(self.key(tokens)),
            self._split(self.value(tokens)),
        )
        if mask is None:
            mixed = F.scaled_dot_product_attention(*parts)
        else:
            some = mask.any(1)[:, None, None, None]
            real = (mask[:, None, None] | ~some).expand(-1, self.heads, queries.shape[1], -1)
            mixed = F.scaled_dot_product_attention(*parts, attn_mask=real) * some
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """What `forward` mixes by: [N, heads, q, t]; zeros in padding."""
        query, key = self._split(self.query(queries)), self._split(self.key(tokens))
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        return masked_softmax(scores, mask[:, None, None])

    def _split(self, x: Tensor) -> Tensor:
        """[N, t, d] -> [N, heads, t, d / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)
