"""Execute notebooks again and compare with the stored outputs: `python tests/run_nbval.py [NAME...]`.

nbval does the comparison. What it cannot see is a comparison that never happens: a cell without execution
count passes whatever it shows. So the comparisons are counted, and a notebook with none fails.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell

from rec_utils import settings
from rec_utils.errors import run_cli
from rec_utils.notebook_rules import is_compared
from rec_utils.plans import choose_notebooks
from rec_utils.runs import kernel_environment
from rec_utils.settings import notebook_path


class ComparisonCounter:
    """A pytest plugin that counts nbval's comparisons and fails a session with a notebook that has none."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Wrap the comparison of a cell, so that only one that really happens is counted."""
        if isinstance(item, IPyNbCell):
            self.counts[item.path.stem] += 0
            compare = item.compare_outputs

            def counted(*args: object, **kwargs: object) -> bool:
                self.counts[item.path.stem] += is_compared(item.cell)
                return compare(*args, **kwargs)

            item.compare_outputs = counted

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a vacuous success into a failure."""
        if session.exitstatus == pytest.ExitCode.OK and 0 in self.counts.values():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the counts."""
        for name, count in self.counts.items():
            note = "" if count else ": FAILED, a run that compares nothing proves nothing"
            terminalreporter.write_line(f"{name}: {count} cells compared{note}")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all notebooks")
    parser.add_argument("--notebooks", type=Path, default=settings.NOTEBOOKS, metavar="DIR")
    options = parser.parse_args(arguments)
    names = choose_notebooks(options.notebooks, options.names)
    command = [
        *("--nbval", "--nbval-cell-timeout=3600", "--tb=short", "-p", "no:cacheprovider"),
        *("-W", "ignore::pytest.PytestAssertRewriteWarning", "-c", str(settings.ROOT / "pyproject.toml")),
        *(str(notebook_path(options.notebooks, name)) for name in names),
    ]
    # figures and records go to a temporary folder: the committed ones stay as they are
    with tempfile.TemporaryDirectory() as output, kernel_environment(Path(output)) as (_, environment):
        os.environ.update(environment)
        return int(pytest.main(command, plugins=[ComparisonCounter()]))


if __name__ == "__main__":
    sys.exit(run_cli(main))
