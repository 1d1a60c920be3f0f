"""Data sets of dialogues: raw files to checked Parquet tables, shipped ones and others by the same code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.build import BUILDER, Built
from data_prep.catalog import Entry, check_bundled
from data_prep.dialogue_formats import LABELS, READERS, TABLES, Tables
from data_prep.folders import alone, clean_up, replacing
from data_prep.source import locate
from data_prep.tables import first_line
from rec_utils.errors import UserError
from rec_utils.files import sha256
from rec_utils.settings import BUNDLED, data_dir


def build(entry: Entry, where: Path | None = None) -> tuple[Built, bool]:
    """Build the tables of a data set of dialogues unless they are already built from the same raw files.

    Args:
        entry: a data set of dialogues.
        where: folder or archive with the raw files; None for the fetched archive.

    Returns:
        The build, and whether it was made now.

    Raises:
        UserError: a raw file is missing or at fault, or it holds more or less than the catalog says.
    """
    spec = entry.dialogues
    if where is None and entry.bundled:
        raise UserError(
            f"{entry.name} is shipped as tables; give its raw files with --from DIR to build them anew"
        )
    target = data_dir() / entry.name
    source = locate(entry, where)
    names = [*spec.files.values(), *([spec.movies] if spec.movies else [])]
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
            paths = source.unpack(names, folder / "raw")
            for known in entry.raw:
                known.check(paths[known.path])
            movies = {"movie_list": paths[spec.movies]} if spec.movies else {}
            files = {split: paths[name] for split, name in spec.files.items()}
            try:
                tables = READERS[spec.format](files, **movies)
                check(tables, entry)
            except UserError:
                raise
            except Exception as error:  # any value may have any type in JSON
                raise UserError(
                    f"{source.path} holds no dialogues in the form of {spec.format}: "
                    f"{type(error).__name__}: {first_line(error)}"
                ) from error
            rows = write(tables, folder)
            shutil.rmtree(folder / "raw", ignore_errors=True)
            hashes = {name: sha256(folder / name) for name in rows}
            manifest = {"builder": BUILDER, "raw": raw, "rows": rows, "tables": hashes}
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return Built(target, **manifest), True


def check(tables: Tables, entry: Entry) -> None:
    """Raise UserError unless the tables fit together and hold as much as the catalog says."""
    known = set(tables["sessions"]["session_id"])
    if len(known) < len(tables["sessions"]):
        twice = tables["sessions"]["session_id"]
        raise UserError(f"{entry.name}: dialogue {twice[twice.duplicated()].iloc[0]} stands there twice")
    labels = tables["forms"][list(LABELS)]
    if len(wrong := tables["forms"][~labels.isin([0, 1, 2]).all(axis=1)]):
        row = wrong.iloc[0]
        raise UserError(
            f"{entry.name}: the form of dialogue {row['session_id']} has a label other than 0, 1 and 2 "
            f"for movie {row['movie_id']}"
        )
    counts = entry.dialogues.counts
    for name, expected in counts.model_dump().items() if counts else ():
        if (found := len(tables[name])) != expected:
            raise UserError(
                f"{entry.name} holds {found:,} {name} instead of {expected:,}: "
                "it is truncated, filtered or of another edition"
            )


def write(tables: Tables, folder: Path) -> dict[str, int]:
    """Write the tables as Parquet, the same bytes each time; returns the rows of each file."""
    rows = {}
    for name, table in tables.items():
        arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
        pq.write_table(arrow, folder / f"{name}.parquet", compression="zstd", compression_level=19)
        rows[f"{name}.parquet"] = len(table)
    return rows


def read(entry: Entry) -> tuple[Tables, dict[str, str]]:
    """The tables of a data set, and the sha256 of the files they stand in.

    Raises:
        UserError: it is neither shipped nor built, or a file is missing or altered.
    """
    if entry.bundled:
        check_bundled([entry])
        folder = BUNDLED / entry.name
        hashes = {file.path: file.sha256 for file in entry.bundled if file.path.endswith(".parquet")}
    else:
        built = Built.read(entry.name)
        if built is None:
            locate(entry, None)  # says how to get it, unless it is fetched
            raise UserError(f"{entry.name} is not built: run `python -m data_prep build {entry.name}`")
        built.check()
        folder, hashes = built.folder, built.raw | built.tables
    tables = {
        name: pd.read_parquet(folder / f"{name}.parquet").astype(dict(types))
        for name, types in TABLES.items()
    }
    return tables, hashes
