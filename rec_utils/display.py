"""What the batch runner shows: progress bars while notebooks run, and tables of text."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from rec_utils.errors import CONTROL
from rec_utils.plans import Run
from rec_utils.runs import State

_FORM = "{desc} |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}]{postfix}"


class Display:
    """A bar over all runs and one for each running notebook; on anything but a terminal, plain lines."""

    def __init__(self, n_runs: int, n_slots: int) -> None:
        disable = True if os.environ.get("TQDM_DISABLE") else None  # None: unless on a terminal
        self.total = tqdm(total=n_runs, unit="run", desc="batch", disable=disable)
        self.bars = [
            tqdm(position=slot + 1, leave=False, disable=disable, bar_format=_FORM, total=1)
            for slot in range(n_slots)
        ]

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in [*reversed(self.bars), self.total]:
            bar.close()

    def start(self, slot: int, run: Run) -> None:
        """A run begins on a slot."""
        bar = self.bars[slot]
        if bar.disable:
            self._say(f"{run.label}: started")
        else:
            bar.reset(total=1)
            bar.set_postfix_str("starting a kernel", refresh=False)
            bar.set_description_str(run.label)

    def cell(self, slot: int, event: dict[str, Any]) -> None:
        """A cell starts; `event` is as in `rec_utils.execute`."""
        bar = self.bars[slot]
        if not bar.disable:
            bar.total, bar.n = event["of"], event["cell"] - 1
            bar.set_postfix_str(event["title"][:40])

    def end(self, run: Run, state: State) -> None:
        """A run has ended."""
        self._say(f"{run.label}: {state.status} after {state.seconds:.0f} s {state.problem}".strip())
        self.total.update()

    async def tick(self) -> None:
        """Keep the clocks of the bars going during a long cell."""
        while True:
            await asyncio.sleep(1)
            for bar in [self.total, *self.bars]:
                bar.refresh()

    @staticmethod
    def _say(text: str) -> None:
        tqdm.write(CONTROL.sub("?", text), file=sys.stderr)


def format_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Rows of text as a table with aligned columns."""
    rows = [[CONTROL.sub("?", cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
