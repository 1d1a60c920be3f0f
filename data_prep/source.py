"""Where the raw files of a data set lie: in a folder, or in an archive that is unpacked file by file."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.catalog import Entry
from rec_utils.errors import UserError
from rec_utils.files import sha256
from rec_utils.settings import BUNDLED, data_dir


def downloads() -> Path:
    """Folder of downloaded archives."""
    return data_dir() / "downloads"


@dataclass(frozen=True)
class Source:
    """A folder or a zip archive with raw files, addressed by their plain names."""

    path: Path
    members: dict[str, str]  #: plain name -> name inside the archive, or path inside the folder

    @classmethod
    def open(cls, path: Path) -> Source:
        """List the files of a folder (not its sub-folders) or of a zip archive (at any depth).

        Raises:
            UserError: `path` is neither, or the archive is broken.
        """
        if path.is_dir():
            return cls(path, {each.name: each.name for each in path.iterdir() if each.is_file()})
        try:
            with zipfile.ZipFile(path) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, FileNotFoundError):
            raise UserError(
                f"{path} is neither a folder nor a whole zip archive: truncated, or mistyped?"
            ) from None
        # deepest first, so that of two files of one name the outermost stays
        names.sort(key=lambda name: -len(PurePosixPath(name).parts))
        return cls(path, {PurePosixPath(name).name: name for name in names})

    @property
    def zipped(self) -> bool:
        """Whether the files lie in an archive."""
        return self.path.is_file()

    def hashes(self, names: list[str]) -> dict[str, str]:
        """SHA-256 of what is read: of the archive, or of each file called one of `names` in the folder."""
        if self.zipped:
            return {self.path.name: sha256(self.path)}
        return {name: sha256(self.path / name) for name in names}

    def fetch(self, names: list[str], folder: Path) -> dict[str, Path]:
        """Paths of the files called `names`; those of an archive are unpacked into `folder` first.

        A file is written under its plain name only, so no member name can lead out of `folder`.
        """
        if not self.zipped:
            return {name: self.path / name for name in names}
        folder.mkdir()
        try:
            with zipfile.ZipFile(self.path) as archive:
                for name in names:
                    with archive.open(self.members[name]) as packed, open(folder / name, "wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 20)
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise UserError(f"{self.path}, {name}: the archive is damaged ({error})") from None
        return {name: folder / name for name in names}


def locate(entry: Entry, where: Path | None) -> Source:
    """The raw files of `entry`.

    Args:
        entry: the data set.
        where: a folder that holds the raw files, or the archive, or the archive's unpacked folder; or an
            archive itself. None stands for the bundled files, else for the downloaded archive.

    Raises:
        UserError: nothing is there; the message names the commands that help.
    """
    archive_name = entry.archive.file.path if entry.archive else f"{entry.name}.zip"
    if where is None and entry.bundled:
        where = BUNDLED / entry.name
        for file in entry.bundled:
            file.check(BUNDLED / file.path)
    if where is None:
        downloaded = downloads() / archive_name
        if not downloaded.exists():
            raise UserError(
                f"{entry.name} is not shipped and not here: run `python -m data_prep fetch {entry.name}` and then "
                f"`python -m data_prep build {entry.name}`, or, with the files already on disk, "
                f"`python -m data_prep build {entry.name} --from DIR`"
            )
        return Source.open(downloaded)
    if not where.exists():
        raise UserError(f"--from {where}: there is no such file or folder")
    if where.is_dir():
        if (where / archive_name).is_file():
            return Source.open(where / archive_name)
        if (where / entry.name).is_dir():
            return Source.open(where / entry.name)
    return Source.open(where)
