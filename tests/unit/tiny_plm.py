"""Tiny masked language models with random weights, and tokenizers for them."""

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizerFast,
)

from rec_utils.knowledge.encoder import minilm_folder
from rec_utils.papers.clickprompt_text import compact, text_samples

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.5,  # large, so that a wrong input shows
}


def tokenizer(kind, folder):
    """MiniLM's WordPiece for "bert"; for "roberta" a byte-level BPE that knows a few of the words."""
    if kind == "bert":
        return AutoTokenizer.from_pretrained(minilm_folder())
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    text = ["User ID is 1. Movie ID is 2. Title is Film 3. Film genre is Drama."] * 9
    bpe.train_from_iterator(text, vocab_size=300, min_frequency=2, special_tokens=special)
    bpe.save_model(str(folder))
    return RobertaTokenizerFast.from_pretrained(folder)


def whole(kind, task, folder):
    """(masked language model, samples with texts) in the tokenizer's vocabulary."""
    words = tokenizer(kind, folder)
    shape = SHAPE | {"vocab_size": len(words), "pad_token_id": words.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "bert":
            plm = BertForMaskedLM(BertConfig(**shape))
        else:
            plm = RobertaForMaskedLM(RobertaConfig(**shape))
    return plm.eval(), text_samples(task, words)


def tiny(kind, task, folder):
    """The same in a vocabulary of the task's own tokens."""
    return compact(*whole(kind, task, folder))
