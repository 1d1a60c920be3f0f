"""SIGKILL at every point where a file may be half written, and two processes at once."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from data_prep import build, download
from rec_utils import runs
from rec_utils.errors import UserError
from tests.unit.fault_stages import die, in_child


def dies_after_half(real):
    """`os.write` or `Path.write_bytes` that writes half of what it is given, and that is all."""

    def write(file, content):
        real(file, content[: len(content) // 2])
        die()

    return write


def kill(stage, where, says, *, fault="SIGKILL"):
    """A case: the step dies where one of its functions is called."""
    name = getattr(where[0], "__name__", str(where[0])).rpartition(".")[2]
    mark = pytest.mark.fault(fault, stage, says)
    return pytest.param(stage, *where, marks=mark, id=f"{stage}-{name}.{where[1]}")


class Bar:
    """Stands in for a download's bar and dies at its second piece."""

    def __init__(self, **_):
        self.pieces = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, _):
        self.pieces += 1
        if self.pieces == 2:
            die()


# fmt: off
KILLS = [
    kill("fetch", (download, "tqdm"), "It asks for the bytes that it lacks; archives that are there stay."),
    kill("fetch", (Path, "replace"), "It asks for the bytes that it lacks; archives that are there stay."),
    kill("build", (build, "follow"), "It removes what was left and builds anew; finished data sets stay."),
    kill("build", (Path, "rename"), "It removes what was left and builds anew; finished data sets stay."),
    kill("knowledge", (os, "write"), "It cuts off the half line, says so, and asks for that answer again."),
    kill("knowledge", (os, "fsync"), "It asks at most for the last answer again."),
    kill("vectors", (Path, "write_bytes"), "It encodes the texts of the file that was not finished again."),
    kill("vectors", (Path, "replace"), "It encodes the texts of the file that was not finished again."),
    kill("train", (Path, "write_bytes"), "It trains the job that was not finished again, and no other."),
    kill("train", (Path, "replace"), "It trains the job that was not finished again, and no other."),
    kill("batch", (runs, "_publish"), "It repeats the run that was not finished, and no other."),
    kill("batch", (runs, "_seal"), "It repeats the run that was not finished, and no other."),
    kill("batch", (os, "fsync"), "It repeats the run that was not finished, and no other."),
    kill("record", (Path, "write_bytes"), "It writes the record again; records that are there stay whole."),
    kill("record", (Path, "replace"), "It writes the record again; records that are there stay whole."),
]
# fmt: on


@pytest.mark.parametrize(("name", "owner", "function"), KILLS)
def test_a_killed_step_is_done_again_and_no_other(name, owner, function, make_stage, monkeypatch):
    stage = make_stage(name)
    first = stage.step(0)

    def step() -> None:
        fatal = Bar if function == "tqdm" else die
        if function.startswith("write"):
            fatal = dies_after_half(getattr(owner, function))
        monkeypatch.setattr(owner, function, fatal)
        stage.step(1)

    assert in_child(step) == (-9, "")
    told = [] if function != "write" else [f"{stage.home}/data/store.jsonl ended within a line"]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        second = stage.step(1)
    assert [str(w.message).partition(",")[0] for w in warned] == told
    assert stage.step(0) == first != second == stage.step(1)
    assert stage.worked.count(0) == 1 and stage.worked.count(1) <= 2
    assert not list(stage.home.glob("*/partial")) and not list(stage.home.glob("data/.*.new-*"))


TWICE = {
    "fetch": "The second waits; an archive is downloaded once.",
    "build": "The second waits; a data set is built once.",
    "knowledge": "Lines never mix, and each answer is written once.",
    "vectors": "Both may encode a text; its file is whole and the same.",
    "train": "Both may train a job; its result is whole and the same.",
    "batch": "The second is told that the batch runs; each run is executed once.",
    "record": "The record is that of one of them, and whole at every time.",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.fault("two processes", name, TWICE[name])) for name in TWICE],
)
def test_two_processes_do_the_same_steps_at_once(name, make_stage):
    stage = make_stage(name)
    steps = range(3 if name == "build" else 6)
    start_reading, start_writing = os.pipe()

    def work() -> None:
        os.read(start_reading, 1)
        for n in steps:
            while True:
                try:
                    stage.step(n)
                    break
                except UserError as error:
                    assert "is running already" in str(error)

    def both() -> None:
        pid = os.fork()
        os.write(start_writing, b"x")
        if pid == 0:
            work()
            os._exit(0)
        work()
        assert os.waitpid(pid, 0)[1] == 0

    assert in_child(both) == (0, "")
    before = list(stage.worked)
    assert len({str(stage.step(n)) for n in steps}) == len(steps)
    assert stage.worked == before, "all is found again"
    for n in steps:
        assert before.count(n) <= (1 if name in ("fetch", "build", "batch") else 2)
    assert not [path for path in stage.files if path.name.startswith(".")], "no half file"
