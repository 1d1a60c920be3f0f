"""What it costs to ask a language model while a user waits, which KAR avoids by storing the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rec_utils.knowledge.encoder import minilm_folder


def small_model_call(
    prompts: Sequence[str], new_tokens: int, *, layers: int = 4, width: int = 256
) -> tuple[Callable[[], Tensor], int]:
    """A call that writes `new_tokens` tokens after each prompt in one batch, and the model's parameters.

    The model has the Llama architecture and random weights: what it writes means nothing, but the time it
    takes is that of a trained model of this size. Decoding is greedy, with a cache of keys and values.

    Args:
        prompts: of like length; shorter ones are padded.
        new_tokens: written for every prompt.
        layers: of the model.
        width: of the model, a multiple of 64.
    """
    # the limit is the encoder's, not this model's
    tokenizer = AutoTokenizer.from_pretrained(
        minilm_folder(), padding_side="left", model_max_length=10**9, trust_remote_code=False
    )
    tokens = tokenizer(list(prompts), padding=True, return_tensors="pt")
    longest = tokens["input_ids"].shape[1] + new_tokens
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=longest,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()

    def call() -> Tensor:
        """Token ids [n, prompt + new_tokens]."""
        return model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
        )

    return call, sum(parameter.numel() for parameter in model.parameters())
