"""HEIN, REKI's integration network, over groups: KAR's hybrid-expert adaptor with one vector a group.

Items and users share few vectors, one a group. So the adaptor maps each group once a step instead of once
a sample and every sample looks its groups up: the same numbers as `kar.KAR` with the vectors spread over
the rows, in a fraction of the time. Only dropout inside the experts differs, which is drawn once a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec_utils import ctr
from rec_utils.batches import Batch, CTRSamples
from rec_utils.crossfit import Arm
from rec_utils.ctr import CTRModel
from rec_utils.papers.kar import HybridExpertAdaptor
from rec_utils.papers.reki import Grouping, id_codes, title_means

#: One side's knowledge: vectors [G, m] of its groups and the group [R] of each item or user, -1 for none.
Side = tuple[np.ndarray, np.ndarray]


class HEIN(nn.Module):
    """A CTR model with the adapted knowledge of the groups of its item and user as extra dense fields.

    Args:
        backbone: built with dense_dim = adaptor.out_dim.
        adaptor: of the sides in `sides`.
        sides: "item" for items; every other name is a side of users.
    """

    def __init__(self, backbone: CTRModel, adaptor: HybridExpertAdaptor, sides: Mapping[str, Side]) -> None:
        super().__init__()
        self.backbone, self.adaptor = backbone, adaptor
        for name, (vectors, group) in sides.items():
            nothing = np.zeros_like(vectors[:1])  # a last row, for those without a group
            self.register_buffer(
                f"vectors_{name}", torch.from_numpy(np.concatenate([vectors, nothing])), False
            )
            group = np.where(group < 0, len(vectors), group)
            self.register_buffer(f"group_{name}", torch.from_numpy(group), False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B]."""
        dense = []
        for name in self.adaptor.sides:
            adapted = self.adaptor.side(name, getattr(self, f"vectors_{name}"))
            row = batch.item_row if name == "item" else batch.user_row
            dense.append(adapted.index_select(0, getattr(self, f"group_{name}")[row]))
        return self.backbone(batch, torch.cat(dense, dim=-1))


def title_sides(groupings: Mapping[str, Grouping], item_vectors: np.ndarray) -> dict[str, Side]:
    """No language model: the mean of the vectors [I, m] of each group's items, see `reki.title_means`."""
    means = {name: title_means(_groups_alone(made), item_vectors) for name, made in groupings.items()}
    return {name: (means[name], made.group) for name, made in groupings.items()}


def id_sides(groupings: Mapping[str, Grouping]) -> dict[str, Side]:
    """No text: the groups' numbers, to be embedded by the adaptor's first layer, see `reki.id_codes`."""
    codes = id_codes({name: _groups_alone(made) for name, made in groupings.items()})
    return {name: (codes[name], made.group) for name, made in groupings.items()}


def _groups_alone(grouping: Grouping) -> Grouping:
    """The groups themselves as rows, each in its own group."""
    return replace(grouping, group=np.arange(len(grouping.items)))


def arm(
    sides: Mapping[str, Side],
    *,
    backbone: str = "DIN",
    backbone_settings: Mapping[str, Any] = MappingProxyType({}),
    adaptor_settings: Mapping[str, Any] = MappingProxyType({}),
) -> Arm:
    """An arm of a comparison: `backbone` with the knowledge of the groups of `sides`, see `kar.arm`."""

    def build(samples: CTRSamples, seed: int) -> nn.Module:
        m = next(iter(sides.values()))[0].shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            adaptor = HybridExpertAdaptor(list(sides), m, **adaptor_settings)
        base = ctr.build(backbone, samples, dense_dim=adaptor.out_dim, seed=seed, **backbone_settings)
        return HEIN(base, adaptor, sides)

    return Arm(build)
