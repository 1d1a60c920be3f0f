"""Where the raw files of a data set lie: in a folder, or in an archive that is unpacked file by file."""

from __future__ import annotations

import errno
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.catalog import Entry, check_bundled
from rec_utils.errors import UserError
from rec_utils.files import sha256
from rec_utils.settings import BUNDLED, data_dir

#: Bytes that an archive may give for each of its own. Ratings and dialogues give 3 to 6, a bomb 1,000.
MOST_UNPACKED = 100


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
        except Exception as error:
            if not (_is_damage(error) or isinstance(error, FileNotFoundError)):
                raise
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

        A file is written under its plain name only, so no name inside an archive can lead out of `folder`; a
        link inside is a file with the text of its target.

        Raises:
            UserError: the archive is damaged, or would fill the disk.
        """
        if not self.zipped:
            return {name: self.path / name for name in names}
        folder.mkdir()
        paths = {name: folder / name for name in names}
        with zipfile.ZipFile(self.path) as archive:
            size = sum(archive.getinfo(self.members[name]).file_size for name in paths)
            if size > MOST_UNPACKED * self.path.stat().st_size:
                raise UserError(
                    f"{self.path} claims {size:,} bytes, over {MOST_UNPACKED} for each of its own"
                )
            for name, path in paths.items():
                try:
                    # it stops at the size that is claimed
                    with archive.open(self.members[name]) as packed, path.open("wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 20)
                except Exception as error:
                    if not _is_damage(error):
                        raise
                    raise UserError(f"{self.path}: {name} inside it is damaged ({error})") from None
        return paths


def _is_damage(error: Exception) -> bool:
    """Whether an error is the fault of the archive, which can make zipfile raise anything, not the disk's."""
    return not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)


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
