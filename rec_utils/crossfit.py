"""Cross-fitting: every sample is predicted once, by a model that never saw its user.

Users are cut into folds. For each fold a model is trained on the other folds' users, a share of whom is
set apart for early stopping, and predicts the fold's samples. All arms of a comparison share folds,
validation users and seeds, so their predictions can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from rec_utils.batches import CTRSamples
from rec_utils.errors import UserError
from rec_utils.metrics import auc, logloss
from rec_utils.splits import fold_masks, user_folds
from rec_utils.training import TrainConfig, fit, predict, run_jobs


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: how its untrained model is built from the samples and a seed."""

    build: Callable[[CTRSamples, int], nn.Module]
    history_length: int | None = None  #: another recent-history length than the samples'
    train_users: int | None = None  #: train on this many users of the training folds only, drawn by seed


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold predictions of every arm.

    S is the number of seeds, N of samples.
    """

    label: np.ndarray  #: [N]
    user: np.ndarray  #: [N] user row
    probability: dict[str, np.ndarray]  #: arm -> [S, N]
    fits: pd.DataFrame  #: one row a fit: arm, fold, seed, best_epoch, valid_logloss, seconds

    def scores(self) -> pd.DataFrame:
        """AUC and LogLoss of every arm over all samples, mean over seeds, and the cost of its fits."""
        rows = [
            {
                "arm": arm,
                "AUC": np.mean([auc(self.label, p) for p in probability]),
                "LogLoss": np.mean([logloss(self.label, p) for p in probability]),
            }
            for arm, probability in self.probability.items()
        ]
        cost = self.fits.groupby("arm").agg(
            valid_logloss=("valid_logloss", "mean"), epochs=("best_epoch", "mean"), seconds=("seconds", "sum")
        )
        return pd.DataFrame(rows).set_index("arm").join(cost)


def cross_fit(
    samples: CTRSamples,
    arms: Mapping[str, Arm],
    *,
    n_folds: int,
    valid_share: float,
    config: TrainConfig,
    seeds: Sequence[int] = (0,),
    workers: int | None = None,
) -> CrossFit:
    """Fit every arm on every fold with every seed and predict each sample once an arm and seed.

    Args:
        samples: all samples; folds are cut by their user rows.
        arms: name -> arm.
        n_folds: number of folds of users.
        valid_share: share of the training folds' users that stops the training early.
        config: training settings; its seed is replaced by each of `seeds`.
        seeds: one complete cross-fit each; folds change with the seed too.
        workers: processes; None uses all cores. The numbers do not depend on it.

    Raises:
        UserError: an arm asks for more training users than the folds leave.
    """
    jobs = [
        {"arm": name, "fold": fold, "seed": seed}
        for seed in seeds
        for fold in range(n_folds)
        for name in arms
    ]
    user = samples.user_row.numpy()
    n_users = int(user.max()) + 1
    folds = {seed: user_folds(n_users, n_folds, seed) for seed in seeds}

    def run(arm: str, fold: int, seed: int) -> tuple[np.ndarray, dict]:
        chosen = arms[arm]
        train, valid, test = fold_masks(user, folds[seed], fold, valid_share, seed)
        if chosen.train_users is not None:
            train &= _some_users(user, train, chosen.train_users, seed)
        data = samples if chosen.history_length is None else samples.with_history(chosen.history_length)
        torch.manual_seed(seed)
        model = chosen.build(data, seed)
        parts = [data.select(torch.from_numpy(np.flatnonzero(mask))) for mask in (train, valid, test)]
        result = fit(model, parts[0], parts[1], replace(config, seed=seed), progress=False)
        best = result.epochs[result.best_epoch - 1]
        log = {
            "arm": arm,
            "fold": fold,
            "seed": seed,
            "best_epoch": result.best_epoch,
            "valid_logloss": best["valid_logloss"],
            "seconds": result.seconds,
        }
        return predict(model, parts[2]), log

    results = run_jobs(run, jobs, workers)
    probability = {name: np.full((len(seeds), len(user)), np.nan) for name in arms}
    for job, (predicted, _) in zip(jobs, results, strict=True):
        seed = job["seed"]
        probability[job["arm"]][list(seeds).index(seed), folds[seed][user] == job["fold"]] = predicted
    return CrossFit(samples.label.numpy(), user, probability, pd.DataFrame([log for _, log in results]))


def _some_users(user: np.ndarray, train: np.ndarray, n_users: int, seed: int) -> np.ndarray:
    """Mask [N] of the samples of `n_users` users drawn from those of the training samples."""
    candidates = np.unique(user[train])
    if n_users > len(candidates):
        raise UserError(f"train_users = {n_users}, but the training folds hold {len(candidates)} users")
    return np.isin(user, np.random.default_rng(seed).permutation(candidates)[:n_users])
