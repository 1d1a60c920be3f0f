"""Metrics against scikit-learn, or against plain loops where scikit-learn has another definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, log_loss, ndcg_score, roc_auc_score

from rec_utils import metrics
from rec_utils.errors import UserError

LIST_METRICS = [
    metrics.map_at_k,
    metrics.ndcg_at_k,
    metrics.hit_rate_at_k,
    metrics.recall_at_k,
    metrics.mrr_at_k,
]


@st.composite
def samples(draw):
    """Labels with both classes, and scores that often tie."""
    n = draw(st.integers(2, 40))
    label = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    label[:2] = 0, 1
    score = draw(hnp.arrays(np.float64, n, elements=st.integers(-4, 4)))
    return label, score / 3


@st.composite
def lists(draw, ties=True, grades=1):
    """Labels 0 … grades and scores of n_lists x n_candidates, and a k."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 8)))
    label = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, grades)))
    if ties:
        score = draw(hnp.arrays(np.float64, shape, elements=st.integers(-2, 2)))
    else:
        score = np.array([draw(st.permutations(range(shape[1]))) for _ in range(shape[0])], dtype=float)
    return label, score, draw(st.integers(1, shape[1]))


@settings(deadline=None)
@given(samples())
def test_auc_equals_scikit_learn(data):
    assert metrics.auc(*data) == pytest.approx(roc_auc_score(*data), abs=1e-12)


@settings(deadline=None)
@given(samples())
def test_logloss_equals_scikit_learn_also_at_zero_and_one(data):
    label, score = data
    probability = np.clip(score / 2 + 0.5, 0, 1)
    assert metrics.logloss(label, probability) == pytest.approx(log_loss(label, probability), rel=1e-12)
    assert metrics.sample_logloss(label, probability).shape == label.shape


@settings(deadline=None)
@given(samples(), st.data())
def test_auc_by_group_equals_a_loop_over_groups(data, more):
    label, score = data
    group = more.draw(hnp.arrays(np.int64, len(label), elements=st.sampled_from([-7, 3, 40])))
    parts = {g: (label[group == g], score[group == g]) for g in np.unique(group)}
    expected = {g: roc_auc_score(*part) for g, part in parts.items() if len(set(part[0])) == 2}
    groups, value, size = metrics.auc_by_group(label, score, group)
    assert groups.tolist() == list(expected)
    np.testing.assert_allclose(value, list(expected.values()), atol=1e-12)
    assert size.tolist() == [len(parts[g][0]) for g in expected]
    if expected:
        weighted = sum(expected[g] * len(parts[g][0]) for g in expected) / size.sum()
        assert metrics.group_auc(label, score, group) == pytest.approx(weighted, abs=1e-12)


def ranked(label, score):
    """One list's labels in ranked order; among equal scores the least relevant first."""
    order = sorted(range(len(label)), key=lambda i: (-score[i], label[i]))
    return [label[i] for i in order]


def loop_ap(label, score, k, divide_by):
    hits, total = 0, 0.0
    for rank, relevance in enumerate(ranked(label, score)[:k], start=1):
        if relevance:
            hits += 1
            total += hits / rank
    divisor = hits if divide_by == "hits" else min(k, sum(label))
    return total / divisor if divisor else 0.0


@settings(deadline=None)
@given(lists())
def test_list_metrics_equal_loops_over_lists(data):
    label, score, k = data
    rows = list(zip(label.tolist(), score.tolist(), strict=True))
    tops = [ranked(*row)[:k] for row in rows]
    for divide_by in ("hits", "positives"):
        expected = [loop_ap(*row, k, divide_by) for row in rows]
        np.testing.assert_allclose(metrics.map_at_k(label, score, k, divide_by=divide_by), expected)
    np.testing.assert_array_equal(metrics.hit_rate_at_k(label, score, k), [float(any(t)) for t in tops])
    np.testing.assert_array_equal(metrics.hit_count_at_k(label, score, k), [sum(t) for t in tops])
    first = [1 / (top.index(1) + 1) if any(top) else 0.0 for top in tops]
    np.testing.assert_allclose(metrics.mrr_at_k(label, score, k), first)
    recall = [sum(top) / sum(row[0]) if any(row[0]) else 0.0 for top, row in zip(tops, rows, strict=True)]
    np.testing.assert_allclose(metrics.recall_at_k(label, score, k), recall)


@settings(deadline=None)
@given(lists(), st.data())
def test_corrected_and_expected_clicks_equal_loops_over_lists(data, more):
    label, score, k = data
    n_lists, n = label.shape
    place = np.array([more.draw(st.permutations(range(n))) for _ in range(n_lists)])
    category = more.draw(hnp.arrays(np.int64, label.shape, elements=st.integers(0, 2)))
    propensity = more.draw(hnp.arrays(np.float64, (3, n), elements=st.floats(0.1, 5)))
    attraction = more.draw(hnp.arrays(np.float64, label.shape, elements=st.sampled_from([0, 0.2, 0.7, 1])))
    utility, clicks = [], []
    for row in range(n_lists):
        order = sorted(range(n), key=lambda i: (-score[row, i], label[row, i]))[:k]
        ratio = [
            propensity[category[row, i], new] / propensity[category[row, i], place[row, i]]
            for new, i in enumerate(order)
        ]
        utility.append(sum(label[row, i] * r for i, r in zip(order, ratio, strict=True)))
        order = sorted(range(n), key=lambda i: (-score[row, i], attraction[row, i]))[:k]
        clicks.append(sum(attraction[row, i] * propensity[0, new] for new, i in enumerate(order)))
    # among equal scores and labels any candidate may come first, and they may differ in category and place
    distinct = [
        len(set(zip(*pair, strict=True))) == n for pair in zip(score.tolist(), label.tolist(), strict=True)
    ]
    found = metrics.utility_at_k(label, score, k, place=place, category=category, propensity=propensity)
    np.testing.assert_allclose(found[distinct], np.array(utility)[distinct])
    np.testing.assert_allclose(metrics.expected_clicks_at_k(attraction, score, k, propensity[0]), clicks)


def test_utility_of_the_order_shown_is_the_number_of_clicks_and_a_click_moved_up_counts_more():
    rng = np.random.default_rng(0)
    clicked, category = rng.random((2000, 5)) < 0.5 / np.arange(1, 6), rng.integers(0, 3, (2000, 5))
    propensity = metrics.position_propensity(clicked, category)
    place = np.tile(np.arange(5), (2000, 1))
    settings = {"place": place, "category": category, "propensity": propensity}
    shown = metrics.utility_at_k(clicked, -place, 5, **settings)
    np.testing.assert_allclose(shown, clicked.sum(1))
    reverse = metrics.utility_at_k(clicked, place, 5, **settings)
    last = clicked[:, 4] & ~clicked[:, :4].any(1)
    np.testing.assert_allclose(reverse[last], 1 / propensity[category[last, 4], 4])
    assert (reverse[last] > 3).all()


def test_propensity_equals_a_loop():
    rng = np.random.default_rng(1)
    clicked, category = rng.random((30, 4)) < 0.4, rng.integers(0, 3, (30, 4))
    for smoothing in (1e-6, 2.0):
        found = metrics.position_propensity(clicked, category, smoothing=smoothing)
        for c in range(3):
            counts = [
                sum(clicked[t, j] for t in range(30) if category[t, j] == c) + smoothing for j in range(4)
            ]
            np.testing.assert_allclose(found[c], np.array(counts) / counts[0])


@settings(deadline=None)
@given(lists(ties=False))
def test_average_precision_of_whole_lists_equals_scikit_learn(data):
    label, score, _ = data
    whole = metrics.map_at_k(label, score, label.shape[1], divide_by="positives")
    for value, row_label, row_score in zip(whole, label, score, strict=True):
        expected = average_precision_score(row_label, row_score) if row_label.any() else 0.0
        assert value == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(lists(ties=False, grades=3))
def test_ndcg_equals_scikit_learn_given_the_exponential_gains(data):
    label, score, k = data
    for value, row_label, row_score in zip(metrics.ndcg_at_k(label, score, k), label, score, strict=True):
        if not row_label.any():
            assert value == 0
        elif len(row_label) > 1:  # scikit-learn refuses a single candidate
            assert value == pytest.approx(ndcg_score([2.0**row_label - 1], [row_score], k=k), abs=1e-12)


@settings(deadline=None)
@given(lists(grades=2), st.randoms(use_true_random=False))
def test_the_order_of_candidates_never_matters(data, random):
    label, score, k = data
    order = list(range(label.shape[1]))
    random.shuffle(order)
    for metric in LIST_METRICS:
        np.testing.assert_allclose(metric(label, score, k), metric(label[:, order], score[:, order], k))


@pytest.mark.parametrize("metric", LIST_METRICS)
def test_a_constant_score_earns_nothing_and_an_unranked_candidate_is_no_hit(metric):
    label = np.array([[1, 0, 0, 0]])
    assert metric(label, np.zeros((1, 4)), 3) == 0
    assert metric(label, np.array([[-np.inf, 1.0, 0.5, -np.inf]]), 4) == 0
    assert metric(label, np.array([[3.0, 2.0, 1.0, 0.0]]), 3) == 1


def test_the_two_conventions_of_average_precision_on_an_example():
    # hits at ranks 2 and 3 of 5, one positive below the cut
    label, score = [[0, 1, 1, 0, 1]], [[5, 4, 3, 2, 1]]
    assert metrics.map_at_k(label, score, 3) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.map_at_k(label, score, 3, divide_by="positives") == pytest.approx((1 / 2 + 2 / 3) / 3)


def test_relative_measures_on_examples():
    assert metrics.rela_impr(0.80, 0.75) == pytest.approx(0.2)
    assert metrics.relative_gain(0.88, 0.80) == pytest.approx(0.1)
    assert metrics.relative_gain(0.45, 0.50, lower_is_better=True) == pytest.approx(0.1)


def test_distinct_n_counts_n_grams_within_texts():
    texts = [["a", "b", "a", "b"], ["b", "a"], ["c"]]
    assert metrics.distinct_n(texts, 1) == pytest.approx(3 / 7)
    assert metrics.distinct_n(texts, 2) == pytest.approx(2 / 4)  # ab ba ab | ba


NAN = float("nan")
MISTAKES = {
    "AUC of one class": (lambda: metrics.auc([1, 1], [0.1, 0.2]), "positive and negative"),
    "no samples": (lambda: metrics.auc([], []), "no samples"),
    "lengths": (lambda: metrics.auc([0, 1], [0.1]), r"\(2,\).*\(1,\)"),
    "NaN score": (lambda: metrics.auc([0, 1, 1], [0.1, NAN, 0.3]), "sample 1 is NaN"),
    "graded label": (lambda: metrics.auc([0, 1, 2], [0.1, 0.2, 0.3]), "Label 2 of sample 2"),
    "NaN label": (lambda: metrics.auc([0, 1, NAN], [0.1, 0.2, 0.3]), "Label nan of sample 2"),
    "logits": (lambda: metrics.logloss([0, 1], [-1.0, 2.0]), "between 0 and 1"),
    "group length": (lambda: metrics.group_auc([0, 1], [0.1, 0.2], [1]), "2 labels but 1 group"),
    "one-class groups": (lambda: metrics.group_auc([0, 1], [0.1, 0.2], [1, 2]), "at least one group"),
    "base at chance": (lambda: metrics.rela_impr(0.7, 0.5), "base AUC"),
    "vector as lists": (lambda: metrics.ndcg_at_k([0, 1], [0.1, 0.2], 1), "matrices"),
    "no lists": (lambda: metrics.ndcg_at_k(np.empty((0, 3)), np.empty((0, 3)), 1), "no lists"),
    "k": (lambda: metrics.ndcg_at_k([[0, 1]], [[0.1, 0.2]], 3), "2 candidates"),
    "NaN in a list": (lambda: metrics.mrr_at_k([[0, 1]], [[0.1, NAN]], 1), "score of candidate 1 in list 0"),
    "negative grade": (lambda: metrics.ndcg_at_k([[0, -1]], [[0.1, 0.2]], 1), "negative"),
    "divisor": (lambda: metrics.map_at_k([[0, 1]], [[0.1, 0.2]], 1, divide_by="k"), "divide_by 'k'"),
    "categories": (lambda: metrics.position_propensity([[0, 1]], [[0]]), r"\(1, 2\) and categories \(1, 1\)"),
    "n of distinct-n": (lambda: metrics.distinct_n([["a"]], 0), "n >= 1"),
    "no n-grams": (lambda: metrics.distinct_n([["a"]], 2), "2 tokens"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_sentence(name):
    call, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        call()


def test_pairs_are_counted_within_each_list():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 4, (30, 6)) / 3
    kind = rng.integers(0, 3, (30, 6))
    kind[0] = 1  # nothing to compare with
    found = metrics.pair_accuracy(score, kind == 1, kind == 2)
    for row, value in enumerate(found):
        pairs = [
            (score[row, i] > score[row, j]) + 0.5 * (score[row, i] == score[row, j])
            for i in np.flatnonzero(kind[row] == 1)
            for j in np.flatnonzero(kind[row] == 2)
        ]
        assert value == pytest.approx(np.mean(pairs)) if pairs else np.isnan(value)
    assert np.isnan(found[0]) and np.isfinite(found).sum() > 20
