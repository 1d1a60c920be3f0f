"""The test of groupings on planted ones: users like one kind of items early and another later."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rec_utils.papers.foresight import FEWEST, _some, foresight

N_USERS, N_KINDS, N_EACH, N_HALF = 240, 4, 40, 12
TEST_USERS = np.arange(N_USERS) % 4 == 0


def planted(seed=3):
    """(task, kind that each user likes early, kind that each likes later)."""
    rng = np.random.default_rng(seed)
    early, late = rng.integers(N_KINDS, size=N_USERS), rng.integers(N_KINDS, size=N_USERS)
    kinds = np.repeat(np.stack([early, late], axis=1), N_HALF, axis=1)
    item = kinds * N_EACH + rng.integers(N_EACH, size=kinds.shape)
    ratings = pd.DataFrame(
        {
            "user_row": np.repeat(np.arange(N_USERS), 2 * N_HALF),
            "item_row": item.ravel(),
            "rating": 5.0,
            "in_prompt": np.tile(np.arange(2 * N_HALF) < N_HALF, N_USERS),
        }
    )
    users, items = np.arange(N_USERS), np.arange(N_KINDS * N_EACH)
    return SimpleNamespace(ratings=ratings, like_from=4.0, user_ids=users, item_ids=items), early, late


@pytest.mark.parametrize("test_users_known", [False, True])
def test_later_ratings_fit_a_group_that_knew_them_and_no_other(test_users_known):
    task, early, late = planted()
    groups = np.where(TEST_USERS & (not test_users_known), early, late)
    table = foresight(task, groups, True, TEST_USERS).set_index("users")
    assert table["n"].tolist() == [180, 60]
    assert table.loc["training", "low"] > 0.2
    if test_users_known:
        assert table.loc["test", "low"] > 0.2
    else:
        assert table.loc["test", "high"] < -0.2


def test_groups_at_random_fit_neither_side():
    task, _, _ = planted()
    groups = np.random.default_rng(0).integers(6, size=N_USERS)
    table = foresight(task, groups, True, TEST_USERS)
    assert (table["low"] < 0).all() and (table["high"] > 0).all()


def test_users_with_few_ratings_of_a_kind_do_not_count():
    task, _, late = planted()
    task.ratings.loc[(task.ratings["user_row"] < 20) & (task.ratings.index % 24 >= FEWEST - 1), "rating"] = (
        1.0
    )
    table = foresight(task, late, True, TEST_USERS).set_index("users")
    assert table["n"].tolist() == [165, 55]


def test_later_ratings_are_drawn_from_the_own_ones_and_no_more_than_asked_for():
    user = np.repeat(np.arange(5), 10)
    among = np.tile(np.arange(10) >= 4, 5)
    n = np.array([0, 1, 3, 6, 9])
    drawn = _some(user, among, n, seed=1)
    assert not (drawn & ~among).any()
    assert np.bincount(user[drawn], minlength=5).tolist() == [0, 1, 3, 6, 6]
    assert (_some(user, among, n, seed=2) != drawn).any()
