"""Intervals: against brute force on small data, and their coverage by simulation."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats
from sklearn.metrics import log_loss, roc_auc_score

from rec_utils import stats
from rec_utils.errors import UserError
from rec_utils.metrics import auc


def clicks(rng, n_users=60, n_each=20, noise_a=0.7, noise_b=0.7):
    """Labels, two noisy views of the true logit, and users.

    The views' errors and the base rate are shared within a user, so samples of a user are not independent.
    """
    user = np.repeat(np.arange(n_users), n_each)
    truth = rng.normal(size=len(user)) + 0.5 * rng.normal(size=n_users)[user]
    label = (rng.random(len(user)) < 1 / (1 + np.exp(-2 * truth))).astype(int)

    def view(noise):
        return truth + noise * (0.5 * rng.normal(size=len(user)) + 2 * rng.normal(size=n_users)[user])

    return label, view(noise_a), view(noise_b), user


def squash(score):
    return 1 / (1 + np.exp(-score))


@settings(deadline=None)
@given(st.data())
def test_weighted_auc_equals_scikit_learn_with_sample_weights(data):
    n, n_users, n_boot = data.draw(st.tuples(st.integers(2, 30), st.integers(1, 6), st.integers(1, 20)))
    label = data.draw(hnp.arrays(np.bool_, n))
    score = data.draw(hnp.arrays(np.float64, n, elements=st.integers(-3, 3)))
    user = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, n_users - 1)))
    weights = data.draw(hnp.arrays(np.float64, (n_users, n_boot), elements=st.integers(0, 3)))
    values = stats._weighted_auc(label, score, user, weights)
    for value, weight in zip(values, weights.T[:, user], strict=True):
        if len(set(label[weight > 0])) == 2:
            assert value == pytest.approx(roc_auc_score(label, score, sample_weight=weight), abs=1e-12)
        else:
            assert np.isnan(value)


def brute_force(measure, label, a, b, user, n_boot, seed):
    """Percentile interval from resampled copies of the data, with the same draws of users."""
    users = np.unique(user)
    rows = [np.flatnonzero(user == u) for u in users]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n_boot):
        drawn = np.concatenate([rows[i] for i in rng.integers(len(users), size=len(users))])
        values.append(measure(label[drawn], a[drawn], b[drawn]))
    return np.quantile(values, [0.05, 0.95])


@pytest.mark.parametrize("relative", [False, True])
def test_auc_and_logloss_intervals_equal_resampling_by_hand(relative):
    label, a, b, user = clicks(np.random.default_rng(3))
    user = 1000 - 7 * user  # ids need not be 0 … n - 1

    def auc_gain(label, a, b):
        gain = roc_auc_score(label, b) - roc_auc_score(label, a)
        return gain / roc_auc_score(label, a) if relative else gain

    interval = stats.paired_bootstrap_auc(label, a, b, user, 50, 1, 0.9, relative=relative)
    assert interval.value == pytest.approx(auc_gain(label, a, b))
    expected = brute_force(auc_gain, label, a, b, user, 50, 1)
    np.testing.assert_allclose([interval.low, interval.high], expected)
    assert (interval.level, interval.n) == (0.9, 60)

    def logloss_gain(label, a, b):
        gain = log_loss(label, b) - log_loss(label, a)
        return -gain / log_loss(label, a) if relative else gain

    a, b = squash(a), squash(b)
    interval = stats.paired_bootstrap_logloss(label, a, b, user, 50, 1, 0.9, relative=relative)
    assert interval.value == pytest.approx(logloss_gain(label, a, b))
    expected = brute_force(logloss_gain, label, a, b, user, 50, 1)
    np.testing.assert_allclose([interval.low, interval.high], expected)


def test_contrasts_of_several_arms_share_their_replicates():
    label, a, b, user = clicks(np.random.default_rng(4))
    drawn = stats.draw_auc(label, {"a": a, "b": b, "opposite": -a}, user, n_boot=40)
    difference = drawn.interval(lambda metric: metric["b"] - metric["a"])
    assert difference == stats.paired_bootstrap_auc(label, a, b, user, n_boot=40)
    # AUC(-a) = 1 - AUC(a) on every replicate, so this contrast has no spread at all
    sum_of_both = drawn.interval(lambda metric: metric["a"] + metric["opposite"])
    np.testing.assert_allclose([sum_of_both.low, sum_of_both.value, sum_of_both.high], 1)
    gain = stats.paired_bootstrap_auc(label, a, b, user, n_boot=40, relative=True)
    percent = drawn.gain("b", over="a")
    np.testing.assert_allclose(
        [percent.low, percent.value, percent.high], [100 * gain.low, 100 * gain.value, 100 * gain.high]
    )


def test_the_order_of_samples_does_not_matter_and_the_seed_does():
    label, a, b, user = clicks(np.random.default_rng(5))
    order = np.random.default_rng(0).permutation(len(label))
    first = stats.paired_bootstrap_auc(label, a, b, user, n_boot=40)
    assert stats.paired_bootstrap_auc(label[order], a[order], b[order], user[order], n_boot=40) == first
    assert stats.paired_bootstrap_auc(label, a, b, user, n_boot=40, seed=1) != first


def test_coverage_of_the_bootstrap_over_users():
    """A nominal 95 % interval covers the truth about that often; one that ignores users does not."""
    label, a, b, _ = clicks(np.random.default_rng(0), n_users=20_000, noise_b=0.5)
    truth = auc(label, b) - auc(label, a)
    by_user = by_sample = 0
    replications = 300
    for seed in range(replications):
        label, a, b, user = clicks(np.random.default_rng(1 + seed), noise_b=0.5)
        by_user += not stats.paired_bootstrap_auc(label, a, b, user, 200).excludes(truth)
        each = np.arange(len(user))
        by_sample += not stats.paired_bootstrap_auc(label, a, b, each, 200).excludes(truth)
    assert 0.91 <= by_user / replications <= 0.98  # the count's standard deviation is 0.013
    assert by_sample / replications < 0.85


def test_a_planted_difference_is_found_and_a_null_one_is_not():
    found = {0.7: 0, 0.4: 0}
    for noise in found:
        for seed in range(60):
            data = clicks(np.random.default_rng(seed), n_users=150, noise_b=noise)
            found[noise] += stats.paired_bootstrap_auc(*data, n_boot=200).low > 0
    assert found[0.4] >= 55  # b is better
    assert found[0.7] <= 6  # a and b are equally good: 1.5 expected


def test_mean_interval_and_paired_test_equal_scipy():
    rng = np.random.default_rng(0)
    a = rng.normal(size=12)
    b = a + 0.3 + 0.5 * rng.normal(size=12)
    test = stats.paired_user_test(a, b, level=0.9)
    reference = scipy_stats.ttest_rel(b, a)
    expected = reference.confidence_interval(0.9)
    assert test.p_value == pytest.approx(reference.pvalue)
    assert test.difference.value == pytest.approx(np.mean(b - a))
    assert (test.difference.low, test.difference.high) == pytest.approx((expected.low, expected.high))
    assert stats.mean_interval(b - a, 0.9) == test.difference
    assert stats.paired_user_test(a, a).p_value == 1


def test_an_interval_reads_well_and_knows_what_it_excludes():
    interval = stats.Interval(0.0049, 0.0021, 0.0077, 0.95, 610)
    assert str(interval) == "+0.0049 [+0.0021, +0.0077] (95%, n = 610)"
    assert interval.excludes(0) and interval.excludes(0.01) and not interval.excludes(0.005)


LABEL, SCORE, USER = [0, 1, 0, 1], [0.1, 0.4, 0.2, 0.3], [1, 1, 2, 2]
MISTAKES = {
    "one user": (lambda: stats.paired_bootstrap_auc(LABEL, SCORE, SCORE, [1] * 4), "at least two users"),
    "one class": (lambda: stats.paired_bootstrap_auc([1] * 4, SCORE, SCORE, USER), "positive and negative"),
    "NaN": (lambda: stats.paired_bootstrap_auc(LABEL, SCORE, [0.1, 0.2, np.nan, 0], USER), "sample 2 is NaN"),
    "users": (lambda: stats.paired_bootstrap_auc(LABEL, SCORE, SCORE, [1, 2]), "4 labels but 2 users"),
    "n_boot": (lambda: stats.paired_bootstrap_auc(LABEL, SCORE, SCORE, USER, 0), "n_boot"),
    "level": (lambda: stats.paired_bootstrap_auc(LABEL, SCORE, SCORE, USER, level=95), "between 0 and 1"),
    "one seed": (lambda: stats.mean_interval([0.7]), "at least two values"),
    "NaN mean": (lambda: stats.mean_interval([0.7, np.nan]), "Value 1"),
    "unpaired": (lambda: stats.paired_user_test([1, 2], [1, 2, 3]), "one value a user"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_sentence(name):
    call, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        call()


def test_over_seeds_holds_the_spread_of_users_and_of_seeds():
    seeds = [stats.Interval(value, value - 0.2, value + 0.2, 0.95, 600) for value in (0.1, 0.3, 0.5)]
    pooled = stats.over_seeds(seeds)
    # by hand: t(2) = 4.3027, sd = 0.2, so the seeds' half-width is 0.4968; the users' is 0.2
    assert pooled.value == pytest.approx(0.3)
    assert pooled.high - pooled.value == pytest.approx(np.hypot(0.4968, 0.2), abs=1e-3)
    assert pooled.value - pooled.low == pytest.approx(pooled.high - pooled.value)
    assert (pooled.level, pooled.n) == (0.95, 600)
    assert stats.over_seeds(seeds[:1]) == seeds[0]


def test_pooled_rows_are_over_seeds_of_each_key_in_order():
    first, second = stats.Interval(1.0, 0.5, 1.5, 0.95, 9), stats.Interval(2.0, 1.0, 3.0, 0.95, 9)
    rows = [("b", 2, first), ("a", 1, first), ("b", 2, second), ("b", 3, second)]
    table = pd.DataFrame({"arm": arm, "size": size} | vars(interval) for arm, size, interval in rows)
    pooled = stats.pool_rows(table, ["arm", "size"])
    expected = [("b", 2, [first, second]), ("a", 1, [first]), ("b", 3, [second])]
    pd.testing.assert_frame_equal(
        pooled,
        pd.DataFrame({"arm": a, "size": n} | vars(stats.over_seeds(found)) for a, n, found in expected),
    )


def test_over_seeds_refuses_nothing_and_mixed_levels():
    interval = stats.Interval(0.1, 0.0, 0.2, 0.95, 600)
    with pytest.raises(UserError, match="at least one"):
        stats.over_seeds([])
    with pytest.raises(UserError, match="one level"):
        stats.over_seeds([interval, dataclasses.replace(interval, level=0.9)])


# Means


def test_draws_of_a_mean_are_means_over_the_users_drawn():
    rng = np.random.default_rng(5)
    user = rng.integers(0, 12, 90)
    values = {"a": rng.random(90), "b": rng.random(90)}
    drawn = stats.draw_mean(values, user, n_boot=40, seed=3)
    _, code = np.unique(user, return_inverse=True)
    again = np.random.default_rng(3)
    for replicate in range(40):
        rows = np.concatenate([np.flatnonzero(code == u) for u in again.integers(12, size=12)])
        for arm, value in values.items():
            assert drawn.draws[arm][replicate] == pytest.approx(value[rows].mean())
    assert drawn.value == {arm: pytest.approx(value.mean()) for arm, value in values.items()}
    assert drawn.n == 12


@pytest.mark.parametrize(
    ("values", "text"),
    [([1.0, np.nan, 2.0], "Value 1 of 'a' is not finite"), ([1.0, 2.0], r"\(2,\) values of 'a'")],
)
def test_values_that_have_no_mean_over_users_are_refused(values, text):
    with pytest.raises(UserError, match=text):
        stats.draw_mean({"a": values}, [0, 1, 1])


def test_difference_of_parts_adds_the_facing_half_widths_as_squares():
    difference = stats.difference_of_parts(
        stats.Interval(5, 2, 6, 0.95, 40), stats.Interval(1, -1, 5, 0.95, 30)
    )
    assert difference == stats.Interval(4, 4 - 5, 4 + math.hypot(1, 2), 0.95, 30)
    with pytest.raises(UserError, match="one level"):
        stats.difference_of_parts(stats.Interval(5, 2, 6, 0.95, 40), stats.Interval(1, -1, 5, 0.9, 30))


def test_mean_of_parts_has_the_half_width_of_a_mean():
    parts = [stats.Interval(value, value - 2, value + 3, 0.95, n) for value, n in ((1, 9), (2, 8), (6, 7))]
    mean = stats.mean_of_parts(parts)
    assert mean == stats.Interval(3, pytest.approx(3 - 2 / 3**0.5), pytest.approx(3 + 3**0.5), 0.95, 7)
    with pytest.raises(UserError, match="at least one interval"):
        stats.mean_of_parts([])


def test_no_change_is_relative_to_nothing():
    drawn = stats.draw_mean({"a": [0.0, 0.0], "b": [1.0, 0.0]}, [1, 2])
    with pytest.raises(UserError, match="metric of 'a' is 0"):
        drawn.gain("b", "a")
