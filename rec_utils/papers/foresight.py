"""Did a grouping of users know what it should not? A test that needs the groups and the ratings only.

REKI's authors published neither the vectors that they clustered nor from which ratings these were made. If
a user's group was found with ratings that lie after the prompt history, then these ratings fit the group
as well as the prompt history does; if not, they fit it less.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import svds

from rec_utils.samples import CTRTask
from rec_utils.stats import mean_interval

COMPONENTS = 32  #: numbers of an item's vector
FEWEST = 5  #: ratings of a user on either side, and training users of a group, to be counted


def foresight(
    task: CTRTask, groups: np.ndarray, liked: bool, test_users: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """How well a user's prompt history, and as many later ratings, fit the user's group.

    Each is laid against all groups; the own group's rank, from 0 (furthest) to 1 (nearest), is the fit. Items
    are vectors of a singular value decomposition of the training users' likes (or dislikes), a user or group
    their mean, less the mean over users. A group is that of its training users, without the user at hand.

    Args:
        task: ratings.
        groups: [U] group of every user.
        liked: True for what users liked, False for the other ratings.
        test_users: [U].
        seed: of the draw of later ratings.

    Returns:
        One row for training and one for test users: users, n, prompt, later (mean ranks), and the mean of
        later - prompt over users with its 95 % interval (difference, low, high).
    """
    ratings = task.ratings[(task.ratings["rating"] >= task.like_from) == liked]
    user, prompt = ratings["user_row"].to_numpy(), ratings["in_prompt"].to_numpy()
    n_users, train = len(task.user_ids), ~test_users
    shape = n_users, len(task.item_ids)
    table = sparse.csr_array((np.ones(len(user)), (user, ratings["item_row"].to_numpy())), shape=shape)
    vectors = _item_vectors(table[np.flatnonzero(train)])[ratings["item_row"]]

    def mean(use: np.ndarray) -> np.ndarray:
        owner = sparse.csr_array((np.ones(use.sum()), (user[use], np.flatnonzero(use))), (n_users, len(user)))
        return owner @ vectors / np.maximum(owner.sum(axis=1), 1)[:, None]

    whole = mean(np.ones(len(user), dtype=bool))
    centre = whole[train].mean(axis=0)
    part = _unit(whole - centre) * train[:, None]
    sums = np.zeros((groups.max() + 1, COMPONENTS))
    np.add.at(sums, groups, part)

    def rank(use: np.ndarray) -> np.ndarray:
        query = _unit(mean(use) - centre)
        near = query @ _unit(sums).T
        own = (query * _unit(sums[groups] - part)).sum(axis=1)
        near[np.arange(n_users), groups] = -np.inf
        return (near < own[:, None]).sum(axis=1) / (len(sums) - 1)

    n_prompt, n_all = (np.bincount(user[use], minlength=n_users) for use in (prompt, user >= 0))
    ranks = {"prompt": rank(prompt), "later": rank(_some(user, ~prompt, n_prompt, seed))}
    counts = (n_prompt >= FEWEST) & (n_all >= 2 * n_prompt)
    counts &= (np.bincount(groups[train], minlength=len(sums)) > FEWEST)[groups]
    rows = []
    for name, chosen in (("training", train & counts), ("test", test_users & counts)):
        gap = mean_interval((ranks["later"] - ranks["prompt"])[chosen])
        means = {kind: float(of[chosen].mean()) for kind, of in ranks.items()}
        found = {"difference": gap.value, "low": gap.low, "high": gap.high}
        rows.append({"users": name, "n": gap.n} | means | found)
    return pd.DataFrame(rows)


def _item_vectors(table: sparse.csr_array) -> np.ndarray:
    """Vectors [I, COMPONENTS] of the columns of users' likes, popular items scaled down."""
    popular = np.sqrt(np.maximum(table.sum(axis=0), 1))
    return svds(table.multiply(1 / popular).tocsr(), k=COMPONENTS, rng=np.random.default_rng(0))[2].T


def _some(user: np.ndarray, among: np.ndarray, n: np.ndarray, seed: int) -> np.ndarray:
    """Mask [T] of up to n [U] ratings of each user, drawn at random among those of the mask."""
    rows = np.flatnonzero(among)
    rows = rows[np.lexsort((np.random.default_rng(seed).random(len(rows)), user[rows]))]
    counts = np.bincount(user[rows], minlength=len(n))
    place = np.arange(len(rows)) - (np.cumsum(counts) - counts)[user[rows]]
    drawn = np.zeros(len(user), dtype=bool)
    drawn[rows[place < n[user[rows]]]] = True
    return drawn


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
