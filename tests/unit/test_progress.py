"""Bars are shown where a person looks, and never where an output is stored."""

import subprocess
import sys

import pytest

SCRIPT = "from rec_utils.progress import bar\nwith bar({shown}, total=1, desc='fits') as b: b.update()"


@pytest.mark.parametrize(
    ("shown", "switched_off", "visible"),
    [(True, False, True), (False, False, False), (True, True, False)],
)
def test_a_bar_is_visible_unless_it_is_switched_off(shown, switched_off, visible, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if switched_off:
        monkeypatch.setenv("TQDM_DISABLE", "1")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(shown=shown)], capture_output=True, text=True, check=True
    )
    assert ("fits" in run.stderr) == visible
    assert run.stdout == ""
