"""Download a publisher's archive: resumed where it stopped, held against the catalog, whole or not there."""

from __future__ import annotations

from pathlib import Path

import httpx
from filelock import FileLock
from tqdm import tqdm

from data_prep.catalog import Entry
from data_prep.source import downloads
from rec_utils.errors import UserError

#: Seconds without an answer or a byte after which the download counts as stopped.
TIMEOUT = 30.0


def fetch(entry: Entry) -> Path:
    """Path of the data set's archive, downloaded if it is not there yet.

    Raises:
        UserError: the data set has no archive, the server cannot be reached or stops, or what arrived is not
            the archive of the catalog.
    """
    if entry.archive is None:
        raise UserError(f"{entry.name} has no archive to fetch: {entry.source}")
    file = entry.archive.file
    target = downloads() / file.path
    part = target.with_name(f"{target.name}.part")
    downloads().mkdir(parents=True, exist_ok=True)
    with FileLock(downloads() / f".{target.name}.lock"):
        if target.exists():
            file.check(target)
            return target
        try:
            _download(entry.archive.url, part, file.size)
        except httpx.HTTPError as error:
            raise UserError(
                f"{entry.archive.url} could not be fetched ({error or type(error).__name__}): run the same "
                "command again to go on where it stopped, or get the file some other way and run "
                f"`python -m data_prep build {entry.name} --from DIR`"
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
    headers = {"Range": f"bytes={done}-"} if done else {}
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
