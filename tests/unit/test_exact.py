"""Exact intervals: against their definitions."""

import numpy as np
import pytest
from scipy import stats

from rec_utils import exact
from rec_utils.errors import UserError


def test_a_share_has_the_interval_of_clopper_and_pearson():
    for k, n in [(3, 12), (40, 42)]:
        interval = exact.share(k, n)
        assert interval.value == pytest.approx(100 * k / n) and interval.n == n
        # at its ends the data are just as unlikely as the level says
        assert stats.binom.sf(k - 1, n, interval.low / 100) == pytest.approx(0.025)
        assert stats.binom.cdf(k, n, interval.high / 100) == pytest.approx(0.025)
    none = exact.share(0, 10)
    assert (none.value, none.low) == (0, 0) and none.high == pytest.approx(100 * (1 - 0.025**0.1))


@pytest.mark.parametrize(("k", "n"), [(0, 0), (5, 4), (-1, 3)])
def test_what_is_no_share_is_an_error(k, n):
    with pytest.raises(UserError, match=f"{k} of {n}"):
        exact.share(k, n)


def test_an_odds_ratio_has_fishers_interval_and_test():
    a, b = np.repeat([True, False], [6, 8]), np.repeat([True, False], [32, 4])
    interval, p = exact.odds_ratio(a, b)
    # Fisher's noncentral hypergeometric distribution of the true ones among a, given 38 of 50
    drawn = [stats.nchypergeom_fisher(50, 38, 14, odds) for odds in (interval.low, interval.high)]
    assert drawn[0].sf(5) == pytest.approx(0.025, rel=1e-3)
    assert drawn[1].cdf(6) == pytest.approx(0.025, rel=1e-3)
    assert stats.nchypergeom_fisher(50, 38, 14, interval.value).mean() == pytest.approx(6, rel=1e-3)
    k = np.arange(2, 15)
    chance = stats.hypergeom(50, 38, 14).pmf(k)
    assert p == pytest.approx(chance[chance <= chance[k == 6] * (1 + 1e-9)].sum())
    assert interval.n == 50 and interval.high < 1


def test_an_empty_cell_must_stand_first():
    interval, _ = exact.odds_ratio([False] * 5, [True, True, False])
    assert interval.value == interval.low == 0 < interval.high
    with pytest.raises(UserError, match="swap the two"):
        exact.odds_ratio([True, True, False], [False] * 5)
