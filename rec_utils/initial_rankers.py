"""Initial rankers: they score each candidate alone, and their order is what a re-ranker starts from.

DNN and DIN are models of `ctr.MODELS`, trained on single candidates with the user's earlier clicks as
history. LambdaMART (LightGBM) ranks by what the trained DNN's last hidden layer says of a candidate;
LibRerank gives it the embeddings of the item's fields, which tell nothing about the user. "item rate", the
share of an item's impressions that were clicked, needs no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import lightgbm
import numpy as np
import torch
from torch import Tensor

from rec_utils import ctr
from rec_utils.batches import Batch, Samples
from rec_utils.ctr_model import CTRModel
from rec_utils.errors import UserError
from rec_utils.history_lists import HistoryLists
from rec_utils.settings import check_choice
from rec_utils.training import TrainConfig, fit, predict

RANKERS = ("item rate", "DNN", "DIN", "LambdaMART")
#: Impressions at the average rate that every item's rate starts from.
SMOOTHING = 5.0
#: Share of the ranker's users that stops its training early.
VALID_SHARE = 0.1
#: LambdaMART's settings; trees are added until NDCG@5 of the validation users has not grown for ten.
TREES = {"n_estimators": 200, "learning_rate": 0.05, "num_leaves": 15, "min_child_samples": 50}

#: Lists -> scores [N, n] of their candidates, -inf in padding.
Ranker = Callable[[HistoryLists], np.ndarray]


@dataclass(frozen=True)
class Candidates(Samples):
    """Every candidate of N lists as a sample of its own, with the user's earlier clicks as history."""

    lists: HistoryLists
    row: Tensor  #: [M] number of the candidate among all N n, list by list
    label: Tensor  #: [M]

    @classmethod
    def of(cls, lists: HistoryLists) -> Candidates:
        """The real candidates of lists; no initial ranker knows a rank or what was not clicked."""
        real = torch.ones_like(lists.label, dtype=torch.bool) if lists.real is None else lists.real
        row = real.flatten().nonzero().squeeze(1)
        return cls(lists.without_rank().positives_only(), row, lists.label.flatten()[row])

    @property
    def n_ids(self) -> int:
        """Size of the table of ids, padding included."""
        return self.lists.n_ids

    @property
    def n_fields(self) -> int:
        """Fields of a candidate, those of its user included."""
        return self.lists.n_fields

    @property
    def n_step_fields(self) -> int:
        """Fields of a history step."""
        return self.lists.n_step_fields

    @property
    def field_ids(self) -> list[Tensor]:
        """The ids that occur in each kind of field."""
        return self.lists.field_ids

    def select(self, index: Tensor) -> Candidates:
        """The candidates at `index` (int64 positions or a boolean mask [M])."""
        return replace(self, row=self.row[index], label=self.label[index])

    def batch(self, index: Tensor) -> Batch:
        """The batch of the candidates at `index` [B] (int64)."""
        row = self.row[index]
        of, place = row // self.lists.n_candidates, row % self.lists.n_candidates
        lists, each = self.lists.batch(of), torch.arange(len(row), device=row.device)
        return Batch(
            item=lists.item[each, place],
            history=lists.history,
            mask=lists.mask,
            user_row=lists.user_row,
            item_row=lists.item_row[each, place],
            position=row,
            label=self.label[index],
        )

    def as_lists(self, score: np.ndarray) -> np.ndarray:
        """Scores [M] of the candidates as those of their lists [N, n], -inf in padding."""
        scores = np.full(self.lists.label.shape, -np.inf)
        scores.flat[self.row.numpy()] = score
        return scores


def fit_ranker(name: str, lists: HistoryLists, config: TrainConfig, *, embed_dim: int = 16) -> Ranker:
    """Fit an initial ranker on lists of its own users; every part of them is fitted on these alone.

    Args:
        name: one of `RANKERS`.
        lists: of the ranker's users; lists without clicks and with little history may be among them.
        config: of DNN and DIN, and of the DNN under LambdaMART; its seed also draws the validation users.
        embed_dim: width of an embedding.

    Raises:
        UserError: an unknown name, or fewer than two users.
    """
    check_choice("initial ranker", name, list(RANKERS))
    if name == "item rate":
        return _item_rate(lists)
    users = np.unique(lists.user_row.numpy())
    if len(users) < 2:
        raise UserError("an initial ranker needs lists of at least 2 users")
    n_valid = max(1, round(VALID_SHARE * len(users)))
    chosen = np.random.default_rng(config.seed).choice(users, n_valid, replace=False)
    in_valid = torch.from_numpy(np.isin(lists.user_row.numpy(), chosen))
    train, valid = (Candidates.of(lists.select(part)) for part in (~in_valid, in_valid))

    model = ctr.build("DIN" if name == "DIN" else "DNN", train, embed_dim=embed_dim, seed=config.seed)
    fit(model, train, valid, config, progress=False)
    return _lambdamart(model, train, valid, config.seed) if name == "LambdaMART" else _neural(model)


def _item_rate(lists: HistoryLists) -> Ranker:
    candidates = Candidates.of(lists)
    item, label = lists.item_row.flatten()[candidates.row].numpy(), candidates.label.numpy()
    n_items = len(lists.item_fields)
    clicks, shown = np.bincount(item, label, n_items), np.bincount(item, minlength=n_items)
    rate = (clicks + SMOOTHING * label.mean()) / (shown + SMOOTHING)

    def scores(lists: HistoryLists) -> np.ndarray:
        real = True if lists.real is None else lists.real.numpy()
        return np.where(real, rate[lists.item_row.numpy()], -np.inf)

    return scores


def _neural(model: CTRModel) -> Ranker:
    def scores(lists: HistoryLists) -> np.ndarray:
        candidates = Candidates.of(lists)
        return candidates.as_lists(predict(model, candidates))

    return scores


def _lambdamart(model: CTRModel, train: Candidates, valid: Candidates, seed: int) -> Ranker:
    trees = lightgbm.LGBMRanker(
        **TREES, random_state=seed, n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1
    )
    trees.fit(
        _features(model, train),
        train.label.numpy(),
        group=_sizes(train),
        eval_X=_features(model, valid),
        eval_y=valid.label.numpy(),
        eval_group=[_sizes(valid)],
        eval_at=[5],
        callbacks=[lightgbm.early_stopping(10, verbose=False)],
    )

    def scores(lists: HistoryLists) -> np.ndarray:
        candidates = Candidates.of(lists)
        return candidates.as_lists(trees.predict(_features(model, candidates)))

    return scores


@torch.no_grad()
def _features(model: CTRModel, candidates: Candidates) -> np.ndarray:
    """What the model's last layer reads of each candidate [M, width]."""
    model.eval()
    return torch.cat([model.hidden(batch)[0] for batch in candidates.batches(4096)]).numpy()


def _sizes(candidates: Candidates) -> np.ndarray:
    """Numbers of candidates of the lists that have any, in order."""
    return np.unique(candidates.row.numpy() // candidates.lists.n_candidates, return_counts=True)[1]
