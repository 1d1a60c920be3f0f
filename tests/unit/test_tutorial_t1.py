"""Each check of T1: the right answer passes, typical wrong ones get a hint of their own."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import log_loss as sk_log_loss
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from rec_utils.classroom import Sheet, Wrong, t1


def refused(exercise, answer, hint):
    with pytest.raises(Wrong, match=hint):
        exercise.grade(answer)


def test_log_loss():
    t1.log_loss.grade(lambda y, p: F.binary_cross_entropy(p, y))
    t1.log_loss.grade(lambda y, p: sk_log_loss(y, p.double()))
    for answer, hint in [
        (lambda y, p: -F.binary_cross_entropy(p, y), "sign"),
        (lambda y, p: F.binary_cross_entropy(p, y, reduction="sum"), "sum"),
        (lambda y, p: F.binary_cross_entropy(p, y) / torch.tensor(2.0).log(), "bits"),
        (lambda y, p: -(y * p.log()).mean(), "without a click cost"),
        (lambda y, p: -((1 - y) * (1 - p).log()).mean(), "only the samples without"),
        (lambda y, p: ((y - p) ** 2).mean(), "what happened"),
        (lambda y, p: F.binary_cross_entropy(p, y, reduction="none"), "shape"),
        (lambda y, p: None, "return"),
    ]:
        refused(t1.log_loss, answer, hint)


def pairs(click, score):
    return score[click == 1][:, None] - score[click == 0]


def test_auc():
    t1.auc.grade(lambda y, s: roc_auc_score(y, s))
    for answer, hint in [
        (lambda y, s: 1 - roc_auc_score(y, s), "wrong order"),
        (lambda y, s: (pairs(y, s) > 0).float().mean(), "tie"),
        (lambda y, s: (pairs(y, s) >= 0).float().mean(), "neither right nor wrong"),
        (lambda y, s: roc_auc_score(y, s) * pairs(y, s).numel(), "counts the pairs"),
        (lambda y, s: ((s > 0) == y.bool()).float().mean(), "all pairs"),
        (lambda y, s: (s[:, None] > s).float().mean(), "no others"),
        (lambda y, s: roc_auc_score(y, s) if s.max() == 3 else 0.5, "only their order"),
    ]:
        refused(t1.auc, answer, hint)


def before(rated, position, length):
    row = rated[max(0, position - length) : position]
    return F.pad(row, (length - len(row), 0))


def test_history_before():
    t1.history_before.grade(before)
    t1.history_before.grade(lambda r, p, n: before(r, p, n).tolist())
    for answer, hint in [
        (lambda r, p, n: before(r, p + 1, n), "label leaks"),
        (lambda r, p, n: before(r, p, n).flip(0), "oldest comes first"),
        (lambda r, p, n: before(r, p, n).sort(descending=True, stable=True)[0], "not the movies"),
        (lambda r, p, n: F.pad(r[max(0, p - n) : p], (0, max(0, n - p))), "wrong side"),
        (lambda r, p, n: before(r, len(r), n), "future leaks"),
        (lambda r, p, n: before(r, p - 1, n), "not the movies"),
        (lambda r, p, n: r[max(0, p - n) : p], "shape"),
        (lambda r, p, n: r[p - n : p], "shape"),
    ]:
        refused(t1.history_before, answer, hint)


def gradient(w, x, y):
    return x.T @ (torch.sigmoid(x @ w) - y) / len(x)


def test_gradient_step():
    t1.gradient_step.grade(lambda w, x, y, rate: w - rate * gradient(w, x, y))
    for answer, hint in [
        (lambda w, x, y, rate: gradient(w, x, y), "now take the step"),
        (lambda w, x, y, rate: w + rate * gradient(w, x, y), "uphill"),
        (lambda w, x, y, rate: w - gradient(w, x, y), "rate"),
        (lambda w, x, y, rate: w - rate * len(x) * gradient(w, x, y), "sum"),
        (lambda w, x, y, rate: w - rate * x.T @ (x @ w - y) / len(x), "logit"),
        (lambda w, x, y, rate: w, "pulls"),
        (lambda w, x, y, rate: w - rate * (torch.sigmoid(x @ w) - y) @ x / 2, "pulls"),
    ]:
        refused(t1.gradient_step, answer, hint)


def all_products(fields):
    return fields @ fields.transpose(1, 2)


def test_pair_sum():
    t1.pair_sum.grade(lambda v: all_products(v).triu(1).sum((1, 2)))
    t1.pair_sum.grade(lambda v: 0.5 * (v.sum(1) ** 2 - (v**2).sum(1)).sum(1))
    for answer, hint in [
        (lambda v: (v.sum(1) ** 2 - (v**2).sum(1)).sum(1), "counted twice"),
        (lambda v: all_products(v).sum((1, 2)), "one pair"),
        (lambda v: all_products(v).triu(0).sum((1, 2)), "with itself"),
        (lambda v: 0.5 * all_products(v).sum((1, 2)), "with itself"),
        (lambda v: 0.5 * (v.sum(1) ** 2 - (v**2).sum(1)), "shape"),
        (lambda v: 0.5 * (v.sum(2) ** 2 - (v**2).sum(2)).sum(1), "which axis"),
    ]:
        refused(t1.pair_sum, answer, hint)


def test_n_parameters():
    n = torch.nn.Embedding(9_020, 16).weight.numel() + torch.nn.Embedding(9_020, 1).weight.numel() + 1
    t1.n_parameters.grade(n)
    for answer, hint in [
        (n - 1, "one number is missing"),
        (9_020 * 16, "one more number"),
        (9_020 * 16 + 1, "one more number"),
        (9_000 * 20, "of their own"),
        (n + 1, "what does one movie own"),
    ]:
        refused(t1.n_parameters, answer, hint)


def test_pool():
    def masked(scores, steps, mask, fill=-1e30):
        return (scores.masked_fill(~mask, fill).softmax(1) * mask)[..., None].mul(steps).sum(1)

    t1.pool.grade(masked)
    t1.pool.grade(lambda s, k, m: masked(s, k, m, -torch.inf).nan_to_num(0))
    for answer, hint in [
        (lambda s, k, m: (s.softmax(1)[..., None] * k).sum(1), "padding gets weight"),
        (lambda s, k, m: ((s.softmax(1) * m)[..., None] * k).sum(1), "before the softmax"),
        (lambda s, k, m: ((s * m)[..., None] * k).sum(1), "negative"),
        (lambda s, k, m: (m[..., None] * k).sum(1) / m.sum(1, keepdim=True).clamp(min=1), "weigh the same"),
        (lambda s, k, m: masked(s, k, m, -torch.inf), "NaN"),
        (lambda s, k, m: masked(s, k, m) + (~m.any(1))[:, None], "zeros"),
        (lambda s, k, m: (s.masked_fill(~m, 0).softmax(1)[..., None] * k).sum(1), "which weights"),
        (lambda s, k, m: s, "shape"),
    ]:
        refused(t1.pool, answer, hint)


def test_nothing_attempted_is_said_so(capsys):
    def unattempted(*args):
        raise NotImplementedError

    sheet = Sheet("T1")
    for number in sheet.exercises:
        sheet.check(number, ... if number == 6 else unattempted)
    assert capsys.readouterr().out.count("not attempted yet\n") == len(sheet.exercises) == 7
