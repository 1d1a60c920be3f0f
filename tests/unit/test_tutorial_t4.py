"""Each check of T4: the right answer passes, typical wrong ones get a hint of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, ndcg_score
from torch.nn import functional as F

from rec_utils.classroom import Sheet, Wrong, t4


def refused(exercise, answer, hint):
    with pytest.raises(Wrong, match=hint):
        exercise.grade(answer)


def by_score(label, score):
    return label[score.argsort(descending=True)]


def dcg(label, k, gain=lambda y: 2**y - 1, shift=1):
    places = torch.arange(1, k + 1)
    return (gain(label[:k]) / (places + shift).log2()).sum()


def ndcg(label, score, k):
    best = dcg(label.sort(descending=True)[0], k)
    return dcg(by_score(label, score), k) / best if best > 0 else 0.0


def test_ndcg():
    t4.ndcg.grade(ndcg)
    # scikit-learn's gain is linear
    t4.ndcg.grade(lambda y, s, k: ndcg_score([(2**y - 1).numpy()], [s.numpy()], k=k))
    for answer, hint in [
        (lambda y, s, k: dcg(by_score(y, s), k), "this is the DCG"),
        (lambda y, s, k: ndcg_score([y.numpy()], [s.numpy()], k=k), "not y"),
        (
            lambda y, s, k: dcg(t := by_score(y, s)[:k], k) / dcg(t.sort(descending=True)[0], k),
            "below place k",
        ),
        (lambda y, s, k: ndcg(y, -s, k), "highest score comes first"),
        (lambda y, s, k: ndcg(y, -torch.arange(len(y)), k), "sort the candidates"),
        (lambda y, s, k: ndcg(y, s, len(y)), "over k places"),
        (lambda y, s, k: dcg(by_score(y, s), k) / dcg(y.sort(descending=True)[0], k), "NaN"),
    ]:
        refused(t4.ndcg, answer, hint)


def test_average_precision():
    t4.average_precision.grade(lambda y, s: average_precision_score(y, s))
    precision = lambda hit: hit.cumsum(0) / torch.arange(1, len(hit) + 1)  # noqa: E731
    for answer, hint in [
        (lambda y, s: precision(by_score(y, s)).mean(), "not over all places"),
        (lambda y, s: (precision(h := by_score(y, s)) * h).sum(), "sum"),
        (lambda y, s: (precision(h := by_score(y, s)) * h).mean(), "not of candidates"),
        (lambda y, s: y.mean(), "whatever the order"),
        (lambda y, s: 1 / (by_score(y, s).argmax() + 1), "first hit only"),
        (lambda y, s: average_precision_score(y, -s), "which share of the places"),
    ]:
        refused(t4.average_precision, answer, hint)


def test_attraction():
    t4.attraction.grade(lambda c, p, e: (c / e[p]).mean())
    t4.attraction.grade(lambda c, p, e: c.sum() / e[p].sum())  # the other usual estimate
    for answer, hint in [
        (lambda c, p, e: c.mean(), "could not click"),
        (lambda c, p, e: (c * e[p]).mean(), "more, not for less"),
        (lambda c, p, e: (c / e[p]).sum(), "sum"),
        (lambda c, p, e: (c / e[p]).sum() / c.sum(), "how often it was shown"),
        (lambda c, p, e: c.mean() / e.mean(), "place of each showing"),
        (lambda c, p, e: (c / e[p - 1]).mean(), "count from 0"),
        (lambda c, p, e: 0.5, "stands for"),
    ]:
        refused(t4.attraction, answer, hint)


def attend(query, key, value, real, scale=None, dim=2):
    scores = query @ key.transpose(1, 2) / (query.shape[2] ** 0.5 if scale is None else scale)
    return scores.masked_fill(~real[:, None], -torch.inf).softmax(dim) @ value


def test_attend():
    t4.attend.grade(attend)
    t4.attend.grade(lambda q, k, v, real: attend(q, k, v, real) * real[..., None])
    t4.attend.grade(lambda q, k, v, real: F.scaled_dot_product_attention(q, k, v, real[:, None]))
    everywhere = torch.ones(2, 4, dtype=torch.bool)
    for answer, hint in [
        (lambda q, k, v, real: attend(q, k, v, real, 1), "not divided"),
        (lambda q, k, v, real: attend(q, k, v, real, q.shape[2]), "not by d"),
        (lambda q, k, v, real: attend(q, k, v, everywhere), "padding gets weight"),
        (lambda q, k, v, real: attend(q, k, v, everywhere, dim=1), "which axis"),
        (lambda q, k, v, real: attend(q, k, v, real, dim=1).nan_to_num(), "softmax of"),
        (lambda q, k, v, real: attend(q, k, v * real[..., None], everywhere), "before the softmax"),
        (lambda q, k, v, real: attend(q, k, v, real, dim=1), "NaN"),
        (lambda q, k, v, real: attend(k, q, v, real), "softmax of"),
        (lambda q, k, v, real: attend(q, k, v, real)[:, 0], "shape"),
    ]:
        refused(t4.attend, answer, hint)


def same(model, x, order):
    return torch.allclose(model(x)[:, order], model(x[:, order]), atol=1e-5)


def test_is_blind():
    t4.is_blind.grade(lambda model, x: all(same(model, x, torch.randperm(5)) for _ in range(20)))
    for answer, hint in [
        (lambda model, x: torch.allclose(model(x), model(x.flip(1)), atol=1e-5), "point-wise model is blind"),
        (lambda model, x: same(model, x, [4, 3, 2, 1, 0]), "the ends alike"),
        (lambda model, x: same(model, x, [1, 0, 2, 3, 4]), "is not blind"),
        (lambda model, x: True, "is not blind"),
        (lambda model, x: None, "return"),
    ]:
        refused(t4.is_blind, answer, hint)


def ends(values, tail=0.025):
    return values.quantile(torch.tensor([tail, 1 - tail]))


def test_interval():
    t4.interval.grade(lambda a, b, draws: ends((b - a)[draws].mean(1)))
    t4.interval.grade(lambda a, b, draws: np.percentile((b - a).numpy()[draws].mean(1), [2.5, 97.5]))
    for answer, hint in [
        (lambda a, b, draws: ends((a - b)[draws].mean(1)), "a - b"),
        (lambda a, b, draws: ends((b - a)[draws].mean(1)).flip(0), "lower end"),
        (lambda a, b, draws: ends((b - a)[draws].mean(1), 0.05), "10 %"),
        (lambda a, b, draws: ends((b - a)[draws].flatten()), "mean of each draw"),
        (lambda a, b, draws: ends(b - a), "where are the draws"),
        (lambda a, b, draws: ends(b[draws].mean(1)), "interval of b"),
        (lambda a, b, draws: ends(b[draws].mean(1) - a.mean()), "for a as well"),
        (lambda a, b, draws: ends((b - a)[draws].median(1)[0]), "for each draw"),
        (lambda a, b, draws: (b - a)[draws].mean(), "shape"),
    ]:
        refused(t4.interval, answer, hint)


def test_is_test():
    def split(time, share):
        return time >= np.sort(time)[round((1 - share) * len(time))]

    t4.is_test.grade(split)
    t4.is_test.grade(lambda time, share: torch.from_numpy(split(time, share)))
    for answer, hint in [
        (lambda time, share: ~split(time, share), "training rows"),
        (lambda time, share: np.argsort(np.argsort(time, kind="stable")) < share * len(time), "on the past"),
        (lambda time, share: np.argsort(np.argsort(time, kind="stable")) >= 7, "both sides"),
        (lambda time, share: np.arange(len(time)) >= 7, "order of time"),
        (lambda time, share: time > np.sort(time)[7], "find the time"),
        (lambda time, share: time >= np.quantile(time, share), "find the time"),
        (lambda time, share: split(time, share).nonzero()[0], "shape"),
    ]:
        refused(t4.is_test, answer, hint)


def test_nothing_attempted_is_said_so(capsys):
    def unattempted(*args):
        raise NotImplementedError

    sheet = Sheet("T4")
    for number in sheet.exercises:
        sheet.check(number, unattempted)
    assert capsys.readouterr().out.count("not attempted yet\n") == len(sheet.exercises) == 7
