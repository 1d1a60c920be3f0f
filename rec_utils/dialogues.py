"""Recommendation dialogues of people who come back: sessions, turns, mentions, forms, what to predict.

A session is one dialogue between a seeker and a recommender. The sessions of a seeker, in the order of their
numbers, are that seeker's sequence; a session is warm if there is an earlier one, else cold.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from data_prep.catalog import dialogue_entry
from data_prep.dialogue_formats import Tables
from data_prep.dialogues import read
from rec_utils.errors import UserError

_MOVIE_ID = re.compile(r"@(\d+)")


@dataclass(frozen=True)
class Dialogues:
    """A data set of dialogues; the columns are those of `data_prep.dialogue_formats.TABLES`, and these.

    `sessions` also has `n_earlier` (int64), how many sessions the seeker had before, in any split.
    `mentions` also has `by_seeker`. All tables are sorted by session and, inside it, by turn.
    """

    name: str
    title: str
    sessions: pd.DataFrame
    turns: pd.DataFrame
    mentions: pd.DataFrame
    forms: pd.DataFrame  #: filled in after the dialogue: no input to a recommendation in the same session
    movies: pd.DataFrame
    licence: str
    citation: str
    hashes: dict[str, str]  #: sha256 of the files that were read

    @classmethod
    def of(
        cls,
        name: str,
        tables: Tables,
        title: str = "",
        licence: str = "",
        citation: str = "",
        hashes: Mapping[str, str] = MappingProxyType({}),
    ) -> Dialogues:
        """A data set from the tables of a reader of `data_prep.dialogue_formats`."""
        sessions, turns, mentions = (tables[each] for each in ("sessions", "turns", "mentions"))
        sessions = sessions.assign(n_earlier=sessions.groupby("seeker").cumcount())
        keys = ["session_id", "turn"]
        mentions = mentions.merge(turns[[*keys, "by_seeker"]], on=keys, validate="many_to_one")
        held = tables | {"sessions": sessions, "mentions": mentions}
        return cls(name, title, **held, licence=licence, citation=citation, hashes=dict(hashes))

    @property
    def titles(self) -> pd.Series:
        """Title of every movie, by movie_id."""
        return self.movies.set_index("movie_id")["title"]

    def split(self, *names: str) -> Dialogues:
        """The sessions of some splits, such as "train", and what belongs to them; all movies stay.

        Raises:
            UserError: no session is of such a split.
        """
        for name in names:
            if not (self.sessions["split"] == name).any():
                there = ", ".join(self.sessions["split"].unique())
                raise UserError(f"split {name!r} of {self.name} is not one of {there}")
        return self.select(self.sessions.loc[self.sessions["split"].isin(names), "session_id"])

    def select(self, sessions: pd.Series) -> Dialogues:
        """The sessions whose numbers are among `sessions`, and what belongs to them; all movies stay."""
        parts = {
            name: table[table["session_id"].isin(sessions)].reset_index(drop=True)
            for name in ("sessions", "turns", "mentions", "forms")
            for table in [getattr(self, name)]
        }
        return replace(self, **parts)

    def texts(self) -> pd.Series:
        """Text of every turn, with titles for movie numbers and signs for `&quot;`; same index as `turns`."""
        titles = self.titles.to_dict()

        def title(match: re.Match) -> str:
            return titles.get(int(match[1]), match[0])

        return self.turns["text"].str.replace(_MOVIE_ID, title, regex=True).map(html.unescape)


def load(name: str) -> Dialogues:
    """Load a data set of dialogues: `redial` is shipped, others are built first.

    Raises:
        UserError: the name is unknown, the data set is neither shipped nor built, or a file is missing or
            altered. The message names the command that helps.
    """
    entry = dialogue_entry(name)
    tables, hashes = read(entry)
    return Dialogues.of(name, tables, entry.title, entry.licence, entry.citation, hashes)


def recommendations(dialogues: Dialogues) -> pd.DataFrame:
    """What is to be predicted: every movie that a recommender names and nobody named before in the dialogue.

    The context of a row are the turns before its own. Two movies first named in one turn are two rows of one
    context.

    Returns:
        Columns session_id, turn, movie_id, seeker, and `warm`: whether the seeker had a session before, and
        `repeat`: whether the movie was named in one of them. In order of session, turn and place.
    """
    first = dialogues.mentions.drop_duplicates(["session_id", "movie_id"])
    targets = first[~first["by_seeker"]].merge(
        dialogues.sessions[["session_id", "seeker", "n_earlier"]], on="session_id"
    )
    earliest = first_sessions(dialogues)
    keys = pd.MultiIndex.from_frame(targets[["seeker", "movie_id"]])
    targets["warm"] = targets["n_earlier"] > 0
    targets["repeat"] = earliest.loc[keys].to_numpy() < targets["session_id"].to_numpy()
    return targets[["session_id", "turn", "movie_id", "seeker", "warm", "repeat"]].reset_index(drop=True)


def first_sessions(dialogues: Dialogues) -> pd.Series:
    """Number of the first session in which a movie was named, by (seeker, movie_id)."""
    named = dialogues.mentions.merge(dialogues.sessions[["session_id", "seeker"]], on="session_id")
    return named.groupby(["seeker", "movie_id"])["session_id"].min()


def transcripts(dialogues: Dialogues, ends: pd.DataFrame, max_words: int) -> list[str]:
    """Readable dialogues, one for each row of `ends`; a line is what one person says before the other speaks.

    Args:
        dialogues: where they stand.
        ends: session_id and turn; the dialogue ends before that turn.
        max_words: of a longer dialogue the last lines are kept, up to so many words, after a "[…]".
    """
    turns = dialogues.turns[["session_id", "turn", "by_seeker"]]
    turns = turns.assign(text=dialogues.texts().str.split().str.join(" "))
    rows = pd.DataFrame({"row": range(len(ends))}).assign(
        session_id=list(ends["session_id"]), end=list(ends["turn"])
    )
    said = rows.merge(turns, on="session_id")
    said = said[said["turn"] < said["end"]].sort_values(["row", "turn"], ignore_index=True)
    changes = (said["row"] != said["row"].shift()) | (said["by_seeker"] != said["by_seeker"].shift())
    said["line"] = changes.cumsum()
    lines = said.drop_duplicates("line")[["row", "by_seeker"]].reset_index(drop=True)
    lines["text"] = joined(said["text"], said["line"])
    lines["text"] = lines["by_seeker"].map({True: "Seeker: ", False: "Recommender: "}) + lines["text"]
    words = lines["text"].str.split().str.len()
    after = words[::-1].groupby(lines["row"][::-1]).cumsum().sort_index()  # words from this line to the end
    kept = (after <= max_words) | (after == words)
    shown = lines[kept].groupby("row")["text"].agg("\n".join)
    cut = set(lines.loc[~kept, "row"])
    return [("[…]\n" if row in cut else "") + shown.get(row, "") for row in range(len(ends))]


def joined(texts: pd.Series, group: pd.Series) -> list[str]:
    """The texts of every group in one, a space between them; equal values of `group` stand side by side."""
    starts = np.flatnonzero((group != group.shift()).to_numpy())
    each = texts.tolist()  # pandas' own way by groupby takes ten times as long
    return [" ".join(each[start:end]) for start, end in zip(starts, [*starts[1:], len(each)], strict=True)]
