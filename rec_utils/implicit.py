"""Implicit feedback: which user chose which items, split inside every user, and rows to learn from.

U users and I items count from 0. A part of a split is a list of (user, item) pairs; its matrix [U, I] is
sparse, and a batch is made dense by one scatter, so that memory grows with the number of choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from rec_utils.batches import Samples
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.samples import LIKE_SHARE
from rec_utils.settings import check_choice
from rec_utils.splits import NAMES, within_users


@dataclass(frozen=True)
class ImplicitTask:
    """What U users chose among I items, in three parts; each [n, 2] of (user row, item row).

    The pairs of a user stand in time order. A user may lack a part.
    """

    name: str
    n_users: int
    n_items: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    item_ids: np.ndarray | None = None  #: [I] raw ids, where known
    item_vectors: np.ndarray | None = None  #: [I, m] published with the split, if so

    def __post_init__(self) -> None:
        for part in NAMES:
            pairs = getattr(self, part)
            if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
                raise UserError(f"{self.name}: {part} must be pairs (user, item), not of shape {pairs.shape}")
            if pairs.min() < 0 or (pairs.max(0) >= (self.n_users, self.n_items)).any():
                raise UserError(
                    f"{self.name}: {part} has a user or an item beyond the {self.n_users} users and "
                    f"{self.n_items} items"
                )

    def matrix(self, *parts: str, weights: np.ndarray | None = None) -> sparse.csr_array:
        """The parts as one matrix [U, I] of float32, 1 for a choice or its weight, each row sorted by item.

        A pair that occurs twice counts once, with its last weight.
        """
        pairs = np.concatenate([getattr(self, check_choice("part", part, NAMES)) for part in parts])
        values = np.ones(len(pairs)) if weights is None else weights
        cell, last = np.unique(
            (pairs[:, 0].astype(np.int64) * self.n_items + pairs[:, 1])[::-1], return_index=True
        )
        rows, columns = np.divmod(cell, self.n_items)
        values = values[::-1][last].astype(np.float32)
        return sparse.csr_array((values, (rows, columns)), shape=(self.n_users, self.n_items))

    def counts(self) -> pd.Series:
        """Users, items, and pairs of each part and in all, for a table of data sets."""
        pairs = {part: len(getattr(self, part)) for part in NAMES}
        return pd.Series(
            {"users": self.n_users, "items": self.n_items} | pairs | {"all": sum(pairs.values())}
        )


def implicit_task(
    dataset: Dataset,
    *,
    shares: tuple[float, float, float] = (0.7, 0.2, 0.1),
    min_user: int = 5,
    min_item: int = 5,
    first_users: int | None = None,
    seed: int = 0,
) -> ImplicitTask:
    """What the users of a data set liked, in the format of DiffRec's clean MovieLens-1M.

    A rating of at least `samples.LIKE_SHARE` of the best one is a choice, other ratings are left out; every
    user's choices are cut in time order by `shares`. Users and items with few choices are removed until none
    is left (a k-core). Choices of one second, such as those of a form that was filled in, are shuffled:
    the file has them by item id, that is by age of the film.

    Args:
        dataset: ratings.
        shares: of train, validation and test.
        min_user: the least number of choices of a user.
        min_item: the least number of choices of an item.
        first_users: keep only this many users of the k-core, by id (for smoke runs).
        seed: of the shuffle.

    Raises:
        UserError: nothing is left.
    """
    liked = core(likes(dataset, seed), min_user, min_item)
    if first_users is not None:
        liked = liked[liked["user_id"].isin(np.sort(liked["user_id"].unique())[:first_users])]
    if liked.empty:
        raise UserError(f"{dataset.name}: no user has min_user = {min_user} likes of items with {min_item}")
    _, user = np.unique(liked["user_id"].to_numpy(), return_inverse=True)
    item_ids, item = np.unique(liked["item_id"].to_numpy(), return_inverse=True)
    pairs = np.stack([user, item], axis=1)
    masks = within_users(user, np.arange(len(user)), shares)
    parts = {part: pairs[mask] for part, mask in zip(NAMES, masks, strict=True)}
    return ImplicitTask(dataset.name, int(user.max()) + 1, len(item_ids), **parts, item_ids=item_ids)


def likes(dataset: Dataset, seed: int = 0) -> pd.DataFrame:
    """The likes of a data set (user_id, item_id), user by user in time order, equal times shuffled."""
    ratings = dataset.interactions
    liked = ratings[ratings["rating"] >= LIKE_SHARE * dataset.rating_scale[1]]
    tie = np.random.default_rng(seed).permutation(len(liked))
    liked = liked[["user_id", "item_id", "timestamp"]].assign(tie=tie)
    liked = liked.sort_values(["user_id", "timestamp", "tie"])
    return liked[["user_id", "item_id"]].reset_index(drop=True)


def core(pairs: pd.DataFrame, min_user: int, min_item: int) -> pd.DataFrame:
    """The rows of `pairs` (user_id, item_id) left when rare users and items are removed, again and again."""
    while True:
        counts = [pairs[name].map(pairs[name].value_counts()) for name in ("user_id", "item_id")]
        kept = (counts[0] >= min_user) & (counts[1] >= min_item)
        if kept.all():
            return pairs
        pairs = pairs[kept]


@dataclass(frozen=True)
class RowBatch:
    """Rows of B users."""

    x: Tensor  #: [B, I] float, 0 for what the user did not choose
    label: Tensor  #: [B] row of each user


@dataclass(frozen=True)
class RowSamples(Samples):
    """Users as training samples: each is a row of a sparse matrix [U, I]."""

    start: Tensor  #: [U + 1] where each row begins
    items: Tensor  #: [n]
    values: Tensor  #: [n] float
    n_items: int
    label: Tensor  #: [N] rows of the users who are samples

    @classmethod
    def of(cls, matrix: sparse.csr_array) -> RowSamples:
        """All users of a matrix [U, I] who chose anything."""
        start, items = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
        label = start.diff().nonzero().squeeze(1)
        return cls(start, items, torch.from_numpy(matrix.data.astype(np.float32)), matrix.shape[1], label)

    def select(self, index: Tensor) -> RowSamples:
        """The users at `index` (int64 positions or a boolean mask [N])."""
        return RowSamples(self.start, self.items, self.values, self.n_items, self.label[index])

    def batch(self, index: Tensor) -> RowBatch:
        """The rows of the users at `index` [B]."""
        return RowBatch(self.rows(self.label[index]), self.label[index])

    def rows(self, users: Tensor) -> Tensor:
        """Dense rows [B, I] of `users` [B]."""
        start, count = self.start[users], self.start[users + 1] - self.start[users]
        row = torch.arange(len(users), device=users.device).repeat_interleave(count)
        # the k-th choice of a row stands k places after the row's first
        place = torch.arange(len(row), device=users.device) + (start - count.cumsum(0) + count)[row]
        x = self.values.new_zeros(len(users), self.n_items)
        x[row, self.items[place]] = self.values[place]
        return x
