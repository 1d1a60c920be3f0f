"""The shipped knowledge about movies, viewers and groups of them, and its vectors.

Items are matched by IMDb id, which the items of most data sets of `rec_utils.data` carry, so one text
serves every data set that knows the film.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from rec_utils import settings
from rec_utils.errors import UserError
from rec_utils.knowledge import vectors
from rec_utils.knowledge.encoder import MINILM_DIM, Encoder
from rec_utils.knowledge.prompts import item_facts, knowledge_text
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store

ITEMS = settings.BUNDLED / "knowledge" / "items.jsonl"
USERS = settings.BUNDLED / "knowledge" / "users_ml-latest-small.jsonl"
GROUPS = settings.BUNDLED / "knowledge" / "groups_ml-latest-small.jsonl"
PARTITIONS = settings.BUNDLED / "knowledge" / "partitions_ml-latest-small.jsonl"

#: The data set whose users `USERS` is about; user ids mean nothing elsewhere.
USERS_OF = "ml-latest-small"

#: Texts of an item: what the model wrote, and as its control what it was given to write from.
ITEM_TEXTS: Mapping[str, Callable[[Response], str]] = {
    "facts": lambda response: response.text,
    "title_genres": lambda response: response.request.prompt,
}
#: Texts of a user: the model's reasoning, the rated history it was given (control), and both, as in KAR.
USER_TEXTS: Mapping[str, Callable[[Response], str]] = {
    "preferences": lambda response: response.text,
    "history": lambda response: response.request.prompt,
    "history_preferences": lambda response: knowledge_text(response.request, response.text),
}
#: Room for 30 titles and the answer: KAR's limit, and all the positions the encoder has.
HISTORY_TOKENS = 512


@cache
def item_answers() -> dict[str, Response]:
    """The shipped answers about items by IMDb id (7 digits or more, zero padded)."""
    return {response.meta["imdb"]: response for response in Store(ITEMS, readonly=True)}


@cache
def user_answers() -> dict[int, Response]:
    """The shipped answers about the users of ml-latest-small by user id."""
    return {response.meta["user_id"]: response for response in Store(USERS, readonly=True)}


def group_answers(requests: Sequence[Request | None]) -> list[Response | None]:
    """The shipped answer to each request about a group; None for no request.

    Raises:
        UserError: a request was not answered; groups and answers belong together.
    """
    store = Store(GROUPS, readonly=True)
    answers = [store.get(request) if request else None for request in requests]
    for request, answer in zip(requests, answers, strict=True):
        if request and not answer:
            raise UserError(
                f"{request.describe()} has no answer in {GROUPS.name}: other groups were asked about"
            )
    return answers


def title_genres(items: pd.DataFrame) -> list[str]:
    """Title and genres of every item as text: as given to the model, or in the same form where it was not.

    `items` has columns imdb, title and genres.
    """
    given = item_texts(items["imdb"], "title_genres")
    asked = [item_facts(*film).prompt for film in zip(items["title"], items["genres"], strict=True)]
    return given.where(given.notna(), asked).tolist()


def item_texts(imdb: pd.Series, text: str = "facts") -> pd.Series:
    """The text (a key of `ITEM_TEXTS`) of each film by IMDb id; None where there is none."""
    return _texts(imdb, item_answers(), ITEM_TEXTS, text)


def user_texts(user_ids: pd.Series, text: str = "preferences") -> pd.Series:
    """The text (a key of `USER_TEXTS`) of each user of ml-latest-small; None where there is none."""
    return _texts(user_ids, user_answers(), USER_TEXTS, text)


def item_vectors(items: pd.DataFrame, text: str = "facts") -> tuple[np.ndarray, np.ndarray]:
    """Vectors [n, 384] float32 of the items' texts and a mask [n] of the items that have one.

    `items` has a column `imdb` (`UserError` otherwise). Items without a text get zeros.
    """
    if "imdb" not in items:
        raise UserError("the items have no column imdb, by which knowledge about movies is found")
    return text_vectors(item_texts(items["imdb"], text), Encoder())


def user_vectors(user_ids: pd.Series, text: str = "preferences") -> tuple[np.ndarray, np.ndarray]:
    """Vectors [n, 384] float32 of the users' texts and a mask [n] of the users that have one.

    Texts with a history are read up to 512 tokens, the others up to the encoder's usual 256.
    """
    return text_vectors(user_texts(user_ids, text), user_encoder(text))


def user_encoder(text: str) -> Encoder:
    """The encoder of a user text (a key of `USER_TEXTS`)."""
    return Encoder() if text == "preferences" else Encoder(max_tokens=HISTORY_TOKENS)


def _texts(
    ids: pd.Series, answers: Mapping, texts: Mapping[str, Callable[[Response], str]], text: str
) -> pd.Series:
    read = texts[settings.check_choice("text", text, tuple(texts))]
    found = ids.map({key: read(answer) for key, answer in answers.items()}).astype(object)
    return found.where(found.notna(), None)


def text_vectors(texts: pd.Series, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [n, 384] float32 of `texts` and a mask [n] of those that are not None; the others get zeros."""
    has_text = texts.notna().to_numpy()
    table = np.zeros((len(texts), MINILM_DIM), np.float32)
    table[has_text] = vectors.encode(texts[has_text].tolist(), encoder)
    return table, has_text
