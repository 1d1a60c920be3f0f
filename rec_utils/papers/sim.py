"""SIM: the long history searched for what is like the candidate; a baseline of LIBER that needs no texts.

Pi et al., "Search-based User Interest Modeling with Lifelong Sequential Behavior Data for Click-Through
Rate Prediction", CIKM 2020, arXiv 2006.05639. Two stages, one section each:

1. *General search unit*: the k behaviours of a user's long history that are most relevant to the candidate.
   Hard search takes the latest k of the candidate's category, here an item's first genre; soft search the
   k largest inner products with the candidate's vector.
2. *Exact search unit*: attention of the candidate over them. Here they stand before the recent history that
   the backbone reads, so that DIN's target attention weighs both; SIM's has several heads and time gaps.

SIM learns the vectors of soft search with the model; here they are given, so both searches run once, before
training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec_utils import ctr
from rec_utils.batches import Batch, CTRSamples
from rec_utils.crossfit import Arm
from rec_utils.ctr import CTRModel
from rec_utils.errors import UserError
from rec_utils.progress import bar
from rec_utils.samples import CTRTask

#: Candidates of one user that are searched at once: bounds the memory where a user has very many ratings.
BLOCK = 512

# 1 General search unit


def search(task: CTRTask, k: int, upto: np.ndarray, vectors: np.ndarray | None = None) -> np.ndarray:
    """What is retrieved of its user's history for every interaction as the candidate.

    Of equally relevant behaviours the later ones are taken. Products that are equal as float32 count as
    equal, so that identical vectors tie whatever the order of summation.

    Args:
        task: T ratings, user by user in time order, of I items.
        k: the most behaviours retrieved for a candidate.
        upto: [T] end (exclusive, a position in the T ratings) of the behaviours searched for each candidate;
            they begin with its user's first.
        vectors: [I, m] of the items, for soft search; None for hard search.

    Returns:
        [T, k] int32 positions in the T ratings, ascending; -1 on the left where fewer are found. It takes
        4 k bytes an interaction: 80 MB for MovieLens-1M and k = 20.

    Raises:
        UserError: k is below 1, a shape does not fit, or a candidate would see itself or its future.
    """
    n = len(task.ratings)
    if k < 1:
        raise UserError(f"k must be at least 1, not {k}")
    if upto.shape != (n,):
        raise UserError(f"upto must have one entry for each of the {n} ratings, not shape {upto.shape}")
    if (late := upto > np.arange(n)).any():
        row = late.argmax()
        raise UserError(f"upto of rating {row} is {upto[row]}: the candidate would see itself or its future")
    if vectors is not None and (vectors.ndim != 2 or len(vectors) != len(task.item_ids)):
        raise UserError(
            f"vectors must have one row for each of {len(task.item_ids)} items, not {vectors.shape}"
        )
    item = task.ratings["item_row"].to_numpy()
    genre = task.samples.item_fields[:, 1].numpy()[item]
    table = None if vectors is None else vectors.astype(np.float64)

    places = np.full((n, k), -1, np.int32)
    first = np.flatnonzero(task.ratings["place"] == 0)
    users = list(pairwise([*first, n]))
    for begin, end in bar(True, iterable=users, desc="searching histories", unit="user"):
        for start in range(begin, end, BLOCK):
            stop = min(start + BLOCK, end)
            rows, pool = slice(start, stop), slice(begin, stop)
            if table is None:
                score = np.where(genre[rows, None] == genre[pool], np.float32(0), -np.inf)
            else:
                score = (table[item[rows]] @ table[item[pool]].T).astype(np.float32)
            score[np.arange(begin, stop) >= upto[rows, None]] = -np.inf
            # ascending and stable: the last k are the most relevant, and of equals the latest
            best = np.argsort(score, axis=1, kind="stable")[:, -k:]
            found = np.where(np.isneginf(np.take_along_axis(score, best, axis=1)), -1, begin + best)
            places[rows, -found.shape[1] :] = np.sort(found, axis=1)
    return places


# 2 Exact search unit


class Retrieval(nn.Module):
    """A CTR model that reads what was retrieved for the candidate, in time order, before its recent history.

    A retrieved behaviour that is in the recent history as well is read once, in its place there. The tables
    take 4 k + 8 (F + 1) bytes an interaction: 104 MB for MovieLens-1M and k = 20.

    Args:
        backbone: built without dense fields.
        samples: whose interactions `places` points to.
        places: [T, k] from `search`.
    """

    def __init__(self, backbone: CTRModel, samples: CTRSamples, places: Tensor) -> None:
        super().__init__()
        n = len(samples.sequence)
        if places.ndim != 2 or len(places) != n:
            raise UserError(f"places must have one row for each of {n} ratings, not {tuple(places.shape)}")
        self.backbone = backbone
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("steps", samples.steps(torch.arange(n)), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B]."""
        length = batch.mask.shape[1]
        start = batch.position[:, None] - length
        recent = torch.where(batch.mask, start + torch.arange(length, device=start.device), -1)
        found = self.places[batch.position]
        found = torch.where(found < start, found, -1)
        places, _ = torch.cat([found, recent], dim=1).sort(dim=1)  # what is left out comes first, as padding
        mask = places >= 0
        history = self.steps[places] * mask[..., None]
        return self.backbone(replace(batch, history=history, mask=mask))


def arm(
    places: np.ndarray,
    *,
    backbone: str = "DIN",
    backbone_settings: Mapping[str, Any] = MappingProxyType({}),
) -> Arm:
    """An arm of a comparison: `backbone` with what was retrieved for each candidate.

    Args:
        places: [T, k] from `search`.
        backbone: a name in `ctr.MODELS`.
        backbone_settings: passed to `ctr.build`.
    """

    def build(samples: CTRSamples, seed: int) -> nn.Module:
        base = ctr.build(backbone, samples, seed=seed, **backbone_settings)
        return Retrieval(base, samples, torch.from_numpy(places))

    return Arm(build)
