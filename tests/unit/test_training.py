"""The training loop against a bare loop and known answers, and the process pool."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import psutil
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rec_utils.batches import CTRSamples
from rec_utils.errors import UserError
from rec_utils.metrics import auc, logloss
from rec_utils.settings import ROOT
from rec_utils.training import Objective, TrainConfig, fit, predict, run_jobs


def planted(n_users=200, n_each=40, n_items=50, seed=0):
    """Samples whose label depends on the item alone, P(1) = sigmoid(2 q_item); and that probability."""
    rng = torch.Generator().manual_seed(seed)
    quality = torch.randn(n_items, generator=rng)
    sequence = torch.randint(n_items, (n_users * n_each,), generator=rng)
    probability = torch.sigmoid(2 * quality[sequence])
    label = (torch.rand(len(sequence), generator=rng) < probability).float()
    position = torch.arange(len(sequence))
    user = position // n_each
    samples = CTRSamples(
        item_fields=1 + torch.arange(n_items)[:, None],
        sequence=sequence,
        rating_ids=1 + n_items + label.long(),
        first=user * n_each,
        position=position,
        user_row=user,
        label=label,
        history_length=3,
        n_ids=n_items + 3,
    )
    return samples, probability.double().numpy()


class Net(nn.Module):
    """An item embedding, dropout and a linear layer."""

    def __init__(self, n_ids, dropout=0.0, seed=0):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(0.1 * torch.randn(n_ids, 8, generator=rng))
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.randn(1, 8, generator=rng))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        return (self.dropout(self.embedding[batch.item[:, 0]]) * self.weight).sum(1) + self.bias


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def split():
    samples, _ = planted()
    return samples.select(samples.user_row < 150), samples.select(samples.user_row >= 150)


def weights(model):
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_a_planted_effect_is_learned_almost_as_well_as_possible():
    samples, probability = planted(n_users=600)
    test = samples.user_row >= 500
    model = Net(samples.n_ids)
    config = TrainConfig(lr=0.01, max_epochs=10)
    fit(
        model,
        samples.select(samples.user_row < 400),
        samples.select((samples.user_row >= 400) & ~test),
        config,
    )
    label, best = samples.label[test].numpy(), probability[test.numpy()]
    predicted = predict(model, samples.select(test))
    assert auc(label, predicted) > auc(label, best) - 0.005
    assert logloss(label, predicted) < logloss(label, best) + 0.005


@pytest.mark.parametrize("lr_decay", [False, True])
def test_the_loop_equals_a_bare_one(split, lr_decay):
    train, valid = split
    config = TrainConfig(lr=3e-3, lr_decay=lr_decay, batch_size=100, max_epochs=3, seed=5)
    model, bare = Net(train.n_ids), Net(train.n_ids)
    result = fit(model, train, valid, config, progress=False)

    optimizer = torch.optim.Adam(bare.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(5)
    losses = []
    n_steps = 3 * 60
    for _ in range(3):
        for index in torch.randperm(len(train), generator=rng).split(100):
            if lr_decay:
                optimizer.param_groups[0]["lr"] = 3e-3 * (n_steps - len(losses)) / n_steps
            optimizer.zero_grad()
            loss = binary_cross_entropy_with_logits(bare(train.batch(index)), train.label[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert (result.best_epoch, len(losses)) == (3, n_steps)
    torch.testing.assert_close(weights(model), weights(bare), rtol=1e-4, atol=1e-5)
    assert result.epochs[-1]["train_loss"] == pytest.approx(np.mean(losses[-60:]), rel=1e-5)
    predicted = predict(model, valid)
    assert result.epochs[-1]["valid_logloss"] == logloss(valid.label.numpy(), predicted)
    assert result.epochs[-1]["valid_auc"] == auc(valid.label.numpy(), predicted)


def test_a_run_repeats_bit_for_bit_and_leaves_the_global_generator_alone(split):
    def run(seed, global_seed):
        torch.manual_seed(global_seed)
        expected = torch.rand(1, generator=torch.Generator().manual_seed(global_seed))
        model = Net(split[0].n_ids, dropout=0.3)
        fit(model, *split, TrainConfig(max_epochs=2, seed=seed), progress=False)
        assert torch.rand(1) == expected
        return weights(model)

    first = run(seed=0, global_seed=1)
    assert torch.equal(first, run(seed=0, global_seed=2))
    assert not torch.equal(first, run(seed=1, global_seed=1))


def test_early_stopping_restores_the_best_epoch(split):
    train, valid = split
    flipped = CTRSamples(**{**vars(valid), "label": 1 - valid.label})  # what helps in training hurts here
    model = Net(train.n_ids)
    result = fit(model, train, flipped, TrainConfig(lr=0.01, patience=2), progress=False)
    losses = [epoch["valid_logloss"] for epoch in result.epochs]
    assert result.best_epoch == 1 and len(losses) == 3
    assert losses == sorted(losses) and losses[0] < losses[1]
    assert logloss(flipped.label.numpy(), predict(model, flipped)) == losses[0]
    assert result.seconds >= sum(epoch["seconds"] for epoch in result.epochs)


def test_only_matrices_are_decayed_and_by_the_decoupled_rule(split):
    class Idle(Net):
        def forward(self, batch):
            return 0 * super().forward(batch)

    model = Idle(split[0].n_ids)
    nn.init.ones_(model.bias)
    start = model.embedding.detach().clone()
    config = TrainConfig(lr=0.1, weight_decay=0.5, batch_size=2000, max_epochs=1)
    fit(model, *split, config, progress=False)
    torch.testing.assert_close(
        model.embedding.detach(), start * (1 - 0.1 * 0.5) ** 3
    )  # 6,000 samples: 3 steps
    assert model.bias.item() == 1


def test_a_part_of_the_model_has_its_own_learning_rate(split):
    """Adam's first step is the learning rate, whatever the gradient."""
    train, valid = split
    config = TrainConfig(max_epochs=1, batch_size=len(train), lr=0.01, lr_of={"embed": 0.0, "bias": 0.002})
    model, start = Net(train.n_ids), Net(train.n_ids)
    fit(model, train, valid, config, progress=False)
    moved = {name: (p - dict(start.named_parameters())[name]).abs() for name, p in model.named_parameters()}
    assert not moved["embedding"].any()
    torch.testing.assert_close(moved["bias"], torch.tensor([0.002]))
    torch.testing.assert_close(moved["weight"], torch.full((1, 8), 0.01), rtol=1e-3, atol=0)
    with pytest.raises(UserError, match="lr_of names 'embeding'"):
        fit(model, train, valid, TrainConfig(lr_of={"embeding": 0.1}), progress=False)


def test_without_validation_samples_every_epoch_runs_and_the_last_one_counts(split):
    train, valid = split
    config = TrainConfig(max_epochs=4, patience=1, lr=0.3)
    model, watched = Net(train.n_ids), Net(train.n_ids)
    result = fit(model, train, None, config, progress=False)
    assert (
        result.best_epoch == 4 and [set(epoch) for epoch in result.epochs] == [{"train_loss", "seconds"}] * 4
    )
    chosen = fit(watched, train, valid, replace(config, patience=4), progress=False)
    losses = [epoch["train_loss"] for epoch in result.epochs]
    assert losses == [epoch["train_loss"] for epoch in chosen.epochs]  # the same steps
    assert chosen.best_epoch < 4  # so that the weights kept are others
    assert not torch.equal(model.embedding, watched.embedding)


def test_no_step_waits_for_a_number(split, monkeypatch):
    calls = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: calls.append(1) or item(tensor))
    fit(Net(split[0].n_ids), *split, TrainConfig(batch_size=10, max_epochs=2), progress=False)
    assert len(calls) == 2  # 1,200 steps


def test_one_bar_on_stderr_or_none(split, capsys):
    config = TrainConfig(batch_size=2000, max_epochs=2, lr=1e-3)
    fit(Net(split[0].n_ids), *split, config, progress="LR fold 1")
    shown = capsys.readouterr()
    assert shown.out == "" and "LR fold 1: 100%" in shown.err and "6/6" in shown.err
    fit(Net(split[0].n_ids), *split, config, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_validation_set_of_one_class_has_no_auc_but_a_loss(split):
    train, valid = split
    result = fit(
        Net(train.n_ids), train, valid.select(valid.label == 1), TrainConfig(max_epochs=1), progress=False
    )
    assert np.isnan(result.epochs[0]["valid_auc"]) and np.isfinite(result.epochs[0]["valid_logloss"])


def test_predict_does_not_depend_on_the_batch_size_and_keeps_the_mode(split):
    samples, _ = split
    model = Net(samples.n_ids, dropout=0.5)
    whole = predict(model, samples, batch_size=len(samples))
    np.testing.assert_array_equal(predict(model, samples, batch_size=7), whole)
    assert model.training and whole.dtype == np.float64
    model.eval()
    with torch.no_grad():
        logit = model(samples.batch(torch.arange(len(samples)))).double().numpy()
    np.testing.assert_allclose(whole, 1 / (1 + np.exp(-logit)), rtol=1e-12)
    predict(model, samples)
    assert not model.training
    assert predict(model, samples.select(torch.arange(0))).shape == (0,)


def test_validation_samples_come_in_batches_of_the_size_asked_for(split):
    class Watched(Net):
        def forward(self, batch):
            sizes[self.training].append(len(batch.label))
            return super().forward(batch)

    sizes = {True: [], False: []}
    fit(Watched(split[0].n_ids), *split, TrainConfig(max_epochs=1, eval_batch_size=700), progress=False)
    assert sizes[False] == [700, 700, 600] and max(sizes[True]) == 256


@pytest.mark.parametrize(
    "name, value",
    [("lr", 0), ("batch_size", 0), ("eval_batch_size", 0), ("max_epochs", -1), ("patience", 0)],
)
def test_a_setting_that_is_not_positive_is_refused(name, value):
    with pytest.raises(UserError, match=f"{name} must be above 0, not {value}"):
        TrainConfig(**{name: value})


def test_an_empty_set_and_a_loss_that_is_not_finite_are_errors(split):
    train, valid = split
    empty = train.select(torch.arange(0))
    with pytest.raises(UserError, match="training set is empty"):
        fit(Net(train.n_ids), empty, valid, progress=False)
    with pytest.raises(UserError, match="validation set is empty"):
        fit(Net(train.n_ids), train, empty, progress=False)
    with pytest.raises(UserError, match=r"not finite in epoch 1 at learning rate 1e\+30"):
        fit(Net(train.n_ids), train, valid, TrainConfig(lr=1e30), progress=False)


def test_validation_scores_that_are_no_numbers_choose_no_epoch(split):
    train, valid = split
    by_auc = Objective(binary_cross_entropy_with_logits, lambda label, p: {"auc": np.nan}, True)
    with pytest.raises(UserError, match="No epoch has a validation score that is a number"):
        fit(Net(train.n_ids), train, valid, TrainConfig(max_epochs=2), False, by_auc)


def train_one(split, seed, lr=1e-3):
    model = Net(split[0].n_ids, dropout=0.1, seed=seed)
    result = fit(model, *split, TrainConfig(lr=lr, max_epochs=2, seed=seed), progress=False)
    return result.epochs[-1]["valid_logloss"], weights(model), torch.get_num_threads()


def test_jobs_give_the_same_results_in_order_whatever_the_number_of_workers(split):
    torch.set_num_threads(2)
    jobs = [{"seed": seed} for seed in range(4)]
    alone, pooled = (run_jobs(partial(train_one, split), jobs, workers, progress=False) for workers in (1, 2))
    assert len({loss for loss, *_ in alone}) == 4
    for (loss, trained, threads), (pooled_loss, pooled_trained, pooled_threads) in zip(
        alone, pooled, strict=True
    ):
        assert loss == pooled_loss and torch.equal(trained, pooled_trained)
        assert threads == pooled_threads == 1
    assert torch.get_num_threads() == 2
    assert run_jobs(train_one, [], 2) == []


class CountedLoad:
    """Leaves a file for every time that it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __setstate__(self, state):
        self.folder = state["folder"]
        (self.folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()


def test_a_worker_gets_the_function_and_its_data_once(tmp_path):
    data = CountedLoad(tmp_path)
    squares = run_jobs(lambda x: (data, x * x)[1], [{"x": x} for x in range(12)], 2, progress=False)
    assert squares == [x * x for x in range(12)]
    loads = [path.name.split("-")[0] for path in tmp_path.iterdir()]
    assert 1 <= len(loads) == len(set(loads)) <= 2


def fail(x, error):
    if x == 2:
        raise error("the file is gone")
    return x


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_names_its_job(workers):
    with pytest.raises(UserError, match=r"^job 3 \(x=2, error=.*\): the file is gone$"):
        run_jobs(fail, [{"x": x, "error": UserError} for x in range(4)], workers, progress=False)
    with pytest.raises(KeyError, match="the file is gone") as caught:
        run_jobs(fail, [{"x": x, "error": KeyError} for x in range(4)], workers, progress=False)
    assert caught.value.__notes__[0].startswith("This happened in job 3 (x=2,")


SLOW_JOBS = """
import os, pathlib, sys, time
from rec_utils.errors import run_cli
from rec_utils.training import run_jobs

def job(x):
    pathlib.Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(60)

sys.exit(run_cli(lambda: run_jobs(job, [{"x": x} for x in range(4)], 2)))
"""


def test_ctrl_c_ends_the_pool_cleanly(tmp_path):
    main = subprocess.Popen(
        [sys.executable, "-c", SLOW_JOBS.replace("sys.argv[1]", repr(str(tmp_path)))],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(main.pid).children(recursive=True)
    assert len(children) >= 2
    os.killpg(main.pid, signal.SIGINT)  # what a terminal does
    stderr = main.communicate(timeout=120)[1]
    assert main.returncode == 130
    assert "interrupted" in stderr and "Traceback" not in stderr
    assert psutil.wait_procs(children, timeout=60)[1] == []


class NormedNet(Net):
    """With running averages, which every process updates from its own share."""

    def __init__(self, n_ids):
        super().__init__(n_ids)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, batch):
        return self.norm(super().forward(batch)[:, None])[:, 0]


def train_shared(folder, rank, kind):
    """Train a `kind` on 2,399 samples in batches of 256, the last of 95, and save what came out."""
    samples, _ = planted(n_users=80)
    train, valid = samples.select(torch.arange(2399)), samples.select(samples.user_row >= 60)
    model, seen = kind(samples.n_ids), []
    model.register_forward_pre_hook(lambda model, inputs: seen.append(len(inputs[0].label) * model.training))
    result = fit(model, train, valid, TrainConfig(max_epochs=3), progress=False)
    torch.save((result.epochs, weights(model), sum(seen)), f"{folder}/{kind.__name__}-{rank}.pt")


def test_two_processes_train_as_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\nfrom tests.unit.test_training import Net, NormedNet, train_shared\n"
        "for kind in (Net, NormedNet):\n    train_shared(sys.argv[1], os.environ['RANK'], kind)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*launch, script, tmp_path], env=environment, check=True, timeout=100)
    train_shared(tmp_path, "alone", Net)
    epochs, alone, seen = torch.load(tmp_path / "Net-alone.pt")
    assert seen == 3 * 2399
    for rank, seen in ((0, 3 * 1200), (1, 3 * 1199)):
        shared_epochs, shared, shared_seen = torch.load(tmp_path / f"Net-{rank}.pt")
        assert shared_seen == seen
        torch.testing.assert_close(shared, alone, rtol=1e-3, atol=1e-4)
        for key in ("train_loss", "valid_logloss", "valid_auc"):
            assert [e[key] for e in shared_epochs] == pytest.approx([e[key] for e in epochs], abs=1e-4)
    (first, first_weights, _), (second, second_weights, _) = (
        torch.load(tmp_path / f"NormedNet-{rank}.pt") for rank in (0, 1)
    )
    assert torch.equal(first_weights, second_weights)
    assert [e["valid_logloss"] for e in first] == [e["valid_logloss"] for e in second]


def test_an_objective_gives_the_loss_and_chooses_the_epoch(split):
    """The loss asks for the negated label, so later epochs have a lower AUC."""
    train, valid = split
    scores = []

    def watch(label, probability):
        scores.append(auc(label, probability))
        return {"auc": scores[-1], "spread": probability.std()}

    def loss(logits, label):
        return binary_cross_entropy_with_logits(logits, 1 - label)

    for higher_is_better, best in ((True, np.argmax), (False, np.argmin)):
        scores.clear()
        config = TrainConfig(lr=0.01, max_epochs=4, patience=4)
        objective = Objective(loss, watch, higher_is_better)
        model = Net(train.n_ids)
        result = fit(model, train, valid, config, progress=False, objective=objective)
        assert scores[-1] < 0.4
        assert result.best_epoch == 1 + best(scores)
        assert set(result.epochs[0]) == {"train_loss", "valid_auc", "valid_spread", "seconds"}
        assert [epoch["valid_auc"] for epoch in result.epochs] == scores
        assert auc(valid.label.numpy(), predict(model, valid)) == scores[best(scores)]
