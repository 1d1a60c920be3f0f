"""How much faster than transformers' `generate` is writing with a pool, what does a pass over a draft cost?

*The race.* The bundled small language model writes about films that neither it nor the pool has seen. Ours is
the tree decoder with strict verification and, for each group of films, a pool of the model's own old answers;
against it run three greedy ways of transformers' `generate`: as it is, with a static cache, and with prompt
lookup. All write the same tokens, and take turns. Goal: the time of each is at least 1.5 times ours, as a
median over prompts.

*Passes.* A pass of a language model over a text of 256 tokens and a draft of 1 to 64 takes longer than one
over a single token: how much longer depends on the model's size and on the machine, not on the weights,
which are random here. The tokens that a pass writes depend on the text, not on the model: they are counted
on real answers of large language models (the bundled ones, and REKI's released ones where they are built),
with a pool of old answers of their group and strict verification. The ratio of both is the speed-up that
such a model would have on such texts. Passes of all drafts take turns.

examples:
  python -m tests.bench.decoding                                  ten minutes on one core
  python -m tests.bench.decoding --models tiny --rounds 20 --texts 10 --prompts 2
  python -m tests.bench.decoding --device cuda --models large huge --record decoding_gpu
  python -m tests.bench.decoding --record decoding                and write figures/bench/decoding.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from rec_utils import machine
from rec_utils.decoding import Pool, Tree
from rec_utils.decoding.decoder import Passes
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.papers import dare, dare_lm, dare_study
from rec_utils.papers.dare import steps_to_write
from rec_utils.settings import output_dir
from tests.bench.training import positive

#: name -> width, layers
MODELS = {"tiny": (128, 4), "small": (512, 8), "medium": (768, 12), "large": (1536, 24), "huge": (2048, 24)}
DRAFTS = (0, 4, 8, 16, 32, 64)
CONTEXT, VOCABULARY = 256, 8192
#: The race: old answers in the pools for each prompt raced, tokens written, rounds, the goal.
OLD, NEW_TOKENS, REPEATS, AT_LEAST = 16, 128, 3, 1.5


def chain(n: int) -> Tree:
    """A draft of n tokens in branches of at most 12."""
    place = np.arange(n)
    sees = (place[:, None] >= place) & (place[:, None] // 12 == place // 12)
    parent = np.where(place % 12 == 0, -1, place - 1)
    return Tree(place, place % 12, parent, sees, np.ones(n, np.int64))


def timed_pass(model: LlamaForCausalLM, prompt: torch.Tensor, n: int) -> Callable[[], float]:
    """A call that runs a pass over a draft of n tokens, none of them accepted, and gives its seconds."""
    passes, tree = Passes(model), chain(n)
    passes.read(prompt)

    def call() -> float:
        start = time.perf_counter()
        passes.verify(1, tree).argmax(-1).cpu()  # the copy waits for the device
        seconds = time.perf_counter() - start
        passes.keep(np.arange(0))
        return seconds

    return call


@torch.inference_mode()
def pass_costs(name: str, rounds: int, device: str) -> list[dict[str, Any]]:
    """Milliseconds of a pass for every size of the draft."""
    width, layers = MODELS[name]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=2 * CONTEXT,
    )
    model = LlamaForCausalLM(config).to(device, torch.float32 if device == "cpu" else torch.bfloat16).eval()
    prompt = torch.randint(VOCABULARY, (1, CONTEXT), generator=torch.Generator().manual_seed(0))
    calls = [timed_pass(model, prompt, n) for n in DRAFTS]
    rng, seconds = np.random.default_rng(0), np.empty((rounds, len(DRAFTS)))
    for row in tqdm(seconds, desc=name):
        for k in rng.permutation(len(DRAFTS)):
            row[k] = calls[k]()
    median = np.median(seconds[len(seconds) // 4 :], axis=0)  # the first quarter warms up
    size = model.num_parameters()
    return [
        {"model": name, "parameters": size, "draft": n, "ms": 1000 * m, "over one token": m / median[0]}
        for n, m in zip(DRAFTS, median.tolist(), strict=True)
    ]


def race(n_prompts: int) -> dict[str, Any]:
    """Milliseconds a token of every way at each prompt, and the goals."""
    model, tokenizer, _ = dare_lm.load()
    table, size = dare_lm.texts(), model.config.vocab_size
    films = table[table["kind"] == "item"]
    old, new = (
        films[films["part"] == part].sample(n, random_state=0)
        for part, n in (("old", OLD * n_prompts), ("new", n_prompts))
    )
    asked, prompts = (tokenizer(rows["prompt"].tolist())["input_ids"] for rows in (old, new))
    growing = dare.decoders({-1: Pool(size)}, old["group"], grow=True)
    answers = dare_study.write_all(model, asked, NEW_TOKENS, growing, "old answers")
    drafting = dare.decoders(dare.pools(answers, old["group"].tolist(), size), new["group"])
    options = {
        "generate": {},
        "static cache": {"cache_implementation": "static", "disable_compile": True},
        "prompt lookup": {"prompt_lookup_num_tokens": 10, "max_matching_ngram_size": 2},
    }

    def way(options: Callable[[int], dict[str, Any]]) -> dare_study.Way:
        return lambda i: dare_study.write(model, prompts[i], NEW_TOKENS, **options(i))

    ways = {name: way(lambda _, given=given: given) for name, given in options.items()}
    ways["ours"] = way(lambda i: {"custom_generate": drafting[i]})
    raced = dare_study.race(ways, n_prompts, REPEATS)
    raced["ms"] = 1000 * raced["seconds"] / raced["tokens"]
    ms = raced.pivot(index="prompt", columns="way", values="ms")
    texts = raced.pivot(index="prompt", columns="way", values="text")
    return {
        "prompts": n_prompts,
        "repeats": REPEATS,
        "parameters": model.num_parameters(),
        "texts as generate": int((texts["ours"] == texts["generate"]).sum()),
        "ms a token": ms.to_dict("list"),
        "goals": [judge(name, ms[name] / ms["ours"]) for name in options],
    }


def judge(name: str, ratios: pd.Series) -> dict[str, Any]:
    """The ratios over prompts of another way's time to ours, against the goal."""
    ratio = ratios.median()
    spread = {"ratio": ratio, "least": ratios.min(), "greatest": ratios.max()}
    return {"way": name, "at_least": AT_LEAST, **spread, "met": bool(ratio >= AT_LEAST)}


def tokens_a_pass(n_texts: int) -> dict[str, dict[int, float]]:
    """Tokens that a pass writes of real answers, by corpus and size of the draft; pools of their group."""
    table = dare_lm.texts()
    items = table[table["kind"] == "item"].assign(corpus="bundled answers about movies")
    corpora = [items]
    try:
        corpora.append(dare_study.released_answers())
    except UserError as error:
        print(f"Without the released answers: {error}")
    found = {}
    for texts in corpora:
        bpe = dare_lm.make_tokenizer(texts)
        texts["tokens"] = [[*ids, bpe.eos_token_id] for ids in bpe(texts["answer"].tolist())["input_ids"]]
        counted = dare_study.count_passes(texts, len(bpe), n_texts, {"own group": DRAFTS})
        found[texts["corpus"].iloc[0]] = dare_study.tokens_a_pass(counted, "tree").to_dict()
    return found


def retrieval(n_texts: int) -> dict[str, float]:
    """Time of a draft from a pool of many texts, and the pool's memory."""
    table = dare_lm.texts()
    bpe = dare_lm.make_tokenizer(table)
    texts = bpe(table["answer"].tolist())["input_ids"]
    pool = Pool(len(bpe))
    pool.extend(dare_study.mixed_texts(texts, n_texts, bpe(".")["input_ids"][-1]))
    tested = texts[:20]
    start = time.perf_counter()
    drafts = sum(steps_to_write(text, pool, 16) for text in tested)
    return {
        "texts": n_texts,
        "tokens": pool.n_tokens,
        "bytes a token": pool.nbytes / pool.n_tokens,
        "ms a draft": 1000 * (time.perf_counter() - start) / drafts,
    }


def main() -> None:
    """Measure, print and perhaps record."""
    summary, _, examples = __doc__.partition("\nexamples:\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.decoding",
        description=summary,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny", "small", "medium"])
    parser.add_argument("--rounds", type=positive, default=60, help="of each model; default: %(default)s")
    parser.add_argument("--texts", type=positive, default=100, help="real texts; default: %(default)s")
    parser.add_argument("--prompts", type=positive, default=12, help="of the race; default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default: %(default)s")
    parser.add_argument("--record", metavar="NAME", help="write figures/bench/NAME.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    raced = race(arguments.prompts)
    for goal in raced["goals"]:
        print(
            f"{goal['way']} / ours = {goal['ratio']:.2f} ({goal['least']:.2f} to {goal['greatest']:.2f}),"
            f" goal >= {goal['at_least']}: {'met' if goal['met'] else 'MISSED'}"
        )
    print(f"{raced['texts as generate']} of {raced['prompts']} texts are those of generate")
    tokens = tokens_a_pass(arguments.texts)
    rows = [row for name in arguments.models for row in pass_costs(name, arguments.rounds, arguments.device)]
    for row in rows:
        for corpus, of_draft in tokens.items():
            row[f"speed-up, {corpus}"] = of_draft[row["draft"]] / row["over one token"]
    pools = [retrieval(n) for n in (1_000, 10_000, 100_000)]
    print(pd.DataFrame(tokens).round(2).to_string())
    print(pd.DataFrame(rows).set_index(["model", "draft"]).round(3).to_string())
    print(pd.DataFrame(pools).round(3).to_string(index=False))
    if arguments.record:
        record = {
            "benchmark": "decoding",
            "race": raced,
            "context": CONTEXT,
            "device": arguments.device,
            "tokens a pass": tokens,
            "passes": rows,
            "pools": pools,
            "hardware": machine.hardware(),
            "versions": machine.versions(),
            "git": machine.git(),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        write_atomic(output_dir() / "bench" / f"{arguments.record}.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_cli(main))
