"""Checks of tutorial T5: right answers pass, typical mistakes are told apart."""

import math

import pytest
import torch

from rec_utils.classroom import Sheet, Wrong, t5


def product_of_bells(mean_a, variance_a, mean_b, variance_b):
    total = variance_a + variance_b
    return (mean_a * variance_b + mean_b * variance_a) / total, variance_a * variance_b / total


def recall(scores, seen, wanted, k):
    found = []
    for score, own, right in zip(scores, seen, wanted, strict=True):
        order = [i for i in score.argsort(descending=True).tolist() if not own[i]][:k]
        found.append(sum(right[i].item() for i in order) / right.sum().item())
    return torch.tensor(found)


def on_clean(x0_of):
    """An answer to exercise 5 from a function of (x_t, noise, sqrt(alpha_bar), sqrt(1 - alpha_bar))."""
    return lambda xt, noise, alpha_bar: x0_of(xt, noise, alpha_bar**0.5, (1 - alpha_bar) ** 0.5)


RIGHT = {
    1: 0.36,
    2: lambda beta: next(n for n in range(1, len(beta) + 1) if (1 - beta)[:n].prod() < 0.5),
    3: product_of_bells,
    4: lambda xt, a: torch.tanh(xt * a**0.5 / (1 - a)),  # what the two bells come to
    5: on_clean(lambda xt, noise, signal, deviation: (xt - deviation * noise) / signal),
    6: recall,
    7: 0.005 * math.sqrt(2),
}
WRONG = {
    1: [(0.01, "product of the betas"), (0.64, "noise"), (0.6, "square"), (0.2, "leaves 1 - beta")],
    2: [
        (lambda beta: int((torch.cumprod(1 - beta, 0) >= 0.5).sum()), "one too few"),
        (lambda beta: int((torch.cumprod(1 - beta, 0) >= 0.5).sum()) + 2, "one too many"),
        (lambda beta: int((1 - beta >= 0.5).sum()) + 1, "product of all"),
    ],
    3: [
        (lambda a, v, b, w: (product_of_bells(a, v, b, w)[0], 1 / v + 1 / w), "precision"),
        (lambda a, v, b, w: (product_of_bells(a, v, b, w)[0], v + w), "added"),
        (lambda a, v, b, w: ((a * v + b * w) / (v + w), v * w / (v + w)), "wider bell"),
        (lambda a, v, b, w: ((a + b) / 2, v * w / (v + w)), "sharp"),
        (lambda a, v, b, w: (a, (v + w) / 2), "precisions"),
        (lambda a, v, b, w: a, "two numbers"),
    ],
    4: [
        (lambda xt, a: xt.sign(), "likelier"),
        (lambda xt, a: torch.sigmoid(2 * xt * a**0.5 / (1 - a)), "chance that x_0 is 1"),
        (lambda xt, a: xt / a**0.5, "shrinking"),
        (lambda xt, a: torch.tanh(xt * a / (1 - a)), "density"),
        (lambda xt, a: xt[:3], "shape"),
    ],
    5: [
        (on_clean(lambda xt, noise, signal, deviation: xt - noise), "factor 1"),
        (on_clean(lambda xt, noise, signal, deviation: xt - deviation * noise), "still shrunk"),
        (on_clean(lambda xt, noise, signal, deviation: (xt - deviation**2 * noise) / signal**2), "roots"),
        (on_clean(lambda xt, noise, signal, deviation: (xt + deviation * noise) / signal), "solve"),
    ],
    6: [
        (lambda scores, seen, wanted, k: recall(scores, seen & False, wanted, k), "no candidates"),
        (lambda scores, seen, wanted, k: recall(scores, seen, wanted, k) * wanted.sum(1), "hits"),
        (lambda scores, seen, wanted, k: recall(scores, seen, wanted, k) * wanted.sum(1) / k, "precision"),
        (lambda scores, seen, wanted, k: recall(-scores, seen, wanted, k), "k best"),
        (lambda scores, seen, wanted, k: recall(scores, seen, wanted, k).mean(), "shape"),
    ],
    7: [(0.00005, "variance"), (0.005, "first step"), (0.1, "scale x high")],
}


@pytest.mark.parametrize("number", RIGHT)
def test_the_right_answer_passes(number, capsys):
    Sheet("T5").check(number, RIGHT[number])
    assert capsys.readouterr().out.endswith(": right\n")


@pytest.mark.parametrize(("number", "wrong", "hint"), [(n, *each) for n in WRONG for each in WRONG[n]])
def test_mistakes_get_their_hint(number, wrong, hint):
    with pytest.raises(Wrong, match=hint):
        Sheet("T5").exercises[number].grade(wrong)


@pytest.mark.parametrize("number", RIGHT)
def test_nothing_attempted(number, capsys):
    def empty(*args):
        raise NotImplementedError

    sheet = Sheet("T5")
    sheet.check(number, empty if callable(RIGHT[number]) else ...)
    assert "not attempted yet" in capsys.readouterr().out
    assert sheet.points == 0


def test_there_are_fifteen_points():
    assert sum(each.points for each in Sheet("T5").exercises.values()) == 15
    assert t5.signal_left.number == 1
