"""Loud checks of the raw tables: the first offender is named by file, line and column."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from duckdb import DuckDBPyConnection

from data_prep.catalog import Ratings
from data_prep.json_lines import JsonLines
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
    files: dict[str, Text | Parquet | JsonLines]  #: the file behind each table
    spec: Ratings  #: scale, period and counts that the data set must have

    def run(self) -> None:
        """Run all checks.

        Raises:
            UserError: a value is missing, not finite, not whole, out of the scale or out of the period; an id
                or a user-item pair stands twice; a rating names an unknown movie or user; a count differs.
        """
        for table in self.files:
            self._values(table)
        self.scale()
        self.period()
        for table in self.files:
            self.unique(table, KEYS[table])
        self._known("movies", "item_id")
        if "users" in self.files:
            self._known("users", "user_id")
        self._counts()

    def refuse(self, table: str, column: str, condition: str, expected: str) -> None:
        """Raise for the first row of `table` that fulfils the SQL `condition`."""
        found = first_row(
            self.connection,
            f'SELECT rowid, "{column}" FROM {table} WHERE {condition} ORDER BY rowid LIMIT 1',
        )
        if found:
            row, value = found
            shown = "an empty field" if value is None else _shown(value)
            raise UserError(f"{self.files[table].place(row, column)}: {shown} is not {expected}")

    def _values(self, table: str) -> None:
        for column, kind in self.files[table].columns.items():
            if column in KEYS[table] or column in REQUIRED:
                self.refuse(table, column, f'"{column}" IS NULL', "a value")
            if kind == NUMBER:
                self.refuse(table, column, f'NOT isfinite("{column}")', "a number")
            if kind == NUMBER and column != "rating":
                self.refuse(table, column, f'"{column}" <> trunc("{column}")', "a whole number")

    def scale(self) -> None:
        """Raise for the first rating that is not on the scale."""
        low, high = self.spec.scale
        steps = f"((rating - {low}) / {self.spec.step})"
        self.refuse(
            "ratings",
            "rating",
            f"rating NOT BETWEEN {low} AND {high} OR {steps} <> trunc({steps})",
            f"on the scale from {low:g} to {high:g} in steps of {self.spec.step:g}",
        )

    def period(self) -> None:
        """Raise for the first time that is not in the period, where one is known."""
        if self.spec.period is None:
            return
        first, last = (datetime.combine(day, time(), UTC) for day in self.spec.period)
        begin, end = (first - SLACK).timestamp(), (last + timedelta(days=1) + SLACK).timestamp()
        self.refuse(
            "ratings",
            "timestamp",
            f"timestamp NOT BETWEEN {begin} AND {end}",
            f"a time in seconds between {first:%Y-%m-%d} and {last:%Y-%m-%d}",
        )

    def unique(self, table: str, columns: tuple[str, ...]) -> None:
        """Raise for the first row of `table` that repeats these columns of an earlier one."""
        key = ", ".join(columns)
        twice = first_row(
            self.connection,
            f"SELECT min(rowid), max(rowid), {key} FROM {table} GROUP BY {key} "
            "HAVING count(*) > 1 ORDER BY 1 LIMIT 1",
        )
        if twice:
            row, again, *values = twice
            named = " and ".join(
                f"{name} {_shown(value)}" for name, value in zip(columns, values, strict=True)
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
        if self.spec.counts is None:
            return
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


def _shown(value: float | str) -> str:
    return repr(value) if isinstance(value, str) else f"{value:.15g}"
