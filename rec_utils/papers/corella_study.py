"""CoReLLa's table from the settings of its notebook: data, models, three stages, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rec_utils import ctr
from rec_utils.data import load
from rec_utils.field_task import field_task
from rec_utils.papers.corella import CoReLLa, Outcome, Trained, outcomes, train_variants
from rec_utils.papers.corella_lm import HuggingFaceLM, LanguageModel, MiniLM, SmallLlama
from rec_utils.papers.corella_samples import draw_parts
from rec_utils.training import TrainConfig


def language_model(name: str, size: Mapping[str, Any]) -> LanguageModel:
    """ "": a small Llama from scratch; "MiniLM"; or a causal model by its Hugging Face name or folder."""
    if name == "MiniLM":
        return MiniLM(size["blocks"])
    return HuggingFaceLM(name) if name else SmallLlama(size["layers"], size["width"])


def stages(settings: Mapping[str, Any]) -> dict[int, TrainConfig]:
    """The configuration of each stage."""
    first = TrainConfig(
        lr=settings["LR"],
        lr_decay=True,
        max_epochs=settings["EPOCHS"],
        batch_size=settings["BATCH_SIZE"],
        seed=settings["SEED"],
    )
    later = replace(
        first, max_epochs=settings["LM_EPOCHS"], batch_size=settings["LM_BATCH"], eval_batch_size=64
    )
    return {1: first, 2: later, 3: later}


def from_settings(
    settings: Mapping[str, Any], size: Mapping[str, Any], checkpoints: Path, progress: bool = True
) -> tuple[np.ndarray, dict[str, Outcome], dict[str, Trained]]:
    """The method and its ablations, trained along all of `corella.PATHS`.

    Args:
        settings: the notebook's parameters, by name.
        size: sizes of a profile, from the card.
        checkpoints: see `corella.train_variants`.
        progress: whether to show bars.

    Returns:
        Labels [N] of the test samples, `corella.outcomes`, and what they were made from.
    """
    seed, language = settings["SEED"], language_model(settings["LM"], size)
    task = field_task(
        load(size["dataset"]), "CoReLLa", history_length=size["history"], first_users=size["first_users"]
    )
    counts = {name: size[name] for name in ("n_joint", "n_alone", "n_valid", "n_test")}
    parts = draw_parts(task, language.tokens, history_length=size["shown"], seed=seed, **counts)
    crm = ctr.build("DCNv2", parts.train, seed=seed, dropout=settings["DROPOUT"])
    model = CoReLLa(crm, language.scorer(seed), seed=seed)
    trained = train_variants(model, parts, stages(settings), progress=progress, checkpoints=checkpoints)
    rows = outcomes(trained, parts.valid.label.numpy())
    return parts.test.label.numpy(), rows, trained
