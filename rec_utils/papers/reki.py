"""REKI: a language model describes groups of items and of users instead of every single one.

Xi et al., "Efficient and Deployable Knowledge Infusion for Open-World Recommendations via Large Language
Models", ACM TORS 2025, arXiv 2408.10520, by the authors of KAR. *Individual* extraction is KAR's:
one request a user and one an item (`rec_utils.papers.kar`). *Collective* extraction asks once a group:

1. *Grouping*: items are clustered by their vectors; users twice, by the mean vector of what they liked and
   of what they did not like. A group is the highest node of the tree with fewer than T points.
2. *Extraction*: a group is shown as up to 15 titles, drawn from the group itself or, for users, from the
   items that at least 3 of its users liked (or disliked), and the model says what these have in common.
3. *Integration*: HEIN is KAR's hybrid-expert adaptor with three sides: an item's group, and a user's two.

Users are grouped, and their lists are made, from prompt histories only. The rules were recovered from the
files that REKI released; the vectors it clustered are unknown, so those here are our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from rec_utils.clustering import Tree, cut, ward_tree
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.knowledge import movies, vectors
from rec_utils.knowledge.encoder import MINILM_DIM
from rec_utils.knowledge.prompts import MOVIE_FACTORS, group_traits
from rec_utils.knowledge.request import Request
from rec_utils.knowledge.vectors import centred
from rec_utils.samples import CTRTask

#: A list of a group of several users holds what this many of them share.
MIN_USERS = 3
#: Titles that a request shows.
MAX_TITLES = 15
#: Of the random draw of titles: fixed, since the stored answers belong to what it drew.
TITLES_SEED = 0
#: Leading principal components that the item tree is built on: they keep two thirds of the variance, and
#: the groups are then more of one genre than with all 384 numbers, in a third of the time.
COMPONENTS = 64


@dataclass(frozen=True)
class Grouping:
    """One side's rows (items or users) in G groups, and the items that stand for each group."""

    group: np.ndarray  #: [R] group of each row; -1 for a user who liked (or disliked) nothing yet
    items: list[np.ndarray]  #: item rows of each of the G groups, ascending

    def sizes(self) -> np.ndarray:
        """Rows in each group [G]."""
        return np.bincount(self.group[self.group >= 0], minlength=len(self.items))

    def spread(self, group_vectors: np.ndarray) -> np.ndarray:
        """From one vector a group [G, m] to one a row [R, m]; zeros for a row without a group."""
        return np.where(self.group[:, None] >= 0, group_vectors[self.group], 0).astype(np.float32)

    def dealt(self, seed: int) -> Grouping:
        """The control: groups of the same sizes, their rows drawn at random."""
        rows = np.flatnonzero(self.group >= 0)
        group = self.group.copy()
        group[rows] = np.random.default_rng(seed).permutation(group[rows])
        return Grouping(group, self.items)


# 1 Grouping


def title_vectors(dataset: Dataset, task: CTRTask) -> np.ndarray:
    """Vectors [I, 384] of title and genres of every item, centred: what items are grouped by. No ratings."""
    items = dataset.items.set_index("item_id").loc[task.item_ids]
    table = vectors.encode(movies.title_genres(items))
    return centred(table.astype(np.float64))  # double precision, so that no near tie turns on rounding


def principal(item_vectors: np.ndarray) -> np.ndarray:
    """The leading `COMPONENTS` principal components of centred vectors [I, m]."""
    _, _, axes = np.linalg.svd(item_vectors, full_matrices=False)
    return item_vectors @ axes[:COMPONENTS].T


def item_tree(item_vectors: np.ndarray) -> Tree:
    """Ward's tree over the items' vectors [I, m]; 10 seconds and 1 GB for 10,000 items."""
    return ward_tree(principal(item_vectors))


def item_groups(tree: Tree, below: int) -> Grouping:
    """Item groups of fewer than `below` items, each standing for itself."""
    group = cut(tree, below)
    return Grouping(group, [np.flatnonzero(group == g) for g in range(group.max() + 1)])


def user_vectors(task: CTRTask, item_vectors: np.ndarray, *, liked: bool) -> np.ndarray:
    """Mean vectors [U, m] of what each user liked (or did not like) in the prompt history, centred."""
    return centred(task.prompt_mean(item_vectors, liked).astype(np.float64))


def user_groups(task: CTRTask, item_vectors: np.ndarray, below: int, *, liked: bool) -> Grouping:
    """User groups of fewer than `below` users, alike in what they liked (or did not like) in their prompts.

    Args:
        task: only its prompt histories are read.
        item_vectors: [I, m], centred.
        below: the size where the walk down the tree stops.
        liked: True for the groups by liked items, False for those by the other items.
    """
    prompts = task.prompts
    chosen = prompts[(prompts["rating"] >= task.like_from) == liked]
    users, items = chosen["user_row"].to_numpy(), chosen["item_row"].to_numpy()
    rated = np.unique(users)
    group = np.full(len(task.user_ids), -1)
    group[rated] = cut(ward_tree(user_vectors(task, item_vectors, liked=liked)[rated]), below)
    return Grouping(group, shared_items(group, users, items))


def shared_items(
    group: np.ndarray, user_row: np.ndarray, item_row: np.ndarray, min_users: int = MIN_USERS
) -> list[np.ndarray]:
    """The list of each group: what at least `min_users` of its users rated; all of it for a group of one.

    Args:
        group: [U] group of each user, from 0; -1 for none.
        user_row: [T] of the ratings that count (all liked, or all disliked), each user and item once.
        item_row: [T].
        min_users: raters that an item needs in a group of several users.

    Returns:
        Item rows of each group, ascending; empty for a group that shares nothing.
    """
    counts = pd.DataFrame({"group": group[user_row], "item": item_row}).value_counts().sort_index()
    of, items = (counts.index.get_level_values(name).to_numpy() for name in ("group", "item"))
    single = np.bincount(group[group >= 0]) == 1
    kept = (of >= 0) & ((counts.to_numpy() >= min_users) | single[of])
    return np.split(items[kept], np.searchsorted(of[kept], np.arange(1, len(single))))


# 2 Extraction


def group_request(
    titles: Sequence[str], factors: Sequence[str] = MOVIE_FACTORS, kind: str = "movie"
) -> Request | None:
    """Ask about a group by up to `MAX_TITLES` of its titles, drawn at random; None if it has no title."""
    if not len(titles):
        return None
    drawn = np.random.default_rng(TITLES_SEED).permutation(len(titles))[:MAX_TITLES]
    return group_traits([titles[i] for i in np.sort(drawn)], factors, kind)


def group_requests(dataset: Dataset, task: CTRTask, grouping: Grouping) -> list[Request | None]:
    """The request of each group; None for a group without items."""
    titles = dataset.items.set_index("item_id")["title"].loc[task.item_ids].to_numpy()
    return [group_request(titles[items].tolist()) for items in grouping.items]


def text_vectors(dataset: Dataset, task: CTRTask, grouping: Grouping) -> np.ndarray:
    """Vectors [R, 384] of the answer about each row's group, centred over groups; zeros without an answer.

    Raises:
        UserError: a group's request is not in the shipped store.
    """
    answers = movies.group_answers(group_requests(dataset, task, grouping))
    has_text = np.array([answer is not None for answer in answers])
    table = np.zeros((len(answers), MINILM_DIM), np.float32)
    table[has_text] = vectors.encode([answer.text for answer in answers if answer])
    return grouping.spread(centred(table))


# Controls


def seeing_all(task: CTRTask) -> CTRTask:
    """The leak to compare with: every rating, those to be predicted included, counts as prompt history."""
    return replace(task, ratings=task.ratings.assign(in_prompt=True))


def check_prompts_only(task: CTRTask, grouping: Callable[[CTRTask], Grouping]) -> None:
    """Stop if groups or lists change when every rating behind the prompt histories is turned round.

    Args:
        task: with its ratings as they are.
        grouping: how the groups are made of a task.

    Raises:
        UserError: they changed, so they were made of ratings that are to be predicted.
    """
    ratings = task.ratings
    low, high = ratings["rating"].min(), ratings["rating"].max()
    turned = ratings["rating"].where(ratings["in_prompt"], low + high - ratings["rating"])
    one, other = grouping(task), grouping(replace(task, ratings=ratings.assign(rating=turned)))
    if not (np.array_equal(one.group, other.group) and all(map(np.array_equal, one.items, other.items))):
        raise UserError("groups leak: they depend on ratings behind the prompt histories")


def title_means(grouping: Grouping, item_vectors: np.ndarray) -> np.ndarray:
    """No language model: the mean vector of the items that stand for each row's group [R, m], centred."""
    means = np.zeros((len(grouping.items), item_vectors.shape[1]))
    for group, items in enumerate(grouping.items):
        if len(items):
            means[group] = item_vectors[items].mean(axis=0)
    return grouping.spread(centred(means))


def id_codes(groupings: Mapping[str, Grouping]) -> dict[str, np.ndarray]:
    """No text: one-hot codes of the groups' ids, side -> [R, all groups].

    Each side has columns of its own, so the first layer of a shared expert is a learned embedding of each
    group's id, of the width of the hidden layer, and the rest of the adaptor is as for texts.
    """
    codes, start = {}, 0
    total = sum(len(grouping.items) for grouping in groupings.values())
    for side, grouping in groupings.items():
        n = len(grouping.items)
        codes[side] = grouping.spread(np.eye(n, total, start))
        start += n
    return codes
