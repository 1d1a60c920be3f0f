import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rec_utils.errors import UserError
from rec_utils.splits import (
    LeakError,
    by_time,
    check_history_precedes,
    check_time_split,
    check_user_split,
    fold_masks,
    leave_one_out,
    user_folds,
    within_users,
)

seeds = st.integers(0, 2**32)


@given(n_folds=st.integers(2, 10), extra=st.integers(0, 50), seed=seeds)
def test_folds_differ_by_at_most_one_user_and_repeat_with_the_seed(n_folds, extra, seed):
    folds = user_folds(n_folds + extra, n_folds, seed)
    sizes = np.bincount(folds, minlength=n_folds)
    assert len(sizes) == n_folds and sizes.max() - sizes.min() <= 1 and sizes.sum() == n_folds + extra
    np.testing.assert_array_equal(folds, user_folds(n_folds + extra, n_folds, seed))


def test_folds_are_drawn_at_random():
    draws = np.stack([user_folds(100, 5, seed) for seed in range(400)])
    assert np.abs((draws == 0).mean(axis=0) - 0.2).max() < 0.1  # 5 standard errors
    assert np.ptp(np.bincount(draws[0])) == 0


@given(n_users=st.integers(4, 40), share=st.floats(0.05, 0.6), seed=seeds, data=st.data())
def test_every_user_is_tested_once_and_validation_users_come_from_the_training_folds(
    n_users, share, seed, data
):
    user_row = data.draw(npst.arrays(np.int64, st.integers(0, 80), elements=st.integers(0, n_users - 1)))
    user_row = np.concatenate([user_row, np.arange(n_users)])
    folds = user_folds(n_users, 2, seed)
    tested = np.zeros(len(user_row), int)
    for fold in range(2):
        masks = fold_masks(user_row, folds, fold, share, seed)
        check_user_split(user_row, masks)
        train, valid, test = masks
        tested += test
        np.testing.assert_array_equal(test, folds[user_row] == fold)
        n_others = (folds != fold).sum()
        assert len(np.unique(user_row[valid])) == max(1, round(share * n_others))
        assert len(np.unique(user_row[train])) + len(np.unique(user_row[valid])) == n_others
    assert (tested == 1).all()


def test_validation_users_change_with_seed_and_fold():
    users, folds = np.arange(200), user_folds(200, 4, 0)
    _, first, _ = fold_masks(users, folds, 0, 0.2, 1)
    _, same, _ = fold_masks(users, folds, 0, 0.2, 1)
    _, other, _ = fold_masks(users, folds, 0, 0.2, 2)
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


@pytest.mark.parametrize("n_users, n_folds", [(5, 1), (5, 6), (0, 2)])
def test_impossible_folds_are_refused(n_users, n_folds):
    with pytest.raises(UserError, match="n_folds"):
        user_folds(n_users, n_folds, 0)


@pytest.mark.parametrize(
    "fold, share, name", [(7, 0.1, "test_fold"), (0, 0.0, "valid_share"), (0, 1.0, "valid_share")]
)
def test_impossible_fold_masks_are_refused(fold, share, name):
    with pytest.raises(UserError, match=name):
        fold_masks(np.arange(10), user_folds(10, 2, 0), fold, share, 0)


times = npst.arrays(np.int64, st.integers(3, 60), elements=st.integers(0, 30))


@given(times, st.tuples(st.floats(0.1, 1), st.floats(0.1, 1), st.floats(0.1, 1)))
def test_time_splits_never_overlap_and_are_as_large_as_asked(timestamps, weights):
    shares = tuple(weight / sum(weights) for weight in weights)
    try:
        masks = by_time(timestamps, shares)
    except UserError as error:  # so few different timestamps that a part would be empty
        assert "part empty" in str(error)
        return
    check_time_split(timestamps, masks)
    # ties at a cut go to the later part, so an earlier part is never larger than asked (rounding aside)
    assert masks[0].sum() <= round(shares[0] * len(timestamps)) + 1
    assert masks[2].sum() >= round(shares[2] * len(timestamps)) - 1
    assert {len(set(timestamps[mask]) & set(timestamps[~mask])) for mask in masks} == {0}


def test_time_split_without_ties_has_the_exact_shares():
    timestamps = np.random.default_rng(0).permutation(1000)
    assert [mask.sum() for mask in by_time(timestamps, (0.8, 0.1, 0.1))] == [800, 100, 100]
    with pytest.raises(UserError, match="shares"):
        by_time(timestamps, (0.8, 0.1, 0.2))


@given(times, seeds)
def test_leave_one_out_takes_the_last_two_of_every_user(time, seed):
    user = np.random.default_rng(seed).integers(0, 6, len(time))
    train, valid, test = leave_one_out(user, time)
    np.testing.assert_array_equal(train.astype(int) + valid + test, 1)
    for each in np.unique(user):
        mine = np.flatnonzero(user == each)
        ordered = sorted(mine, key=lambda row: time[row])  # stable, as stated
        kept = ordered if len(mine) < 3 else ordered[:-2]
        assert sorted(kept) == mine[train[mine]].tolist()
        if len(mine) >= 3:
            assert mine[valid[mine]].tolist() == [ordered[-2]] and mine[test[mine]].tolist() == [ordered[-1]]


@given(
    time=npst.arrays(np.int64, st.integers(12, 80), elements=st.integers(0, 20)),
    seed=seeds,
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.6, 0.1, 0.3)]),
)
def test_within_users_tests_on_the_latest_rows_of_each(time, seed, shares):
    user = np.random.default_rng(seed).integers(0, 2, len(time)) * 7  # ids need not be rows
    try:
        masks = within_users(user, time, shares)
    except UserError as error:
        assert "too few rows" in str(error)
        return
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks), 1)
    for each in np.unique(user):
        mine = np.flatnonzero(user == each)
        ordered = np.array(sorted(mine, key=lambda row: time[row]))  # stable, as stated
        cuts = [round(shares[0] * len(mine)), round((shares[0] + shares[1]) * len(mine))]
        for mask, rows in zip(masks, np.split(ordered, cuts), strict=True):
            assert np.flatnonzero(mask & (user == each)).tolist() == sorted(rows)


def test_impossible_shares_within_users_are_refused():
    with pytest.raises(UserError, match="sum to 1"):
        within_users(np.zeros(9), np.arange(9), (0.8, 0.1, 0.2))
    with pytest.raises(UserError, match="leave the test part empty"):
        within_users(np.zeros(3), np.arange(3), (0.8, 0.1, 0.1))


def test_leaks_between_users_are_found_and_named():
    user_row = np.array([0, 0, 1, 1, 2, 2])
    parts = np.array([0, 0, 1, 1, 2, 2])
    check_user_split(user_row, tuple(parts == part for part in range(3)))
    moved = np.array([0, 0, 1, 0, 2, 2])
    with pytest.raises(LeakError, match="user row 1 is in train and validation"):
        check_user_split(user_row, tuple(moved == part for part in range(3)))
    train, valid, test = (parts == part for part in range(3))
    with pytest.raises(LeakError, match="row 4 is in 2 parts"):
        check_user_split(user_row, (train | (np.arange(6) == 4), valid, test))
    with pytest.raises(LeakError, match="row 5 is in 0 parts"):
        check_user_split(user_row, (train, valid, test & (np.arange(6) != 5)))
    with pytest.raises(LeakError, match="the test part is empty"):
        check_user_split(user_row, (train, ~train, np.zeros(6, bool)))


def test_leaks_through_time_are_found_and_named():
    timestamps = np.array([1, 2, 3, 4, 5])
    parts = np.array([0, 0, 1, 2, 2])
    check_time_split(timestamps, tuple(parts == part for part in range(3)))
    with pytest.raises(LeakError, match="row 1 of train has time 2, but validation begins at 2"):
        check_time_split(np.array([1, 2, 2, 4, 5]), tuple(parts == part for part in range(3)))
    with pytest.raises(LeakError, match="row 2 of validation has time 3, but test begins at 2"):
        check_time_split(np.array([1, 0, 3, 2, 5]), tuple(parts == part for part in range(3)))


def test_one_time_on_both_sides_of_a_cut_is_a_leak_unless_it_is_allowed():
    masks = tuple(np.arange(5) // 2 == part for part in range(3))
    check_time_split(np.array([1, 2, 2, 4, 4]), masks, ties=True)
    with pytest.raises(LeakError, match="row 1 of train has time 2, but validation begins at 2"):
        check_time_split(np.array([1, 2, 2, 4, 4]), masks)
    with pytest.raises(LeakError, match="row 1 of train has time 3, but validation begins at 2"):
        check_time_split(np.array([1, 3, 2, 4, 4]), masks, ties=True)


# two users of three and four interactions; the first of each is in the prompt
TABLE = {
    "user_row": np.array([0, 0, 0, 1, 1, 1, 1]),
    "time": np.array([5, 5, 9, 1, 2, 2, 8]),
    "first": np.array([0, 0, 3, 3]),
    "position": np.array([1, 2, 4, 6]),
    "in_prompt": np.array([True, False, False, True, False, False, False]),
}


@pytest.mark.parametrize(
    "column, index, value, message",
    [
        ("time", 2, 4, "row 2 lies before row 1 in time"),
        ("first", 2, 2, "sample 2 looks back to row 2, another user's"),
        ("first", 1, 3, "sample 1 at row 2 has a history that begins after it"),
        ("in_prompt", 1, True, "sample 0 at row 1 is predicted with a text written from row 1 or later"),
        ("in_prompt", 6, True, "sample 2 at row 4 is predicted with a text written from row 4 or later"),
    ],
)
def test_leaks_through_histories_are_found_and_named(column, index, value, message):
    check_history_precedes(**TABLE)
    changed = TABLE[column].copy()
    changed[index] = value
    with pytest.raises(LeakError, match=message):
        check_history_precedes(**TABLE | {column: changed})


@given(st.data())
def test_the_history_check_agrees_with_looking_at_every_sample(data):
    """Against a brute-force look at what each sample may see."""
    draw = data.draw
    n = draw(st.integers(2, 12))
    user_row = np.sort(draw(npst.arrays(np.int64, n, elements=st.integers(0, 2))))
    time = draw(npst.arrays(np.int64, n, elements=st.integers(0, 3)))
    position = draw(npst.arrays(np.int64, 3, elements=st.integers(0, n - 1)))
    first = draw(npst.arrays(np.int64, 3, elements=st.integers(0, n - 1)))
    in_prompt = draw(npst.arrays(bool, n))
    fine = all(time[i] <= time[i + 1] for i in range(n - 1) if user_row[i] == user_row[i + 1])
    for begin, end in zip(first, position, strict=True):
        fine &= begin <= end and all(user_row[begin:end] == user_row[end])
        fine &= not any(in_prompt[i] and user_row[i] == user_row[end] for i in range(end, n))
    try:
        check_history_precedes(user_row, time, first, position, in_prompt)
    except LeakError:
        assert not fine
    else:
        assert fine
