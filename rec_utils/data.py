"""Data sets of ratings as pandas tables, and files of others, read from what `data_prep` built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data_prep import plain
from data_prep.build import BUILDER, Built, build
from data_prep.catalog import file_entry, rating_entry

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
    entry = rating_entry(name)
    built = Built.read(name)
    if built is None or built.builder != BUILDER:
        built, _ = build(entry)
    built.check()
    names = ("users", "items", "interactions")
    tables = {table: pd.read_parquet(built.folder / f"{table}.parquet") for table in names}
    tables["items"] = tables["items"].astype({"year": "Int16"})
    if name in _SHARED_MOVIE_IDS:
        imdb = load("ml-latest-small").items.set_index("item_id")["imdb"]
        tables["items"] = tables["items"].assign(imdb=tables["items"]["item_id"].map(imdb))
    return Dataset(
        name=name,
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
