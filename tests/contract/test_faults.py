import subprocess
import sys

import pytest

from rec_utils.errors import UserError
from rec_utils.settings import ROOT
from tests.fault_matrix import FAULTS, REASONS, STAGES, Cell, render


def test_the_page_of_faults_is_what_the_tests_say():
    command = [sys.executable, "-m", "tests.fault_matrix", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_cell_is_silent():
    cells = {
        (fault, stage): Cell(["It goes on."], ["[test](test.py)"])
        for fault in FAULTS
        for stage in STAGES
        if (fault, stage) not in REASONS
    }
    assert "| build | It goes on. | [test](test.py) |" in render(cells)
    with pytest.raises(UserError, match="SIGKILL at build: give a test or a reason"):
        render({key: cell for key, cell in cells.items() if key != ("SIGKILL", "build")})
    with pytest.raises(UserError, match="clock change at grid: give a test or a reason"):
        render(cells | {("clock change", "grid"): Cell(["It goes on."], ["[test](test.py)"])})
