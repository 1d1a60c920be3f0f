"""The semi-synthetic world: its clicks depend on rivals as stated, and on nothing else."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats
from tiny_ratings import dataset

from rec_utils.click_world import World, _ridge, click_log_odds, click_world, factorise
from rec_utils.errors import UserError
from rec_utils.metrics import expected_clicks_at_k

SMALL = World(min_ratings=5, factors=2, l2=1.0, lists_per_user=6, length=8)


@cache
def made(**changed):
    """A world of 300 users with tastes for one of two genres, who rate 30 of 90 films."""
    rng = np.random.default_rng(0)
    likes = rng.integers(0, 2, 300)
    rows = [
        (user, film, float(np.clip(3 + (1 if film % 2 == likes[user] else -1) + rng.normal() / 2, 1, 5)), day)
        for user in range(300)
        for day, film in enumerate(rng.permutation(90)[:30])
    ]
    genres = {film: ("War|Drama", "Comedy")[film % 2] for film in range(90)}
    return click_world(dataset(rows, genres, (1.0, 5.0)), replace(SMALL, **changed))


def lists_of(draw):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 6)))
    z = draw(hnp.arrays(np.int64, shape, elements=st.integers(-30, 30))) / 10
    kind = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 2)))
    return z, kind


@settings(deadline=None)
@given(st.data(), st.floats(0, 3))
def test_log_odds_equal_a_loop_over_rivals(data, strength):
    z, kind = lists_of(data.draw)
    s = strength * np.arange(1, len(z) + 1)
    found = click_log_odds(z, kind, s, 1.5)
    for t, k in np.ndindex(z.shape):
        rivals = [j for j in range(z.shape[1]) if j != k and kind[t, j] == kind[t, k]]
        expected = 1.5 * z[t, k] - s[t] * sum(np.log(1 + np.exp(z[t, j] - z[t, k])) for j in rivals)
        assert found[t, k] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(st.data(), st.floats(0.1, 3), st.floats(0.1, 3))
def test_a_better_rival_takes_clicks_away_and_nobody_does_at_strength_0(data, strength, gain):
    z, kind = lists_of(data.draw)
    better = z.copy()
    better[:, 0] += gain
    rival = (kind == kind[:, :1]) & (np.arange(z.shape[1]) > 0)
    for s in (0.0, strength):
        s = np.full(len(z), s)
        before, after = (click_log_odds(values, kind, s, 1.5) for values in (z, better))
        assert (after[:, 0] > before[:, 0]).all()
        fell = after < before
        assert (fell[rival] == (s[0] > 0)).all()
        assert not fell[:, 1:][~rival[:, 1:]].any()


@settings(deadline=None)
@given(st.data(), st.floats(0.1, 3))
def test_rivals_stay_in_the_order_of_their_preferences(data, strength):
    z, kind = lists_of(data.draw)
    odds = click_log_odds(z, kind, np.full(len(z), strength), 1.5)
    same = kind[:, :, None] == kind[:, None]
    above = z[:, :, None] > z[:, None]
    right = odds[:, :, None] > odds[:, None]
    assert (right | ~(same & above)).all()


def test_strength_can_turn_an_order_around():
    z, kind = np.array([[1.0, 1.0, 0.8]]), np.array([[0, 0, 1]])
    alone, compared = (click_log_odds(z, kind, np.array([s]), 1.5)[0] for s in (0.0, 1.0))
    assert alone[0] > alone[2] and compared[0] < compared[2]
    # a rival that is as good halves the odds at strength 1
    assert np.exp(compared[0] - alone[0]) == pytest.approx(0.5)


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_the_click_rate_is_the_one_asked_for(strength):
    world = made(strength=strength)
    expected = world.examination * world.attraction
    assert expected.mean() == pytest.approx(SMALL.click_rate, abs=1e-9)
    n = expected.size
    assert world.log.click_rate == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / n))
    # calibrated: clicks follow the stated probabilities
    clicks, order = world.log.clicked.ravel(), expected.ravel().argsort()
    for part in np.array_split(order, 10):
        p = expected.ravel()[part]
        assert abs(clicks[part].sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_without_strength_clicks_do_not_depend_on_rivals_and_with_it_they_do():
    """The residual of a click is laid against how good its rivals are."""
    for strength, depends in ((0.0, False), (2.0, True)):
        world = made(strength=strength)
        z, kind = world.preference, world.log.item_fields[world.log.item_row, 1]
        rivals = (kind[:, :, None] == kind[:, None]) & ~np.eye(z.shape[1], dtype=bool)
        pressure = (rivals * np.logaddexp(0, z[:, None] - z[:, :, None])).sum(2)
        blind = world.examination * made(strength=0.0).attraction
        residual = world.log.clicked - blind
        r, p = stats.pearsonr(residual.ravel(), pressure.ravel())
        assert (p < 1e-6 and r < 0) == depends


def test_both_settings_show_the_same_lists_and_differ_in_clicks():
    with_effect, without = made(strength=1.0), made(strength=0.0)
    assert np.array_equal(with_effect.log.item_row, without.log.item_row)
    assert np.array_equal(with_effect.preference, without.preference)
    assert not np.array_equal(with_effect.log.clicked, without.log.clicked)
    assert not without.strength.any()
    again, other = click_world_of(0), click_world_of(1)
    assert np.array_equal(again.log.clicked, with_effect.log.clicked)
    assert not np.array_equal(other.log.item_row, with_effect.log.item_row)


def click_world_of(seed):
    made.cache_clear()
    return made(strength=1.0, seed=seed)


def test_strengths_are_the_users_own():
    world = made(strength=2.0)
    assert world.strength.mean() == pytest.approx(2.0, rel=0.15)
    assert stats.kstest(world.strength / 2, "expon").pvalue > 0.01


def test_exposure_prefers_what_is_liked_and_shows_a_film_once():
    world = made(taste=1.0)
    shown = world.log.item_row.reshape(300, -1)
    assert all(len(set(row)) == len(row) for row in shown.tolist())
    assert world.preference.mean() > 0.2  # over all films it is 0
    z = world.preference
    assert z[:, 0].mean() > z[:, -1].mean() + 0.2
    of_list = z.reshape(300, 6, 8).mean(axis=(0, 2))
    assert np.ptp(of_list) < 0.15  # early lists are no better than late ones
    blind = made(taste=0.0).preference
    assert abs(blind.mean()) < 0.02


def test_the_factorisation_finds_who_likes_what():
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))
    truth = 3 + p @ q.T + 0.5 * rng.normal(size=(60, 1)) + 0.5 * rng.normal(size=50)
    user, item = np.nonzero(rng.random(truth.shape) < 0.6)
    seen = np.zeros(truth.shape, bool)
    seen[user, item] = True
    found = factorise(user, item, truth[user, item], World(factors=2, l2=0.1))
    assert np.sqrt(((found - truth)[~seen] ** 2).mean()) < 0.2
    flat = factorise(user, item, truth[user, item], World(factors=2, l2=1e6))
    np.testing.assert_allclose(flat, truth[user, item].mean(), atol=0.01)


def test_a_row_of_factors_is_a_ridge_regression_on_the_columns():
    rng = np.random.default_rng(1)
    rating, seen = rng.normal(size=(12, 9)), rng.random((12, 9)) < 0.7
    other = rng.normal(size=(9, 3))  # two factors and a bias
    found = _ridge(sparse.csr_array(rating * seen), sparse.csr_array(seen.astype(float)), other, 2.0)
    for row in range(12):
        x = np.column_stack([other[seen[row], :2], np.ones(seen[row].sum())])
        y = rating[row, seen[row]] - other[seen[row], 2]
        expected = np.linalg.solve(x.T @ x + 2.0 * np.eye(3), x.T @ y)
        np.testing.assert_allclose(found[row], expected)


def test_the_order_of_attraction_gets_the_most_clicks():
    world = made(strength=1.0)
    best = expected_clicks_at_k(world.attraction, world.attraction, 3, world.examination)
    rng = np.random.default_rng(0)
    for _ in range(5):
        other = expected_clicks_at_k(world.attraction, rng.random((*best.shape, 8)), 3, world.examination)
        assert (other <= best + 1e-12).all()
    shown = expected_clicks_at_k(
        world.attraction, -np.tile(np.arange(8), (len(best), 1)), 8, world.examination
    )
    np.testing.assert_allclose(shown, (world.examination * world.attraction).sum(1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lists_per_user": 12}, "tiny has 90 films with min_ratings = 5 ratings, too few for 12 lists of 8"),
        ({"strength": -1.0}, "strength must not be negative"),
        ({"click_rate": 1.0}, "click_rate must lie between 0 and 1"),
        ({"length": 0}, "length must be above 0"),
    ],
)
def test_an_impossible_world_is_refused(changed, message):
    with pytest.raises(UserError, match=message):
        made(**changed)
