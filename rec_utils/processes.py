"""Ending a process together with everything that it started."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def kill_trees(roots: Iterable[psutil.Process]) -> None:
    """Kill processes with all their descendants.

    A Jupyter kernel is the leader of its own session, so a signal to the process group of whoever started
    it does not reach it. Each process is stopped before its children are read: none can start another one
    unseen.
    """
    found: set[psutil.Process] = set()
    waiting = list(roots)
    while waiting:
        process = waiting.pop()
        if process in found:
            continue
        with suppress(psutil.NoSuchProcess):
            process.suspend()
            found.add(process)
            waiting += process.children()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
