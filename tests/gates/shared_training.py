"""What test_launch_training trains, as one process or as one of two: python shared_training.py FOLDER."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rec_utils.settings import ROOT

sys.path.insert(0, str(ROOT / "tests" / "unit"))
from test_clickprompt_study import RECIPE, STAGE, TITLES
from test_corella import build, task_and_parts
from test_training import Net, planted, weights
from tiny_plm import tiny
from tiny_ratings import random_dataset

from rec_utils.field_task import field_task
from rec_utils.papers.clickprompt import PAMLM
from rec_utils.papers.clickprompt_study import VARIANTS, fit_variants
from rec_utils.papers.clickprompt_text import SPECIAL
from rec_utils.papers.corella import train_variants
from rec_utils.training import TrainConfig, fit, predict_in_shares

ONCE = replace(
    RECIPE, **{name: replace(STAGE, max_epochs=1) for name in ("pretraining", "finetuning", "alone")}
)

#: Name -> (samples, samples a step): the shares of two processes differ, or one of them is empty.
UNEVEN = {"one sample left": (257, 64), "no sample for one process in each batch": (9, 1), "3 of 5": (28, 5)}


def uneven() -> dict[str, torch.Tensor]:
    """Weights after training on numbers of samples that do not go evenly into batches and processes."""
    samples, _ = planted(n_users=20)
    found = {}
    for name, (n, batch_size) in UNEVEN.items():
        model, part = Net(samples.n_ids), samples.select(torch.arange(n))
        result = fit(model, part, None, TrainConfig(batch_size=batch_size, max_epochs=2), False)
        found[name] = weights(model)
        found[f"{name}: loss"] = torch.tensor([epoch["train_loss"] for epoch in result.epochs])
    one = samples.select(torch.arange(1))
    found["prediction of one sample"] = torch.from_numpy(predict_in_shares(model, one))
    return found


def corella() -> dict[str, np.ndarray]:
    """Predictions of both models after each of the three stages."""
    _, parts = task_and_parts()
    config = TrainConfig(batch_size=13, max_epochs=2, eval_batch_size=8)
    paths, configs = {"CoReLLa": (1, 2, 3)}, dict.fromkeys((1, 2, 3), config)
    trained = train_variants(build(parts), parts, configs, paths, progress=False)["CoReLLa"]
    logs = [[e["train_loss"], e["valid_logloss"], e["distance"]] for e in trained.fits[2].epochs]
    return trained.test._asdict() | {"log of stage 2": np.array(logs)}


def stopped(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights after a training with dropout, and after one that was stopped in epoch 2 and went on."""
    samples, _ = planted(n_users=20)
    whole, cut, resumed = (Net(samples.n_ids, dropout=0.3) for _ in range(3))
    train = partial(fit, train=samples, valid=None, config=TrainConfig(max_epochs=3), progress=False)
    train(whole)
    epochs = iter([{}])
    with suppress(StopIteration):
        train(cut, after_epoch=lambda _: next(epochs), checkpoint=folder / "stopped.pt")
    train(resumed, checkpoint=folder / "stopped.pt")
    return weights(whole), weights(resumed)


def clickprompt(folder: Path) -> dict[str, np.ndarray]:
    """Predictions of all variants; two words of each sample are masked, the same ones in every process.

    In double precision: Adam makes a step of full length also of a gradient that is 0 but for rounding.
    """
    task = field_task(random_dataset(n_users=12, titles=TITLES), "CoReLLa")
    plm, samples = tiny("bert", task, folder)
    samples = replace(samples, ctr=replace(samples.ctr, label=samples.ctr.label.double()))
    with two_words_masked(), doubles():
        plm = plm.double()
        probability, log = fit_variants(samples, plm, task.masks, VARIANTS, ONCE, 3, progress=False)
    return probability | {"masked_loss": log["masked_loss"].dropna().to_numpy()}


@contextmanager
def doubles():
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(kept)


@contextmanager
def two_words_masked():
    def corrupt(model, batch):
        word = batch.field != SPECIAL
        place = word.cumsum(1)
        chosen = word & ((place == 3) | (place == 7))
        return batch.tokens.masked_fill(chosen, model.mask_id), chosen

    kept, PAMLM.corrupt = PAMLM.corrupt, corrupt
    try:
        yield
    finally:
        PAMLM.corrupt = kept


def everything(folder: Path) -> dict[str, dict]:
    torch.set_num_threads(1)
    return {"uneven": uneven(), "corella": corella(), "clickprompt": clickprompt(folder)}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = everything(folder) | {"stopped": stopped(folder)}
    torch.save(found, folder / f"{os.environ['RANK']}.pt")
