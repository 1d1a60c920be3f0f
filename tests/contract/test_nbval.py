"""Every notebook, executed again, must show what it shows (see `tests/run_nbval.py`).

`make test` runs those that measure times one after another and with nothing beside them, the others two at a
time.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from rec_utils.plans import notebook_names
from rec_utils.settings import NOTEBOOKS, ROOT

#: Notebooks with verdicts on times.
TIMED = (
    "01_kar",
    "03_liber_cost",
    "04_clickprompt",
    "05_corella",
    "06_dare",
    "07_relife",
    "T3_speculative_decoding",
)
#: What measures times in a notebook; DARE's study does so by itself.
CLOCKS = re.compile(r"\b(paired_ratios|perf_counter|process_time|dare_study)\b")


def reproduce(name: str) -> None:
    """Execute the notebook in a process of its own and compare."""
    command = [sys.executable, str(ROOT / "tests/run_nbval.py"), name]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", TIMED)
def test_outputs_are_reproduced_alone(name):
    reproduce(name)


@pytest.mark.parametrize("name", [name for name in notebook_names(NOTEBOOKS) if name not in TIMED])
def test_outputs_are_reproduced(name):
    reproduce(name)


def test_what_measures_times_is_known():
    twins = {path.stem: path.read_text() for path in (NOTEBOOKS / "src").rglob("*.py")}
    assert sorted(name for name, text in twins.items() if CLOCKS.search(text)) == list(TIMED)
