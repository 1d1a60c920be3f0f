"""Remembered calls: what is found again, and what must not be."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from rec_utils import resume, settings
from rec_utils.errors import UserError
from rec_utils.resume import remembered
from rec_utils.training import FitResult


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_RUNS", str(tmp_path))
    return tmp_path / "jobs"


def adder(table, calls):
    """A function that holds a table; calls are counted outside, in what it does not hold by value."""

    def add(row):
        calls.append(row)
        return table[row] + 1

    return add


class Counted:
    """A list that is the same for the digest however often it was used."""

    def __init__(self):
        self.rows = []

    def append(self, row):
        self.rows.append(row)

    def __reduce__(self):
        return Counted, ()


def test_a_call_is_made_once(runs):
    calls = Counted()
    table = torch.tensor([1.0, 2.0])
    assert remembered(adder(table, calls))(row=1) == 3.0
    assert remembered(adder(table.clone(), calls))(row=1) == 3.0
    assert calls.rows == [1]
    assert len(list(runs.iterdir())) == 1


@pytest.mark.parametrize("other", [torch.tensor([1.0, 2.5]), np.array([1.0, 2.0])])
def test_another_table_is_another_call(other):
    calls = Counted()
    remembered(adder(torch.tensor([1.0, 2.0]), calls))(row=1)
    assert remembered(adder(other, calls))(row=1) == other[1] + 1
    assert calls.rows == [1, 1]


def test_another_argument_and_other_code_are_other_calls(monkeypatch):
    calls = Counted()
    table = torch.tensor([1.0, 2.0])
    assert [remembered(adder(table, calls))(row=row) for row in (0, 1)] == [2.0, 3.0]
    monkeypatch.setattr(resume, "_code", lambda: b"edited")
    remembered(adder(table, calls))(row=1)
    assert calls.rows == [0, 1, 1]


DAMAGED = {
    "empty": b"",
    "cut off": b"\x80",
    "no end": pickle.dumps(list(range(9)))[:-1],
    "ValueError": b"Ix\n.",
    "IndexError": b"0.",
    "KeyError": b"g7\n.",
    "UnicodeDecodeError": b"\x8c\x01\xff.",
    "MemoryError": b"\x8e" + (2**62).to_bytes(8, "little") + b".",
    "AttributeError": b"crec_utils.training\nNothing\n.",
    "ImportError": b"crec_utils.nowhere\nNothing\n.",
    "no Parquet": b"crec_utils.resume\n_table\n(C\x01xtR.",
}


@pytest.mark.fault("damaged file", "train")
@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_result_is_computed_anew(runs, damaged):
    calls = Counted()
    call = remembered(adder(torch.ones(1), calls))
    call(row=0)
    next(runs.iterdir()).write_bytes(damaged)
    assert call(row=0) == 2.0
    assert calls.rows == [0, 0]


@given(st.binary(max_size=60))
def test_no_garbage_is_read_as_more_than_data(content):
    try:
        resume._loads(content)
    except Exception as error:
        assert "SystemExit" not in repr(error)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda path: Hostile(exec, f"open({str(path)!r}, 'w')"), r"(__builtin__|builtins)\.exec"),
        (lambda path: [1.0, {"x": Hostile(Path.touch, path)}], r"(pathlib|__builtin__|builtins)\.[\w.]+"),
        (lambda path: Hostile(resume.cloudpickle.loads, b""), r"_?pickle\.loads"),
        (lambda path: Hostile(torch.load, str(path)), r"torch\.serialization\.load"),
        (lambda path: Hostile(np.load, str(path)), r"numpy\.load"),
        (lambda path: Hostile(settings.check_choice, "a", "b", ["b"]), r"rec_utils\.settings\.check_choice"),
    ],
)
def test_a_file_of_somebody_else_runs_no_code(runs, tmp_path, make, named, protocol):
    calls, there = Counted(), tmp_path / "there"
    call = remembered(adder(torch.ones(1), calls))
    call(row=0)
    stored = next(runs.iterdir())
    stored.write_bytes(pickle.dumps(make(there), protocol))
    with pytest.raises(UserError, match=rf"{stored.name} is no result of a job: it names {named}\. Remove"):
        call(row=0)
    assert not there.exists()


def test_a_dotted_name_does_not_lead_through_a_module_of_ours():
    nested = b"\x80\x04\x8c\x10rec_utils.resume\x8c\x0epickle.Pickler\x93."
    with pytest.raises(resume._Refused, match=r"rec_utils.resume.pickle.Pickler"):
        resume._loads(nested)


def test_what_jobs_return_is_read_back_as_it_was():
    table = pd.DataFrame({"user": np.arange(3, dtype=np.int32), "x": [0.1, 0.2, np.nan], "name": list("abc")})
    fit = FitResult([{"train_loss": 0.5, "seconds": 1.0}], best_epoch=1, seconds=1.5)
    result = ([table, table[1:]], {"arm": np.eye(3)[::2], "one": np.float32(0.5)}, fit, torch.ones(2), {"a"})
    tables, numbers, again, tensor, names = resume._loads(resume._dumps(result))
    for one, other in zip(tables, result[0], strict=True):
        assert_frame_equal(one, other)
    np.testing.assert_array_equal(numbers["arm"], np.eye(3)[::2])
    assert numbers["arm"].flags.writeable and numbers["one"].dtype == np.float32
    assert again == fit and torch.equal(tensor, torch.ones(2)) and names == {"a"}


def test_what_could_not_be_read_back_is_not_stored(runs):
    with pytest.raises(TypeError, match=r"a job returned what cannot be stored: pathlib\.PosixPath"):
        remembered(lambda row: Path(row))(row="a")
    assert not runs.exists()


def test_the_key_does_not_depend_on_the_process():
    code = (
        "import torch, sys\n"
        "from rec_utils.resume import _digest\n"
        "def make(table):\n"
        "    def run(arm): return table, {'a', 'b', arm}\n"
        "    return run\n"
        "print(_digest(make(torch.arange(5))).hex())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=settings.ROOT,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] != ""
