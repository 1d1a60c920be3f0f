"""Delimited text files into DuckDB tables, with every malformed line turned into one clear sentence."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import duckdb

from rec_utils.errors import UserError

NUMBER, TEXT = "DOUBLE", "VARCHAR"


@dataclass(frozen=True)
class Text:
    """Shape of a delimited text file.

    Numbers are read as DOUBLE, so that 1.5 in a column of whole numbers is found rather than rounded.
    """

    name: str
    delimiter: str
    columns: dict[str, str]  #: name in the table -> NUMBER or TEXT, in the order of the file
    header: tuple[str, ...] = ()  #: names in the file's first line, as many as columns; () if it has none
    encoding: str = "utf-8"

    def where(self, row: int) -> str:
        """Words for the place of table row `row` (from 0) in the file."""
        return f"{self.name}, line {row + (2 if self.header else 1)}"

    def read(self, connection: duckdb.DuckDBPyConnection, path: Path, table: str, scratch: Path) -> None:
        """Read the file at `path` into a new table; its rows are the file's lines, in order.

        Args:
            connection: an open DuckDB database.
            path: the file.
            table: name of the table to make.
            scratch: folder for a UTF-8 copy where the file has another encoding.

        Raises:
            UserError: empty file, wrong separator, missing column, a line with too few or too many columns,
                text where a number stands, or bytes that are not of the stated encoding.
        """
        types = self._types(path)
        if TEXT in types.values():
            path = self._as_utf8(path, scratch)
        quote = '"' if self.header else ""
        connection.read_csv(
            str(path),
            delimiter=self.delimiter,
            header=bool(self.header),
            columns=types,
            quotechar=quote,
            escapechar=quote,
            auto_detect=False,
            store_rejects=True,
        ).create(table)
        rejected = connection.execute(
            "SELECT line, column_name, error_type, csv_line FROM reject_errors ORDER BY line LIMIT 1"
        ).fetchone()
        if rejected:
            line, column, kind, text = rejected
            where = f"{self.name}, line {line}"
            if kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
                raise UserError(
                    f"{where}: {len(types)} columns separated by {self.delimiter!r} expected in {text!r}"
                )
            raise UserError(f"{where}, column {column}: not a number in {text!r}")

    def _types(self, path: Path) -> dict[str, str]:
        """Type of every column of the file; columns that nobody asked for are text."""
        with open(path, "rb") as file:
            first = file.readline().decode(self.encoding, errors="replace").rstrip("\r\n")
        if not first:
            raise UserError(f"{self.name} is empty")
        if self.delimiter not in first:
            raise UserError(
                f"{self.name}, line 1: wrong separator, {self.delimiter!r} expected in {first[:80]!r}"
            )
        if not self.header:
            return self.columns
        found = [name.strip('"') for name in first.lstrip("\ufeff").split(self.delimiter)]
        missing = [name for name in self.header if name not in found]
        if missing:
            raise UserError(f"{self.name}, line 1: column {missing[0]} is missing; found {', '.join(found)}")
        ours = dict(zip(self.header, self.columns, strict=True))
        return {ours.get(name, name): self.columns.get(ours.get(name, name), TEXT) for name in found}

    def _as_utf8(self, path: Path, scratch: Path) -> Path:
        content = path.read_bytes()
        try:
            content.decode(self.encoding)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise UserError(f"{self.name}, line {line}: wrong encoding, {self.encoding} expected") from None
        if self.encoding == "utf-8":
            return path
        # every byte string is valid latin-1, but text that is also valid UTF-8 was converted by somebody
        if not content.isascii():
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                pass
            else:
                raise UserError(
                    f"{self.name}: wrong encoding, {self.encoding} expected but the file is UTF-8"
                )
        copy = scratch / f"{self.name}.utf8"
        copy.write_text(content.decode(self.encoding), encoding="utf-8", newline="")
        return copy


@dataclass(frozen=True)
class Parquet:
    """A Parquet file that may stand in for a text file."""

    name: str
    columns: dict[str, str]  #: name in the table -> NUMBER or TEXT
    header: tuple[str, ...]  #: the columns' names in the file

    def where(self, row: int) -> str:
        """Words for the place of table row `row` (from 0) in the file."""
        return f"{self.name}, row {row + 1}"

    def read(self, connection: duckdb.DuckDBPyConnection, path: Path, table: str, scratch: Path) -> None:
        """Read the file at `path` into a new table, as `Text.read` does."""
        try:
            relation = connection.read_parquet(str(path))
        except duckdb.Error as error:
            raise UserError(
                f"{self.name} is not a whole Parquet file: {str(error).splitlines()[0]}"
            ) from None
        missing = [name for name in self.header if name not in relation.columns]
        if missing:
            raise UserError(
                f"{self.name}: column {missing[0]} is missing; found {', '.join(relation.columns)}"
            )
        ours = zip(self.header, self.columns.items(), strict=True)
        relation.project(", ".join(f'"{raw}"::{kind} AS {name}' for raw, (name, kind) in ours)).create(table)


@dataclass(frozen=True)
class Format:
    """The raw files of a family of data sets, and how the item table is made from them."""

    ratings: Text  #: columns user_id, item_id, rating, timestamp
    movies: Text
    items: (
        str  #: SQL over the table movies (and links): item_id, title, genres, imdb, in the order of the file
    )
    users: Text | None = None  #: user_id and what else is known about users
    links: Text | None = None  #: item_id, imdb_id
    assembled: Parquet | None = None  #: may stand in for the ratings file

    def tables(self, found: Container[str]) -> dict[str, Text | Parquet]:
        """The files to read, by the name of the table they become, chosen among the names `found`."""
        tables = {name: getattr(self, name) for name in ("ratings", "movies", "users", "links")}
        if self.assembled and self.ratings.name not in found and self.assembled.name in found:
            tables["ratings"] = self.assembled
        return {name: text for name, text in tables.items() if text}
