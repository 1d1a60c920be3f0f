"""The rules that every committed notebook obeys.

A notebook is committed executed in order at its defaults, small and without traces of the machine that ran
it. A paper's notebook also has its sections in a fixed order, baselines before the method; a tutorial has
exercises instead, see `rec_utils.exercises`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat import NotebookNode

from rec_utils import exercises
from rec_utils.errors import UserError
from rec_utils.parameters import Parameter, parse_cell
from rec_utils.settings import ROOT, is_tutorial

MAX_BYTES = 300_000
MAX_CELLS = 40
MAX_LINES = 30

#: Notebooks that test no paper, so that they need neither card nor the sections of a paper; with the reason.
NO_PAPER = {
    "00_start_here": "it introduces the others",
    "11_scoreboard": "it shows what the others have recorded",
}

#: Sections of a paper's notebook in their order: name, and what its heading (of level 2) must contain.
SECTIONS = {
    "paper card": r"paper|card",
    "claims under test": r"claim",
    "parameters": r"parameter",
    "data with leakage checks": r"\bdata\b",
    "baselines": r"baseline",
    "the method": r"method",
    "experiments": r"experiment",
    "paper and ours": r"paper",
    "figures": r"figure",
    "verdicts": r"verdict",
    "what differs and why": r"differ",
    "explore": r"explore",
    "exercises": r"exercise",
    "cite": r"\bcit(e|ation|ing)\b",
}

#: Mime type of a live widget.
WIDGET = "application/vnd.jupyter.widget-view+json"

_MACHINE_PATH = re.compile(rf"{re.escape(str(ROOT))}|/(?:home|root|Users|tmp)/[\w.-]+")


def violations(notebook: NotebookNode, name: str, n_bytes: int) -> list[str]:
    """One sentence for each rule that a notebook of `n_bytes` breaks; empty if it obeys them all."""
    problems = [*_form(notebook, n_bytes), *_parameters(notebook, name), *_outputs(notebook)]
    if is_tutorial(name):
        problems += exercises.violations(notebook)
    elif name not in NO_PAPER:
        problems += _sections(notebook)
    return problems


def is_compared(cell: NotebookNode) -> bool:
    """True if nbval compares an output of this cell, and it is more than a picture.

    nbval leaves out bitmaps, cells excepted by a tag and, silently, cells without execution count.
    """
    if cell.cell_type != "code" or cell.execution_count is None:
        return False
    if {"nbval-ignore-output", "nbval-skip"} & set(cell.metadata.get("tags", [])):
        return False
    return any(
        not {"image/png", "image/jpeg", WIDGET} & set(output.get("data", {})) for output in cell.outputs
    )


def _form(notebook: NotebookNode, n_bytes: int) -> Iterator[str]:
    if n_bytes > MAX_BYTES:
        yield f"it has {n_bytes} bytes, more than {MAX_BYTES}"
    if len(notebook.cells) > MAX_CELLS:
        yield f"it has {len(notebook.cells)} cells, more than {MAX_CELLS}"
    for number, cell in enumerate(notebook.cells, 1):
        n_lines = len(cell.source.splitlines())
        if cell.cell_type == "code" and n_lines > MAX_LINES:
            yield f"cell {number} has {n_lines} lines of code, more than {MAX_LINES}"
        if cell.cell_type == "code" and cell.source.rstrip().endswith(";"):
            yield f"cell {number} ends in a semicolon, which nbval ignores: assign the value to _ instead"
        if "NBVAL_" in cell.source:
            yield f"cell {number} has a comment for nbval; use a tag, which all tools see"
    titles = [number for number, cell in enumerate(notebook.cells, 1) for _ in headings(cell, 1)]
    if titles != [1]:
        yield "it needs one title, a heading of level 1, in its first cell and no other"


def _parameters(notebook: NotebookNode, name: str) -> Iterator[str]:
    cells = [
        c for c in notebook.cells if c.cell_type == "code" and "parameters" in c.metadata.get("tags", [])
    ]
    if len(cells) != 1:
        yield f"it has {len(cells)} cells tagged 'parameters' instead of one"
        return
    try:
        parameters = parse_cell(cells[0].source, name)
    except UserError as error:
        yield str(error)
        return
    for parameter in parameters.values():
        if not parameter.help:
            yield f"parameter {parameter.name} has no comment on its line"
    profile = parameters.get("PROFILE", Parameter("PROFILE", "", None, ""))
    if (profile.type, profile.default) != ("str", "laptop"):
        yield 'it needs the parameter PROFILE: str = "laptop"'


def _outputs(notebook: NotebookNode) -> Iterator[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "its cells were not executed in order from a fresh kernel"
    if "widgets" in notebook.metadata:
        yield "it holds widget state"
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                yield f"cell {number} ends in an error: {output.ename}"
            if output.get("name") == "stderr":
                yield f"cell {number} has output on stderr, such as a warning or a progress bar"
            text = str({k: v for k, v in output.get("data", output).items() if not k.startswith("image/")})
            if place := _MACHINE_PATH.search(text):
                yield f"cell {number} shows a path of this machine: {place[0]}"
    if not any(map(is_compared, notebook.cells)):
        yield "no cell has an output that nbval compares"


def _sections(notebook: NotebookNode) -> Iterator[str]:
    if not any("cost" in cell.source.lower() for cell in notebook.cells[:2]):
        yield "the cost must be stated right after the title"
    found = [heading for cell in notebook.cells for heading in headings(cell, 2)]
    position = 0
    for section, pattern in SECTIONS.items():
        places = [i for i, h in enumerate(found) if i >= position and re.search(pattern, h, re.IGNORECASE)]
        if places:
            position = places[0] + 1
        else:
            after = f" after {found[position - 1]!r}" if position else ""
            yield f"section {section!r} is missing{after}: no heading of level 2 contains {pattern!r}"


def headings(cell: NotebookNode, level: int) -> list[str]:
    """Headings of that level in a markdown cell, code blocks left out."""
    if cell.cell_type != "markdown":
        return []
    text = re.sub(r"^```.*?^```", "", cell.source, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^#{{{level}}} +(.+)$", text, re.MULTILINE)
