"""Notebooks and their text twins: `python -m rec_utils.notebooks sync | check | execute [NAME...]`.

A notebook is edited and reviewed as `notebooks/src/NAME.py` (jupytext's py:percent format). The notebook
`notebooks/NAME.ipynb` is made from it; a tutorial stands in the folder `tutorials` of either. `sync` takes
the cells from the twin and keeps the outputs of those that have not changed; `execute` runs it and stores all
outputs; `check` says where it breaks a rule.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from rec_utils import notebook_rules, settings
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.plans import make_plan, notebook_names
from rec_utils.runs import FINISHED
from rec_utils.scheduler import run_batch
from rec_utils.settings import notebook_path

EPILOG = """\
examples:
  python -m rec_utils.notebooks sync 01_kar      after an edit of notebooks/src/01_kar.py
  python -m rec_utils.notebooks execute 01_kar   sync, run at the defaults, store the outputs
  python -m rec_utils.notebooks check            all notebooks; exit status 1 if a rule is broken
"""

#: Cell metadata that a twin may set; everything else depends on the tool that wrote the file.
_CELL_METADATA = ("tags", "jupyter")


def twin_path(folder: Path, name: str) -> Path:
    """The text twin of the notebook `name` in `folder`."""
    return notebook_path(folder / "src", name).with_suffix(".py")


def twin_names(folder: Path) -> list[str]:
    """Names of the notebooks in `folder` that have a twin."""
    found = [*folder.glob("src/[!.]*.py"), *folder.glob("src/tutorials/[!.]*.py")]
    return sorted(path.stem for path in found if path == twin_path(folder, path.stem))


def read_twin(path: Path) -> NotebookNode:
    """The notebook that a twin describes, without outputs; `UserError` if there is no such twin."""
    try:
        source = jupytext.read(path, fmt="py:percent")
    except FileNotFoundError:
        raise UserError(f"there is no twin {path}") from None
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if formats := source.metadata.get("jupytext", {}).get("formats"):
        metadata["jupytext"] = {"formats": formats}
    seen: dict[str, int] = {}
    for cell in source.cells:
        cell.metadata = NotebookNode({k: cell.metadata[k] for k in _CELL_METADATA if k in cell.metadata})
        # an id that follows from the text, so that it stays where other cells change
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return nbformat.v4.new_notebook(cells=source.cells, metadata=metadata)


def take_outputs(notebook: NotebookNode, executed: NotebookNode) -> None:
    """Give the code cells of `notebook` the outputs of the same cells in `executed`, in their order."""
    old, new = ([(c.cell_type, c.source) for c in nb.cells] for nb in (executed, notebook))
    for block in difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        for i in range(block.size):
            source, target = executed.cells[block.a + i], notebook.cells[block.b + i]
            if target.cell_type == "code":
                target.execution_count = source.execution_count
                target.outputs = [_static(output) for output in source.outputs]


def _static(output: NotebookNode) -> NotebookNode:
    """An output without live widget, which shows an error where its kernel is gone."""
    if notebook_rules.WIDGET in output.get("data", {}) and len(output.data) > 1:
        del output.data[notebook_rules.WIDGET]
    return output


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook, whole or not at all, if it differs from what is there."""
    content = nbformat.writes(notebook, version=4) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        write_atomic(path, content)


def sync(folder: Path, name: str) -> None:
    """Make a notebook from its twin, keeping the outputs of unchanged cells."""
    notebook = read_twin(twin_path(folder, name))
    path = notebook_path(folder, name)
    if path.exists():
        take_outputs(notebook, nbformat.read(path, as_version=4))
    write_notebook(notebook, path)


def execute(folder: Path, names: list[str], fresh: bool = False) -> list[str]:
    """Sync, run at the defaults and store the outputs of each notebook; returns those that failed.

    A run that the batch runner has already finished with the same code is taken as it is, unless `fresh`.
    """
    for name in names:
        sync(folder, name)
    plan = make_plan(folder, names, "laptop", [])
    failed = []
    for run, state in run_batch(plan, fresh=fresh).items():
        if state.status == FINISHED:
            notebook = read_twin(twin_path(folder, run.notebook))
            take_outputs(notebook, nbformat.read(plan.folder / run.folder / "notebook.ipynb", as_version=4))
            write_notebook(notebook, plan.path(run))
        else:
            failed.append(run.notebook)
    return failed


def check(folder: Path, name: str) -> list[str]:
    """Everything that is wrong with a notebook: how it differs from its twin, and the rules it breaks."""
    path = notebook_path(folder, name)
    if not path.exists():
        return [f"there is no notebook; run: python -m rec_utils.notebooks execute {name}"]
    if not twin_path(folder, name).exists():
        return [f"there is no twin {twin_path(folder, name).relative_to(folder)}"]
    notebook = nbformat.read(path, as_version=4)
    twin = read_twin(twin_path(folder, name))
    problems = []
    difference = _first_difference(notebook, twin)
    if difference:
        problems.append(f"{difference}; run: python -m rec_utils.notebooks sync {name}")
    return problems + notebook_rules.violations(notebook, name, path.stat().st_size)


def _first_difference(notebook: NotebookNode, twin: NotebookNode) -> str | None:
    for number, (cell, wanted) in enumerate(zip(notebook.cells, twin.cells, strict=False), 1):
        for key in ("cell_type", "source", "metadata", "id"):
            if cell.get(key) != wanted[key]:
                return f"cell {number} differs from the twin in its {key.replace('_', ' ')}"
    if len(notebook.cells) != len(twin.cells):
        return f"it has {len(notebook.cells)} cells, its twin {len(twin.cells)}"
    return None if notebook.metadata == twin.metadata else "its metadata differ from the twin's"


def _choose(folder: Path, names: list[str]) -> list[str]:
    known = sorted({*notebook_names(folder), *twin_names(folder)})
    if not known:
        raise UserError(f"there is no notebook in {folder}")
    return [settings.check_choice("notebook", name, known) for name in names] or known


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rec_utils.notebooks",
        description="Make notebooks from their text twins, run them and check them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["sync", "check", "execute"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all notebooks")
    parser.add_argument(
        "--notebooks", type=Path, default=settings.NOTEBOOKS, metavar="DIR", help="their folder"
    )
    parser.add_argument("--fresh", action="store_true", help="execute: repeat a finished run as well")
    options = parser.parse_args(arguments)
    names = _choose(options.notebooks, options.names)
    if options.action == "execute":
        return 1 if execute(options.notebooks, names, options.fresh) else 0
    if options.action == "sync":
        for name in names:
            sync(options.notebooks, name)
        return 0
    problems = [f"{name}: {problem}" for name in names for problem in check(options.notebooks, name)]
    print("\n".join(problems) or f"{len(names)} notebooks agree with their twins and obey the rules")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
