"""Every notebook, executed again, must show what it shows (see `tests/run_nbval.py`).

The longest are compared where `LONG` is set (`make test LONG=1`); elsewhere they run at profile smoke.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rec_utils import records
from rec_utils.plans import notebook_names
from rec_utils.settings import NOTEBOOKS, ROOT

#: More than six minutes each on one core.
LONG = ("01_kar", "05_corella", "10_diffusion_survey")


def seconds(name: str) -> float:
    """How long the notebook took when it was recorded; 0 if it was not."""
    found = [r for r in records.load(name, folders=[records.COMMITTED]) if r.run_id == "laptop"]
    return sum(record.seconds for record in found)


def succeeds(*command: str) -> None:
    result = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == 0, result.stdout


# the longest first, so that two workers end together
@pytest.mark.parametrize("name", sorted(notebook_names(NOTEBOOKS), key=seconds, reverse=True))
def test_outputs_are_reproduced(name):
    if name in LONG and not os.environ.get("LONG"):
        pytest.skip("one of the longest: make test LONG=1")
    succeeds(str(ROOT / "tests/run_nbval.py"), name)


@pytest.mark.skipif(bool(os.environ.get("LONG")), reason="they are compared")
@pytest.mark.parametrize("name", LONG)
def test_a_long_notebook_runs_at_profile_smoke(name, tmp_path, monkeypatch):
    monkeypatch.setenv("REC_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path / "output"))
    succeeds("-m", "rec_utils.batch", "run", name, "--profile", "smoke")
