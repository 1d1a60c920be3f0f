"""How fast is the training loop? Pairs it with others in one run, on the same synthetic data and sizes.

- against a bare loop over the same model and tensors: at most 1.1 times its time;
- FuxiCTR's npz path and torch-rechub against it: at least 1.5 times its time for DIN, 2 for the others;
- KAR with stored text vectors against its plain base: at most 1.5 times its time.

Every contender is a process of its own that builds its model once. They take turns, one epoch each, in an
order that rotates; the first round warms up and is not counted. A ratio is the median over rounds. FuxiCTR
loads its data in a second process by default, which `--threads` does not count.

examples:
  python -m tests.bench.training                    everything: a quarter of an hour on two quiet cores
  python -m tests.bench.training --models DIN --batches 256 --repeats 3
  python -m tests.bench.training --record training  and write figures/bench/training.json

The peers live in an environment of their own, and are skipped without it:
  python -m venv .venv-bench
  .venv-bench/bin/pip install fuxictr==2.3.10 torch-rechub==0.9.0 torch==2.13.0
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from rec_utils import machine
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.settings import ROOT, cpu_count, output_dir
from tests.bench.contender import N_CHECKED

MODELS = ("DeepFM", "DCNv2", "DIN")
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True)
class Goal:
    """A bound on the time of one contender divided by the time of another."""

    above: str
    below: str
    at_least: float | None = None
    at_most: float | None = None


def goals(model: str) -> list[Goal]:
    """What is compared for a model."""
    peers = 1.5 if model == "DIN" else 2.0
    found = [
        Goal("loop", "bare", at_most=1.1),
        Goal("fuxictr", "loop", at_least=peers),
        Goal("rechub", "loop", at_least=peers),
    ]
    return [*found, Goal("kar", "loop", at_most=1.5)] if model == "DIN" else found


class Process:
    """A contender at the other end of a pipe."""

    def __init__(self, name: str, arguments: argparse.Namespace, model: str, batch: int) -> None:
        peer = name in ("fuxictr", "rechub")
        python = arguments.bench_python if peer else Path(sys.executable)
        module = f"tests.bench.peer_{name}" if peer else "tests.bench.ours"
        options = [
            "--kind",
            name,
            "--model",
            model,
            "--batch",
            str(batch),
            "--samples",
            str(arguments.samples),
        ]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(arguments.threads),
            "OMP_WAIT_POLICY": arguments.wait_policy,
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `end`)
        self.process = subprocess.Popen(
            [python, "-m", module, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def read(self) -> dict:
        """The next answer."""
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            last = self.errors.read().strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"contender {self.name} ended: {last[0]}")
        return json.loads(line)

    def epoch(self) -> dict:
        """Seconds of one more epoch, and the LogLoss after it."""
        print(file=self.process.stdin, flush=True)
        return self.read()

    def end(self) -> None:
        """Close the pipe; the contender then ends by itself."""
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def race(arguments: argparse.Namespace, model: str, batch: int, names: list[str]) -> dict[str, dict]:
    """Train all contenders in turns; for each its parameters, seconds and LogLoss of every round."""
    processes = {name: Process(name, arguments, model, batch) for name in names}
    try:
        found = {name: process.read() | {"rounds": []} for name, process in processes.items()}
        for turn in tqdm(range(arguments.repeats + 1), desc=f"{model} batch {batch}", unit="round"):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                found[name]["rounds"].append(processes[name].epoch())
    finally:
        for process in processes.values():
            process.end()
    for name, contender in found.items():
        rounds = contender.pop("rounds")
        contender["seconds"] = [counted["seconds"] for counted in rounds[1:]]
        contender["logloss"] = [counted["logloss"] for counted in rounds]
        if contender["logloss"][-1] > contender["logloss"][0]:
            raise UserError(f"contender {name} did not learn: LogLoss {contender['logloss']}")
    return found


def judge(goal: Goal, contenders: dict[str, dict]) -> dict:
    """Median, least and greatest ratio over the rounds, and whether the goal is met."""
    pairs = zip(contenders[goal.above]["seconds"], contenders[goal.below]["seconds"], strict=True)
    ratios = [above / below for above, below in pairs]
    ratio = statistics.median(ratios)
    met = ratio >= goal.at_least if goal.at_least is not None else ratio <= goal.at_most
    return asdict(goal) | {"ratio": ratio, "least": min(ratios), "greatest": max(ratios), "met": met}


def show(result: dict) -> None:
    """Print the table of one race."""
    print(f"\n{result['model']}, batch {result['batch']}")
    for name, contender in result["contenders"].items():
        seconds = contender["seconds"]
        spread = f"({min(seconds):.2f} to {max(seconds):.2f})"
        print(
            f"  {name:8} {statistics.median(seconds):7.2f} s an epoch {spread}"
            f"  {contender['parameters']:>8,} parameters  LogLoss {contender['logloss'][-1]:.4f}"
            f"  {contender['software']}"
        )
    for goal in result["goals"]:
        sign, bound = ("<=", goal["at_most"]) if goal["at_most"] is not None else (">=", goal["at_least"])
        print(
            f"  {goal['above']} / {goal['below']} = {goal['ratio']:.2f} ({goal['least']:.2f} to"
            f" {goal['greatest']:.2f}), goal {sign} {bound}: {'met' if goal['met'] else 'MISSED'}"
        )


def peers_missing(python: Path) -> dict[str, str]:
    """The peers that cannot be imported, with the reason."""
    if not python.exists():
        return dict.fromkeys(("fuxictr", "rechub"), "there is no environment for the peers, see --help")
    missing = {}
    for name, package in (("fuxictr", "fuxictr.pytorch.models"), ("rechub", "torch_rechub.models.ranking")):
        tried = subprocess.run(
            [python, "-c", f"import {package}"], capture_output=True, text=True, check=False
        )
        if tried.returncode:
            missing[name] = (tried.stderr.strip().splitlines() or ["import failed"])[-1]
    return missing


def positive(text: str) -> int:
    """An argument that must be a whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    """Run the races that the command line asks for."""
    summary, _, examples = __doc__.partition("\nexamples:\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.training",
        description=summary,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--batches", nargs="+", type=positive, default=[256, 2048])
    parser.add_argument("--samples", type=positive, default=200_000, help="an epoch's (default: %(default)s)")
    parser.add_argument("--repeats", type=positive, default=5, help="counted rounds (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=cpu_count(), help="of torch (default: all cores)")
    parser.add_argument("--wait-policy", default="PASSIVE", help="OMP_WAIT_POLICY (default: %(default)s)")
    parser.add_argument("--bench-python", type=Path, default=BENCH_PYTHON, help="Python of the peers")
    parser.add_argument("--record", metavar="NAME", help="write figures/bench/NAME.json")
    arguments = parser.parse_args()
    if arguments.samples < N_CHECKED:
        raise UserError(f"--samples must be at least {N_CHECKED}, of which the LogLoss is told")
    skipped = peers_missing(arguments.bench_python)
    for name, reason in skipped.items():
        print(f"{name} is skipped: {reason}")
    results = []
    for model in arguments.models:
        for batch in arguments.batches:
            planned = [g for g in goals(model) if g.above not in skipped]
            names = list(dict.fromkeys(["loop", *(g.below for g in planned), *(g.above for g in planned)]))
            contenders = race(arguments, model, batch, names)
            judged = [judge(goal, contenders) for goal in planned]
            results.append({"model": model, "batch": batch, "contenders": contenders, "goals": judged})
            show(results[-1])
    if arguments.record:
        record = {
            "benchmark": "training",
            "samples": arguments.samples,
            "repeats": arguments.repeats,
            "omp_wait_policy": arguments.wait_policy,
            "skipped": skipped,
            "results": results,
            "hardware": machine.hardware() | {"threads": arguments.threads},
            "versions": machine.versions(),
            "git": machine.git(),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        path = output_dir() / "bench" / f"{arguments.record}.json"
        write_atomic(path, json.dumps(record, indent=1) + "\n")
        print(f"\nwrote {path}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
