"""What each term of DiFashion's guidance adds, on digits.

`train` makes the generator, `pictures` completes outfits with each set of terms, and `judged` says how often
digit, user and ground of the new pictures are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rec_utils.papers.diffusion.difashion import DiFashion, Guidance
from rec_utils.papers.diffusion.digits import SIDE, Judge, Outfits, outfits
from rec_utils.settings import check_choice
from rec_utils.training import FitResult, Objective, TrainConfig, fit

STRENGTH = Guidance()
#: Which items of an outfit are made: the first, as in "fill in the blank", or all of them.
TASKS = ("one", "all")


def terms(strength: Guidance = STRENGTH) -> dict[str, Guidance]:
    """The guidance with its terms switched on, none, each alone, two and all."""
    c, m, h = strength.category, strength.mutual, strength.history
    return {
        "none": Guidance(0, 0, 0),
        "category": Guidance(c, 0, 0),
        "mutual": Guidance(0, m, 0),
        "history": Guidance(0, 0, h),
        "category + mutual": Guidance(c, m, 0),
        "category + history": Guidance(c, 0, h),
        "all three": Guidance(c, m, h),
    }


def train(
    n_outfits: int = 4000, *, epochs: int = 30, seed: int = 0, progress: bool | str = False, **settings: float
) -> tuple[DiFashion, FitResult]:
    """A generator trained on outfits of the training pictures; `settings` are those of `DiFashion`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = DiFashion(**settings)
    config = TrainConfig(lr=2e-3, lr_decay=True, batch_size=32, max_epochs=epochs, seed=seed)
    objective = Objective(lambda loss, _: loss.mean())
    log = fit(model, outfits(n_outfits, "train", seed), None, config, progress, objective)
    return model.cpu().eval(), log


def blanks(n: int, task: str) -> Tensor:
    """Which items of n outfits are made [n, 4], for a task in `TASKS`."""
    check_choice("task", task, TASKS)
    blank = torch.zeros(n, 4, dtype=torch.bool)
    blank[:, : 1 if task == "one" else 4] = True
    return blank


def pictures(
    model: DiFashion,
    test: Outfits,
    guidances: Mapping[str, Guidance],
    *,
    task: str = "one",
    steps: int = 25,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Pictures [n, 4, 64] of all outfits: the real ones as "real", and completed with each guidance.

    Args:
        model: a trained generator.
        test: the outfits.
        guidances: name -> strengths, such as `terms()`.
        task: "one" or "all" items are made.
        steps: of sampling.
        seed: of the noise, the same for each guidance.
    """
    batch, blank = test.batch(torch.arange(len(test))), blanks(len(test), task)
    made = {
        name: model.generate(batch, blank, guidance, steps=steps, seed=seed)
        for name, guidance in guidances.items()
    }
    return {"real": batch.image} | made


def drawing(model: DiFashion, test: Outfits, *, steps: int = 25) -> Callable[..., np.ndarray]:
    """A function (outfit, category=, mutual=, history=) -> its four pictures [4, 8, 8], the first drawn anew.

    The noise depends on nothing, so that strengths can be compared.
    """

    def draw(outfit: int, **strength: float) -> np.ndarray:
        batch = test.batch(torch.tensor([outfit]))
        image = model.generate(batch, blanks(1, "one"), Guidance(**strength), steps=steps, seed=0)
        return image[0].unflatten(1, (SIDE, SIDE)).numpy()

    return draw


def judged(judge: Judge, test: Outfits, images: Mapping[str, Tensor], *, task: str = "one") -> pd.DataFrame:
    """Share of the new pictures of every outfit that are right in digit, user and ground.

    Args:
        judge: classifiers, best trained on other outfits than the generator's.
        test: the outfits.
        images: name -> [n, 4, 64], as from `pictures`.
        task: which pictures are new.

    Returns:
        One row a name and outfit: guidance, outfit, digit, user, ground; and matching: whether all four
        pictures of the outfit have one ground, be it the one asked for or not.
    """
    batch, new = test.batch(torch.arange(len(test))), blanks(len(test), task).numpy()
    rows = []
    for name, image in images.items():
        right = judge.right(image, batch)
        share = {key: (found * new).sum(1) / new.sum(1) for key, found in right.items()}
        same = np.isin(right["ground"].sum(1), (0, new.shape[1]))
        outfit = {"guidance": name, "outfit": batch.label.numpy()}
        rows.append(pd.DataFrame(outfit | share | {"matching": same.astype(float)}))
    return pd.concat(rows, ignore_index=True)
