"""Stages of work on which faults are tried, and the faults: a killed child, a full disk, a read-only folder.

Each stage does one piece of work a step, in the way in which the project does it, only smaller. What really
was worked lies in a journal that no fault touches, so that a test can tell a result that was found again
from one that was made again.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from data_prep import catalog
from data_prep.build import build
from data_prep.catalog import Archive
from data_prep.download import fetch
from rec_utils import plots, records, resume, runs, scheduler
from rec_utils.knowledge import vectors
from rec_utils.knowledge.encoder import Encoder
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store
from rec_utils.plans import make_plan
from tests.conftest import Workspace
from tests.unit.test_data_prep import raw_files, tiny, write_folder

# the lock of all bars is one of all processes: a child that dies with it would stop the others
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())

#: Bytes of an archive that is fetched: more than one piece of a download.
ARCHIVE = 300_000


class Stage:
    """One stage of work below the folder `home`; what faults must not touch lies in `safe`."""

    def __init__(self, home: Path, safe: Path, record: str) -> None:
        self.home, self.safe, self.record = home, safe, record
        safe.mkdir(exist_ok=True)
        self.journal = str(safe / "journal")
        self.set_up()

    def set_up(self) -> None:
        pass

    def close(self) -> None:
        pass

    def step(self, n: int) -> Any:
        """Do the piece of work `n`, or find its result; the same value either way."""
        raise NotImplementedError

    def note(self, n: int) -> None:
        with Path(self.journal).open("a") as file:
            file.write(f"{n}\n")

    @property
    def worked(self) -> list[int]:
        """What was really worked, in order, by this process or another."""
        path = Path(self.journal)
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def files(self) -> dict[Path, int]:
        """Size of every file of the stage, but for locks."""
        found = (path for path in self.home.rglob("*") if path.is_file() and "lock" not in path.name)
        return {path: path.stat().st_size for path in found}


class Fetch(Stage):
    """An archive, from a server on this machine."""

    def set_up(self) -> None:
        stage = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                n = int(self.path.strip("/").removesuffix(".zip"))
                start = int(self.headers.get("Range", "bytes=0-")[6:-1])
                stage.note(n)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(ARCHIVE - start))
                self.end_headers()
                self.wfile.write(stage.content(n)[start:])

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def content(n: int) -> bytes:
        return np.random.default_rng(n).bytes(ARCHIVE)

    def step(self, n: int) -> str:
        url = f"http://127.0.0.1:{self.server.server_port}/{n}.zip"
        archive = Archive(url=url, size=ARCHIVE, sha256=hashlib.sha256(self.content(n)).hexdigest())
        path = fetch(catalog.entry("ml-1m").model_copy(update={"archive": archive}))
        return hashlib.sha256(path.read_bytes()).hexdigest()


class Build(Stage):
    """A data set, from raw files."""

    NAMES = ("ml-25m", "ml-20m", "ml-32m", "ml-latest-small", "ml-10m", "movietweetings")

    def set_up(self) -> None:
        for name in self.NAMES:
            write_folder(self.safe / name, raw_files(name))

    def step(self, n: int) -> Any:
        name = self.NAMES[n]
        built, now = build(tiny(name), self.safe / name)
        if now:
            self.note(n)
        built.check()
        return name, built.tables


class Knowledge(Stage):
    """An answer, by a stand-in for a language model."""

    model = "parrot"

    def answer(self, requests: list[Request]) -> Any:
        for request in requests:
            self.note(int(request.prompt))
            yield [Response(request, f"answer {request.prompt}" * 1000, self.model)]

    def step(self, n: int) -> str:
        store = Store(self.home / "data" / "store.jsonl")
        return generate([Request("p", "s", str(n))], store, self, progress=False)[0].text


class Vectors(Stage):
    """A vector, by a stand-in for the encoder."""

    def step(self, n: int) -> list[float]:
        stage = self

        class Journalling(Encoder):
            def encode(self, texts: list[str], progress: bool = True) -> np.ndarray:
                stage.note(n)
                return np.full((len(texts), self.dim), n, np.float32)

        return vectors.encode([f"no shipped text {n}"], Journalling(), progress=False)[0].tolist()


class Train(Stage):
    """A remembered job."""

    def step(self, n: int) -> float:
        journal = self.journal

        def job(row: int) -> list[float]:
            with open(journal, "a") as file:  # noqa: PTH123 - what it holds must be plain
                file.write(f"{row}\n")
            return [row / 3] * 100

        return resume.remembered(job)(row=n)


class Batch(Stage):
    """A run of a notebook, with a stand-in for the process that executes it."""

    def set_up(self) -> None:
        self.workspace = Workspace(self.safe)
        self.workspace.write("tiny")

    async def supervise(
        self, notebook: Path, parameters: dict, folder: Path, _timeout: Any, _cores: Any, on_cell: Callable
    ) -> None:
        n = parameters.get("SEED", 0)
        self.note(n)
        on_cell({"cell": 1, "of": 1, "title": "a cell"})
        executed = json.loads(notebook.read_text())
        for cell in executed["cells"]:
            cell["metadata"]["papermill"] = {"duration": 0.5}
        run_id = "laptop" + (f"-SEED={n}" if n else "")
        (folder / "notebook.ipynb").write_text(json.dumps(executed))
        (folder / "log.txt").touch()
        for path, text in ((f"records/tiny/{run_id}.json", self.record), ("tiny/gain.csv", f"{n}\n")):
            (folder / "output" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "output" / path).write_text(text)

    def step(self, n: int) -> tuple[str, str]:
        plan = make_plan(self.workspace.notebooks, ["tiny"], "laptop", [f"SEED={n}"])
        real, runs._supervise = runs._supervise, self.supervise
        try:
            ((run, state),) = scheduler.run_batch(plan).items()
        finally:
            runs._supervise = real
        figures = self.home / "output" / "tiny" / ("" if run.run_id == "laptop" else run.run_id)
        assert records.read(plan.folder / run.folder / "record.json").cell_seconds
        return state.status, (figures / "gain.csv").read_text()


class Record(Stage):
    """A record and a figure with its numbers; who finds the record does not run again."""

    def step(self, n: int) -> Any:
        name = f"laptop-SEED={n}" if n else "laptop"
        found = {r.run_id: r for r in records.load("tiny", folders=[self.home / "output" / "records"])}
        if name not in found:
            self.note(n)
            numbers = pd.DataFrame({"arm": ["a", "b"], "value": [n, n + 1]})
            figure = Figure(figsize=(1, 1))
            figure.subplots().plot(numbers["arm"], numbers["value"])
            plots.save(figure, "tiny", f"gain{n}", numbers, "A gain.")
            run = records.start("tiny", "laptop", {"PROFILE": "laptop", "SEED": n}, {"SEED": 0})
            run.metric("gain", n / 3)
            found[name] = records.read(run.finish())
        assert (self.home / "output" / "tiny" / f"gain{n}.csv").read_text().count("\n") == 3
        return found[name].metrics


STAGES = {
    "fetch": Fetch,
    "build": Build,
    "knowledge": Knowledge,
    "vectors": Vectors,
    "train": Train,
    "batch": Batch,
    "record": Record,
}


# Faults


def in_child(action: Callable[[], Any]) -> tuple[int, str]:
    """Run `action` in a forked process: its exit status (of a signal: negative), and what it raised."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        status = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1), os.dup2(null, 2)  # a limit on files would hold for pytest's, too
            action()
            status = 0
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode()[:4000])
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        raised = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), raised


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_file_may_grow() -> None:
    """Let every write to a file fail in this process; it needs no rights and works everywhere."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class Disk:
    """A small file system in memory that a test can fill and make read-only.

    Raises:
        OSError: there can be none here, since it takes Linux and root's rights.
    """

    def __init__(self, folder: Path, megabytes: int = 4) -> None:
        self.folder = folder
        folder.mkdir()
        self._run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))

    def fill(self) -> Path:
        filler = self.folder / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096:
                    pass
        except OSError:
            pass
        return filler

    def remount(self, how: str) -> None:
        self._run("mount", "-o", f"remount,{how}", str(self.folder))

    def unmount(self) -> None:
        self._run("umount", "-l", str(self.folder))

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
