"""How much memory and time does it take to build a data set of millions of reviews?

A file of Amazon's format is generated (JSON lines with review texts, packed, with metadata) and built into
tables in a process of its own; then the part in which every user has 60 reviews and every item 40 is found,
as KAR's authors did with books, in another. The most memory either held at once is the kernel's count of
what was resident, Python and all.

examples:
  python -m tests.bench.raw_data --reviews 100000           seconds
  python -m tests.bench.raw_data --record raw_data          20 million: ten minutes, 10 GB of disk
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from data_prep import catalog
from data_prep.build import Built, build
from data_prep.kcore import k_core
from data_prep.streaming import limit_memory
from rec_utils import machine
from rec_utils.files import write_atomic
from rec_utils.settings import output_dir
from tests.bench.training import positive

#: Reviews a user and an item have on average: those of the 5-core of Amazon's books of 2018, about.
PER_USER, PER_ITEM = 15, 40
#: The most memory of the goal, in GB.
AT_MOST = 2

#: A draw between 0 and 1 that depends on the row and on a number.
_DRAW = "(hash(row, {}) / 18446744073709551616.0)"

#: Users and items are drawn by the cube of an even draw, so that a few have very many reviews.
_REVIEWS = """
    SELECT (5 - floor(5 * pow({0}, 2)))::DOUBLE AS overall, {1} < 0.7 AS verified,
           '01 1, 2015' AS "reviewTime",
           'A' || upper(to_base(floor({users} * pow({2}, 3))::BIGINT, 36, 12)) AS "reviewerID",
           upper(to_base(floor({items} * pow({3}, 3))::BIGINT, 36, 10)) AS asin,
           {{'Format:': ' Paperback'}} AS style, 'A reader' AS "reviewerName",
           text AS "reviewText", 'So it goes' AS summary,
           832550400 + (706000000 * {4})::BIGINT AS "unixReviewTime"
    FROM range({n}) AS rows(row) JOIN texts ON hash(row, 5) % 5000 = number
"""
_TEXTS = """
    CREATE TABLE texts AS
    SELECT number::UBIGINT AS number, string_agg(word, ' ' ORDER BY hash(again, word, number)) AS text
    FROM range(5000) AS numbers(number),
         (SELECT unnest(['a "good"', 'the', 'story', 'of', 'plot', 'reads', 'as', 'café', 'slowly']) AS word),
         range(6) AS times(again)
    WHERE hash(number, word, again) % 2 = 0
    GROUP BY number
"""
_META = """
    SELECT upper(to_base(row, 36, 10)) AS asin, 'Book number ' || row AS title,
           'Author ' || row % 9973 AS brand,
           ['Books', 'Shelf ' || row % 31, 'Board ' || row % 577] AS category,
           'What the publisher says about it. ' AS description
    FROM range({items}) AS rows(row)
"""


def generate(n: int, folder: Path) -> dict[str, Any]:
    """Write `n` reviews and the metadata of all items as Amazon does; returns the sizes of the files."""
    draws = [_DRAW.format(number) for number in range(5)]
    counts = {"n": n, "users": n // PER_USER, "items": n // PER_ITEM}
    queries = {"Books_5": _REVIEWS.format(*draws, **counts), "meta_Books": _META.format(**counts)}
    with duckdb.connect() as connection:
        limit_memory(connection, folder)
        connection.execute(_TEXTS)
        for name, query in queries.items():
            plain = folder / f"{name}.json"
            connection.execute(f"COPY ({query}) TO '{plain}' (FORMAT json)")
            # DuckDB packs ten times slower than this level
            with plain.open("rb") as file, gzip.open(f"{plain}.gz", "wb", compresslevel=1) as packed:
                shutil.copyfileobj(file, packed, 1 << 20)
            plain.unlink()
    return {path.name: path.stat().st_size for path in sorted(folder.glob("*.json.gz"))}


def build_books(folder: Path) -> dict[str, Any]:
    """Build the generated files; returns the rows of the tables."""
    built, now = build(catalog.entry("amazon-books"), folder)
    assert now
    return built.rows


def core(folder: Path) -> dict[str, Any]:
    """Find the core of the built tables; returns its size."""
    built = Built.read("amazon-books")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        connection = duckdb.connect(f"{scratch}/core.duckdb")
        limit_memory(connection, Path(scratch))
        connection.read_parquet(str(built.folder / "interactions.parquet")).create("ratings")
        rounds = k_core(connection, "ratings", user_core=60, item_core=40)
        counts = "count(*), count(DISTINCT user_id), count(DISTINCT item_id)"
        ratings, users, items = connection.execute(f"SELECT {counts} FROM ratings").fetchall()[0]
        connection.close()
    return {"rounds": rounds, "ratings": ratings, "users": users, "items": items}


def measured(step: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a step returns, and what it took; to be called in a new process."""
    start = time.perf_counter()
    result = step(*arguments)
    return {
        "step": step.__name__,
        "result": result,
        "seconds": round(time.perf_counter() - start, 1),
        # kilobytes on Linux
        "peak memory (GB)": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
    }


def in_a_process(step: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The same of a new process, so that no step's memory counts as another's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        row = pool.submit(measured, step, *arguments).result()
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    """Measure, print and perhaps record."""
    summary, _, examples = __doc__.partition("\nexamples:\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.raw_data",
        description=summary,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--reviews", type=positive, default=20_000_000, help="default: %(default)s")
    parser.add_argument("--record", metavar="NAME", help="write figures/bench/NAME.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["REC_DATA"] = str(folder / "data")
        files = in_a_process(generate, arguments.reviews, folder)
        rows = [in_a_process(build_books, folder), in_a_process(core, folder)]
    for row in rows:
        row["within the goal"] = row["peak memory (GB)"] <= AT_MOST
    if arguments.record:
        record = {
            "benchmark": "raw data",
            "reviews": arguments.reviews,
            "goal": f"at most {AT_MOST} GB of memory",
            "files": files["result"],
            "results": rows,
            "load": os.getloadavg()[0],
            "hardware": machine.hardware(),
            "versions": machine.versions() | {"duckdb": duckdb.__version__},
            "git": machine.git(),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        write_atomic(output_dir() / "bench" / f"{arguments.record}.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    from rec_utils.errors import run_cli

    sys.exit(run_cli(main))
