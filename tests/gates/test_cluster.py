"""Grids on dask: what must survive the deaths of worker and client, with real processes on this machine."""

from __future__ import annotations

import json
import re
import signal

import pytest

from tests.gates.processes import BATCH, TELL, WAIT, end, is_alive, start, wait_until


def kernels(workspace) -> list[int]:
    return [int(line.split()[1]) for line in workspace.journal]


@pytest.mark.fault("SIGKILL", "grid", "A run whose worker died goes to another worker.")
def test_a_killed_worker_does_not_end_the_batch_and_a_failing_run_is_not_repeated(workspace, grid):
    workspace.write(
        "tiny",
        f"{TELL}\nfolder = os.environ['REC_OUTPUT'] + '/tiny'\nos.makedirs(folder)\n"
        "open(folder + '/gain.csv', 'w').write(f'{SEED}');",
        f"{WAIT}\n1 / (SEED - 1)",
    )
    grid.worker(), grid.worker()
    batch = start(workspace, grid, "-p", "SEED=0,1,2", "--workers", "2")
    wait_until(lambda: len(workspace.journal) == 2)
    first, second = kernels(workspace)
    assert grid.of(first) is not grid.of(second), "two runs on two workers"
    status = workspace.command(*BATCH, "status").stdout
    assert len(re.findall(r"running +cell \d of \d: tiny", status)) == 2

    grid.of(first).kill()
    wait_until(lambda: not is_alive(first))
    assert not workspace.output.exists(), "half a run is no result"
    (workspace.root / "go").touch()
    out, err = end(batch)
    assert batch.returncode == 1, err
    assert re.search(r"tiny laptop +finished", out) and re.search(r"tiny laptop-SEED=2 +finished", out)
    assert re.search(r"tiny laptop-SEED=1 +failed +\d+ s +cell 5 \(tiny\): ZeroDivisionError", out)
    killed = workspace.journal[0].split()[0]
    seeds = [line.split()[0] for line in workspace.journal]
    assert sorted(seeds) == sorted(["0", "1", "2", killed]), "only the run of the killed worker is repeated"

    published = {path.relative_to(workspace.output).as_posix() for path in workspace.output.rglob("*.*")}
    assert published == {
        *("records/tiny/laptop.json", "records/tiny/laptop-SEED=2.json"),
        *("tiny/laptop-SEED=2/gain.csv", "tiny/gain.csv"),
    }
    assert json.loads((workspace.output / "records/tiny/laptop.json").read_text())["cell_seconds"]
    for name in ("laptop", "laptop-SEED=1", "laptop-SEED=2"):
        (folder,) = workspace.runs.glob(f"*/tiny-{name}")
        kept = {path.name for path in folder.iterdir()}
        assert kept == {"notebook.ipynb", "log.txt", "state.json"} | (
            set() if name.endswith("=1") else {"record.json"}
        )


@pytest.mark.fault("SIGKILL", "grid")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_batch_that_was_stopped_goes_on_and_leaves_no_kernel(workspace, grid, stop):
    workspace.write("a_quick", TELL)
    workspace.write("b_slow", TELL, WAIT)
    grid.worker()
    batch = start(workspace, grid)
    wait_until(lambda: len(workspace.journal) == 2)
    batch.send_signal(stop)
    _, err = end(batch)
    assert batch.returncode == (130 if stop is signal.SIGINT else -stop), err
    assert "Traceback" not in err
    wait_until(lambda: not is_alive(kernels(workspace)[1]))
    (workspace.root / "go").touch()
    result = workspace.command(*BATCH, "resume", "--scheduler", grid.address)
    assert result.returncode == 0, result.stderr
    assert len(workspace.journal) == 3, "what was finished is not repeated"
    assert not list(workspace.runs.glob("*/partial"))
