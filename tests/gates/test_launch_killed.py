"""One of two processes of `accelerate launch -m rec_utils.launch` is killed while it trains."""

import json

import pytest
import torch

from rec_utils.launch import main
from tests.gates.launches import MODULE, finish, kill, start
from tests.gates.processes import wait_until

CORELLA = (
    *("corella", "--profile", "smoke", "-p", "EPOCHS=1", "-p", "LM_EPOCHS=2", "-p", "LM_BATCH=3"),
    *("-p", "DROPOUT=0", "-s", "first_users=30", "-s", "n_joint=60", "-s", "n_alone=12"),
    *("-s", "n_valid=40", "-s", "n_test=100"),
)


def state(path):
    return torch.load(path)["state"] if path.exists() else {"epochs": "[]", "done": False}


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())["metrics"]


@pytest.mark.fault("SIGKILL", "train", "A launch goes on from its last checkpoint.")
def test_the_same_command_goes_on_and_ends_as_one_process_that_was_never_stopped(tmp_path):
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    launch = start(*MODULE, *CORELLA, "--folder", cut)
    second = cut / "stages-1-2.pt"
    wait_until(lambda: len(json.loads(state(second)["epochs"])) == 1)
    err = kill(launch, 1)
    assert f"what was finished is kept in {cut}, and the same command goes on from there\n" in err
    assert err.count("the same command goes on") == 1
    assert state(cut / "stages-1.pt")["done"]
    assert not state(second)["done"] and len(json.loads(state(second)["epochs"])) == 1
    assert not (cut / "metrics.json").exists()

    first_stage = (cut / "stages-1.pt").stat().st_mtime_ns
    again = start(*MODULE, *CORELLA, "--folder", cut)
    torch.set_num_threads(1)
    main([*CORELLA, "--folder", str(whole)])
    assert json.loads(finish(again)) == metrics(cut)
    assert (cut / "stages-1.pt").stat().st_mtime_ns == first_stage
    expected, found = metrics(whole), metrics(cut)
    assert list(found) == list(expected)
    for name, scores in expected.items():
        assert found[name]["LogLoss"] == pytest.approx(scores["LogLoss"], abs=1e-6), name
        assert found[name] == pytest.approx(scores, abs=2e-3), name  # some pairs are tied but for rounding
    assert {path.name for path in cut.iterdir()} == {path.name for path in whole.iterdir()}
