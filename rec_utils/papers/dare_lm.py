"""The small language models that DARE decodes with, trained on the bundled knowledge.

`texts` makes pairs of a short prompt and an answer from the stored requests, half of them *old* (the models
learn from them, and the retrieval pool is about them) and half *new* (prompts to decode). The *target* is a
Llama of half a million parameters with a byte-level BPE of its own; the *assistant*, with the same tokens,
drafts for it where speculative decoding with a second model is compared. Both are shipped, and trained
again by `python -m rec_utils.papers.dare_lm train`.

They stand in for the 7B models of the paper, and poorly: they string together phrases of the texts they saw,
repeat themselves and make up words.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from data_prep import catalog
from rec_utils import settings
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.knowledge import movies
from rec_utils.papers.dare_groups import by_attribute
from rec_utils.progress import bar

BUNDLED = settings.BUNDLED
DATA_SET = "dare_lm"  #: name in the catalog, and folder under `BUNDLED`
COMMAND = "python -m rec_utils.papers.dare_lm train"

HISTORY_SHOWN = 5  #: rated titles in a user's prompt, the last ones of the stored request
VOCABULARY = 2048  #: twice as many would mostly be too rare to learn
CONTEXT = 512  #: tokens of prompt and answer together
PAD, END = "<pad>", "<end>"


@dataclass(frozen=True)
class Recipe:
    """Size and training of a model; attention heads are 32 wide."""

    width: int
    layers: int
    kv_heads: int
    inner: int  #: width of the feed-forward layers
    epochs: int
    batch_size: int = 2  #: texts
    lr: float = 4e-3  #: of AdamW, after a warm-up over 5 % of the steps; then a cosine to 0
    weight_decay: float = 0.1
    n_held_out: int = 200  #: new texts whose loss is taken after every epoch


RECIPES = {
    "target": Recipe(width=96, layers=3, kv_heads=1, inner=256, epochs=6),
    "assistant": Recipe(width=64, layers=1, kv_heads=1, inner=128, epochs=2),
}


# Texts


def texts(seed: int = 0) -> pd.DataFrame:
    """The bundled knowledge as prompts and answers, one row a film or user.

    Columns: kind ("item" or "user"), id (IMDb id or user id of ml-latest-small, as text), genres ("A|B", of
    items), group (attribute group of items as in `dare_groups.by_attribute`, -1 for users), prompt, answer
    and part. A random half of each group is "old", the rest "new", as in DARE's code; `seed` draws it, and
    the shipped models have learnt from that of seed 0.

    The prompt is what the stored request says without its long system text: title and genres of a film; of
    a user's history the last 5 titles with stars, so that a prompt stays below some 100 tokens. It ends in
    a line break.
    """
    items = [
        ("item", imdb, answer.request.prompt.rpartition("\nGenres: ")[2], answer.request.prompt, answer.text)
        for imdb, answer in movies.item_answers().items()
    ]
    users = [
        ("user", str(user), "", "; ".join(answer.request.prompt.split("; ")[-HISTORY_SHOWN:]), answer.text)
        for user, answer in movies.user_answers().items()
    ]
    table = pd.DataFrame(items + users, columns=["kind", "id", "genres", "prompt", "answer"])
    table["prompt"] += "\n"
    table.insert(3, "group", np.where(table["kind"] == "item", by_attribute(table), -1))
    draw = pd.Series(np.random.default_rng(seed).random(len(table)))
    old = draw.groupby(table["group"]).rank(pct=True) <= 0.5
    return table.assign(part=np.where(old, "old", "new"))


def make_tokenizer(table: pd.DataFrame) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 2,048 tokens learnt from the old texts; it has an end and a padding token."""
    old = table[table["part"] == "old"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator([*old["prompt"], *old["answer"]], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        model_max_length=CONTEXT,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


# Training


@dataclass(frozen=True)
class Sequences:
    """Prompt, answer and end token of each text, one after the other, and where the answer begins."""

    tokens: list[Tensor]
    n_prompt: Tensor  #: [N]
    pad: int

    @classmethod
    def of(cls, table: pd.DataFrame, tokenizer: PreTrainedTokenizerFast) -> Sequences:
        """The rows of a table as from `texts`; longer ones than the context are cut off."""
        prompts = tokenizer(table["prompt"].tolist())["input_ids"]
        answers = tokenizer(table["answer"].tolist())["input_ids"]
        joined = [
            torch.tensor([*prompt, *answer, tokenizer.eos_token_id][:CONTEXT])
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return cls(joined, torch.tensor([len(prompt) for prompt in prompts]), tokenizer.pad_token_id)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens [B, T], padded at the end, and the mask [B, T] of answers; texts of like length together.

        Padding behind a text needs no attention mask: no earlier token looks at it.
        """
        order = rng.permutation(len(self.tokens))
        lengths = np.array([len(tokens) for tokens in self.tokens])
        order = order[np.argsort(lengths[order], kind="stable")]
        for rows in rng.permutation(np.arange(0, len(order), size))[:, None] + np.arange(size):
            chosen = torch.from_numpy(order[rows[rows < len(order)]])
            tokens = pad_sequence([self.tokens[row] for row in chosen], True, self.pad)
            place = torch.arange(tokens.shape[1])
            end = torch.from_numpy(lengths)[chosen]
            yield tokens, (place >= self.n_prompt[chosen, None]) & (place < end[:, None])


def answer_loss(model: LlamaForCausalLM, tokens: Tensor, is_answer: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the answers' tokens, the end token included, given all before them."""
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    return cross_entropy(model.lm_head(hidden[is_answer[:, 1:]]), tokens[:, 1:][is_answer[:, 1:]])


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, sequences: Sequences) -> float:
    """`answer_loss` over all tokens of the answers."""
    total = count = 0
    for tokens, is_answer in sequences.batches(32, np.random.default_rng(0)):
        total += answer_loss(model, tokens, is_answer).item() * int(is_answer.sum())
        count += int(is_answer.sum())
    return total / count


def train(
    table: pd.DataFrame, seed: int = 0, recipe: Recipe = RECIPES["target"], progress: bool | str = True
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, pd.DataFrame]:
    """Train a model from scratch on the old texts of a table as from `texts`, on the CPU.

    The loss is that of the answers alone; prompts are read, not learnt. The weights returned are rounded to
    float16 numbers, so that they are the same after `save` and `load`. The same table, seed and recipe give
    the same model, bit for bit on one thread, and torch's global generator is left as it was.

    Returns:
        The model in evaluation mode, its tokeniser, and a log of every step: step, epoch, loss (of the
        batch, nats a token), lr, seconds since the start, and at the end of an epoch held_out_loss.

    Raises:
        UserError: a part of the table is empty.
    """
    old, new = (table[table["part"] == part] for part in ("old", "new"))
    if old.empty or new.empty:
        raise UserError(
            f"the table has {len(old)} old texts to learn from and {len(new)} new ones to test on"
        )
    tokenizer = make_tokenizer(table)
    rng = np.random.default_rng(seed)
    held_out = Sequences.of(new.sample(min(recipe.n_held_out, len(new)), random_state=seed), tokenizer)
    sequences = Sequences.of(old, tokenizer)
    model = _untrained(recipe, tokenizer, seed).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    n_steps = recipe.epochs * math.ceil(len(old) / recipe.batch_size)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(0.05 * n_steps), n_steps)
    label = progress if isinstance(progress, str) else "language model"
    log, start = [], time.perf_counter()
    with bar(bool(progress), total=n_steps, desc=label, unit="step") as steps_bar:
        for epoch in range(1, recipe.epochs + 1):
            for tokens, is_answer in sequences.batches(recipe.batch_size, rng):
                loss = answer_loss(model, tokens, is_answer)
                loss.backward()
                clip_grad_norm_(model.parameters(), 1.0)
                row = {"step": len(log) + 1, "epoch": epoch, "loss": loss.item()}
                log.append(row | {"lr": schedule.get_last_lr()[0], "seconds": time.perf_counter() - start})
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                steps_bar.update()
            log[-1]["held_out_loss"] = held_out_loss(model, held_out)
            steps_bar.set_postfix(epoch=epoch, held_out_loss=f"{log[-1]['held_out_loss']:.3f}")
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())
    return model.eval(), tokenizer, pd.DataFrame(log)


def _untrained(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.width // 32,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LlamaForCausalLM(config)


# The shipped models


def save(name: str, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, log: pd.DataFrame) -> None:
    """Write model (float16), tokeniser and log into their folder, each file whole or not at all.

    `load` refuses the files until the catalog has their hashes, see `rehash`.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy.deepcopy(model).half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        log.to_csv(Path(folder) / "log.csv", index=False, float_format="%.5g")
        for file in sorted(Path(folder).iterdir()):
            write_atomic(BUNDLED / DATA_SET / name / file.name, file.read_bytes())


def rehash() -> None:
    """Put sizes and hashes of the present files into the catalog."""
    text = catalog.CATALOG.read_text(encoding="utf-8")
    lines = catalog.catalog_lines(BUNDLED / DATA_SET, BUNDLED) + "\n"
    text = re.sub(rf"(    - {{path: {DATA_SET}/.*\n)+", lambda _: lines, text)
    write_atomic(catalog.CATALOG, text)
    catalog.load.cache_clear()


def load(name: str = "target") -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, pd.DataFrame]:
    """A shipped model ("target" or "assistant") as `train` returned it: model, tokeniser, log.

    Raises:
        UserError: a file is missing or not the one in the catalog.
    """
    settings.check_choice("model", name, list(RECIPES))
    folder = BUNDLED / DATA_SET / name
    for file in catalog.entry(DATA_SET).bundled:
        if (BUNDLED / file.path).parent == folder:
            try:
                file.check(BUNDLED / file.path)
            except UserError as error:
                raise UserError(f"{error}; restore it, or make all files again by `{COMMAND}`") from None
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return model.eval(), tokenizer, pd.read_csv(folder / "log.csv")


def main() -> None:
    """Train both models, then write them, their logs and their hashes."""
    example = f"example: OMP_NUM_THREADS=1 {COMMAND} --seed 0"
    parser = argparse.ArgumentParser(
        prog="python -m rec_utils.papers.dare_lm",
        description="The small language models of the DARE notebook, trained on the bundled knowledge.",
        epilog=example,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summary = "train both models again, in five minutes, and replace the shipped ones"
    command = commands.add_parser("train", help=summary, description=summary, epilog=example)
    command.add_argument("--seed", type=int, default=0, help="of weights and order of texts (default: 0)")
    seed = parser.parse_args().seed
    table = texts()
    trained = {name: train(table, seed, recipe, name) for name, recipe in RECIPES.items()}
    for name, (model, tokenizer, log) in trained.items():
        save(name, model, tokenizer, log)
        loss = log["held_out_loss"].iloc[-1]
        print(f"{name}: {model.num_parameters():,} parameters, held-out loss {loss:.3f} nats a token")
    rehash()


if __name__ == "__main__":
    sys.exit(run_cli(main))
