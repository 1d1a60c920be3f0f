"""Data sets of ratings as pandas tables, and files of others, read from what `data_prep` built."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from data_prep import plain
from data_prep.build import BUILDER, Built, build
from data_prep.catalog import Entry, file_entry, rating_entry
from data_prep.kcore import k_core
from data_prep.streaming import limit_memory
from rec_utils.files import writing

#: Editions without IMDb ids of their own whose movie ids are those of the later editions.
_SHARED_MOVIE_IDS = ("ml-1m", "ml-10m")


@dataclass(frozen=True)
class Dataset:
    """A data set of ratings.

    `interactions` has user_id and item_id (int64), rating (float32) and timestamp (int64, seconds, UTC), in
    the order of the raw file; ML-1M from the assembled table also has ts_err_s (int64), which bounds the
    error of the timestamp in seconds. `items` has item_id, title, year (Int16, may be missing), genres
    ("A|B", "" where unknown) and imdb (seven or more digits, may be missing). `users` has user_id and what
    the publisher tells about users: for ML-100K and ML-1M gender, age, occupation and zip.

    Amazon's items have asin and brand, too, their categories as genres, and no title where there are no
    metadata; its users have reviewer. BookCrossing's interactions have no timestamp; its items have isbn,
    author, published and publisher, its users location and age.
    """

    name: str
    title: str
    users: pd.DataFrame
    items: pd.DataFrame
    interactions: pd.DataFrame
    rating_scale: tuple[float, float]  #: lowest and highest rating
    licence: str
    citation: str
    hashes: dict[str, str]  #: sha256 of the raw files and of the tables built from them


def load(name: str) -> Dataset:
    """Load a data set; a bundled one is built on first use, in a second.

    Raises:
        UserError: the name is unknown, the data set is neither shipped nor built, a bundled file was altered,
            or a built table is missing or altered. The message names the command that helps.
    """
    entry, built = _built(name)
    names = ("users", "items", "interactions")
    return _dataset(entry, built, {each: pd.read_parquet(built.folder / f"{each}.parquet") for each in names})


def load_core(name: str, user_core: int, item_core: int) -> Dataset:
    """Load the k-core of a data set that may be larger than memory; only the core must fit.

    Args:
        name: the data set.
        user_core: the fewest ratings of a user, see `data_prep.kcore`.
        item_core: the fewest ratings of an item.

    Raises:
        UserError: as in `load`, or nothing is left, or the data folder, where it works, is full or read-only.
    """
    entry, built = _built(name)
    with (
        writing(built.folder.parent / "core.duckdb"),
        tempfile.TemporaryDirectory(dir=built.folder.parent, prefix=f".{name}.core-") as scratch,
        duckdb.connect(f"{scratch}/core.duckdb") as connection,
    ):
        limit_memory(connection, Path(scratch))
        connection.execute(
            "CREATE TABLE interactions AS SELECT * FROM read_parquet(?, file_row_number = true)",
            [str(built.folder / "interactions.parquet")],
        )
        k_core(connection, "interactions", user_core, item_core)
        core = "SELECT * EXCLUDE file_row_number FROM interactions ORDER BY file_row_number"
        tables = {"interactions": connection.sql(core).df()}
        for table, key in (("users", "user_id"), ("items", "item_id")):
            whole = connection.read_parquet(str(built.folder / f"{table}.parquet"))
            kept = f"SELECT * FROM whole SEMI JOIN interactions USING ({key}) ORDER BY {key}"
            tables[table] = whole.query("whole", kept).df()
    return _dataset(entry, built, tables)


def _built(name: str) -> tuple[Entry, Built]:
    entry = rating_entry(name)
    built = Built.read(name)
    if built is None or built.builder != BUILDER:
        built, _ = build(entry)
    built.check()
    return entry, built


def _dataset(entry: Entry, built: Built, tables: dict[str, pd.DataFrame]) -> Dataset:
    tables["items"] = tables["items"].astype({"year": "Int16"})
    if entry.name in _SHARED_MOVIE_IDS:
        imdb = load("ml-latest-small").items.set_index("item_id")["imdb"]
        tables["items"] = tables["items"].assign(imdb=tables["items"]["item_id"].map(imdb))
    return Dataset(
        name=entry.name,
        title=entry.title,
        rating_scale=entry.ratings.scale,
        licence=entry.licence,
        citation=entry.citation,
        hashes=built.raw | built.tables,
        **tables,
    )


def files(name: str) -> dict[str, Path]:
    """The files of a data set of plain files, by their path in it such as "ml-1m/item/knowledge.json".

    Raises:
        UserError: the name is unknown, the data set is not built, or a file is missing or altered. The
            message names the commands that help.
    """
    return plain.check(file_entry(name))
