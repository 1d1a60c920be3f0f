"""Every notebook, executed again, must show what it shows (see `tests/run_nbval.py`)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rec_utils.plans import notebook_names
from rec_utils.settings import NOTEBOOKS, ROOT


@pytest.mark.parametrize("name", notebook_names(NOTEBOOKS))
def test_outputs_are_reproduced(name):
    command = [sys.executable, str(ROOT / "tests/run_nbval.py"), name]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout
