"""Whether two runs found the same: `python -m rec_utils.compare A.json B.json`.

Prints what differs between two records besides times, memory, date, machine and commit, and then exits with
status 1. On one machine two runs of a notebook with the same parameters differ in nothing, unless it measures
times.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rec_utils import records
from rec_utils.errors import run_cli

#: What tells how and when a run was made, not what it found.
CIRCUMSTANCES = ("cell_seconds", "finished", "git", "hardware", "peak_memory_gb", "seconds")


def differences(a: Path, b: Path) -> list[str]:
    """A line for each number or text that two records do not share; `UserError` if one is damaged."""
    contents = []
    for path in (a, b):
        records.read(path)  # names a file that is no record
        content = json.loads(path.read_text(encoding="utf-8"))
        contents.append({key: value for key, value in content.items() if key not in CIRCUMSTANCES})
    return list(_differences(*contents, ""))


def _differences(one: Any, other: Any, at: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            place = f"{at}.{key}" if at else key
            if key in one and key in other:
                yield from _differences(one[key], other[key], place)
            else:
                yield f"{place}: only in the {'first' if key in one else 'second'}"
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{at}[{number}]")
    elif type(one) is not type(other) or one != other:
        yield f"{at}: {_short(one)} and {_short(other)}"


def _short(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, list | dict) else repr(value)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rec_utils.compare",
        description="Whether two run records hold the same; else what differs, and exit status 1.",
        epilog="example: python -m rec_utils.compare figures/records/01_kar/laptop.json mine/laptop.json",
    )
    parser.add_argument("a", type=Path, metavar="A.json")
    parser.add_argument("b", type=Path, metavar="B.json")
    options = parser.parse_args(arguments)
    found = differences(options.a, options.b)
    print("\n".join(found) or "the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
