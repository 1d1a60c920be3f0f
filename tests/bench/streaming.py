"""Does LIBER's stream stay as fast and as small however much has come in?

Behaviours of 8,000 users arrive one by one. At every 50th of a user two contenders make a prompt:

- `partitions`, that is `ubsp.Stream`, of the last 50, which it then forgets;
- `whole histories`, the comparator, of all that the user ever did, which it must keep.

Each is a process of its own; they take turns, a tenth of the stream at a time. Time is the processor's, and
because the machine may have slow spells it is also told over that of a yardstick, run beside it: putting each
of the same behaviours into a text once. Memory is what the process has grown by. Either counts as constant
if its median over the second half of the stream is at most 1.1 times that over the first.

examples:
  python -m tests.bench.streaming                       4 million behaviours: a minute or two
  python -m tests.bench.streaming --behaviours 1000000
  python -m tests.bench.streaming --record streaming    and write figures/bench/streaming.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from tqdm import tqdm

from rec_utils import machine
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.papers.ubsp import Behaviour, Condition, Partition, Stream
from rec_utils.settings import output_dir
from tests.bench.training import positive

USERS, COUNT = 8_000, 50
TENTHS = 10
BLOCK = 10_000  #: behaviours made, and timed, at once
AT_MOST = 1.1
JUDGED = ["time over yardstick", "memory (MB)"]


class WholeHistories:
    """The comparator of a `Stream` that counts: what it hands out begins with a user's first behaviour."""

    def __init__(self) -> None:
        self.histories: dict[int, list[Behaviour]] = {}

    def append(self, user: int, behaviour: Behaviour) -> Partition | None:
        """Take in one behaviour; returns the whole history at every 50th."""
        history = self.histories.setdefault(user, [])
        history.append(behaviour)
        number, left = divmod(len(history), COUNT)
        return None if left else Partition(user, number - 1, 0, tuple(history))


CONTENDERS = {"partitions": lambda: Stream(Condition(count=COUNT)), "whole histories": WholeHistories}


def blocks() -> Iterator[list[tuple[int, Behaviour]]]:
    """A stream without end: users differ in how active they are; items and ratings are random."""
    rng = np.random.default_rng(0)
    activity = rng.lognormal(sigma=0.5, size=USERS)
    for start in count(0, BLOCK):
        user = rng.choice(USERS, BLOCK, p=activity / activity.sum()).tolist()
        item, rating = rng.integers(10_000, size=BLOCK).tolist(), rng.integers(1, 6, BLOCK).tolist()
        yield list(zip(user, map(Behaviour, item, rating, range(start, start + BLOCK)), strict=True))


def text(behaviours: Iterable[Behaviour]) -> str:
    """The part of a prompt that grows with the behaviours in it."""
    return "; ".join(f"{item} {rating:g}" for item, rating, _ in behaviours)


def tenths(contender: str, n_blocks: int) -> Iterator[dict[str, Any]]:
    """Play the stream, `n_blocks` blocks a tenth; yields what each tenth took."""
    kept, stream, process = CONTENDERS[contender](), blocks(), psutil.Process()
    before = process.memory_info().rss
    for tenth in range(1, TENTHS + 1):
        seconds = yardstick = read = 0
        for block in islice(stream, n_blocks):
            start = time.process_time()
            for user, behaviour in block:
                if closed := kept.append(user, behaviour):
                    text(closed.behaviours)
                    read += len(closed.behaviours)
            middle = time.process_time()
            text(behaviour for _, behaviour in block)
            seconds += middle - start
            yardstick += time.process_time() - middle
        row = {
            "contender": contender,
            "tenth": tenth,
            "microseconds an append": round(1e6 * seconds / n_blocks / BLOCK, 3),
            "time over yardstick": round(seconds / yardstick, 3),
            "behaviours read an append": round(read / n_blocks / BLOCK, 3),
            "memory (MB)": round((process.memory_info().rss - before) / 1e6, 1),
        }
        if isinstance(kept, Stream):
            row["saved state (MB)"] = round(saved_size(kept) / 1e6, 2)
        yield row


def saved_size(stream: Stream) -> int:
    """Bytes of the saved state."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.json"
        stream.save(path)
        return path.stat().st_size


@cache
def playing(contender: str, n_blocks: int) -> Iterator[dict[str, Any]]:
    """The one play of a contender's process, which goes on with each call of `next_tenth`."""
    return tenths(contender, n_blocks)


def next_tenth(contender: str, n_blocks: int) -> dict[str, Any]:
    """Play the next tenth of the stream in this process."""
    return next(playing(contender, n_blocks))


def race(n_blocks: int) -> list[dict[str, Any]]:
    """What each tenth of the stream took either contender."""
    rows, spawn = [], multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        workers = {name: stack.enter_context(ProcessPoolExecutor(1, spawn)) for name in CONTENDERS}
        for _ in tqdm(range(TENTHS), desc="stream", unit="tenth"):
            for name, worker in workers.items():
                rows.append(worker.submit(next_tenth, name, n_blocks).result())
    return rows


def judge(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians of the second half of the stream over those of the first, and whether they stay constant."""
    table = pd.DataFrame(rows)
    half = np.where(table["tenth"] > TENTHS / 2, "second", "first")
    median = table.groupby(["contender", half], sort=False)[JUDGED].median().stack()
    ratios = median.xs("second", level=1) / median.xs("first", level=1)
    return [
        {"contender": name, "of": of, "ratio": round(ratio, 3), "constant": ratio <= AT_MOST}
        for (name, of), ratio in ratios.items()
    ]


def main() -> None:
    """Measure, print and perhaps record."""
    summary, _, examples = __doc__.partition("\nexamples:\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.streaming",
        description=summary,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--behaviours", type=positive, default=4_000_000, help="default: %(default)s")
    parser.add_argument("--record", metavar="NAME", help="write figures/bench/NAME.json")
    arguments = parser.parse_args()
    n_blocks, left = divmod(arguments.behaviours, TENTHS * BLOCK)
    if left:
        raise UserError(f"--behaviours must be a multiple of {TENTHS * BLOCK}, not {arguments.behaviours}")
    rows = race(n_blocks)
    judged = judge(rows)
    print(pd.DataFrame(rows).set_index(["contender", "tenth"]).to_string(na_rep=""))
    for one in judged:
        verdict = "constant" if one["constant"] else "grows"
        print(f"{one['contender']}: {one['of']}, second half over first {one['ratio']}: {verdict}")
    if arguments.record:
        record = {
            "benchmark": "streaming",
            "behaviours": arguments.behaviours,
            "users": USERS,
            "count": COUNT,
            "results": rows,
            "second half over first": judged,
            "hardware": machine.hardware(),
            "versions": machine.versions(),
            "git": machine.git(),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        write_atomic(output_dir() / "bench" / f"{arguments.record}.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_cli(main))
