"""Raw dialogues of recommendation into tables: ReDial, TG-ReDial as CRSLab passes it on, and INSPIRED.

Every reader gives the same five tables, see `TABLES`. Rows stand in the order of the publisher's numbers,
which is the order in time, and turns in the order of the dialogue.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rec_utils.errors import UserError

#: Columns of the tables and their types. A session is one dialogue; `place` is the place of a mention in its
#: turn, from 0; the form of a session says of a movie whether the recommender `suggested` it, and whether the
#: seeker has `seen` and `liked` it (0 no, 1 yes, 2 not said), once as the seeker filled it in after the
#: dialogue and once as the recommender did (`by_seeker`).
TABLES: Mapping[str, Mapping[str, str]] = {
    "sessions": {"session_id": "int64", "split": "str", "seeker": "int64", "recommender": "Int64"},
    "turns": {
        "session_id": "int64",
        "turn": "int16",
        "by_seeker": "bool",
        "seconds": "Int32",  # since the dialogue began
        "text": "str",
    },
    "mentions": {"session_id": "int64", "turn": "int16", "place": "int16", "movie_id": "int64"},
    "forms": {
        "session_id": "int64",
        "by_seeker": "bool",
        "movie_id": "int64",
        "suggested": "int8",
        "seen": "int8",
        "liked": "int8",
    },
    "movies": {"movie_id": "int64", "title": "str", "year": "Int16"},
}
LABELS = ("suggested", "seen", "liked")

Tables = dict[str, pd.DataFrame]


def read_redial(files: Mapping[str, Path], movie_list: Path | None = None) -> Tables:
    """ReDial's JSON lines, one file a split; `movie_list` is the publisher's list of all movies (csv).

    Raises:
        UserError: a line is not JSON, lacks a field or has a speaker who is neither of the two.
    """
    frame = _stack({split: _json_lines(path) for split, path in files.items()}, _REDIAL_FIELDS)
    frame["session_id"] = frame["conversationId"].astype("int64")
    named = {int(movie): title for titles in frame["movieMentions"] for movie, title in titles.items()}
    if movie_list is not None:
        listed = pd.read_csv(movie_list, encoding="utf-8-sig")
        named |= dict(zip(listed["movieId"], listed["movieName"], strict=True))
    named = {movie: title for movie, title in named.items() if title}  # a movie without a title is no movie
    sessions = frame.rename(columns={"initiatorWorkerId": "seeker", "respondentWorkerId": "recommender"})
    turns = _explode(frame, "messages", ["session_id", "initiatorWorkerId", "respondentWorkerId"])
    turns["by_seeker"] = turns["senderWorkerId"] == turns["initiatorWorkerId"]
    stranger = ~turns["by_seeker"] & (turns["senderWorkerId"] != turns["respondentWorkerId"])
    if stranger.any():
        session = turns.loc[stranger, "session_id"].iloc[0]
        raise UserError(f"dialogue {session} has a message of somebody who is neither seeker nor recommender")
    turns = turns.rename(columns={"timeOffset": "seconds"})
    found = turns["text"].str.extractall(r"@(\d+)")[0].rename("movie_id").reset_index()
    mentions = turns[["session_id", "turn"]].loc[found["level_0"]].reset_index(drop=True)
    mentions = mentions.assign(place=found["match"], movie_id=found["movie_id"].astype("int64"))
    forms = [
        {"session_id": session, "by_seeker": by_seeker, "movie_id": int(movie), **labels}
        for by_seeker, column in ((True, "initiatorQuestions"), (False, "respondentQuestions"))
        for session, form in zip(frame["session_id"], frame[column], strict=True)
        for movie, labels in (form or {}).items()  # an empty form is a list
        if int(movie) in named
    ]
    movies = pd.DataFrame({"movie_id": list(named), "title": list(named.values())})
    return _tables(sessions, turns, mentions[mentions["movie_id"].isin(named)], forms, movies)


def read_tg_redial(files: Mapping[str, Path]) -> Tables:
    """TG-ReDial in CRSLab's JSON, one list of dialogues a split; movies are numbered in the order of names.

    Raises:
        UserError: a file is not such a list, or a dialogue or message lacks a field.
    """
    frame = _stack({split: _json_list(path) for split, path in files.items()}, _TG_REDIAL_FIELDS)
    frame["session_id"] = frame["conv_id"].astype("int64")
    sessions = frame.assign(seeker=frame["user_id"].astype("int64"), recommender=pd.NA)
    turns = _explode(frame, "messages", ["session_id"])
    turns["by_seeker"] = turns["role"].str.casefold() == "seeker"
    turns["text"] = turns["text"].map(lambda text: text if isinstance(text, str) else "".join(text))
    return _named_movies(sessions, turns, turns["movie"])


def read_inspired(files: Mapping[str, Path]) -> Tables:
    """INSPIRED's tables of utterances, one file a split; dialogues are numbered in the order of time stamps.

    The files name no people, so every dialogue is that of a seeker of its own.

    Raises:
        UserError: a column is missing.
    """
    rows = {split: pd.read_csv(path, sep="\t", dtype=str, quoting=3) for split, path in files.items()}
    for split, part in rows.items():
        _need(part.columns, _INSPIRED_FIELDS, files[split].name)
    turns = pd.concat([part.assign(split=split) for split, part in rows.items()], ignore_index=True)
    turns["session_id"] = turns["dialog_id"].rank(method="dense").astype("int64")
    turns["turn"] = turns.groupby("session_id").cumcount()
    turns["by_seeker"] = turns["speaker"].str.casefold() == "seeker"
    turns["text"] = turns["text"].fillna("").str.replace("QUOTATION_MARK", '"')
    sessions = turns.drop_duplicates("session_id").assign(seeker=lambda t: t["session_id"], recommender=pd.NA)
    titles = turns["movies"].fillna("").map(lambda cell: [t.strip() for t in cell.split(";") if t.strip()])
    return _named_movies(sessions, turns, titles)


#: Format of a catalog entry -> its reader.
READERS: Mapping[str, Callable[..., Tables]] = {
    "redial": read_redial,
    "tg-redial": read_tg_redial,
    "inspired": read_inspired,
}

_REDIAL_FIELDS = (
    "conversationId", "initiatorWorkerId", "respondentWorkerId", "messages", "movieMentions",
    "initiatorQuestions", "respondentQuestions",
)  # fmt: skip
_TG_REDIAL_FIELDS = ("conv_id", "user_id", "messages")
_INSPIRED_FIELDS = ("dialog_id", "speaker", "text", "movies")


def _json_lines(path: Path) -> list[tuple[str, Any]]:
    """(place, dialogue) of every line."""
    dialogues = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            place = f"{path.name}, line {number}"
            try:
                dialogues.append((place, json.loads(line)))
            except ValueError as error:
                raise UserError(f"{place}: not JSON ({error})") from None
    return dialogues


def _json_list(path: Path) -> list[tuple[str, Any]]:
    """(place, dialogue) of every element."""
    try:
        dialogues = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path.name}: not JSON ({error})") from None
    if not isinstance(dialogues, list):
        raise UserError(f"{path.name}: not a list of dialogues")
    return [(f"{path.name}, dialogue {number}", each) for number, each in enumerate(dialogues, 1)]


def _stack(parts: Mapping[str, list[tuple[str, Any]]], fields: Iterable[str]) -> pd.DataFrame:
    """One row a dialogue of all splits, with its `split` and the `fields`, none of which may be missing."""
    rows = []
    for split, dialogues in parts.items():
        for place, dialogue in dialogues:
            _need(dialogue, fields, place)
            rows.append({"split": split} | {field: dialogue[field] for field in fields})
    return pd.DataFrame(rows)


def _need(found: Iterable[str], wanted: Iterable[str], place: str) -> None:
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"{place}: field {missing[0]} is missing")


def _explode(frame: pd.DataFrame, column: str, keep: list[str]) -> pd.DataFrame:
    """One row a message, with the columns `keep` of its dialogue and its `turn` from 0."""
    long = frame[[*keep, column]].explode(column, ignore_index=True).dropna(subset=column, ignore_index=True)
    long = pd.concat([long[keep], pd.DataFrame(list(long[column]))], axis=1)
    return long.assign(turn=long.groupby("session_id").cumcount())


def _named_movies(sessions: pd.DataFrame, turns: pd.DataFrame, titles: pd.Series) -> Tables:
    """Tables of data that name movies by title: `titles` is a list for each row of `turns`."""
    mentions = turns[["session_id", "turn"]].assign(title=titles).explode("title").dropna(subset="title")
    code, names = pd.factorize(mentions["title"], sort=True)
    mentions["place"] = mentions.groupby(["session_id", "turn"]).cumcount()
    movies = pd.DataFrame({"movie_id": range(len(names)), "title": names})
    return _tables(sessions, turns, mentions.assign(movie_id=code), [], movies)


def _tables(
    sessions: pd.DataFrame, turns: pd.DataFrame, mentions: pd.DataFrame, forms: list, movies: pd.DataFrame
) -> Tables:
    """The five tables with their columns in order, typed and sorted."""
    movies["title"] = (
        movies["title"].astype("str").fillna("").str.replace(r"\s+", " ", regex=True).str.strip()
    )
    movies["year"] = pd.to_numeric(movies["title"].str.extract(r"\((\d{4})\)$")[0])
    if "seconds" not in turns:
        turns = turns.assign(seconds=pd.NA)
    forms = pd.DataFrame(forms, columns=list(TABLES["forms"]))
    given = {"sessions": sessions, "turns": turns, "mentions": mentions, "forms": forms, "movies": movies}
    tables = {}
    for name, types in TABLES.items():
        table = given[name][list(types)].astype(dict(types))
        # a stable sort: turns, mentions and forms stay in their order inside a session
        tables[name] = table.sort_values(table.columns[0], kind="stable", ignore_index=True)
    return tables
