"""Loud checks of the raw tables: the first offender is named by file, line and column."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from duckdb import DuckDBPyConnection

from data_prep.catalog import Ratings
from data_prep.tables import NUMBER, Parquet, Text
from rec_utils.errors import UserError

#: Publishers state the days of their own time zone.
SLACK = timedelta(days=1)

#: What no two rows of a table may share.
KEYS = {
    "ratings": ("user_id", "item_id"),
    "movies": ("item_id",),
    "users": ("user_id",),
    "links": ("item_id",),
}


def check_tables(connection: DuckDBPyConnection, tables: dict[str, Text | Parquet], spec: Ratings) -> None:
    """Check the raw tables against each other and against the catalog.

    Args:
        connection: database with the tables ratings and movies, and users and links where there are any.
        tables: the file behind each table.
        spec: scale, period and counts that the data set must have.

    Raises:
        UserError: a value is missing, out of the scale or period, or not whole; an id or a user-item pair
            stands twice; a rating names an unknown movie or user; or a count differs.
    """
    for table, file in tables.items():
        _check_values(connection, file, table, KEYS[table])
    _check_ratings(connection, tables["ratings"], spec)
    for table, file in tables.items():
        _check_unique(connection, file, table, KEYS[table])
    for table, column in (("movies", "item_id"), ("users", "user_id")):
        if table in tables:
            _check_known(connection, tables["ratings"], tables[table], table, column)
    _check_counts(connection, tables, spec)


def _refuse(
    connection: DuckDBPyConnection, file: Text | Parquet, table: str, column: str, condition: str, reason: str
) -> None:
    found = connection.execute(
        f"SELECT rowid, {column} FROM {table} WHERE {condition} ORDER BY rowid LIMIT 1"
    ).fetchone()
    if found:
        row, value = found
        shown = "an empty field" if value is None else f"{value:.15g}"
        raise UserError(f"{file.where(row)}, column {column}: {shown} is not {reason}")


def _check_values(
    connection: DuckDBPyConnection, file: Text | Parquet, table: str, key: tuple[str, ...]
) -> None:
    """Numbers are finite, all but ratings are whole, and nothing is missing where every row must have a value."""
    for column, kind in file.columns.items():
        if column in (*key, "rating", "timestamp", "title"):
            _refuse(connection, file, table, column, f"{column} IS NULL", "a value")
        if kind == NUMBER:
            _refuse(connection, file, table, column, f'NOT isfinite("{column}")', "a number")
        if kind == NUMBER and column != "rating":
            _refuse(connection, file, table, column, f'"{column}" <> trunc("{column}")', "a whole number")


def _check_ratings(connection: DuckDBPyConnection, file: Text | Parquet, spec: Ratings) -> None:
    """Ratings lie on the scale, timestamps in the period."""
    low, high = spec.scale
    steps = f"((rating - {low}) / {spec.step})"
    _refuse(
        connection,
        file,
        "ratings",
        "rating",
        f"rating NOT BETWEEN {low} AND {high} OR {steps} <> trunc({steps})",
        f"on the scale from {low:g} to {high:g} in steps of {spec.step:g}",
    )
    first, last = (datetime.combine(day, time(), UTC) for day in spec.period)
    _refuse(
        connection,
        file,
        "ratings",
        "timestamp",
        f"timestamp NOT BETWEEN {(first - SLACK).timestamp()} AND {(last + 2 * SLACK).timestamp()}",
        f"a time, in seconds, between {first:%Y-%m-%d} and {last:%Y-%m-%d}",
    )


def _check_unique(
    connection: DuckDBPyConnection, file: Text | Parquet, table: str, key: tuple[str, ...]
) -> None:
    columns = ", ".join(key)
    twice = connection.execute(
        f"SELECT min(rowid), max(rowid), {columns} FROM {table} GROUP BY {columns} "
        "HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
    ).fetchone()
    if twice:
        row, again, *values = twice
        named = " and ".join(f"{name} {value:g}" for name, value in zip(key, values, strict=True))
        raise UserError(f"{file.where(row)} is repeated by {file.where(again)}: both have {named}")


def _check_known(
    connection: DuckDBPyConnection, ratings: Text | Parquet, known: Text | Parquet, table: str, column: str
) -> None:
    stray = connection.execute(
        f"SELECT ratings.rowid, {column} FROM ratings ANTI JOIN {table} USING ({column}) ORDER BY 1 LIMIT 1"
    ).fetchone()
    if stray:
        row, value = stray
        raise UserError(f"{ratings.where(row)}, column {column}: {value:g} is not in {known.name}")


def _check_counts(connection: DuckDBPyConnection, tables: dict[str, Text | Parquet], spec: Ratings) -> None:
    found = {
        "ratings": ("ratings", "SELECT count(*) FROM ratings"),
        "users": ("ratings", "SELECT count(DISTINCT user_id) FROM ratings"),
        "items": ("movies", "SELECT count(*) FROM movies"),
    }
    for name, expected in spec.counts:
        table, query = found[name]
        count = connection.execute(query).fetchone()[0]
        if count != expected:
            raise UserError(
                f"{tables[table].name} holds {count:,} {name} where {expected:,} are expected: "
                "it is truncated, filtered or of another edition"
            )
