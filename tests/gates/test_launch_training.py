"""Two processes of `accelerate launch` train as one does, whatever remains in the last batch."""

import numpy as np
import pytest
import torch

from rec_utils.settings import ROOT
from tests.gates.launches import finish, start

#: Largest difference between the numbers of one and of two processes, by study: sums are rounded in another
#: order. ClickPrompt is trained in double precision.
TOLERANCE = {"uneven": 1e-6, "corella": 1e-5, "clickprompt": 1e-10}


def as_tensor(value):
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What one process found, and what each of two."""
    from tests.gates.shared_training import everything

    folder = tmp_path_factory.mktemp("trained")
    launch = start(ROOT / "tests" / "gates" / "shared_training.py", folder)
    alone = everything(folder)
    finish(launch)
    return alone, *(torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1))


@pytest.mark.parametrize("study", TOLERANCE)
def test_two_processes_train_as_one(trained, study):
    alone, first, second = (found[study] for found in trained)
    assert list(alone) == list(first) == list(second)
    for name, expected in alone.items():
        expected = as_tensor(expected)
        for found in (first, second):
            difference = (as_tensor(found[name]) - expected).abs().max()
            assert difference <= TOLERANCE[study], name
        assert torch.equal(as_tensor(first[name]), as_tensor(second[name])), name


def test_two_processes_go_on_bit_for_bit(trained):
    """With dropout, of which each process draws its own."""
    for found in trained[1:]:
        whole, resumed = found["stopped"]
        assert torch.equal(whole, resumed)
