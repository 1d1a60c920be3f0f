"""Splits into train, validation and test, and checks that nothing leaks between them.

A split is three boolean masks over the N rows of a table, in the order train, validation, test.
"""

from __future__ import annotations

import numpy as np

from rec_utils.errors import UserError

Masks = tuple[np.ndarray, np.ndarray, np.ndarray]  #: train, validation, test: bool [N] each
NAMES = ("train", "validation", "test")


class LeakError(UserError):
    """A split lets what is predicted reach what is learnt from."""


def user_folds(n_users: int, n_folds: int, seed: int) -> np.ndarray:
    """Fold of every user, drawn at random; the folds' sizes differ by at most one.

    Returns:
        [n_users] int64 in 0 ... n_folds - 1.

    Raises:
        UserError: fewer than two folds, or more folds than users.
    """
    if not 2 <= n_folds <= n_users:
        raise UserError(f"n_folds must lie between 2 and the number of users, {n_users}, not at {n_folds}")
    return np.random.default_rng(seed).permutation(np.arange(n_users) % n_folds)


def fold_masks(
    user_row: np.ndarray, folds: np.ndarray, test_fold: int, valid_share: float, seed: int
) -> Masks:
    """The masks of one fold: its users are the test, a share of the other users the validation.

    Args:
        user_row: [N] the user of every row, as an index into `folds`.
        folds: [U] the fold of every user.
        test_fold: the fold to test on.
        valid_share: share of the users of the other folds to validate on, rounded, at least one user.
        seed: of the draw of validation users; each fold draws its own.

    Raises:
        UserError: `test_fold` is not a fold, or `valid_share` leaves no user to train on.
    """
    test_user = folds == test_fold
    others = np.flatnonzero(~test_user)
    if not test_user.any():
        raise UserError(f"test_fold {test_fold} is not among the folds 0 to {folds.max()}")
    n_valid = max(1, round(valid_share * len(others)))
    if not 0 < valid_share < 1 or n_valid >= len(others):
        raise UserError(
            f"valid_share {valid_share} of {len(others)} users leaves none to train on or to validate on"
        )
    valid_user = np.zeros_like(test_user)
    valid_user[np.random.default_rng([seed, test_fold]).choice(others, n_valid, replace=False)] = True
    valid, test = valid_user[user_row], test_user[user_row]
    return ~(valid | test), valid, test


def by_time(timestamps: np.ndarray, shares: tuple[float, float, float]) -> Masks:
    """Split all rows at two points in time; rows of one timestamp stay together.

    Args:
        timestamps: [N] any unit.
        shares: of train, validation and test in the rows, sum 1; rows that share a timestamp with the first
            row beyond a cut go with it, so that the parts before a cut may be a little smaller.

    Raises:
        UserError: the shares are not positive or do not sum to 1, or a part is empty.
    """
    if min(shares) <= 0 or not np.isclose(sum(shares), 1):
        raise UserError(f"shares {shares} must be positive and sum to 1")
    ordered = np.sort(timestamps)
    cuts = ordered[np.round(np.cumsum(shares[:2]) * len(ordered)).astype(int).clip(max=len(ordered) - 1)]
    part = np.searchsorted(cuts, timestamps, side="right")
    masks = (part == 0, part == 1, part == 2)
    for name, mask in zip(NAMES, masks, strict=True):
        if not mask.any():
            raise UserError(f"shares {shares} leave the {name} part empty: too few different timestamps")
    return masks


def within_users(user: np.ndarray, time: np.ndarray, shares: tuple[float, float, float]) -> Masks:
    """Split every user's rows at two points in time: all users are known, their latest rows are the test.

    Rows of different users may lie in any order in time, so a model may learn from one user's rows that are
    later than another's test. Equal times keep the order of the rows.

    Args:
        user: [N] user of every row.
        time: [N] anything that sorts by time.
        shares: of train, validation and test in each user's rows, sum 1, rounded.

    Raises:
        UserError: the shares are not positive or do not sum to 1, or a part is empty.
    """
    if min(shares) <= 0 or not np.isclose(sum(shares), 1):
        raise UserError(f"shares {shares} must be positive and sum to 1")
    order = np.lexsort((np.arange(len(user)), time, user))
    _, start, of, counts = np.unique(user[order], return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(user), int)
    rank[order] = np.arange(len(user)) - start[of]
    of_row = np.empty(len(user), int)
    of_row[order] = of
    cuts = np.round(np.cumsum(shares[:2])[:, None] * counts).astype(int)[:, of_row]
    masks = (rank < cuts[0], (rank >= cuts[0]) & (rank < cuts[1]), rank >= cuts[1])
    for name, mask in zip(NAMES, masks, strict=True):
        if not mask.any():
            raise UserError(f"shares {shares} leave the {name} part empty: the users have too few rows")
    return masks


def leave_one_out(user: np.ndarray, time: np.ndarray) -> Masks:
    """Test on every user's last row, validate on the last but one; equal times keep the order of the rows.

    Users with fewer than three rows are in train only.

    Args:
        user: [N] user of every row.
        time: [N] anything that sorts by time.
    """
    order = np.lexsort((np.arange(len(user)), time, user))
    _, start, counts = np.unique(user[order], return_index=True, return_counts=True)
    long = counts >= 3
    last = (start + counts - 1)[long]
    valid, test = np.zeros(len(user), bool), np.zeros(len(user), bool)
    test[order[last]] = True
    valid[order[last - 1]] = True
    return ~(valid | test), valid, test


def check_user_split(user_row: np.ndarray, masks: Masks) -> None:
    """Raise unless every row is in exactly one part, every part has rows, and no user is in two parts.

    Raises:
        LeakError: names the first row or user at fault.
    """
    _check_partition(masks)
    n_users = user_row.max() + 1
    present = np.stack([np.bincount(user_row[mask], minlength=n_users) > 0 for mask in masks])
    shared = np.flatnonzero(present.sum(axis=0) > 1)
    if len(shared):
        parts = " and ".join(name for name, there in zip(NAMES, present[:, shared[0]], strict=True) if there)
        raise LeakError(f"user row {shared[0]} is in {parts}")


def check_time_split(timestamps: np.ndarray, masks: Masks, *, ties: bool = False) -> None:
    """Raise unless every row is in exactly one part and each part ends before the next one begins.

    Args:
        timestamps: [N] any unit.
        masks: [N] each.
        ties: rows of one timestamp may lie on both sides of a cut.

    Raises:
        LeakError: names the first row at fault.
    """
    _check_partition(masks)
    for earlier, later in ((0, 1), (1, 2)):
        begin = timestamps[masks[later]].min()
        late = np.flatnonzero(masks[earlier] & (timestamps > begin if ties else timestamps >= begin))
        if len(late):
            row, time = late[0], timestamps[late[0]]
            raise LeakError(
                f"row {row} of {NAMES[earlier]} has time {time}, but {NAMES[later]} begins at {begin}"
            )


def check_history_precedes(
    user_row: np.ndarray, time: np.ndarray, first: np.ndarray, position: np.ndarray, in_prompt: np.ndarray
) -> None:
    """Raise unless all that a sample may look at belongs to its user and lies before it.

    The table holds T interactions, user by user in time order; a sample at `position` may look at the rows
    from `first` up to the one before it, and at the text about its user, written from the rows marked
    `in_prompt`.

    Args:
        user_row: [T] user of every interaction.
        time: [T] time in the unit by which the interactions are ordered, such as seconds or days.
        first: [N] where the history of each sample begins.
        position: [N] row of each sample itself.
        in_prompt: [T] rows that a language model read about the row's user.

    Raises:
        LeakError: names the first sample or row at fault.
    """
    same_user = user_row[1:] == user_row[:-1]
    back = np.flatnonzero(same_user & (time[1:] < time[:-1]))
    if len(back):
        raise LeakError(
            f"row {back[0] + 1} lies before row {back[0]} in time, though it is later in the history"
        )
    begins = np.flatnonzero(np.concatenate([[True], ~same_user]))
    own = begins[np.searchsorted(begins, position, side="right") - 1]
    foreign = np.flatnonzero(first < own)
    if len(foreign):
        raise LeakError(f"sample {foreign[0]} looks back to row {first[foreign[0]]}, another user's")
    ahead = np.flatnonzero(first > position)
    if len(ahead):
        raise LeakError(f"sample {ahead[0]} at row {position[ahead[0]]} has a history that begins after it")
    ends = np.append(begins[1:], len(user_row)) - 1
    # last prompt row of every user, -1 without one
    last_prompt = np.maximum.reduceat(np.where(in_prompt, np.arange(len(user_row)), -1), begins)
    leaked = np.flatnonzero(last_prompt[np.searchsorted(ends, position)] >= position)
    if len(leaked):
        row = position[leaked[0]]
        raise LeakError(
            f"sample {leaked[0]} at row {row} is predicted with a text written from row {row} or later"
        )


def _check_partition(masks: Masks) -> None:
    """Raise unless every row is in exactly one mask and no mask is empty."""
    parts = np.sum(masks, axis=0)
    wrong = np.flatnonzero(parts != 1)
    if len(wrong):
        raise LeakError(f"row {wrong[0]} is in {parts[wrong[0]]} parts of the split instead of one")
    for name, mask in zip(NAMES, masks, strict=True):
        if not mask.any():
            raise LeakError(f"the {name} part is empty")
