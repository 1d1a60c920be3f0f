"""KAR on re-ranking: the adapted knowledge of the user and of each candidate joins the candidate's embedding.

Xi et al., RecSys 2024, arXiv 2306.10933; stages 1 and 2 are those of `rec_utils.papers.kar`. Candidate j of
a list enters the model as [item embedding ; a_u ; a_i_j]. KAR's code hands the vectors to DLCM, PRM and
SetRank only; its MIR leaves them out. Here every model takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils import rerank
from rec_utils.crossfit import Arm
from rec_utils.papers.kar import KAR, HybridExpertAdaptor
from rec_utils.rerank_lists import ListBatch, Lists


class KARReranker(KAR):
    """A re-ranking model with [a_u ; a_i_j] as dense part of every candidate; see `KAR` for the arguments."""

    def forward(self, batch: ListBatch) -> Tensor:
        """Scores [B, n]; a user and an item are adapted once a batch."""
        adapted = []
        for side in self.adaptor.sides:
            rows = batch.item_row if side == "item" else batch.user_row[:, None].expand_as(batch.item_row)
            present, place = rows.unique(return_inverse=True)
            table = self.adaptor.side(side, getattr(self, f"vectors_{side}")[present])
            adapted.append(F.embedding(place, table))
        return self.backbone(batch, torch.cat(adapted, dim=2))


def arm(
    vectors: Mapping[str, np.ndarray],
    *,
    model: str,
    model_settings: Mapping[str, Any] = MappingProxyType({}),
    adaptor_settings: Mapping[str, Any] = MappingProxyType({}),
) -> Arm:
    """An arm of a comparison: a re-ranking model with the knowledge in `vectors`, or plain without any.

    Args:
        vectors: side -> [rows, m], see `KAR`; empty for the base.
        model: a name in `rerank.MODELS`.
        model_settings: passed to `rerank.build`.
        adaptor_settings: passed to `HybridExpertAdaptor`.
    """

    def build(lists: Lists, seed: int) -> nn.Module:
        if not vectors:
            return rerank.build(model, lists, seed=seed, **model_settings)
        m = next(iter(vectors.values())).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            adaptor = HybridExpertAdaptor(list(vectors), m, **adaptor_settings)
        base = rerank.build(model, lists, dense_dim=adaptor.out_dim, seed=seed, **model_settings)
        return KARReranker(base, adaptor, {side: torch.from_numpy(table) for side, table in vectors.items()})

    return Arm(build, objective=rerank.objective(model))
