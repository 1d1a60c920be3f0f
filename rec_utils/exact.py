"""Exact intervals for small counts: a share, and an odds ratio with Fisher's test."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rec_utils.errors import UserError
from rec_utils.stats import Interval


def share(k: int, n: int, level: float = 0.95) -> Interval:
    """k of n in percent, with the interval of Clopper and Pearson (1934)."""
    if not 0 <= k <= n or n == 0:
        raise UserError(f"{k} of {n} is no share")
    bounds = stats.binomtest(k, n).proportion_ci(level, method="exact")
    return Interval(100 * k / n, 100 * bounds.low, 100 * bounds.high, level, n)


def odds_ratio(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> tuple[Interval, float]:
    """Odds of the true ones among `a` over those among `b`, given how many are true in all.

    The estimate is the conditional one and its interval exact (Fisher 1935); the p value is that of Fisher's
    two-sided test.

    Args:
        a: one truth value a case [A].
        b: likewise [B].
        level: coverage of the interval.

    Raises:
        UserError: the upper bound is infinite, since all of `a` or none of `b` are true; swap the two.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    table = [[a.sum(), (~a).sum()], [b.sum(), (~b).sum()]]
    ratio = stats.contingency.odds_ratio(table, kind="conditional")
    bounds = ratio.confidence_interval(level)
    if not math.isfinite(bounds.high):
        raise UserError(f"the odds ratio of {table[0]} over {table[1]} has no upper bound; swap the two")
    interval = Interval(float(ratio.statistic), float(bounds.low), float(bounds.high), level, len(a) + len(b))
    return interval, float(stats.fisher_exact(table).pvalue)
