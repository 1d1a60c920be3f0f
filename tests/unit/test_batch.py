"""The batch runner's parts: parameter values, plans, what is kept of a run. tests/gates starts kernels."""

from __future__ import annotations

import errno
import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_utils import batch, runs, scheduler
from rec_utils.errors import UserError
from rec_utils.parameters import Parameter, parse_cell, parse_values, read_parameters
from rec_utils.plans import fingerprint, load_plan, make_plan

# parameters --------------------------------------------------------------------------------------------


def values(kind: str, text: str) -> list:
    return parse_values(Parameter("X", kind, None, ""), text)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int", "0..4", [0, 1, 2, 3, 4]),
        ("int", "-1..1,7, 7", [-1, 0, 1, 7]),
        ("int | None", "0..1,none", [0, 1, None]),
        ("float", "1e-3,2", [0.001, 2.0]),
        ("float | None", "None,.5", [None, 0.5]),
        ("bool", "true,False", [True, False]),
        ("str", "DIN,DCNv2", ["DIN", "DCNv2"]),
        ("str", "'a, b',\"it's\",it's", ["a, b", "it's"]),
        ("str", "0..4,1e-3,''", ["0..4", "1e-3", ""]),
        ("list[int]", "[1, 5],[10],[]", [[1, 5], [10], []]),
        ("list[str]", "[a,'b, c']", [["a", "b, c"]]),
        ("list[list[float]]", "[[1],[2,3e1]]", [[[1.0], [2.0, 30.0]]]),
    ],
)
def test_values_have_the_type_of_the_parameter(kind, text, expected):
    result = values(kind, text)
    assert result == expected
    assert [type(value) for value in result] == [type(value) for value in expected]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_float_survives_as_text(numbers):
    assert values("float", ",".join(map(repr, numbers))) == list({repr(n): n for n in numbers}.values())


@given(
    st.lists(
        st.text(st.characters(exclude_characters="'", exclude_categories=["Cs"])), min_size=1, unique=True
    )
)
def test_every_text_survives_in_quotes(texts):
    assert values("str", ",".join(f"'{text}'" for text in texts)) == texts
    assert values("list[str]", "[" + ", ".join(f"'{text}'" for text in texts) + "]") == [texts]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "abc"), ("int", "1.0"), ("int", "1e3"), ("int", "true"), ("int", "0...4"), ("int", "none"),
        ("float", "fast"), ("float", "nan"), ("float", "inf"), ("float", "0..4"),
        ("bool", "1"), ("bool", "yes"), ("list[int]", "1,2"), ("list[int]", "[1,x]"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(kind, text):
    with pytest.raises(UserError, match=rf"parameter X: .* is not of type {re.escape(kind)}"):
        values(kind, text)


@pytest.mark.parametrize("text", ["", "1,", ",1", "[1", "1]", "'a", "4..0", "0..10000000"])
def test_malformed_values_are_refused(text):
    with pytest.raises(UserError, match="parameter X"):
        values("int" if "." in text else "str", text)


def test_a_parameters_cell_is_read_as_python():
    cell = (
        "# sizes\nURL: str = 'a=b#c'  # '=' and '#' in a value\n"
        "DIMS: list[int] = [\n    1,  # one\n    2,\n]  # widths, ü\nLIMIT: int | None = None # no limit"
    )
    found = [(p.name, p.type, p.default, p.help) for p in parse_cell(cell, "nb").values()]
    assert found == [
        ("URL", "str", "a=b#c", "'=' and '#' in a value"),
        ("DIMS", "list[int]", [1, 2], "widths, ü"),
        ("LIMIT", "int | None", None, "no limit"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("A = 1", "typed literal"),
        ("A: int = B + 1", "not computed"),
        ("A: int = 1.0", "not of type int"),
        ("A: int = True", "not of type int"),
        ("A: float = 1", "not of type float"),
        ("A: list[int] = [1, 'x']", "not of type list"),
        ("A: dict = {}", "type dict is not"),
        ("A: int", "typed literal"),
        ("A: int = 1\nA: int = 2", "line 2.*A stands twice"),
        ("A: int = (", "not Python"),
    ],
)
def test_a_parameter_that_is_no_typed_literal_is_refused(line, reason):
    with pytest.raises(UserError, match=f"nb: .*{reason}"):
        parse_cell(line, "nb")


def test_a_notebook_needs_one_parameters_cell_and_must_be_whole(workspace):
    path = workspace.write("tiny")
    assert list(read_parameters(path)) == ["PROFILE", "SEED", "LR"]
    text = path.read_text()
    path.write_text(text.replace('"parameters"', '"other"'))
    with pytest.raises(UserError, match=r"tiny.ipynb needs one code cell tagged 'parameters', but has 0"):
        read_parameters(path)
    path.write_text(text[:-100])
    with pytest.raises(UserError, match=r"tiny.ipynb is not a whole notebook"):
        read_parameters(path)


# plans -------------------------------------------------------------------------------------------------


def plan_of(workspace, *assignments: str, names=(), profiles="laptop"):
    return make_plan(workspace.notebooks, names, profiles, assignments)


def test_a_grid_has_every_combination_once_and_injects_only_what_differs(workspace):
    workspace.write("a")
    workspace.write("b")
    plan = plan_of(workspace, "SEED=0..2", "LR=1e-3,1", names=["b.ipynb", "a", "b"], profiles="smoke,laptop")
    assert len(plan.runs) == len({run.folder for run in plan.runs}) == 2 * 2 * 3 * 2
    assert [run.notebook for run in plan.runs] == ["b"] * 12 + ["a"] * 12
    assert plan.runs[6].changed == {} and plan.runs[6].run_id == "laptop"
    assert plan.runs[1].changed == {"PROFILE": "smoke", "LR": 1.0}
    assert plan.runs[-1].changed == {"SEED": 2, "LR": 1.0}
    assert plan.runs[-1].run_id == "laptop-LR=1.0-SEED=2"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"names": ["Tiny"]}, "notebook 'Tiny' is not one of other, tiny; did you mean 'tiny'"),
        (
            {"profiles": "laptopp"},
            "profile 'laptopp' is not one of smoke, laptop, paper; did you",
        ),
        ({"profiles": "smoke,"}, "empty value"),
        (
            {"assignments": ["seed=1"]},
            "'seed' is not one of PROFILE, SEED, LR; did you mean 'SEED'",
        ),
        ({"assignments": ["EXTRA=1"], "names": ["other", "tiny"]}, "other: parameter 'EXTRA' is not one of"),
        ({"assignments": ["SEED"]}, "-p 'SEED' is not of the form NAME=VALUE"),
        ({"assignments": ["SEED=1", "SEED=2"]}, "give parameter SEED once, as one list"),
        ({"assignments": ["PROFILE=smoke"]}, "give parameter PROFILE once; use --profile"),
        ({"assignments": ["SEED=0..999", "LR=" + ",".join(map(str, range(1, 100)))]}, "more than 10000 runs"),
    ],
)
def test_a_wrong_plan_is_refused_in_a_sentence(workspace, arguments, sentence):
    workspace.write("tiny")
    workspace.write("other")
    arguments = {"names": [], "profiles": "laptop", "assignments": []} | arguments
    with pytest.raises(UserError, match=re.escape(sentence)):
        make_plan(workspace.notebooks, **arguments)


def test_a_plan_is_found_again_and_its_id_follows_from_its_runs(workspace):
    workspace.write("tiny")
    plan = plan_of(workspace, "SEED=0,1")
    with pytest.raises(UserError, match="no batch yet"):
        load_plan(None)
    plan.save()
    assert load_plan(None) == load_plan(plan.id) == plan == plan_of(workspace, "SEED=0..1")
    assert plan_of(workspace, "SEED=0,2").id != plan.id
    with pytest.raises(UserError, match=f"did you mean '{plan.id}'"):
        load_plan(plan.id[:-1])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("SEED: int", "SEEDS: int", "parameter 'SEED' is not one of PROFILE, SEEDS, LR"),
        ("SEED: int = 0", "SEED: int = 1", "tiny has other defaults since batch"),
    ],
)
def test_a_stored_plan_that_no_longer_fits_is_not_resumed(workspace, kernels, old, new, sentence):
    path = workspace.write("tiny")
    plan_of(workspace, "SEED=1").save()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=sentence):
        batch.main(["resume"])
    assert kernels.executed == []


def test_the_fingerprint_holds_for_new_outputs_but_not_for_new_code(workspace):
    before = fingerprint(workspace.write("tiny", "print(1)"))
    assert fingerprint(workspace.write("tiny", "print(1)", stored="1\n")) == before
    assert fingerprint(workspace.write("tiny", "print(2)")) != before


# runs, with a stand-in for the process that executes the notebook -----------------------------------------


class Kernels:
    """Stands in for `runs._supervise`: counts executions, leaves a figure and a record, or fails."""

    def __init__(self, record: str) -> None:
        self.record = record
        self.executed: list[str] = []
        self.statuses: list[str] = []
        self.failure: dict | None = None

    async def __call__(self, notebook, parameters, folder, timeout, cores, on_cell):
        run_id = folder.name.partition("~")[0].removeprefix(f"{notebook.stem}-")
        self.executed.append(run_id)
        on_cell({"cell": 1, "of": 2, "title": f"in {run_id}"})
        self.statuses.append(batch.status_table(load_plan(None)))
        executed = json.loads(notebook.read_text())
        for cell in executed["cells"]:
            cell["metadata"]["papermill"] = {"duration": 0.5}
        (folder / "notebook.ipynb").write_text(json.dumps(executed))
        (folder / "log.txt").touch()
        for path in (f"records/{notebook.stem}/{run_id}.json", f"{notebook.stem}/gain.csv"):
            (folder / "output" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "output" / path).write_text(
                self.record if path.startswith("records") else f"{run_id}\n"
            )
        return self.failure


@pytest.fixture
def kernels(monkeypatch, record_text):
    stand_in = Kernels(record_text)
    monkeypatch.setattr(runs, "_supervise", stand_in)
    return stand_in


def outputs(workspace) -> dict[str, str]:
    files = (path for path in workspace.output.rglob("*") if path.is_file())
    return {path.relative_to(workspace.output).as_posix(): path.read_text() for path in files}


def test_finished_runs_are_not_repeated_unless_something_asks_for_it(workspace, kernels):
    workspace.write("tiny")
    plan = plan_of(workspace, "SEED=0,1")
    scheduler.run_batch(plan)
    scheduler.run_batch(plan)
    assert kernels.executed == ["laptop", "laptop-SEED=1"]
    scheduler.run_batch(plan, fresh=True)
    assert kernels.executed == ["laptop", "laptop-SEED=1"] * 2
    (workspace.output / "records/tiny/laptop.json").unlink()
    scheduler.run_batch(plan)
    assert kernels.executed[4:] == ["laptop"]
    workspace.write("tiny", "print('other code')")
    scheduler.run_batch(plan)
    assert kernels.executed[5:] == ["laptop", "laptop-SEED=1"]


def test_status_tells_the_running_from_the_waiting(workspace, kernels):
    workspace.write("tiny")
    scheduler.run_batch(plan_of(workspace, "SEED=0..2"))
    first, _, last = kernels.statuses
    assert re.search(r"tiny laptop +running +cell 1 of 2: in laptop\n", first)
    assert re.search(r"tiny laptop-SEED=2 +waiting", first)
    assert re.search(r"tiny laptop +finished", last), "not mistaken for the run whose name begins like it"
    assert re.search(r"tiny laptop-SEED=2 +running +cell 1 of 2: in laptop-SEED=2", last)


def test_results_of_other_parameters_leave_the_default_ones_alone(workspace, kernels):
    workspace.write("tiny")
    scheduler.run_batch(plan_of(workspace, "SEED=0,1", profiles="laptop,smoke"))
    published = outputs(workspace)
    assert sorted(published) == [
        "records/tiny/laptop-SEED=1.json",
        "records/tiny/laptop.json",
        "records/tiny/smoke-SEED=1.json",
        "records/tiny/smoke.json",
        "tiny/gain.csv",
        "tiny/laptop-SEED=1/gain.csv",
        "tiny/smoke-SEED=1/gain.csv",
        "tiny/smoke/gain.csv",
    ]
    assert published["tiny/gain.csv"] == "laptop\n"
    assert json.loads(published["records/tiny/laptop.json"])["cell_seconds"] == [0.5, 0.5, 0.5]


@pytest.mark.fault("damaged file", "batch", "It tries the run again whose notebook wrote no sound record.")
@pytest.mark.parametrize("fault", ["error in a cell", "damaged record"])
def test_a_failed_run_leaves_earlier_results_intact_and_is_tried_again(workspace, kernels, fault):
    workspace.write("tiny")
    plan = plan_of(workspace, "SEED=0,1")
    scheduler.run_batch(plan)
    before, record = outputs(workspace), kernels.record
    workspace.write("tiny", "print('other code')")
    if fault == "error in a cell":
        kernels.failure = {"cell": 2, "title": "x = 1", "line": "1 / 0", "message": "ZeroDivisionError: no"}
        problem = "cell 2 (x = 1): ZeroDivisionError: no at '1 / 0'"
    else:
        kernels.record = record[: len(record) // 2]
        problem = "not a run record"
    states = scheduler.run_batch(plan)
    assert [state.status for state in states.values()] == ["failed", "failed"]
    assert all(problem in state.problem for state in states.values())
    assert outputs(workspace) == before

    kernels.failure, kernels.record = None, record
    assert [state.status for state in scheduler.run_batch(plan).values()] == ["finished", "finished"]
    assert outputs(workspace) != before


@pytest.mark.fault("full disk", "batch")
def test_a_full_disk_stops_the_batch_and_leaves_earlier_results_intact(workspace, kernels, monkeypatch):
    def full(path, _):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    workspace.write("tiny")
    plan = plan_of(workspace, "SEED=0,1")
    scheduler.run_batch(plan)
    before = outputs(workspace)
    workspace.write("tiny", "print('other code')")
    monkeypatch.setattr(runs, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        scheduler.run_batch(plan)
    assert outputs(workspace) == before
    assert not (plan.folder / "partial").exists()
    assert kernels.executed[2:] == ["laptop"], "the second run would meet a full disk too"


@pytest.mark.fault("two processes", "batch")
def test_a_batch_runs_once_at_a_time(workspace, kernels):
    workspace.write("tiny")
    plan = plan_of(workspace)
    with scheduler.sole_runner(plan), pytest.raises(UserError, match=f"batch {plan.id} is running already"):
        scheduler.run_batch(plan)
    assert scheduler.run_batch(plan)


def test_parallel_runs_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6, 8}, raising=False)
    shares = runs.share_cores(2)
    assert sorted(shares[0] + shares[1]) == [0, 2, 4, 6, 8]
    assert all(runs.share_cores(7))
    assert runs.share_cores(1) == [[]], "a single run keeps all cores"


def test_commands_show_parameters_plan_and_status(workspace, kernels, capsys):
    workspace.write("tiny")
    folder = ["--notebooks", str(workspace.notebooks)]
    assert batch.main(["list", *folder]) == 0
    assert re.search(r"LR +float +0.001 +learning rate", capsys.readouterr().out)
    assert batch.main(["plan", *folder, "-p", "SEED=0,1"]) == 0
    assert re.search(
        r"2 runs\n.*\n.*\ntiny laptop +waiting\ntiny laptop-SEED=1 +waiting", capsys.readouterr().out
    )
    assert kernels.executed == [] and not workspace.runs.exists()
    kernels.failure = {"message": "the kernel died: killed, or out of memory"}
    assert batch.main(["run", *folder, "-p", "SEED=1"]) == 1
    assert "failed run" in capsys.readouterr().err
    assert batch.main(["status"]) == 0
    assert re.search(r"tiny laptop-SEED=1 +failed +0 s +the kernel died", capsys.readouterr().out)
    kernels.failure = None
    assert batch.main(["resume"]) == 0


def test_the_command_line_does_not_load_torch(workspace):
    result = workspace.command("-c", "import sys, rec_utils.batch; sys.exit('torch' in sys.modules)")
    assert result.returncode == 0, result.stderr
