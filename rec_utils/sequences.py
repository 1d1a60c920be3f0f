"""Sequences of items, one a user in time order, and the batches that next-item models learn from.

Items count from 1; 0 is padding, always on the right, so that a causal model never meets it before an item.
The last item of a user is the test, the one before it the validation (leave-one-out); what comes earlier is
for training. All sequences stand in one tensor, and a batch is gathered from it: no Python runs per row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from rec_utils.batches import Samples
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.implicit import ImplicitTask, core, likes
from rec_utils.settings import check_choice

#: How far before the end of a user's sequence each part's one target stands.
TARGETS = {"validation": 2, "test": 1}


@dataclass(frozen=True)
class SequenceTask:
    """The sequences of U users over I items, one after another."""

    name: str
    items: np.ndarray  #: [T] 1 to I
    start: np.ndarray  #: [U + 1] where each user's sequence begins
    n_items: int
    item_ids: np.ndarray | None = None  #: [I] raw ids of items 1 … I, where known

    def __post_init__(self) -> None:
        if not len(self.items) or self.items.min() < 1 or self.items.max() > self.n_items:
            raise UserError(f"{self.name}: items must lie between 1 and {self.n_items}")
        if (short := np.flatnonzero(np.diff(self.start) < 3)).size:
            raise UserError(
                f"{self.name}: user {short[0]} has fewer than 3 items, which train, validation and test need"
            )

    @classmethod
    def of(cls, name: str, sequences: Sequence[np.ndarray], n_items: int | None = None) -> SequenceTask:
        """A task from one array of items (from 1) for each user; I is the highest item, if not given."""
        items = np.concatenate([*sequences, np.empty(0, np.int64)]).astype(np.int64)
        start = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
        return cls(name, items, start, int(items.max(initial=0)) if n_items is None else n_items)

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.start) - 1

    def lengths(self) -> np.ndarray:
        """Number of training items of each user [U]."""
        return np.diff(self.start) - max(TARGETS.values())

    def counts(self) -> pd.Series:
        """Users, items, choices and their mean number a user, for a table of data sets."""
        n = len(self.items)
        return pd.Series(
            {"users": self.n_users, "items": self.n_items, "all": n, "mean length": n / self.n_users}
        )

    def implicit(self) -> ImplicitTask:
        """The same split without the order in train, for collaborative baselines; items count from 0."""
        pairs = np.stack([np.repeat(np.arange(self.n_users), np.diff(self.start)), self.items - 1], axis=1)
        back = self.start[1:][pairs[:, 0]] - np.arange(len(pairs))  # 1 for a user's last item
        parts = {"train": back > max(TARGETS.values())} | {name: back == n for name, n in TARGETS.items()}
        return ImplicitTask(
            self.name, self.n_users, self.n_items, **{name: pairs[mask] for name, mask in parts.items()}
        )

    def targets(self, part: str) -> sparse.csr_array:
        """[U, I] with a 1 at the target of each user in `part`; columns count from 0."""
        target = self.items[self.start[1:] - TARGETS[check_choice("part", part, list(TARGETS))]] - 1
        shape = (self.n_users, self.n_items)
        return sparse.csr_array((np.ones(len(target)), (np.arange(len(target)), target)), shape=shape)

    def seen(self, part: str) -> sparse.csr_array:
        """[U, I] with a 1 for what each user chose before the target of `part`; columns count from 0."""
        check_choice("part", part, list(TARGETS))
        return self.implicit().matrix("train", *(("validation",) if part == "test" else ()))

    def prefixes(self, part: str, length: int) -> Prefixes:
        """One sample for every target: the training items after each user's first, or the one of a part."""
        user = np.repeat(np.arange(self.n_users), np.diff(self.start))
        back = self.start[1:][user] - np.arange(len(user))
        chosen = back == TARGETS[part] if part in TARGETS else back > max(TARGETS.values())
        position = np.flatnonzero(chosen & (np.arange(len(user)) > self.start[user]))
        sequence, first = torch.from_numpy(self.items), torch.from_numpy(self.start[user[position]])
        return Prefixes(sequence, first, torch.from_numpy(position), length, sequence[position])

    def windows(self, length: int) -> Windows:
        """The training items of every user, cut from the end into windows of `length` steps."""
        start, end = self.start[:-1], self.start[1:] - max(TARGETS.values())
        count = -(-(end - start - 1) // length)  # a window of n steps holds n + 1 items
        user = np.repeat(np.arange(self.n_users), count)
        place = np.arange(len(user)) - (np.cumsum(count) - count)[user]
        stop = end[user] - place * length
        first = np.maximum(stop - length - 1, start[user])
        steps = torch.from_numpy(stop - first - 1)
        return Windows(torch.from_numpy(self.items), torch.from_numpy(first), length, steps)


def sequence_task(
    dataset: Dataset,
    *,
    min_user: int = 5,
    min_item: int = 5,
    first_users: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
) -> SequenceTask:
    """What the users of a data set liked, in time order, in the format of DiffuRec's files.

    Args:
        dataset: ratings.
        min_user: the least number of likes of a user, see `implicit.implicit_task`.
        min_item: the least number of likes of an item.
        first_users: keep only this many users, by id.
        max_length: keep only so many last likes of a user, so that heavy users do not rule the training.
        seed: of the order of likes of one second.

    Raises:
        UserError: nothing is left.
    """
    liked = core(likes(dataset, seed), min_user, min_item)
    if first_users is not None:
        liked = liked[liked["user_id"].isin(np.sort(liked["user_id"].unique())[:first_users])]
    if max_length is not None:
        liked = liked.groupby("user_id").tail(max_length)
    if liked.empty:
        raise UserError(f"{dataset.name}: no user has min_user = {min_user} likes of items with {min_item}")
    item_ids, item = np.unique(liked["item_id"].to_numpy(), return_inverse=True)
    counts = liked.groupby("user_id").size().to_numpy()
    start = np.concatenate([[0], np.cumsum(counts)])
    return SequenceTask(dataset.name, item.astype(np.int64) + 1, start, len(item_ids), item_ids)


@dataclass(frozen=True)
class SequenceBatch:
    """B histories of up to L items, padded on the right."""

    history: Tensor  #: [B, L] items, the oldest first; 0 is padding
    length: Tensor  #: [B] number of items
    label: Tensor  #: [B] the next item, or [B, L] the next item after every step, 0 in padding


def by_length(batch: SequenceBatch, size: int = 128) -> Iterator[tuple[Tensor, SequenceBatch]]:
    """The batch in parts of `size` rows of similar length, each cut to its longest: little padding is left.

    Yields:
        The rows of each part, and the part.
    """
    for rows in batch.length.argsort(stable=True).split(size):
        width = int(batch.length[rows].max())
        label = batch.label[rows] if batch.label.ndim == 1 else batch.label[rows, :width]
        yield rows, SequenceBatch(batch.history[rows, :width], batch.length[rows], label)


def in_order(parts: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """One value a row [B, ...], given the rows and values of parts such as those of `by_length`."""
    rows, values = (torch.cat(each) for each in zip(*parts, strict=True))
    return values[rows.argsort()]


@dataclass(frozen=True)
class Prefixes(Samples):
    """N targets, each with the up to L items before it."""

    sequence: Tensor  #: [T] items, user by user
    first: Tensor  #: [N] where the target's user begins
    position: Tensor  #: [N] place of the target
    history_length: int  #: L
    label: Tensor  #: [N] the target

    def select(self, index: Tensor) -> Prefixes:
        """The samples at `index` (int64 positions or a boolean mask [N])."""
        return replace(self, first=self.first[index], position=self.position[index], label=self.label[index])

    def batch(self, index: Tensor) -> SequenceBatch:
        """The batch of the samples at `index` [B]."""
        position = self.position[index]
        length = (position - self.first[index]).clamp(max=self.history_length)
        history = gather(self.sequence, position - length, length, self.history_length)
        return SequenceBatch(history, length, self.label[index])


@dataclass(frozen=True)
class Windows(Samples):
    """N stretches of up to L steps, in which every item after the first is a target."""

    sequence: Tensor  #: [T] items, user by user
    first: Tensor  #: [N] where the window begins
    history_length: int  #: L
    label: Tensor  #: [N] number of steps, one fewer than there are items
    #: [T] False for items that are no targets, such as made-up ones; None if all are
    counted: Tensor | None = None

    def select(self, index: Tensor) -> Windows:
        """The windows at `index` (int64 positions or a boolean mask [N])."""
        return replace(self, first=self.first[index], label=self.label[index])

    def batch(self, index: Tensor) -> SequenceBatch:
        """The batch of the windows at `index` [B], with the target after every step."""
        first, steps = self.first[index], self.label[index]
        history = gather(self.sequence, first, steps, self.history_length)
        target = gather(self.sequence, first + 1, steps, self.history_length)
        if self.counted is not None:
            target = target * gather(self.counted, first + 1, steps, self.history_length)
        return SequenceBatch(history, steps, target)


def gather(sequence: Tensor, first: Tensor, length: Tensor, width: int) -> Tensor:
    """[B, width]: `length` [B] values of `sequence` [T] from places `first` [B] on, then zeros."""
    step = torch.arange(width, device=sequence.device)
    places = (first[:, None] + step).clamp(max=len(sequence) - 1)
    return sequence[places] * (step < length[:, None])
