"""Loud checks of the raw tables: the first offender is named by file, line and column."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from duckdb import DuckDBPyConnection

from data_prep.catalog import Ratings
from data_prep.tables import NUMBER, Parquet, Text, first_row
from rec_utils.errors import UserError

#: Publishers state the first and the last day in their own time zone.
SLACK = timedelta(days=1)

#: What no two rows of a table may share.
KEYS = {
    "ratings": ("user_id", "item_id"),
    "movies": ("item_id",),
    "users": ("user_id",),
    "links": ("item_id",),
}

#: Columns beside the keys in which every row must have a value.
REQUIRED = ("rating", "timestamp", "title")


@dataclass(frozen=True)
class Checks:
    """The checks of one data set, over a database with the tables ratings and movies (and users, links)."""

    connection: DuckDBPyConnection
    files: dict[str, Text | Parquet]  #: the file behind each table
    spec: Ratings  #: scale, period and counts that the data set must have

    def run(self) -> None:
        """Run all checks.

        Raises:
            UserError: a value is missing, not finite, not whole, out of the scale or out of the period; an id
                or a user-item pair stands twice; a rating names an unknown movie or user; a count differs.
        """
        for table in self.files:
            self._values(table)
        self._scale()
        self._period()
        for table in self.files:
            self._unique(table)
        self._known("movies", "item_id")
        if "users" in self.files:
            self._known("users", "user_id")
        self._counts()

    def _refuse(self, table: str, column: str, condition: str, expected: str) -> None:
        """Raise for the first row of `table` that fulfils the SQL `condition`."""
        found = first_row(
            self.connection,
            f'SELECT rowid, "{column}" FROM {table} WHERE {condition} ORDER BY rowid LIMIT 1',
        )
        if found:
            row, value = found
            shown = "an empty field" if value is None else f"{value:.15g}"
            raise UserError(f"{self.files[table].place(row, column)}: {shown} is not {expected}")

    def _values(self, table: str) -> None:
        for column, kind in self.files[table].columns.items():
            if column in KEYS[table] or column in REQUIRED:
                self._refuse(table, column, f'"{column}" IS NULL', "a value")
            if kind == NUMBER:
                self._refuse(table, column, f'NOT isfinite("{column}")', "a number")
            if kind == NUMBER and column != "rating":
                self._refuse(table, column, f'"{column}" <> trunc("{column}")', "a whole number")

    def _scale(self) -> None:
        low, high = self.spec.scale
        steps = f"((rating - {low}) / {self.spec.step})"
        self._refuse(
            "ratings",
            "rating",
            f"rating NOT BETWEEN {low} AND {high} OR {steps} <> trunc({steps})",
            f"on the scale from {low:g} to {high:g} in steps of {self.spec.step:g}",
        )

    def _period(self) -> None:
        first, last = (datetime.combine(day, time(), UTC) for day in self.spec.period)
        begin, end = (first - SLACK).timestamp(), (last + timedelta(days=1) + SLACK).timestamp()
        self._refuse(
            "ratings",
            "timestamp",
            f"timestamp NOT BETWEEN {begin} AND {end}",
            f"a time in seconds between {first:%Y-%m-%d} and {last:%Y-%m-%d}",
        )

    def _unique(self, table: str) -> None:
        key = ", ".join(KEYS[table])
        twice = first_row(
            self.connection,
            f"SELECT min(rowid), max(rowid), {key} FROM {table} GROUP BY {key} "
            "HAVING count(*) > 1 ORDER BY 1 LIMIT 1",
        )
        if twice:
            row, again, *values = twice
            named = " and ".join(
                f"{name} {value:.15g}" for name, value in zip(KEYS[table], values, strict=True)
            )
            place = self.files[table].place
            raise UserError(f"{place(again)} repeats {place(row)}: both have {named}")

    def _known(self, table: str, column: str) -> None:
        """Every id in the ratings stands in the other table."""
        stray = first_row(
            self.connection,
            f"SELECT ratings.rowid, {column} FROM ratings ANTI JOIN {table} USING ({column}) "
            "ORDER BY 1 LIMIT 1",
        )
        if stray:
            row, value = stray
            place = self.files["ratings"].place(row, column)
            raise UserError(f"{place}: {value:.15g} is not in {self.files[table].name}")

    def _counts(self) -> None:
        for name, table, count in (
            ("ratings", "ratings", "count(*)"),
            ("users", "ratings", "count(DISTINCT user_id)"),
            ("items", "movies", "count(*)"),
        ):
            (found,) = first_row(self.connection, f"SELECT {count} FROM {table}")
            expected = getattr(self.spec.counts, name)
            if found != expected:
                raise UserError(
                    f"{self.files[table].name} holds {found:,} {name} instead of {expected:,}: "
                    "it is truncated, filtered or of another edition"
                )
