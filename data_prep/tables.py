"""Raw files into DuckDB tables, with every malformed line turned into one clear sentence."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import duckdb

from rec_utils.errors import UserError

#: Numbers are read as DOUBLE, so that 1.5 in a column of whole numbers is found rather than rounded.
NUMBER, TEXT = "DOUBLE", "VARCHAR"


def first_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple | None:
    """The first row of a query's answer; all of it is fetched, since an open answer blocks the connection."""
    return next(iter(connection.execute(query).fetchall()), None)


def first_line(error: Exception) -> str:
    """The first line of an error's message; DuckDB puts hints below it."""
    return str(error).partition("\n")[0]


@dataclass(frozen=True)
class Text:
    """Shape of a delimited text file."""

    name: str
    delimiter: str
    columns: dict[str, str]  #: name in the table -> NUMBER or TEXT, in the order of the file without a header
    header: tuple[str, ...] = ()  #: the columns' names in the file's first line; () if it has none
    encoding: str = "utf-8"
    escape: str = '"'  #: what stands before a quote inside quotes
    missing: str = ""  #: how the file writes a value that nobody knows

    def place(self, row: int, column: str | None = None) -> str:
        """Words for row `row` (from 0) of the table, and for one of its columns, in the user's file."""
        line = f"{self.name}, line {row + (2 if self.header else 1)}"
        if column is None:
            return line
        return f"{line}, column {dict(zip(self.columns, self.header, strict=False)).get(column, column)}"

    def read(self, connection: duckdb.DuckDBPyConnection, path: Path, table: str, scratch: Path) -> None:
        """Read the file at `path` into a new table, in the order of its lines.

        Args:
            connection: an open DuckDB database.
            path: the file.
            table: name of the table to make.
            scratch: folder for a UTF-8 copy of a file that has another encoding.

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
            escapechar=self.escape if quote else "",
            na_values=self.missing,
            auto_detect=False,
            store_rejects=True,
        ).create(table)
        rejected = first_row(
            connection,
            "SELECT line, column_name, error_type, csv_line FROM reject_errors ORDER BY line LIMIT 1",
        )
        if rejected:
            line, column, kind, text = rejected
            row, shown = line - (2 if self.header else 1), repr(text.strip()[:80])
            if kind == "CAST":
                raise UserError(f"{self.place(row, column)}: not a number in {shown}")
            raise UserError(
                f"{self.place(row)}: expected {len(types)} columns split by {self.delimiter!r} in {shown}"
            )

    def _types(self, path: Path) -> dict[str, str]:
        """Type of every column of the file; columns that nobody asked for are text."""
        with path.open("rb") as file:
            first = file.readline().decode(self.encoding, errors="replace").rstrip("\r\n")
        if not first:
            raise UserError(f"{self.name} is empty")
        if self.delimiter not in first:
            raise UserError(
                f"{self.name}, line 1: wrong separator, expected {self.delimiter!r} in {first[:80]!r}"
            )
        if not self.header:
            return self.columns
        found = [name.strip('"') for name in first.removeprefix("\ufeff").split(self.delimiter)]
        for name in self.header:
            if name not in found:
                raise UserError(f"{self.name}, line 1: column {name} is missing; found {', '.join(found)}")
        ours = dict(zip(self.header, self.columns, strict=True))
        return {ours.get(name, name): self.columns.get(ours.get(name, name), TEXT) for name in found}

    def _as_utf8(self, path: Path, scratch: Path) -> Path:
        """The file itself or a copy in UTF-8, after a check of the encoding; read piece by piece."""
        fault = _not_utf8(path)
        if self.encoding == "utf-8" and fault:
            raise UserError(f"{self.name}, line {fault}: wrong encoding, expected UTF-8")
        if not fault:
            # nearly all bytes are valid there, but what is valid UTF-8 too was converted by somebody
            if self.encoding != "utf-8" and not all(piece.isascii() for piece in _pieces(path)):
                raise UserError(f"{self.name}: wrong encoding, expected {self.encoding} but found UTF-8")
            return path
        copy = scratch / f"{self.name}.utf8"
        with copy.open("wb") as file:
            for piece in _pieces(path):
                file.write(piece.decode(self.encoding, errors="replace").encode())
        return copy


def _pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file in pieces of 16 MiB."""
    with path.open("rb") as file:
        yield from iter(lambda: file.read(1 << 24), b"")


def _not_utf8(path: Path) -> int:
    """Number of the first line of a file that is not UTF-8; 0 if there is none."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    for piece in chain(_pieces(path), [b""]):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            return line + piece.count(b"\n", 0, max(0, error.start - pending))
        line += piece.count(b"\n")
    return 0


@dataclass(frozen=True)
class Parquet:
    """A Parquet file that may stand in for a text file; the same attributes and methods."""

    name: str
    columns: dict[str, str]  #: name in the table -> NUMBER or TEXT
    header: tuple[str, ...]  #: the columns' names in the file

    def place(self, row: int, column: str | None = None) -> str:
        """Words for row `row` (from 0) of the table, and for one of its columns, in the user's file."""
        words = f"{self.name}, row {row + 1}"
        return words if column is None else f"{words}, column {column}"

    def read(self, connection: duckdb.DuckDBPyConnection, path: Path, table: str, scratch: Path) -> None:
        """Read the file at `path` into a new table; see `Text.read`."""
        try:
            relation = connection.read_parquet(str(path))
        except duckdb.Error as error:
            raise UserError(f"{self.name} is not a whole Parquet file ({first_line(error)})") from None
        for name in self.header:
            if name not in relation.columns:
                found = ", ".join(relation.columns)
                raise UserError(f"{self.name}: column {name} is missing; found {found}")
        ours = zip(self.header, self.columns.items(), strict=True)
        relation.project(", ".join(f'"{raw}"::{kind} AS {name}' for raw, (name, kind) in ours)).create(table)
