"""Exercises of T4: list-wise re-ranking and honest evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils import metrics, splits
from rec_utils.classroom import Wrong, close, exercise


@exercise(1, title="NDCG@k")
def ndcg(answer: Callable[[Tensor, Tensor, int], Any]) -> None:
    """NDCG@k of one list: labels [n] (0, 1, 2 ...), scores [n]."""
    label, score = torch.tensor([0.0, 2.0, 1.0, 0.0, 1.0, 3.0]), torch.tensor([2.5, 0.3, 1.9, -1.0, 0.1, 0.8])
    k = 4
    right = metrics.ndcg_at_k(label[None], score[None], k)[0]
    top, best = label[score.argsort(descending=True)][:k], label.sort(descending=True)[0][:k]
    discount = 1 / torch.arange(2, k + 2).log2()
    gain = 2**top - 1
    got = answer(label, score, k)
    for mistake, hint in [
        (gain @ discount, "this is the DCG; divide by that of the best order"),
        ((top @ discount) / (best @ discount), "the gain of a label y is 2^y - 1, not y"),
        ((gain @ discount) / ((2 ** top.sort(descending=True)[0] - 1) @ discount),
         "the best order may bring up candidates that the scores left below place k"),
        (gain[0] + (gain[1:] / torch.arange(2, k + 1).log2()).sum(), "place r is discounted by log2(r + 1)"),
        (gain.sum() / (2**best - 1).sum(), "a hit counts the less the lower it stands"),
        (_ndcg_in_order(label, k), "sort the candidates by their scores first, highest first"),
        (metrics.ndcg_at_k(label[None], -score[None], k)[0], "the highest score comes first"),
    ]:  # fmt: skip
        if close(got, mistake):
            raise Wrong(hint)
    if not close(got, right):
        raise Wrong("sum gain (2^y - 1) / log2(place + 1) over k places; divide by that of the best order")
    if torch.as_tensor(answer(torch.zeros(3), torch.arange(3.0), 2)).isnan():
        raise Wrong("a list without a relevant candidate gives NaN; let it be 0")


def _ndcg_in_order(label: Tensor, k: int) -> float:
    return float(metrics.ndcg_at_k(label[None], -torch.arange(len(label))[None], k)[0])


@exercise(2, title="average precision")
def average_precision(answer: Callable[[Tensor, Tensor], Any]) -> None:
    """Of one list: labels 0 or 1 [n], scores [n]."""
    label, score = torch.tensor([0.0, 1, 1, 0, 1, 1, 0]), torch.tensor([3.1, 2.2, -0.5, 1.4, 0.2, 0.9, -2.0])
    right = metrics.map_at_k(label[None], score[None], len(label), divide_by="positives")[0]
    hit = label[score.argsort(descending=True)]
    precision = hit.cumsum(0) / torch.arange(1, len(hit) + 1)
    got = answer(label, score)
    for mistake, hint in [
        (precision.mean(), "average over the places of the hits, not over all places"),
        ((precision * hit).sum(), "this is the sum; divide by the number of hits"),
        ((precision * hit).mean(), "divide by the number of hits, not of candidates"),
        (precision[-1], "this is the share of hits in the list, whatever the order"),
        (1 / (hit.argmax() + 1), "this is the first hit only"),
    ]:
        if close(got, mistake):
            raise Wrong(hint)
    if not close(got, right):
        raise Wrong("at each hit: which share of the places down to it are hits? Average these shares")


@exercise(3, title="clicks and places")
def attraction(answer: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """Of one movie, from clicks [T] at places [T] and the probability of a look at each place [n]."""
    clicked = torch.tensor([1.0, 0, 0, 1, 0, 1, 0, 0])
    place = torch.tensor([0, 3, 3, 2, 1, 3, 2, 0])
    examination = torch.tensor([1.0, 0.7, 0.5, 0.4])
    looks = examination[place]
    right = (clicked / looks).mean()
    got = answer(clicked, place, examination)
    for mistake, hint in [
        (clicked.mean(), "this is the click rate: who did not look could not click"),
        ((clicked * looks).mean(), "a click at a low place must count for more, not for less"),
        ((clicked / looks).sum(), "this is the sum; what is one showing worth?"),
        ((clicked / looks).sum() / clicked.sum(), "divide by how often it was shown, not by its clicks"),
        (clicked.mean() / examination.mean(), "take the look at the place of each showing"),
        ((clicked / examination[place - 1]).mean(), "places count from 0"),
    ]:
        if close(got, mistake):
            raise Wrong(hint)
    if not close(got, right) and not close(got, clicked.sum() / looks.sum()):
        raise Wrong("each click stands for 1 / (probability of a look) showings that were looked at")


@exercise(4, points=3, title="attention")
def attend(answer: Callable[[Tensor, Tensor, Tensor, Tensor], Any]) -> None:
    """Scaled dot-product attention of [B, n, d] with padding: [B, n, d]."""
    generator = torch.Generator().manual_seed(4)
    query, key, value = (torch.randn(2, 4, 3, generator=generator) for _ in range(3))
    real = torch.tensor([[True, True, True, False], [True] * 4])
    right = F.scaled_dot_product_attention(query, key, value, real[:, None])
    scores = query @ key.transpose(1, 2)
    hidden = scores.masked_fill(~real[:, None], -torch.inf)
    got = answer(query.clone(), key.clone(), value.clone(), real.clone())
    for mistake, hint in [
        (hidden.softmax(2) @ value, "the scores are not divided by the root of d"),
        ((hidden / 3).softmax(2) @ value, "divide by the root of d, not by d"),
        ((scores / 3**0.5).softmax(2) @ value, "padding gets weight, too"),
        (
            (scores / 3**0.5).softmax(1) @ value,
            "which axis is the softmax taken over?",
        ),
        ((hidden / 3**0.5).softmax(1).nan_to_num() @ value, "which axis is the softmax taken over?"),
        (((scores / 3**0.5).softmax(2) * real[:, None]) @ value, "mask before the softmax, not after"),
    ]:
        if close(got, mistake):
            raise Wrong(hint)
    if torch.as_tensor(got).isnan().any():
        raise Wrong("there is a NaN: hide the columns of padding, not its rows")
    if not close(got[real], right[real]):
        raise Wrong("softmax of (query . key) / root of d over the real candidates, times their values")


class _Places(nn.Module):
    """A score of its own for each place."""

    def __init__(self, weights: list[int]) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(2) * self.weights


@exercise(5, points=3, title="blind to the order")
def is_blind(answer: Callable[[Callable[[Tensor], Tensor], Tensor], Any]) -> None:
    """Whether permuting the candidates of x [B, n, d] permutes a model's scores [B, n] and no more."""
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(5))
    of_all, of_place = "its scores move along with the candidates", "not blind"
    for model, right, hint in [
        (lambda x: x.square().sum(2), True, f"a point-wise model is blind: {of_all}"),
        (
            lambda x: x.sum(2) - x.mean((1, 2))[:, None],
            True,
            f"a model that sees the list's mean is blind: {of_all}",
        ),
        (lambda x: x.sum(2).cumsum(1), False, f"a model that reads from the first to the last is {of_place}"),
        (_Places([1, 1, 1, 1, 2]), False, f"a model that treats one place differently is {of_place}"),
        (_Places([1, 2, 3, 2, 1]), False, f"a model that treats the ends alike is still {of_place}: shuffle"),
    ]:
        got = answer(model, x.clone())
        if got is None:
            raise Wrong("it gives None; does the function end in `return`?")
        if bool(got) is not right:
            raise Wrong(hint)


@exercise(6, points=3, title="paired bootstrap")
def interval(answer: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """(low, high) of the mean of b - a [T] over draws [R, T] of lists, 95 %."""
    generator = torch.Generator().manual_seed(6)
    a = torch.rand(40, generator=generator)
    b = a + 0.1 * torch.randn(40, generator=generator) + 0.03
    draws = torch.randint(40, (400, 40), generator=generator)
    means = (b - a)[draws].mean(1)

    def ends(values: Tensor, tail: float = 0.025) -> Tensor:
        return values.quantile(torch.tensor([tail, 1 - tail]))

    got = answer(a.clone(), b.clone(), draws.clone())
    half = 1.96 * (b - a).std() / len(a) ** 0.5
    for mistake, hint in [
        (-ends(means).flip(0), "this is a - b"),
        (ends(means).flip(0), "the lower end comes first"),
        (ends(means, 0.05), "this leaves out 5 % at each end, together 10 %"),
        (ends((b - a)[draws].flatten()), "take the mean of each draw: one number a draw"),
        (ends(b - a), "these are the lists' own differences; where are the draws?"),
        (ends(b[draws].mean(1)), "this is the interval of b; ask for the difference"),
        (ends(b[draws].mean(1) - a[draws].mean(1).roll(1)), "the same lists must be drawn for both"),
        (ends(b[draws].mean(1) - a.mean()), "draw for a as well: the same lists"),
        (
            torch.stack([(b - a).mean() - half, (b - a).mean() + half]),
            "this is the normal formula; use the draws",
        ),
        (torch.stack([means.min(), means.max()]), "these are the extremes; 2.5 % lie below the lower end"),
    ]:
        if close(got, mistake, 1e-6):
            raise Wrong(hint)
    if not close(got, ends(means), 1e-4):
        raise Wrong("for each draw the mean of b - a over its lists; then the 2.5 % and 97.5 % quantiles")


@exercise(7, title="a split by time")
def is_test(answer: Callable[[np.ndarray, float], Any]) -> None:
    """Mask [N] of the rows from the time on at which a share of the rows, the latest, begins."""
    time = np.array([50, 20, 90, 20, 70, 70, 60, 10, 80, 70])
    share = 0.3
    right = splits.by_time(time, (0.4, 0.3, 0.3))[2]
    got = answer(time.copy(), share)
    order = time.argsort(kind="stable")
    last, first = np.zeros(10, bool), np.zeros(10, bool)
    last[order[7:]], first[order[:3]] = True, True
    for mistake, hint in [
        (~right, "these are the training rows"),
        (first, "this tests on the past"),
        (last, "rows of one time stand on both sides: all of them belong to the test"),
        (np.arange(10) >= 7, "the rows are not in the order of time"),
    ]:
        if close(got, mistake):
            raise Wrong(hint)
    if not close(got, right):
        raise Wrong("find the time of the first test row; the test is all that is not earlier")
