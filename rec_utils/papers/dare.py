"""DARE (LASER): knowledge is generated faster by drafting it from knowledge that is already there.

Xi et al., *A Decoding Acceleration Framework for Industrial Deployable LLM-based Recommender Systems*
(2408.05676; SIGIR 2025 as *Efficiency Unleashed*), and its code, GitHub YunjiaXi/LASER. Three stages:

1. A *retrieval pool* of old answers for each group of similar users or items (`dare_groups`, `pools`).
2. A *draft tree*: the most frequent continuations of the last two tokens (`rec_utils.decoding.tree`).
3. *Verification* of the tree in one pass of the model, strict or relaxed (`rec_utils.decoding.decoder`).

ReSD, the paper's naive form, has one pool for all and verifies strictly.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from rec_utils.decoding import Counts, OwnText, Pool, Tree, TreeDecoder, draft


def pools(
    texts: Sequence[Sequence[int]], groups: Sequence[Hashable], vocab_size: int
) -> dict[Hashable, Pool]:
    """One pool for each group of texts.

    Args:
        texts: token ids of old answers, each up to its end token.
        groups: the group of every text.
        vocab_size: of the tokens.
    """
    made = {}
    for group in dict.fromkeys(groups):
        made[group] = Pool(vocab_size)
        made[group].extend(text for text, of in zip(texts, groups, strict=True) if of == group)
    return made


def decoders(
    pools: Mapping[Hashable, Pool], groups: Sequence[Hashable], **settings: Any
) -> list[TreeDecoder]:
    """The decoder of each prompt by its group; prompts of a group share one.

    A group without a pool, since it has no old text, starts with an empty one. `settings` are those of
    `TreeDecoder`, such as the verification.
    """
    some = next(iter(pools.values()))
    empty = {group: Pool(some.vocab_size, branch=some.branch) for group in groups if group not in pools}
    made = {group: TreeDecoder(pool, **settings) for group, pool in {**pools, **empty}.items()}
    return [made[group] for group in groups]


def counts(decoders: Iterable[TreeDecoder]) -> Counts:
    """What all decoders together did; one that serves several prompts counts once."""
    each = [decoder.counts for decoder in dict.fromkeys(decoders)]
    return Counts(*(sum(getattr(one, field.name) for one in each) for field in fields(Counts)))


def steps_to_write(text: Sequence[int], pool: Pool, tree_size: int, prompt: Sequence[int] = ()) -> int:
    """Passes of a model that a text would take if it were the model's greedy answer.

    No model computes anything: the text itself says which drafted tokens a strict verification accepts.
    A pass writes the accepted tokens and one more; the first, which reads the prompt, has no draft.

    Args:
        text: token ids, up to the end token.
        pool: to draft from, besides the prompt and the text up to the pass.
        tree_size: drafted tokens a pass.
        prompt: token ids before the text.
    """
    text, own = np.asarray(text), OwnText(prompt, pool.vocab_size, pool.branch)
    passes, done = 0, 0
    tree = Tree.empty()
    while done < len(text):
        right = tree.tokens == text[done + tree.depth]
        whole = ~(tree.sees & ~right).any(axis=1)
        new = text[done : done + 2 + tree.depth[whole].max(initial=-1)]
        own.write(new.tolist())
        passes, done = passes + 1, done + len(new)
        tree = draft(own, pool, tree_size, min(pool.branch, len(text) - done - 1))
    return passes
