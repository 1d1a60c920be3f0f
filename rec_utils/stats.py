"""Intervals and paired tests: how sure is a difference between two models?

Samples of one user are not independent, so users are the unit: the bootstrap draws users with
replacement and keeps all samples of a drawn user, and both models are scored on the same draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse, stats

from rec_utils.errors import UserError
from rec_utils.metrics import auc, check_samples, relative_gain, sample_logloss

#: Replicates that `_weighted_auc` handles together: a row of 8 float64 is one cache line, measured fastest.
_REPLICATES_AT_ONCE = 8


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float
    level: float  #: nominal coverage, such as 0.95
    n: int  #: number of independent units (users, seeds) behind it

    def excludes(self, null: float) -> bool:
        """Whether `null` lies outside the interval."""
        return not self.low <= null <= self.high

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}] ({self.level:.0%}, n = {self.n})"


@dataclass(frozen=True)
class PairedTest:
    """A paired t-test: the mean difference with its interval, and the two-sided p-value."""

    difference: Interval
    p_value: float


def paired_bootstrap_auc(
    label: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    user: ArrayLike,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    *,
    relative: bool = False,
) -> Interval:
    """AUC_b - AUC_a of scores [N], with the percentile interval of a bootstrap over users.

    `relative` gives (AUC_b - AUC_a) / AUC_a instead. Raises `UserError` for one class, NaN or one user.
    """
    drawn = draw_auc(label, {"a": score_a, "b": score_b}, user, n_boot, seed)
    return drawn.interval(_relative if relative else _difference, level)


def paired_bootstrap_logloss(
    label: ArrayLike,
    probability_a: ArrayLike,
    probability_b: ArrayLike,
    user: ArrayLike,
    n_boot: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    *,
    relative: bool = False,
) -> Interval:
    """LogLoss_b - LogLoss_a (below 0: b is better), with the percentile interval of a bootstrap over users.

    `relative` gives (LogLoss_a - LogLoss_b) / LogLoss_a instead (above 0: b is better).
    """
    drawn = draw_logloss(label, {"a": probability_a, "b": probability_b}, user, n_boot, seed)
    lower = partial(_relative, lower_is_better=True)
    return drawn.interval(lower if relative else _difference, level)


@dataclass(frozen=True)
class Draws:
    """A metric of several arms, on the data and on every replicate of one bootstrap over users.

    Since all arms are scored on the same replicates, any contrast of them has its interval, not only
    the difference of two.
    """

    value: dict[str, float]  #: arm -> metric on the data
    draws: dict[str, np.ndarray]  #: arm -> metric on each replicate [n_boot]
    n: int  #: number of users

    def interval(
        self, contrast: Callable[[Mapping[str, float | np.ndarray]], Any], level: float = 0.95
    ) -> Interval:
        """`contrast` of the arms' metrics, such as `lambda m: m["b"] - m["a"]`, with its interval."""
        tail = (1 - _checked_level(level)) / 2
        low, high = np.nanquantile(contrast(self.draws), [tail, 1 - tail])
        return Interval(float(contrast(self.value)), float(low), float(high), level, self.n)

    def gain(self, arm: str, over: str, level: float = 0.95) -> Interval:
        """Relative change from `over` to `arm`, in percent.

        Raises:
            UserError: the metric of `over` is 0, so that there is no relative change.
        """
        if self.value[over] == 0:
            raise UserError(f"the metric of {over!r} is 0, so nothing can be said relative to it")
        return self.interval(lambda metric: 100 * relative_gain(metric[arm], metric[over]), level)

    def gains(self, pairs: Iterable[tuple[str, str, str]]) -> pd.DataFrame:
        """`gain` for triples (group, arm, over) as a table for `plots.forest`."""
        return pd.DataFrame(
            {"group": group, "label": f"{arm} over {over}"} | vars(self.gain(arm, over))
            for group, arm, over in pairs
        )


def draw_auc(
    label: ArrayLike, scores: Mapping[str, ArrayLike], user: ArrayLike, n_boot: int = 1000, seed: int = 0
) -> Draws:
    """AUC of every arm's scores [N] on the replicates of a bootstrap over users.

    Raises `UserError` for one class, NaN or one user.
    """
    users, _, weights = _user_draws(label, user, n_boot, seed)
    draws = {arm: _weighted_auc(*check_samples(label, s), users, weights) for arm, s in scores.items()}
    return Draws({arm: auc(label, s) for arm, s in scores.items()}, draws, len(weights))


def draw_logloss(
    label: ArrayLike,
    probabilities: Mapping[str, ArrayLike],
    user: ArrayLike,
    n_boot: int = 1000,
    seed: int = 0,
) -> Draws:
    """LogLoss of every arm's probabilities [N] on the replicates of a bootstrap over users."""
    losses = {arm: sample_logloss(label, p) for arm, p in probabilities.items()}
    return draw_mean(losses, user, n_boot, seed)


def draw_mean(values: Mapping[str, ArrayLike], user: ArrayLike, n_boot: int = 1000, seed: int = 0) -> Draws:
    """Mean of every arm's values [N], such as one a list, on the replicates of a bootstrap over users.

    A user with more values weighs more, as in the mean. Raises `UserError` for NaN, another number of
    values than of `user`, or one user.
    """
    values = {arm: np.asarray(value, dtype=np.float64) for arm, value in values.items()}
    users, size, weights = _user_draws(user, user, n_boot, seed)
    for arm, value in values.items():
        if value.shape != users.shape:
            raise UserError(f"There are {value.shape} values of {arm!r} but {len(users)} users.")
        if len(bad := np.flatnonzero(~np.isfinite(value))):
            raise UserError(f"Value {bad[0]} of {arm!r} is not finite.")
    draws = {
        arm: (np.bincount(users, weights=value) @ weights) / (size @ weights) for arm, value in values.items()
    }
    return Draws({arm: float(value.mean()) for arm, value in values.items()}, draws, len(weights))


def over_seeds(intervals: Sequence[Interval]) -> Interval:
    """Mean of one interval a seed; its width holds what varies between users and between seeds.

    The seeds share their users, so the users' part is not divided by the number of seeds: half-width^2 =
    mean(half-width^2 of a seed) + (t sd / sqrt(S))^2. One seed alone is returned as it is.

    Raises `UserError` for no interval or for different levels.
    """
    if not intervals or len({interval.level for interval in intervals}) > 1:
        raise UserError("Intervals over seeds need at least one interval, all of one level.")
    if len(intervals) == 1:
        return intervals[0]
    half = [(interval.high - interval.low) / 2 for interval in intervals]
    seeds = mean_interval([interval.value for interval in intervals], intervals[0].level)
    width = math.hypot(math.sqrt(np.mean(np.square(half))), (seeds.high - seeds.low) / 2)
    n = min(interval.n for interval in intervals)
    return Interval(seeds.value, seeds.value - width, seeds.value + width, seeds.level, n)


def mean_of_parts(intervals: Sequence[Interval]) -> Interval:
    """Mean of values measured on parts of the data without a common sample, errors taken as independent.

    Raises `UserError` for no interval or different levels.
    """
    if not intervals or len({interval.level for interval in intervals}) > 1:
        raise UserError("A mean of parts needs at least one interval, all of one level.")
    k = len(intervals)
    value = sum(interval.value for interval in intervals) / k
    low = math.hypot(*(interval.value - interval.low for interval in intervals)) / k
    high = math.hypot(*(interval.high - interval.value for interval in intervals)) / k
    return Interval(value, value - low, value + high, intervals[0].level, min(i.n for i in intervals))


def difference_of_parts(a: Interval, b: Interval) -> Interval:
    """a - b of two values measured on parts of the data without a common sample, errors taken as independent.

    Raises `UserError` for different levels.
    """
    if a.level != b.level:
        raise UserError(f"A difference needs intervals of one level, not {a.level} and {b.level}.")
    low = math.hypot(a.value - a.low, b.high - b.value)
    high = math.hypot(a.high - a.value, b.value - b.low)
    value = a.value - b.value
    return Interval(value, value - low, value + high, a.level, min(a.n, b.n))


def pool_rows(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One row for each combination of `keys`, in order of appearance, with `over_seeds` of its intervals.

    `rows` has the fields of `Interval` as columns, such as the tables of several recorded seeds put together.
    """
    names = [item.name for item in fields(Interval)]
    parts = rows.groupby(keys, sort=False)
    return pd.DataFrame(
        dict(zip(keys, key, strict=True))
        | vars(over_seeds([Interval(*row) for row in part[names].itertuples(index=False)]))
        for key, part in parts
    )


def paired_user_test(value_a: ArrayLike, value_b: ArrayLike, level: float = 0.95) -> PairedTest:
    """Paired t-test of value_b - value_a, one value a user [U], such as each user's AUC or NDCG.

    Raises `UserError` for NaN, unequal lengths or fewer than two users.
    """
    a, b = np.asarray(value_a, dtype=np.float64), np.asarray(value_b, dtype=np.float64)
    if a.shape != b.shape:
        raise UserError(f"A paired test needs one value a user for both, not {a.shape} and {b.shape}.")
    difference = mean_interval(b - a, level)
    if difference.low == difference.high:  # no spread: the t statistic is 0 / 0 or infinite
        return PairedTest(difference, p_value=1.0 if difference.value == 0 else 0.0)
    return PairedTest(difference, float(stats.ttest_1samp(b - a, 0.0).pvalue))


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of independent values, such as one a seed, with its Student t interval.

    Raises `UserError` for NaN or fewer than two values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise UserError(f"An interval of a mean needs a vector of at least two values, not {values.shape}.")
    if not np.isfinite(values).all():
        raise UserError(f"Value {int(np.flatnonzero(~np.isfinite(values))[0])} of the mean is not finite.")
    half = stats.t.ppf((1 + _checked_level(level)) / 2, len(values) - 1) * stats.sem(values)
    mean = values.mean()
    return Interval(float(mean), float(mean - half), float(mean + half), level, len(values))


def _user_draws(
    label: ArrayLike, user: ArrayLike, n_boot: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(code of each sample's user [N], samples of each user [U], times each user is drawn [U, n_boot])."""
    _, code, size = np.unique(np.asarray(user), return_inverse=True, return_counts=True)
    n_users = len(size)
    if len(code) != len(np.asarray(label)):
        raise UserError(f"There are {len(np.asarray(label))} labels but {len(code)} users.")
    if n_users < 2:
        raise UserError(f"A bootstrap over users needs at least two users, not {n_users}.")
    if n_boot < 1:
        raise UserError(f"n_boot must be at least 1, not {n_boot}.")
    rng = np.random.default_rng(seed)
    draws = [np.bincount(rng.integers(n_users, size=n_users), minlength=n_users) for _ in range(n_boot)]
    return code, size, np.stack(draws, axis=1).astype(np.float64)


def _weighted_auc(label: np.ndarray, score: np.ndarray, user: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of samples [N] whose user has weight weights[user, r] in replicate r [n_boot]; NaN if one class.

    The weighted number of right pairs is the sum over positives of their weight times the weight of
    the negatives below them (half of the tied ones). Sorting does not depend on the weights, so it is
    done once; a replicate is a running sum over the sorted negatives, read at each positive's place.
    """
    positive, negative = score[label], np.sort(score[~label])
    positive_user = user[label]
    negative_user = user[~label][np.argsort(score[~label])]
    below = np.searchsorted(negative, positive, "left")
    not_above = np.searchsorted(negative, positive, "right")
    n_users, n_places = len(weights), len(negative) + 1
    # reads[u, j]: how many positives of user u stand after j negatives; a tie counts half on either side
    reads = sparse.csr_array(
        (
            np.full(2 * len(positive), 0.5),
            (np.tile(positive_user, 2), np.concatenate([below, not_above])),
        ),
        shape=(n_users, n_places),
    )
    n_positive = np.bincount(positive_user, minlength=n_users)
    value = np.empty(weights.shape[1])
    running = np.zeros((n_places, _REPLICATES_AT_ONCE))
    for start in range(0, len(value), _REPLICATES_AT_ONCE):
        weight = np.ascontiguousarray(weights[:, start : start + _REPLICATES_AT_ONCE])
        total = running[:, : weight.shape[1]]
        np.cumsum(weight[negative_user], axis=0, out=total[1:])
        right = ((reads @ total) * weight).sum(0)
        pairs = (n_positive @ weight) * total[-1]
        value[start : start + len(right)] = np.divide(
            right, pairs, out=np.full(len(right), np.nan), where=pairs > 0
        )
    return value


def _difference(metric: Mapping[str, Any]) -> Any:
    return metric["b"] - metric["a"]


def _relative(metric: Mapping[str, Any], lower_is_better: bool = False) -> Any:
    return relative_gain(metric["b"], metric["a"], lower_is_better=lower_is_better)


def _checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise UserError(f"The level of an interval must lie between 0 and 1, not {level}.")
    return level
