"""Folders that are written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from rec_utils.files import writing


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Wait until no other process makes `target`, and let none begin.

    Raises:
        UserError: the disk is full or read-only, now or in the block.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            yield


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; put it in the place of `target` if the block ends well."""
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.new-"))
    try:
        yield folder
        folder.chmod(0o755)
        if target.exists():
            target.rename(_old(target))
        folder.rename(target)
    finally:
        clean_up(target)


def clean_up(target: Path) -> None:
    """Remove what a build left behind; give the old build back if the new one did not take its place."""
    if _old(target).exists() and not target.exists():
        _old(target).rename(target)
    for rest in (_old(target), *target.parent.glob(f".{target.name}.new-*")):
        shutil.rmtree(rest, ignore_errors=True)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
