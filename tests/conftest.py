"""A workspace for tests of the batch runner and the notebook tools: tiny notebooks in a temporary folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rec_utils.settings import cpu_count

# a job in the background of a shell ignores Ctrl-C, and so would the processes that tests interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# several pytest workers share the cores: with more threads than cores they would wait for one another
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // int(workers))))


@dataclass(frozen=True)
class Workspace:
    """A folder with `notebooks`, `runs` and `output`; the environment points the tools to the last two."""

    root: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def journal(self) -> list[str]:
        """Lines that notebooks appended to `self.root / "journal"`."""
        path = self.root / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def write(self, name: str, *cells: str, record: bool = True, stored: str | None = None) -> Path:
        """Write a notebook: parameters PROFILE, SEED and LR, `cells`, and one that leaves a record.

        In `cells`, `root` is the workspace's folder and `note(text)` appends a line to the journal. With
        `stored`, the first of `cells` has been executed and printed that text.
        """
        first = 'PROFILE: str = "laptop"  # size\nSEED: int = 0  # seed\nLR: float = 1e-3  # learning rate'
        setup = (
            f"import os, shutil\nroot = {str(self.root)!r}\n"
            "def note(text):\n    with open(f'{root}/journal', 'a') as file: file.write(f'{text}\\n')"
        )
        leave = (
            f"folder = os.environ['REC_OUTPUT'] + '/records/{name}'\nos.makedirs(folder, exist_ok=True)\n"
            "run = PROFILE + (f'-LR={LR}' if LR != 1e-3 else '') + (f'-SEED={SEED}' if SEED else '')\n"
            "_ = shutil.copy(f'{root}/record.json', f'{folder}/{run}.json')"
        )
        sources = [setup, *cells, *([leave] if record else [])]
        notebook = new_notebook(
            metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}},
            cells=[
                new_markdown_cell(f"# {name}"),
                new_code_cell(first, metadata={"tags": ["parameters"]}),
                *map(new_code_cell, sources),
            ],
        )
        if stored is not None:
            for count, cell in enumerate(notebook.cells[1:], 1):
                cell.execution_count = count
            notebook.cells[3].outputs = [new_output("stream", name="stdout", text=stored)]
        path = self.notebooks / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
        return path

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start `python ARGUMENTS` in this workspace, with text pipes."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=self.root, env=os.environ.copy(), **pipes
        )
        self.started.append(process)
        return process

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run `python ARGUMENTS` in this workspace to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture(scope="session")
def record_text(tmp_path_factory) -> str:
    """A valid record with one verdict."""
    from rec_utils import records
    from rec_utils.claims import Verdict

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REC_OUTPUT", str(tmp_path_factory.mktemp("record")))
        run = records.start("tiny", "laptop", {"PROFILE": "laptop"}, {"PROFILE": "laptop"})
        band, numbers = (0.5, 3.0), {"value": 1.2345, "low": 0.6, "high": 1.9, "margin": 0.9}
        run.verdicts([Verdict("gain", "matched", "It gains.", False, "%", 0.0, band, **numbers)])
        return run.finish().read_text()


@pytest.fixture
def workspace(tmp_path, monkeypatch, record_text) -> Iterator[Workspace]:
    monkeypatch.setenv("REC_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path / "output"))
    (tmp_path / "record.json").write_text(record_text)
    workspace = Workspace(tmp_path)
    yield workspace
    for process in workspace.started:
        process.kill()  # whatever a failed test has left; the kernels follow
