"""Raw files to checked Parquet tables; a build is either whole or not there, and is not repeated in vain."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import duckdb
from tqdm import tqdm

from data_prep import amazon, bookcrossing, movielens, movietweetings
from data_prep.catalog import Entry
from data_prep.folders import alone, clean_up, replacing
from data_prep.formats import Family, RawFile
from data_prep.source import Source, locate
from data_prep.streaming import follow, limit_memory
from data_prep.tables import first_line
from rec_utils.errors import UserError
from rec_utils.files import sha256
from rec_utils.settings import data_dir

#: Raise by one when the tables that a build writes change.
BUILDER = 1

FORMATS: dict[str, Family] = (
    movielens.FORMATS | movietweetings.FORMATS | amazon.FORMATS | bookcrossing.FORMATS
)


@dataclass(frozen=True)
class Built:
    """A finished build: its folder and what its manifest says."""

    folder: Path
    builder: int  #: `BUILDER` at the time
    raw: dict[str, str]  #: sha256 of every raw file that was read
    rows: dict[str, int]  #: number of rows of every Parquet file
    tables: dict[str, str]  #: sha256 of every Parquet file

    @classmethod
    def read(cls, name: str) -> Built | None:
        """The present build of a data set; None where there is none or its manifest cannot be read."""
        folder = data_dir() / name
        try:
            return cls(folder, **json.loads((folder / "manifest.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def check(self) -> None:
        """Raise UserError unless every table is there with the hash it was built with."""
        for table, digest in self.tables.items():
            path = self.folder / table
            if not path.is_file() or sha256(path) != digest:
                command = f"python -m data_prep build {self.folder.name}"
                raise UserError(f"{path} is missing or altered: run `{command}` again as you built it")

    def is_of(self, raw: dict[str, str]) -> bool:
        """Whether this builder made it from the raw files of these hashes, and it is intact."""
        try:
            self.check()
        except UserError:
            return False
        return (self.builder, self.raw) == (BUILDER, raw)


def build(entry: Entry, where: Path | None = None) -> tuple[Built, bool]:
    """Build a data set unless it is already built from the same raw files.

    Args:
        entry: a data set of ratings.
        where: folder or archive with the raw files; None for the bundled or the fetched ones.

    Returns:
        The build, and whether it was made now.

    Raises:
        UserError: a raw file is missing or at fault, or the disk is full. An earlier build stays as it was.
    """
    target = data_dir() / entry.name
    if any(sign in str(target) for sign in "?\\"):
        raise UserError(
            f"DuckDB cannot work below {target.parent}, whose path has ? or \\; choose another with REC_DATA"
        )
    source = locate(entry, where)
    files = FORMATS[entry.ratings.format].tables(source.members)
    names = [file.name for file in files.values()]
    for name in names:
        if name not in source.members:
            raise UserError(f"{source.path} holds no {name}, which {entry.name} needs")
    raw = source.hashes(names)
    with alone(target):
        clean_up(target)
        present = Built.read(entry.name)
        if present and present.is_of(raw):
            return present, False
        with replacing(target) as folder:
            try:
                rows = _write(entry, source, files, folder)
            except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
                reason = f"could not be built in {target.parent} ({first_line(error)})"
                raise UserError(f"{entry.name} {reason}; is the disk full?") from None
            hashes = {table: sha256(folder / table) for table in rows}
            manifest = {"builder": BUILDER, "raw": raw, "rows": rows, "tables": hashes}
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return Built(target, **manifest), True


def _write(entry: Entry, source: Source, files: dict[str, RawFile], folder: Path) -> dict[str, int]:
    """Read and check the raw files and write the tables into `folder`; returns the rows of each."""
    family = FORMATS[entry.ratings.format]
    prepare, queries = family.prepare(), family.queries(files)
    scratch = folder / "scratch"
    scratch.mkdir()
    # silent where no one watches, so that no bar gets into a notebook's stored output
    steps = tqdm(
        total=2 + len(files) + len(prepare) + len(queries),
        desc=entry.name,
        unit="step",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.2f}/{total_fmt} [{elapsed}, {postfix}]",
        leave=False,
        disable=None,
    )
    rows = {}
    with steps, duckdb.connect(str(scratch / "tables.duckdb")) as connection:
        limit_memory(connection, scratch)
        paths = source.unpack([file.name for file in files.values()], scratch / "raw")
        for known in entry.raw:
            if known.path in paths:
                known.check(paths[known.path])
        steps.update()
        for table, file in files.items():
            with follow(connection, steps, file.name):
                file.read(connection, paths[file.name], table, scratch)
        with follow(connection, steps, "checks"):
            family.check(connection, files, entry.ratings)
        for statement in prepare:
            with follow(connection, steps, "ids"):
                connection.execute(statement)
        for table, query in queries.items():
            with follow(connection, steps, table):
                connection.sql(query).write_parquet(str(folder / table), compression="zstd")
            rows[table] = connection.read_parquet(str(folder / table)).shape[0]
    shutil.rmtree(scratch)
    return rows
