"""What KAR's released protocol does besides testing KAR: what its gain holds that is not knowledge.

Four things in the authors' code change the comparison of a base with KAR, without being part of the method:

- *Information*: KAR's user text is written from the user's profile and first 30 ratings; the base sees the
  last 5 ratings and nothing else. `PromptFeatures` gives a base the same 30 ratings without any text.
- *Selection*: epoch and grid are chosen on the test users. `choose` does either.
- *Learning rate*: the cosine schedule is counted in samples but stepped in batches, so it hardly falls.
- *Batch statistics*: Dice takes mean and variance of the test batch, so a prediction depends on what else
  is in the batch. `predict_as_released` does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils import ctr
from rec_utils.batches import Batch, CTRSamples
from rec_utils.crossfit import Arm
from rec_utils.ctr import CTRModel
from rec_utils.layers import Dice
from rec_utils.samples import CTRTask
from rec_utils.settings import check_choice
from rec_utils.training import predict


class PromptFeatures(nn.Module):
    """A backbone that also sees each user's prompt history, as 2 F + 1 more fields of its own embeddings.

    With E the backbone's embedding table and P+ (P-) the liked (other) items of the user's prompt history:
    for each item field the means of E over P+ and over P-, and the mean of E over all rating levels given.

    Args:
        backbone: built with dense_dim = (2 F + 1) * embed_dim.
        ids: [U, 2 F + 1, P] ids of each field, 0 where there is none.
    """

    def __init__(self, backbone: CTRModel, ids: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        weight = (ids > 0).float()
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("weight", weight / weight.sum(-1, keepdim=True).clamp(min=1), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B]."""
        ids, weight = self.ids[batch.user_row], self.weight[batch.user_row]
        fields = F.embedding_bag(
            ids.flatten(0, 1),
            self.backbone.embedding.weight,
            per_sample_weights=weight.flatten(0, 1),
            mode="sum",
            padding_idx=0,
        )
        return self.backbone(batch, fields.view(len(batch.label), -1))


def prompt_fields(task: CTRTask, rows: pd.DataFrame | None = None) -> Tensor:
    """Ids [U, 2 F + 1, P] of the prompt histories for `PromptFeatures`: liked, other items, rating levels.

    Args:
        task: samples with their prompt histories.
        rows: other rows of `task.ratings` in place of the prompt histories.
    """
    rows = task.prompts if rows is None else rows
    samples = task.samples
    user = rows["user_row"].to_numpy()
    place = rows.groupby("user_row").cumcount().to_numpy()
    liked = torch.tensor((rows["rating"] >= task.like_from).to_numpy())[:, None]
    fields = samples.item_fields[torch.tensor(rows["item_row"].to_numpy())]
    rating = samples.rating_ids[torch.tensor(rows.index.to_numpy())][:, None]
    ids = torch.zeros(len(task.user_ids), 2 * samples.n_fields + 1, place.max() + 1, dtype=torch.int64)
    ids[user, :, place] = torch.cat([fields * liked, fields * ~liked, rating], dim=1)
    return ids


def prompt_arm(
    ids: Tensor,
    *,
    backbone: str = "DIN",
    backbone_settings: Mapping[str, Any] = MappingProxyType({}),
    history_length: int | None = None,
) -> Arm:
    """An arm whose base sees the prompt histories as plain features; `ids` from `prompt_fields`."""

    def build(samples: CTRSamples, seed: int) -> nn.Module:
        embed_dim = backbone_settings.get("embed_dim", 32)
        base = ctr.build(
            backbone, samples, dense_dim=ids.shape[1] * embed_dim, seed=seed, **backbone_settings
        )
        return PromptFeatures(base, ids)

    return Arm(build, history_length)


def predict_as_released(model: nn.Module, samples: CTRSamples, batch_size: int) -> np.ndarray:
    """Probabilities [N] as `training.predict`, but with Dice on the statistics of each batch, in order."""
    dice = [module for module in model.modules() if isinstance(module, Dice)]
    for module in dice:
        module.batch_statistics = True
    try:
        return predict(model, samples, batch_size)
    finally:
        for module in dice:
            module.batch_statistics = False


def choose(epochs: pd.DataFrame, by: str) -> pd.Series:
    """The row of `HoldOut.epochs` with the highest AUC on the "valid" or on the "test" users.

    A choice "test" is what the released code does; it says how well the best of many tries did by luck, too.
    """
    check_choice("by", by, ("valid", "test"))
    return epochs.loc[epochs[f"{by}_auc"].idxmax()]
