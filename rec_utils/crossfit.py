"""Cross-fitting: every sample is predicted once, by a model that never saw its user.

Users are cut into folds. For each fold a model is trained on the other folds' users, a share of whom is
set apart for early stopping, and predicts the fold's samples. All arms of a comparison share folds,
validation users and seeds, so their predictions can be compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from rec_utils.batches import Samples
from rec_utils.errors import UserError
from rec_utils.metrics import auc, logloss
from rec_utils.splits import Masks, fold_masks, user_folds
from rec_utils.stats import draw_auc
from rec_utils.training import CLICKS, FitResult, Objective, TrainConfig, fit, predict, run_jobs


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: how its untrained model is built from the samples and a seed."""

    build: Callable[[Any, int], nn.Module]
    history_length: int | None = None  #: another recent-history length than the samples'
    #: train on this many users of the training folds only, drawn by seed, for as many steps as on all
    train_users: int | None = None
    objective: Objective = CLICKS  #: what is trained for
    #: fields of `TrainConfig` in which its training differs from that of the other arms
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold predictions of every arm for N samples, or for N lists of n candidates.

    The tables of `scores` and `gain_by_bin` are of samples.
    """

    label: np.ndarray  #: [N] or [N, n]
    user: np.ndarray  #: [N] user row
    probability: dict[str, np.ndarray]  #: arm -> [N] or [N, n]
    fits: pd.DataFrame  #: one row a fit: arm, fold, best_epoch, validation scores of that epoch, seconds

    def scores(self) -> pd.DataFrame:
        """AUC and LogLoss of every arm over all samples, and means or sums over its fits."""
        rows = [
            {"arm": arm, "AUC": auc(self.label, p), "LogLoss": logloss(self.label, p)}
            for arm, p in self.probability.items()
        ]
        cost = self.fits.groupby("arm").agg(
            valid_logloss=("valid_logloss", "mean"), epochs=("best_epoch", "mean"), seconds=("seconds", "sum")
        )
        return pd.DataFrame(rows).set_index("arm").join(cost)

    def gain_by_bin(
        self,
        by: str,
        number: np.ndarray,
        edges: list[int],
        arms: list[str],
        over: str,
        n_boot: int,
        seed: int,
    ) -> pd.DataFrame:
        """Gain in AUC of each arm over another within bins of samples, as a table for `plots.gain_by_bin`.

        Args:
            by: what is binned, for the axis.
            number: [N] integers.
            edges: where bins begin; a bin ends below the next edge, the last one has no end.
            arms: compared with `over`.
            over: the base arm.
            n_boot: replicates of the bootstrap over users.
            seed: of the bootstrap.

        Bins with samples of one class or one user only are left out.
        """
        rows = []
        for low, high in pairwise([*edges, math.inf]):
            inside = (number >= low) & (number < high)
            label, user = self.label[inside], self.user[inside]
            if not 0 < label.sum() < len(label) or (user == user[0]).all():
                continue
            scores = {arm: self.probability[arm][inside] for arm in (over, *arms)}
            drawn = draw_auc(label, scores, user, n_boot, seed)
            name = f"{low}+" if high == math.inf else str(low) if high == low + 1 else f"{low} to {high - 1}"
            place = {"by": by, "bin": name}
            rows += [place | {"arm": arm} | vars(drawn.gain(arm, over)) | {"n": len(label)} for arm in arms]
        return pd.DataFrame(rows)


def cross_fit(
    samples: Samples,
    arms: Mapping[str, Arm],
    *,
    n_folds: int,
    valid_share: float,
    config: TrainConfig,
) -> CrossFit:
    """Fit every arm on every fold and predict each sample once an arm, on all cores.

    Args:
        samples: all samples or lists; folds are cut by their user rows.
        arms: name -> arm.
        n_folds: number of folds of users.
        valid_share: share of the training folds' users that stops the training early.
        config: training settings; its seed also draws the folds, the validation users and initial weights.

    Raises:
        UserError: an arm asks for no training users, or for more than the folds leave.
    """
    jobs = [{"arm": name, "fold": fold} for fold in range(n_folds) for name in arms]
    user, seed = samples.user_row.numpy(), config.seed
    folds = user_folds(int(user.max()) + 1, n_folds, seed)

    def run(arm: str, fold: int) -> tuple[np.ndarray, dict[str, Any]]:
        masks = fold_masks(user, folds, fold, valid_share, seed)
        predicted, result = fit_arm(samples, arms[arm], masks, config)
        return predicted, {"arm": arm, "fold": fold} | fit_row(result)

    results = run_jobs(run, jobs, progress="fits")
    probability = {name: np.empty(samples.label.shape) for name in arms}
    for job, (predicted, _) in zip(jobs, results, strict=True):
        probability[job["arm"]][folds[user] == job["fold"]] = predicted
    return CrossFit(samples.label.numpy(), user, probability, pd.DataFrame([log for _, log in results]))


def fit_arm(
    samples: Samples,
    arm: Arm,
    masks: Masks,
    config: TrainConfig,
    after_epoch: Callable[[nn.Module, Samples], Mapping[str, float]] | None = None,
) -> tuple[np.ndarray, FitResult]:
    """Train one arm on the first mask, stop early on the second, predict the samples of the third.

    Args:
        samples: all samples.
        arm: what is trained; its weights are drawn by the seed of `config`.
        masks: [N] each.
        config: training settings.
        after_epoch: gets the model and the test samples after every epoch, see `training.fit`.

    Returns:
        The probabilities of the test samples, in order, and the log of the fit.
    """
    train, valid, test = masks
    config = replace(config, **arm.training)
    if arm.train_users is not None:
        some = train & _some_users(samples.user_row.numpy(), train, arm.train_users, config.seed)
        longer = train.sum() / some.sum()
        epochs, patience = round(longer * config.max_epochs), round(longer * config.patience)
        config, train = replace(config, max_epochs=epochs, patience=patience), some
    data = samples if arm.history_length is None else samples.with_history(arm.history_length)
    model = arm.build(data, config.seed)
    parts = [data.select(torch.from_numpy(np.flatnonzero(mask))) for mask in (train, valid, test)]
    watch = (lambda trained: after_epoch(trained, parts[2])) if after_epoch else None
    result = fit(model, parts[0], parts[1], config, False, arm.objective, watch)
    return predict(model, parts[2]), result


def fit_row(result: FitResult) -> dict[str, float]:
    """What a table of fits tells about one: best_epoch, its validation scores, all seconds."""
    best = result.epochs[result.best_epoch - 1]
    scores = {name: value for name, value in best.items() if name.startswith("valid_")}
    return {"best_epoch": result.best_epoch} | scores | {"seconds": result.seconds}


def _some_users(user: np.ndarray, train: np.ndarray, n_users: int, seed: int) -> np.ndarray:
    """Mask [N] of the samples of `n_users` users drawn from those of the training samples."""
    candidates = np.unique(user[train])
    if not 1 <= n_users <= len(candidates):
        raise UserError(f"train_users = {n_users}, but the training folds hold {len(candidates)} users")
    return np.isin(user, np.random.default_rng(seed).permutation(candidates)[:n_users])
