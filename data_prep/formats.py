"""What a build needs to know about a family of data sets: its raw files, its checks and its tables."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Protocol

import duckdb

from data_prep.catalog import Ratings
from data_prep.checks import Checks
from data_prep.json_lines import JsonLines
from data_prep.tables import NUMBER, Parquet, Text

RawFile = Text | Parquet | JsonLines

#: The year is the last one in brackets: "1984 (Nineteen Eighty-Four) (1984)".
_ITEMS = r"""
    SELECT item_id::BIGINT AS item_id, trim(title) AS title,
           regexp_extract_all(title, '\((\d{{4}})\)', 1)[-1]::SMALLINT AS year,
           coalesce(genres, '') AS genres, imdb
    FROM ({items})
"""


class Family(Protocol):
    """Raw files of one shape; the database has one table for each."""

    def tables(self, found: Container[str]) -> dict[str, RawFile]:
        """The files to read, by the name of the table they become, given the names of the files `found`."""

    def check(self, connection: duckdb.DuckDBPyConnection, files: dict[str, RawFile], spec: Ratings) -> None:
        """Raise UserError that names the first value at fault in the tables."""

    def prepare(self) -> list[str]:
        """SQL of the tables that the queries need beside those of the files."""

    def queries(self, files: dict[str, RawFile]) -> dict[str, str]:
        """SQL of the final tables interactions, items and users, by file name."""


@dataclass(frozen=True)
class Format:
    """Raw files about movies, and how the item table is made from them.

    `items` is SQL over the tables movies and links that gives item_id, title, genres and imdb in the order of
    the movie file.
    """

    ratings: Text  #: columns user_id, item_id, rating, timestamp
    movies: Text
    items: str
    users: Text | None = None  #: user_id and what else is known about users
    links: Text | None = None  #: item_id, imdb_id
    assembled: Parquet | None = None  #: may stand in for the ratings file

    def tables(self, found: Container[str]) -> dict[str, RawFile]:
        """See `Family`."""
        tables = {name: getattr(self, name) for name in ("ratings", "movies", "users", "links")}
        if self.assembled and self.ratings.name not in found and self.assembled.name in found:
            tables["ratings"] = self.assembled
        return {name: file for name, file in tables.items() if file}

    def check(self, connection: duckdb.DuckDBPyConnection, files: dict[str, RawFile], spec: Ratings) -> None:
        """See `Family`."""
        Checks(connection, files, spec).run()

    def prepare(self) -> list[str]:
        """See `Family`."""
        return []

    def queries(self, files: dict[str, RawFile]) -> dict[str, str]:
        """See `Family`; rows are in the order of the raw files."""
        users = "SELECT DISTINCT user_id::BIGINT AS user_id FROM ratings ORDER BY user_id"
        return {
            "interactions.parquet": f"SELECT {_columns(files['ratings'])} FROM ratings",
            "items.parquet": _ITEMS.format(items=self.items),
            "users.parquet": f"SELECT {_columns(files['users'])} FROM users" if "users" in files else users,
        }


def _columns(file: RawFile) -> str:
    """SQL list of a table's columns in their final types: 64-bit whole numbers, 32-bit ratings, text."""
    types = {name: "BIGINT" if kind == NUMBER else kind for name, kind in file.columns.items()}
    if "rating" in types:
        types["rating"] = "FLOAT"
    return ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in types.items())
