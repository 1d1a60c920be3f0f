"""Pools by group, decoders of groups, passes over real texts, and the race."""

import numpy as np
import pandas as pd
import pytest
import tiny_lm
import torch

from rec_utils.decoding import Pool, Strict, TreeDecoder
from rec_utils.papers import dare, dare_study


@pytest.fixture(scope="module")
def lm():
    return tiny_lm.build()[0]


def test_a_pool_holds_the_texts_of_its_group():
    pools = dare.pools([[1, 2], [3, 4], [1, 5]], ["a", "b", "a"], 10)
    assert {group: len(pool) for group, pool in pools.items()} == {"a": 2, "b": 1}
    assert pools["a"].n_tokens == 6
    first, second, third = dare.decoders(pools, ["a", "b", "a"], tree_size=3)
    assert first is third and first.pool is pools["a"] and second.pool is pools["b"]


def test_passes_over_a_text_are_those_of_a_model_that_would_write_it(lm):
    """The counted passes equal those that the decoder took when the text is the model's own."""
    rng = np.random.default_rng(0)
    vocab = lm.config.vocab_size
    for seed in range(6):
        prompt = rng.integers(4, vocab, 6).tolist()
        pool = Pool(vocab)
        pool.extend(dare_study.write(lm, rng.integers(4, vocab, 6).tolist(), 40) for _ in range(4))
        if seed % 2:
            pool.add(dare_study.write(lm, prompt, 30))
        decoder = TreeDecoder(pool, tree_size=8)
        text = dare_study.write(lm, prompt, 40, custom_generate=decoder)
        assert dare.steps_to_write(text, pool, 8, prompt) == decoder.counts.passes


def test_a_known_text_takes_few_passes_and_an_unknown_one_many():
    text = list(range(50))
    known = Pool(100)
    known.extend([text])
    # the first token, then the second, which has no pair yet that is known; then 13 tokens a pass
    assert dare.steps_to_write(text, known, 16) <= 2 + -(-48 // 13)
    assert dare.steps_to_write(text, Pool(100), 16) == 50
    assert dare.steps_to_write(text, known, 0) == 50


def test_counts_of_shared_decoders_are_taken_once(lm):
    one = TreeDecoder(tree_size=0)
    dare_study.write_all(lm, [[5, 6], [7, 8]], 5, [one, one])
    total = dare.counts([one, one])
    assert (total.texts, total.tokens) == (2, one.counts.tokens)
    rates = dare_study.rates(total)
    assert rates["tokens a pass"] == 1 and rates["drafted a pass"] == 0
    assert rates["ms a token"] == pytest.approx(1000 * total.seconds / total.tokens)


def test_a_race_lets_every_way_write_everything_and_restores_the_threads(lm):
    calls = []

    def way(name, token):
        def write(prompt):
            calls.append((name, prompt))
            return [token] * (prompt + 1)

        return write

    threads = torch.get_num_threads()
    raced = dare_study.race({"a": way("a", 1), "b": way("b", 2)}, 3, 2, seed=1)
    assert torch.get_num_threads() == threads
    assert sorted(calls) == sorted(
        [("a", 0), ("b", 0)] + [(name, prompt) for name in "ab" for prompt in range(3)] * 2
    )
    assert raced.set_index(["prompt", "way"])["tokens"].to_dict() == {
        (prompt, name): prompt + 1 for prompt in range(3) for name in "ab"
    }
    assert (raced["spread"] >= 1).all()


def test_counted_passes_by_pool():
    def rows(corpus, group, part, texts):
        return [{"corpus": corpus, "group": group, "part": part, "tokens": text} for text in texts]

    a, b = [1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16]
    table = pd.DataFrame(
        rows("x", "a", "old", [a])
        + rows("x", "b", "old", [b])
        + rows("x", "a", "new", [a])
        + rows("y", "c", "old", [[20, 21]])
    )
    names = ("own text", "own group", "random", "other groups", "all")
    counted = dare_study.count_passes(table, 50, 9, {name: [8] for name in names})
    passes = counted.set_index("pool")["passes"]
    assert set(counted["tokens"]) == {6}
    assert passes["own text"] == passes["other groups"] == 6
    assert passes["own group"] == passes["all"] < 4


def test_mixed_texts_are_made_of_whole_sentences():
    mixed = dare_study.mixed_texts([[1, 2, 0, 3, 0], [4, 4, 0]], 20, stop=0, seed=3)
    assert len(mixed) == 20
    for text in mixed:
        sentences = "".join(map(str, text)).split("0")
        assert len(sentences) == 6 and set(sentences) <= {"12", "3", "44", ""}


def test_strict_is_the_default():
    assert TreeDecoder().verification == Strict()
