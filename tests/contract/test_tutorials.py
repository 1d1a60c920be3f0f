"""Every tutorial: its exercises, its links, and its copy for a class, which runs without a single answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rec_utils import class_copies, notebooks
from rec_utils.classroom import Sheet
from rec_utils.exercises import without_answers
from rec_utils.runs import kernel_environment
from rec_utils.settings import NOTEBOOKS, ROOT, is_tutorial

NAMES = [name for name in notebooks.twin_names(NOTEBOOKS) if is_tutorial(name)]
SHEETS = {path.stem.upper() for path in Path(ROOT, "rec_utils/classroom").glob("t[0-9]*.py")}


def source(name):
    return notebooks.read_twin(notebooks.twin_path(NOTEBOOKS, name))


def test_every_tutorial_has_a_sheet_and_every_sheet_a_tutorial_and_a_test():
    assert {name.partition("_")[0] for name in NAMES} == SHEETS
    tests = {path.stem for path in Path(ROOT, "tests/unit").glob("test_tutorial_*.py")}
    assert tests == {f"test_tutorial_{sheet.lower()}" for sheet in SHEETS}


@pytest.mark.parametrize("name", NAMES)
def test_it_checks_every_exercise_of_its_sheet(name):
    checks = [
        int(n) for cell in source(name).cells for n in re.findall(r"^sheet\.check\((\d+),", cell.source)
    ]
    exercises = Sheet(name.partition("_")[0]).exercises
    assert checks == list(exercises)
    assert all(exercise.title for exercise in exercises.values())


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_to_files(name):
    text = "\n".join(cell.source for cell in source(name).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert links, "it says what to read next"
    assert not [link for link in links if not (NOTEBOOKS / "tutorials" / link).exists()]


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_an_answer_is_left_in_its_copy(name):
    copy = class_copies.class_copy(NOTEBOOKS, name)
    text = "\n".join(cell.source for cell in copy.cells)
    answers = [
        line.strip()
        for cell in source(name).cells
        if without_answers(cell.source) != cell.source
        for answer in re.findall(r"BEGIN SOLUTION\n(.*?)\n *### END", cell.source, re.DOTALL)
        for line in answer.splitlines()
    ]
    assert answers and "SOLUTION" not in text
    for cell in copy.cells:
        if "# your " in cell.source:
            compile(cell.source, name, "exec")
            assert not [line for line in answers if line in cell.source and len(line) > 12]


@pytest.mark.parametrize("name", NAMES)
def test_its_copy_runs_to_its_end_with_nothing_attempted(name, tmp_path):
    class_copies.main([name, "--to", str(tmp_path)])
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-p", "PROFILE", "smoke"]
    command += [f"{name}.ipynb", "done.ipynb"]
    with kernel_environment(tmp_path / "figures") as (_, environment):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = nbformat.read(tmp_path / "done.ipynb", as_version=4).cells
    printed = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
    checks = re.findall(r"^Exercise \d+ \(\d points?\): (.*)$", printed, re.MULTILINE)
    assert len(checks) >= 5 and set(checks) == {"not attempted yet"}
