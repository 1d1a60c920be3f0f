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
from rec_utils.crossfit import Arm, fit_arm
from rec_utils.ctr import CTRModel
from rec_utils.data import Dataset
from rec_utils.knowledge import ml1m, movies
from rec_utils.knowledge.encoder import Encoder
from rec_utils.knowledge.vectors import centred
from rec_utils.layers import Dice
from rec_utils.papers.kar import user_vectors
from rec_utils.resume import remembered
from rec_utils.samples import CTRTask
from rec_utils.settings import check_choice
from rec_utils.splits import Masks
from rec_utils.training import TrainConfig, predict, run_jobs


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
    user = torch.tensor(rows["user_row"].to_numpy())
    place = torch.tensor(rows.groupby("user_row").cumcount().to_numpy())
    liked = torch.tensor((rows["rating"] >= task.like_from).to_numpy())[:, None]
    fields = samples.item_fields[torch.tensor(rows["item_row"].to_numpy())]
    rating = samples.rating_ids[torch.tensor(rows.index.to_numpy())][:, None]
    ids = torch.zeros(len(task.user_ids), 2 * samples.n_fields + 1, int(place.max()) + 1, dtype=torch.int64)
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


def fit_three_ways(
    samples: CTRSamples,
    arms: Mapping[str, Arm],
    masks: Masks,
    config: TrainConfig,
    batch_size: int,
    resume: bool = False,
) -> dict[str, np.ndarray]:
    """Train every arm once and predict the test samples with three kinds of Dice.

    Args:
        samples: all samples.
        arms: name -> arm.
        masks: [N] train, valid, test.
        config: training settings.
        batch_size: of the test batches.
        resume: see `holdout_fit`.

    Returns:
        "<arm>, running averages", as the DIN paper has it, and the batch's statistics with the test samples
        "<arm>, user by user", as the released loader serves them, or "<arm>, mixed": [n] probabilities each.
    """

    def run(name: str, arm: Arm) -> dict[str, np.ndarray]:
        kept = []

        def watch(model: nn.Module, test: CTRSamples) -> dict[str, float]:
            order = torch.randperm(len(test), generator=torch.Generator().manual_seed(config.seed))
            mixed = np.empty(len(test))
            mixed[order.numpy()] = predict_as_released(model, test.select(order), batch_size)
            in_order = predict_as_released(model, test, batch_size)
            kept.append({f"{name}, user by user": in_order, f"{name}, mixed": mixed})
            return {}

        plain, fit = fit_arm(samples, arm, masks, config, watch)
        return {f"{name}, running averages": plain} | kept[fit.best_epoch - 1]

    jobs = [{"name": name, "arm": arm} for name, arm in arms.items()]
    results = run_jobs(remembered(run) if resume else run, jobs, progress="fits")
    return {name: probability for result in results for name, probability in result.items()}


def user_text_vectors(dataset: Dataset, task: CTRTask) -> np.ndarray:
    """r_u [U, m], centred, of KAR's user text: profile and rated prompt history, then the model's answer.

    Nobody may ship, or has published, KAR's answers about the users of MovieLens-1M: there the text is what
    KAR puts before the answer, which its encoder reads first and, at 512 tokens, mostly.
    """
    if dataset.name == "ml-1m":
        texts = ml1m.user_prompts(dataset, task)
        return centred(movies.text_vectors(texts, movies.user_encoder("history"))[0])
    return user_vectors(dataset, task, "history_preferences")


def summary_vectors(task: CTRTask) -> np.ndarray:
    """[U, m], centred, of the published summaries of the users of MovieLens-1M."""
    return centred(movies.text_vectors(ml1m.user_summaries(pd.Series(task.user_ids)), Encoder())[0])


def colakg_vectors(task: CTRTask) -> np.ndarray:
    """[I, m], centred, of the item texts that CoLaKG published for MovieLens-1M; zeros without a text."""
    return centred(movies.text_vectors(ml1m.item_texts(pd.Series(task.item_ids)), Encoder())[0])


def summarised(task: CTRTask, last: int = 40) -> tuple[Tensor, pd.DataFrame]:
    """Which samples a summary of the user has not read, and which ratings it was written from.

    Args:
        task: of MovieLens-1M.
        last: how many ratings of the fold, the user's last, the model was shown.

    Returns:
        Mask [N] of the samples outside `ml1m.summary_pairs`, and the rows of `task.ratings` shown.
    """
    pairs = pd.MultiIndex.from_frame(ml1m.summary_pairs()[["user_id", "item_id"]])
    users, items = task.ratings["user_row"].to_numpy(), task.ratings["item_row"].to_numpy()
    read = pd.MultiIndex.from_arrays([task.user_ids[users], task.item_ids[items]]).isin(pairs)
    shown = task.ratings[read].groupby("user_row").tail(last)
    return torch.tensor(~read[task.samples.position.numpy()]), shown
