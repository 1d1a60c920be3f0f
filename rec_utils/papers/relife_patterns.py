"""What RELIFE's comparisons learned: attention inside past lists, and patterns of candidates and history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from rec_utils.errors import UserError
from rec_utils.history_lists import HistoryLists
from rec_utils.papers.relife import RELIFE

#: Lists that are looked at together.
BATCH = 1024


@dataclass(frozen=True)
class Comparison:
    """One past list as CPE sees it; t items."""

    item_row: np.ndarray  #: [t] in the order shown
    clicked: np.ndarray  #: [t] bool
    attention: np.ndarray  #: [t, t] weight of each item (column) for each item (row); rows sum to 1


@torch.no_grad()
def comparisons(model: RELIFE, lists: HistoryLists, row: int) -> list[Comparison]:
    """The past lists of the user of list number `row`, the oldest first.

    Raises:
        UserError: the model has no CPE.
    """
    lists = _beside(model, lists)
    batch = lists.batch(torch.tensor([row], device=lists.label.device))
    attention = model.comparison(batch)[0].cpu().numpy()
    item_row, clicked, real = (
        getattr(batch.past, name)[0].cpu().numpy() for name in ("item_row", "clicked", "real")
    )
    return [
        Comparison(item_row[j, here], clicked[j, here], attention[j][np.ix_(here, here)])
        for j, here in enumerate(real)
        if here.any()
    ]


@torch.no_grad()
def attention_by_feedback(model: RELIFE, lists: HistoryLists) -> pd.DataFrame:
    """To which items a past list's clicked and unclicked items attend, beyond their numbers.

    The weight that an item gives to the clicked (unclicked) others of its list is divided by their share of
    the others; 1 is no preference. Each list to re-rank adds the one just before it, so none counts twice.

    Returns:
        One row a user and pair of kinds that the user has: user_row, of, to ("clicked", "unclicked"),
        attention (the mean over items).

    Raises:
        UserError: the model has no CPE.
    """
    found = []
    for batch in _beside(model, lists).with_past(1).batches(BATCH):
        weights, clicked, real = (
            model.comparison(batch)[:, 0],
            batch.past.clicked[:, 0],
            batch.past.real[:, 0],
        )
        itself = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
        others = real[:, None] & real[:, :, None] & ~itself
        weights = (weights * others).double()
        weights = weights / weights.sum(2, keepdim=True)
        for to, kind in (("clicked", clicked), ("unclicked", real & ~clicked)):
            among = others & kind[:, None]
            attention = (weights * among).sum(2) / (among.sum(2) / others.sum(2))
            for of, rows in (("clicked", clicked), ("unclicked", real & ~clicked)):
                row, item = (rows & among.any(2)).nonzero(as_tuple=True)
                values = {"user_row": batch.user_row[row], "attention": attention[row, item]}
                table = pd.DataFrame({name: value.cpu().numpy() for name, value in values.items()})
                found.append(table.assign(of=of, to=to))
    return pd.concat(found).groupby(["user_row", "of", "to"], as_index=False)["attention"].mean()


@dataclass(frozen=True)
class Patterns:
    """Patterns of N lists, scaled to length 1."""

    user_row: np.ndarray  #: [N]
    candidates: np.ndarray  #: [N, d] c of the candidate list
    history: np.ndarray  #: [N, d] p of the user's past lists

    def alignment(self) -> pd.DataFrame:
        """Cosine of the patterns of each user's candidates (rows) and each user's history (columns) [U, U].

        The mean over all pairs of a list of the one user and one of the other; labels are user rows.
        """
        users, code = np.unique(self.user_row, return_inverse=True)
        means = []
        for vectors in (self.candidates, self.history):
            total = np.zeros((len(users), vectors.shape[1]))
            np.add.at(total, code, vectors)
            means.append(total / np.bincount(code)[:, None])
        return pd.DataFrame(means[0] @ means[1].T, index=users, columns=users)

    def own_and_others(self) -> pd.DataFrame:
        """Each user's mean alignment with the own history and with that of others: columns own, others."""
        table = self.alignment()
        own = np.diag(table)
        others = (table.to_numpy().sum(1) - own) / (len(table) - 1)
        return pd.DataFrame({"own": own, "others": others}, index=table.index)


@torch.no_grad()
def patterns(model: RELIFE, lists: HistoryLists) -> Patterns:
    """The patterns of lists that have a history; see `Patterns`.

    Raises:
        UserError: the model has no CPE.
    """
    parts = []
    for batch in _beside(model, lists).batches(BATCH):
        known = batch.past.real.flatten(1).any(1)
        c, p = (F.normalize(pattern[known], dim=1) for pattern in model.patterns(batch))
        parts.append((batch.user_row[known], c, p))
    return Patterns(*(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)))


def _beside(model: RELIFE, lists: HistoryLists) -> HistoryLists:
    """The lists, on the model's device."""
    if model.cpe is None:
        raise UserError("A RELIFE without CPE has no patterns to look at.")
    return lists.to(next(model.parameters()).device)
