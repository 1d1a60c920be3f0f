"""Metrics of click prediction, of ranked lists and of generated text; vectorised NumPy.

Samples are vectors [N]: labels 0 or 1, scores or probabilities. Ranked lists are matrices
[n_lists, n_candidates], and a list metric returns one value a list, so that its mean is the usual
figure and the single values can go into a paired test.

A candidate with score -inf is not ranked (padding, an item already seen) and never is a hit. Equal
scores count against the model: among them the least relevant candidate is ranked first. So a constant
score earns nothing from the order in which candidates happen to stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from rec_utils.errors import UserError


def auc(label: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties half.

    Raises `UserError` unless both classes are there.
    """
    label, score = check_samples(label, score)
    n_positive = np.count_nonzero(label)
    n_pairs = n_positive * (len(label) - n_positive)
    if n_pairs == 0:
        raise UserError("AUC needs positive and negative labels, but all labels are equal.")
    rank_sum = rankdata(score)[label].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / n_pairs)


def logloss(label: ArrayLike, probability: ArrayLike) -> float:
    """Mean negative log-likelihood of the labels, in nats; see `sample_logloss`."""
    return float(sample_logloss(label, probability).mean())


def sample_logloss(label: ArrayLike, probability: ArrayLike) -> np.ndarray:
    """Negative log-likelihood of every label [N], in nats.

    Probabilities are kept 2.2e-16 (the rounding unit of float64) away from 0 and 1, as scikit-learn
    does, so that a sure and wrong prediction costs 36 nats and not infinity.
    """
    label, probability = check_samples(label, probability)
    if probability.min() < 0 or probability.max() > 1:
        raise UserError("LogLoss needs probabilities between 0 and 1; apply the sigmoid to logits first.")
    eps = np.finfo(np.float64).eps
    return -np.log(np.clip(np.where(label, probability, 1 - probability), eps, 1 - eps))


def rela_impr(auc: float, base_auc: float) -> float:
    """RelaImpr of Yan et al. (ICML 2014), as in the DIN paper: the gain over chance, relative to the base's.

    (AUC - 0.5) / (AUC_base - 0.5) - 1, a fraction.
    """
    if base_auc == 0.5:
        raise UserError("RelaImpr has no value for a base AUC of 0.5 (chance).")
    return (auc - 0.5) / (base_auc - 0.5) - 1


def relative_gain(value: float, base: float, *, lower_is_better: bool = False) -> float:
    """KAR's "Rel. Impr.": (value - base) / base, with the sign turned where lower is better; a fraction."""
    gain = (value - base) / base
    return -gain if lower_is_better else gain


def auc_by_group(
    label: ArrayLike, score: ArrayLike, group: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUC inside each group, such as a user: (groups [G], AUCs [G], numbers of samples [G]).

    Only groups with both classes have an AUC; the others are left out.
    """
    label, score = check_samples(label, score)
    groups, code = np.unique(np.asarray(group), return_inverse=True)
    if len(code) != len(label):
        raise UserError(f"There are {len(label)} labels but {len(code)} group values.")
    order = np.lexsort((score, code))
    sorted_code, sorted_score = code[order], score[order]
    new_tie = np.r_[True, (np.diff(sorted_code) != 0) | (np.diff(sorted_score) != 0)]
    tie_size = np.diff(np.r_[np.flatnonzero(new_tie), len(order)])
    tie_rank = np.cumsum(tie_size) - (tie_size - 1) / 2  # mean rank of the tied samples, from 1
    size = np.bincount(code, minlength=len(groups))
    rank = tie_rank[np.cumsum(new_tie) - 1] - (np.cumsum(size) - size)[sorted_code]
    n_positive = np.bincount(code, weights=label, minlength=len(groups))
    rank_sum = np.bincount(sorted_code, weights=rank * label[order], minlength=len(groups))
    n_pairs = n_positive * (size - n_positive)
    both = n_pairs > 0
    value = (rank_sum - n_positive * (n_positive + 1) / 2)[both] / n_pairs[both]
    return groups[both], value, size[both]


def group_auc(label: ArrayLike, score: ArrayLike, group: ArrayLike) -> float:
    """GAUC of the DIN paper (Zhou et al., KDD 2018, eq. 7): mean AUC of the groups, weighted by their size.

    Groups of one class are left out; if no other is there, `UserError`.
    """
    _, value, size = auc_by_group(label, score, group)
    if len(value) == 0:
        raise UserError("Group AUC needs at least one group that has positive and negative labels.")
    return float(np.average(value, weights=size))


def map_at_k(label: ArrayLike, score: ArrayLike, k: int, *, divide_by: str = "hits") -> np.ndarray:
    """Average precision of the first k places of each list [n_lists]; 0 for a list without a hit.

    The precisions at the hits are summed and divided by the number of hits in the first k
    (`divide_by="hits"`, the convention of the KAR repository), or by min(k, positives of the list)
    (`"positives"`, the usual definition; with k = n_candidates it is average precision).
    """
    if divide_by not in ("hits", "positives"):
        raise UserError(f"divide_by {divide_by!r} is not one of hits, positives.")
    top, label = _ranked_labels(label, score, k)
    hit = top > 0
    precision = np.cumsum(hit, axis=1) / np.arange(1, k + 1)
    count = hit.sum(1) if divide_by == "hits" else np.minimum((label > 0).sum(1), k)
    return (precision * hit).sum(1) / np.maximum(count, 1)


def ndcg_at_k(label: ArrayLike, score: ArrayLike, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain of the first k places of each list [n_lists].

    Gain 2^label - 1, discount log2(rank + 1), ideal order from the list's own labels; 0 for a list
    without a positive label.
    """
    top, label = _ranked_labels(label, score, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    gain = (2.0**top - 1) @ discount
    ideal = (2.0 ** -np.sort(-label, axis=1)[:, :k] - 1) @ discount
    return np.divide(gain, ideal, out=np.zeros_like(gain), where=ideal > 0)


def hit_rate_at_k(label: ArrayLike, score: ArrayLike, k: int) -> np.ndarray:
    """1 for each list with a positive among the first k places, else 0 [n_lists]."""
    top, _ = _ranked_labels(label, score, k)
    return (top > 0).any(1).astype(np.float64)


def hit_count_at_k(label: ArrayLike, score: ArrayLike, k: int) -> np.ndarray:
    """Number of positives among the first k places of each list [n_lists]; CLICK@k in the KAR repository."""
    top, _ = _ranked_labels(label, score, k)
    return (top > 0).sum(1).astype(np.float64)


def position_propensity(clicked: ArrayLike, category: ArrayLike, *, smoothing: float = 1.0) -> np.ndarray:
    """Clicks of each category at each place of logged lists, relative to those at the first: [C, h].

    MIR (Xi et al., CIKM 2022) corrects clicks by it for where an item stood. Its code smooths with 1e-6
    clicks, with which a category without a click at the first place counts a million times.

    Args:
        clicked: [T, h] in the order shown; padding is not clicked.
        category: [T, h] whole numbers below C.
        smoothing: clicks added to each category and place.
    """
    clicked, category = np.asarray(clicked, dtype=np.float64), np.asarray(category)
    if clicked.ndim != 2 or clicked.shape != category.shape:
        raise UserError(f"Clicks {clicked.shape} and categories {category.shape} are not of one shape.")
    counts = np.full((category.max() + 1, clicked.shape[1]), float(smoothing))
    np.add.at(counts, (category, np.arange(clicked.shape[1])), clicked)
    return counts / counts[:, :1]


def utility_at_k(
    label: ArrayLike,
    score: ArrayLike,
    k: int,
    *,
    place: ArrayLike,
    category: ArrayLike,
    propensity: ArrayLike,
) -> np.ndarray:
    """Clicks in the first k places of each list, corrected for where the items stood [n_lists].

    MIR's utility: a click on an item of category c that moves from place i to place j counts
    propensity[c, j] / propensity[c, i].

    Args:
        label: [n_lists, n] 1 for a click.
        score: [n_lists, n].
        k: cut.
        place: [n_lists, n] where each candidate stood when it was shown, from 0.
        category: [n_lists, n] rows of `propensity`.
        propensity: [C, n], see `position_propensity`.
    """
    order, top, _ = _ranking(label, score, k)
    category, place = (np.take_along_axis(np.asarray(of), order, axis=1) for of in (category, place))
    propensity = np.asarray(propensity)
    return (top * propensity[category, np.arange(k)] / propensity[category, place]).sum(1)


def expected_clicks_at_k(
    attraction: ArrayLike, score: ArrayLike, k: int, examination: ArrayLike
) -> np.ndarray:
    """Expected clicks in the first k places of each re-ranked list, where the truth is known [n_lists].

    Args:
        attraction: [n_lists, n] probability of a click by a user who looks at the candidate.
        score: [n_lists, n].
        k: cut.
        examination: [k or more] probability that the user looks at each place.
    """
    _, top, _ = _ranking(attraction, score, k)
    return top @ np.asarray(examination, dtype=np.float64)[:k]


def recall_at_k(label: ArrayLike, score: ArrayLike, k: int) -> np.ndarray:
    """Share of each list's positives among the first k places [n_lists]; 0 for a list without a positive."""
    top, label = _ranked_labels(label, score, k)
    return (top > 0).sum(1) / np.maximum((label > 0).sum(1), 1)


def mrr_at_k(label: ArrayLike, score: ArrayLike, k: int) -> np.ndarray:
    """1 / rank of each list's first positive [n_lists]; 0 if it is not among the first k places."""
    top, _ = _ranked_labels(label, score, k)
    hit = top > 0
    return hit.any(1) / (hit.argmax(1) + 1)


def pair_accuracy(score: ArrayLike, better: ArrayLike, worse: ArrayLike) -> np.ndarray:
    """Share of each list's pairs (one of `better`, one of `worse`) that the scores order rightly [n_lists].

    All three are [n_lists, n_candidates], the latter two boolean. Ties count half; NaN for a list without
    such a pair.
    """
    score, better, worse = np.asarray(score), np.asarray(better, bool), np.asarray(worse, bool)
    difference = score[:, :, None] - score[:, None, :]
    right = (np.sign(difference) + 1) / 2
    pairs = better[:, :, None] & worse[:, None, :]
    count = pairs.sum((1, 2))
    return np.divide((right * pairs).sum((1, 2)), count, out=np.full(len(count), np.nan), where=count > 0)


def distinct_n(texts: Iterable[Sequence[str]], n: int) -> float:
    """Distinct-n of Li et al. (NAACL 2016): different n-grams divided by all n-grams of tokenised texts.

    Raises `UserError` if no text has n tokens.
    """
    if n < 1:
        raise UserError(f"distinct-n needs n >= 1, not {n}.")
    grams = [gram for tokens in texts for gram in zip(*(tokens[i:] for i in range(n)), strict=False)]
    if not grams:
        raise UserError(f"distinct-{n} needs at least one text of {n} tokens.")
    return len(set(grams)) / len(grams)


def check_samples(label: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool [N] and scores as float64 [N], checked: equal length, not empty, 0/1, no NaN."""
    label, score = np.asarray(label), np.asarray(score, dtype=np.float64)
    if label.ndim != 1 or label.shape != score.shape:
        raise UserError(f"Labels {label.shape} and scores {score.shape} are not vectors of one length.")
    if len(label) == 0:
        raise UserError("There are no samples to score.")
    if bad := np.flatnonzero(~np.isin(label, (0, 1))).tolist():
        raise UserError(f"Label {label[bad[0]]} of sample {bad[0]} is neither 0 nor 1.")
    if bad := np.flatnonzero(np.isnan(score)).tolist():
        raise UserError(f"The score of sample {bad[0]} is NaN ({len(bad)} of {len(score)} are).")
    return label.astype(bool), score


def _ranked_labels(label: ArrayLike, score: ArrayLike, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels in the first k places [n_lists, k], all labels [n_lists, n_candidates]) as float64, checked."""
    _, top, label = _ranking(label, score, k)
    return top, label


def _ranking(label: ArrayLike, score: ArrayLike, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(candidates in the first k places, their labels [n_lists, k] each, all labels), checked."""
    label, score = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if label.ndim != 2 or label.shape != score.shape:
        raise UserError(f"Labels {label.shape} and scores {score.shape} are not matrices of one shape.")
    if len(label) == 0:
        raise UserError("There are no lists to score.")
    if not 1 <= k <= label.shape[1]:
        raise UserError(f"k must lie between 1 and the {label.shape[1]} candidates of a list, not {k}.")
    for name, values in (("label", label), ("score", score)):
        if len(bad := np.argwhere(np.isnan(values))):
            raise UserError(f"The {name} of candidate {bad[0, 1]} in list {bad[0, 0]} is NaN.")
    if label.min() < 0:
        raise UserError("Labels of ranked lists must not be negative.")
    order = np.lexsort((label, -score), axis=1)[:, :k]
    ranked = np.isfinite(np.take_along_axis(score, order, axis=1))
    return order, np.take_along_axis(label, order, axis=1) * ranked, label
