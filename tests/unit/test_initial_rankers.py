"""Initial rankers: what they see of a list, and that they learn from their own users."""

import numpy as np
import pytest
import torch
from tiny_lists import random_log

from rec_utils.errors import UserError
from rec_utils.history_lists import history_lists
from rec_utils.initial_rankers import RANKERS, SMOOTHING, Candidates, fit_ranker
from rec_utils.metrics import map_at_k
from rec_utils.training import TrainConfig

CONFIG = TrainConfig(lr=0.01, max_epochs=8, batch_size=64)


def planted(n_users=60, pad=False, seed=0):
    """A log in which items of category 0 are clicked, whatever stands beside them."""
    log = random_log((8,) * n_users, length=6, pad=pad, seed=seed)
    log.clicked[:] = (log.item_fields[log.item_row, 1] == log.item_fields[:, 1].min()) & log.real
    return log


@pytest.mark.parametrize("pad", [False, True])
def test_candidates_are_samples_with_the_clicks_before_their_list(pad):
    lists = history_lists(random_log(pad=pad), n_past=2, min_past=0, mixed=False)
    candidates = Candidates.of(lists)
    n_real = lists.label.numel() if lists.real is None else int(lists.real.sum())
    assert len(candidates) == n_real
    whole = lists.without_rank().positives_only().batch(torch.arange(len(lists)))
    batch = candidates.batch(torch.arange(n_real))
    number = 0
    for i in range(len(lists)):
        for j in range(lists.n_candidates):
            if lists.real is not None and not lists.real[i, j]:
                continue
            assert torch.equal(batch.item[number], whole.item[i, j])
            assert torch.equal(batch.history[number], whole.history[i])
            assert torch.equal(batch.mask[number], whole.mask[i])
            assert batch.label[number] == lists.label[i, j]
            assert batch.item_row[number] == lists.item_row[i, j]
            assert batch.user_row[number] == lists.user_row[i]
            number += 1
    scores = candidates.as_lists(np.arange(n_real, dtype=float))
    real = np.ones(scores.shape, bool) if lists.real is None else lists.real.numpy()
    assert scores[real].tolist() == list(range(n_real))
    assert (scores[~real] == -np.inf).all()
    chosen = candidates.select(torch.tensor([3, 1]))
    assert torch.equal(chosen.batch(torch.tensor([0])).item[0], batch.item[3])


@pytest.mark.parametrize("name", RANKERS)
@pytest.mark.parametrize("pad", [False, True])
def test_a_planted_preference_is_learned_again_and_again_alike(name, pad):
    lists = history_lists(planted(pad=pad), min_past=0, mixed=False)
    users = np.arange(60) < 50
    ranker, same = (fit_ranker(name, lists.of_users(users), CONFIG) for _ in range(2))
    test = history_lists(planted(pad=pad)).of_users(~users)
    scores = ranker(test)
    assert scores.shape == test.label.shape
    assert map_at_k(test.label, scores, 3).mean() > 0.97
    np.testing.assert_array_equal(scores, same(test))
    if pad:
        assert (scores[~test.real.numpy()] == -np.inf).all() and np.isfinite(scores[test.real.numpy()]).all()


def test_item_rates_are_smoothed_shares_of_clicks():
    log = random_log((9,) * 20, n_items=12, pad=True)
    lists = history_lists(log, min_past=0, mixed=False)
    scores = fit_ranker("item rate", lists, CONFIG)(lists)
    mean = log.clicked[log.real].mean()
    for i, j in ((0, 0), (5, 0), (17, 0)):
        of_item = (log.item_row == log.item_row[i, j]) & log.real
        clicks, shown = log.clicked[of_item].sum(), of_item.sum()
        assert scores[i, j] == pytest.approx((clicks + SMOOTHING * mean) / (shown + SMOOTHING))


def test_an_unknown_ranker_and_too_few_users_are_refused():
    lists = history_lists(random_log(), min_past=0)
    with pytest.raises(UserError, match="did you mean 'LambdaMART'"):
        fit_ranker("lambdaMart", lists, CONFIG)
    with pytest.raises(UserError, match="at least 2 users"):
        fit_ranker("DNN", lists.of_users(np.arange(5) == 3), CONFIG)
