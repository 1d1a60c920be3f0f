"""Grids on dask: clients that share a scheduler, and workers that cannot take a run."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest

from rec_utils import cluster
from rec_utils.errors import UserError
from rec_utils.plans import make_plan
from rec_utils.scheduler import run_batch
from tests.gates.processes import TELL, WAIT, end, is_alive, start, wait_until


@pytest.mark.fault(
    "two processes",
    "grid",
    "Each client gets its own runs; a second one on one batch is told.",
)
def test_two_clients_share_a_scheduler_and_each_gets_its_own(workspace, grid):
    workspace.write("tiny", TELL, WAIT)
    grid.worker(), grid.worker()
    batches = [start(workspace, grid, "-p", f"SEED={seed}") for seed in (1, 2)]
    wait_until(lambda: len(workspace.journal) == 2)
    twin = start(workspace, grid, "-p", "SEED=2")
    assert "is running already" in end(twin)[1] and twin.returncode == 2
    (workspace.root / "go").touch()
    for seed, batch in zip((1, 2), batches, strict=True):
        out, err = end(batch)
        assert batch.returncode == 0, err
        assert re.findall(r"SEED=(\d) +finished", out) == [str(seed)]
    assert len(workspace.journal) == 2


def test_a_gpu_is_waited_for(workspace, grid):
    workspace.write("tiny", "import psutil\nnote([parent.pid for parent in psutil.Process().parents()])")
    grid.worker()
    batch = start(workspace, grid, "--gpu")
    assert "waiting for a worker that offers a GPU" in batch.stderr.readline()
    able = grid.worker("--resources", "GPU=1")
    _, err = end(batch)
    assert batch.returncode == 0, err
    assert able.pid in json.loads(workspace.journal[0])


@pytest.mark.fault("SIGKILL", "grid", "A run that kills its workers is given up and told.")
def test_a_run_that_kills_its_workers_is_given_up(workspace, grid):
    kill = "import psutil, signal\nnote(SEED)\npsutil.Process().parents()[1].kill()\nsignal.pause()"
    workspace.write("deadly", kill)
    grid.worker(), grid.worker()
    batch = start(workspace, grid, "--workers", "1")
    out, err = end(batch)
    assert batch.returncode == 1, err
    assert re.search(r"deadly laptop +failed +\d+ s +cell 3 \(deadly\): 2 workers died with it", out)
    assert len(workspace.journal) == 2


def test_a_worker_with_other_code_is_refused(workspace, grid, monkeypatch):
    workspace.write("tiny", TELL)
    plan = make_plan(workspace.notebooks, [], "laptop", [])
    grid.worker()
    monkeypatch.setattr(cluster, "code_hash", lambda: "of another commit")
    with pytest.raises(UserError, match="has other code than this checkout"):
        run_batch(plan, place=partial(cluster.remote, address=grid.address))
    assert not workspace.journal


@pytest.mark.fault("no network", "grid", "A scheduler that is gone ends the batch; finished runs stay.")
def test_a_scheduler_that_is_lost_ends_the_batch_in_a_sentence(workspace, grid):
    workspace.write("tiny", TELL, WAIT)
    grid.worker()
    batch = start(workspace, grid)
    wait_until(lambda: workspace.journal)
    grid.processes[0].kill()
    _, err = end(batch)
    assert batch.returncode == 2
    assert "error: the scheduler is gone" in err and "Traceback" not in err
    wait_until(lambda: not is_alive(int(workspace.journal[0].split()[1])))
