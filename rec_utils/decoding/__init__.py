"""Retrieval-based speculative decoding for any decoder-only model of the Hugging Face library.

    pool = Pool(model.config.vocab_size)
    pool.extend(tokenizer(old_texts)["input_ids"])
    model.generate(**tokenizer(prompt, return_tensors="pt"), custom_generate=TreeDecoder(pool))

Drafts are taken from texts that were written before; one pass of the model verifies a tree of them. With
`Strict` verification the output is that of greedy decoding, token for token. Source: Xi et al., DARE
(LASER), arXiv 2408.05676, and its code, which builds on Lookahead (Zhao et al., arXiv 2312.12728).
"""

from rec_utils.decoding.decoder import Counts, Relaxed, Strict, TreeDecoder
from rec_utils.decoding.pool import OwnText, Pool
from rec_utils.decoding.tree import Tree, draft

__all__ = [
    "Counts",
    "OwnText",
    "Pool",
    "Relaxed",
    "Strict",
    "Tree",
    "TreeDecoder",
    "draft",
]
