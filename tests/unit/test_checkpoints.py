"""A training that goes on from its checkpoint against one that was never stopped."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import Net, one_thread, planted, weights  # noqa: F401

from rec_utils import checkpoints
from rec_utils.errors import UserError
from rec_utils.training import Objective, TrainConfig, fit, predict

CONFIG = TrainConfig(lr=0.03, lr_decay=True, batch_size=64, max_epochs=6, patience=2, weight_decay=0.01)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def split():
    samples, _ = planted(n_users=30)
    return samples.select(samples.user_row < 20), samples.select(samples.user_row >= 20)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "of" / "stage.pt"


def train(split, path=None, config=CONFIG, stop_in=None, **kw):
    """(result, model), or None if it is killed in the `stop_in`-th epoch of this call."""
    model, n_epochs = Net(split[0].n_ids, dropout=0.3), 0

    def after_epoch(_):
        nonlocal n_epochs
        n_epochs += 1
        if n_epochs == stop_in:
            raise Killed
        return {"watched": 1.0 / 3}

    try:
        return fit(model, *split, config, False, after_epoch=after_epoch, checkpoint=path, **kw), model
    except Killed:
        return None


def numbers(result):
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in result.epochs], result.best_epoch


def assert_same(found, expected):
    assert numbers(found[0]) == numbers(expected[0])
    assert torch.equal(weights(found[1]), weights(expected[1]))


@pytest.mark.parametrize("lr_decay", [True, False])
@pytest.mark.parametrize("stops", [(1,), (2,), (3, 1, 1)])
def test_a_training_goes_on_bit_for_bit(split, path, lr_decay, stops):
    config = replace(CONFIG, lr_decay=lr_decay, patience=6)
    expected = train(split, config=config)
    for stop in stops:
        assert train(split, path, config, stop_in=stop) is None
    assert_same(train(split, path, config), expected)


def test_early_stopping_counts_epochs_before_the_stop(split, path):
    config = replace(CONFIG, lr=0.3, lr_decay=False, max_epochs=20)
    expected = train(split, config=config)
    n_epochs, best = len(expected[0].epochs), expected[0].best_epoch
    assert best < n_epochs == best + 2 < 20
    assert train(split, path, config, stop_in=n_epochs) is None  # the best epoch is in the file alone
    assert_same(train(split, path, config), expected)


def test_a_finished_training_returns_its_result_and_keeps_no_more(split, path):
    expected = train(split, path)
    before = path.read_bytes()
    result, model = train(split, path, stop_in=1)  # no epoch, so nothing stops it
    assert_same((result, model), expected)
    assert result.seconds >= sum(epoch["seconds"] for epoch in expected[0].epochs)
    assert path.read_bytes() == before
    assert set(torch.load(path)["state"]) == {
        "epochs",
        "best",
        "best_epoch",
        "best_weights",
        "done",
        "seconds",
    }


def test_without_validation_and_with_an_own_one(split, path):
    """The objective that looks at every second epoch, and none at all."""
    train_set, valid = split
    own = Objective(
        torch.nn.functional.binary_cross_entropy_with_logits,
        validate=lambda model: {"mean": float(predict(model, valid).mean())},
        every=2,
    )
    for number, kw in enumerate(({}, {"objective": own})):
        expected = train((train_set, None), **kw)
        each = path.with_name(f"{number}.pt")
        assert train((train_set, None), each, stop_in=4, **kw) is None
        assert_same(train((train_set, None), each, **kw), expected)


def test_the_global_generator_is_left_alone(split, path):
    train(split, path, stop_in=2)
    torch.manual_seed(7)
    expected = torch.rand(1, generator=torch.Generator().manual_seed(7))
    train(split, path)
    assert torch.rand(1) == expected


def test_frozen_weights_are_not_written(split, path):
    class Frozen(Net):
        def __init__(self, seed=0):
            super().__init__(split[0].n_ids)
            rng = torch.Generator().manual_seed(seed)
            self.large = torch.nn.Parameter(torch.randn(300_000, generator=rng), requires_grad=False)
            self.register_buffer("steps", torch.zeros(1))

        def forward(self, batch):
            if self.training:
                self.steps += 1
            return super().forward(batch) + self.large[0]

    model, plain = Frozen(), Frozen()
    config = replace(CONFIG, max_epochs=2)
    fit(plain, *split, config, False)

    def stop(_):
        if path.exists() and len(kept_epochs(path)) == 1:
            raise Killed
        return {}

    with pytest.raises(Killed):
        fit(model, *split, config, False, after_epoch=stop, checkpoint=path)
    assert path.stat().st_size < 100_000
    model = Frozen()
    fit(model, *split, config, False, checkpoint=path)
    assert torch.equal(weights(model), weights(plain)) and model.steps > 0
    with pytest.raises(UserError, match="other weights at the start;"):  # which are frozen
        fit(Frozen(1), *split, config, False, checkpoint=path)


def kept_epochs(path):
    import json

    return json.loads(torch.load(path)["state"]["epochs"])


# Another training


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.01}, r"lr was 0\.03 and is 0\.01;"),
        ({"seed": 3, "max_epochs": 7}, r"max_epochs was 6 and is 7, seed was 0 and is 3;"),
        ({"lr_of": {"bias": 0.1}}, r'lr_of was \{\} and is \{"bias": 0\.1\};'),
    ],
)
def test_another_trainings_checkpoint_is_refused_and_stays(split, path, change, told):
    train(split, path, stop_in=2)
    before = path.read_bytes()
    with pytest.raises(
        UserError, match=rf"checkpoint {path} is that of another training: {told} move it away"
    ):
        train(split, path, replace(CONFIG, **change))
    assert path.read_bytes() == before


def test_other_samples_models_and_weights_are_told_apart(split, path):
    train(split, path, stop_in=2)
    train_set, valid = split
    with pytest.raises(
        UserError, match="number of training samples was 800 and is 799, other training samples;"
    ):
        train((train_set.select(torch.arange(799)), valid), path)
    flipped = replace(valid, label=1 - valid.label)
    with pytest.raises(UserError, match="another training: other validation samples;"):
        train((train_set, flipped), path)
    with pytest.raises(UserError, match="other model;"):
        fit(Net(train_set.n_ids, dropout=0.4), *split, CONFIG, False, checkpoint=path)
    with pytest.raises(UserError, match="training: other weights at the start;"):
        fit(Net(train_set.n_ids, dropout=0.3, seed=1), *split, CONFIG, False, checkpoint=path)
    assert train(split, path, replace(CONFIG, eval_batch_size=7)) is not None  # changes no result


# The file


@pytest.mark.fault("damaged file", "train", "It names the checkpoint that is damaged, and leaves it.")
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "garbage", "pickle", "json"])
def test_a_damaged_checkpoint_is_named_and_stays(split, path, damage):
    train(split, path, stop_in=2)
    whole = path.read_bytes()
    content = {
        "cut": whole[:-200],
        "flipped": whole[: len(whole) // 2]
        + bytes([whole[len(whole) // 2] ^ 1])
        + whole[len(whole) // 2 + 1 :],
        "empty": b"",
        "garbage": b"\0" * 5000,
        "json": b'{"version": 1}',
    }
    if damage == "pickle":
        torch.save({"version": 1, "belongs_to": {}, "state": Path("/")}, path)  # code of others is not run
    else:
        path.write_bytes(content[damage])
    before = path.read_bytes()
    with pytest.raises(
        UserError, match=rf"^checkpoint {path} is damaged; move it away to train from the start$"
    ):
        train(split, path)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_format_is_refused(split, path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 0)
    train(split, path, stop_in=1)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format 0, not 1"):
        train(split, path)


@pytest.mark.fault("full disk", "train", "It goes on from the last checkpoint that was written whole.")
def test_a_write_that_fails_leaves_the_last_checkpoint(split, path, monkeypatch):
    """On a full disk; and what a killed process had written is cleared away by the next one."""
    expected = train(split)
    save = torch.save
    n_writes = 0

    def fail(content, file):
        nonlocal n_writes
        n_writes += 1
        save(content, file)
        if n_writes == 4:  # the first is before the first epoch
            Path(file).write_bytes(Path(file).read_bytes()[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises((OSError, UserError), match=r"No space left|disk is full"):
        train(split, path)
    monkeypatch.undo()
    assert len(kept_epochs(path)) == 2 and [p.name for p in path.parent.iterdir()] == ["stage.pt"]
    left = path.with_name(".stage.pt.x1.pt")
    left.write_bytes(b"half")
    assert_same(train(split, path), expected)
    assert [p.name for p in path.parent.iterdir()] == ["stage.pt"]


@pytest.mark.fault("read-only folder", "train", "It says at once that no checkpoint can be written.")
def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(split, tmp_path):
    (tmp_path / "file").touch()
    model = Net(split[0].n_ids)
    steps = []
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    for folder in (tmp_path / "file", Path("/proc/nothing")):
        with pytest.raises((OSError, UserError), match=str(folder)):
            fit(model, *split, CONFIG, False, checkpoint=folder / "stage.pt")
    assert not steps
