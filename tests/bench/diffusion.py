"""How fast is DiffRec on its own split of MovieLens-1M? Pairs our training and evaluation with RecBole's.

- RecBole's training epoch takes at least as long as ours;
- its evaluation, 40 steps for all users and a full ranking, takes at least 5 times as long.

Both have the layers n + 10, 600, 200, 600, n, batches of 400 users and the settings of the released model.
RecBole's is a process of its own; they take turns, one epoch and one evaluation each, in an order that
rotates; the first round warms up and is not counted. Times are the processor's on one thread, so that other
work on the machine counts less; a ratio is the median over rounds. Recall@20 after each round shows that both
learn the same.

examples:
  python -m tests.bench.diffusion                      five rounds: ten minutes
  python -m tests.bench.diffusion --repeats 1 --ours   our side alone, once
  python -m tests.bench.diffusion --record diffusion   and write figures/bench/diffusion.json

The split is not shipped: `python -m data_prep build diffrec --from DIR`. RecBole lives in an environment of
its own, and is skipped without it:
  python -m venv .venv-recbole
  .venv-recbole/bin/pip install recbole==1.2.1 torch==2.13.0 'numpy<2' 'pandas<2.3' 'scipy<1.14'
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rec_utils import data, machine
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.implicit import RowSamples
from rec_utils.papers.diffusion.diffrec import DiffRec
from rec_utils.papers.diffusion.released import released_split
from rec_utils.ranking import evaluate
from rec_utils.settings import ROOT, output_dir
from rec_utils.training import Objective, TrainConfig, fit
from tests.bench.training import positive

PEER_PYTHON = ROOT / ".venv-recbole" / "bin" / "python"
#: (what, RecBole's time over ours must be at least)
GOALS = (("train", 1.0), ("evaluate", 5.0))


class Ours:
    """This project's DiffRec."""

    def __init__(self) -> None:
        self.task = released_split("clean")
        self.rows = RowSamples.of(self.task.matrix("train"))
        torch.manual_seed(0)
        self.model = DiffRec(self.task.n_items)
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.turns = 0

    def turn(self) -> dict[str, float]:
        """Train one epoch and evaluate on the test part."""
        config = TrainConfig(batch_size=400, max_epochs=1, seed=self.turns)
        self.turns += 1
        start = time.process_time()
        fit(self.model, self.rows, None, config, False, Objective(lambda loss, _: loss.mean()))
        trained = time.process_time()
        self.model.eval()
        found = evaluate(lambda users: self.model.scores(self.rows.rows(torch.from_numpy(users))), self.task)
        done = time.process_time()
        return {
            "train": trained - start,
            "evaluate": done - trained,
            "recall20": float(found["Recall@20"].mean()),
        }


class Peer:
    """RecBole's, at the other end of a pipe."""

    def __init__(self, python: Path, folder: str) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `end`)
        self.process = subprocess.Popen(
            [python, "-m", "tests.bench.peer_recbole", data.files("diffrec")["ml-1m_clean.npz"], folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        about = self.read()
        self.parameters, self.software = about["parameters"], about["software"]

    def read(self) -> dict[str, Any]:
        """The next answer."""
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            last = self.errors.read().strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"RecBole ended: {last[0]}")
        return json.loads(line)

    def turn(self) -> dict[str, float]:
        """Train one epoch and evaluate on the test part."""
        print(file=self.process.stdin, flush=True)
        return self.read()

    def end(self) -> None:
        """Close the pipe; the process then ends by itself."""
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def race(repeats: int, python: Path | None) -> dict[str, Any]:
    """Rounds of all contenders; without RecBole if `python` is None."""
    contenders: dict[str, Any] = {"ours": Ours()}
    with tempfile.TemporaryDirectory() as folder:
        try:
            if python is not None:
                contenders["recbole"] = Peer(python, folder)
            names, rounds = list(contenders), {name: [] for name in contenders}
            for turn in tqdm(range(repeats + 1), desc="DiffRec", unit="round"):
                first = turn % len(names)
                for name in names[first:] + names[:first]:
                    rounds[name].append(contenders[name].turn())
        finally:
            if "recbole" in contenders:
                contenders["recbole"].end()
    found = {name: {"parameters": contenders[name].parameters, "rounds": rounds[name]} for name in contenders}
    if "recbole" in contenders:
        found["recbole"]["software"] = contenders["recbole"].software
    return found


def judged(found: dict[str, Any]) -> list[dict[str, Any]]:
    """RecBole's time over ours, median, least and greatest over the counted rounds, against the goals."""
    rows = []
    for what, at_least in GOALS:
        pairs = zip(found["recbole"]["rounds"][1:], found["ours"]["rounds"][1:], strict=True)
        ratios = [theirs[what] / ours[what] for theirs, ours in pairs]
        ratio = statistics.median(ratios)
        row = {"what": what, "at_least": at_least, "ratio": ratio, "met": ratio >= at_least}
        rows.append(row | {"least": min(ratios), "greatest": max(ratios)})
    return rows


def main() -> None:
    """Run the race, print and perhaps record."""
    summary, _, examples = __doc__.partition("\nexamples:\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.diffusion",
        description=summary,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=positive, default=5, help="counted rounds (default: %(default)s)")
    parser.add_argument("--ours", action="store_true", help="without RecBole")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON, help="Python of RecBole")
    parser.add_argument("--record", metavar="NAME", help="write figures/bench/NAME.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paired = not arguments.ours and arguments.peer_python.exists()
    if not paired and not arguments.ours:
        print("RecBole is skipped: there is no environment for it, see --help")
    found = race(arguments.repeats, arguments.peer_python if paired else None)
    for name, contender in found.items():
        counted = contender["rounds"][1:]
        times = {what: statistics.median(turn[what] for turn in counted) for what, _ in GOALS}
        print(
            f"{name:8} {times['train']:6.2f} s an epoch, {times['evaluate']:6.2f} s an evaluation, "
            f"{contender['parameters']:,} parameters, Recall@20 {counted[-1]['recall20']:.4f}"
        )
    goals = judged(found) if paired else []
    for goal in goals:
        print(
            f"RecBole's {goal['what']} / ours = {goal['ratio']:.2f} ({goal['least']:.2f} to "
            f"{goal['greatest']:.2f}), goal >= {goal['at_least']}: {'met' if goal['met'] else 'MISSED'}"
        )
    if arguments.record:
        record = {
            "benchmark": "diffusion",
            "repeats": arguments.repeats,
            "results": found,
            "goals": goals,
            "hardware": machine.hardware() | {"threads": 1},
            "versions": machine.versions(),
            "git": machine.git(),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        path = output_dir() / "bench" / f"{arguments.record}.json"
        write_atomic(path, json.dumps(record, indent=1) + "\n")
        print(f"\nwrote {path}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
