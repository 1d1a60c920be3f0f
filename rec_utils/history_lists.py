"""Lists to re-rank, each with the lists that its user saw before and what was clicked in them.

`history_lists` makes them from a log, `split_users` keeps users apart: one part trains the initial ranker,
one the re-ranker, one is the test. `ranked_by` brings the candidates into the order of an initial ranker, of
which a re-ranker learns as a field beside those of the item: "initial rank".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rec_utils.batches import Samples
from rec_utils.errors import UserError
from rec_utils.list_log import ListLog
from rec_utils.rerank_lists import ListBatch, PastLists
from rec_utils.splits import LeakError

#: Shares of the users that train the initial ranker and the re-ranker, and that test (LibRerank, MIR).
SHARES = (0.4, 0.5, 0.1)
PARTS = ("ranker", "train", "valid", "test")


@dataclass(frozen=True)
class HistoryLists(Samples):
    """N lists of n candidates, and the T lists of the log, among which are the m before each of them.

    Fields of a candidate are those of the item, then of the user, then the initial rank.
    """

    item_fields: Tensor  #: [I, Fi] ids of the items' fields
    user_fields: Tensor | None  #: [U, Fu] ids of the users' fields, where they are known
    shown: Tensor  #: [T, h] rows of the items of each list of the log, in the order shown
    is_real: Tensor  #: [T, h] False in padding
    clicked: Tensor  #: [T, h] the feedback that a model may read about earlier lists
    n_log_ids: int  #: ids of the log's fields, padding included
    user_row: Tensor  #: [N]
    first: Tensor  #: [N] the first list of the user in the log
    target: Tensor  #: [N] the list to re-rank in the log
    item_row: Tensor  #: [N, n] candidates in the initial order
    place: Tensor  #: [N, n] where each candidate stood when the list was shown, from 0
    label: Tensor  #: [N, n] 1. if it was clicked
    real: Tensor | None  #: [N, n] False in padding, which stands last; None if every candidate is real
    n_past: int  #: m, lists of the history
    past_length: int  #: places of each of them that are read, from the first
    with_rank: bool = True  #: whether a candidate's initial rank is one of its fields
    only_positive: bool = False  #: whether items that were not clicked are left out of the history

    @property
    def n_candidates(self) -> int:
        """Candidates of a list, n, padding included."""
        return self.item_row.shape[1]

    @property
    def n_item_fields(self) -> int:
        """Fields Fi of an item, those that a candidate shares with the items of the history."""
        return self.item_fields.shape[1]

    @property
    def n_fields(self) -> int:
        """Fields of a candidate."""
        n_user = 0 if self.user_fields is None else self.user_fields.shape[1]
        return self.n_item_fields + n_user + self.with_rank

    @property
    def n_step_fields(self) -> int:
        """Fields of a step of the flat history: those of the item, and the feedback."""
        return self.n_item_fields + 1

    @property
    def n_ids(self) -> int:
        """Size of the table of embeddings: the log's ids, two kinds of feedback, and the ranks."""
        return self.n_log_ids + 2 + self.n_candidates

    @property
    def field_ids(self) -> list[Tensor]:
        """The ids that occur in each kind of field."""
        feedback, rank = self._own_ids().split([2, self.n_candidates])
        of_users = () if self.user_fields is None else self.user_fields.T
        return [*(column.unique() for column in (*self.item_fields.T, *of_users)), feedback, rank]

    @property
    def category(self) -> Tensor:
        """[N, n] id of the candidates' second field."""
        return self.item_fields[:, 1][self.item_row]

    def of_log(self, values: np.ndarray) -> np.ndarray:
        """Values [T, h] of everything that was shown, as those of the candidates [N, n]."""
        return np.take_along_axis(values[self.target.numpy()], self.place.numpy(), axis=1)

    def select(self, index: Tensor) -> HistoryLists:
        """The lists at `index` (int64 positions or a boolean mask [N]); the log is shared."""
        names = ("user_row", "first", "target", "item_row", "place", "label")
        rows = {name: getattr(self, name)[index] for name in names}
        return replace(self, **rows, real=None if self.real is None else self.real[index])

    def of_users(self, users: np.ndarray) -> HistoryLists:
        """The lists of the users for whom `users` [U] is True."""
        return self.select(torch.from_numpy(users).to(self.user_row.device)[self.user_row])

    def ranked_by(self, score: np.ndarray) -> HistoryLists:
        """The same lists, their candidates in order of `score` [N, n]: the highest first, padding last."""
        score = torch.from_numpy(np.asarray(score, dtype=np.float64)).to(self.label.device)
        if score.isnan().any():
            raise UserError(f"The score of list {int(score.isnan().any(1).nonzero()[0])} is NaN.")
        if score.shape != self.label.shape:
            raise UserError(
                f"There are {tuple(score.shape)} scores for {tuple(self.label.shape)} candidates."
            )
        if self.real is not None:
            score = score.masked_fill(~self.real, -torch.inf)
        order = score.argsort(dim=1, descending=True, stable=True)
        names = ("item_row", "place", "label")
        return replace(self, **{name: getattr(self, name).gather(1, order) for name in names})

    def with_past(self, n_past: int, length: int | None = None) -> HistoryLists:
        """The same lists with another number of earlier lists, and of places of each that are read."""
        length = self.past_length if length is None else length
        if n_past < 1 or not 1 <= length <= self.shown.shape[1]:
            raise UserError(
                f"A history of {n_past} lists of {length} places needs at least 1 list, and 1 to "
                f"{self.shown.shape[1]} places."
            )
        return replace(self, n_past=n_past, past_length=length)

    def positives_only(self) -> HistoryLists:
        """The same lists, with a history of clicked items alone."""
        return replace(self, only_positive=True)

    def without_rank(self) -> HistoryLists:
        """The same lists, whose candidates do not tell their initial rank."""
        return replace(self, with_rank=False)

    def with_shuffled_feedback(self, seed: int) -> HistoryLists:
        """The same lists, with the clicks of each earlier list dealt out at random among its items.

        How many items of a list were clicked stays, which ones is lost. Labels stay.
        """
        noise = torch.rand(self.shown.shape, generator=torch.Generator().manual_seed(seed))
        noise = noise.masked_fill(~self.is_real.cpu(), torch.inf)
        place = noise.argsort(dim=1).argsort(dim=1).to(self.clicked.device)
        return replace(self, clicked=place < self.clicked.sum(1, keepdim=True))

    def batch(self, index: Tensor) -> ListBatch:
        """The batch of the lists at `index` [B] (int64), with the earlier lists, also as a flat history."""
        item_row = self.item_row[index]
        real = None if self.real is None else self.real[index]
        past = self._past(index)
        history, mask = self._flat(past)
        return ListBatch(
            item=self._candidates(item_row, self.user_row[index], real),
            history=history,
            mask=mask,
            user_row=self.user_row[index],
            item_row=item_row,
            label=self.label[index],
            real=real,
            past=past,
        )

    def _candidates(self, item_row: Tensor, user_row: Tensor, real: Tensor | None) -> Tensor:
        """Ids [B, n, F]."""
        fields = [self.item_fields[item_row]]
        if self.user_fields is not None:
            fields.append(self.user_fields[user_row][:, None].expand(-1, self.n_candidates, -1))
        if self.with_rank:
            fields.append(self._own_ids()[2:, None].expand(len(item_row), -1, 1))
        ids = torch.cat(fields, dim=2)
        return ids if real is None else ids * real[..., None]

    def _past(self, index: Tensor) -> PastLists:
        before = torch.arange(-self.n_past, 0, device=self.target.device)
        lists = self.target[index][:, None] + before
        there = lists >= self.first[index][:, None]
        lists, h = lists.clamp_(min=0), self.past_length
        clicked = self.clicked[lists][..., :h] & there[..., None]
        real = clicked if self.only_positive else self.is_real[lists][..., :h] & there[..., None]
        item_row = self.shown[lists][..., :h]
        return PastLists(self.item_fields[item_row] * real[..., None], item_row, clicked, real)

    def _flat(self, past: PastLists) -> tuple[Tensor, Tensor]:
        """The items of the earlier lists, one after another, as a history [B, L, Fi + 1] with mask [B, L]."""
        feedback = self._own_ids()[past.clicked.long()][..., None] * past.real[..., None]
        steps = torch.cat([past.item, feedback], dim=3).flatten(1, 2)
        order = past.real.flatten(1).to(torch.int8).argsort(dim=1, stable=True)  # padding to the left
        history = steps.gather(1, order[..., None].expand_as(steps))
        return history, past.real.flatten(1).gather(1, order)

    def _own_ids(self) -> Tensor:
        """Ids of "not clicked", "clicked" and the ranks 1 ... n."""
        return torch.arange(self.n_log_ids, self.n_ids, device=self.label.device)


def history_lists(log: ListLog, *, n_past: int = 5, min_past: int = 3, mixed: bool = True) -> HistoryLists:
    """The lists of a log that can be re-ranked, with their candidates in the order in which they were shown.

    Args:
        log: the lists.
        n_past: m, earlier lists that are the history; fewer where there are fewer.
        min_past: lists with fewer before them are left out.
        mixed: leave out lists without a click, and those in which everything was clicked; they stay in the
            histories.

    Raises:
        UserError: nothing is left.
    """
    first = np.searchsorted(log.user_row, log.user_row)
    chosen = np.arange(len(first)) - first >= min_past
    if mixed:
        clicks = log.clicked.sum(1)
        chosen &= (clicks > 0) & (clicks < log.real.sum(1))
    target = np.flatnonzero(chosen)
    if not len(target):
        raise UserError(f"{log.name}: no list to re-rank has min_past = {min_past} lists before it")
    real = log.real[target]
    return HistoryLists(
        item_fields=torch.from_numpy(log.item_fields),
        user_fields=None if log.user_fields is None else torch.from_numpy(log.user_fields),
        shown=torch.from_numpy(log.item_row),
        is_real=torch.from_numpy(log.real),
        clicked=torch.from_numpy(log.clicked),
        n_log_ids=log.n_ids,
        user_row=torch.from_numpy(log.user_row[target]),
        first=torch.from_numpy(first[target]),
        target=torch.from_numpy(target),
        item_row=torch.from_numpy(log.item_row[target]),
        place=torch.arange(log.length).repeat(len(target), 1),
        label=torch.from_numpy(log.clicked[target].astype(np.float32)),
        real=None if real.all() else torch.from_numpy(real),
        n_past=n_past,
        past_length=log.length,
    )


def split_users(
    n_users: int, seed: int, *, shares: tuple[float, float, float] = SHARES, valid_share: float = 0.1
) -> dict[str, np.ndarray]:
    """Draw the users of each part, without overlap.

    Args:
        n_users: number of users U.
        seed: of the draw.
        shares: of the users who train the initial ranker and the re-ranker, and of those who test.
        valid_share: share of the re-ranker's users that stops its training early.

    Returns:
        Part -> bool [U], for each of `PARTS`.

    Raises:
        UserError: the shares do not sum to 1, or a part has no user.
    """
    if min(shares) <= 0 or not np.isclose(sum(shares), 1) or not 0 < valid_share < 1:
        raise UserError(
            f"shares {shares} must be positive and sum to 1, valid_share {valid_share} be below 1"
        )
    ranker, rerank = np.round(np.cumsum(shares[:2]) * n_users).astype(int)
    valid = ranker + max(1, round(valid_share * (rerank - ranker)))
    part = np.searchsorted([ranker, valid, rerank], np.arange(n_users), side="right")
    part = np.random.default_rng(seed).permutation(part)
    users = {name: part == number for number, name in enumerate(("ranker", "valid", "train", "test"))}
    for name in PARTS:
        if not users[name].any():
            raise UserError(f"{n_users} users are too few: the {name} part is empty")
    return {name: users[name] for name in PARTS}


def check_leaks(log: ListLog, parts: Mapping[str, HistoryLists]) -> None:
    """Raise unless users are apart, and the history of each list is its user's and lies before it.

    Args:
        log: where the lists come from.
        parts: of a split; the initial ranker's users are a part, too.

    Raises:
        LeakError: names the first user or list at fault.
    """
    seen = np.zeros(len(log.user_ids), dtype=int) - 1
    for number, (name, lists) in enumerate(parts.items()):
        users = np.unique(lists.user_row.numpy())
        shared = users[seen[users] >= 0]
        if len(shared):
            raise LeakError(f"user row {shared[0]} is in {list(parts)[seen[shared[0]]]} and in {name}")
        seen[users] = number
        target = lists.target.numpy()
        past = target[:, None] + np.arange(-lists.n_past, 0)
        there = past >= lists.first.numpy()[:, None]
        past = np.where(there, past, target[:, None])
        foreign = (log.user_row[past] != lists.user_row.numpy()[:, None]).any(1)
        late = (there & (log.end[past] > log.begin[target][:, None])).any(1)
        for fault, words in (
            (foreign, "reads a list of another user"),
            (late, "reads a list that ends later"),
        ):
            if fault.any():
                row = np.flatnonzero(fault)[0]
                raise LeakError(f"list {row} of {name} (list {target[row]} of {log.name}) {words}")
