"""Checks of tutorial T6: right answers pass, typical mistakes are told apart."""

import math

import pytest
import torch

from rec_utils.classroom import Sheet, Wrong

EARLIER = "dislikes (earlier: likes)"


def to_find(mentions):
    firsts = {film: who for who, film in reversed(mentions)}
    return [film for film in dict.fromkeys(f for _, f in mentions) if firsts[film] == "recommender"]


def by_time(touched):
    return [name for _, name in sorted((time, name) for name, time in touched.items())]


def jaccard(chosen):
    inside = chosen.bool()
    both = (inside[:, :, None] & inside[:, None]).sum(0)
    either = (inside[:, :, None] | inside[:, None]).sum(0)
    return (both / either).nan_to_num().fill_diagonal_(0)


def ndcg(rank, k):
    return torch.tensor([1 / math.log2(r + 1) if r <= k else 0 for r in rank.tolist()])


def leaks(retrieved, learnt):
    return [(now, name) for now, name in retrieved if min(learnt.get(name, [now])) >= now]


RIGHT = {
    1: to_find,
    2: EARLIER,
    3: lambda t, budget: set(by_time(t)[-budget:]),
    4: jaccard,
    5: ndcg,
    6: leaks,
}
WRONG = {
    1: [
        (lambda m: [film for who, film in m if who == "recommender"], "no longer"),
        (lambda m: list(dict.fromkeys(f for who, f in m if who == "recommender")), "named by the seeker"),
        (lambda m: list(dict.fromkeys(film for _, film in m)), "not the recommender's"),
        (lambda m: to_find(m)[::-1], "order"),
        (lambda m: ["Jaws"], "note all films"),
        (lambda m: set(to_find(m)), "list"),
        (lambda m: to_find(m) if m else [""], "empty"),
    ],
    2: [
        ("no opinion", "does not take back"),
        ("dislikes", "contradicts"),
        ("dislikes (earlier: wants to see)", "just before"),
        ("likes (earlier: dislikes)", "stands first"),
        ("dislikes, earlier likes", "brackets"),
        (3, "text"),
    ],
    3: [
        (lambda t, budget: set(by_time(t)[:budget]), "longest ago"),
        (lambda t, budget: set(by_time(t)[:-budget]), "ones to forget"),
        (lambda t, budget: set(list(t)[-budget:]), "order of the dictionary"),
        (lambda t, budget: set(by_time(t)[-budget - 1 :]), "keep the 2"),
        (lambda t, budget: set(by_time(t)[len(t) - budget :]), "nothing is forgotten"),
        (lambda t, budget: 3, "set"),
    ],
    4: [
        (lambda x: (x.T @ x).fill_diagonal_(0), "divide"),
        (lambda x: jaccard(x) + torch.eye(x.shape[1]), "diagonal"),
        (lambda x: ((x.T @ x) / (x.sum(0)[:, None] + x.sum(0)).clamp(min=1)).fill_diagonal_(0), "twice"),
        (lambda x: (x.T @ x) / (x.sum(0)[:, None] + x.sum(0) - x.T @ x), "0 / 0"),
        (lambda x: jaccard(x) ** 2, "diagonal\\?"),
        (lambda x: jaccard(x).tolist(), "tensor"),
    ],
    5: [
        (lambda rank, k: ndcg(rank, 100), "beyond"),
        (lambda rank, k: ndcg(rank, k - 1), "still belongs"),
        (lambda rank, k: ndcg(rank, k) / math.log(2), "base 2"),
        (lambda rank, k: torch.where(rank <= k, 1 / rank, 0), "reciprocal"),
        (lambda rank, k: torch.where(rank <= k, 1 / torch.log2(rank + 2.0), 0), "by hand"),
        (lambda rank, k: ndcg(rank, k).mean(), "shape"),
    ],
    6: [
        (lambda r, known: [p for p in r if p not in leaks(r, known)], "allowed"),
        (lambda r, known: leaks(r, known)[::-1], "order of"),
        (lambda r, known: [(s, e) for s, e in r if min(known.get(e, [99])) > s], "while it lasts"),
        (lambda r, known: [(s, e) for s, e in leaks(r, known) if e in known], "at all"),
        (lambda r, known: [(s, e) for s, e in r if max(known.get(e, [99])) >= s], "one earlier session"),
        (lambda r, known: [(s, e) for s, e in r if known.get(e, [99])[0] >= s], "need not stand"),
        (lambda r, known: [], "lower number"),
    ],
}


@pytest.mark.parametrize("number", RIGHT)
def test_the_right_answer_passes(number, capsys):
    Sheet("T6").check(number, RIGHT[number])
    assert capsys.readouterr().out.endswith(": right\n")


@pytest.mark.parametrize(("number", "wrong", "hint"), [(n, *each) for n in WRONG for each in WRONG[n]])
def test_mistakes_get_their_hint(number, wrong, hint):
    with pytest.raises(Wrong, match=hint):
        Sheet("T6").exercises[number].grade(wrong)


@pytest.mark.parametrize("number", RIGHT)
def test_nothing_attempted(number, capsys):
    def empty(*args):
        raise NotImplementedError

    sheet = Sheet("T6")
    sheet.check(number, empty if callable(RIGHT[number]) else ...)
    assert "not attempted yet" in capsys.readouterr().out
    assert sheet.points == 0


def test_there_are_thirteen_points():
    assert sum(each.points for each in Sheet("T6").exercises.values()) == 13
