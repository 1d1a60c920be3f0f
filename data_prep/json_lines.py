"""Files with one JSON object a line, packed or not, streamed into DuckDB tables."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import duckdb

from data_prep.tables import NUMBER, first_line
from rec_utils.errors import UserError

#: Longest line that is read; DuckDB takes objects of up to 16 MiB.
MOST_BYTES = 1 << 25


@dataclass(frozen=True)
class JsonLines:
    """Shape of a file of JSON objects; the same attributes and methods as `Text`.

    A field that an object lacks is missing in the table. The file is never in memory as a whole.
    """

    name: str
    columns: dict[str, str]  #: name in the table -> NUMBER, TEXT or "JSON"
    header: tuple[str, ...]  #: the fields' names in the file

    def place(self, row: int, column: str | None = None) -> str:
        """Words for row `row` (from 0) of the table, and for one of its columns, in the user's file."""
        line = f"{self.name}, line {row + 1}"
        if column is None:
            return line
        return f"{line}, field {dict(zip(self.columns, self.header, strict=True)).get(column, column)}"

    def read(self, connection: duckdb.DuckDBPyConnection, path: Path, table: str, scratch: Path) -> None:
        """Read the file at `path` into a new table, in the order of its lines; see `Text.read`.

        Raises:
            UserError: the file is empty or cut off, or a line is no JSON object with values of these types.
        """
        fields = dict(zip(self.header, self.columns.values(), strict=True))
        names = ", ".join(
            f'"{field}" AS {name}' for field, name in zip(self.header, self.columns, strict=True)
        )
        try:
            connection.execute(
                f"CREATE TABLE {table} AS SELECT {names} FROM "
                f"read_json(?, format = 'newline_delimited', records = true, columns = {fields})",
                [str(path)],
            )
        except duckdb.InvalidInputException as error:
            raise UserError(self._fault(path) or f"{self.name}: {first_line(error)}") from None
        except duckdb.IOException as error:
            if "GZIP" in str(error).upper():
                raise UserError(f"{self.name} is cut off or damaged ({first_line(error)})") from None
            raise
        if not connection.table(table).limit(1).fetchall():
            raise UserError(f"{self.name} is empty")

    def _fault(self, path: Path) -> str:
        """What is wrong with the first line at fault; "" if nothing is.

        DuckDB's own message counts the lines of malformed objects from another start than those of others.
        """
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                pieces = iter(lambda: file.readline(MOST_BYTES), b"")  # all of a line may be too much
                lines = (line for line in pieces if line.strip())
                faults = (self._fault_of(row, line) for row, line in enumerate(lines))
                return next(filter(None, faults), "")
        except (EOFError, OSError, zlib.error) as error:
            return f"{self.name} is cut off or damaged ({error})"

    def _fault_of(self, row: int, line: bytes) -> str:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            shown = line.decode(errors="replace").strip()[:80]
            return f"{self.place(row)}: no JSON object in {shown!r}"
        for (column, kind), field in zip(self.columns.items(), self.header, strict=True):
            if kind == NUMBER and not isinstance(found.get(field), int | float | None):
                return f"{self.place(row, column)}: {found[field]!r} is not a number"
        return ""
