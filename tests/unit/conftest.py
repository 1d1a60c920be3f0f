"""The stages of work on which faults are tried, in folders of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def make_stage(tmp_path, monkeypatch, record_text) -> Iterator:
    """`make_stage(name, home)`: a stage of `fault_stages.STAGES` that works below the folder `home`."""
    from tests.unit.fault_stages import STAGES

    made = []

    def make(name: str, home: Path | None = None):
        home = home or tmp_path / "home"
        for variable, folder in (("REC_DATA", "data"), ("REC_RUNS", "runs"), ("REC_OUTPUT", "output")):
            monkeypatch.setenv(variable, str(home / folder))
        made.append(STAGES[name](home, tmp_path / "safe", record_text))
        return made[-1]

    yield make
    for stage in made:
        stage.close()
