"""Cross-fitting with spies instead of models, and its tables against direct computation."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logit
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

from rec_utils.batches import CTRSamples
from rec_utils.crossfit import Arm, CrossFit, cross_fit
from rec_utils.errors import UserError
from rec_utils.papers import kar
from rec_utils.stats import draw_auc, paired_bootstrap_auc
from rec_utils.training import TrainConfig

N_USERS, N_EACH = 23, 6
N = N_USERS * N_EACH
SPLIT = {"n_folds": 4, "valid_share": 0.25}


def samples():
    """One item a sample, so that a batch tells which samples it holds; users' samples are scattered."""
    rng = np.random.default_rng(0)
    row = torch.arange(N)
    made = CTRSamples(
        item_fields=1 + row[:, None],
        sequence=row,
        rating_ids=torch.full((N,), N + 1),
        first=N_EACH * (row // N_EACH),
        position=row,
        user_row=row // N_EACH,
        label=torch.from_numpy(rng.integers(0, 2, N)).float(),
        history_length=3,
        n_ids=N + 2,
    )
    return made.select(torch.from_numpy(rng.permutation(N)))


class Spy(nn.Module):
    """Notes what it is trained on and asked about; the logit tells which spy answered about which item."""

    def __init__(self, data, seed, seen):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.number, self.seed, self.data = len(seen), seed, data
        self.trained, self.asked, self.lengths, self.steps = set(), [], set(), 0
        seen.append(self)

    def forward(self, batch):
        self.lengths.add(batch.history.shape[1])
        if self.training:
            self.trained |= set(batch.user_row.tolist())
            self.steps += 1
        else:
            self.asked.append(set(batch.user_row.tolist()))
        return 0 * self.weight + (self.number - 6) / 2 + 0.001 * batch.item_row

    @property
    def split(self):
        """Users of training, validation and test: the first and the last question."""
        return self.trained, self.asked[0], self.asked[-1]


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setenv("REC_CORES", "1")


def spied(arms, seed=0, **kw):
    """(result, arm -> its spies, one a fold) of arms given as settings of `Arm`."""
    spies = {name: [] for name in arms}
    made = {
        name: Arm(lambda data, seed, seen=spies[name]: Spy(data, seed, seen), **given)
        for name, given in arms.items()
    }
    config = TrainConfig(max_epochs=2, patience=2, batch_size=N_EACH, seed=seed)
    return cross_fit(samples(), made, **(SPLIT | kw), config=config), spies


def test_every_sample_is_predicted_once_by_a_model_that_never_saw_its_user():
    made = samples()
    fitted, spies = spied({"a": {}, "b": {}})
    assert [len(models) for models in spies.values()] == [4, 4]
    tested = []
    for spy in spies["a"]:
        train, valid, test = spy.split
        assert train | valid | test == set(range(N_USERS))
        assert not train & valid and not train & test and not valid & test
        assert len(valid) == round(0.25 * (N_USERS - len(test)))
        tested += test
    assert sorted(tested) == list(range(N_USERS))
    for name, models in spies.items():
        spoken = logit(fitted.probability[name])
        for user, item, number in zip(fitted.user, made.item_row.tolist(), spoken, strict=True):
            (model,) = (spy for spy in models if user in spy.split[2])
            assert number == pytest.approx((model.number - 6) / 2 + 0.001 * item, abs=1e-5)
    np.testing.assert_array_equal(fitted.label, made.label)
    np.testing.assert_array_equal(fitted.user, made.user_row)


def test_arms_share_folds_validation_users_and_seed():
    _, spies = spied({"a": {}, "b": {"history_length": 7}}, seed=5)
    for spy_a, spy_b in zip(spies["a"], spies["b"], strict=True):
        assert spy_a.split == spy_b.split
        assert spy_a.seed == spy_b.seed == 5
        assert (spy_a.lengths, spy_b.lengths) == ({3}, {7})
        assert (spy_a.data.history_length, spy_b.data.history_length) == (3, 7)
    _, others = spied({"a": {}}, seed=6)
    assert [spy.split for spy in others["a"]] != [spy.split for spy in spies["a"]]


def test_fewer_training_users_see_the_same_tests_for_as_many_steps():
    _, spies = spied({"all": {}, "nine": {"train_users": 9}, "four": {"train_users": 4}})
    for every, nine, four in zip(*(spies[name] for name in ("all", "nine", "four")), strict=True):
        assert every.split[1:] == nine.split[1:] == four.split[1:]
        assert (len(nine.trained), len(four.trained)) == (9, 4)
        assert four.trained < nine.trained < every.trained
        assert every.steps == 2 * len(every.trained)  # a step a user and epoch
        for few in (nine, four):  # up to half an epoch, and never stopped before the others
            assert abs(few.steps - every.steps) <= len(few.trained) / 2
        assert nine.trained != set(sorted(every.trained)[:9])  # drawn


@pytest.mark.parametrize("n", [-1, 0, 14])
def test_too_few_or_too_many_training_users_are_refused(n):
    assert len(spied({"a": {"train_users": 13}})[1]["a"][0].trained) == 13
    with pytest.raises(UserError, match=rf"fold=0.*train_users = {n}, but the training folds hold 13 users"):
        spied({"a": {"train_users": n}})


def test_a_row_a_fit_is_kept():
    fitted, _ = spied({"a": {}, "b": {}})
    assert list(fitted.fits.columns) == ["arm", "fold", "best_epoch", "valid_logloss", "valid_auc", "seconds"]
    assert sorted(zip(fitted.fits["arm"], fitted.fits["fold"], strict=True)) == [
        (name, fold) for name in "ab" for fold in range(4)
    ]
    assert (fitted.fits["best_epoch"] == 1).all()  # a spy never improves


def test_the_logged_loss_is_that_of_the_best_epoch():
    def first_fit(max_epochs):
        config = TrainConfig(max_epochs=max_epochs, patience=8, lr=0.3, batch_size=16)  # soon overfits
        return cross_fit(samples(), {"LR": kar.arm({}, backbone="LR")}, **SPLIT, config=config).fits.loc[0]

    stopped = first_fit(8)
    assert stopped["best_epoch"] < 8
    assert stopped["valid_logloss"] == first_fit(int(stopped["best_epoch"]))["valid_logloss"]


def test_the_number_of_workers_changes_no_number(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = {
        "item": rng.normal(size=(N, 5)).astype(np.float32),
        "user": rng.normal(size=(N_USERS, 5)).astype(np.float32),
    }
    dropped = {"adaptor_settings": {"dropout": 0.5}, "backbone_settings": {"dropout": 0.2}}
    arms = {"KAR": kar.arm(vectors, **dropped), "LR": kar.arm({}, backbone="LR")}
    config = TrainConfig(max_epochs=2, batch_size=16, seed=3)
    torch.manual_seed(8)
    state = torch.get_rng_state()
    alone = cross_fit(samples(), arms, **SPLIT, config=config)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setenv("REC_CORES", "2")
    torch.manual_seed(9)
    shared = cross_fit(samples(), arms, **SPLIT, config=config)
    for name in arms:
        np.testing.assert_array_equal(shared.probability[name], alone.probability[name])
    pd.testing.assert_frame_equal(shared.fits.drop(columns="seconds"), alone.fits.drop(columns="seconds"))


# Tables


@pytest.fixture
def fitted():
    """Predictions of three arms for 40 users; `better` is better."""
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(40), 25)
    label = rng.integers(0, 2, len(user)).astype(np.float32)
    arms = {
        name: 1 / (1 + np.exp(-rng.normal(strength * label, 1)))
        for name, strength in (("base", 0.5), ("better", 1.0), ("worse", 0.1))
    }
    fits = pd.DataFrame(
        {
            "arm": ["base", "better", "worse"] * 2,
            "fold": [0, 0, 0, 1, 1, 1],
            "best_epoch": [1, 2, 3, 3, 4, 5],
            "valid_logloss": [0.6, 0.5, 0.7, 0.62, 0.54, 0.71],
            "seconds": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    )
    return CrossFit(label, user, arms, fits)


def test_scores_equal_scikit_learn(fitted):
    scores = fitted.scores()
    assert list(scores.index) == ["base", "better", "worse"]
    for arm, probability in fitted.probability.items():
        assert scores.loc[arm, "AUC"] == pytest.approx(roc_auc_score(fitted.label, probability))
        assert scores.loc[arm, "LogLoss"] == pytest.approx(log_loss(fitted.label, probability))
    np.testing.assert_allclose(scores["valid_logloss"], [0.61, 0.52, 0.705])
    np.testing.assert_allclose(scores["epochs"], [2, 3, 4])
    np.testing.assert_allclose(scores["seconds"], [5, 7, 9])


def test_gains_within_bins_equal_the_gain_of_each_bin_alone(fitted):
    number = np.random.default_rng(2).integers(0, 30, len(fitted.label))
    number[0] = 10**6  # the last bin has no end
    table = fitted.gain_by_bin("ratings", number, [1, 5, 20], ["better", "worse"], "base", 50, 7)
    assert list(table["bin"]) == ["1 to 4"] * 2 + ["5 to 19"] * 2 + ["20+"] * 2
    assert list(table["arm"]) == ["better", "worse"] * 3
    assert set(table["by"]) == {"ratings"}
    for row in table.itertuples():
        inside = {"1 to 4": (number > 0) & (number < 5), "5 to 19": (number > 4) & (number < 20)}.get(
            row.bin, number > 19
        )
        label, base, arm = (
            x[inside] for x in (fitted.label, fitted.probability["base"], fitted.probability[row.arm])
        )
        assert row.n == inside.sum() == len(label)
        over = roc_auc_score(label, base)
        assert row.value == pytest.approx(100 * (roc_auc_score(label, arm) - over) / over)
        alone = paired_bootstrap_auc(label, base, arm, fitted.user[inside], 50, 7, relative=True)
        np.testing.assert_allclose([row.low, row.high], [100 * alone.low, 100 * alone.high])


def test_bins_that_cannot_be_scored_are_left_out(fitted):
    number = np.where(fitted.label > 0, 1, 2)  # one class each
    number[fitted.user == 3] = 3  # one user
    number[fitted.user > 20] = 5
    table = fitted.gain_by_bin("x", number, [1, 2, 3, 4, 5], ["better"], "base", 20, 0)
    assert list(table["bin"]) == ["5+"]


def test_a_table_of_gains_is_in_percent_of_the_base(fitted):
    drawn = draw_auc(fitted.label, fitted.probability, fitted.user, 50, 0)
    table = drawn.gains([("ours", "better", "base"), ("control", "worse", "better")])
    assert table[["group", "label"]].to_numpy().tolist() == [
        ["ours", "better over base"],
        ["control", "worse over better"],
    ]
    score = {arm: roc_auc_score(fitted.label, p) for arm, p in fitted.probability.items()}
    expected = [100 * (score["better"] / score["base"] - 1), 100 * (score["worse"] / score["better"] - 1)]
    np.testing.assert_allclose(table["value"], expected)
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    assert table["low"][0] > 0 > table["high"][1]


def test_a_bin_of_one_number_is_named_by_it(fitted):
    number = fitted.user % 3
    table = fitted.gain_by_bin("x", number, [0, 1, 3], ["better"], "base", 20, 0)
    assert list(table["bin"]) == ["0", "1 to 2"]
