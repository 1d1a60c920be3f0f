"""Every notebook, executed again, must show what it shows (see `tests/run_nbval.py`)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rec_utils import records
from rec_utils.plans import notebook_names
from rec_utils.settings import NOTEBOOKS, ROOT


def seconds(name: str) -> float:
    """How long the notebook took when it was recorded; 0 if it was not."""
    found = [r for r in records.load(name, folders=[records.COMMITTED]) if r.run_id == "laptop"]
    return sum(record.seconds for record in found)


# the longest first, so that two workers end together
@pytest.mark.parametrize("name", sorted(notebook_names(NOTEBOOKS), key=seconds, reverse=True))
def test_outputs_are_reproduced(name):
    command = [sys.executable, str(ROOT / "tests/run_nbval.py"), name]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout
