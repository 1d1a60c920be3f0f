"""Where the raw files of a data set lie: in a folder, or in an archive that is unpacked file by file."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.catalog import Entry, check_bundled
from rec_utils.errors import UserError
from rec_utils.files import sha256
from rec_utils.settings import BUNDLED, data_dir


def downloads() -> Path:
    """Folder of downloaded archives."""
    return data_dir() / "downloads"


@dataclass(frozen=True)
class Source:
    """A folder or a zip archive with raw files, which go by their plain names."""

    path: Path
    members: dict[str, str]  #: plain name -> name inside the archive or folder
    zipped: bool

    @classmethod
    def open(cls, path: Path) -> Source:
        """List the files of a folder (not of its sub-folders) or of a zip archive (at any depth).

        Raises:
            UserError: `path` is neither, or the archive is damaged.
        """
        if path.is_dir():
            return cls(path, {each.name: each.name for each in path.iterdir() if each.is_file()}, False)
        try:
            with zipfile.ZipFile(path) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, FileNotFoundError):
            raise UserError(f"{path} is neither a folder nor a whole zip archive") from None
        # deepest first, so that of two files of one name the outermost stays
        names.sort(key=lambda name: -len(PurePosixPath(name).parts))
        return cls(path, {PurePosixPath(name).name: name for name in names}, True)

    def hashes(self, names: Iterable[str]) -> dict[str, str]:
        """SHA-256 of what is read: of the archive, or of each file called one of `names` in the folder."""
        if self.zipped:
            return {self.path.name: sha256(self.path)}
        return {name: sha256(self.path / name) for name in names}

    def unpack(self, names: Iterable[str], folder: Path) -> dict[str, Path]:
        """Paths of the files called `names`; those of an archive are unpacked into the new `folder`.

        A file is written under its plain name only, so no name inside an archive can lead out of `folder`.
        """
        if not self.zipped:
            return {name: self.path / name for name in names}
        folder.mkdir()
        paths = {name: folder / name for name in names}
        with zipfile.ZipFile(self.path) as archive:
            for name, path in paths.items():
                try:
                    with archive.open(self.members[name]) as packed, path.open("wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 20)
                except (zipfile.BadZipFile, EOFError, zlib.error) as error:
                    raise UserError(f"{self.path}: {name} inside it is damaged ({error})") from None
        return paths


def locate(entry: Entry, where: Path | None) -> Source:
    """The raw files of a data set.

    Args:
        entry: the data set.
        where: a folder that holds the raw files, the archive, or a folder of the data set's name with the raw
            files; or the archive itself. None stands for the bundled files, else for the fetched archive.

    Raises:
        UserError: nothing is there, or a bundled file was altered; the message names the commands that help.
    """
    archive = entry.archive.file.path if entry.archive else f"{entry.name}.zip"
    if where is None and entry.bundled:
        check_bundled([entry])
        where = BUNDLED / entry.name
    elif where is None:
        where = downloads() / archive
        if not where.exists():
            raise UserError(
                f"{entry.name} is neither shipped nor built: run `python -m data_prep fetch {entry.name}` "
                f"and `python -m data_prep build {entry.name}`; or, with the raw files in a folder DIR, "
                f"`python -m data_prep build {entry.name} --from DIR`"
            )
    elif not where.exists():
        raise UserError(f"--from {where}: there is no such file or folder")
    inside = (where / archive, where / entry.name)
    return Source.open(next((path for path in inside if path.exists()), where))
