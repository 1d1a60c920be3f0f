"""From ratings to CTR samples: KAR's protocol, which REKI, LIBER and DARE share.

A user's first n ratings are the *prompt history*: a language model may read them, and they never
become samples. Every later rating is one sample; its *recent history* is the L ratings just before it.
So what the language model read always lies before what is predicted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from rec_utils.batches import CTRSamples
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.settings import check_choice
from rec_utils.splits import Masks, check_history_precedes, check_user_split

PROMPT_RULES = ("half", "released")
ORDERS = ("timestamp", "date")
SECONDS_A_DAY = 86_400
#: Rules behind the files that KAR's authors released, where they are not those of their code.
RELEASED_RULES = {"ml-1m": {"order": "date", "prompt_rule": "released"}}
#: KAR calls 4 and 5 of 5 stars positive; the same share serves other scales and half stars.
LIKE_SHARE = 0.8


def prompt_lengths(counts: np.ndarray, rule: str = "half", cap: int = 30) -> np.ndarray:
    """How many first ratings of each user the language model reads.

    Args:
        counts: [U] number of ratings of each user.
        rule: "half" is the rule of KAR's code, min((count + 1) // 2, cap); "released" is the rule behind
            its released file for MovieLens-1M, cap for users with more than cap ratings, else 10.
        cap: the most ratings a prompt holds.

    Returns:
        [U] int64.
    """
    check_choice("prompt rule", rule, PROMPT_RULES)
    if rule == "half":
        return np.minimum((counts + 1) // 2, cap)
    return np.where(counts > cap, cap, np.minimum(counts, 10))


@dataclass(frozen=True)
class CTRTask:
    """CTR samples with what is needed to trace them back to the data set.

    U users, I rated items, T ratings, N samples; rows count from 0 in the order of the id arrays.
    """

    samples: CTRSamples
    user_ids: np.ndarray  #: [U] raw user ids, row order
    item_ids: np.ndarray  #: [I] raw item ids, row order
    ratings: pd.DataFrame  #: [T] user_row, item_row, rating, timestamp, place (0 = first), in_prompt
    like_from: float  #: ratings from here on are likes
    order: str = "timestamp"  #: of a user's ratings, see `ctr_task`

    @property
    def prompts(self) -> pd.DataFrame:
        """The prompt histories: the rows of `ratings` with in_prompt, in order."""
        return self.ratings[self.ratings["in_prompt"]]

    def prompt_mean(self, vectors: np.ndarray, liked: bool, rows: pd.DataFrame | None = None) -> np.ndarray:
        """Mean vector of the items that each user liked (or did not like) in the prompt history.

        Args:
            vectors: [I, m] one vector an item.
            liked: True for the items rated `like_from` or higher, False for the others.
            rows: other rows of `ratings` that a language model read, in place of `prompts`.

        Returns:
            [U, m] float32; zeros for a user without such an item.
        """
        rows = self.prompts if rows is None else rows
        chosen = rows[(rows["rating"] >= self.like_from) == liked]
        users = chosen["user_row"].to_numpy()
        sums = np.zeros((len(self.user_ids), vectors.shape[1]), dtype=np.float32)
        np.add.at(sums, users, vectors[chosen["item_row"].to_numpy()])
        counts = np.bincount(users, minlength=len(sums)).astype(np.float32)
        return sums / np.maximum(counts, 1)[:, None]


def ctr_task(
    dataset: Dataset,
    *,
    history_length: int,
    prompt_rule: str = "half",
    prompt_cap: int = 30,
    order: str = "timestamp",
    min_ratings: int = 2,
    max_samples_per_user: int | None = None,
    first_users: int | None = None,
) -> CTRTask:
    """Build the CTR samples of a data set.

    A rating of at least `LIKE_SHARE` of the best one is a positive label: 4 of 5 stars, 8 of 10 points.
    Item fields are the item id and its first genre, as in KAR (its "category"); there is no user id,
    since test users are unseen.

    Args:
        dataset: ratings and items.
        history_length: L, the recent history of a sample.
        prompt_rule: see `prompt_lengths`.
        prompt_cap: see `prompt_lengths`.
        order: of a user's ratings: "timestamp" (ties by item id) or "date" (UTC calendar date, ties in
            file order: what KAR's code does on MovieLens-1M).
        min_ratings: users with fewer ratings are left out.
        max_samples_per_user: keep at most this many samples of a user, the earliest, so that a few heavy
            users do not rule the pooled metrics; None keeps all.
        first_users: keep only this many users, by id (for smoke runs); None keeps all.

    Raises:
        UserError: nothing is left after filtering, or a parameter is out of range.
    """
    check_choice("order", order, ORDERS)
    for name, value in {
        "history_length": history_length,
        "prompt_cap": prompt_cap,
        "min_ratings": min_ratings,
        "max_samples_per_user": max_samples_per_user,
        "first_users": first_users,
    }.items():
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    ratings = dataset.interactions[["user_id", "item_id", "rating", "timestamp"]]
    counts = ratings["user_id"].map(ratings["user_id"].value_counts())
    ratings = ratings[counts >= min_ratings]
    if first_users is not None:
        ratings = ratings[ratings["user_id"].isin(np.sort(ratings["user_id"].unique())[:first_users])]
    if ratings.empty:
        raise UserError(f"{dataset.name}: no user has min_ratings = {min_ratings} ratings or more")
    ratings = _ordered(ratings, order)

    user_ids, user_row = np.unique(ratings["user_id"].to_numpy(), return_inverse=True)
    item_ids, item_row = np.unique(ratings["item_id"].to_numpy(), return_inverse=True)
    counts = np.bincount(user_row)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = np.arange(len(ratings)) - first[user_row]
    n_prompt = prompt_lengths(counts, prompt_rule, prompt_cap)[user_row]
    is_sample = place >= n_prompt
    if max_samples_per_user is not None:
        is_sample &= place < n_prompt + max_samples_per_user
    position = np.flatnonzero(is_sample)
    if not len(position):
        raise UserError(
            f"{dataset.name}: no rating is left after the prompt histories (prompt_cap = {prompt_cap})"
        )

    like_from = LIKE_SHARE * dataset.rating_scale[1]
    genres = dataset.items.set_index("item_id")["genres"].reindex(item_ids).fillna("")
    genre_row = np.unique(genres.str.split("|").str[0], return_inverse=True)[1]
    levels, level_row = np.unique(ratings["rating"].to_numpy(), return_inverse=True)
    # one table of ids: 0 padding, then items, genres, rating levels
    genre_start = 1 + len(item_ids)
    rating_start = genre_start + genre_row.max() + 1
    samples = CTRSamples(
        item_fields=torch.from_numpy(
            np.stack([1 + np.arange(len(item_ids)), genre_start + genre_row], axis=1)
        ),
        sequence=torch.from_numpy(item_row),
        rating_ids=torch.from_numpy(rating_start + level_row),
        first=torch.from_numpy(first[user_row[position]]),
        position=torch.from_numpy(position),
        user_row=torch.from_numpy(user_row[position]),
        label=torch.from_numpy((ratings["rating"].to_numpy()[position] >= like_from).astype(np.float32)),
        history_length=history_length,
        n_ids=int(rating_start + len(levels)),
    )
    table = ratings[["rating", "timestamp"]].reset_index(drop=True)
    table = table.assign(user_row=user_row, item_row=item_row, place=place, in_prompt=place < n_prompt)
    return CTRTask(samples, user_ids, item_ids, table, like_from, order)


def check_leaks(task: CTRTask, samples: CTRSamples, parts: Iterable[Masks]) -> None:
    """Raise `LeakError` if a user is in two parts of a split, or a sample could see itself or its future.

    Args:
        task: with the ratings that `samples` point to.
        samples: those of the task, or others on its ratings such as the starts of lists.
        parts: masks [N] of every split, see `splits.fold_masks`.
    """
    for masks in parts:
        check_user_split(samples.user_row.numpy(), masks)
    ratings = task.ratings
    time = ratings["timestamp"] // (SECONDS_A_DAY if task.order == "date" else 1)
    rows = (ratings["user_row"], time, samples.first, samples.position, ratings["in_prompt"])
    check_history_precedes(*map(np.asarray, rows))


def _ordered(ratings: pd.DataFrame, order: str) -> pd.DataFrame:
    """Ratings user by user in the order asked for; stable, so equal keys keep the file's order."""
    if order == "timestamp":
        return ratings.sort_values(["user_id", "timestamp", "item_id"], kind="stable")
    date = ratings["timestamp"] // SECONDS_A_DAY
    return ratings.assign(date=date).sort_values(["user_id", "date"], kind="stable").drop(columns="date")
