"""A clock that was set, paths in any script and of any length, no network."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import datetime, timedelta

import pytest

from data_prep.__main__ import main as data_prep
from rec_utils import data, execute
from rec_utils.errors import UserError, run_cli
from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.llm import ReplayBackend, generate
from rec_utils.plans import load_plan, make_plan
from tests.unit.fault_stages import STAGES, Disk
from tests.unit.test_faults_disk import on

# Clock


CLOCK = {
    "fetch": "Times are not read: archives that are there stay.",
    "build": "Hashes count, not times: nothing is built again.",
    "knowledge": "Times are not read: nothing is asked again.",
    "vectors": "Hashes count, not times: nothing is encoded again.",
    "train": "Hashes count, not times: nothing is trained again.",
    "batch": "Hashes count, not times: no run is repeated; resume means the batch that was begun last.",
    "record": "Nothing is run again, and durations come from a clock that nobody sets.",
}


@on("clock change", CLOCK)
@pytest.mark.parametrize("now", [datetime(1980, 1, 1), datetime(2100, 1, 1)], ids=["past", "future"])
def test_a_clock_that_was_set_changes_nothing(name, now, make_stage, monkeypatch):
    """The files are of another time than the clock shows, which runs backwards besides."""
    stage = make_stage(name)
    first = stage.step(0)
    for path in stage.home.rglob("*"):
        os.utime(path, (now.timestamp(),) * 2)
    backwards = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1.7e9 - next(backwards))
    assert stage.step(0) == first
    assert stage.step(1) == stage.step(1) != first
    assert stage.worked == [0, 1]
    for path in stage.home.rglob("*.json"):
        content = json.loads(path.read_text())
        assert content.get("seconds", 0) >= 0 and min(content.get("cell_seconds") or [0]) >= 0


@pytest.mark.fault("clock change", "batch", CLOCK["batch"])
def test_the_newest_batch_is_the_one_begun_last_although_the_clock_was_set_back(workspace, monkeypatch):
    workspace.write("tiny")
    plans = [make_plan(workspace.notebooks, [], "laptop", [f"SEED={seed}"]) for seed in range(3)]
    for hour, plan in enumerate([*plans, plans[0]]):
        monkeypatch.setattr(time, "time", lambda hour=hour: 1.7e9 - 3600 * hour)
        plan.save()
        assert load_plan(None) == plan


@pytest.mark.fault("clock change", "batch", "Times of cells come from a clock that nobody sets.")
def test_the_times_of_cells_do_not_follow_the_clock(monkeypatch):
    clock = execute._steady_clock()
    before = clock()

    class SetBack(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) - timedelta(days=1)

    monkeypatch.setattr(execute, "datetime", SetBack)
    assert timedelta(0) <= clock(None) - before < timedelta(minutes=1)


# Paths


NAMES = {
    "non-ASCII path": "Отчёт 数据 é ’quote' \"[1]* {x} %41 & $HOME",
    "very long path": "/".join([f"{n}{'x' * 60}" for n in range(6)]),
}
WORKS = {
    "fetch": "It downloads and finds the archive as elsewhere.",
    "build": "It builds and finds the data set as elsewhere.",
    "knowledge": "It finds the answers as elsewhere.",
    "vectors": "It finds the vectors as elsewhere.",
    "train": "It finds the results as elsewhere.",
    "batch": "It finds the runs as elsewhere; a kernel's sockets lie in a short folder of their own.",
    "record": "It finds records and figures as elsewhere.",
}


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        pytest.param(fault, name, marks=pytest.mark.fault(fault, name, WORKS[name]))
        for fault in NAMES
        for name in STAGES
    ],
)
def test_any_path_works(fault, name, make_stage, tmp_path):
    stage = make_stage(name, tmp_path / NAMES[fault])
    first = stage.step(0)
    assert stage.step(0) == first != stage.step(1) and stage.worked == [0, 1]


@pytest.mark.parametrize(
    "fault", [pytest.param(f, marks=pytest.mark.fault(f, "build", WORKS["build"])) for f in NAMES]
)
def test_the_command_line_builds_and_checks_in_any_path(fault, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REC_DATA", str(tmp_path / NAMES[fault]))
    for command in ("build", "verify"):
        monkeypatch.setattr("sys.argv", ["data_prep", command, "ml-latest-small"])
        assert run_cli(data_prep) == 0, capsys.readouterr().err
    assert len(data.load("ml-latest-small").interactions) == 100_836
    assert len(data.load_core("ml-latest-small", 5, 5).items) < 9_742


@pytest.mark.parametrize("sign", ["?", "\\"])
def test_a_path_that_duckdb_misreads_is_refused(sign, tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path / f"a{sign}b"))
    with pytest.raises(UserError, match=r"DuckDB cannot work below .* choose another with REC_DATA"):
        data.load("ml-latest-small")


@pytest.mark.fault("read-only folder", "build", "Data sets that are built load; a core of one needs room.")
def test_a_built_data_set_loads_from_a_read_only_folder(tmp_path, monkeypatch):
    try:
        disk = Disk(tmp_path / "disk", megabytes=64)
    except OSError as error:
        pytest.skip(f"no file system in memory can be mounted here: {error}")
    try:
        monkeypatch.setenv("REC_DATA", str(disk.folder))
        built = data.load("movietweetings")
        disk.remount("ro")
        assert data.load("movietweetings").hashes == built.hashes
        with pytest.raises(UserError, match=r"No permission for .*choose another folder"):
            data.load_core("movietweetings", 5, 5)
    finally:
        disk.unmount()


# No network


@pytest.fixture
def no_network(monkeypatch):
    def unreachable(*_, **__):
        raise OSError(101, "Network is unreachable")

    def unknown(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket.socket, "connect_ex", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)


OFFLINE = {
    "build": "Shipped data sets are built; one that must be fetched says so.",
    "knowledge": "Shipped and stored answers are replayed.",
    "vectors": "Shipped and cached vectors are found, and the pinned encoder needs no network.",
    "train": "Nothing is asked of the network.",
    "batch": "Nothing is asked of the network.",
    "record": "Nothing is asked of the network.",
}


@on("no network", OFFLINE)
def test_all_but_a_download_needs_no_network(name, make_stage, no_network):
    stage = make_stage(name)
    first = stage.step(0)
    assert stage.step(0) == first != stage.step(1) and stage.worked == [0, 1]


@pytest.mark.fault("no network", "fetch", "It says which address it could not reach and goes on later.")
def test_a_fetch_says_what_it_could_not_reach(make_stage, no_network, monkeypatch):
    stage = make_stage("fetch")
    with pytest.raises(UserError, match=r"0\.zip could not be fetched \(.*name resolution.*--from DIR"):
        stage.step(0)
    assert not stage.files
    monkeypatch.undo()
    monkeypatch.setenv("REC_DATA", str(stage.home / "data"))
    assert stage.step(0) and stage.worked == [0]


@pytest.mark.fault("no network", "build", OFFLINE["build"])
def test_shipped_data_and_answers_need_no_network(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("REC_DATA", str(tmp_path))
    assert len(data.load("ml-latest-small").interactions) == 100_836
    with pytest.raises(UserError, match="fetch ml-1m"):
        data.load("ml-1m")
    replay = ReplayBackend.bundled()
    asked = next(iter(replay.stores[0]))
    assert generate(
        [asked.request], progress=False, backend=ReplayBackend(replay.stores[0], model=asked.model)
    ) == [asked]


@pytest.mark.fault("no network", "knowledge", "A model that must be downloaded is named in one sentence.")
def test_a_language_model_that_must_be_downloaded_is_named(no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the library tries several times
    with pytest.raises(
        UserError, match=r"language model 'nobody/no-such-model' could not be loaded: "
    ) as caught:
        HuggingFaceBackend("nobody/no-such-model")
    assert "\n" not in str(caught.value)
