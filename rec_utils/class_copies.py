"""Copies of the tutorials for a class, without answers and outputs: `python -m rec_utils.class_copies`.

`make class` runs this. A copy whose exercises nobody has attempted runs to its end: each check then prints
that it was not attempted yet.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from rec_utils import settings
from rec_utils.errors import UserError, run_cli
from rec_utils.exercises import without_answers
from rec_utils.files import write_atomic
from rec_utils.notebooks import read_twin, twin_names, twin_path

CLASS = settings.ROOT / "class"

#: Second cell of a copy.
OUTPUT = """\
import os

# figures and the record of this copy go to a folder beside it, not among those of the repository
_ = os.environ.setdefault("REC_OUTPUT", "output")"""


def class_copy(folder: Path, name: str) -> NotebookNode:
    """The tutorial `name` of the notebooks in `folder` without answers and outputs.

    Raises:
        UserError: an answer is marked wrongly; the message names the cell.
    """
    notebook = read_twin(twin_path(folder, name))
    for number, cell in enumerate(notebook.cells, 1):
        try:
            if cell.cell_type == "code":
                cell.source = without_answers(cell.source)
            else:  # links to the other notebooks, from where the copy stands
                cell.source = re.sub(r"\]\(\.\./(?=\w+\.ipynb\))", "](../notebooks/", cell.source)
        except UserError as error:
            raise UserError(f"{name}, cell {number}: {error}") from None
    notebook.cells.insert(1, nbformat.v4.new_code_cell(OUTPUT, id="output"))
    notebook.metadata.pop("jupytext", None)  # a copy has no twin
    return notebook


def write_copy(folder: Path, name: str, target: Path) -> str:
    """Write a tutorial's copy to `target`, unless another one is there; returns in words what was done."""
    content = nbformat.writes(class_copy(folder, name), version=4) + "\n"
    path = target / f"{name}.ipynb"
    if not path.exists():
        write_atomic(path, content)
        return "written"
    if path.read_text(encoding="utf-8") == content:
        return "there already"
    return "kept as it is, since somebody may have worked in it; remove it to get a new one"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rec_utils.class_copies", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as T1; default: all tutorials")
    parser.add_argument(
        "--notebooks", type=Path, default=settings.NOTEBOOKS, metavar="DIR", help="folder of the notebooks"
    )
    parser.add_argument("--to", type=Path, default=CLASS, metavar="DIR", help="where the copies go")
    options = parser.parse_args(arguments)
    known = [name for name in twin_names(options.notebooks) if settings.is_tutorial(name)]
    if not known:
        raise UserError(f"there is no tutorial in {options.notebooks}")
    short = {name.partition("_")[0]: name for name in known}
    chosen = [settings.check_choice("tutorial", short.get(name, name), known) for name in options.names]
    for name in chosen or known:
        print(f"{options.to.name}/{name}.ipynb: {write_copy(options.notebooks, name, options.to)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
