"""The contender's end of the benchmark: build once, then train one epoch for every line on stdin.

Needs NumPy only, since a peer's environment does not have this project's packages.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.bench import synthetic

N_CHECKED = 4096  # samples of which the LogLoss is told, outside the timed part


@dataclass(frozen=True)
class Contender:
    """A model in training."""

    epoch: Callable[[], object]  #: trains once over all samples
    predict: Callable[[], np.ndarray]  #: probabilities of the first `N_CHECKED` samples
    parameters: int
    software: str


def serve(build: Callable[[argparse.Namespace, synthetic.Ratings], Contender]) -> None:
    """Parse the arguments, build, say "ready", and answer each line of stdin with one epoch's seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    data = synthetic.ratings(arguments.samples)
    contender = build(arguments, data)
    print(json.dumps({"parameters": contender.parameters, "software": contender.software}), file=answers)
    label = data.label[:N_CHECKED]
    for _ in sys.stdin:
        start = time.perf_counter()
        contender.epoch()
        seconds = time.perf_counter() - start
        probability = np.clip(contender.predict(), 1e-7, 1 - 1e-7)
        logloss = -np.log(np.where(label == 1, probability, 1 - probability)).mean()
        print(json.dumps({"seconds": seconds, "logloss": float(logloss)}), file=answers)
