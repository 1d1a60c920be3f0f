"""How much faster does a grid of runs get with a second dask worker?

A grid of eight runs of one small notebook, each of which computes for a given time of one core, is executed
by the batch runner on 1 and on 2 workers of this machine, in turns. A run is a kernel of its own, so that
its start counts too. Time is that of the runs, from the first start to the last result; speed-up is the
median time on 1 worker over that on 2, of 2 at most, and less where the machine has other work to do.

examples:
  python -m tests.bench.grid                  some minutes
  python -m tests.bench.grid --record grid    and write figures/bench/grid.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from tqdm import tqdm

from rec_utils import cluster, machine
from rec_utils.errors import run_cli
from rec_utils.files import write_atomic
from rec_utils.plans import make_plan
from rec_utils.runs import Slot
from rec_utils.scheduler import run_batch
from rec_utils.settings import output_dir
from tests.bench.training import positive

RUNS = 8
WORKERS = (1, 2)

PARAMETERS = 'PROFILE: str = "laptop"  # size\nSEED: int = 0  # seed\nSECONDS: float = 0.0  # of one core'
COMPUTE = (
    "import time\nend = time.process_time() + SECONDS\n"
    "while time.process_time() < end:\n    sum(range(100_000))"
)
RECORD = (
    "from rec_utils import records\n"
    "values = {'PROFILE': PROFILE, 'SEED': SEED, 'SECONDS': SECONDS}\n"
    "defaults = {'PROFILE': 'laptop', 'SEED': 0, 'SECONDS': 0.0}\n"
    "_ = records.start('grid', PROFILE, values, defaults).finish()"
)


def write_notebook(folder: Path) -> None:
    """The notebook `grid` that every run executes."""
    cells = [
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, (COMPUTE, RECORD)),
    ]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    folder.mkdir()
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "grid.ipynb")


def measure(folder: Path, workers: int, seconds: float) -> float:
    """Wall time of the grid on that many workers, without their own start."""
    took = 0.0

    @asynccontextmanager
    async def place(n_runs: int) -> AsyncIterator[list[Slot]]:
        nonlocal took
        async with cluster.local(n_runs, workers=workers) as slots:
            started = time.perf_counter()
            yield slots
            took = time.perf_counter() - started

    plan = make_plan(folder, ["grid"], "laptop", [f"SEED=0..{RUNS - 1}", f"SECONDS={seconds}"])
    states = run_batch(plan, place=place, fresh=True)
    if failed := [state.problem for state in states.values() if state.problem]:
        raise RuntimeError(failed[0])
    return took


def main() -> None:
    """Measure, print and perhaps record."""
    summary, _, examples = __doc__.partition("\nexamples:\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.grid",
        description=summary,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=positive, default=10, help="of one core, a run (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=positive, default=3, help="default: %(default)s")
    parser.add_argument("--record", metavar="NAME", help="write figures/bench/NAME.json")
    arguments = parser.parse_args()
    target = output_dir() / "bench"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rec-grid-") as name:
        os.environ |= {"REC_RUNS": f"{name}/runs", "REC_OUTPUT": f"{name}/output", "TQDM_DISABLE": "1"}
        write_notebook(Path(name) / "notebooks")
        turns = [(number, workers) for number in range(arguments.rounds) for workers in WORKERS]
        for number, workers in tqdm(turns, unit="grid", disable=None):
            before = os.getloadavg()[0]
            took = measure(Path(name) / "notebooks", workers, arguments.seconds)
            rows.append(
                {"round": number, "workers": workers, "seconds": round(took, 1), "load before": before}
            )
            print(rows[-1])
    one, two = (statistics.median(row["seconds"] for row in rows if row["workers"] == n) for n in WORKERS)
    print(f"{RUNS} runs: {one:.1f} s on 1 worker, {two:.1f} s on 2 (medians): speed-up {one / two:.2f}")
    if arguments.record:
        record = {
            "benchmark": "grid",
            "runs": RUNS,
            "seconds of one core, a run": arguments.seconds,
            "results": rows,
            "speed-up": round(one / two, 3),
            "hardware": machine.hardware(),
            "versions": machine.versions(),
            "git": machine.git(),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        write_atomic(target / f"{arguments.record}.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_cli(main))
