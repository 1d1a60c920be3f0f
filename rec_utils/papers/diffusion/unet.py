"""A small U-Net for square pictures of 8 x 8 or so, as DiffuASR uses it on embeddings.

Residual blocks with group norm go down through halved resolutions and up again, and every level on the way
up also reads what it was on the way down. Time and guide enter every block as a bias of its channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.layers import Dropout
from rec_utils.papers.diffusion.process import time_embedding

GROUPS = 8  #: of the group norm; a level's channels are a multiple


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x))) + bias(condition)))), x by a 1 x 1 convolution if need be."""

    def __init__(self, before: int, after: int, condition_dim: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for width in (before, after))
        self.convs = nn.ModuleList(nn.Conv2d(width, after, 3, padding=1) for width in (before, after))
        self.of_condition = nn.Linear(condition_dim, after)
        self.dropout = Dropout(dropout)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[B, before, s, s] and condition [B, condition_dim] -> [B, after, s, s]."""
        h = self.convs[0](F.silu(self.norms[0](x)))
        h = h + self.of_condition(F.silu(condition))[:, :, None, None]
        return self.shortcut(x) + self.convs[1](self.dropout(F.silu(self.norms[1](h))))


class UNet(nn.Module):
    """[B, in_channels, s, s] at steps t, given a guide, to [B, out_channels, s, s].

    Args:
        in_channels: of the picture.
        out_channels: of the output.
        width: channels of the first level, a multiple of 8.
        levels: how many times `width` each level has; s must be divisible by 2^(levels - 1).
        blocks: residual blocks of a level on the way down; one more on the way up.
        guide_dim: width of the guide; 0 for none.
        dropout: in every block.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 8,
        levels: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        guide_dim: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        condition_dim = 4 * width
        self.width = width
        self.of_time = nn.Sequential(
            nn.Linear(width, condition_dim), nn.SiLU(), nn.Linear(condition_dim, condition_dim)
        )
        self.of_guide = (
            nn.Sequential(
                nn.Linear(guide_dim, condition_dim), nn.SiLU(), nn.Linear(condition_dim, condition_dim)
            )
            if guide_dim
            else None
        )
        self.enter = nn.Conv2d(in_channels, width, 3, padding=1)
        now, kept = width, [width]  # channels now, and of what the way down leaves for the way up
        self.down = nn.ModuleList()
        for level, times in enumerate(levels):
            for _ in range(blocks):
                self.down.append(ResidualBlock(now, times * width, condition_dim, dropout))
                now = times * width
                kept.append(now)
            if level < len(levels) - 1:
                self.down.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                kept.append(now)
        self.middle = nn.ModuleList(ResidualBlock(now, now, condition_dim, dropout) for _ in range(2))
        self.up = nn.ModuleList()
        for level, times in reversed(list(enumerate(levels))):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(now + kept.pop(), times * width, condition_dim, dropout))
                now = times * width
            if level:
                self.up.append(nn.Conv2d(now, now, 3, padding=1))
        self.leave = nn.Sequential(
            nn.GroupNorm(GROUPS, now), nn.SiLU(), nn.Conv2d(now, out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor, guide: Tensor | None = None) -> Tensor:
        """[B, out_channels, s, s] from x [B, in_channels, s, s], t [B] and the guide [B, guide_dim]."""
        condition = self.of_time(time_embedding(t, self.width))
        if self.of_guide is not None:
            condition = condition + self.of_guide(guide)
        h = self.enter(x)
        kept = [h]
        for part in self.down:
            h = part(h, condition) if isinstance(part, ResidualBlock) else part(h)
            kept.append(h)
        for part in self.middle:
            h = part(h, condition)
        for part in self.up:
            if isinstance(part, ResidualBlock):
                h = part(torch.cat([h, kept.pop()], dim=1), condition)
            else:
                h = part(F.interpolate(h, scale_factor=2.0))
        return self.leave(h)
