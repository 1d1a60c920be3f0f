"""A disk that is full, a folder that is read-only, files that were damaged."""

from __future__ import annotations

import errno
import os
import re
import warnings
from contextlib import asynccontextmanager

import pytest

from rec_utils import batch, cluster, scheduler
from rec_utils.errors import UserError, run_cli
from rec_utils.files import atomic_path
from rec_utils.plans import make_plan
from tests.unit.fault_stages import Disk, in_child, no_file_may_grow


@pytest.fixture
def disk(tmp_path):
    try:
        disk = Disk(tmp_path / "disk")
    except OSError as error:
        pytest.skip(f"no file system in memory can be mounted here: {error}")
    yield disk
    disk.unmount()


def on(fault, says):
    """One case a stage."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=pytest.mark.fault(fault, name, says[name])) for name in says]
    )


def refusal(stage, n, capsys):
    """What the command line says, in one sentence, when it cannot take a step."""
    capsys.readouterr()
    assert run_cli(lambda: stage.step(n) and None) == 2
    said = capsys.readouterr().err
    (sentence,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in said
    return sentence


FULL = {
    "fetch": "It goes on with the bytes that it lacks.",
    "build": "It builds anew; the earlier data set was never touched.",
    "knowledge": "It asks for the answer that could not be written, and for no other.",
    "vectors": "It encodes the texts that could not be written, and no others.",
    "train": "It trains the job whose result could not be written, and no other.",
    "batch": "It repeats the run whose result could not be written, and no other.",
    "record": "It runs again; the earlier record was never touched.",
}


@on("full disk", FULL)
def test_a_full_disk_is_one_sentence_and_free_space_is_all_it_takes(name, make_stage, disk, capsys):
    stage = make_stage(name, disk.folder / "home")
    first = stage.step(0)
    before = stage.files
    filler = disk.fill()
    sentence = refusal(stage, 1, capsys)
    assert re.search("[Tt]he disk (is )?full", sentence) and str(stage.home) in sentence
    left = {path: size for path, size in stage.files.items() if not path.name.endswith(".part")}
    assert left.keys() - before.keys() <= {stage.home / "data" / "store.jsonl"}, "no half file"
    assert {path: left[path] for path in before} == before
    assert stage.step(0) == first, "what is finished can be read on a full disk"
    filler.unlink()
    second = stage.step(1)
    assert stage.step(0) == first != second == stage.step(1)
    assert stage.worked.count(0) == 1


@on("full disk", FULL)
def test_files_that_may_not_grow_are_one_sentence_too(name, make_stage):
    stage = make_stage(name)
    first, before = stage.step(0), stage.files

    def step():
        no_file_may_grow()
        stage.journal = os.devnull  # the journal is a file, too
        stage.step(1)

    status, raised = in_child(step)
    assert status == 1 and re.match(r"(UserError|OSError): ", raised), raised
    assert "File too large" in raised or "larger than is allowed" in raised
    assert str(stage.home) in raised
    left = {path: size for path, size in stage.files.items() if not path.name.endswith(".part")}
    assert left == before
    assert stage.step(0) == first != stage.step(1)


READ_ONLY = {
    "fetch": "It uses the archives that are there, and says that it cannot write a new one.",
    "build": "It uses the data sets that are there, and says that it cannot write a new one.",
    "knowledge": "It says that it cannot open the store for writing.",
    "vectors": "It uses the vectors that are there, and says that it cannot write new ones.",
    "train": "It uses the results that are there, and says that it cannot write a new one.",
    "batch": "It says that it cannot write before any notebook starts.",
    "record": "It reads the records that are there, and says that it cannot write a new one.",
}


@on("read-only folder", READ_ONLY)
def test_a_read_only_folder_is_one_sentence_and_what_is_there_stays(name, make_stage, disk, capsys):
    stage = make_stage(name, disk.folder / "home")
    first, before = stage.step(0), stage.files
    disk.remount("ro")
    sentence = refusal(stage, 1, capsys)
    assert "No permission for " in sentence and str(stage.home) in sentence
    assert "choose another folder (REC_DATA" in sentence
    if name in ("vectors", "train", "record"):
        assert stage.step(0) == first
    assert stage.files == before
    disk.remount("rw")
    assert stage.step(0) == first != stage.step(1)
    assert stage.worked.count(0) == 1


@on("read-only folder", READ_ONLY)
def test_the_system_says_read_only(name, make_stage, monkeypatch, capsys):
    """The same without root's rights: no file and no folder can be made."""
    stage = make_stage(name)
    first, before, real_open = stage.step(0), stage.files, os.open

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open_to_read(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            refuse(path)
        return real_open(path, flags, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        patch.setattr(os, "open", open_to_read)
        sentence = refusal(stage, 1, capsys)
    assert "No permission for " in sentence and str(stage.home) in sentence
    assert stage.files == before and stage.step(0) == first != stage.step(1)


DAMAGED = {
    "fetch": "It names the archive and says to remove it; then it is fetched again.",
    "build": "It builds the data set anew.",
    "knowledge": "It cuts off a half last line and says so; it names any other line that is no answer.",
    "vectors": "It says which file was damaged, removes it, and encodes its texts again.",
    "train": "It trains the job again.",
    "batch": "It says which file was damaged, and repeats the run; finished runs stay.",
    "record": "It names the record and says to remove it; the run then writes it again.",
}


@on("damaged file", DAMAGED)
@pytest.mark.parametrize("damage", ["cut in half", "empty", "garbage"])
def test_a_damaged_file_is_made_anew_or_named(name, damage, make_stage):
    stage = make_stage(name)
    first = stage.step(0)
    whole = {path: path.read_bytes() for path in stage.files}
    for path, content in whole.items():
        if path.suffix in (".png", ".csv", ".txt", ".ipynb"):
            continue  # results for people: no run reads them
        path.write_bytes(
            {"cut in half": content[: len(content) // 2], "empty": b""}.get(damage, b"\xff{x]\n")
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                again = stage.step(0)
        except UserError as error:
            assert str(path) in str(error)
            assert re.search("remove (it|the line)", str(error))
            path.unlink()
            again = stage.step(0)
        assert again == first, path
        assert stage.step(0) == first


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_whatever_the_system_refuses_names_the_file_and_leaves_the_old_one(number, tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(UserError, match=re.escape(str(path))), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_system_takes(tmp_path):
    longest = tmp_path / ("é" * 125 + ".json")  # 255 bytes
    with atomic_path(longest) as temporary:
        temporary.write_text("whole")
    assert longest.read_text() == "whole"
    longer = tmp_path / ("x" * 256)
    with pytest.raises(UserError, match="The system takes no path as long as"), atomic_path(longer):
        pass
    assert list(tmp_path.iterdir()) == [longest]


class FullWorker:
    """Stands in for dask's client: a worker there has no room for what it is sent."""

    def subscribe_topic(self, *_):
        pass

    async def submit(self, *_, **__):
        raise UserError("The disk is full while writing /tmp/tiny.ipynb")


@pytest.mark.fault("full disk", "grid", "The run whose worker had no room has failed; it is tried again.")
def test_a_workers_full_disk_is_a_failure_of_its_run(workspace):
    @asynccontextmanager
    async def place(_):
        yield [cluster._Grid(FullWorker(), gpu=False).perform]

    workspace.write("tiny")
    plan = make_plan(workspace.notebooks, ["tiny"], "laptop", ["SEED=0,1"])
    states = scheduler.run_batch(plan, place=place)
    assert [state.status for state in states.values()] == ["failed"] * 2
    assert "its worker could not run it: The disk is full" in batch.status_table(plan)
