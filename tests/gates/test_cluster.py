"""Grids on dask: real scheduler and worker processes on this machine, and what must survive their deaths."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import psutil
import pytest

from rec_utils import cluster
from rec_utils.errors import UserError
from rec_utils.plans import make_plan
from rec_utils.processes import kill_trees
from rec_utils.scheduler import run_batch

BATCH = ("-m", "rec_utils.batch")

#: Cells of a notebook that tells where it is and then waits for the file `go`.
TELL = "note(f'{SEED} {os.getpid()}')"
WAIT = "import time\nwhile not os.path.exists(f'{root}/go'): time.sleep(0.05)"


def wait_until(true: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "this did not happen in time"
        time.sleep(0.05)


def ancestors(pid: int) -> list[int]:
    try:
        return [parent.pid for parent in psutil.Process(pid).parents()]
    except psutil.NoSuchProcess:
        return []


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Grid:
    """A scheduler in a process of its own, and workers that a test starts and kills."""

    address: str
    processes: list[subprocess.Popen] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen([sys.executable, "-m", *arguments], **quiet))
        return self.processes[-1]

    def worker(self, *arguments: str) -> subprocess.Popen:
        """Start a worker that nothing restarts."""
        quiet = ("--no-nanny", "--no-dashboard", "--nthreads", "1")
        return self.start("distributed.cli.dask_worker", self.address, *quiet, *arguments)

    def of(self, kernel: int) -> subprocess.Popen:
        """The worker that a kernel belongs to."""
        (worker,) = (process for process in self.processes if process.pid in ancestors(kernel))
        return worker


@pytest.fixture
def grid(tmp_path, monkeypatch) -> Iterator[Grid]:
    monkeypatch.setenv("DASK_TEMPORARY_DIRECTORY", str(tmp_path / "dask"))
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    grid = Grid(f"tcp://127.0.0.1:{port}")
    grid.start(
        *("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    )
    wait_until(
        lambda: any(c.laddr.port == port for c in psutil.Process(grid.processes[0].pid).net_connections())
    )
    yield grid
    kill_trees(psutil.Process(process.pid) for process in grid.processes)


def start(workspace, grid, *arguments: str) -> subprocess.Popen:
    where = ("--notebooks", str(workspace.notebooks), "--scheduler", grid.address)
    return workspace.start(*BATCH, "run", *where, *arguments)


def end(process: subprocess.Popen) -> tuple[str, str]:
    return process.communicate(timeout=120)


def kernels(workspace) -> list[int]:
    return [int(line.split()[1]) for line in workspace.journal]


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
