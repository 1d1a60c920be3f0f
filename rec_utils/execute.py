"""The process that executes one notebook by papermill: `python -m rec_utils.execute`.

`rec_utils.runs` starts it. It reads one job, a line of JSON, from standard input and keeps the pipe open:
end of file means that the batch has died, and then it takes its kernel down with it. It writes one JSON
event a line to standard output: `{"cell", "of", "title"}` when a cell starts, with its number and the
heading above it, and at last `{"end": null}` or `{"end": {"message", ...}}`. Everything else that it prints,
and the notebook's output, goes to standard error, which is the run's log.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
import psutil
from nbclient.exceptions import DeadKernelError
from papermill.engines import NotebookExecutionManager
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io
from traitlets.config import Config

from rec_utils.errors import UserError, describe_os_error
from rec_utils.files import write_atomic
from rec_utils.processes import kill_trees

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _AtomicHandler:
    """Lets papermill write the executed notebook so that it is whole at any time."""

    @staticmethod
    def write(buffer: str, path: str) -> None:
        write_atomic(Path(path), buffer)

    @staticmethod
    def pretty_path(path: str) -> str:
        return path


def _steady_clock() -> Callable[..., datetime]:
    """The time of day, but once started it does not follow when the system's clock is set."""
    now, started = datetime.now(UTC), time.monotonic()
    return lambda *_: now + timedelta(seconds=time.monotonic() - started)


def main() -> None:
    """Execute the job on standard input; always end with an `end` event, unless killed."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the kernel inherits descriptor 1, which must not be the event pipe
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_batch, args=(Path(job["sockets"]),), daemon=True).start()
    if job["cores"]:
        os.sched_setaffinity(0, job["cores"])
    NotebookExecutionManager.now = _steady_clock()  # its differences become the times of the cells
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _execute(job, events)
        failure = None
    except PapermillExecutionError as error:
        failure = _describe(error)
    except DeadKernelError:
        failure = {"message": "the kernel died: killed, or out of memory"}
    except UserError as error:
        failure = {"message": str(error)}
    except OSError as error:
        failure = {"message": describe_os_error(error)}
    except Exception as error:
        logging.exception("the notebook could not be executed")
        failure = {"message": f"{type(error).__name__}: {error}"[:2000]}
    _send(events, end=failure)


def _execute(job: dict[str, Any], events: TextIO) -> None:
    notebook = nbformat.read(job["notebook"], as_version=4)
    n_cells = sum(map(_is_executed, notebook.cells)) + bool(job["parameters"])
    started, heading = 0, ""

    def announce(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal started, heading
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#{1,6} +(.+)$", cell.source, re.MULTILINE) or [heading])[-1][:80]
        elif _is_executed(cell):
            started += 1
            _send(events, cell=started, of=n_cells, title=heading)

    output = job["output"]
    papermill_io.register(output, _AtomicHandler)
    # own kernel sockets in an own folder: TCP ports can clash, and so can ipc names without a folder
    place = {"ip": f"{job['sockets']}/k", "connection_file": f"{job['sockets']}/kernel.json"}
    papermill.execute_notebook(
        notebook,
        output.replace("{", "{{").replace("}", "}}"),  # papermill formats the path
        parameters=job["parameters"],
        progress_bar=False,
        log_output=True,
        config=Config({"KernelManager": {"transport": "ipc", **place}}),
        on_cell_start=announce,
        record_timing=False,
    )


def _is_executed(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _describe(error: PapermillExecutionError) -> dict[str, str]:
    """The error's message and the line of the cell where it came up."""
    traceback = _COLOUR.sub("", "\n".join(error.traceback))
    place = re.search(r"Cell In\[\d+\], line (\d+)", traceback)
    lines = dict(enumerate(error.source.splitlines(), 1))
    line = lines.get(int(place[1]), "") if place else ""
    return {"message": f"{error.ename}: {error.evalue}"[:2000], "line": line.strip()[:200]}


def _send(events: TextIO, **content: Any) -> None:
    print(json.dumps(content), file=events, flush=True)


def _end_with_the_batch(sockets: Path) -> None:
    while os.read(0, 1):  # empty once the other end is closed; unlike sys.stdin, it holds no lock at exit
        pass
    kill_trees(psutil.Process().children())
    shutil.rmtree(sockets, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
