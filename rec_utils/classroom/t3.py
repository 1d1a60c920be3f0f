"""Exercises of tutorial T3, speculative decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from rec_utils.classroom import Wrong, close, exercise
from rec_utils.decoding import Relaxed
from rec_utils.decoding.tree import Trie


@exercise(1, title="tokens that a text costs")
def positions_read(answer: Callable[[int, int, bool], int]) -> None:
    """Tokens read to write n_new tokens after n_prompt, without and with a cache."""
    for n_prompt, n_new in ((5, 1), (7, 4), (30, 200)):
        one_by_one = sum(range(n_prompt, n_prompt + n_new))
        got = answer(n_prompt, n_new, False)
        if close(got, one_by_one + n_prompt + n_new):
            raise Wrong("without a cache, the last token is written, but is it ever read?")
        if not close(got, one_by_one):
            raise Wrong(f"without a cache, {n_new} passes over a text that grows from {n_prompt} tokens on")
        got = answer(n_prompt, n_new, True)
        if close(got, n_prompt + n_new):
            raise Wrong("with a cache, the last token is written, but is it ever read?")
        if not close(got, n_prompt + n_new - 1):
            raise Wrong("with a cache, the first pass reads the prompt and each later one a single token")


@exercise(2, title="tokens for the price of one")
def tokens_for_free(answer: Callable[[float, float, float], float]) -> None:
    """The number of tokens at which a pass is no longer bound by the memory."""
    for flops, bandwidth, weight_bytes in ((6e12, 1e11, 4), (3e14, 2e12, 2)):
        right = flops * weight_bytes / (2 * bandwidth)
        got = answer(flops, bandwidth, weight_bytes)
        if close(got, right):
            continue
        if close(got, 2 * right):
            raise Wrong("each weight takes a multiplication and an addition for each token")
        if close(got, right / weight_bytes):
            raise Wrong("the bandwidth counts bytes, and a weight has several")
        if close(got, 1 / right):
            raise Wrong("it falls as the processor gets faster; solve for the number of tokens once more")
        raise Wrong("set the seconds for reading one weight equal to those for using it k times")


@exercise(3, points=3, title="what drafts are worth")
def speed_up(answer: Callable[[float, int, float], float]) -> None:
    """Expected tokens a pass over the price of a pass."""
    for a, k, price in ((0.5, 3, 0.0), (0.9, 8, 0.05), (0.0, 4, 0.1), (0.7, 0, 0.2)):
        tokens, cost = sum(a**i for i in range(k + 1)), 1 + price * k
        got = answer(a, k, price)
        if close(got, tokens / cost):
            continue
        if close(got, (tokens - 1) / cost):
            raise Wrong("a pass writes one token more than it accepts")
        if close(got, (1 + a * k) / cost):
            raise Wrong("a token counts only if all drafted tokens before it were accepted, too")
        if close(got, tokens):
            raise Wrong("these are the tokens a pass; what does the pass cost?")
        raise Wrong(f"it is another number where a = {a}, k = {k} and price = {price}")
    try:
        sure = answer(1.0, 5, 0.0)
    except ZeroDivisionError:
        raise Wrong("it divides by zero when every drafted token is accepted") from None
    if not close(sure, 6):
        raise Wrong("it fails when every drafted token is accepted")


@exercise(4, title="prompt lookup")
def lookup(answer: Callable[[list[int], int, int], Sequence[int]]) -> None:
    """What followed the last n tokens of a text, where they stood last before."""
    rng = np.random.default_rng(4)
    for n in (1, 2, 3):
        for _ in range(30):
            text = rng.integers(0, 4, 14).tolist()
            # in bytes, where Python has a search of its own
            place = bytes(text[:-1]).rfind(bytes(text[-n:]))
            right = text[place + n : place + n + 5] if place >= 0 else []
            got = answer(list(text), n, 5)
            if got is None:
                raise Wrong("it gives None; where nothing is found, return an empty list")
            got = [int(token) for token in got]
            if got != right:
                _explain_lookup(text, n, got, right)


def _explain_lookup(text: list[int], n: int, got: list[int], right: list[int]) -> None:
    shown = f"of text = {text}, n = {n}"
    if not got:
        raise Wrong(f"it finds nothing {shown}; do the last tokens find themselves?")
    if not right:
        raise Wrong(f"it finds something {shown}, where the last {n} tokens stand nowhere else")
    first = bytes(text[:-1]).find(bytes(text[-n:]))
    if got == text[first + n : first + n + 5]:
        raise Wrong(f"it takes the earliest place {shown}, not the latest")
    if got[:n] == text[-n:]:
        raise Wrong(f"it begins with the tokens that were searched {shown}, not with what followed them")
    raise Wrong(f"it gives {got} {shown}, k = 5")


@exercise(5, points=3, title="a mask from parents")
def sees_from_parents(answer: Callable[[list[int]], Tensor]) -> None:
    """Which tokens of a tree each token may attend to."""
    rng = np.random.default_rng(5)
    for budget in (1, 6, 14):
        rows, weights = rng.integers(0, 3, (20, 5)).astype(np.uint16), np.ones(20, np.int64)
        tree = Trie(rows, weights, 3).tree(budget)
        right = torch.from_numpy(tree.sees)
        got = answer(tree.parent.tolist())
        if close(got, right):
            continue
        got = torch.as_tensor(got).bool()
        own = torch.eye(len(right), dtype=torch.bool)
        if (got == right & ~own).all():
            raise Wrong("a token attends to itself, too")
        if (got == right.T).all():
            raise Wrong("row i is what token i sees; here it is who sees token i")
        if (got == torch.ones_like(right).tril()).all():
            raise Wrong("tokens of other branches must stay hidden")
        if not (right & ~got).any():
            raise Wrong("some tokens see more than themselves and their ancestors")
        if (got[tree.depth < 2] == right[tree.depth < 2]).all():
            raise Wrong("parents are seen; what about the parents of parents?")
        raise Wrong("some tokens do not see all their ancestors")


@exercise(6, title="relaxed acceptance")
def accepts_relaxed(answer: Callable[[Tensor, int, int, float], bool]) -> None:
    """The rule of DARE, for one drafted token."""
    draws = torch.Generator().manual_seed(6)
    for k, p in ((1, 0.1), (2, 0.1), (3, 0.2), (3, 0.0), (2, 0.45)):
        logits = 2 * torch.randn(40, 6, generator=draws)
        token = torch.randint(6, (40,), generator=draws)
        best, row = logits.argmax(-1), torch.arange(40)
        right = Relaxed(k, p).accepts(logits, best, row, token).tolist()
        for i, wanted in enumerate(right):
            got = answer(logits[i].clone(), int(token[i]), k, p)
            if got is None:
                raise Wrong("it gives None; does the function end in `return`?")
            if bool(got) != wanted:
                _explain_relaxed(logits[i], int(token[i]), k, p, wanted)


def _explain_relaxed(logits: Tensor, token: int, k: int, p: float, wanted: bool) -> None:
    probability = logits.softmax(-1)
    rank = 1 + int((logits > logits[token]).sum())
    place = f"a token of rank {rank} with probability {probability[token]:.2f}, at k = {k} and p = {p}"
    if rank == 1:
        raise Wrong(f"it refuses the most probable token: {place}")
    if not wanted:
        raise Wrong(f"it accepts {place}; both conditions must hold, and p is about this token alone")
    raise Wrong(f"it refuses {place}; are these probabilities, which sum to {math.fsum(probability):.0f}?")
