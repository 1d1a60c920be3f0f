"""Atomic writes and hashes: a file is either whole or not there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rec_utils.errors import UserError, describe_os_error


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses in the block, which writes `path`, into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(describe_os_error(error, path)) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there when the block ends well.

    If the block raises, `path` stays as it was and the temporary file is removed. What a killed process
    leaves behind has a name that begins with a dot.

    Raises:
        UserError: the disk is full or read-only, or refuses in another way.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # only the beginning of the name, since with what is added it could be too long
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp makes files private; a result is as readable as any other file of the project
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
