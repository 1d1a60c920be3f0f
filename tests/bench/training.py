"""How fast are training and inference? Pairs them with others in one run, on the same data and sizes.

DeepFM, DCNv2 and DIN on synthetic ratings, in batches of 256 and of 2048:

- against a bare loop over the same model and tensors, the limit: at most 1.1 times its time;
- FuxiCTR, RecBole, DeepCTR-Torch and torch-rechub against ours: at least 1.5 times our time;
- DIN with its attention factorised, as ours is, and in its usual form;
- KAR with stored text vectors against its base: training takes at most 1.5 times its time.

Every contender is a process of its own with one thread that builds its model once. They take turns in an
order that rotates: train one epoch, then predict all samples in batches of the same size. The first round
warms up and is not counted. Times are the processor's, so that other work on the machine counts less; those
by the clock are recorded, too. A ratio is the median over rounds. The LogLoss after each epoch shows that all
of them learn.

examples:
  python -m tests.bench.training                    everything: half an hour on a quiet machine
  python -m tests.bench.training --models DIN --batches 256 --samples 20000 --repeats 1
  python -m tests.bench.training --record training  and write figures/bench/training.json

A recorded run that was interrupted goes on after the last race that it finished.

The peers live in environments of their own; without them they are skipped, and the record says so:
  python -m venv .venv-bench
  .venv-bench/bin/pip install fuxictr==2.3.10 torch-rechub==0.9.0 deepctr-torch==0.3.0 torch==2.13.0
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
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rec_utils import machine
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.settings import ROOT, output_dir, runs_dir
from tests.bench.goals import BOTH, contenders, judge

MODELS = ("DeepFM", "DCNv2", "DIN")


@dataclass(frozen=True)
class Peer:
    """Where a peer lives."""

    environment: str  #: folder in the repository
    module: str  #: of tests.bench
    imported: str  #: what must be there

    @property
    def python(self) -> Path:
        return ROOT / self.environment / "bin" / "python"


PEERS = {
    "fuxictr": Peer(".venv-bench", "peer_fuxictr", "fuxictr.pytorch.models"),
    "recbole": Peer(".venv-recbole", "peer_recbole_ctr", "recbole.config"),
    "deepctr": Peer(".venv-bench", "peer_deepctr", "deepctr_torch.models"),
    "rechub": Peer(".venv-bench", "peer_rechub", "torch_rechub.models.ranking"),
}
#: Peers whose model is not comparable: (peer, model) -> why.
UNEQUAL = {
    (
        "recbole",
        "DIN",
    ): "its DIN reads the items of a history without their ratings, so it has less to compute"
}


class Process:
    """A contender at the other end of a pipe."""

    def __init__(self, name: str, model: str, batch: int, samples: int) -> None:
        peer = PEERS.get(name)
        python = peer.python if peer else Path(sys.executable)
        module = f"tests.bench.{peer.module if peer else 'ours'}"
        reading, writing = os.pipe()  # not stdout, where libraries print
        options = {"--model": model, "--batch": batch, "--samples": samples, "--answers": writing}
        environment = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "https_proxy": "http://localhost:9",  # DeepCTR-Torch asks the internet for newer versions
        }
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in `end`)
        self.folder = tempfile.TemporaryDirectory()  # for what a library leaves where it runs
        self.process = subprocess.Popen(
            [python, "-m", module, "--kind", name, *map(str, chain(*options.items()))],
            stdin=subprocess.PIPE,
            stdout=self.errors,
            stderr=self.errors,
            pass_fds=[writing],
            text=True,
            cwd=self.folder.name,
            env=os.environ | environment,
        )
        os.close(writing)
        self.answers = os.fdopen(reading)

    def read(self) -> dict[str, Any]:
        """The next answer."""
        line = self.answers.readline()
        if not line:
            self.errors.seek(0)
            last = self.errors.read().strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"contender {self.name} ended: {last[0]}")
        return json.loads(line)

    def turn(self) -> dict[str, Any]:
        """Seconds of one more epoch and of one prediction of all samples, and the LogLoss."""
        print(file=self.process.stdin, flush=True)
        return self.read()

    def end(self) -> None:
        """Close the pipe; the contender then ends by itself."""
        self.process.stdin.close()
        self.process.wait()
        self.answers.close()
        self.errors.close()
        self.folder.cleanup()


def race(model: str, batch: int, names: list[str], samples: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Let all contenders take turns; for each what it is, and LogLoss and seconds of every round."""
    processes: dict[str, Process] = {}
    try:
        for name in names:
            processes[name] = Process(name, model, batch, samples)
        found = {name: process.read() for name, process in processes.items()}
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for turn in tqdm(range(repeats + 1), desc=f"{model} batch {batch}", unit="round"):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                rounds[name].append(processes[name].turn())
    finally:
        for process in processes.values():
            process.end()
    for name, turns in rounds.items():
        losses = [turn["logloss"] for turn in turns]
        if losses[-1] >= losses[0]:
            raise UserError(f"contender {name} did not learn: LogLoss {losses}")
        found[name]["logloss"] = losses
        for of in BOTH:
            found[name][of] = {
                clock: [turn[of][clock] for turn in turns[1:]] for clock in ("processor", "clock")
            }
    return found


def show(result: dict[str, Any]) -> None:
    """Print the table of one race."""
    print(f"\n{result['model']}, batch {result['batch']}")
    for name, contender in result["contenders"].items():
        train, predict = (statistics.median(contender[of]["processor"]) for of in BOTH)
        print(
            f"  {name:8} {train:7.2f} s an epoch, {predict:6.2f} s a prediction,"
            f" {contender['parameters']:>8,} parameters, LogLoss {contender['logloss'][-1]:.4f},"
            f" {contender['software']}"
        )
    for name, reason in result["skipped"].items():
        print(f"  {name} is skipped: {reason}")
    for goal in result["goals"]:
        bounds = {"<=": goal["at_most"], ">=": goal["at_least"]}
        told = "".join(f", goal {sign} {bound}" for sign, bound in bounds.items() if bound is not None)
        verdict = {True: ": met", False: ": MISSED", None: ""}[goal["met"]]
        print(
            f"  {goal['of']:7} {goal['above']} / {goal['below']} = {goal['ratio']:.2f}"
            f" ({goal['least']:.2f} to {goal['greatest']:.2f}), by the clock"
            f" {goal['by the clock']:.2f}{told}{verdict}"
        )


def missing() -> dict[str, str]:
    """The peers that cannot be imported, with the reason."""
    reasons = {}
    for name, peer in PEERS.items():
        if not peer.python.exists():
            reasons[name] = f"there is no {peer.environment}, see --help"
            continue
        command = [peer.python, "-c", f"import {peer.imported}"]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        if tried.returncode:
            reasons[name] = (tried.stderr.strip().splitlines() or ["import failed"])[-1]
    return reasons


class Recording:
    """The record of a run, kept race by race outside the results until the run is complete."""

    def __init__(self, name: str, samples: int, repeats: int) -> None:
        self.path = output_dir() / "bench" / f"{name}.json"
        self.part = runs_dir() / "bench" / f"{name}.json"
        self.settings = {
            "benchmark": "training",
            "samples": samples,
            "repeats": repeats,
            "hardware": machine.hardware() | {"threads": 1},
            "versions": machine.versions(),
        }
        self.results: list[dict[str, Any]] = []
        if self.part.exists():
            kept = json.loads(self.part.read_text(encoding="utf-8"))
            if all(kept[key] == value for key, value in self.settings.items()):
                self.results = kept["results"]

    def find(self, model: str, batch: int) -> dict[str, Any] | None:
        """The race of an interrupted run with the same settings, if it was finished."""
        return next((r for r in self.results if (r["model"], r["batch"]) == (model, batch)), None)

    def add(self, result: dict[str, Any]) -> None:
        """Keep a race, with the commit that was measured."""
        self.results.append(result | {"git": machine.git()})
        write_atomic(self.part, json.dumps(self.settings | {"results": self.results}) + "\n")

    def finish(self) -> Path:
        """Write the record of the whole run."""
        finished = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        record = self.settings | {"results": self.results, "finished": finished}
        write_atomic(self.path, json.dumps(record, indent=1) + "\n")
        self.part.unlink()
        return self.path


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
    parser.add_argument("--samples", type=positive, default=100_000, help="an epoch's (default: %(default)s)")
    parser.add_argument("--repeats", type=positive, default=5, help="counted rounds (default: %(default)s)")
    parser.add_argument("--record", metavar="NAME", help="write figures/bench/NAME.json")
    arguments = parser.parse_args()
    absent = missing()
    recording = (
        Recording(arguments.record, arguments.samples, arguments.repeats) if arguments.record else None
    )
    for model in arguments.models:
        for batch in arguments.batches:
            kept = recording.find(model, batch) if recording else None
            if kept:
                print("\nkept from the run that was interrupted:", end="")
                show(kept)
                continue
            skipped = absent | {peer: why for (peer, of), why in UNEQUAL.items() if of == model}
            names = contenders(model, skipped)
            raced = race(model, batch, names, arguments.samples, arguments.repeats)
            result = {"model": model, "batch": batch, "contenders": raced, "skipped": skipped}
            result["goals"] = judge(raced)
            show(result)
            if recording:
                recording.add(result)
    if recording:
        print(f"\nwrote {recording.finish()}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
