"""Profiles, paths and cores. Paths never depend on the working folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rec_utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "data_prep" / "bundled"
NOTEBOOKS = ROOT / "notebooks"
CARDS = ROOT / "rec_utils" / "papers" / "cards"

#: Same code, other sizes: smoke proves that it runs, laptop is what is committed, paper is the paper's scale.
PROFILES = ("smoke", "laptop", "paper")


def data_dir() -> Path:
    """Where built data and caches live: `$REC_DATA`, else `.data` in the repository (git-ignored)."""
    return Path(os.environ.get("REC_DATA") or ROOT / ".data")


def output_dir() -> Path:
    """Where figures and records go: `$REC_OUTPUT`, else `figures` in the repository."""
    return Path(os.environ.get("REC_OUTPUT") or ROOT / "figures")


def runs_dir() -> Path:
    """Where the batch runner keeps its state and executed notebooks: `$REC_RUNS`, else `.runs`."""
    return Path(os.environ.get("REC_RUNS") or ROOT / ".runs")


def is_tutorial(name: str) -> bool:
    """True for the name of a tutorial, such as "T1_ctr_prediction"."""
    return re.match(r"T\d+_", name) is not None


def notebook_path(folder: Path, name: str) -> Path:
    """The file of the notebook `name`; tutorials have a folder of their own below the others'."""
    return folder / ("tutorials" if is_tutorial(name) else "") / f"{name}.ipynb"


def check_choice(name: str, value: str, choices: tuple[str, ...] | list[str]) -> str:
    """Return `value` if it is one of `choices`; otherwise raise with the nearest spelling in any case."""
    if value in choices:
        return value
    import difflib

    spelling = {choice.casefold(): choice for choice in choices}
    nearest = difflib.get_close_matches(str(value).casefold(), spelling, n=1, cutoff=0.5)
    hint = f"; did you mean {spelling[nearest[0]]!r}?" if nearest else ""
    raise UserError(f"{name} {value!r} is not one of {', '.join(choices)}{hint}")


def cpu_count() -> int:
    """Cores this process may use; `$REC_CORES` sets a lower limit, as the batch runner does for each run."""
    limit = os.environ.get("REC_CORES")
    if limit is not None:
        if not limit.isdigit() or int(limit) < 1:
            raise UserError(f"REC_CORES must be a number of cores, not {limit!r}")
        return int(limit)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
