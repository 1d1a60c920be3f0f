"""The contender's end of the benchmark: build once, then train and predict for every line on stdin.

Needs NumPy only, since a peer's environment does not have this project's packages.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.bench import synthetic


@dataclass(frozen=True)
class Contender:
    """A model in training."""

    epoch: Callable[[], object]  #: trains once over all samples, in an order of its own
    predict: Callable[[], np.ndarray]  #: probabilities [N] of all samples in their order, in evaluation mode
    parameters: int
    software: str


def timed(call: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds that a call took, and what it returns.

    The processor's seconds are those of all threads of this process, and of its children that have ended.
    """

    def processor() -> float:
        spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(times.ru_utime + times.ru_stime for times in spent)

    before, start = processor(), time.perf_counter()
    found = call()
    clock = time.perf_counter() - start
    return {"processor": processor() - before, "clock": clock}, found


def logloss(label: np.ndarray, probability: np.ndarray) -> float:
    """Mean LogLoss of labels [N] and probabilities [N]."""
    probability = np.clip(probability, 1e-7, 1 - 1e-7)
    return float(-np.log(np.where(label == 1, probability, 1 - probability)).mean())


def serve(build: Callable[[argparse.Namespace, synthetic.Ratings], Contender]) -> None:
    """Build, say what it is, and answer each line of stdin with one epoch and one prediction."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--answers", type=int, required=True, help="file descriptor to write to")
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads the command line, too
    answers = os.fdopen(arguments.answers, "w", buffering=1)
    data = synthetic.ratings(arguments.samples)
    contender = build(arguments, data)
    print(json.dumps({"parameters": contender.parameters, "software": contender.software}), file=answers)
    for _ in sys.stdin:
        trained, _ = timed(contender.epoch)
        predicted, probability = timed(contender.predict)
        answer = {"train": trained, "predict": predicted, "logloss": logloss(data.label, probability)}
        print(json.dumps(answer), file=answers)
