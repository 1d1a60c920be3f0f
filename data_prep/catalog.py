"""The catalog of data sets, loaded from `catalog.yaml` into types that refuse unknown or missing keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from functools import cache
from pathlib import Path, PurePosixPath

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rec_utils.errors import UserError
from rec_utils.files import sha256
from rec_utils.settings import BUNDLED, check_choice

CATALOG = Path(__file__).with_name("catalog.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """A file whose content is known."""

    path: str  #: under data_prep/bundled for a shipped file, else the plain file name
    size: int = Field(ge=0)  #: bytes
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def check(self, path: Path) -> None:
        """Raise UserError unless the file at `path` has this size and hash."""
        if not path.is_file():
            raise UserError(f"{path} is missing")
        size = path.stat().st_size
        if size != self.size:
            raise UserError(f"{path} has {size:,} bytes instead of {self.size:,}: it is truncated or altered")
        if sha256(path) != self.sha256:
            raise UserError(f"{path} was altered: its sha256 is not {self.sha256}")


class PlainFile(File):
    """A file that only its publishers may pass on; `path` is its place in the data set's folder."""

    url: str = ""  #: public address of exactly this content; "" where none is known
    missing: str = ""  #: what it is and who may have it, where there is no address

    @model_validator(mode="after")
    def _can_be_had_somehow(self) -> PlainFile:
        if bool(self.url) == bool(self.missing):
            raise ValueError("needs either url, or missing with what a person must supply")
        return self


class Archive(_Strict):
    """The publisher's download."""

    url: str
    size: int = Field(gt=0)  #: bytes
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def file(self) -> File:
        """The downloaded file, named as in the address."""
        return File(path=PurePosixPath(self.url).name, size=self.size, sha256=self.sha256)


class Counts(_Strict):
    """What a whole data set holds."""

    ratings: int
    users: int  #: users with at least one rating
    items: int  #: lines of the movie file


class Ratings(_Strict):
    """Format and expected content of a data set of ratings."""

    format: str
    scale: tuple[float, float]
    step: float
    #: first and last day of the ratings, as the publisher states them; None where they have no times
    period: tuple[date, date] | None = None
    counts: Counts | None = None  #: None where they are not known for certain


class DialogueCounts(_Strict):
    """What a whole data set of dialogues holds."""

    sessions: int
    turns: int
    movies: int


class Dialogues(_Strict):
    """Format and expected content of a data set of dialogues."""

    format: str
    files: dict[str, str]  #: split -> raw file
    movies: str = ""  #: raw file with all movies, where the publisher has a list
    counts: DialogueCounts | None = None  #: None where nobody published them


class Entry(_Strict):
    """One data set."""

    name: str
    title: str
    source: str  #: page of the original publisher
    licence: str
    citation: str
    ship: bool
    ratings: Ratings | None = None
    dialogues: Dialogues | None = None
    archive: Archive | None = None
    raw: tuple[File, ...] = ()
    bundled: tuple[File, ...] = ()
    files: tuple[PlainFile, ...] = ()  #: taken as they are

    @model_validator(mode="after")
    def _ships_only_what_may_be_shipped(self) -> Entry:
        if self.bundled and not self.ship:
            raise ValueError("lists bundled files although ship is false")
        if self.files and (self.ship or self.ratings or self.dialogues):
            raise ValueError("has plain files, so it can be neither shipped nor of ratings or dialogues")
        return self


def parse(text: str) -> dict[str, Entry]:
    """Entries by name from the catalog's YAML text.

    Raises:
        UserError: a key is unknown, missing or of the wrong type; the message names data set and key.
    """
    entries = {}
    for name, fields in yaml.safe_load(text).items():
        try:
            entries[name] = Entry(name=name, **fields)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise UserError(f"catalog.yaml, {name}{f', {key}' if key else ''}: {first['msg']}") from None
    return entries


@cache
def load() -> dict[str, Entry]:
    """The project's catalog."""
    return parse(CATALOG.read_text(encoding="utf-8"))


def entry(name: str) -> Entry:
    """The entry called `name`; UserError with the nearest name if there is none."""
    return load()[check_choice("data set", name, list(load()))]


def rating_entry(name: str) -> Entry:
    """The entry of a data set of ratings, which can be built and loaded."""
    return _entry_among(name, lambda each: each.ratings)


def file_entry(name: str) -> Entry:
    """The entry of a data set of plain files, which can be built and read."""
    return _entry_among(name, lambda each: each.files)


def dialogue_entry(name: str) -> Entry:
    """The entry of a data set of dialogues, which can be built and loaded."""
    return _entry_among(name, lambda each: each.dialogues)


def buildable_entry(name: str) -> Entry:
    """The entry of a data set of any kind."""
    return _entry_among(name, lambda each: each.ratings or each.files or each.dialogues)


def _entry_among(name: str, wanted: Callable[[Entry], object]) -> Entry:
    return load()[check_choice("data set", name, [each.name for each in load().values() if wanted(each)])]


def check_bundled(entries: Iterable[Entry], root: Path = BUNDLED) -> list[File]:
    """Check every bundled file of the data sets; returns them.

    Raises:
        UserError: a file is missing, truncated or altered.
    """
    files = [file for each in entries for file in each.bundled]
    for file in files:
        file.check(root / file.path)
    return files


def check_no_stray(entries: Iterable[Entry], root: Path = BUNDLED) -> None:
    """Raise UserError if a file under `root` stands in none of the entries."""
    listed = {file.path for each in entries for file in each.bundled}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.relative_to(root).as_posix() not in listed:
            command = f"python -m data_prep catalog-hash {path}"
            raise UserError(f"{path} is in no catalog entry; `{command}` prints the line to add")


def catalog_lines(path: Path, root: Path = BUNDLED) -> str:
    """The `bundled` lines of a file, or of every file in a folder, to be pasted into catalog.yaml."""
    if not path.resolve().is_relative_to(root):
        raise UserError(f"{path} is not under {root}")
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    if not files:
        raise UserError(f"{path} holds no file")
    return "\n".join(
        f"    - {{path: {each.resolve().relative_to(root).as_posix()}, size: {each.stat().st_size}, "
        f"sha256: {sha256(each)}}}"
        for each in files
    )
