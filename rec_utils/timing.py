"""How much longer does one piece of code take than another, on a machine that does other things too?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from rec_utils.errors import UserError
from rec_utils.stats import Interval


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, as small models do best and timings need, and restore it after."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def clock() -> float:
    """Seconds of the processor, so that other work of the machine does not count; by the clock with a GPU."""
    return time.perf_counter() if torch.accelerator.is_available() else time.process_time()


def paired_ratios(
    functions: Mapping[str, Callable[[], object]], repeats: int, *, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Time of each function over the time of the first, as a ratio of medians.

    The functions take turns on one torch thread, in a new order each round, so that a slow spell of the
    machine meets all of them. The interval is a bootstrap over rounds.

    Args:
        functions: name -> call to time; each runs twice unmeasured first.
        repeats: number of rounds.
        seed: of the orders and the bootstrap.
        level: of the interval.

    Returns:
        name -> ratio; 1 without spread for the first.
    """
    if repeats < 2:
        raise UserError(f"repeats must be at least 2, not {repeats}")
    rng = np.random.default_rng(seed)
    calls = list(functions.values())
    seconds = np.empty((repeats, len(calls)))
    with one_thread():
        for call in calls * 2:
            call()
        for row in seconds:
            for place in rng.permutation(len(calls)):
                start = clock()
                calls[place]()
                row[place] = clock() - start
    median = np.median(seconds, axis=0)
    draws = np.median(seconds[rng.integers(repeats, size=(1000, repeats))], axis=1)
    ratios = draws / draws[:, :1]
    tail = (1 - level) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail], axis=0)
    return {
        name: Interval(float(median[k] / median[0]), float(low[k]), float(high[k]), level, repeats)
        for k, name in enumerate(functions)
    }
