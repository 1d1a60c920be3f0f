"""Cross-fitting: every sample is predicted once, by a model that never saw its user.

Users are cut into folds. For each fold a model is trained on the other folds' users, a share of whom is
set apart for early stopping, and predicts the fold's samples. All arms of a comparison share folds,
validation users and seeds, so their predictions can be compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from rec_utils.batches import CTRSamples
from rec_utils.errors import UserError
from rec_utils.metrics import auc, logloss
from rec_utils.splits import fold_masks, user_folds
from rec_utils.stats import draw_auc
from rec_utils.training import TrainConfig, fit, predict, run_jobs


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: how its untrained model is built from the samples and a seed."""

    build: Callable[[CTRSamples, int], nn.Module]
    history_length: int | None = None  #: another recent-history length than the samples'
    #: train on this many users of the training folds only, drawn by seed, for as many steps as on all
    train_users: int | None = None


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold predictions of every arm for N samples."""

    label: np.ndarray  #: [N]
    user: np.ndarray  #: [N] user row
    probability: dict[str, np.ndarray]  #: arm -> [N]
    fits: pd.DataFrame  #: one row a fit: arm, fold, best_epoch, valid_logloss, seconds

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
            place = {"by": by, "bin": f"{low}+" if high == math.inf else f"{low} to {high - 1}"}
            rows += [place | {"arm": arm} | vars(drawn.gain(arm, over)) | {"n": len(label)} for arm in arms]
        return pd.DataFrame(rows)


def cross_fit(
    samples: CTRSamples,
    arms: Mapping[str, Arm],
    *,
    n_folds: int,
    valid_share: float,
    config: TrainConfig,
) -> CrossFit:
    """Fit every arm on every fold and predict each sample once an arm, on all cores.

    Args:
        samples: all samples; folds are cut by their user rows.
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
        chosen, setting = arms[arm], config
        train, valid, test = fold_masks(user, folds, fold, valid_share, seed)
        if chosen.train_users is not None:
            some = train & _some_users(user, train, chosen.train_users, seed)
            longer = train.sum() / some.sum()
            epochs, patience = round(longer * config.max_epochs), round(longer * config.patience)
            setting, train = replace(config, max_epochs=epochs, patience=patience), some
        data = samples if chosen.history_length is None else samples.with_history(chosen.history_length)
        model = chosen.build(data, seed)
        parts = [data.select(torch.from_numpy(np.flatnonzero(mask))) for mask in (train, valid, test)]
        result = fit(model, parts[0], parts[1], setting, progress=False)
        best = result.epochs[result.best_epoch - 1]
        log = {
            "arm": arm,
            "fold": fold,
            "best_epoch": result.best_epoch,
            "valid_logloss": best["valid_logloss"],
            "seconds": result.seconds,
        }
        return predict(model, parts[2]), log

    results = run_jobs(run, jobs, progress="fits")
    probability = {name: np.empty(len(user)) for name in arms}
    for job, (predicted, _) in zip(jobs, results, strict=True):
        probability[job["arm"]][folds[user] == job["fold"]] = predicted
    return CrossFit(samples.label.numpy(), user, probability, pd.DataFrame([log for _, log in results]))


def _some_users(user: np.ndarray, train: np.ndarray, n_users: int, seed: int) -> np.ndarray:
    """Mask [N] of the samples of `n_users` users drawn from those of the training samples."""
    candidates = np.unique(user[train])
    if not 1 <= n_users <= len(candidates):
        raise UserError(f"train_users = {n_users}, but the training folds hold {len(candidates)} users")
    return np.isin(user, np.random.default_rng(seed).permutation(candidates)[:n_users])
