"""Checks of the exercises in tutorial T6, memory in dialogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rec_utils.classroom import Wrong, close, exercise
from rec_utils.metrics import ndcg_at_k
from rec_utils.papers.memocrs_bank import MemoryBank

#: A dialogue, who names which film, and what is to be predicted of it.
_MENTIONS = [
    ("recommender", "Up"),
    ("seeker", "Heat"),
    ("recommender", "Heat"),
    ("recommender", "Alien"),
    ("recommender", "Up"),
    ("seeker", "Alien"),
    ("seeker", "Jaws"),
    ("recommender", "Coco"),
]
_TO_FIND = ["Up", "Alien", "Coco"]


@exercise(1, points=2, title="what is to be predicted")
def to_find(answer: Callable[[list[tuple[str, str]]], list[str]]) -> None:
    """Films that the recommender names first."""
    got = answer(list(_MENTIONS))
    if not isinstance(got, list):
        raise Wrong(f"it should return a list, not a {type(got).__name__}")
    if got == [film for who, film in _MENTIONS if who == "recommender"]:
        raise Wrong("a film that somebody has named before is no longer to be predicted")
    if got == list(dict.fromkeys(film for who, film in _MENTIONS if who == "recommender")):
        raise Wrong("one of your films was named by the seeker before the recommender named it")
    if got == list(dict.fromkeys(film for _, film in _MENTIONS)):
        raise Wrong("films that the seeker names first are not the recommender's")
    if got != _TO_FIND and sorted(got) == sorted(_TO_FIND):
        raise Wrong("the films are right, but not in the order of the dialogue")
    if got != _TO_FIND:
        raise Wrong("go through the mentions in order and note all films named so far, by whomever")
    if answer([]) != []:
        raise Wrong("in an empty dialogue there is nothing to predict: return an empty list")


@exercise(2, points=1, title="four dialogues by hand")
def attitude_to_up(answer: Any) -> None:
    """What the bank holds after four dialogues."""
    bank = MemoryBank()
    for time, attitude in enumerate(("wants to see", "likes", "dislikes", "no opinion")):
        bank.write([("Up", attitude)], time)
    expected = bank.entries["Up"].attitude
    if not isinstance(answer, str):
        raise Wrong("the answer is a text, in quotes")
    said = " ".join(answer.casefold().replace("[", "(").replace("]", ")").split())
    if said == "no opinion":
        raise Wrong("somebody who says nothing does not take back what was said before")
    if said == "dislikes":
        raise Wrong("the newest opinion is right, but it contradicts an older one, and the bank notes that")
    if said == "dislikes (earlier: wants to see)":
        raise Wrong("which attitude did the bank hold just before the third dialogue?")
    if said.startswith("likes"):
        raise Wrong("the newer opinion stands first")
    if said != expected:
        raise Wrong("write it as the bank does: the newer attitude, then (earlier: ...) in brackets")


@exercise(3, points=2, title="forgetting")
def forget(answer: Callable[[dict[str, int], int], set[str]]) -> None:
    """The entities that a budget keeps."""
    touched = {"Up": 7, "Heat": 2, "Alien": 9, "Coco": 1, "Jaws": 5}
    for budget in (2, 3):
        got = answer(dict(touched), budget)
        if not isinstance(got, set | list | tuple):
            raise Wrong(f"it should return a set of entities, not a {type(got).__name__}")
        newest_first = sorted(touched, key=touched.__getitem__, reverse=True)
        if set(got) == set(newest_first[:budget]):
            continue
        if set(got) == set(newest_first[-budget:]):
            raise Wrong("it keeps those touched longest ago, and forgets the fresh ones")
        if set(got) == set(newest_first[budget:]):
            raise Wrong("these are the ones to forget; return those that are kept")
        if set(got) in (set(list(touched)[:budget]), set(list(touched)[-budget:])):
            raise Wrong("the order of the dictionary says nothing here; look at the times")
        raise Wrong(f"of 5 entries with a budget of {budget}, keep the {budget} touched last")
    if set(answer(dict(touched), 9)) != set(touched):
        raise Wrong("with a budget above the number of entries, nothing is forgotten")


@exercise(4, points=3, title="Jaccard's likeness")
def jaccard(answer: Callable[[Tensor], Tensor]) -> None:
    """Dialogues that name both films, of those that name either."""
    draw = torch.Generator().manual_seed(6)
    chosen = (torch.rand(12, 6, generator=draw) < 0.4).float()
    chosen[:, 4] = 0  # nobody names this film
    expected = _jaccard(chosen)
    got = answer(chosen.clone())
    if not isinstance(got, Tensor):
        raise Wrong(f"it should return a tensor, not a {type(got).__name__}")
    if got.isnan().any():
        raise Wrong("a film that no dialogue names gives 0 / 0; it should be like nothing")
    if close(got, expected):
        return
    if close(got, chosen.T @ chosen - torch.diag(chosen.sum(0))):
        raise Wrong("these are the dialogues that name both; divide by those that name i or j")
    if close(got - torch.diag(got.diagonal()), expected):
        raise Wrong("the diagonal should be 0: a film does not recommend itself")
    either_twice = chosen.sum(0)[:, None] + chosen.sum(0)
    if close((got * either_twice).fill_diagonal_(0), (chosen.T @ chosen).fill_diagonal_(0)):
        raise Wrong("n_i + n_j counts the dialogues that name both twice")
    raise Wrong("start from chosen.T @ chosen: what does its place (i, j) count, and what its diagonal?")


def _jaccard(chosen: Tensor) -> Tensor:
    of = [set(column.nonzero().flatten().tolist()) for column in chosen.T]
    values = [[len(a & b) / len(a | b) if a | b and a is not b else 0.0 for b in of] for a in of]
    return torch.tensor(values)


@exercise(5, points=2, title="NDCG@k")
def ndcg(answer: Callable[[Tensor, int], Tensor]) -> None:
    """NDCG@k of lists with one right film."""
    rank = torch.tensor([1, 2, 5, 6, 40])
    label = (torch.arange(1, 51) == rank[:, None]).numpy()
    score = np.tile(-np.arange(50.0), (len(rank), 1))
    for k in (5, 10):
        got, inside = answer(rank.clone(), k), rank <= k
        if close(got, ndcg_at_k(label, score, k)):
            continue
        if close(got, 1 / torch.log2(rank + 1.0)):
            raise Wrong(f"ranks beyond k = {k} count 0")
        if close(got, torch.where(rank < k, 1 / torch.log2(rank + 1.0), 0.0)):
            raise Wrong(f"rank {k} itself still belongs to the first {k}")
        if close(got, torch.where(inside, 1 / torch.log(rank + 1.0), 0.0)):
            raise Wrong("the logarithm is that to base 2, so that rank 1 gives 1")
        if close(got, torch.where(inside, 1 / rank, 0.0)):
            raise Wrong("this is the reciprocal rank; NDCG discounts by a logarithm")
        raise Wrong("check by hand: rank 1 gives 1, rank 3 gives 1 / log2(4) = 0.5")


@exercise(6, points=3, title="finding leaks")
def leaks(answer: Callable[[list, dict], list]) -> None:
    """What the memory gave before any earlier session named it."""
    learnt = {"Up": [3, 8], "Heat": [8], "Alien": [9, 2], "Coco": [1]}
    retrieved = [(8, "Up"), (8, "Heat"), (5, "Alien"), (3, "Up"), (9, "Coco"), (7, "Jaws"), (4, "Heat")]
    expected = [(8, "Heat"), (3, "Up"), (7, "Jaws"), (4, "Heat")]
    got = [tuple(each) for each in answer(list(retrieved), {name: list(s) for name, s in learnt.items()})]
    if got == expected:
        return
    if sorted(got) == sorted(expected):
        raise Wrong("the leaks are right, but not in the order of `retrieved`")
    if sorted(got) == sorted(set(retrieved) - set(expected)):
        raise Wrong("these are the entries that are allowed")
    if sorted({*got, (8, "Heat"), (3, "Up")}) == sorted(expected):
        raise Wrong("a session is not over while it lasts: what it names itself is not known in it")
    if sorted({*got, (7, "Jaws")}) == sorted(expected):
        raise Wrong("one entity was given that no session named at all; where can it come from?")
    if (8, "Up") in got:
        raise Wrong("one earlier session is enough, even if a later one names the film again")
    if (5, "Alien") in got:
        raise Wrong("the sessions of an entity need not stand in order")
    raise Wrong(
        "an entry is allowed if any session that named it has a lower number than the one it is given in"
    )
