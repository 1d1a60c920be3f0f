"""Texts about the movies and users of MovieLens-1M that others published, and KAR's prompts.

The published texts may not be passed on; `python -m data_prep build kar-ml-1m` puts them into the data
folder.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.knowledge.prompts import kar_user, ml1m_profile

if TYPE_CHECKING:
    from rec_utils.samples import CTRTask

#: Words for the codes in users.dat, from the README of MovieLens-1M.
GENDERS = {"F": "female", "M": "male"}
AGES = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
OCCUPATIONS = dict(
    enumerate(
        (
            "other or not specified",
            "academic/educator",
            "artist",
            "clerical/admin",
            "college/grad student",
            "customer service",
            "doctor/health care",
            "executive/managerial",
            "farmer",
            "homemaker",
            "K-12 student",
            "lawyer",
            "programmer",
            "retired",
            "sales/marketing",
            "scientist",
            "self-employed",
            "technician/engineer",
            "tradesman/craftsman",
            "unemployed",
            "writer",
        )
    )
)


def item_texts(item_ids: pd.Series) -> pd.Series:
    """What deepseek-chat wrote about each movie, by MovieLens movie id; None where there is no text.

    From CoLaKG (github.com/ziqiangcui/CoLaKG). The model was shown knowledge-graph facts and related movies
    and no rating, so these texts hold nothing about a user.
    """
    return _by_id(item_ids, _items(data.files("kar-ml-1m")["ml-1m_items_deepseek.json"]))


def user_summaries(user_ids: pd.Series) -> pd.Series:
    """What gpt-4o-mini wrote about each user's taste, by MovieLens user id; None where there is no text.

    From github.com/danialebrat/Unifying-LLMs-with-Recsys. The model was shown ratings of a random fold,
    late ones included: evaluate only on ratings outside `summary_pairs`.
    """
    return _by_id(user_ids, _summaries(data.files("kar-ml-1m")["ml-1m_users_gpt4omini.csv"]))


def summary_pairs() -> pd.DataFrame:
    """The fold of ratings that `user_summaries` were written from: user_id, item_id (int64).

    A summary knows these ratings, so evaluate it on the complement only. Train on these pairs: the
    complement is 200,045 ratings, a random fifth, so a split by time or by user does not do instead.
    """
    pairs = pd.read_parquet(data.files("kar-ml-1m")["ml1m_u1_train_pairs.parquet"])
    return pairs.rename(columns={"user": "user_id", "movie": "item_id"})


def profiles(dataset: data.Dataset) -> dict[int, str]:
    """A sentence about each user's gender, age and occupation, by MovieLens user id.

    Raises:
        UserError: `dataset` is not MovieLens-1M, the only one with these profiles.
    """
    if dataset.name != "ml-1m":
        raise UserError(f"user profiles are those of ml-1m; {dataset.name} has none")
    people = dataset.users[["user_id", "gender", "age", "occupation"]].itertuples(index=False)
    return {
        user: ml1m_profile(GENDERS[gender], AGES[age], OCCUPATIONS[occupation])
        for user, gender, age, occupation in people
    }


def user_prompts(dataset: data.Dataset, task: CTRTask) -> pd.Series:
    """KAR's text of a user without a language model, profile and prompt history, by row of `task.user_ids`.

    It is what KAR puts before the model's answer (`prompts.knowledge_text`): the prompt before its last ";".

    Raises:
        UserError: `dataset` is not MovieLens-1M, the only one with these profiles.
    """
    sentences = profiles(dataset)
    titles = dataset.items.set_index("item_id").loc[task.item_ids, "title"].to_numpy()
    rows = task.prompts
    rated = pd.Series(list(zip(titles[rows["item_row"]], rows["rating"], strict=True)))
    histories = rated.groupby(rows["user_row"].to_numpy()).agg(list)
    prompts = [
        kar_user(history, sentences[user]).prompt.rpartition(";")[0]
        for history, user in zip(histories, task.user_ids, strict=True)
    ]
    return pd.Series(prompts)


def _by_id(ids: pd.Series, texts: dict[int, str]) -> pd.Series:
    found = ids.map(texts).astype(object)
    return found.where(found.notna(), None)


@cache
def _items(path: Path) -> dict[int, str]:
    texts = json.loads(path.read_text(encoding="utf-8"))
    return {int(item): text for item, text in texts.items() if text.strip()}


@cache
def _summaries(path: Path) -> dict[int, str]:
    return pd.read_csv(path).set_index("user_id")["summary"].to_dict()
