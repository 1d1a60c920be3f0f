"""Batches with real kernels: in folders of any name, two commands at once, and without a network."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import Workspace
from tests.gates.processes import BATCH, TELL, WAIT, wait_until
from tests.unit.test_faults_killed import TWICE
from tests.unit.test_faults_places import NAMES, WORKS


@pytest.mark.fault("two processes", "batch", TWICE["batch"])
@pytest.mark.fault("non-ASCII path", "batch", WORKS["batch"])
@pytest.mark.fault("very long path", "batch", WORKS["batch"])
def test_two_commands_start_one_batch_in_any_folder(tmp_path, monkeypatch, record_text):
    workspace = Workspace(tmp_path.joinpath(*NAMES.values()))
    workspace.root.mkdir(parents=True)
    (workspace.root / "record.json").write_text(record_text)
    monkeypatch.setenv("REC_RUNS", str(workspace.runs))
    monkeypatch.setenv("REC_OUTPUT", str(workspace.output))
    figure = (
        "folder = os.environ['REC_OUTPUT'] + '/tiny'\nos.makedirs(folder)\n"
        "open(folder + '/a.csv', 'w').write('1');"
    )
    workspace.write("tiny", TELL, WAIT, figure)
    command = (*BATCH, "run", "--notebooks", str(workspace.notebooks))
    first = workspace.start(*command)
    try:
        wait_until(lambda: workspace.journal or first.poll() is not None)
        second = workspace.command(*command)
        assert second.returncode == 2 and "is running already" in second.stderr
        (workspace.root / "go").touch()
        out, err = first.communicate(timeout=100)
    finally:
        first.kill()
    assert first.returncode == 0 and re.search(r"tiny laptop +finished", out), out + err
    assert len(workspace.journal) == 1
    assert (workspace.output / "tiny/a.csv").read_text() == "1"
    assert (workspace.output / "records/tiny/laptop.json").exists()


@pytest.mark.fault("no network", "batch", "It runs: a notebook and its kernel talk through files.")
def test_a_batch_runs_in_a_machine_without_a_network(workspace):
    alone = ["unshare", "--net", "--map-root-user"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network of its own can be given to a process here: {error}")
    workspace.write("tiny")
    command = [sys.executable, *BATCH, "run", "--notebooks", str(workspace.notebooks)]
    result = subprocess.run(
        [*alone, *command], cwd=workspace.root, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"tiny laptop +finished", result.stdout)
