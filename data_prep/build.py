"""Raw files to checked Parquet tables: idempotent, and atomic, so that a build is either whole or not there."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
from filelock import FileLock
from tqdm import tqdm

from data_prep import movielens, movietweetings
from data_prep.catalog import Entry
from data_prep.checks import check_tables
from data_prep.source import Source, locate
from data_prep.tables import NUMBER, Format, Parquet, Text
from rec_utils.errors import UserError
from rec_utils.files import sha256
from rec_utils.settings import cpu_count, data_dir

#: Raise by one when the tables that a build writes change.
BUILDER = 1

FORMATS: dict[str, Format] = movielens.FORMATS | movietweetings.FORMATS

#: The year is the last one in brackets: "1984 (Nineteen Eighty-Four) (1984)".
ITEMS = r"""
    SELECT item_id::BIGINT AS item_id, trim(title) AS title,
           regexp_extract_all(title, '\((\d{{4}})\)', 1)[-1]::SMALLINT AS year,
           coalesce(genres, '') AS genres, imdb
    FROM ({items})
"""


@dataclass(frozen=True)
class Built:
    """A finished build: its folder and what its manifest says."""

    folder: Path
    builder: int
    raw: dict[str, str]  #: sha256 of every raw file read
    tables: dict[str, str]  #: sha256 of every Parquet file

    @classmethod
    def read(cls, name: str) -> Built | None:
        """The present build of a data set, or None where there is none."""
        folder = data_dir() / name
        try:
            return cls(folder, **json.loads((folder / "manifest.json").read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise UserError(
                f"{folder / 'manifest.json'} is damaged; remove {folder} and build {name} again"
            ) from None

    def damage(self) -> str | None:
        """The first table that is missing or altered, if any."""
        intact = {
            name: (self.folder / name).is_file() and sha256(self.folder / name) == hash_
            for name, hash_ in self.tables.items()
        }
        return next((name for name, good in intact.items() if not good), None)


def build(entry: Entry, where: Path | None = None) -> tuple[Built, bool]:
    """Build a data set unless it is already built from the same raw files.

    Args:
        entry: a data set of ratings.
        where: folder or archive with the raw files; None for the bundled or the downloaded ones.

    Returns:
        The build, and whether it was made now.

    Raises:
        UserError: a raw file is missing or at fault, or the disk is full. An earlier build stays as it was.
    """
    target = data_dir() / entry.name
    source = locate(entry, where)
    tables = FORMATS[entry.ratings.format].tables(source.members)
    for table in tables.values():
        if table.name not in source.members:
            raise UserError(f"{source.path} holds no {table.name}, which {entry.name} needs")
    raw = source.hashes([table.name for table in tables.values()])
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{entry.name}.lock"):
        _clean_up(target)
        present = Built.read(entry.name)
        if present and (present.builder, present.raw) == (BUILDER, raw) and not present.damage():
            return present, False
        with _replaced(target) as folder:
            _write(entry, source, tables, folder)
            manifest = {
                "builder": BUILDER,
                "raw": raw,
                "tables": {path.name: sha256(path) for path in sorted(folder.glob("*.parquet"))},
            }
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return Built.read(entry.name), True


def _write(entry: Entry, source: Source, tables: dict[str, Text | Parquet], folder: Path) -> None:
    """Read, check and write the tables of one data set into `folder`."""
    scratch = folder / "scratch"
    scratch.mkdir()
    steps = tqdm(total=3 + len(tables), desc=entry.name, unit="step", leave=False)
    with steps, duckdb.connect(str(scratch / "tables.duckdb")) as connection:
        connection.execute(
            f"SET threads = {cpu_count()}; SET memory_limit = '2GB'; SET enable_progress_bar = false"
        )
        paths = source.fetch([table.name for table in tables.values()], scratch / "raw")
        known = {file.path: file for file in entry.raw}
        for path in paths.values():
            if path.name in known:
                known[path.name].check(path)
        steps.update()
        try:
            for name, table in tables.items():
                steps.set_postfix_str(table.name)
                table.read(connection, paths[table.name], name, scratch)
                steps.update()
            steps.set_postfix_str("checks")
            check_tables(connection, tables, entry.ratings)
            steps.update()
            _export(connection, FORMATS[entry.ratings.format], tables, folder)
            steps.update()
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{entry.name} could not be built in {folder.parent}: {reason}; is the disk full?"
            ) from None
    shutil.rmtree(scratch)


def _export(
    connection: duckdb.DuckDBPyConnection,
    entry_format: Format,
    tables: dict[str, Text | Parquet],
    folder: Path,
) -> None:
    queries = {
        "interactions": f"SELECT {_columns(tables['ratings'])} FROM ratings",
        "items": ITEMS.format(items=entry_format.items),
        "users": f"SELECT {_columns(tables['users'])} FROM users"
        if "users" in tables
        else "SELECT DISTINCT user_id::BIGINT AS user_id FROM ratings ORDER BY user_id",
    }
    for name, query in queries.items():
        connection.execute(f"COPY ({query}) TO '{folder / name}.parquet' (FORMAT parquet, COMPRESSION zstd)")


def _columns(table: Text | Parquet) -> str:
    """SQL list of a table's columns in their final types: whole numbers are 64 bits wide, ratings 32-bit floats."""
    types = {name: kind if kind != NUMBER else "BIGINT" for name, kind in table.columns.items()}
    if "rating" in types:
        types["rating"] = "FLOAT"
    return ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in types.items())


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; put it in the place of `target` if the block ends well."""
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.new-"))
    old = target.with_name(f".{target.name}.old")
    try:
        yield folder
        folder.chmod(0o755)
        if target.exists():
            target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clean_up(target: Path) -> None:
    """Remove what a killed build left behind; give back the old build if it was killed while they were swapped."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)
    for rest in (old, *target.parent.glob(f".{target.name}.new-*")):
        shutil.rmtree(rest, ignore_errors=True)
