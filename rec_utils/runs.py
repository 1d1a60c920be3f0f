"""Executing one run in its own process, and keeping what it leaves: whole or not at all.

A run works in `<batch>/partial/<run>~<process id>`. There the notebook writes its figures and its record
(`REC_OUTPUT` points into it), so that a run that fails or is killed leaves the results of earlier runs as
they were. When it has ended, the folder is moved in one step to `<batch>/<run>`, which then holds

    notebook.ipynb   the executed notebook; of a failed run as far as it came
    log.txt          the output of its cells
    record.json      the notebook's record with the times of its cells; only if it finished
    state.json       see `State`
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from rec_utils import records, settings
from rec_utils.errors import UserError
from rec_utils.files import write_atomic
from rec_utils.parameters import read_cells
from rec_utils.plans import Plan, Run, fingerprint
from rec_utils.processes import kill_trees

FINISHED, FAILED = "finished", "failed"

Failure = dict[str, Any]  #: message and, where known, cell, title and line
OnCell = Callable[[dict[str, Any]], None]  #: gets {"cell", "of", "title"} whenever a cell starts

#: A place for one run at a time: `slot(notebook, run, folder, on_cell, timeout=seconds)` executes a notebook
#: and leaves in `folder` what `perform_here` does; it returns what went wrong, if anything, and the seconds.
Slot = Callable[..., Awaitable[tuple[Failure | None, float]]]


@dataclass(frozen=True)
class State:
    """How a run ended."""

    status: str  #: `FINISHED` or `FAILED`
    fingerprint: str  #: of the code that was executed, see `rec_utils.plans.fingerprint`
    seconds: float
    failure: Failure | None = None

    @property
    def problem(self) -> str:
        """What failed, in one line; empty for a finished run."""
        if self.failure is None:
            return ""
        cell = self.failure.get("cell")
        where = f"cell {cell} ({self.failure['title']}): " if cell else ""
        line = f" at {self.failure['line']!r}" if self.failure.get("line") else ""
        return " ".join(f"{where}{self.failure['message']}{line}".split())


def stored_state(plan: Plan, run: Run) -> State | None:
    """How `run` ended; None if it has not, or if its code has changed or its record is gone since.

    A damaged state or record is told as a warning and counts as gone: the run will be repeated.
    """
    folder = plan.folder / run.folder
    try:
        state = State(**json.loads((folder / "state.json").read_text()))
        if state.fingerprint != fingerprint(plan.path(run)):
            return None
        if state.status == FINISHED:
            for path in (folder / "record.json", settings.output_dir() / record_path(run)):
                records.read(path)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UserError) as error:
        what = str(error) if isinstance(error, UserError) else f"{folder}/state.json is damaged ({error})"
        warnings.warn(f"{run.label} counts as not run: {what}", stacklevel=2)
        return None
    return state


def progress(plan: Plan, run: Run) -> str | None:
    """The cell at which `run` is working, or None if it has not started."""
    for path in (plan.folder / "partial").glob(f"{run.folder}~*/progress.json"):
        with suppress(FileNotFoundError):
            return "cell {cell} of {of}: {title}".format(**json.loads(path.read_text()))
    return None


async def execute(plan: Plan, run: Run, slot: Slot, timeout: float | None, on_cell: OnCell) -> State:
    """Execute `run` on `slot`, store its results and return its state. Cancelling ends the kernel too.

    `timeout` is in seconds for the whole run.
    """
    code = fingerprint(plan.path(run))
    # named after this process: that of a killed batch, which may still be dying, cannot write into it
    folder = plan.folder / "partial" / f"{run.folder}~{os.getpid()}"
    folder.mkdir(parents=True)

    def report(event: dict[str, Any]) -> None:
        write_atomic(folder / "progress.json", json.dumps(event))
        on_cell(event)

    failure, seconds = await slot(plan.path(run), run, folder, report, timeout=timeout)
    if failure is None and (fault := _publish(run, folder)):
        failure = {"message": fault}
    state = State(FINISHED if failure is None else FAILED, code, round(seconds, 2), failure)
    _seal(folder, plan.folder / run.folder, state)
    return state


async def perform_here(
    notebook: Path, run: Run, folder: Path, on_cell: OnCell, *, timeout: float | None, cores: list[int]
) -> tuple[Failure | None, float]:
    """Execute `notebook` on this machine: `folder` gets `notebook.ipynb`, `log.txt` and `output`.

    `cores` restricts it to these cores (empty: no restriction).
    If `output` is there already, the notebook sees the records in it.
    """
    started = time.monotonic()
    if not (folder / "output").exists():
        _show_records(run, folder / "output")
    failure = await _supervise(notebook, run.changed, folder, timeout, cores, on_cell)
    return failure, time.monotonic() - started


def share_cores(n: int) -> list[list[int]]:
    """Cores for each of `n` runs at a time: all of them (empty list) for one, else a share each."""
    if n <= 1 or not hasattr(os, "sched_getaffinity"):
        return [[]] * n
    cores = sorted(os.sched_getaffinity(0))
    return [cores[slot::n] or [cores[slot % len(cores)]] for slot in range(n)]


async def _supervise(
    notebook: Path,
    parameters: dict[str, Any],
    folder: Path,
    timeout: float | None,
    cores: list[int],
    on_cell: OnCell,
) -> Failure | None:
    """Run `rec_utils.execute` to its end; returns what went wrong, if anything."""
    with (
        kernel_environment(folder / "output") as (sockets, environment),
        (folder / "log.txt").open("wb") as log,
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "rec_utils.execute"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=notebook.parent,
            env=environment,
            start_new_session=True,  # ctrl-C is ours to handle
        )
        family = _family(process.pid)
        last: dict[str, Any] = {}
        job = {
            "notebook": str(notebook),
            "output": str(folder / "notebook.ipynb"),
            "parameters": parameters,
            "sockets": str(sockets),
            "cores": cores,
        }
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            async with asyncio.timeout(timeout):
                async for line in process.stdout:
                    event = json.loads(line)
                    if "end" in event:
                        return event["end"] and {**last, **event["end"]}
                    last = event
                    # remember who is there: what outlives its parent can no longer be found through it
                    family |= _family(process.pid)
                    on_cell(event)
                await process.wait()
            return {
                **last,
                "message": f"its process ended with status {process.returncode} (killed, or out of memory)",
            }
        except TimeoutError:
            return {**last, "message": f"stopped at the time-out of {timeout:g} s"}
        finally:
            kill_trees(family)
            await process.wait()


def _family(pid: int) -> set[psutil.Process]:
    """A process with all its descendants; empty if it is gone."""
    try:
        process = psutil.Process(pid)
        return {process, *process.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


@contextmanager
def kernel_environment(output: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A short temporary folder for a kernel's sockets, and the environment in which to execute a notebook.

    Figures and records go to `output`. Nothing is read from or left in the user's Jupyter and IPython
    folders, and progress bars are off: they belong into no stored output.
    """
    # a socket's path may have 107 bytes at most, so the folder cannot stand among the results
    place = tempfile.gettempdir() if len(tempfile.gettempdir()) < 50 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="rec-", dir=place, ignore_cleanup_errors=True) as name:
        yield (
            Path(name),
            os.environ
            | {
                "REC_DATA": str(settings.data_dir().resolve()),
                "REC_RUNS": str(settings.runs_dir().resolve()),
                "REC_OUTPUT": str(output.resolve()),
                "IPYTHONDIR": f"{name}/ipython",
                "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not one of the user's
                "TQDM_DISABLE": "1",
            },
        )


def record_path(run: Run) -> Path:
    """Where the notebook must write its record, below the output folder."""
    return Path("records") / run.notebook / f"{run.run_id}.json"


def _show_records(run: Run, output: Path) -> None:
    """Let the notebook see the records of other runs, but not an older one of its own."""
    output.mkdir()
    existing = settings.output_dir() / "records"
    if existing != records.COMMITTED and existing.exists():  # `records.load` reads the committed ones anyway
        # what begins with a dot another batch is just writing
        shutil.copytree(existing, output / "records", ignore=shutil.ignore_patterns(".*"))
        (output / record_path(run)).unlink(missing_ok=True)


def _publish(run: Run, folder: Path) -> str | None:
    """Move the record, with cell times, and the figures to `settings.output_dir()`.

    Figures of a run with other than default parameters go to a folder of their own, named like the record,
    so that the committed ones stay those of the defaults. Returns what is wrong with the record, if anything.
    """
    written = folder / "output" / record_path(run)
    if not written.exists():
        return f"it wrote no record {record_path(run)}, so it shows nothing"
    try:
        records.add_cell_seconds(written, _cell_seconds(folder / "notebook.ipynb"))
    except UserError as error:
        return str(error)
    figures = folder / "output" / run.notebook
    target = settings.output_dir() / run.notebook / (run.run_id if run.changed else "")
    for path in sorted(path for path in figures.rglob("*") if path.is_file()):
        write_atomic(target / path.relative_to(figures), path.read_bytes())
    for path in (folder / "record.json", settings.output_dir() / record_path(run)):
        write_atomic(path, written.read_bytes())
    return None


def _cell_seconds(notebook: Path) -> list[float]:
    """Wall time of every code cell, as papermill measured it."""
    cells = [cell for cell in read_cells(notebook) if cell["cell_type"] == "code"]
    return [round(cell["metadata"]["papermill"]["duration"], 3) for cell in cells]


def _seal(folder: Path, target: Path, state: State) -> None:
    """Write the state and move the folder to its final place, in the stead of an earlier result."""
    write_atomic(folder / "state.json", json.dumps(asdict(state), indent=1))
    shutil.rmtree(folder / "output", ignore_errors=True)
    (folder / "progress.json").unlink(missing_ok=True)
    if target.exists():
        target.rename(folder.with_name(f"{folder.name}.old"))
    folder.rename(target)
    shutil.rmtree(folder.with_name(f"{folder.name}.old"), ignore_errors=True)
