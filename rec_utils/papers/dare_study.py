"""Measuring decoders side by side: the same prompts, in turns, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rec_utils.decoding import Counts, Pool, TreeDecoder
from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.request import Request
from rec_utils.papers import reki_released
from rec_utils.papers.dare import steps_to_write
from rec_utils.progress import bar
from rec_utils.timing import clock, one_thread

#: From the number of a prompt to the token ids written after it.
Way: TypeAlias = Callable[[int], list[int]]


def write(model: PreTrainedModel, prompt: Sequence[int], new_tokens: int, **options: Any) -> list[int]:
    """Token ids that `generate` writes greedily after a prompt, the end token included.

    `options` go to `generate`, such as `custom_generate` or `assistant_model`.
    """
    ids = torch.tensor([prompt], device=model.device)
    written = model.generate(ids, max_new_tokens=new_tokens, do_sample=False, **options)
    return written[0, len(prompt) :].tolist()


def write_all(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    decoders: Sequence[TreeDecoder],
    progress: bool | str = False,
) -> list[list[int]]:
    """What a model writes after each prompt with the decoder at the same place, on one torch thread."""
    label, texts = progress if isinstance(progress, str) else "", []
    with one_thread(), bar(bool(progress), total=len(prompts), desc=label) as shown:
        for prompt, decoder in zip(prompts, decoders, strict=True):
            texts.append(write(model, prompt, new_tokens, custom_generate=decoder))
            shown.update()
    return texts


def race(ways: Mapping[Hashable, Way], n_prompts: int, repeats: int, seed: int = 0) -> pd.DataFrame:
    """Let every way write after every prompt, in a new order each time, on one torch thread.

    A slow spell of the machine so meets all ways. Each way writes once unmeasured first.

    Args:
        ways: name -> writer; what it writes must not depend on how often it was called.
        n_prompts: their number.
        repeats: rounds.
        seed: of the orders.

    Returns:
        One row a prompt and way: prompt, way, tokens, seconds (median of the rounds), spread (largest over
        smallest), text (token ids of the last round).
    """
    rng, names = np.random.default_rng(seed), list(ways)
    seconds = np.empty((repeats, n_prompts, len(names)))
    texts: dict[tuple[int, Hashable], list[int]] = {}
    with one_thread(), bar(True, total=repeats * n_prompts, desc="race") as shown:
        for name in names:
            ways[name](0)
        for at_round in seconds:
            for prompt in rng.permutation(n_prompts):
                for k in rng.permutation(len(names)):
                    start = clock()
                    texts[prompt, names[k]] = ways[names[k]](prompt)
                    at_round[prompt, k] = clock() - start
                shown.update()
    median, spread = np.median(seconds, axis=0), seconds.max(axis=0) / seconds.min(axis=0)
    return pd.DataFrame(
        {
            "prompt": prompt,
            "way": name,
            "tokens": len(texts[prompt, name]),
            "seconds": median[prompt, k],
            "spread": spread[prompt, k],
            "text": texts[prompt, name],
        }
        for prompt in range(n_prompts)
        for k, name in enumerate(names)
    )


def rates(counts: Counts) -> dict[str, float]:
    """Tokens and drafted tokens a pass, ms a token and a draft, and the share of time for retrieval."""
    return {
        "tokens a pass": counts.tokens / counts.passes,
        "drafted a pass": counts.drafted / counts.passes,
        "ms a token": 1000 * counts.seconds / counts.tokens,
        "ms a draft": 1000 * counts.retrieval / counts.passes,
        "retrieval": counts.retrieval / counts.seconds,
    }


def as_requests(prompts: pd.DataFrame, new_tokens: int) -> list[Request]:
    """Requests for the knowledge layer; `prompts` has columns prompt and pool, which is their purpose."""
    budget = {"max_new_tokens": new_tokens}
    return [Request(row.pool, "", row.prompt.strip(), budget) for row in prompts.itertuples()]


def store_seconds(
    lm: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    requests: Sequence[Request],
    ways: Mapping[str, Mapping[str, Any]],
) -> dict[str, float]:
    """Seconds in which the knowledge layer's back-end answers all requests, on one torch thread.

    Args:
        lm: model and tokeniser.
        requests: to be answered.
        ways: name -> settings of `HuggingFaceBackend`; its start counts, loading the model does not.
    """
    seconds = {}
    with one_thread():
        for name, settings in {"warm-up": {"batch_size": 1}, **ways}.items():
            start = time.perf_counter()
            backend = HuggingFaceBackend(lm, name="own", **settings)
            generate(requests[:1] if name == "warm-up" else requests, None, backend, progress=False)
            seconds[name] = time.perf_counter() - start
    return {name: seconds[name] for name in ways}


# Real texts, without a model


def released_answers(seed: int = 0) -> pd.DataFrame:
    """REKI's released answers of GPT-3.5: corpus, group (data set and side), answer, and part at random.

    Raises:
        UserError: the files are not here.
    """
    parts = []
    for dataset, side in product(reki_released.DATASETS, reki_released.SIDES):
        answers = reki_released.read_groups(dataset, side).answers["answer"]
        parts.append(pd.DataFrame({"group": f"{dataset} {side}", "answer": answers}))
    table = pd.concat(parts, ignore_index=True).assign(corpus="released answers", prompt="")
    draw = pd.Series(np.random.default_rng(seed).random(len(table)))
    return table.assign(part=np.where(draw.groupby(table["group"]).rank(pct=True) <= 0.5, "old", "new"))


def count_passes(
    table: pd.DataFrame,
    vocab_size: int,
    n_tested: int,
    tree_sizes: Mapping[str, Sequence[int]],
    seed: int = 0,
) -> pd.DataFrame:
    """Passes that strict verification takes to write new texts, with several pools of old ones.

    Args:
        table: corpus, group, part ("old" or "new") and tokens (ids up to the end token) of each text.
        vocab_size: of the tokens.
        n_tested: new texts of each corpus, drawn by `seed`.
        tree_sizes: the sizes of the drafts by the name of the pool: "own text" (an empty pool), "own group",
            "random" (as many old texts of the corpus as the own group has), "other groups" and "all" (all
            old texts of all corpora).

    Returns:
        One row a text, pool and size: corpus, group, pool, tree, text (row of `table`), tokens, passes.
    """
    rng, rows = np.random.default_rng(seed), []
    old, new = (table[table["part"] == part] for part in ("old", "new"))
    everything = _pool(old, vocab_size)
    for corpus, of_corpus in new.groupby("corpus", sort=False):
        known = old[old["corpus"] == corpus]
        tested = of_corpus.sample(min(n_tested, len(of_corpus)), random_state=seed)
        for group, texts in tested.groupby("group"):
            own = known["group"] == group
            pools = {"own text": Pool(vocab_size), "own group": _pool(known[own], vocab_size)}
            pools["random"] = _pool(known.iloc[rng.permutation(len(known))[: own.sum()]], vocab_size)
            pools["other groups"] = _pool(known[~own], vocab_size)
            pools["all"] = everything
            rows += [
                (corpus, group, name, size, text, len(tokens), steps_to_write(tokens, pools[name], size))
                for name, sizes in tree_sizes.items()
                for size in sizes
                for text, tokens in texts["tokens"].items()
            ]
    return pd.DataFrame(rows, columns=["corpus", "group", "pool", "tree", "text", "tokens", "passes"])


def tokens_a_pass(passes: pd.DataFrame, *by: str) -> pd.Series:
    """Tokens over passes of the rows of `count_passes` that agree in the columns `by`."""
    total = passes.groupby([*by])[["tokens", "passes"]].sum()
    return (total["tokens"] / total["passes"]).rename("tokens a pass")


def _pool(texts: pd.DataFrame, vocab_size: int) -> Pool:
    pool = Pool(vocab_size)
    pool.extend(texts["tokens"])
    return pool


# The size of the pool


def mixed_texts(texts: Sequence[Sequence[int]], n: int, stop: int, seed: int = 0) -> list[list[int]]:
    """`n` texts of sentences drawn from many texts, to time a pool that is larger than what we have.

    Args:
        texts: token ids.
        n: texts wanted, each of 5 sentences.
        stop: the token that ends a sentence.
        seed: of the draw.
    """
    rng, sentences = np.random.default_rng(seed), []
    for text in texts:
        ids = np.asarray(text)
        sentences += [part.tolist() for part in np.split(ids, np.flatnonzero(ids == stop) + 1) if len(part)]
    chosen = rng.integers(len(sentences), size=(n, 5)).tolist()
    return [[token for i in row for token in sentences[i]] for row in chosen]
