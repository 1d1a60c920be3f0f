"""What gates share: waiting for processes, and a dask scheduler with workers that a test may kill."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

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


def start(workspace, grid, *arguments: str) -> subprocess.Popen:
    where = ("--notebooks", str(workspace.notebooks), "--scheduler", grid.address)
    return workspace.start(*BATCH, "run", *where, *arguments)


def end(process: subprocess.Popen) -> tuple[str, str]:
    return process.communicate(timeout=120)
