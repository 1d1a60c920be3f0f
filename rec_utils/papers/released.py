"""The ids and the split that KAR's released code gives MovieLens-1M, and that REKI's released files use.

Both were recovered from the code and its artefacts: the order of the user ids stands in the released
`begin_index.json`, and REKI's group lists fit this split only. All three functions draw from one random
stream, `random.seed(1234)`, so the standard library's generator is used as the authors used it.
"""

from __future__ import annotations

import random

import numpy as np
import pandas as pd

from rec_utils.data import Dataset
from rec_utils.errors import UserError

SEED = 1234
TRAIN_SHARE = 0.9


def _streams(n_users: int) -> tuple[list[int], list[int]]:
    """The two shuffles of 1 … n_users: raw ids in the order of their internal ids, and the split's order."""
    stream = random.Random(SEED)
    raw, split = list(range(1, n_users + 1)), list(range(1, n_users + 1))
    stream.shuffle(raw)
    stream.shuffle(split)
    return raw, split


def released_users(n_users: int = 6040) -> np.ndarray:
    """Raw user ids [U] in KAR's internal order: internal id i stands at place i - 1."""
    return np.array(_streams(n_users)[0])


def released_items(dataset: Dataset) -> np.ndarray:
    """Raw item ids [I] in KAR's internal order: by first appearance over the shuffled users.

    A user's ratings are ordered by UTC calendar date, ties in file order. Another time zone changes the
    ids without any error. The assembled ratings table gives about 95 % of the authors' ids, since half of
    its timestamps are known to some minutes only.
    """
    place = pd.Series(np.arange(_n_users(dataset)), index=released_users(_n_users(dataset)))
    ratings = dataset.interactions
    keys = pd.DataFrame({"user": ratings["user_id"].map(place), "date": ratings["timestamp"] // 86_400})
    order = keys.sort_values(["user", "date"], kind="stable").index
    return ratings["item_id"].loc[order].unique()


def released_split(user_ids: np.ndarray) -> np.ndarray:
    """Mask [U] of KAR's test users: the last tenth of the second shuffle.

    Args:
        user_ids: [U] raw ids, which must be 1 … U, as in MovieLens-1M.

    Raises:
        UserError: the ids are others.
    """
    n_users = len(user_ids)
    if set(user_ids) != set(range(1, n_users + 1)):
        raise UserError(f"KAR's split is of users 1 to {n_users}; these are other user ids")
    raw, split = _streams(n_users)
    test = np.array(raw)[np.array(split[int(TRAIN_SHARE * n_users) :]) - 1]
    return np.isin(user_ids, test)


def _n_users(dataset: Dataset) -> int:
    users = dataset.interactions["user_id"].unique()
    if set(users) != set(range(1, len(users) + 1)):
        raise UserError(f"KAR's ids need users 1 to {len(users)}; {dataset.name} has other user ids")
    return len(users)
