"""DuckDB on data larger than memory: limits, and a bar that follows a statement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import duckdb
from tqdm import tqdm

from rec_utils.settings import cpu_count

#: What DuckDB may hold in memory; larger tables spill to disk.
MEMORY = "1GB"

#: Seconds between two looks at a statement's progress.
INTERVAL = 0.5


def limit_memory(connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
    """Keep a connection within `MEMORY`; what does not fit is written into the folder `scratch`."""
    connection.execute(f"SET threads = {cpu_count()}; SET memory_limit = '{MEMORY}'")
    connection.execute(f"SET temp_directory = '{str(scratch / 'spill').replace(chr(39), 2 * chr(39))}'")
    # progress is counted only where a bar is on; ours is drawn instead of DuckDB's
    connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    connection.execute("SET progress_bar_time = 0")


@contextmanager
def follow(connection: duckdb.DuckDBPyConnection, steps: tqdm, label: str) -> Iterator[None]:
    """Let the bar `steps` show how far the statements of the block are; it is one step further at its end."""
    steps.set_postfix_str(label)
    start, ended = steps.n, Event()

    def look() -> None:
        while not ended.wait(INTERVAL):
            share = min(max(connection.query_progress() / 100, 0), 1)
            # a block may hold several statements: never go back
            steps.n = max(steps.n, start + share)
            steps.refresh()

    watcher = Thread(target=look, daemon=True)
    if not steps.disable:
        watcher.start()
    try:
        yield
    finally:
        ended.set()
        if not steps.disable:
            watcher.join()
    steps.n = start
    steps.update()
