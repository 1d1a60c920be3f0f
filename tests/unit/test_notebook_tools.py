"""Twins, outputs and the rules of notebooks."""

from __future__ import annotations

from collections.abc import Callable

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rec_utils import notebooks
from rec_utils.errors import UserError
from rec_utils.notebook_rules import SECTIONS, is_compared, violations

TWIN = """\
# %% [markdown]
# # Title
# **Cost:** a minute.

# %% tags=["parameters"]
PROFILE: str = "laptop"  # size

# %%
%time x = 1

# %% tags=["nbval-ignore-output"]
print(x)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/nb.py").write_text(TWIN)
    return tmp_path


def read(folder):
    return nbformat.read(folder / "nb.ipynb", as_version=4)


def executed(folder):
    """Sync, and fill in outputs as an execution would."""
    notebooks.sync(folder, "nb")
    notebook = read(folder)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
        cell.outputs = [new_output("stream", name="stdout", text=f"output {count}\n")]
    nbformat.write(notebook, folder / "nb.ipynb")
    return notebook


# twins -------------------------------------------------------------------------------------------------


def test_sync_makes_the_notebook_of_the_twin(folder):
    notebooks.sync(folder, "nb")
    notebook = read(folder)
    nbformat.validate(notebook)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "code", "code"]
    assert notebook.cells[0].source == "# Title\n**Cost:** a minute."
    assert notebook.cells[1].metadata == {"tags": ["parameters"]}
    assert notebook.cells[2].source == "%time x = 1", "a magic is no comment"
    assert notebook.metadata.kernelspec.name == "python3"


def test_sync_keeps_outputs_of_unchanged_cells_only(folder):
    before = executed(folder)
    twin = TWIN.replace("x = 1", "x = 2").replace("# %% tags", "# %%\nnew = 0\n\n# %% tags", 1)
    (folder / "src/nb.py").write_text(twin)
    notebooks.sync(folder, "nb")
    after = read(folder)
    assert [cell.source for cell in after.cells if cell.cell_type == "code" and not cell.outputs] == [
        "new = 0",
        "%time x = 2",
    ]
    kept = {cell.id: cell for cell in before.cells if cell.id in {c.id for c in after.cells}}
    assert len(kept) == 3, "ids of unchanged cells are stable"
    assert [dict(kept[cell.id]) for cell in after.cells if cell.id in kept] == [
        dict(c) for c in kept.values()
    ]


def test_sync_twice_changes_nothing_and_does_not_touch_the_file(folder):
    executed(folder)
    notebooks.sync(folder, "nb")
    content, stamp = (folder / "nb.ipynb").read_bytes(), (folder / "nb.ipynb").stat().st_mtime_ns
    notebooks.sync(folder, "nb")
    assert ((folder / "nb.ipynb").read_bytes(), (folder / "nb.ipynb").stat().st_mtime_ns) == (content, stamp)


sources = st.lists(st.sampled_from("abcde"), max_size=8)


@given(st.lists(st.sampled_from("abcde"), unique=True), sources, sources)
def test_outputs_are_taken_in_order_from_equal_cells(common, before, after):
    old = new_notebook(
        cells=[new_code_cell(s, outputs=[new_output("stream", text=s)]) for s in before + common]
    )
    new = new_notebook(cells=[new_code_cell(s) for s in after + common])
    notebooks.take_outputs(new, old)
    taken = [cell for cell in new.cells if cell.outputs]
    assert all(cell.outputs[0].text == cell.source for cell in taken)
    remaining = iter(cell.source for cell in old.cells)
    assert all(cell.source in remaining for cell in taken), "no output is taken twice or out of order"
    assert len(taken) >= len(common)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda nb: nb.cells[2].update(source="x = 9"), "cell 3 differs from the twin in its source"),
        (lambda nb: nb.cells[3].metadata.update(tags=[]), "cell 4 differs from the twin in its metadata"),
        (
            lambda nb: nb.cells[3].metadata.update(collapsed=True),
            "cell 4 differs from the twin in its metadata",
        ),
        (lambda nb: nb.cells[1].update(id="other"), "cell 2 differs from the twin in its id"),
        (lambda nb: nb.cells.pop(), "it has 3 cells, its twin 4"),
        (lambda nb: nb.metadata.kernelspec.update(name="conda"), "its metadata differ from the twin's"),
    ],
)
def test_check_finds_a_difference_from_the_twin(folder, change, difference):
    notebook = executed(folder)
    assert not [problem for problem in notebooks.check(folder, "nb") if "twin" in problem]
    change(notebook)
    nbformat.write(notebook, folder / "nb.ipynb")
    assert f"{difference}; run: python -m rec_utils.notebooks sync nb" in notebooks.check(folder, "nb")


def test_a_missing_notebook_or_twin_is_named(folder, capsys):
    assert notebooks.main(["check", "--notebooks", str(folder)]) == 1
    assert (
        "nb: there is no notebook; run: python -m rec_utils.notebooks execute nb" in capsys.readouterr().out
    )
    executed(folder)
    (folder / "src/nb.py").unlink()
    assert notebooks.check(folder, "nb") == ["there is no twin src/nb.py"]
    with pytest.raises(UserError, match="there is no twin"):
        notebooks.main(["sync", "nb", "--notebooks", str(folder)])
    with pytest.raises(UserError, match="did you mean 'nb'"):
        notebooks.main(["sync", "nbb", "--notebooks", str(folder)])


def test_execute_stores_the_outputs_without_traces_of_the_run(workspace):
    path = workspace.write("tiny", "print(6 * 7)")
    twin = ["# %% [markdown]\n# # tiny\n# Cost: none."]
    for cell in nbformat.read(path, as_version=4).cells[1:]:
        tags = ' tags=["parameters"]' if cell.metadata else ""
        twin.append(f"# %%{tags}\n{cell.source}")
    path.unlink()
    (workspace.notebooks / "src").mkdir()
    (workspace.notebooks / "src/tiny.py").write_text("\n\n".join(twin))

    assert notebooks.main(["execute", "tiny", "--notebooks", str(workspace.notebooks)]) == 0
    assert nbformat.read(path, as_version=4).cells[3].outputs[0].text == "42\n"
    problems = notebooks.check(workspace.notebooks, "tiny")
    assert [problem for problem in problems if not problem.startswith("section")] == []
    assert "papermill" not in path.read_text()


# rules -------------------------------------------------------------------------------------------------


def a_good_notebook():
    headings = ["The paper", "Claims", "Parameters", "Data", "Baselines", "The method", "Experiment 1"]
    headings += ["Paper and ours", "Figures", "Verdicts", "What differs", "Explore", "Exercises", "Cite"]
    cells = [new_markdown_cell("# Title\ncost: a minute\n```\n# no heading\n```")]
    cells += [new_markdown_cell(f"## {heading}\ntext\n") for heading in headings]
    code = 'PROFILE: str = "laptop"  # size\nSEED: int = 0  # of everything'
    cells.insert(4, new_code_cell(code, execution_count=1, metadata={"tags": ["parameters"]}))
    text = new_output("stream", name="stdout", text="matched\n")
    cells.insert(12, new_code_cell("print(status)", execution_count=2, outputs=[text]))
    return new_notebook(cells=cells)


def test_a_good_notebook_breaks_no_rule():
    assert len(SECTIONS) == 14
    assert violations(a_good_notebook(), "01_nb", 1000) == []


def code_cell(notebook):
    return notebook.cells[12]


def output(notebook):
    return code_cell(notebook).outputs[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda nb: nb.cells.extend(map(new_markdown_cell, ["x"] * 30)), "it has 47 cells, more than 40"),
        (lambda nb: code_cell(nb).update(source="x\n" * 31), "cell 13 has 31 lines of code"),
        (lambda nb: code_cell(nb).update(source="plot();"), "cell 13 ends in a semicolon"),
        (lambda nb: code_cell(nb).update(source="# NBVAL_SKIP\nx"), "cell 13 has a comment for nbval"),
        (lambda nb: nb.cells.append(new_markdown_cell("# Second")), "one title"),
        (lambda nb: nb.cells[0].update(source="## Title\ncost"), "one title"),
        (lambda nb: nb.cells[0].update(source="# Title"), "the cost must be stated"),
        (lambda nb: nb.cells[4].metadata.clear(), "0 cells tagged 'parameters'"),
        (lambda nb: nb.cells[4].update(source='PROFILE: str = "laptop"'), "PROFILE has no comment"),
        (lambda nb: nb.cells[4].update(source='PROFILE: str = "smoke"  # size'), "PROFILE: str = "),
        (lambda nb: nb.cells[4].update(source="SEED: int = 0  # seed"), "PROFILE: str = "),
        (lambda nb: nb.cells[4].update(source='PROFILE: str = "laptop"  # s\nN: int = 2 * 3  # n'), "line 2"),
        (lambda nb: code_cell(nb).update(execution_count=3), "not executed in order"),
        (lambda nb: code_cell(nb).update(execution_count=None), "not executed in order"),
        (lambda nb: code_cell(nb).update(outputs=[new_output("error", ename="E")]), "ends in an error: E"),
        (lambda nb: output(nb).update(name="stderr"), "has output on stderr"),
        (lambda nb: output(nb).update(text="see /home/me/x.csv"), "a path of this machine: /home/me"),
        (lambda nb: code_cell(nb).update(outputs=[]), "no cell has an output that nbval compares"),
        (lambda nb: code_cell(nb).metadata.update(tags=["nbval-ignore-output"]), "no cell has an output"),
        (lambda nb: nb.metadata.update(widgets={}), "widget state"),
        (lambda nb: nb.cells.pop(7), "section 'the method' is missing after 'Baselines'"),
        (lambda nb: nb.cells.insert(8, nb.cells.pop(6)), "section 'the method' is missing after 'Baselines'"),
    ],
)  # fmt: skip
def test_every_rule_bites(change: Callable, problem: str):
    notebook = a_good_notebook()
    change(notebook)
    found = violations(notebook, "01_nb", 1000)
    assert len(found) >= 1 and problem in " | ".join(found)


def test_a_notebook_may_have_300_kilobytes_and_00_needs_no_sections():
    assert violations(a_good_notebook(), "01_nb", 300_001) == ["it has 300001 bytes, more than 300000"]
    short = new_notebook(cells=[c for c in a_good_notebook().cells if not c.source.startswith("## ")])
    short.cells[0].source = "# Title"
    assert violations(short, "00_start_here", 1000) == []
    assert len(violations(short, "01_nb", 1000)) == 1 + len(SECTIONS)


@pytest.mark.parametrize(
    ("data", "compared"),
    [
        ({"text/plain": "3"}, True),
        ({"text/html": "<b>3</b>", "text/plain": "3"}, True),
        ({"image/svg+xml": "<svg/>"}, True),
        ({"image/png": "abc", "text/plain": "<Figure size 640x480 with 1 Axes>"}, False),
        ({"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox()"}, False),
    ],
)
def test_a_picture_alone_counts_as_no_comparison(data, compared):
    cell = new_code_cell("x", execution_count=1, outputs=[new_output("display_data", data)])
    assert is_compared(cell) is compared
