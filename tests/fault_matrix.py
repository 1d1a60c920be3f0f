"""What the next run does after a fault, as the tests show it: `python -m tests.fault_matrix [--check]`.

A test that shows a cell of the matrix is marked `@pytest.mark.fault(FAULT, STAGE, SAYS)`, where SAYS is one
plain sentence with the next run as its subject; further tests of the same may leave it out. The tests are
collected and not run.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO

import pytest

from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.settings import ROOT

PAGE = ROOT / "tests" / "FAULTS.md"

STAGES = {
    "environment": "the set-up of packages",
    "fetch": "the download of data",
    "build": "raw files to tables",
    "knowledge": "texts of a language model, in a store",
    "vectors": "the cache of text vectors",
    "train": "training: remembered jobs, checkpoints, launches",
    "batch": "runs of notebooks",
    "grid": "runs of notebooks on dask's workers",
    "record": "records and figures",
}
FAULTS = {
    "SIGKILL": "A process is killed at a point where something is half done.",
    "full disk": "A small file system is filled; where none can be mounted, no file may grow.",
    "read-only folder": "A file system can only be read, or the system refuses to make files.",
    "damaged file": "A file was cut off, emptied or altered.",
    "clock change": "Files are from another century, and the clock runs backwards.",
    "two processes": "Two processes do the same at once in the same folder.",
    "non-ASCII path": "Folders have names in several scripts, with spaces, quotes and brackets.",
    "very long path": "Folders lie more than 200 characters deep.",
    "no network": "No address can be reached and no name resolved.",
}

_OF_THE_BATCH = "a worker's files are temporary; what is kept lies at the client and is stored as by batch"

#: Why no test shows a cell.
REASONS = {
    ("read-only folder", "grid"): _OF_THE_BATCH,
    ("damaged file", "grid"): _OF_THE_BATCH,
    ("clock change", "grid"): _OF_THE_BATCH,
    ("non-ASCII path", "grid"): _OF_THE_BATCH,
    ("very long path", "grid"): _OF_THE_BATCH,
    ("clock change", "environment"): "it compares hashes and versions and reads no times",
}


@dataclass
class Cell:
    """What the marked tests say about one fault at one stage."""

    says: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)  #: links to the tests, each once


def collect() -> dict[tuple[str, str], Cell]:
    """The cells by fault and stage; `UserError` for an unknown one, or a cell without a sentence."""
    marked = [
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.fault(" in path.read_text("utf-8") and path.parent.name != "contract"
    ]
    found = _Items()
    options = ["--collect-only", "-qq", "-p", "no:cacheprovider"]
    with redirect_stdout(StringIO()) as said:
        status = pytest.main([*options, *map(str, sorted(marked))], [found])
    if status:
        raise UserError(f"the tests cannot be collected: {said.getvalue()}")
    cells: dict[tuple[str, str], Cell] = defaultdict(Cell)
    for item in found.items:
        for mark in item.iter_markers("fault"):
            fault, stage, *says = mark.args
            if fault not in FAULTS or stage not in STAGES:
                raise UserError(f"{item.nodeid}: no fault {fault!r} at a stage {stage!r} is known")
            cell = cells[fault, stage]
            cell.says += [each for each in says if each not in cell.says]
            name = item.originalname
            link = f"[{name}]({item.path.relative_to(PAGE.parent).as_posix()})"
            cell.tests += [link] if link not in cell.tests else []
    for (fault, stage), cell in cells.items():
        if not cell.says:
            raise UserError(f"{', '.join(cell.tests)}: no sentence says what follows {fault} at {stage}")
    return cells


class _Items:
    """A plugin of pytest that keeps what was collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Function] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)


def render(cells: dict[tuple[str, str], Cell]) -> str:
    """The page; `UserError` for an empty cell without a reason, and for a reason of one that is not empty."""
    every = {(fault, stage) for fault in FAULTS for stage in STAGES}
    if wrong := sorted((every - cells.keys()) ^ REASONS.keys()):
        raise UserError(f"{wrong[0][0]} at {wrong[0][1]}: give a test or a reason, and not both")
    lines = [
        "# Faults",
        "",
        "Written by `python -m tests.fault_matrix` from the tests; do not edit.",
        "",
        "Each fault is brought about at each stage of the work. Afterwards the next run says what happened,",
        "repairs or resumes, and no finished result is lost. A number is that of the tests which show it;",
        "where there is a dash, the reason stands below.",
        "",
        f"| fault | {' | '.join(STAGES)} |",
        f"| --- |{' ---: |' * len(STAGES)}",
    ]
    for fault in FAULTS:
        counts = [str(len(cells[fault, stage].tests)) if (fault, stage) in cells else "–" for stage in STAGES]
        lines.append(f"| [{fault}](#{_anchor(fault)}) | {' | '.join(counts)} |")
    lines += ["", *(f"- **{stage}**: {what}" for stage, what in STAGES.items())]
    for fault, what in FAULTS.items():
        lines += ["", f"## {fault}", "", what, "", "| stage | the next run | tests |", "| --- | --- | --- |"]
        for stage in STAGES:
            if cell := cells.get((fault, stage)):
                lines.append(f"| {stage} | {' '.join(cell.says)} | {', '.join(cell.tests)} |")
            else:
                lines.append(f"| {stage} | – {REASONS[fault, stage]} | |")
    return "\n".join(lines) + "\n"


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fault_matrix", description="Write tests/FAULTS.md from the marked tests."
    )
    parser.add_argument("--check", action="store_true", help="exit with status 2 if it is out of date")
    check = parser.parse_args().check
    page = render(collect())
    if check and (not PAGE.exists() or PAGE.read_text("utf-8") != page):
        raise UserError("tests/FAULTS.md is out of date; run: python -m tests.fault_matrix")
    if not check:
        write_atomic(PAGE, page)


if __name__ == "__main__":
    sys.exit(run_cli(main))
