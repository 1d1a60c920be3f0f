"""Exercises of T1: from logistic regression to DIN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rec_utils import metrics
from rec_utils.classroom import Wrong, close, exercise
from rec_utils.interactions import pair_sum as fast_pair_sum
from rec_utils.layers import masked_softmax


@exercise(1, title="log loss")
def log_loss(answer: Callable[[Tensor, Tensor], Any]) -> None:
    """Mean negative log-likelihood of clicks [N] under probabilities [N]."""
    click = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0])
    probability = torch.tensor([0.7, 0.4, 0.1, 0.2, 0.5])
    right = metrics.logloss(click, probability)
    got = answer(click, probability)
    of_clicks = -(click * probability.log()).mean()
    for mistake, hint in [
        (-right, "a loss is lower for a better prediction; look at the sign"),
        (5 * right, "this is the sum; take the mean, so that the number of samples does not matter"),
        (right / torch.tensor(2.0).log(), "this is in bits; use the natural logarithm"),
        (of_clicks, "only the clicks are counted; what does a sample without a click cost?"),
        (right - of_clicks, "only the samples without a click are counted"),
    ]:
        if close(got, mistake):
            raise Wrong(hint)
    if not close(got, right):
        raise Wrong("it is not the mean of -log(probability of what happened)")


@exercise(2, title="AUC")
def auc(answer: Callable[[Tensor, Tensor], Any]) -> None:
    """Share of pairs (click, no click) in the right order, ties half."""
    click = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    score = torch.tensor([2.0, -1.0, 0.5, 0.5, 3.0, 0.5, -2.0])
    right = metrics.auc(click, score)
    difference = score[click == 1][:, None] - score[click == 0]
    got = answer(click, score)
    for mistake, hint in [
        (1 - right, "this is the share of pairs in the wrong order"),
        ((difference > 0).float().mean(), "what does a tie earn?"),
        ((difference >= 0).float().mean(), "a tie is neither right nor wrong; what does it earn?"),
        (right * difference.numel(), "this counts the pairs; a share lies between 0 and 1"),
    ]:
        if close(got, mistake):
            raise Wrong(hint)
    if not close(got, right):
        raise Wrong("go through all pairs of one click and one non-click, and no others")
    if not close(answer(click, 3 * score + 7), right):
        raise Wrong("scores need not be probabilities: only their order counts")


@exercise(3, title="history without a leak")
def history_before(answer: Callable[[Tensor, int, int], Any]) -> None:
    """The movies rated just before a position, padded with 0 on the left."""
    rated = torch.tensor([31, 12, 55, 47, 8, 23, 60])
    for position, length in [(4, 3), (2, 4), (0, 2), (6, 6)]:
        padded = torch.cat([torch.zeros(length, dtype=torch.long), rated])
        right = padded[position : position + length]
        got = answer(rated.clone(), position, length)
        if close(got, padded[position + 1 : position + length + 1]):
            raise Wrong("the last entry is the movie that is to be predicted: the label leaks")
        if close(got, right):
            continue
        at = f"at position {position} with length {length}"
        if close(got, right.flip(0)):
            raise Wrong(f"{at} the order is turned: the oldest comes first")
        real = right[right > 0]
        if close(got, torch.cat([real, right[right == 0]])):
            raise Wrong(f"{at} the padding stands on the wrong side")
        if set(torch.as_tensor(got).tolist()) & set(rated[position:].tolist()):
            raise Wrong(f"{at} there is something that was rated later: the future leaks")
        raise Wrong(f"{at} these are not the movies rated just before")


@exercise(4, title="a step of gradient descent")
def gradient_step(answer: Callable[[Tensor, Tensor, Tensor, float], Any]) -> None:
    """New weights [F] of a logistic regression after one step on x [N, F], click [N]."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(6, 3, generator=generator)
    click = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    weight = torch.tensor([0.3, -0.8, 0.5], requires_grad=True)
    torch.nn.functional.binary_cross_entropy_with_logits(x @ weight, click).backward()
    gradient, start, rate = weight.grad, weight.detach(), 0.2
    without_sigmoid = x.T @ (x @ start - click) / len(x)
    got = answer(start.clone(), x.clone(), click.clone(), rate)
    for mistake, hint in [
        (gradient, "this is the gradient; now take the step"),
        (start + rate * gradient, "this step goes uphill"),
        (start - gradient, "how long is the step? Use the rate"),
        (start - rate * len(x) * gradient, "this is the gradient of the sum; the loss is a mean"),
        (start - rate * without_sigmoid, "x @ weight is a logit; make it a probability first"),
    ]:
        if close(got, mistake):
            raise Wrong(hint)
    if not close(got, start - rate * gradient):
        raise Wrong("each sample pulls with (probability - click) * x; average, and step against it")


@exercise(5, points=3, title="all pairs at the price of one pass")
def pair_sum(answer: Callable[[Tensor], Any]) -> None:
    """Sum of the inner products of all pairs of fields [B, M, k]: [B]."""
    fields = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(5))
    right, squares = fast_pair_sum(fields), fields.square().sum((1, 2))
    got = answer(fields.clone())
    for mistake, hint in [
        (2 * right, "every pair is counted twice"),
        (2 * right + squares, "(i, j) and (j, i) are one pair, and (i, i) is none"),
        (right + squares / 2, "a field is paired with itself"),
        (right + squares, "a field is paired with itself"),
    ]:
        if close(got, mistake, 1e-4):
            raise Wrong(hint)
    if not close(got, right, 1e-4):
        raise Wrong("square of the sum, minus sum of the squares: over which axis is each sum?")


@exercise(6, points=1, title="how many numbers are learnt")
def n_parameters(answer: Any) -> None:
    """Of a factorisation machine for 9,000 movies and 20 genres with vectors of width 16."""
    n, k = 9_000 + 20, 16
    for mistake, hint in [
        (n * (k + 1), "one number is missing, which no movie or genre owns"),
        (n * k, "each movie and genre has a vector and one more number"),
        (n * k + 1, "each movie and genre has a vector and one more number"),
        (9_000 * 20 * k, "the pairs have no numbers of their own: that is the point of the method"),
        (9_000 * 20, "the pairs have no numbers of their own: that is the point of the method"),
    ]:
        if close(answer, mistake, 1e-9):
            raise Wrong(hint)
    if not close(answer, n * (k + 1) + 1, 1e-9):
        raise Wrong("what does one movie own, how many movies and genres are there, and what is left?")


@exercise(7, points=3, title="attention with padding")
def pool(answer: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """Mean of steps [B, L, D] weighted by the softmax of scores [B, L] over the real steps: [B, D]."""
    generator = torch.Generator().manual_seed(7)
    scores, steps = torch.randn(3, 4, generator=generator), torch.randn(3, 4, 2, generator=generator)
    mask = torch.tensor([[False, True, True, True], [True] * 4, [False] * 4])
    right = (masked_softmax(scores, mask)[..., None] * steps).sum(1)
    got = answer(scores.clone(), steps.clone(), mask.clone())
    padding_counts = (scores.softmax(1)[..., None] * steps).sum(1)
    no_softmax = ((scores * mask)[..., None] * steps).sum(1)
    plain_mean = (mask[..., None] * steps).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    late_mask = ((scores.softmax(1) * mask)[..., None] * steps).sum(1)
    for mistake, hint in [
        (padding_counts, "padding gets weight, too"),
        (late_mask, "the weights of the real steps do not sum to 1: mask before the softmax, not after"),
        (no_softmax, "these weights may be negative; take the softmax"),
        (plain_mean, "all steps weigh the same; where are the scores?"),
    ]:
        if close(got, mistake):
            raise Wrong(hint)
    if not close(got[:2], right[:2]):
        raise Wrong(
            "look at a user with three real steps: which weights do they get, and what do they sum to?"
        )
    if torch.as_tensor(got[2]).isnan().any():
        raise Wrong("a user without any history gets NaN")
    if not close(got, right):
        raise Wrong("a user without any history should get zeros")
