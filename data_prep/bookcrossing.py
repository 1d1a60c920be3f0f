"""BookCrossing: three files of semicolons and quotes in Windows' encoding, ratings 0 to 10 without times.

0 stands for a book that was registered without a rating. Books get numbers from 1 in the order of their file;
ISBNs that only the ratings name follow, without a title.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import duckdb

from data_prep.catalog import Ratings
from data_prep.checks import Checks
from data_prep.formats import RawFile
from data_prep.tables import NUMBER, TEXT, Text

#: A quote inside quotes has a backslash before it; who did not tell the age has NULL there.
_SHAPE = {"delimiter": ";", "encoding": "cp1252", "escape": "\\", "missing": "NULL"}

_FILES = {
    "ratings": Text(
        "BX-Book-Ratings.csv",
        columns={"user_id": NUMBER, "isbn": TEXT, "rating": NUMBER},
        header=("User-ID", "ISBN", "Book-Rating"),
        **_SHAPE,
    ),
    "books": Text(
        "BX-Books.csv",
        columns=dict.fromkeys(("isbn", "title", "author", "published", "publisher"), TEXT),
        header=("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher"),
        **_SHAPE,
    ),
    "users": Text(
        "BX-Users.csv",
        columns={"user_id": NUMBER, "location": TEXT, "age": NUMBER},
        header=("User-ID", "Location", "Age"),
        **_SHAPE,
    ),
}

_PREPARE = """
    CREATE TABLE numbered AS
    SELECT isbn, title, author, published, publisher FROM (
        SELECT 0 AS part, rowid AS place, isbn, title, author, published, publisher FROM books
        UNION ALL
        SELECT 1, min(rowid), isbn, NULL, NULL, NULL, NULL
        FROM ratings ANTI JOIN books USING (isbn) GROUP BY isbn
    ) ORDER BY part, place
"""

_QUERIES = {
    "interactions.parquet": """
        SELECT user_id::BIGINT AS user_id, numbered.rowid + 1 AS item_id, rating::FLOAT AS rating
        FROM ratings JOIN numbered USING (isbn) ORDER BY ratings.rowid
    """,
    "items.parquet": """
        SELECT rowid + 1 AS item_id, title, nullif(try_cast(published AS SMALLINT), 0) AS year, '' AS genres,
               NULL::VARCHAR AS imdb, isbn, author, published, publisher
        FROM numbered ORDER BY rowid
    """,
    "users.parquet": """
        SELECT user_id::BIGINT AS user_id, location, age::SMALLINT AS age FROM users ORDER BY rowid
    """,
}


@dataclass(frozen=True)
class BookCrossing:
    """The three raw files, as a `Family`."""

    def tables(self, found: Container[str]) -> dict[str, RawFile]:
        """See `Family`."""
        return _FILES

    def check(self, connection: duckdb.DuckDBPyConnection, files: dict[str, RawFile], spec: Ratings) -> None:
        """See `Family`."""
        checks = Checks(connection, files, spec)
        for table, column in (("ratings", "user_id"), ("users", "user_id"), ("users", "age")):
            checks.refuse(table, column, f"{column} <> trunc({column})", "a whole number")
        for table, key in (("ratings", ("user_id", "isbn")), ("books", ("isbn",)), ("users", ("user_id",))):
            for column in key:
                checks.refuse(table, column, f"{column} IS NULL", "a value")
            checks.unique(table, key)
        checks.refuse("ratings", "rating", "rating IS NULL", "a value")
        checks.scale()

    def prepare(self) -> list[str]:
        """See `Family`."""
        return [_PREPARE]

    def queries(self, files: dict[str, RawFile]) -> dict[str, str]:
        """See `Family`; rows are in the order of the raw files."""
        return _QUERIES


FORMATS = {"bookcrossing": BookCrossing()}
