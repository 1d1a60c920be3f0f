"""Tree decoding against `generate` on small random models of several architectures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    StoppingCriteria,
)

from rec_utils.decoding import Pool, Relaxed, Strict, TreeDecoder
from rec_utils.errors import UserError

VOCAB, END = 61, 5
SMALL = {"vocab_size": VOCAB, "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": END}
BLOCKS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
}
ARCHITECTURES = {
    "Llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, **BLOCKS)),
    "Llama, grouped queries": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, **BLOCKS, num_key_value_heads=2)),
    "Llama, plain attention": lambda: LlamaForCausalLM._from_config(
        LlamaConfig(**SMALL, **BLOCKS), attn_implementation="eager"
    ),
    "Qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, **BLOCKS, num_key_value_heads=1)),
    "GPT-2": lambda: GPT2LMHeadModel(GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=4, n_positions=160)),
}


@pytest.fixture(scope="module")
def models():
    made = {}
    for name, build in ARCHITECTURES.items():
        torch.manual_seed(len(made))
        made[name] = build().eval()
    return made


@pytest.fixture(scope="module")
def pools(models):
    return {name: filled(model, n=5) for name, model in models.items()}


def write(model, prompt, new=40, **options):
    options = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0} | options
    return model.generate(torch.tensor([prompt]), **options)[0].tolist()


def filled(model, seed=0, n=15):
    """A pool with the model's own answers to other prompts."""
    pool, rng = Pool(VOCAB), np.random.default_rng(seed)
    pool.extend(write(model, rng.integers(6, VOCAB, 6).tolist())[6:] for _ in range(n))
    return pool


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=8, deadline=None)
@given(
    prompt=st.lists(st.integers(6, VOCAB - 1), min_size=1, max_size=20),
    tree_size=st.integers(0, 40),
    new=st.integers(1, 40),
)
def test_strict_verification_is_greedy_decoding_token_for_token(models, pools, name, prompt, tree_size, new):
    decoder = TreeDecoder(pools[name], tree_size=tree_size, grow=True)
    assert write(models[name], prompt, new, custom_generate=decoder) == write(models[name], prompt, new)


def test_drafts_save_passes_when_the_text_is_in_the_pool(models):
    model, prompt = models["Llama"], [7, 8, 9]
    decoder = TreeDecoder(Pool(VOCAB), grow=True)
    first = write(model, prompt, custom_generate=decoder)
    passes = decoder.counts.passes
    assert write(model, prompt, custom_generate=decoder) == first
    # a pass can write 12 drafted tokens and one more
    assert decoder.counts.passes - passes <= 2 + (len(first) - 3) // 6
    assert decoder.counts.texts == 2
    assert decoder.counts.tokens == 2 * (len(first) - 3)
    assert 0 < decoder.counts.retrieval < decoder.counts.seconds
    assert [token for written in decoder.written for token in written] == first[3:]


def test_relaxed_with_one_token_is_strict_and_with_more_is_deterministic(models):
    model = models["Llama"]
    pool, rng = filled(model), np.random.default_rng(1)
    differ = 0
    for _ in range(6):
        prompt = rng.integers(6, VOCAB, 5).tolist()
        greedy = write(model, prompt)
        assert write(model, prompt, custom_generate=TreeDecoder(pool, verification=Relaxed(1, 0))) == greedy
        relaxed = [
            write(model, prompt, custom_generate=TreeDecoder(pool, verification=Relaxed(5, 0)))
            for _ in range(2)
        ]
        assert relaxed[0] == relaxed[1]
        differ += relaxed[0] != greedy
    assert differ  # else the test says nothing


def test_the_rule_of_relaxed_verification():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4, 1)
    best, row, token = logits.argmax(-1), torch.arange(4), torch.arange(4)
    rules = {(2, 0.1): [1, 1, 0, 0], (2, 0.4): [1, 0, 0, 0], (3, 0.1): [1, 1, 1, 0], (4, 0.9): [1, 0, 0, 0]}
    for (k, p), expected in rules.items():
        assert Relaxed(k, p).accepts(logits, best, row, token).int().tolist() == expected
    assert Strict().accepts(logits, best, row, token).int().tolist() == [1, 0, 0, 0]


def test_relaxed_text_holds_allowed_tokens_only(models):
    model, rule = models["Llama"], Relaxed(3, 0.01)
    decoder = TreeDecoder(filled(model), tree_size=32, verification=rule)
    rng = np.random.default_rng(2)
    other = 0
    for _ in range(6):
        prompt = rng.integers(6, VOCAB, 5).tolist()
        text = write(model, prompt, custom_generate=decoder)
        with torch.inference_mode():
            logits = model(torch.tensor([text])).logits[0, len(prompt) - 1 : -1]
        token = torch.tensor(text[len(prompt) :])
        best = logits.argmax(-1)
        assert rule.accepts(logits, best, torch.arange(len(token)), token).all()
        other += int((best != token).sum())
    assert other


class Holds(StoppingCriteria):
    """Stop after a token."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -1] == self.token


def test_end_tokens_criteria_and_processors_work_as_in_generate(models):
    model, rng = models["Llama"], np.random.default_rng(3)
    pool = filled(model)
    stopped = 0
    for _ in range(5):
        prompt = rng.integers(6, VOCAB, 5).tolist()
        third = write(model, prompt)[7]
        for options in (
            {"eos_token_id": [END, third]},
            {"stopping_criteria": [Holds(third)]},
            {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
            {"min_new_tokens": 20, "eos_token_id": third},
            {"max_length": 30, "max_new_tokens": None},
        ):
            greedy = write(model, prompt, **options)
            assert write(model, prompt, custom_generate=TreeDecoder(pool), **options) == greedy
            stopped += greedy[-1] == third
    assert stopped >= 5


def test_what_cannot_be_decoded_so_is_refused_in_one_sentence(models):
    model, decoder = models["Llama"], TreeDecoder(Pool(VOCAB))
    for options, reason in (
        ({"do_sample": True}, "greedy"),
        ({"num_beams": 2}, "greedy"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate"),
        ({"cache_implementation": "static"}, "dynamic cache"),
        ({"use_cache": False}, "dynamic cache"),
        ({"attention_mask": torch.tensor([[0, 1, 1]])}, "padded"),
    ):
        with pytest.raises(UserError, match=reason):
            write(model, [6, 7, 8], custom_generate=decoder, **options)
    with pytest.raises(UserError, match="one prompt at a time, not 2"):
        model.generate(torch.tensor([[6, 7], [8, 9]]), max_new_tokens=5, custom_generate=decoder)
    with pytest.raises(UserError, match="vocabulary has 61"):
        write(model, [6, 7], custom_generate=TreeDecoder(Pool(99)))
    for wrong in ({"tree_size": -1}, {"grow": True}):
        with pytest.raises(UserError, match="parameter"):
            TreeDecoder(None, **wrong)
    with pytest.raises(UserError, match="k must be at least 1"):
        Relaxed(0)
