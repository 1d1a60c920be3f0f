"""Lists of candidates to re-rank, made from CTR samples by KAR's protocol.

A user's samples are cut, in order, into blocks of four. A block's items and items drawn at random from the
whole catalogue make a list of ten candidates in random order; an item is relevant if the user rated it in the
block and liked it. So the "initial ranking" that a re-ranker receives is random, and what it has to learn is
mostly to tell an item that somebody chose to rate from a random one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rec_utils.batches import CTRSamples, Samples
from rec_utils.errors import UserError
from rec_utils.samples import CTRTask


@dataclass(frozen=True)
class PastLists:
    """The m lists that each user saw before the one to re-rank, the oldest first, with h places each."""

    item: Tensor  #: [B, m, h, Fi] ids of the items' fields; 0 where nothing was shown
    item_row: Tensor  #: [B, m, h] rows of the items in per-item tables
    clicked: Tensor  #: [B, m, h] bool
    real: Tensor  #: [B, m, h] True where an item was shown


@dataclass(frozen=True)
class ListBatch:
    """One batch of B lists of n candidates with F fields, and a history of L steps a list."""

    item: Tensor  #: [B, n, F] ids of each candidate's fields (item id first)
    history: Tensor  #: [B, L, F + 1] as in `batches.Batch`
    mask: Tensor  #: [B, L] True where the step is real
    user_row: Tensor  #: [B]
    item_row: Tensor  #: [B, n] row of each candidate in per-item tables
    label: Tensor  #: [B, n] 0. or 1.
    real: Tensor | None = None  #: [B, n] False in padding, which stands last; None if every candidate is real
    past: PastLists | None = None  #: the earlier lists of each user, where they are known


@dataclass(frozen=True)
class Lists(Samples):
    """N lists of n candidates each, in memory."""

    start: CTRSamples  #: [N] the first rated item of each list: gives its user and the history before it
    item_row: Tensor  #: [N, n] row of every candidate
    label: Tensor  #: [N, n] float
    rated: Tensor  #: [N, n] True for items that the user rated, False for those drawn at random

    @property
    def user_row(self) -> Tensor:
        """[N] user of every list."""
        return self.start.user_row

    @property
    def n_ids(self) -> int:
        """Size of the shared embedding table, padding included."""
        return self.start.n_ids

    @property
    def n_fields(self) -> int:
        """Fields F of a candidate."""
        return self.start.n_fields

    @property
    def n_step_fields(self) -> int:
        """Fields of a history step; 0 without a history."""
        return self.start.n_step_fields

    @property
    def field_ids(self) -> list[Tensor]:
        """The ids that occur in each kind of field."""
        return self.start.field_ids

    @property
    def n_candidates(self) -> int:
        """Candidates of a list, n."""
        return self.item_row.shape[1]

    def select(self, index: Tensor) -> Lists:
        """The lists at `index` (int64 positions or a boolean mask [N])."""
        return replace(
            self,
            start=self.start.select(index),
            item_row=self.item_row[index],
            label=self.label[index],
            rated=self.rated[index],
        )

    def with_history(self, length: int) -> Lists:
        """The same lists with another history length L."""
        return replace(self, start=self.start.with_history(length))

    def batch(self, index: Tensor) -> ListBatch:
        """The batch of the lists at `index` [B] (int64)."""
        first = self.start.batch(index)
        item_row = self.item_row[index]
        return ListBatch(
            item=self.start.item_fields[item_row],
            history=first.history,
            mask=first.mask,
            user_row=first.user_row,
            item_row=item_row,
            label=self.label[index],
        )


def rerank_lists(
    task: CTRTask,
    *,
    catalogue: np.ndarray | None = None,
    n_rated: int = 4,
    n_candidates: int = 10,
    seed: int = 12345,
) -> Lists:
    """KAR's lists: blocks of a user's consecutive samples, filled up with random items, shuffled.

    A user's last block may be shorter; it is kept, as KAR's counts of lists show. Random items are uniform
    over the catalogue; those that the user knows, or that stand in the list, are not excluded.

    Args:
        task: the samples; a user's stand together and in order, as `ctr_task` makes them.
        catalogue: rows of the items that lists are made of, samples of others being left out; None for all.
            Where only popular items have a text, give those with one: else its presence gives away which
            candidates are random.
        n_rated: rated items of a full block.
        n_candidates: length of a list, n.
        seed: of the random items and of the order in the lists; KAR's shuffle has 12345, too.

    Raises:
        UserError: a list has no room for the rated items, or nothing is left to make lists of.
    """
    if not 1 <= n_rated <= n_candidates:
        raise UserError(f"n_rated must lie between 1 and n_candidates = {n_candidates}, not at {n_rated}")
    samples = task.samples
    if catalogue is None:
        catalogue = np.arange(len(task.item_ids))
    else:
        samples = samples.select(torch.from_numpy(np.isin(samples.item_row.numpy(), catalogue)))
    if len(samples) == 0:
        raise UserError("no sample is of an item of the catalogue")
    user = samples.user_row.numpy()
    begin = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    place = np.arange(len(user)) - np.repeat(begin, np.diff(np.r_[begin, len(user)]))
    opens = place % n_rated == 0
    row, column = np.cumsum(opens) - 1, place % n_rated

    rng = np.random.default_rng(seed)
    shape = (np.count_nonzero(opens), n_candidates)
    item_row = catalogue[rng.integers(len(catalogue), size=shape)]
    label, rated = np.zeros(shape, np.float32), np.zeros(shape, bool)
    item_row[row, column] = samples.item_row.numpy()
    label[row, column] = samples.label.numpy()
    rated[row, column] = True
    order = rng.random(shape).argsort(axis=1)
    item_row, label, rated = (
        torch.from_numpy(np.take_along_axis(values, order, axis=1)) for values in (item_row, label, rated)
    )
    return Lists(samples.select(torch.from_numpy(np.flatnonzero(opens))), item_row, label, rated)
