"""What is compared in ClickPrompt: its variants, rare users and items, and where the attention goes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel

from rec_utils import ctr
from rec_utils.batches import Samples
from rec_utils.crossfit import fit_row
from rec_utils.data import load
from rec_utils.errors import UserError
from rec_utils.field_task import field_task
from rec_utils.papers.clickprompt import (
    BY_AUC,
    PAMLM,
    ClickPrompt,
    PromptedReader,
    build,
    finetune,
    masked_lm,
    pretrain,
)
from rec_utils.papers.clickprompt_text import TextSamples, compact, text_samples
from rec_utils.settings import check_choice
from rec_utils.splits import Masks
from rec_utils.training import TrainConfig, fit, predict_in_shares


@dataclass(frozen=True)
class Variant:
    """One row of a comparison."""

    fusion: str = "layers"  #: see `clickprompt.FUSIONS`
    pretrained: bool = True  #: by masked words
    with_plm: bool = True  #: whether the language model stays for finetuning and prediction


#: The paper's: both ways of finetuning, its ablations, and each model alone.
VARIANTS: Mapping[str, Variant] = {
    "CTR model": Variant(pretrained=False, with_plm=False),
    "language model": Variant("text", pretrained=False),
    "ClickPrompt": Variant(),
    "ClickPrompt without LM": Variant(with_plm=False),
    "input prompts": Variant("input"),
    "without prompts": Variant("add"),
    "without pretraining": Variant(pretrained=False),
    "without both": Variant("add", pretrained=False),
}


@dataclass(frozen=True)
class Recipe:
    """How the variants of a comparison are trained."""

    backbone: str  #: a name in `ctr.MODELS`
    pretraining: TrainConfig
    finetuning: TrainConfig  #: of variants with a language model
    alone: TrainConfig  #: of the CTR model alone
    plm_lr: float = 5e-5  #: learning rate of the language model in both stages
    n_prompts: int = 5  #: K
    pooling: str = "mean"  #: see `clickprompt.POOLINGS`
    backbone_settings: Mapping[str, Any] = field(default_factory=dict)  #: see `ctr.build`


def fit_variants(
    samples: TextSamples,
    plm: PreTrainedModel,
    masks: Masks,
    variants: Mapping[str, Variant],
    recipe: Recipe,
    seed: int,
    progress: bool = True,
    after_pretraining: Callable[[PromptedReader], object] | None = None,
    checkpoints: Path | None = None,
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Train every variant and predict the test rows.

    Variants that begin with the same pretraining share it. It reads the texts and ids of training and
    validation rows, no labels and no test row. The epoch of finetuning is chosen by validation AUC.
    Under `accelerate launch` the processes share every batch and the rows to predict.

    Args:
        samples: all N samples.
        plm: a masked language model in the vocabulary of `samples`; it stays as it is.
        masks: train, validation, test [N] each.
        variants: by name.
        recipe: how they are trained.
        seed: of initial weights, shuffling, masked words and dropout; takes the place of the recipe's.
        progress: whether to show bars.
        after_pretraining: called with every reader that has just been pretrained, to look at it.
        checkpoints: folder where a stopped training goes on from, in its stage and epoch; see `training.fit`.

    Returns:
        Name -> probabilities of the test rows, in order; and a table with one row a variant: variant, seed,
        best_epoch, validation scores, seconds, pretraining_seconds (0 without) and masked_loss, the mean of
        pretraining's last epoch.
    """
    train, valid, test = masks
    parts = [samples.select(torch.from_numpy(np.flatnonzero(mask))) for mask in (train, valid, test)]
    both = samples.select(torch.from_numpy(np.flatnonzero(train | valid)))
    pretraining, finetuning, alone = (
        replace(stage, seed=seed) for stage in (recipe.pretraining, recipe.finetuning, recipe.alone)
    )

    @cache
    def first_stage(fusion: str, pretrained: bool) -> tuple[PAMLM, dict[str, float]]:
        settings = {"n_prompts": recipe.n_prompts, **recipe.backbone_settings}
        model = build(recipe.backbone, samples, plm, fusion=fusion, seed=seed, **settings)
        if not pretrained:
            return model, {"pretraining_seconds": 0.0, "masked_loss": np.nan}
        label, file = progress and f"masked words: {fusion}", f"pretraining-{fusion}.pt"
        result = pretrain(model, both, pretraining, recipe.plm_lr, label, checkpoints and checkpoints / file)
        if after_pretraining:
            after_pretraining(model.reader)
        return model, {
            "pretraining_seconds": result.seconds,
            "masked_loss": result.epochs[-1]["train_loss"],
        }

    probability, rows = {}, []
    for name, variant in variants.items():
        start, log = first_stage(variant.fusion, variant.pretrained)
        reader, label = copy.deepcopy(start.reader), progress and name
        file = checkpoints and checkpoints / f"{name.replace(' ', '-')}.pt"
        trained: nn.Module
        views: list[Samples]
        if variant.with_plm:
            trained, views = ClickPrompt(reader, pooling=recipe.pooling, seed=seed), [*parts]
            result = finetune(trained, views[0], views[1], finetuning, recipe.plm_lr, label, file)
        elif reader.ctr is None:
            raise UserError(f"variant {name!r} has neither a language model nor a CTR model")
        else:
            trained, views = reader.ctr, [part.ctr for part in parts]
            result = fit(trained, views[0], views[1], alone, label, BY_AUC, checkpoint=file)
        probability[name] = predict_in_shares(trained, views[2], finetuning.eval_batch_size)
        rows.append({"variant": name, "seed": seed} | fit_row(result) | log)
    return probability, pd.DataFrame(rows)


def newest_rows(masks: Masks, n_rows: int | None, n_valid: int | None, seed: int) -> Masks:
    """The split by time with its latest `n_rows` training rows and `n_valid` validation rows drawn at random.

    None keeps all. The test rows stay.
    """
    train, valid, test = masks
    latest = np.flatnonzero(train)[::-1][:n_rows]
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(valid))[:n_valid]
    number = np.arange(len(train))
    return np.isin(number, latest), np.isin(number, drawn), test


def recipe_of(settings: Mapping[str, Any], size: Mapping[str, Any]) -> Recipe:
    """The notebook's, from its parameters by name and the sizes of a profile."""
    alone = TrainConfig(
        settings["LR"],
        batch_size=size["text_batch"],
        max_epochs=size["ctr_epochs"],
        patience=2,
        seed=settings["SEED"],
    )
    stage = replace(alone, lr_decay=True, eval_batch_size=256)
    return Recipe(
        settings["BACKBONE"],
        pretraining=replace(stage, max_epochs=size["pretraining_epochs"]),
        finetuning=replace(stage, max_epochs=size["finetuning_epochs"]),
        alone=alone,
        plm_lr=settings["PLM_LR"],
        n_prompts=settings["PROMPTS"],
        pooling=settings["POOLING"],
    )


def from_settings(
    settings: Mapping[str, Any],
    size: Mapping[str, Any],
    names: Sequence[str],
    checkpoints: Path,
    progress: bool = True,
) -> tuple[np.ndarray, dict[str, np.ndarray], pd.DataFrame]:
    """Experiment 1 of the notebook, for any variants: load the data, train, predict.

    Args:
        settings: the notebook's parameters, by name.
        size: sizes of a profile, from the card.
        names: in `VARIANTS`.
        checkpoints: see `fit_variants`.
        progress: whether to show bars.

    Returns:
        Labels [N] of the test rows; and what `fit_variants` returns.

    Raises:
        UserError: an unknown variant, no language model, or one that cannot be loaded.
    """
    variants = {check_choice("variant", name, list(VARIANTS)): VARIANTS[name] for name in names}
    if settings["PLM"] == "none":
        raise UserError("PLM is 'none', but the variants need a language model")
    seed = settings["SEED"]
    check_choice("BACKBONE", settings["BACKBONE"], list(ctr.MODELS))
    task = field_task(load(size["dataset"]), "ClickPrompt", first_users=size["first_users"])
    plm, tokenizer = masked_lm(settings["PLM"] or size["plm"], layers=size["layers"], seed=seed)
    plm, samples = compact(plm, text_samples(task, tokenizer, size["value_tokens"]))
    recipe = recipe_of(settings, size)
    masks = newest_rows(task.masks, size["rows"], size["valid_rows"], seed)
    fitted = fit_variants(samples, plm, masks, variants, recipe, seed, progress, checkpoints=checkpoints)
    return task.samples.label.numpy()[masks[2]], *fitted


def is_rare(row: np.ndarray, train: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Whether the user (or the item) of each sample is rare in training.

    Rare are the `share` with the fewest training rows among those with any, ties included, and those without.

    Args:
        row: [N] row of each sample's user, or item.
        train: [N] mask of training rows.
        share: 0.1 in the paper.

    Returns:
        bool [N].
    """
    counts = np.bincount(row[train], minlength=row.max() + 1)
    limit = np.quantile(counts[counts > 0], share, method="inverted_cdf")
    return counts[row] <= limit


@torch.no_grad()
def prompt_attention(reader: PromptedReader, samples: TextSamples, batch_size: int = 256) -> pd.DataFrame:
    """How much masked words of each field attend to each prompt.

    The values of one field are masked at a time. The weight is that of the attention from its tokens to a
    prompt, a share of all they attend to, averaged over heads, layers, tokens and samples.

    Args:
        reader: with prompts in its layers, trained or not.
        samples: the samples to look at.
        batch_size: of samples.

    Returns:
        A table with field, prompt (from 1) and weight, fields in the order of the text.

    Raises:
        UserError: the reader has no prompts in its layers.
    """
    if reader.fusion != "layers":
        raise UserError(f"attention to prompts is that of fusion 'layers', not of {reader.fusion!r}")
    samples = samples.to(reader.encoder.device)
    was_training, kernel = reader.training, reader.encoder.config._attn_implementation
    reader.eval().encoder.set_attn_implementation("eager")  # others do not give their weights
    n_fields = len(samples.field_names)
    weight = torch.zeros(n_fields, reader.n_prompts, device=reader.encoder.device)
    n_tokens = torch.zeros(n_fields, 1, device=reader.encoder.device)
    for batch in samples.batches(batch_size):
        for number in range(n_fields):
            chosen = batch.field == number
            out, _ = reader(batch, batch.tokens.masked_fill(chosen, samples.mask_id), output_attentions=True)
            attention = torch.stack(out.attentions)[..., : reader.n_prompts].mean((0, 2))  # [B, Z, K]
            weight[number] += attention[chosen].sum(0)
            n_tokens[number] += chosen.sum()
    reader.train(was_training).encoder.set_attn_implementation(kernel)
    table = pd.DataFrame((weight / n_tokens).cpu().numpy(), columns=range(1, reader.n_prompts + 1))
    table.insert(0, "field", samples.field_names)
    return table.melt("field", var_name="prompt", value_name="weight")
