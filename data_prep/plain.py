"""Data sets of plain files that may not be shipped: checked against the catalog, put into one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from data_prep.catalog import Entry, File
from data_prep.folders import alone, clean_up, replacing
from data_prep.source import downloads
from rec_utils.errors import UserError
from rec_utils.settings import data_dir


def build(entry: Entry, where: Path | None = None) -> bool:
    """Copy a data set's files into the data folder, all or none; False if they are there already.

    Args:
        entry: a data set of plain files.
        where: a folder that holds the files (or has a sub-folder of the data set's name that does); what it
            lacks, and without it all, is taken from the fetched files.

    Raises:
        UserError: a file is missing or is not that of the catalog. An earlier build stays as it was.
    """
    if where is not None and not where.is_dir():
        raise UserError(f"--from {where}: there is no such folder")
    target = data_dir() / entry.name
    with alone(target):
        clean_up(target)
        if _is_intact(entry):
            return False
        with replacing(target) as folder:
            for file in entry.files:
                path = _find(entry, file, where)
                file.check(path)
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / file.path)
            manifest = {"files": _hashes(entry)}
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return True


def is_built(entry: Entry) -> bool:
    """Whether the data folder holds a build of the files of the catalog; their content is not read."""
    try:
        manifest = json.loads((data_dir() / entry.name / "manifest.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    return manifest == {"files": _hashes(entry)}


def _is_intact(entry: Entry) -> bool:
    try:
        check(entry)
    except UserError:
        return False
    return True


def check(entry: Entry) -> dict[str, Path]:
    """The built files by their path in the data set.

    Raises:
        UserError: the data set is not built, or a file is missing or altered.
    """
    command = f"python -m data_prep build {entry.name}"
    if not is_built(entry):
        raise UserError(
            f"{entry.name} may not be shipped and is not built: run `python -m data_prep fetch {entry.name}` "
            f"and `{command}`; or, with the files in a folder DIR, `{command} --from DIR`"
        )
    paths = {file.path: data_dir() / entry.name / file.path for file in entry.files}
    for file in entry.files:
        try:
            file.check(paths[file.path])
        except UserError as error:
            raise UserError(f"{error}; run `{command}` again as you built it") from None
    return paths


def _find(entry: Entry, file: File, where: Path | None) -> Path:
    folders = [] if where is None else [where / entry.name, where]
    folders.append(downloads() / entry.name)
    for folder in folders:
        if (folder / file.path).exists():
            return folder / file.path
    place = f"neither {where} nor the fetched files hold" if where else "the fetched files lack"
    raise UserError(
        f"{place} {file.path} of {entry.name}: run `python -m data_prep fetch {entry.name}`, or with it in "
        f"a folder DIR `python -m data_prep build {entry.name} --from DIR`"
    )


def _hashes(entry: Entry) -> dict[str, str]:
    return {file.path: file.sha256 for file in entry.files}
