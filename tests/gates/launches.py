"""Starting `accelerate launch` with two processes on a CPU, and what the processes of some tests do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from rec_utils.settings import ROOT
from tests.gates.processes import wait_until

#: Without a GPU, too, --multi_gpu is what makes accelerate start several processes.
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
    *("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
)

MODULE = ("-m", "rec_utils.launch")

#: A launch ends so many seconds after the death of one of its processes, at most.
BOUND = 45


def start(*arguments: str | Path) -> subprocess.Popen:
    """Start `accelerate launch ARGUMENTS` with text pipes."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [sys.executable, *ACCELERATE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen) -> str:
    """What a launch that ends well wrote to stdout."""
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err[-5000:]
    return out


def worker(launcher: subprocess.Popen, rank: int) -> psutil.Process:
    """The process of a rank, once it is there."""
    found: list[psutil.Process] = []

    def look() -> bool:
        assert launcher.poll() is None, launcher.communicate()[1][-5000:]
        for child in psutil.Process(launcher.pid).children(recursive=True):
            try:
                if child.environ().get("RANK") == str(rank):
                    found.append(child)
            except psutil.Error:
                continue
        return bool(found)

    wait_until(look)
    return found[0]


def kill(launch, rank):
    """Kill one process of a launch, which then ends by itself; what it said."""
    processes = [worker(launch, each) for each in (0, 1)]
    processes[rank].kill()
    begin = time.monotonic()
    _, err = launch.communicate(timeout=BOUND + 60)
    assert time.monotonic() - begin < BOUND
    assert launch.returncode == 1
    assert not [process for process in processes if process.is_running()]
    assert f"exitcode  : -9 (pid: {processes[rank].pid})  (SIGKILL)" in err
    return err
