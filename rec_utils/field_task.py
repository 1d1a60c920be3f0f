"""From ratings to CTR samples whose users are known in training: the tasks of ClickPrompt and of CoReLLa.

All rows of a data set are split at two points in time, so most users of the test were seen before, and a
user's id and profile are fields of a sample beside those of the item. Every field has a text, too, which a
language model can read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from rec_utils.batches import CTRSamples
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.knowledge.ml1m import AGES, GENDERS, OCCUPATIONS
from rec_utils.samples import LIKE_SHARE
from rec_utils.settings import check_choice
from rec_utils.splits import Masks, check_time_split

PROTOCOLS = ("ClickPrompt", "CoReLLa")
#: ClickPrompt drops ratings from here to `LIKE_SHARE`, of the best one: 3 of 5 stars.
NEUTRAL_SHARE = 0.6


@dataclass(frozen=True)
class FieldTask:
    """CTR samples with the texts of their fields, split by time.

    U users, I items, N samples; rows of users and items count from 0 in the order of the id arrays.
    """

    samples: CTRSamples  #: in the order of `ratings`
    ratings: pd.DataFrame  #: [N] user_row, item_row, rating, timestamp; by time, then user, then item
    user_ids: np.ndarray  #: [U] raw user ids, row order
    item_ids: np.ndarray  #: [I] raw item ids, row order
    user_texts: pd.DataFrame  #: [U, Fu] what each field of a user says; columns are the fields' names
    item_texts: pd.DataFrame  #: [I, Fi] the same of items
    masks: Masks  #: the split by time: about 80 % train, 10 % validation, 10 % test

    def random_masks(self, seed: int) -> Masks:
        """A random split into parts of the same sizes, in which training rows lie after those of the test."""
        order = np.random.default_rng(seed).permutation(len(self.ratings))
        train, valid, test = self.masks
        return train[order], valid[order], test[order]


def field_task(
    dataset: Dataset, protocol: str, *, history_length: int = 0, first_users: int | None = None
) -> FieldTask:
    """Build the samples of a data set by the protocol of a paper.

    A rating of at least `LIKE_SHARE` of the best one is a positive label. "ClickPrompt" drops neutral
    ratings: 3 and 3.5 of 5 stars; they are then in no history either. "CoReLLa" keeps all. Rows of one second
    are in the order of user and item, and the cuts in time are at numbers of rows, as in both papers, so such
    a second may lie on both sides of one.

    Fields are the user id, gender, age, job and zip code (where the data set knows them), the item id, the
    title without its year, and the first genre. Equal texts of a field share an id.

    Args:
        dataset: ratings, users and items.
        protocol: one of `PROTOCOLS`.
        history_length: L, how many of the user's ratings before a sample are its history.
        first_users: keep only this many users, by id; None keeps all.

    Raises:
        UserError: nothing is left to split.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    ratings = dataset.interactions[["user_id", "item_id", "rating", "timestamp"]]
    best = dataset.rating_scale[1]
    if protocol == "ClickPrompt":
        ratings = ratings[~ratings["rating"].between(NEUTRAL_SHARE * best, LIKE_SHARE * best, "left")]
    if first_users is not None:
        ratings = ratings[ratings["user_id"].isin(np.sort(ratings["user_id"].unique())[:first_users])]
    ratings = ratings.sort_values(["timestamp", "user_id", "item_id"], kind="stable", ignore_index=True)
    masks = cut(len(ratings), protocol)
    if not all(mask.any() for mask in masks):
        raise UserError(f"{dataset.name}: {len(ratings)} ratings are too few to split by time")
    check_time_split(ratings["timestamp"].to_numpy(), masks, ties=True)
    user_texts = _user_texts(dataset, np.unique(ratings["user_id"]))
    item_texts = _item_texts(dataset, np.unique(ratings["item_id"]))
    return assemble(ratings, LIKE_SHARE * best, user_texts, item_texts, masks, history_length)


def assemble(
    ratings: pd.DataFrame,
    like_from: float,
    user_texts: pd.DataFrame,
    item_texts: pd.DataFrame,
    masks: Masks,
    history_length: int = 0,
) -> FieldTask:
    """The task of N ratings and of the texts of their users and items.

    Args:
        ratings: [N] user_id, item_id, rating and, where it is known, timestamp, in the order of the samples;
            a user's earlier rows are the history of the later ones.
        like_from: ratings from here on are positive labels.
        user_texts: [U, Fu] one row for each user of `ratings`, by id; columns are the fields' names.
        item_texts: [I, Fi] the same of items.
        masks: of the parts of the split.
        history_length: L, how many of the user's ratings before a sample are its history.
    """
    user_ids, user_row = np.unique(ratings["user_id"].to_numpy(), return_inverse=True)
    item_ids, item_row = np.unique(ratings["item_id"].to_numpy(), return_inverse=True)
    # one table of ids: 0 padding, then the fields of users, those of items, and rating levels
    user_fields, next_id = _field_ids(user_texts, 1)
    item_fields, next_id = _field_ids(item_texts, next_id)
    levels, level_row = np.unique(ratings["rating"].to_numpy(), return_inverse=True)
    by_user = np.argsort(user_row, kind="stable")
    counts = np.bincount(user_row)
    position = np.empty_like(by_user)
    position[by_user] = np.arange(len(by_user))
    samples = CTRSamples(
        item_fields=torch.from_numpy(item_fields),
        sequence=torch.from_numpy(item_row[by_user]),
        rating_ids=torch.from_numpy(next_id + level_row[by_user]),
        first=torch.from_numpy((np.cumsum(counts) - counts)[user_row]),
        position=torch.from_numpy(position),
        user_row=torch.from_numpy(user_row),
        label=torch.from_numpy((ratings["rating"].to_numpy() >= like_from).astype(np.float32)),
        history_length=history_length,
        n_ids=next_id + len(levels),
        user_fields=torch.from_numpy(user_fields),
    )
    table = ratings.drop(columns=["user_id", "item_id"]).assign(user_row=user_row, item_row=item_row)
    return FieldTask(samples, table, user_ids, item_ids, user_texts, item_texts, masks)


def cut(n: int, protocol: str) -> Masks:
    """Masks of n rows in order, about 80 % train, 10 % validation, 10 % test, rounded as the papers round.

    ClickPrompt's code cuts off a tenth for the test first, and then a ninth of the rest.
    """
    if protocol == "ClickPrompt":
        end = n - math.ceil(n / 10)
        cuts = [end // 9 * 8, end]
    else:
        cuts = [round(0.8 * n), round(0.9 * n)]
    part = np.searchsorted(cuts, np.arange(n), side="right")
    return part == 0, part == 1, part == 2


def _user_texts(dataset: Dataset, user_ids: np.ndarray) -> pd.DataFrame:
    texts = {"User ID": user_ids.astype(str)}
    if "gender" in dataset.users:
        users = dataset.users.set_index("user_id").loc[user_ids]
        age, job = users["age"], users["occupation"]
        if dataset.name == "ml-1m":  # others tell the age and the job themselves
            age, job = age.map(AGES), job.map(OCCUPATIONS)
        texts |= {
            "Gender": users["gender"].map(GENDERS).to_numpy(),
            "Age": age.astype(str).to_numpy(),
            "Job": job.astype(str).to_numpy(),
            "Zipcode": users["zip"].to_numpy(),
        }
    return pd.DataFrame(texts)


def _item_texts(dataset: Dataset, item_ids: np.ndarray) -> pd.DataFrame:
    items = dataset.items.set_index("item_id").loc[item_ids]
    genre = items["genres"].str.split("|").str[0].replace("", "unknown")
    return pd.DataFrame(
        {
            "Movie ID": item_ids.astype(str),
            "Title": items["title"].str.replace(r"\s*\(\d{4}\)\s*$", "", regex=True).to_numpy(),
            "Film genre": genre.to_numpy(),
        }
    )


def _field_ids(texts: pd.DataFrame, next_id: int) -> tuple[np.ndarray, int]:
    """Ids [rows, fields] of the texts, equal ones of a field sharing one, and the id after the last."""
    columns = []
    for name in texts:
        codes, values = pd.factorize(texts[name], sort=True)
        columns.append(next_id + codes)
        next_id += len(values)
    return np.stack(columns, axis=1), next_id
