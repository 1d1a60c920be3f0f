"""What `rec_utils.launch` takes, refuses and writes, on one process."""

import json
import os
import signal
import subprocess
import sys

import pytest

from rec_utils import launch
from rec_utils.errors import UserError
from rec_utils.papers import corella_study
from rec_utils.papers.corella import Outcome


@pytest.fixture
def asked(monkeypatch):
    """The settings and sizes that a study was asked for; nothing is trained."""
    seen = []

    def study(settings, size, folder):
        import numpy as np

        seen.append((settings, size, folder))
        return np.array([0.0, 1.0, 1.0]), {"CRM": Outcome(0.25, np.array([0.2, 0.7, 0.9]))}, {}

    monkeypatch.setattr(corella_study, "from_settings", study)
    return seen


def test_settings_are_the_notebooks_and_sizes_the_cards(asked, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    given = ("-p", "SEED=3", "-p", "LM=a/b", "-s", "n_test=50", "-s", "dataset=movietweetings")
    launch.main(["corella", "--profile", "smoke", *given, "--folder", str(folder)])
    ((settings, size, where),) = asked
    assert (settings["SEED"], settings["LM"], settings["EPOCHS"], settings["DROPOUT"]) == (3, "a/b", 3, 0.2)
    assert "SWEEP" not in settings and "PROFILE" not in settings
    assert (size["n_test"], size["dataset"], size["n_joint"]) == (50, "movietweetings", 48)
    assert where == folder
    written = json.loads((folder / "metrics.json").read_text())
    assert written["parameters"] == settings and written["sizes"] == size and written["processes"] == 1
    assert written["metrics"]["CRM"]["AUC"] == 1 and written["metrics"]["CRM"]["share"] == 0.25
    assert json.loads(capsys.readouterr().out) == written["metrics"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["-p", "SED=1"], "-p SED: the parameters are SEED, LM, LR, EPOCHS,"),
        (["-p", "SWEEP=true"], "-p SWEEP: the parameters are"),
        (["-p", "SEED"], "-p SEED: write NAME=VALUE"),
        (["-p", "SEED=1,2"], "-p SEED: '1,2' are 2 values; a launch takes one"),
        (["-p", "LR=high"], "parameter LR: 'high' is not of type float"),
        (["-s", "n_tests=1"], "n_tests"),
        (["-s", "n_test=many"], "n_test"),
        (["--profile", "huge"], "invalid choice: 'huge'"),
        (["--steps", "3"], "unrecognized arguments: --steps 3; see rec_utils.launch"),
    ],
)
def test_a_mistake_is_one_sentence(asked, tmp_path, given, told):
    with pytest.raises(UserError, match=told.replace("(", r"\(")) as caught:
        launch.main(["corella", *given, "--folder", str(tmp_path / "x")])
    assert "\n" not in str(caught.value) and not asked


def test_a_folder_that_is_a_file_is_named(asked, tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match=rf"--folder {tmp_path}/x is a file"):
        launch.main(["corella", "--folder", str(tmp_path / "x")])


def test_a_second_launch_in_a_folder_is_refused_until_the_first_ends(asked, tmp_path, monkeypatch):
    command = ["corella", "--profile", "smoke", "--folder", str(tmp_path)]
    first = corella_study.from_settings

    def study(*arguments):
        monkeypatch.setattr(corella_study, "from_settings", first)
        with pytest.raises(UserError, match=rf"another launch is at work in --folder {tmp_path}"):
            launch.main(command)
        return first(*arguments)

    monkeypatch.setattr(corella_study, "from_settings", study)
    launch.main(command)
    launch.main(command)
    assert len(asked) == 2


def test_an_end_by_signal_says_how_to_go_on(tmp_path):
    code = (
        "import os, signal, sys\nfrom rec_utils import launch\n"
        "def corella(options): os.kill(os.getpid(), signal.SIGTERM)\n"
        "launch.corella = corella\n"
        f"launch.main(['corella', '--folder', {str(tmp_path)!r}])"
    )
    environment = os.environ | {"RANK": "1", "WORLD_SIZE": "4"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == (
        f"process 1 was told to end; what was finished is kept in {tmp_path},"
        " and the same command goes on from there\n"
    )


def test_numbers_that_json_lacks_are_null():
    assert launch._plain({1: float("nan"), "a": [True, None, 3, 0.5]}) == {
        "1": None,
        "a": [True, None, 3, 0.5],
    }
