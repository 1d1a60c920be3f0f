"""One split by user: who is trained, validated and tested, and that watching the test changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rec_utils.batches import CTRSamples
from rec_utils.crossfit import cross_fit
from rec_utils.errors import UserError
from rec_utils.holdout import holdout_fit
from rec_utils.papers import kar
from rec_utils.splits import user_folds
from rec_utils.training import TrainConfig

N_USERS, N_EACH, N_ITEMS = 40, 12, 7
N = N_USERS * N_EACH
CONFIG = TrainConfig(max_epochs=4, patience=4, lr=0.05, batch_size=16, seed=2)
ARMS = {"LR": kar.arm({}, backbone="LR"), "DIN": kar.arm({}, backbone_settings={"dropout": 0.3})}


def samples():
    """Users' samples are scattered; some items are liked more than others."""
    rng = np.random.default_rng(0)
    row = torch.arange(N)
    item = torch.from_numpy(rng.integers(0, N_ITEMS, N))
    made = CTRSamples(
        item_fields=1 + torch.arange(N_ITEMS)[:, None],
        sequence=item,
        rating_ids=torch.full((N,), N_ITEMS + 1),
        first=N_EACH * (row // N_EACH),
        position=row,
        user_row=row // N_EACH,
        label=(torch.from_numpy(rng.normal(size=N)) + item / 3 > 1).float(),
        history_length=3,
        n_ids=N_ITEMS + 2,
    )
    return made.select(torch.from_numpy(rng.permutation(N)))


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setenv("REC_CORES", "1")


@pytest.fixture(scope="module")
def tested_users():
    return np.random.default_rng(1).permutation(N_USERS) < 8


def test_every_test_sample_is_predicted_as_in_cross_fitting(tested_users):
    """Fold 1 of a cross-fit with the same users is the same split, so its predictions must be the same."""
    made = samples()
    folds = user_folds(N_USERS, 5, CONFIG.seed)
    fitted = holdout_fit(made, ARMS, folds == 1, valid_share=0.25, config=CONFIG)
    crossed = cross_fit(made, ARMS, n_folds=5, valid_share=0.25, config=CONFIG)
    np.testing.assert_array_equal(
        fitted.index, np.flatnonzero(np.isin(made.user_row, np.flatnonzero(folds == 1)))
    )
    for name in ARMS:
        np.testing.assert_array_equal(fitted.probability[name], crossed.probability[name][fitted.index])
    np.testing.assert_array_equal(fitted.label, crossed.label[fitted.index])
    np.testing.assert_array_equal(fitted.user, crossed.user[fitted.index])
    same = ["arm", "best_epoch", "valid_logloss", "valid_auc"]
    of_fold = crossed.fits[crossed.fits["fold"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(fitted.fits[same], of_fold[same])


def test_a_repeated_run_takes_finished_fits_from_disk(tested_users, monkeypatch, tmp_path):
    monkeypatch.setenv("REC_RUNS", str(tmp_path))
    split = {"valid_share": 0.25, "config": CONFIG, "every_epoch": True}
    plain = holdout_fit(samples(), ARMS, tested_users, **split)
    first, second = (holdout_fit(samples(), ARMS, tested_users, **split, resume=True) for _ in range(2))
    pd.testing.assert_frame_equal(first.fits, second.fits)  # to the microsecond: it was not trained again
    pd.testing.assert_frame_equal(first.epochs, second.epochs)
    for name in ARMS:
        for other in (first, second):
            np.testing.assert_array_equal(plain.probability[name], other.probability[name])
            np.testing.assert_array_equal(plain.by_epoch[name], other.by_epoch[name])


def test_watching_every_epoch_changes_no_prediction(tested_users):
    split = {"valid_share": 0.25, "config": CONFIG}
    plain = holdout_fit(samples(), ARMS, tested_users, **split)
    watched = holdout_fit(samples(), ARMS, tested_users, every_epoch=True, **split)
    assert plain.by_epoch == {}
    assert list(plain.epochs) == ["arm", "epoch", "train_loss", "valid_logloss", "valid_auc", "seconds"]
    pd.testing.assert_frame_equal(
        plain.epochs.drop(columns="seconds"),
        watched.epochs.drop(columns=["seconds", "test_auc", "test_logloss"]),
    )
    for name, each in watched.by_epoch.items():
        np.testing.assert_array_equal(watched.probability[name], plain.probability[name])
        log = watched.epochs[watched.epochs["arm"] == name]
        assert list(log["epoch"]) == list(range(1, len(each) + 1))
        np.testing.assert_allclose(log["test_auc"], [roc_auc_score(watched.label, p) for p in each])
        best = int(log["valid_logloss"].argmin())
        row = watched.fits.set_index("arm").loc[name]
        assert row["best_epoch"] == best + 1
        np.testing.assert_array_equal(each[best], watched.probability[name])
        assert row["valid_auc"] == log["valid_auc"].iloc[best]


def test_fewer_training_users_are_tested_on_the_same_samples(tested_users):
    arms = {"all": kar.arm({}, backbone="LR"), "six": kar.arm({}, backbone="LR", train_users=6)}
    fitted = holdout_fit(samples(), arms, tested_users, valid_share=0.25, config=CONFIG)
    assert fitted.epochs.groupby("arm").size()["six"] > 4  # 24 training users in all: four times the epochs
    assert not np.array_equal(fitted.probability["six"], fitted.probability["all"])
    assert set(np.unique(fitted.user)) == set(np.flatnonzero(tested_users))


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (np.ones(N_USERS - 1, bool), "every user row, 0 to 39"),
        (np.ones((N_USERS, 1), bool), "every user row, 0 to 39"),
        (np.ones(N_USERS, bool), "leaves none to train on"),
        (np.zeros(N_USERS, bool), "test_fold 1"),
        (np.arange(N_USERS + 1) == N_USERS, "no test user has a sample"),
    ],
)
def test_a_split_without_a_part_is_refused(test, message):
    with pytest.raises(UserError, match=message):
        holdout_fit(samples(), ARMS, test, valid_share=0.25, config=CONFIG)


def test_a_resumed_comparison_fits_only_the_arms_that_are_new(tmp_path, monkeypatch, tested_users):
    monkeypatch.setenv("REC_RUNS", str(tmp_path))
    stored = tmp_path / "jobs"
    made, split = samples(), {"valid_share": 0.25, "config": CONFIG, "resume": True}
    first = holdout_fit(made, {"LR": ARMS["LR"]}, tested_users, **split)
    before = {path: path.stat().st_mtime_ns for path in stored.iterdir()}
    both = holdout_fit(made, ARMS, tested_users, **split)
    assert {path: path.stat().st_mtime_ns for path in stored.iterdir() if path in before} == before
    assert (len(before), len(list(stored.iterdir()))) == (1, 2)
    np.testing.assert_array_equal(first.probability["LR"], both.probability["LR"])
    fresh = holdout_fit(made, ARMS, tested_users, valid_share=0.25, config=CONFIG)
    np.testing.assert_array_equal(both.probability["DIN"], fresh.probability["DIN"])
    other = holdout_fit(made, {"LR": ARMS["LR"]}, ~tested_users, **split)
    assert len(other.label) != len(first.label)
