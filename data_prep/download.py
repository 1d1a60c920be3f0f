"""Download archives and files: resumed where it stopped, held against the catalog, whole or not there."""

from __future__ import annotations

from pathlib import Path

import httpx
from tqdm import tqdm

from data_prep.catalog import Entry, File
from data_prep.folders import alone
from data_prep.source import downloads
from rec_utils.errors import UserError

#: Seconds without an answer or a byte after which the download counts as stopped.
TIMEOUT = 30.0


def fetch(entry: Entry) -> Path:
    """Path of the data set's archive, or folder of its plain files, downloaded where it is not there yet.

    Raises:
        UserError: the data set has neither, the server cannot be reached or stops, what arrived is not what
            the catalog says, or a plain file has no address; then all others have been downloaded.
    """
    if entry.files:
        return _fetch_files(entry)
    if entry.archive is None:
        raise UserError(f"{entry.name} has no archive to fetch: {entry.source}")
    return _fetch(entry.archive.url, entry.archive.file, downloads(), entry.name)


def _fetch_files(entry: Entry) -> Path:
    folder = downloads() / entry.name
    for file in entry.files:
        if file.url:
            _fetch(file.url, file, folder, entry.name)
    absent = [file for file in entry.files if not (folder / file.path).exists()]
    if absent:
        what = "; ".join(f"{file.path}: {file.missing} (sha256 {file.sha256})" for file in absent)
        raise UserError(
            f"{entry.name} also needs what has no known address and a person must supply: {what}. All else "
            f"is in {folder}; put it into a folder DIR and run "
            f"`python -m data_prep build {entry.name} --from DIR`"
        )
    return folder


def _fetch(url: str, file: File, folder: Path, name: str) -> Path:
    """Path under `folder` of the file at `url`, downloaded if it is not there yet; `name` of its data set."""
    target = folder / file.path
    part = target.with_name(f"{target.name}.part")
    with alone(target):
        if target.exists():
            try:
                file.check(target)
            except UserError as error:
                raise UserError(f"{error}; remove it and fetch it again") from None
            return target
        try:
            _download(url, part, file.size)
        except httpx.HTTPError as error:
            raise UserError(
                f"{url} could not be fetched ({error or type(error).__name__}): run the same "
                "command again to go on where it stopped, or get the file some other way and run "
                f"`python -m data_prep build {name} --from DIR`"
            ) from None
        try:
            file.check(part)
        except UserError as error:
            part.unlink()
            raise UserError(f"{error}; it was discarded, so fetch it again") from None
        part.replace(target)
    return target


def _download(url: str, part: Path, size: int) -> None:
    """Append to `part` what it lacks of the `size` bytes at `url`."""
    done = part.stat().st_size if part.exists() else 0
    if done >= size:
        return
    # compressed on the way, a text file would not be the bytes that size and hash are of
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        # a server that does not know ranges answers 200 and sends everything
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                total=size,
                initial=done if resumed else 0,
                desc=url.rpartition("/")[2],
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > size:  # it is another file, and might fill the disk
                    break
