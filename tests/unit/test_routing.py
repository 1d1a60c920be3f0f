"""Routing and its ceiling against brute force; groups and calibration against scikit-learn or by hand."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from rec_utils.errors import UserError
from rec_utils.papers.routing import (
    auc_by_group,
    best_share,
    boundaries,
    by_group,
    calibration_error,
    curve,
    entropy,
    oracle,
    route,
    thirds,
)
from rec_utils.stats import paired_bootstrap_auc


def drawn(n=300, seed=0):
    """Labels; a recommender that is right where it is sure; a language model that knows the rest."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.6).astype(float)
    sure = rng.random(n) < 0.5
    toward = 2 * label - 1
    crm = 0.5 + np.where(sure, 0.4 * toward, 0.05 * rng.choice([-1, 1], n)) + 0.01 * rng.normal(size=n)
    lm = 0.5 + np.where(sure, 0.3 * rng.choice([-1, 1], n), 0.3 * toward) + 0.01 * rng.normal(size=n)
    return label, crm, lm


probabilities = st.lists(
    st.tuples(st.booleans(), st.floats(0.01, 0.99), st.floats(0.01, 0.99)), min_size=2, max_size=7
)


@settings(max_examples=50)
@given(probabilities, st.floats(0, 1))
def test_the_unsure_share_goes_to_the_language_model(rows, share):
    _, crm, lm = (np.array(column, float) for column in zip(*rows, strict=True))
    mixed = route(crm, lm, share)
    n = round(share * len(crm))
    difficulty = entropy(crm)
    sent = np.isin(np.arange(len(crm)), np.argsort(-difficulty, kind="stable")[:n])
    assert sent.sum() == n
    assert not sent.any() or sent.all() or difficulty[sent].min() >= difficulty[~sent].max()
    np.testing.assert_array_equal(mixed, np.where(sent, lm, crm))


def test_entropy_is_that_of_a_coin():
    p = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    quarter = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(entropy(p), [0, quarter, np.log(2), quarter, 0])


@settings(max_examples=40, deadline=None)
@given(probabilities, st.floats(0, 1))
def test_no_choice_of_samples_beats_the_oracle(rows, share):
    label, crm, lm = (np.array(column, float) for column in zip(*rows, strict=True))
    best = np.inf
    for n in range(round(share * len(label)) + 1):
        for chosen in map(list, combinations(range(len(label)), n)):
            mixed = crm.copy()
            mixed[chosen] = lm[chosen]
            best = min(best, log_loss(label, mixed, labels=[0, 1]))
    assert log_loss(label, oracle(label, crm, lm, share), labels=[0, 1]) == pytest.approx(best)


def test_the_curve_finds_where_each_model_is_good():
    label, crm, lm = drawn()
    table = curve(label, crm, lm, (0.0, 0.25, 0.5, 0.75, 1.0)).set_index(["router", "share"])
    for router in ("entropy", "oracle", "random"):
        assert table.loc[(router, 0.0), "AUC"] == pytest.approx(roc_auc_score(label, crm))
    assert table.loc[("entropy", 1.0), "LogLoss"] == pytest.approx(log_loss(label, lm))
    assert table.loc[("random", 1.0), "ACC"] == pytest.approx(accuracy_score(label, lm > 0.5))
    auc = table["AUC"]
    assert auc["entropy"].idxmax() == 0.5
    assert (auc["oracle"] >= auc["entropy"]).all() and auc["entropy", 0.5] > auc["random", 0.5] + 0.1
    assert best_share(label, crm, lm, (0.75, 0.0, 0.5)) == 0.5


def test_of_equal_shares_the_smallest_is_chosen():
    label, crm, _ = drawn()
    assert best_share(label, crm, crm, (0.4, 0.2)) == 0.2


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(UserError, match=f"share must lie between 0 and 1, not at {share}"):
        route(np.array([0.5]), np.array([0.5]), share)


@pytest.mark.parametrize("n", [3, 10, 11])
def test_thirds_are_of_one_size_and_in_order_of_confidence(n):
    crm = np.random.default_rng(n).random(n)
    group = thirds(crm)
    sizes = np.bincount(group, minlength=4)[1:]
    assert sizes.max() - sizes.min() <= 1
    confidence = np.abs(crm - 0.5)
    for sure, unsure in ((1, 2), (2, 3)):
        assert confidence[group == sure].min() > confidence[group == unsure].max()


def test_scores_of_groups():
    label, crm, lm = drawn()
    group = thirds(crm)
    table = by_group(label, {"CRM": crm, "LM": lm}, group).set_index(["group", "model"])
    assert len(table) == 6 and table["n"].sum() == 2 * len(label)
    for number in (1, 2, 3):
        here = group == number
        row = table.loc[(number, "LM")]
        assert row["AUC"] == pytest.approx(roc_auc_score(label[here], lm[here]))
        assert row["LogLoss"] == pytest.approx(log_loss(label[here], lm[here]))
        assert row["ACC"] == pytest.approx(accuracy_score(label[here], lm[here] > 0.5))
        assert (row["positive_rate"], row["mean_p"]) == pytest.approx((label[here].mean(), lm[here].mean()))
    auc = table["AUC"].unstack()
    assert auc.loc[1, "CRM"] > auc.loc[1, "LM"] + 0.2 and auc.loc[3, "LM"] > auc.loc[3, "CRM"] + 0.2


def test_a_group_of_one_class_has_no_auc():
    label, crm, _ = drawn()
    table = by_group(label, {"CRM": crm}, label)
    assert table["AUC"].isna().all() and table["LogLoss"].notna().all()


def test_auc_by_group_with_intervals():
    label, crm, lm = drawn()
    group = pd.Categorical.from_codes(thirds(crm) - 1, ["sure", "middle", "unsure", "empty"])
    user = np.arange(len(label)) % 40
    alone = np.asarray(group == "middle")
    user[alone] = 7  # one user has this group to himself
    table = auc_by_group(label, {"LM": lm, "CRM": crm}, group, user, n_boot=200, seed=3)
    assert table[["bin", "arm"]].to_numpy().tolist() == [
        [bin, arm] for bin in ("sure", "unsure") for arm in ("LM", "CRM")
    ]
    here = np.asarray(group == "unsure")
    row = table.set_index(["bin", "arm"]).loc[("unsure", "CRM")]
    assert row["n"] == here.sum() and row["value"] == pytest.approx(roc_auc_score(label[here], crm[here]))
    # over a constant, whose AUC is 0.5 on every replicate, the difference has the same interval
    over_chance = paired_bootstrap_auc(
        label[here], np.zeros(here.sum()), crm[here], user[here], n_boot=200, seed=3
    )
    assert (row["low"], row["high"]) == pytest.approx((over_chance.low + 0.5, over_chance.high + 0.5))


def test_calibration_error_by_hand():
    label = np.array([1, 0, 1, 1, 0.0])
    p = np.array([0.61, 0.65, 0.69, 1.0, 0.05])
    # bins 0.6-0.7: 2 of 3 are positive; 0.9-1.0 is exact; 0.0-0.1
    expected = (3 * abs(2 / 3 - 0.65) + 0 + 0.05) / 5
    assert calibration_error(label, p) == pytest.approx(expected)


def test_boundaries_show_a_shift():
    rng = np.random.default_rng(0)
    crm = rng.random(2000)
    label = (rng.random(2000) < crm).astype(float)
    table = boundaries(label, crm, np.clip(crm + 0.2, 0, 1), bins=8)
    assert table["n"].tolist() == [250] * 8
    assert table["crm"].is_monotonic_increasing
    np.testing.assert_allclose(table["positive_rate"], table["crm"], atol=0.1)
    np.testing.assert_allclose((table["lm"] - table["crm"])[:6], 0.2, atol=1e-6)
    assert np.average(table["disagree"]) == pytest.approx(((crm > 0.3) & (crm <= 0.5)).mean())
