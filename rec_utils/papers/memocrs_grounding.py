"""Titles that a language model writes, found in the catalog: as they are, without the year, or nearly so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process, utils

#: Likeness, of 100, from which on a title counts as another one misspelt, or as the same in fewer words.
MISSPELT, SHORTENED = 85.0, 95.0


class Catalog:
    """The titles of M movies; the one that training sessions name most stands for all of its title."""

    def __init__(self, movies: pd.DataFrame, popularity: np.ndarray) -> None:
        """`movies` with `title`, and `popularity`: how many training sessions name each; both [M]."""
        titles = pd.DataFrame({"row": range(len(movies)), "title": _folded(movies["title"])})
        titles["plain"] = _folded(_without_year(movies["title"]))
        titles = titles.iloc[np.argsort(-popularity, kind="stable")]
        self._exact = _rows(titles, "title")
        self._plain = _rows(titles, "plain")
        self._found: dict[str, int] = {}

    def rows(self, titles: Sequence[str]) -> np.ndarray:
        """Row of each title [T]: of the same title, else the same without the year, else the nearest; or -1.

        The nearest is that with the highest ratio of letters without the year, else that which has all the
        words and the year, as "Star Wars: Episode VIII – The Last Jedi (2017)" has those of "Star Wars: The
        Last Jedi (2017)".
        """
        asked = pd.Series(list(titles), dtype="str")
        folded, plain = _folded(asked), _folded(_without_year(asked))
        unknown = ~folded.isin(self._exact) & ~plain.isin(self._plain) & ~folded.isin(self._found)
        for title, name in zip(folded[unknown], plain[unknown], strict=True):
            self._found[title] = self._nearest(title, name)
        found = folded.map(self._exact).fillna(plain.map(self._plain)).fillna(folded.map(self._found))
        return found.fillna(-1).to_numpy(np.int64)

    def _nearest(self, title: str, plain: str) -> int:
        near = process.extractOne(plain, list(self._plain), scorer=fuzz.ratio, score_cutoff=MISSPELT)
        if near:
            return self._plain[near[0]]
        if title != plain:  # words alone, without a year, say too little
            near = process.extractOne(
                title,
                list(self._exact),
                scorer=fuzz.token_set_ratio,
                processor=utils.default_process,
                score_cutoff=SHORTENED,
            )
        return self._exact[near[0]] if near else -1


def _rows(titles: pd.DataFrame, column: str) -> dict[str, int]:
    """Row of each name in `column`, the first one where it stands more than once."""
    first = titles.drop_duplicates(column)
    return {name: row for name, row in zip(first[column], first["row"], strict=True) if name}


def _folded(titles: pd.Series) -> pd.Series:
    return titles.str.casefold().str.split().str.join(" ")


def _without_year(titles: pd.Series) -> pd.Series:
    return titles.str.replace(r"\s*\(\d{4}\)\s*$", "", regex=True)
