"""The pool and the draft trees against a trie in plain Python."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_utils.decoding import OwnText, Pool, draft
from rec_utils.decoding import pool as pool_module
from rec_utils.decoding.pool import OF_OUTPUT, OF_PROMPT
from rec_utils.decoding.tree import MIN_NODES
from rec_utils.errors import UserError

VOCAB, BRANCH = 5, 4
texts = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=15), max_size=12)
text = st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=15)


def branches(stored, prompt, written, n_last, depth):
    """Weight of each branch that followed the last tokens, by looking at every place."""
    own = [*prompt, *written]
    context = own[-n_last:]
    found = Counter()
    for one in [*stored, own]:
        for i in range(n_last, len(one)):
            if one[i - n_last : i] == context:
                weight = OF_PROMPT if one is own and i < len(prompt) else OF_OUTPUT
                for d in range(1, min(depth, len(one) - i) + 1):
                    found[tuple(one[i : i + d])] += weight
    return found


def branches_of(tree):
    return {tuple(tree.tokens[sees].tolist()): int(w) for sees, w in zip(tree.sees, tree.weight, strict=True)}


@settings(max_examples=150, deadline=None)
@given(texts, texts, text, st.integers(0, 10), st.integers(1, 30), st.integers(1, BRANCH))
def test_a_draft_holds_the_heaviest_branches(old, later, own, n_prompt, budget, depth):
    pool = Pool(VOCAB, branch=BRANCH)
    pool.extend(old)
    for one in later:
        pool.add(one)
    prompt, written = own[:n_prompt], own[n_prompt:]
    source = OwnText(prompt, VOCAB, BRANCH)
    source.write(written)
    tree = draft(source, pool, budget, depth)
    expected = branches(old + later, prompt, written, 2, depth)
    if len(expected) < MIN_NODES:
        expected = branches(old + later, prompt, written, 1, depth)
    found = branches_of(tree)
    assert len(found) == len(tree) == min(budget, len(expected))
    assert all(expected[branch] == weight for branch, weight in found.items())
    left = [weight for branch, weight in expected.items() if branch not in found]
    assert max(left, default=0) <= min(found.values(), default=max(left, default=0))
    assert all(branch[:-1] in found for branch in found if len(branch) > 1)


def test_the_pseudo_sequence_says_who_stands_above_whom():
    pool = Pool(100)
    pool.extend([[1, 2, 10, 11], [1, 2, 10, 12], [1, 2, 10, 12], [1, 2, 20]])
    own = OwnText([1, 2], 100, 12)
    tree = draft(own, pool, 10, 12)
    assert dict(zip(tree.tokens.tolist(), tree.weight.tolist(), strict=True)) == {10: 3, 11: 1, 12: 2, 20: 1}
    of = dict(zip(tree.tokens.tolist(), range(4), strict=True))
    assert tree.depth[[of[10], of[11], of[12], of[20]]].tolist() == [0, 1, 1, 0]
    assert tree.parent[[of[10], of[11], of[12], of[20]]].tolist() == [-1, of[10], of[10], -1]
    assert tree.sees[of[12]].nonzero()[0].tolist() == [of[10], of[12]]
    assert (tree.parent < np.arange(4)).all()


@settings(max_examples=50, deadline=None)
@given(texts, texts)
def test_texts_added_one_by_one_are_found_like_those_stored_at_once(old, later):
    at_once, grown = Pool(VOCAB, branch=BRANCH), Pool(VOCAB, branch=BRANCH)
    at_once.extend(old + later)
    grown.extend(old)
    for one in later:
        grown.add(one)
    assert (len(grown), grown.n_tokens) == (len(at_once), at_once.n_tokens)
    for last in range(VOCAB):
        own = OwnText([0, last], VOCAB, BRANCH)
        assert branches_of(draft(own, grown, 99, BRANCH)) == branches_of(draft(own, at_once, 99, BRANCH))


def test_recent_texts_are_merged_without_a_loss():
    pool = Pool(50)
    rng = np.random.default_rng(0)
    stored = [rng.integers(0, 50, 200).tolist() for _ in range(60)]
    for one in stored:
        pool.add(one)
    assert pool._settled.size and pool._recent.size < pool.n_tokens  # both parts are in use
    own = OwnText([3, 4], 50, 12)
    assert branches_of(draft(own, pool, 9999, 3)) == dict(branches(stored, [3, 4], [], 1, 3)) or branches_of(
        draft(own, pool, 9999, 3)
    ) == dict(branches(stored, [3, 4], [], 2, 3))


def test_of_many_places_an_even_choice_stands_for_all(monkeypatch):
    monkeypatch.setattr(pool_module, "PLACES", 8)
    pool = Pool(100)
    pool.extend([[1, 2, 10]] * 60 + [[1, 2, 20]] * 20)
    tree = draft(OwnText([1, 2], 100, 12), pool, 2, 12)
    assert dict(zip(tree.tokens.tolist(), tree.weight.tolist(), strict=True)) == {10: 60, 20: 20}


def test_a_bounded_pool_forgets_its_oldest_texts():
    pool = Pool(1000, max_tokens=100)
    for i in range(300):
        pool.add([i, i + 1, i + 2, i + 3])
        assert pool.n_tokens <= 100
    assert len(pool) >= 10
    assert len(draft(OwnText([299, 300], 1000, 12), pool, 9, 9)) == 2
    assert len(draft(OwnText([1, 2], 1000, 12), pool, 9, 9)) == 0


def test_a_text_longer_than_the_bound_is_not_kept():
    pool = Pool(10, max_tokens=5)
    pool.add([1] * 50)
    pool.add([1, 2, 3])
    assert (len(pool), pool.n_tokens) == (1, 4)


def test_a_saved_pool_drafts_the_same(tmp_path):
    pool = Pool(100, branch=3, max_tokens=500)
    pool.extend([[1, 2, 3, 4], [1, 2, 5]])
    pool.add([1, 2, 6])
    pool.save(tmp_path / "pool.npz")
    again = Pool.load(tmp_path / "pool.npz")
    assert (again.vocab_size, again.branch, again.max_tokens, len(again)) == (100, 3, 500, 3)
    own = OwnText([1, 2], 100, 3)
    assert branches_of(draft(own, again, 9, 3)) == branches_of(draft(own, pool, 9, 3))


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        Pool.load(tmp_path / "none.npz")
    damaged = tmp_path / "pool.npz"
    Pool(10).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UserError, match=r"pool\.npz is not a retrieval pool"):
        Pool.load(damaged)


@pytest.mark.parametrize("tokens", [[-1], [10], [3, 11]])
def test_ids_outside_the_vocabulary_are_refused(tokens):
    pool = Pool(10)
    with pytest.raises(UserError, match="from 0 to 9"):
        pool.add(tokens)
    with pytest.raises(UserError, match="from 0 to 9"):
        pool.extend([[1], tokens])
    assert len(pool) == 0


def test_an_empty_pool_has_no_drafts():
    assert len(draft(OwnText([1, 2], 10, 4), Pool(10), 8, 4)) == 0
    assert len(draft(OwnText([], 10, 4), Pool(10), 8, 4)) == 0
