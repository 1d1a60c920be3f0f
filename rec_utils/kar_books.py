"""KAR's preprocessing of Amazon's books, step by step as in the code of its authors.

From the 5-core reviews and the metadata of 2018: the part in which every user has 60 reviews and every item
40; users in random order; a user's ratings by time; items without metadata left out; the first n ratings of a
user, min((count + 1) // 2, 15), for the language model; every later rating a sample, positive with five
stars; nine tenths of the users for training, the others for the test, no validation.
"""

from __future__ import annotations

import html
import random
from dataclasses import dataclass
from string import ascii_letters, digits, punctuation, whitespace

import numpy as np
import pandas as pd
import torch

from rec_utils.batches import CTRSamples
from rec_utils.data import Dataset, load_core
from rec_utils.errors import UserError
from rec_utils.samples import CTRTask, prompt_lengths

USER_CORE, ITEM_CORE = 60, 40
PROMPT_CAP = 15
LIKE_FROM = 5.0  #: stars; the code says "more than 4"
SEED, TRAIN_SHARE = 1234, 0.9
#: What KAR's released files hold: keys of begin_index.json and REKI's item tree.
RELEASED = {"users": 11_906, "items": 17_332, "prompt ratings a user": 15.0}

_UNKNOWN_BRAND, _UNKNOWN_CATEGORY = "unknown brand", "unknown category"
_LONGEST = 150  #: characters of a title or brand
_PLAIN = str.maketrans(
    dict.fromkeys("“”″", '"')
    | dict.fromkeys("‘’´", "'")
    | dict.fromkeys("–—−", "-")
    | {"…": "", "‚": ",", "【": "[", "】": "]"}
    | dict.fromkeys("\n\r\x7f®\xa0ª™¼¢½→©ëν¨\u3000„³¾\xadº‡", " ")
)
_ALLOWED = frozenset(ascii_letters + digits + punctuation + whitespace)


@dataclass(frozen=True)
class KARBooks:
    """The samples of KAR's experiment on books; rows of users and items are its internal ids less one."""

    task: CTRTask  #: fields of an item are its id, brand and category
    test_user: np.ndarray  #: [U] bool
    items: pd.DataFrame  #: [I] title (missing where KAR's cleaning gives up), brand, category, known

    def statistics(self) -> pd.DataFrame:
        """What there is, beside what KAR's released files hold (missing where they do not say)."""
        known, samples = self.items["known"], self.task.samples
        of_test = self.test_user[samples.user_row.numpy()]
        ours = {
            "users": len(self.test_user),
            "items": int(known.sum()),
            "prompt ratings a user": self.task.ratings.groupby("user_row")["in_prompt"].sum().mean(),
            "ratings": len(self.task.ratings),
            "samples": len(samples.label),
            "test users": int(self.test_user.sum()),
            "test samples": int(of_test.sum()),
            "positive rate": float(samples.label.mean()),
        }
        return pd.DataFrame({"ours": ours, "released": pd.Series(RELEASED)}).loc[list(ours)]


def kar_books(dataset: Dataset | None = None, *, history_length: int = 5) -> KARBooks:
    """Build the samples.

    Args:
        dataset: the core of Amazon's books; None loads it from the built data set "amazon-books".
        history_length: L, how many ratings before a sample it sees.

    Raises:
        UserError: the data set is not built, or nothing is left.
    """
    if dataset is None:
        dataset = load_core("amazon-books", USER_CORE, ITEM_CORE)
    stream = random.Random(SEED)
    # numbers of users count first reviews, so this is the order in which KAR's code meets them
    user_ids = np.unique(dataset.interactions["user_id"]).tolist()
    stream.shuffle(user_ids)
    row = pd.Series(np.arange(len(user_ids)), index=user_ids)
    ratings = dataset.interactions.assign(user_row=dataset.interactions["user_id"].map(row))
    ratings = ratings.sort_values(["user_row", "timestamp"], kind="stable", ignore_index=True)
    item_row, item_ids = pd.factorize(ratings["item_id"])
    n_prompt = prompt_lengths(np.bincount(ratings["user_row"]), "half", PROMPT_CAP)

    items = _items(dataset, item_ids)
    kept = items["known"].to_numpy()[item_row]
    ratings, item_row = ratings[kept].reset_index(drop=True), item_row[kept]
    order = list(range(1, 1 + len(user_ids)))
    stream.shuffle(order)
    test_user = np.zeros(len(user_ids), bool)
    test_user[np.array(order[int(len(order) * TRAIN_SHARE) :], dtype=int) - 1] = True
    samples, table = _samples(dataset.name, ratings, item_row, items, n_prompt, history_length)
    task = CTRTask(samples, np.array(user_ids), np.asarray(item_ids), table, LIKE_FROM)
    return KARBooks(task, test_user, items)


def _samples(
    name: str,
    ratings: pd.DataFrame,
    item_row: np.ndarray,
    items: pd.DataFrame,
    n_prompt: np.ndarray,
    history_length: int,
) -> tuple[CTRSamples, pd.DataFrame]:
    """Samples and the table of ratings of a `CTRTask`."""
    user_row = ratings["user_row"].to_numpy()
    counts = np.bincount(user_row, minlength=len(n_prompt))
    first = np.cumsum(counts) - counts
    place = np.arange(len(ratings)) - first[user_row]
    position = np.flatnonzero(place >= n_prompt[user_row])
    if not len(position):
        raise UserError(f"{name}: no rating is left after the prompt histories")
    # one table of ids: 0 padding, items, brands and categories (equal words share an id), stars
    attributes = pd.factorize(items[["brand", "category"]].to_numpy().ravel())
    item_fields = np.column_stack([1 + np.arange(len(items)), 1 + len(items) + attributes[0].reshape(-1, 2)])
    rating_start = 1 + len(items) + len(attributes[1])
    levels, level_row = np.unique(ratings["rating"].to_numpy(), return_inverse=True)
    samples = CTRSamples(
        item_fields=torch.from_numpy(item_fields),
        sequence=torch.from_numpy(item_row),
        rating_ids=torch.from_numpy(rating_start + level_row),
        first=torch.from_numpy(first[user_row[position]]),
        position=torch.from_numpy(position),
        user_row=torch.from_numpy(user_row[position]),
        label=torch.from_numpy((ratings["rating"].to_numpy()[position] >= LIKE_FROM).astype(np.float32)),
        history_length=history_length,
        n_ids=rating_start + len(levels),
    )
    table = ratings[["rating", "timestamp"]].assign(
        user_row=user_row, item_row=item_row, place=place, in_prompt=place < n_prompt[user_row]
    )
    return samples, table


def _items(dataset: Dataset, item_ids: np.ndarray) -> pd.DataFrame:
    """Cleaned title, brand, category and whether there are metadata, in the order of `item_ids`."""
    raw = dataset.items.set_index("item_id").loc[item_ids]
    title = raw["title"].map(clean, na_action="ignore")
    brand = raw["brand"].map(clean, na_action="ignore")
    category = raw["genres"].str.split("|").str[0].replace("", _UNKNOWN_CATEGORY)
    known = raw["title"].notna() & (title != "EMINEM SHOW")  # the code leaves this one out by name
    return pd.DataFrame(
        {"title": title, "brand": brand.fillna(_UNKNOWN_BRAND), "category": category, "known": known}
    ).reset_index(drop=True)


def clean(text: str) -> str | None:
    """A title or brand in plain characters, or None where KAR's code gives it up.

    That is if it keeps characters outside ASCII, has no letter or is shorter than three characters. More than
    150 are cut at the last space.
    """
    text = " ".join(each for each in html.unescape(text).translate(_PLAIN).split(" ") if each).strip()
    if not _ALLOWED.issuperset(text) or not set(text) & set(ascii_letters) or len(text) < 3:
        return None
    if len(text) > _LONGEST:
        text = text[:_LONGEST].strip().rpartition(" ")[0].rstrip(punctuation + whitespace)
    return text or None
