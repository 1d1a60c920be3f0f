"""Sheets of exercises, the rules of tutorials, and copies for a class."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rec_utils import class_copies, notebooks
from rec_utils.classroom import Sheet, Wrong, close, exercise
from rec_utils.errors import UserError
from rec_utils.exercises import violations, without_answers
from rec_utils.plans import notebook_names
from rec_utils.runs import kernel_environment

# sheets ------------------------------------------------------------------------------------------------


@pytest.fixture
def sheet(monkeypatch):
    @exercise(1, points=3, title="mean")
    def mean(answer):
        values = torch.tensor([1.0, 2.0, 6.0])
        got = answer(values)
        if close(got, values.sum()):
            raise Wrong("this is the sum")
        if not close(got, 3.0):
            raise Wrong("it is not the mean")

    @exercise(2, points=1, title="forty-two")
    def number(answer):
        if not close(answer, 42):
            raise Wrong("look at the table")

    module = ModuleType("rec_utils.classroom.t99")
    module.second, module.first = number, mean
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Sheet("T99")


def unattempted(values):
    raise NotImplementedError  # your code here


@pytest.mark.parametrize(
    ("number", "answer", "said"),
    [
        (1, torch.mean, "Exercise 1 (3 points): right"),
        (1, torch.sum, "Exercise 1 (3 points): not yet: this is the sum"),
        (1, torch.median, "Exercise 1 (3 points): not yet: it is not the mean"),
        (1, unattempted, "Exercise 1 (3 points): not attempted yet"),
        (1, ..., "Exercise 1 (3 points): not attempted yet"),
        (1, lambda values: None, "Exercise 1 (3 points): not yet: it gives None; does the function"),
        (1, lambda values: values, "Exercise 1 (3 points): not yet: its shape is (3,), but should be ()"),
        (1, lambda values: 1 / 0, "Exercise 1 (3 points): not yet: it raises ZeroDivisionError: division by"),
        (1, lambda: 0, "Exercise 1 (3 points): not yet: it raises TypeError: "),
        (1, 3.0, "Exercise 1 (3 points): not yet: it raises TypeError: 'float' object is not callable"),
        (2, 42, "Exercise 2 (1 point): right"),
        (2, None, "Exercise 2 (1 point): not attempted yet"),
        (2, "42 films", "Exercise 2 (1 point): not yet: it gives a str where numbers are asked for"),
        (2, float("nan"), "Exercise 2 (1 point): not yet: look at the table"),
    ],
)
def test_a_check_prints_one_line_and_never_raises(sheet, capsys, number, answer, said):
    sheet.check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(said) and out.count("\n") == 1
    assert sheet.points == (said.endswith("right") and (3, 1)[number - 1])


def test_the_score_counts_the_last_check_of_each_exercise(sheet, capsys):
    for answer in (torch.sum, torch.mean):
        sheet.check(1, answer)
    sheet.check(2, 42)
    sheet.check(2, 41)
    capsys.readouterr()
    sheet.score()
    assert capsys.readouterr().out == (
        "Exercise 1, mean: 3 of 3 points\nExercise 2, forty-two: 0 of 1 point\nTogether: 3 of 4 points\n"
    )


def test_an_answer_does_not_change_the_random_numbers_after_it(sheet):
    torch.manual_seed(0)
    sheet.check(1, lambda values: torch.rand(()))
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(3))


def test_mistakes_of_the_author_do_raise(sheet, monkeypatch):
    with pytest.raises(UserError, match="there is no exercise 3; the last is 2"):
        sheet.check(3, 0)
    with pytest.raises(UserError, match="no exercises for tutorial 'T98'"):
        Sheet("T98")
    monkeypatch.delattr(sys.modules["rec_utils.classroom.t99"], "first")
    with pytest.raises(UserError, match="not numbered"):
        Sheet("T99")


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, torch.tensor, lambda v: torch.tensor(v, requires_grad=True)]
)
def test_numbers_of_any_kind_are_compared(kind):
    assert close(kind([1.0, 2000.0]), [1.000005, 2000.01])
    assert not close(kind([1.0, 2000.0]), [1.00005, 2000.01])
    with pytest.raises(Wrong, match=r"its shape is \(2,\), but should be \(1, 2\)"):
        close(kind([1.0, 2000.0]), [[1.0, 2000.0]])


# answers and rules -------------------------------------------------------------------------------------

FUNCTION = '''\
def double(x):
    """Twice `x`."""
    ### BEGIN SOLUTION
    y = x + x
    return y
    ### END SOLUTION'''
VALUE = "### BEGIN SOLUTION\nhalf = 84 / 2\nanswer = half\n### END SOLUTION"


def test_answers_are_taken_out():
    assert without_answers(FUNCTION).splitlines()[2:] == ["    raise NotImplementedError  # your code here"]
    assert without_answers(VALUE) == "answer = ...  # your answer here"
    assert without_answers(f"{FUNCTION}\n\n\n{VALUE}\nx = 1").count("your") == 2
    assert without_answers("x = 1\n# no exercise") == "x = 1\n# no exercise"


@pytest.mark.parametrize(
    "source",
    [
        "### BEGIN SOLUTION\nx = 1",
        "x = 1\n### END SOLUTION",
        FUNCTION.replace("    ### END", "### END"),
        VALUE.replace("answer = half", "print(half)"),
        "### BEGIN SOLUTION\n### END SOLUTION",
        FUNCTION.replace("### BEGIN", "# BEGIN"),
    ],
)
def test_wrong_markers_are_refused(source):
    with pytest.raises(UserError):
        without_answers(source)


def a_tutorial():
    cells = [new_markdown_cell("# Title\n30 minutes"), new_code_cell("x = 2")]
    for n in range(1, 6):
        right = new_output("stream", name="stdout", text=f"Exercise {n} (2 points): right\n")
        cells.append(new_code_cell(FUNCTION.replace("double", f"double_{n}")))
        cells.append(new_code_cell(f"sheet.check({n}, double_{n})", outputs=[right]))
    return new_notebook(cells=[*cells, new_code_cell("sheet.score()")])


def test_a_good_tutorial_breaks_no_rule():
    assert list(violations(a_tutorial())) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda nb: nb.cells[0].update(source="# Title"), "how many minutes"),
        (lambda nb: nb.cells.__delitem__(slice(10, 12)), "5 exercises or more"),
        (lambda nb: nb.cells[3].update(source="sheet.check(2, double_1)"), "checks [2, 2, 3, 4, 5]"),
        (lambda nb: nb.cells.pop(), "does not show the score"),
        (lambda nb: nb.cells[3].update(source="sheet.check(1, double_2)"), "checks double_2, but the cell"),
        (lambda nb: nb.cells[3].update(source="y = 1\nsheet.check(1, y)"), "cell 4 must consist of"),
        (lambda nb: nb.cells.insert(3, new_code_cell("y = 1")), "cell 3 holds an answer that the next"),
        (lambda nb: nb.cells[1].update(source="x = double_3(2)"), "cell 2 needs double_3, the answer to"),
        (lambda nb: nb.cells[5].outputs.clear(), "exercise 2 is not answered rightly"),
        (lambda nb: nb.cells[1].update(source="%time x"), "cell 2: invalid syntax"),
        (lambda nb: nb.cells[1].update(source="### END SOLUTION"), "cell 2: it needs a line"),
    ],
)  # fmt: skip
def test_every_rule_bites(change, problem):
    notebook = a_tutorial()
    change(notebook)
    assert problem in " | ".join(violations(notebook))


# copies for a class ------------------------------------------------------------------------------------

TWIN = f"""\
# %% [markdown]
# # Title
# Read [KAR](../01_kar.ipynb) or [T2](T2_next.ipynb).

# %% tags=["parameters"]
PROFILE: str = "laptop"  # size

# %%
from rec_utils import classroom

sheet = classroom.Sheet("T1")

# %%
{FUNCTION}

# %%
sheet.check(5, double)

# %%
{VALUE}

# %%
sheet.check(6, answer)
sheet.score()
"""


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "notebooks/src/tutorials"
    place.mkdir(parents=True)
    (place / "T1_first.py").write_text(TWIN)
    (place / "T2_next.py").write_text(TWIN)
    (place.parent / "01_kar.py").write_text(TWIN)
    return tmp_path


def make(folder, *names):
    return class_copies.main(
        [*names, "--notebooks", str(folder / "notebooks"), "--to", str(folder / "class")]
    )


def test_copies_have_no_answers_and_lead_to_the_other_notebooks(folder, capsys):
    assert make(folder) == 0
    assert capsys.readouterr().out == "class/T1_first.ipynb: written\nclass/T2_next.ipynb: written\n"
    notebook = nbformat.read(folder / "class/T1_first.ipynb", as_version=4)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "SOLUTION" not in text and "half" not in text and "y = x + x" not in text
    assert "[KAR](../notebooks/01_kar.ipynb) or [T2](T2_next.ipynb)" in text
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_a_copy_that_somebody_worked_in_is_kept(folder, capsys):
    make(folder, "T1_first")
    make(folder, "T1")
    assert "there already" in capsys.readouterr().out
    path = folder / "class/T1_first.ipynb"
    path.write_text(path.read_text().replace("your code here", "my code"))
    make(folder, "T1_first")
    assert "kept as it is" in capsys.readouterr().out
    assert "my code" in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["T1_first.ipynb"]


def test_tutorials_are_found_with_the_other_notebooks_in_their_folder(folder):
    place = folder / "notebooks"
    assert notebooks.twin_names(place) == ["01_kar", "T1_first", "T2_next"]
    for name in ("01_kar", "T1_first"):
        notebooks.sync(place, name)
    assert (place / "01_kar.ipynb").exists() and (place / "tutorials/T1_first.ipynb").exists()
    (place / "tutorials/notes.ipynb").write_text("{}")
    assert notebook_names(place) == ["01_kar", "T1_first"]


def test_only_tutorials_are_copied(folder):
    with pytest.raises(UserError, match="did you mean 'T1_first'"):
        make(folder, "T1_frist")
    with pytest.raises(UserError, match="tutorial '01_kar' is not one of"):
        make(folder, "01_kar")
    (folder / "notebooks/src/tutorials/T1_first.py").write_text(TWIN.replace("### END", "# END"))
    with pytest.raises(UserError, match="T1_first, cell 4: it needs a line ### END SOLUTION"):
        make(folder)


def test_a_copy_without_answers_runs_to_its_end(folder):
    make(folder, "T1_first")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "class/T1_first.ipynb", "done.ipynb"]
    with kernel_environment(folder / "figures") as (_, environment):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(folder / "done.ipynb", as_version=4).cells
    printed = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))
    checks = ["Exercise 5 (3 points)", "Exercise 6 (1 point)"]
    assert printed.splitlines()[:2] == [f"{check}: not attempted yet" for check in checks]
    assert "Together: 0 of" in printed
