"""Remembered calls: what is found again, and what must not be."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from rec_utils import resume, settings
from rec_utils.resume import remembered


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


@pytest.mark.parametrize("damaged", [b"", b"\x80"])
def test_a_damaged_result_is_computed_anew(runs, damaged):
    calls = Counted()
    call = remembered(adder(torch.ones(1), calls))
    call(row=0)
    next(runs.iterdir()).write_bytes(damaged)
    assert call(row=0) == 2.0
    assert calls.rows == [0, 0]


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
