"""Genres for MemoCRS: of a film, from the bundled movie catalogs, and in a seeker's words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import sparse

from rec_utils import data

#: Genre -> how people speak of it (a regular expression, whole words, any case).
WORDS: Mapping[str, str] = {
    "action": r"action",
    "adventure": r"adventures?",
    "animation": r"animat\w+|cartoons?|disney|pixar",
    "comedy": r"comed\w+|funny|hilarious|humou?r\w*|rom-?coms?",
    "crime": r"crimes?|gangsters?|mafia|heists?",
    "documentary": r"documentar\w+",
    "drama": r"dramas?|dramatic",
    "family": r"family|kids?|child\w*",
    "fantasy": r"fantas\w+",
    "history": r"histor\w+|biograph\w+|true stor\w+",
    "horror": r"horrors?|scary|slashers?|zombies?",
    "musical": r"musicals?",
    "mystery": r"myster\w+",
    "romance": r"roman\w+|chick flicks?|love stor\w+|rom-?coms?",
    "science fiction": r"sci-? ?fi|science fiction|space|aliens?",
    "thriller": r"thrill\w*|suspense\w*",
    "war": r"war|military",
    "western": r"westerns?",
}
GENRES = tuple(WORDS)
ANY_GENRE = rf"\b(?:{'|'.join(WORDS.values())})\b"

#: Names in the catalogs that differ from ours; what is not in `GENRES` then is left out.
_ALIASES = {
    "children": "family", "sci-fi": "science fiction", "music": "musical", "film-noir": "crime",
    "biography": "history",
}  # fmt: skip


def movie_genres(movies: pd.DataFrame) -> sparse.csr_array:
    """Genres [movies, GENRES] (0 or 1, float64) of films with `title` and `year`; 0 where none is known.

    A film is looked up by title in MovieLens latest-small, then in MovieTweetings; of films of one title the
    nearest in time is taken, since ReDial's years are often wrong or missing.
    """
    known = pd.concat([data.load(name).items for name in ("ml-latest-small", "movietweetings")])
    known = known[known["genres"] != ""]
    known = pd.DataFrame(
        {
            "key": _title_key(known["title"]),
            "known": known["year"].astype("Float64"),
            "genres": known["genres"],
        }
    )
    asked = pd.DataFrame({"row": range(len(movies)), "key": _title_key(movies["title"]).to_numpy()})
    asked["year"] = movies["year"].astype("Float64").to_numpy()
    found = asked[asked["key"] != ""].merge(known, on="key")
    found["gap"] = (found["year"] - found["known"]).abs().fillna(0)
    found = found.sort_values(["row", "gap"], kind="stable").drop_duplicates("row")
    names = found.assign(name=found["genres"].str.casefold().str.split("|")).explode("name")
    names["name"] = names["name"].replace(_ALIASES)
    names["column"] = names["name"].map({genre: column for column, genre in enumerate(GENRES)})
    names = names.dropna(subset="column").drop_duplicates(["row", "column"])
    values = (np.ones(len(names)), (names["row"], names["column"].astype(int)))
    return sparse.csr_array(values, shape=(len(movies), len(GENRES)))


def _title_key(titles: pd.Series) -> pd.Series:
    """Titles without year, article, brackets, case and signs, for comparison."""
    plain = titles.str.replace(r"\(.*?\)", "", regex=True).str.strip().str.casefold()
    plain = plain.str.replace(r"^(.*), (the|a|an)$", r"\1", regex=True).str.replace("&", "and")
    plain = plain.str.replace(r"[^\w]+", " ", regex=True).str.strip()
    return plain.str.replace(r"^(the|a|an) ", "", regex=True)
