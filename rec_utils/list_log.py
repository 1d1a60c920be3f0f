"""Logs of exposed lists with clicks, in one shape wherever they come from, and lists cut from ratings.

Public logs of whole lists are large or closed. So lists are also cut from streams of ratings: ten movies
that a user rated one after another are a list, and those rated best are its clicks. "Not clicked" then
means *rated lower*, not passed over. `exposure_files` reads two real logs, `click_world` makes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rec_utils.data import Dataset
from rec_utils.errors import UserError


@dataclass(frozen=True)
class ListLog:
    """T lists of up to h items, user by user in time order, of U users and I items.

    Rows of users and items count from 0 in the order of the id arrays. Ids of fields index one table of
    embeddings, in which 0 is padding.
    """

    name: str
    user_row: np.ndarray  #: [T] ascending
    item_row: np.ndarray  #: [T, h] in the order shown; 0 in padding, which stands last
    real: np.ndarray  #: [T, h] False in padding
    clicked: np.ndarray  #: [T, h] bool
    begin: np.ndarray  #: [T] when the first item was shown, in the log's unit of time
    end: np.ndarray  #: [T] when the last one was
    user_ids: np.ndarray  #: [U]
    item_ids: np.ndarray  #: [I]
    item_fields: np.ndarray  #: [I, Fi] ids of the item itself, its category and further fields
    n_ids: int  #: size of the table of ids, padding included
    user_fields: np.ndarray | None = None  #: [U, Fu] ids of what is known about the users

    @property
    def length(self) -> int:
        """Places h of a list."""
        return self.item_row.shape[1]

    @property
    def click_rate(self) -> float:
        """Share of the shown items that were clicked."""
        return float(self.clicked[self.real].mean())


def id_columns(columns: Sequence[np.ndarray], next_id: int = 1) -> tuple[np.ndarray, int]:
    """Ids [rows, fields] of columns, equal values of a column sharing one, and the id after the last."""
    ids = []
    for column in columns:
        values, code = np.unique(column, return_inverse=True)
        ids.append(next_id + code)
        next_id += len(values)
    return np.stack(ids, axis=1), next_id


def rating_lists(
    dataset: Dataset,
    *,
    like_from: float,
    length: int = 10,
    min_lists: int = 4,
    max_lists: int | None = None,
    first_users: int | None = None,
    seed: int = 0,
) -> ListLog:
    """Cut every user's ratings, in time order, into lists; a rating of `like_from` or more is a click.

    Most ratings share their second with another one of the user; their order is drawn at random, so that
    neither ids nor ratings decide it. What is left after the last full list is dropped. Item fields are the
    item and its first genre.

    Args:
        dataset: ratings and items.
        like_from: lowest rating that counts as a click.
        length: items of a list, h.
        min_lists: users with fewer lists are left out.
        max_lists: keep at most this many lists of a user, the earliest, so that a few heavy users do not rule
            the metrics; None keeps all.
        first_users: keep only this many users, by id; None keeps all.
        seed: of the order of ratings of one second.

    Raises:
        UserError: a parameter is out of range, no user has enough ratings, or all ratings are clicks or none.
    """
    for parameter, value in {"length": length, "min_lists": min_lists, "max_lists": max_lists}.items():
        if value is not None and value < 1:
            raise UserError(f"{parameter} must be at least 1, not {value}")
    ratings = dataset.interactions
    if first_users is not None:
        ratings = ratings[ratings["user_id"].isin(np.sort(ratings["user_id"].unique())[:first_users])]
    user, time = ratings["user_id"].to_numpy(), ratings["timestamp"].to_numpy()
    ratings = ratings.iloc[np.lexsort((np.random.default_rng(seed).random(len(ratings)), time, user))]

    _, user_row, counts = np.unique(ratings["user_id"], return_inverse=True, return_counts=True)
    n_lists = counts // length
    n_lists[n_lists < min_lists] = 0
    place = np.arange(len(ratings)) - (np.cumsum(counts) - counts)[user_row]
    ratings = ratings[place < length * np.minimum(n_lists, max_lists or n_lists.max())[user_row]]
    if ratings.empty:
        raise UserError(f"{dataset.name}: no user has min_lists = {min_lists} lists of {length} ratings")
    clicked = np.array(ratings["rating"] >= like_from).reshape(-1, length)
    if clicked.all() or not clicked.any():
        raise UserError(f"{dataset.name}: with like_from = {like_from:g} all ratings are clicks, or none is")

    user_ids, user_row = np.unique(ratings["user_id"], return_inverse=True)
    item_ids, item_row = np.unique(ratings["item_id"], return_inverse=True)
    genres = dataset.items.set_index("item_id")["genres"].reindex(item_ids).fillna("")
    item_fields, n_ids = id_columns([item_ids, genres.str.split("|").str[0].to_numpy(str)])
    time = ratings["timestamp"].to_numpy().reshape(-1, length)
    return ListLog(
        name=dataset.name,
        user_row=user_row[::length],
        item_row=item_row.reshape(-1, length),
        real=np.ones_like(clicked),
        clicked=clicked,
        begin=time[:, 0],
        end=time[:, -1],
        user_ids=user_ids,
        item_ids=item_ids,
        item_fields=item_fields,
        n_ids=n_ids,
    )
