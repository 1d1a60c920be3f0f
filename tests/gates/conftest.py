"""A dask scheduler in a process of its own, for a test."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import psutil
import pytest

from rec_utils.processes import kill_trees
from tests.gates.processes import Grid, wait_until


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
