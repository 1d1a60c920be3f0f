"""Runs as tasks of dask.distributed: on workers of this machine, of any scheduler, or of SLURM.

The client keeps the batch: it sends a worker the notebook, its parameters and the records that it may see,
and gets back the files of the finished run in one piece, which it stores as it does those of its own runs
(`rec_utils.runs`). A worker needs the same code and its own built data, but no folder shared with the client.

- A worker that dies takes its kernel along; the scheduler gives its run to another one, at most as often as
  its setting `distributed.scheduler.allowed-failures` (3) says. A run that fails by itself is a result.
- When the client is gone, by ctrl-C or worse, the scheduler drops its tasks, and their kernels are ended.
- Clients on one scheduler share its workers; their tasks have names of their own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from distributed import Client, KilledWorker, LocalCluster, get_worker

from rec_utils import settings
from rec_utils.errors import UserError
from rec_utils.files import write_atomic
from rec_utils.plans import Run, code_hash
from rec_utils.runs import Failure, OnCell, Slot, perform_here, record_path, share_cores
from rec_utils.settings import notebook_path

CONNECT_SECONDS = 5
#: How often a worker looks whether its run is still asked for.
LOOK_SECONDS = 0.5


class _OtherCode(UserError):
    """Ends the batch; what else a worker cannot do is a failure of its run."""


@dataclass(frozen=True)
class _Job:
    """What a worker gets."""

    key: str  #: name of the task
    topic: str  #: where the client listens for cells that start
    run: Run
    notebook: bytes
    records: dict[str, bytes]  #: of other runs, by path in the output folder
    timeout: float | None
    code: str  #: see `rec_utils.plans.code_hash`
    cores: list[list[int]]  #: of each local worker; empty: the worker's own
    gpus: list[str]  #: likewise


async def _work(job: _Job) -> tuple[dict[str, bytes], Failure | None, float]:
    """Execute a job on this worker; returns the files of the run, what went wrong, and its seconds."""
    worker = get_worker()
    if job.code != code_hash():
        raise _OtherCode(
            f"the worker at {worker.address} has other code than this checkout: "
            "bring both to the same commit and restart the worker"
        )
    if job.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpus[worker.name]
    # in the worker's folder: what a killed one leaves there, the next worker on this machine removes
    with tempfile.TemporaryDirectory(dir=worker.local_directory, ignore_cleanup_errors=True) as name:
        notebook = notebook_path(Path(name), job.run.notebook)
        folder = Path(name) / "run"
        (folder / "output").mkdir(parents=True)
        write_atomic(notebook, job.notebook)
        _write_files(folder / "output", job.records)
        execution = asyncio.create_task(
            perform_here(
                notebook,
                job.run,
                folder,
                lambda event: worker.log_event(job.topic, {"key": job.key, "event": event}),
                timeout=job.timeout,
                cores=job.cores[worker.name] if job.cores else [],
            )
        )
        try:
            while not execution.done():
                await asyncio.wait([execution], timeout=LOOK_SECONDS)
                task = worker.state.tasks.get(job.key)
                if task is None or task.state == "cancelled":  # dask itself lets it go on to its end
                    execution.cancel()
                    break
            failure, seconds = await execution
        finally:
            execution.cancel()
            await asyncio.wait([execution])  # its kernel is gone then
        kept = [folder / "notebook.ipynb", folder / "log.txt", folder / "output" / record_path(job.run)]
        kept += (folder / "output" / job.run.notebook).rglob("*")
        return _read_files(folder, kept), failure, seconds


def _read_files(folder: Path, paths: Sequence[Path]) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


class _Grid:
    """The client's side: sends runs to workers and hands back how they ended."""

    def __init__(
        self, client: Client, gpu: bool, cores: Sequence[list[int]] = (), gpus: Sequence[str] = ()
    ) -> None:
        self.client, self.gpu = client, gpu
        self.cores, self.gpus = list(cores), list(gpus)
        self.topic = f"rec-{uuid4().hex}"
        self.listeners: dict[str, OnCell] = {}
        client.subscribe_topic(self.topic, self._hear)

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        if listener := self.listeners.get(message["key"]):  # none: the run has ended meanwhile
            listener(message["event"])

    async def perform(
        self, notebook: Path, run: Run, folder: Path, on_cell: OnCell, *, timeout: float | None
    ) -> tuple[Failure | None, float]:
        """Execute a run on some worker; a `rec_utils.runs.Slot`."""
        started = time.monotonic()
        output = settings.output_dir()
        records = _read_files(output, list(output.glob("records/*/[!.]*.json")))
        records.pop(record_path(run).as_posix(), None)
        key = f"{run.folder}-{uuid4().hex}"
        job = _Job(
            *(key, self.topic, run, notebook.read_bytes(), records, timeout),
            *(code_hash(), self.cores, self.gpus),
        )
        last: dict[str, Any] = {}

        def listen(event: dict[str, Any]) -> None:
            last.update(event)
            on_cell(event)

        self.listeners[key] = listen
        try:
            wants = {"GPU": 1} if self.gpu else None
            files, failure, seconds = await self.client.submit(_work, job, key=key, resources=wants)
        except KilledWorker as error:
            died = f"{error.allowed_failures + 1} workers died with it (killed, or out of memory)"
            return {**last, "message": died}, time.monotonic() - started
        except CancelledError:
            raise UserError(
                "the scheduler is gone; what was finished is kept: run the same command again to go on"
            ) from None
        except _OtherCode:
            raise
        except UserError as error:
            return {**last, "message": f"its worker could not run it: {error}"}, time.monotonic() - started
        except Exception as error:  # such as a worker without this package
            message = f"its worker could not run it: {type(error).__name__}: {error}"
            return {**last, "message": message}, time.monotonic() - started
        finally:
            del self.listeners[key]
        _write_files(folder, files)
        return failure, seconds


@asynccontextmanager
async def local(n_runs: int, *, workers: int = 1, gpu: bool = False) -> AsyncIterator[list[Slot]]:
    """Workers on this machine for as long as the batch runs: each with its share of the cores, or a GPU."""
    gpus = _gpus()[: min(workers, n_runs)] if gpu else []
    if gpu and not gpus:
        raise UserError("--gpu: this machine has no NVIDIA GPU")
    n = len(gpus) or min(workers, n_runs)
    cluster = LocalCluster(
        n_workers=n,
        threads_per_worker=1,
        resources={"GPU": 1} if gpu else None,
        dashboard_address=None,
        asynchronous=True,
    )
    async with cluster, Client(cluster, asynchronous=True, set_as_default=False) as client:
        yield [_Grid(client, gpu, share_cores(n), gpus).perform] * n


def _gpus() -> list[str]:
    """Numbers of this machine's GPUs, as `CUDA_VISIBLE_DEVICES` takes them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []


@asynccontextmanager
async def remote(
    n_runs: int, *, address: str, workers: int | None = None, gpu: bool = False
) -> AsyncIterator[list[Slot]]:
    """The workers of the scheduler at `address`; `workers` runs at a time, by default one for each thread."""
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # its errors are raised here as well
    client = Client(address, asynchronous=True, set_as_default=False, timeout=CONNECT_SECONDS)
    try:
        await client
    except (OSError, ValueError) as error:
        raise UserError(f"no dask scheduler answers at {address}: {error}") from None
    async with client:
        found = (await client.scheduler.identity(n_workers=-1))["workers"].values()
        room = sum(min(w["nthreads"], w["resources"].get("GPU", 0) if gpu else w["nthreads"]) for w in found)
        if not room:
            what = "worker that offers a GPU" if gpu else "worker"
            print(f"waiting for a {what}: {address} has none yet", file=sys.stderr)
        yield [_Grid(client, gpu).perform] * min(n_runs, workers or max(1, int(room)))


#: What `--slurm NAME=VALUE` takes; what is not given comes from dask's configuration (`jobqueue.slurm`).
SLURM_OPTIONS = {
    "queue": "partition",
    "account": "account that is charged",
    "walltime": "limit of a job, 04:00:00",
    "memory": "of a job, 16GB",
    "cores": "of a job",
    "interface": "network of the nodes, ib0",
    "directive": "further line of the job's script, --constraint=a100; may be repeated",
}


@asynccontextmanager
async def slurm(
    n_runs: int, *, options: Sequence[str] = (), workers: int = 1, gpu: bool = False
) -> AsyncIterator[list[Slot]]:
    """`workers` SLURM jobs, each one worker with one run at a time; a job that ends early is replaced."""
    given: dict[str, list[str]] = {}
    for option in options:
        name, _, value = option.partition("=")
        settings.check_choice("--slurm option", name, list(SLURM_OPTIONS))
        given.setdefault(name, []).append(value)
    directives = [*given.pop("directive", []), *(["--gpus=1"] if gpu else [])]
    single = {name: values[-1] for name, values in given.items()}
    if not (cores := single.pop("cores", "1")).isdigit():
        raise UserError(f"--slurm cores={cores} is not a number")
    if shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here; start the batch where SLURM jobs can be submitted")
    handler = signal.getsignal(signal.SIGINT)
    from dask_jobqueue import SLURMCluster  # this import makes ctrl-C a success with exit status 0

    signal.signal(signal.SIGINT, handler)
    n = min(workers, n_runs)
    try:
        cluster = SLURMCluster(
            **single,
            cores=1,
            processes=1,
            job_cpu=int(cores),
            job_extra_directives=directives,
            worker_extra_args=["--resources", "GPU=1"] if gpu else [],
            log_directory=str(settings.runs_dir() / "slurm"),
            scheduler_options={"dashboard_address": None},
            asynchronous=True,
        )
    except ValueError as error:  # such as a memory that is neither given nor configured
        raise UserError(f"--slurm: {error}") from None
    # asked first, since dask would go on submitting a job that SLURM refuses
    test = subprocess.run(
        ["sbatch", "--test-only"], input=cluster.job_script(), capture_output=True, text=True, check=False
    )
    if test.returncode:
        raise UserError(f"SLURM refuses the job: {test.stderr.strip()}")
    async with cluster, Client(cluster, asynchronous=True, set_as_default=False) as client:
        cluster.adapt(minimum_jobs=n, maximum_jobs=n)
        yield [_Grid(client, gpu).perform] * n
