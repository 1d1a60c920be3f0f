"""ClickPrompt's preprocessing of Amazon's toys and of BookCrossing, as far as it is documented.

The authors' scripts were never released. Toys: the 5-core, ratings of 3 dropped as neutral, 4 and 5 positive,
split by time. BookCrossing: ratings whose book and user are known, 5 to 10 positive (so a book that was
registered without a rating, 0, is negative), split at random, since there are no times. The fields of
BookCrossing are cleaned as in ReLLa, a work of the same group, but for its list of misspelt countries.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rec_utils.data import Dataset, load, load_core
from rec_utils.errors import UserError
from rec_utils.field_task import FieldTask, assemble, cut

TOYS_CORE, TOYS_NEUTRAL, TOYS_LIKE_FROM = 5, 3.0, 4.0
CROSSING_LIKE_FROM, CROSSING_SEED = 5.0, 42
#: Ages in years from here on, as ReLLa's code groups them; below 5 and above 100 nobody knows.
AGES = (5, 18, 25, 30, 35, 40, 45, 50, 55, 60, 101)
AGE_NAMES = ("under 18", "18-24", "25-29", "30-34", "35-39", "40-44", "45-49", "50-54", "55-59", "60+")
#: How many values the fields of the whole files have after ReLLa's cleaning, from its code's outputs.
CROSSING_VALUES = {
    "User ID": 278_858,
    "Location": 922,
    "Age": 11,
    "ISBN": 271_375,
    "Book title": 242_152,
    "Author": 102_027,
    "Publication year": 116,
    "Publisher": 16_807,
}


def toys(dataset: Dataset | None = None) -> FieldTask:
    """The samples of Amazon's toys: user id, item id, category, title and brand.

    The core is taken before neutral ratings are dropped; which comes first is not documented.

    Args:
        dataset: the 5-core; None loads it from the built data set "amazon-toys".

    Raises:
        UserError: the data set is not built, or too little is left to split.
    """
    if dataset is None:
        dataset = load_core("amazon-toys", TOYS_CORE, TOYS_CORE)
    ratings = dataset.interactions[dataset.interactions["rating"] != TOYS_NEUTRAL]
    ratings = ratings.sort_values("timestamp", kind="stable", ignore_index=True)
    items = dataset.items.set_index("item_id").loc[np.unique(ratings["item_id"])]
    category = items["genres"].str.split("|").str[0]
    item_texts = {
        "Item ID": items["asin"],
        "Category": _or_unknown(category),
        "Title": _or_unknown(items["title"]),
        "Brand": _or_unknown(items["brand"]),
    }
    users = dataset.users.set_index("user_id").loc[np.unique(ratings["user_id"])]
    user_texts = {"User ID": users["reviewer"]}
    return _task(dataset.name, ratings, TOYS_LIKE_FROM, user_texts, item_texts)


def bookcrossing(dataset: Dataset | None = None) -> FieldTask:
    """The samples of BookCrossing: user id, country and age; ISBN, title, author, year and publisher.

    Args:
        dataset: None loads the built data set "bookcrossing".

    Raises:
        UserError: the data set is not built, or too little is left to split.
    """
    dataset = load("bookcrossing") if dataset is None else dataset
    user_texts, item_texts = crossing_texts(dataset)
    ratings = dataset.interactions
    known = ratings["user_id"].isin(user_texts.index) & ratings["item_id"].isin(item_texts.index)
    ratings = ratings[known].sample(frac=1, random_state=CROSSING_SEED, ignore_index=True)
    user_texts = user_texts.loc[np.unique(ratings["user_id"])]
    item_texts = item_texts.loc[np.unique(ratings["item_id"])]
    return _task(dataset.name, ratings, CROSSING_LIKE_FROM, user_texts, item_texts)


def crossing_texts(dataset: Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cleaned fields of all users and of all books, by id; `CROSSING_VALUES` counts their values."""
    users = dataset.users.set_index("user_id")
    items = dataset.items.set_index("item_id")
    items = items[items["title"].notna() & items["isbn"].str.fullmatch("[0-9A-Za-z]+")]
    age = pd.cut(users["age"].astype(float), AGES, right=False, labels=AGE_NAMES).astype(object)
    user_texts = {"User ID": users.index.astype(str), "Location": country(users["location"]), "Age": age}
    published = items["published"].where(items["published"].str.len() == 4)
    item_texts = {
        "ISBN": items["isbn"],
        "Book title": items["title"],
        "Author": items["author"],
        "Publication year": published,
        "Publisher": items["publisher"],
    }
    return (
        pd.DataFrame(user_texts, index=users.index).apply(_or_unknown),
        pd.DataFrame(item_texts, index=items.index).apply(_or_unknown),
    )


def country(location: pd.Series) -> pd.Series:
    """The country of "town, region, country"; "unknown" where it is left out or makes no sense."""
    last = location.str.rsplit(", ", n=1).str[-1].str.title().str.strip("!,. ")
    last = last.replace(["Usa", "Us", "U S", "U S A", "U.S.A", "U.S"], "USA")
    last = last.replace(["Uk", "U K", "U.K"], "UK")
    odd = (last.str.len() < 2) | last.str.contains(r"N/A|&#|[?@*]", regex=True)
    return last.mask(odd, "unknown")


def _or_unknown(text: pd.Series) -> pd.Series:
    """The texts, with one word for all that say nothing."""
    return text.where(text.notna() & ~text.astype(str).str.lower().isin(["", "n/a"]), "unknown")


def _task(
    name: str, ratings: pd.DataFrame, like_from: float, user_texts: object, item_texts: object
) -> FieldTask:
    masks = cut(len(ratings), "ClickPrompt")
    if not all(mask.any() for mask in masks):
        raise UserError(f"{name}: {len(ratings)} ratings are too few to split")
    texts = (pd.DataFrame(each).reset_index(drop=True) for each in (user_texts, item_texts))
    return assemble(ratings, like_from, *texts, masks)
