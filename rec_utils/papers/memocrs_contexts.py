"""The questions MemoCRS is asked: turns in which a recommender names something new, and what went before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from rec_utils.dialogues import Dialogues, recommendations
from rec_utils.errors import UserError
from rec_utils.papers.memocrs_genres import ANY_GENRE, GENRES, WORDS


@dataclass(frozen=True)
class Contexts:
    """C turns to be predicted, with N movies named in them, over the M rows of `Dialogues.movies`.

    `table` has session_id, turn, seeker and `time`: the clock of the memories, the row of the turn among all
    turns, which grows with session and turn.
    """

    table: pd.DataFrame  #: [C] in the order of time
    named: (
        sparse.csr_array
    )  #: [C, M] how many movies were named after this one in the dialogue, plus 1; 0 not named
    wanted: np.ndarray  #: [C, G] whether the seeker spoke of each genre before in the dialogue
    context: np.ndarray  #: [N] place in `table` of each target
    target: np.ndarray  #: [N] row of the movie
    warm: np.ndarray  #: [N] whether the seeker had a session before
    repeat: np.ndarray  #: [N] whether the movie was named in one

    def __len__(self) -> int:
        return len(self.table)

    @property
    def seeker(self) -> np.ndarray:
        """[N] seeker of each target, the unit of a bootstrap."""
        return self.table["seeker"].to_numpy()[self.context]

    def select(self, rows: np.ndarray) -> Contexts:
        """The contexts at `rows`, in that order, with their targets."""
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        kept = place[self.context] >= 0
        return Contexts(
            self.table.iloc[rows].reset_index(drop=True),
            self.named[rows],
            self.wanted[rows],
            place[self.context[kept]],
            *(values[kept] for values in (self.target, self.warm, self.repeat)),
        )


def contexts(dialogues: Dialogues) -> Contexts:
    """The contexts of `dialogues.recommendations`, with what was named before the turn and nothing later."""
    wanted = recommendations(dialogues)
    keys = ["session_id", "turn"]
    table = wanted[[*keys, "seeker"]].drop_duplicates(keys, ignore_index=True)
    clock = dialogues.turns[keys].reset_index(names="time")
    table = table.merge(clock, on=keys)
    context = wanted[keys].merge(table[keys].reset_index(names="row"), on=keys)["row"].to_numpy()
    row_of = movie_rows(dialogues)
    return Contexts(
        table,
        named_before(dialogues, table),
        genres_wanted(dialogues, table),
        context,
        row_of.loc[wanted["movie_id"]].to_numpy(),
        wanted["warm"].to_numpy(),
        wanted["repeat"].to_numpy(),
    )


def movie_rows(dialogues: Dialogues) -> pd.Series:
    """Row in `dialogues.movies` of every movie, by movie_id."""
    return pd.Series(range(len(dialogues.movies)), index=dialogues.movies["movie_id"])


def named_before(dialogues: Dialogues, table: pd.DataFrame) -> sparse.csr_array:
    """The movies named in the dialogue before each row's turn; see `Contexts.named`."""
    before = (
        table[["session_id", "turn"]]
        .reset_index(names="row")
        .merge(dialogues.mentions, on="session_id", suffixes=("", "_named"))
    )
    before = before[before["turn_named"] < before["turn"]]
    before = before.drop_duplicates(["row", "movie_id"], keep="last")
    later = before.groupby("row").cumcount(ascending=False) + 1
    columns = movie_rows(dialogues).loc[before["movie_id"]]
    shape = (len(table), len(dialogues.movies))
    return sparse.csr_array((later.to_numpy(np.float64), (before["row"], columns)), shape=shape)


def genres_wanted(dialogues: Dialogues, table: pd.DataFrame) -> np.ndarray:
    """Whether the seeker spoke of each genre before each row's turn; see `Contexts.wanted`."""
    spoken = dialogues.turns[dialogues.turns["by_seeker"]].assign(text=lambda t: t["text"].str.casefold())
    spoken = spoken[spoken["text"].str.contains(ANY_GENRE, regex=True)]
    turn, session = table["turn"].to_numpy(), table["session_id"]
    wanted = np.zeros((len(table), len(GENRES)), dtype=bool)
    for column, words in enumerate(WORDS.values()):
        said = spoken[spoken["text"].str.contains(rf"\b(?:{words})\b", regex=True)]
        wanted[:, column] = session.map(said.groupby("session_id")["turn"].min()).to_numpy() < turn
    return wanted


def session_movies(dialogues: Dialogues) -> sparse.csr_array:
    """[sessions, M] 1 where a movie was named in the session."""
    named = dialogues.mentions.drop_duplicates(["session_id", "movie_id"])
    place = pd.Series(range(len(dialogues.sessions)), index=dialogues.sessions["session_id"])
    rows, columns = place.loc[named["session_id"]], movie_rows(dialogues).loc[named["movie_id"]]
    shape = (len(dialogues.sessions), len(dialogues.movies))
    return sparse.csr_array((np.ones(len(named)), (rows, columns)), shape=shape)


def ranks(scores: np.ndarray, contexts: Contexts) -> np.ndarray:
    """Rank [N] of every target among the movies that its dialogue has not named, from scores [C, M].

    Equal scores count against the target, as in `rec_utils.metrics`.

    Raises:
        UserError: the scores are of another shape, or one is NaN.
    """
    if scores.shape != contexts.named.shape:
        raise UserError(
            f"Scores {scores.shape} are not one for each context and movie {contexts.named.shape}."
        )
    if np.isnan(scores).any():
        raise UserError(f"The scores of context {int(np.argwhere(np.isnan(scores))[0, 0])} hold NaN.")
    result = np.empty(len(contexts.target), dtype=np.int64)
    order = np.argsort(contexts.context, kind="stable")
    for part in np.array_split(order, max(len(order) // 512, 1)):
        rows = contexts.context[part]
        score = scores[rows]  # a copy
        score[contexts.named[rows].nonzero()] = -np.inf
        own = scores[rows, contexts.target[part]]
        result[part] = (score >= own[:, None]).sum(1)
    return result
