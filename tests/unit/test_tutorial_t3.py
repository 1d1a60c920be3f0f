"""The checks of tutorial T3 take right answers and tell typical mistakes apart."""

import pytest
import torch

from rec_utils import classroom
from rec_utils.classroom import Wrong, t3


def positions_read(n_prompt, n_new, cached):
    return n_prompt + n_new - 1 if cached else sum(n_prompt + i for i in range(n_new))


def tokens_for_free(flops, bandwidth, weight_bytes):
    return flops / bandwidth * weight_bytes / 2


def speed_up(a, k, price):
    tokens = k + 1 if a == 1 else (1 - a ** (k + 1)) / (1 - a)
    return tokens / (1 + k * price)


def lookup(text, n, k):
    places = [i for i in range(n, len(text)) if text[i - n : i] == text[-n:]]
    return text[places[-1] :][:k] if places else []


def sees_from_parents(parent):
    sees = torch.zeros(len(parent), len(parent), dtype=torch.bool)
    for i in range(len(parent)):
        j = i
        while j >= 0:
            sees[i, j] = True
            j = parent[j]
    return sees


def accepts_relaxed(logits, token, k, p):
    among = token in logits.topk(k).indices.tolist()
    return token == int(logits.argmax()) or (among and float(logits.softmax(-1)[token]) > p)


RIGHT = {
    1: positions_read,
    2: tokens_for_free,
    3: speed_up,
    4: lookup,
    5: sees_from_parents,
    6: accepts_relaxed,
}


@pytest.mark.parametrize("number", RIGHT)
def test_a_right_answer_is_right(number, capsys):
    classroom.Sheet("T3").check(number, RIGHT[number])
    assert capsys.readouterr().out.endswith(": right\n")


@pytest.mark.parametrize("number", RIGHT)
def test_no_answer_is_not_attempted(number, capsys):
    def stub(*arguments):
        raise NotImplementedError

    sheet = classroom.Sheet("T3")
    sheet.check(number, stub)
    sheet.check(number, ...)
    assert capsys.readouterr().out.count("not attempted yet\n") == 2


def nucleus(logits, token, k, p):
    """Takes p for the mass of a nucleus."""
    order = logits.argsort(descending=True)
    before = logits.softmax(-1)[order].cumsum(0) - logits.softmax(-1)[order]
    rank = int((order == token).nonzero())
    return rank == 0 or (rank < k and float(before[rank]) < 1 - p)


def only_parents(parent):
    sees = torch.eye(len(parent), dtype=torch.bool)
    for i, above in enumerate(parent):
        if above >= 0:
            sees[i, above] = True
    return sees


def earliest(text, n, k):
    places = [i for i in range(n, len(text)) if text[i - n : i] == text[-n:]]
    return text[places[0] :][:k] if places else []


def finds_itself(text, n, k):
    places = [i for i in range(n, len(text) + 1) if text[i - n : i] == text[-n:]]
    return text[places[-1] :][:k]


def with_searched(text, n, k):
    places = [i for i in range(n, len(text)) if text[i - n : i] == text[-n:]]
    return text[places[-1] - n :][:k] if places else []


def geometric(a, k, price):
    """Divides by zero at a = 1."""
    return (1 - a ** (k + 1)) / (1 - a) / (1 + k * price)


WRONG = [
    (t3.positions_read, lambda p, n, cached: p + n if cached else positions_read(p, n, False), "ever read"),
    (t3.positions_read, lambda p, n, cached: positions_read(p, n + (not cached), cached), "ever read"),
    (t3.positions_read, lambda p, n, cached: p + n - 1, "without a cache"),
    (t3.positions_read, lambda p, n, cached: sum(p + i for i in range(n)), "with a cache"),
    (t3.tokens_for_free, lambda f, b, w: f * w / b, "multiplication and an addition"),
    (t3.tokens_for_free, lambda f, b, w: f / (2 * b), "counts bytes"),
    (t3.tokens_for_free, lambda f, b, w: 2 * b / (f * w), "once more"),
    (t3.tokens_for_free, lambda f, b, w: f * b, "seconds for reading"),
    (t3.speed_up, lambda a, k, c: (speed_up(a, k, 0) - 1) / (1 + c * k), "one token more"),
    (t3.speed_up, lambda a, k, c: (1 + a * k) / (1 + c * k), "all drafted tokens before"),
    (t3.speed_up, lambda a, k, c: speed_up(a, k, 0), "what does the pass cost"),
    (t3.speed_up, geometric, "divides by zero"),
    (t3.speed_up, lambda a, k, c: None, "None"),
    (t3.lookup, earliest, "earliest"),
    (t3.lookup, finds_itself, "find themselves"),
    (t3.lookup, with_searched, "were searched"),
    (t3.lookup, lambda text, n, k: lookup(text, 1, k), "of text"),
    (t3.lookup, lambda text, n, k: lookup(text, n, k) or None, "empty list"),
    (t3.sees_from_parents, only_parents, "parents of parents"),
    (t3.sees_from_parents, lambda p: sees_from_parents(p).T, "who sees"),
    (t3.sees_from_parents, lambda p: sees_from_parents(p) & ~torch.eye(len(p)).bool(), "itself"),
    (t3.sees_from_parents, lambda p: torch.ones(len(p), len(p)).tril().bool(), "other branches"),
    (t3.sees_from_parents, lambda p: torch.ones(len(p), len(p)).bool(), "more than"),
    (t3.accepts_relaxed, nucleus, "this token alone"),
    (t3.accepts_relaxed, lambda x, t, k, p: float(x.softmax(-1)[t]) > p, "both conditions"),
    (t3.accepts_relaxed, lambda x, t, k, p: t == int(x.argmax()), "it refuses"),
    (
        t3.accepts_relaxed,
        lambda x, t, k, p: float(x.softmax(-1)[t]) > p and accepts_relaxed(x, t, k, p),
        "most",
    ),
    (t3.accepts_relaxed, lambda x, t, k, p: None, "None"),
]


@pytest.mark.parametrize(("exercise", "answer", "hint"), WRONG)
def test_a_mistake_is_told(exercise, answer, hint):
    with pytest.raises(Wrong, match=hint):
        exercise.grade(answer)
