"""One split by user, for data too large to cross-fit: every arm is trained once and predicts the test users.

The split is the one that a paper published or any other; what is chosen is chosen on validation users,
drawn from the users outside the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn

from rec_utils.batches import Samples
from rec_utils.crossfit import Arm, CrossFit, fit_arm, fit_row
from rec_utils.errors import UserError
from rec_utils.metrics import auc, logloss
from rec_utils.resume import remembered
from rec_utils.splits import fold_masks
from rec_utils.training import FitResult, TrainConfig, predict, run_jobs


@dataclass(frozen=True)
class HoldOut(CrossFit):
    """Predictions of every arm for the n samples of the test users; `fits` has one row an arm."""

    index: np.ndarray  #: [n] the test samples among all samples
    epochs: pd.DataFrame  #: one row an arm and epoch: arm, epoch and what `training.fit` logs of it
    #: arm -> [epochs, n] predictions after every epoch, if asked for; they may be reported, never chosen by
    by_epoch: dict[str, np.ndarray]


def holdout_fit(
    samples: Samples,
    arms: Mapping[str, Arm],
    test_users: np.ndarray,
    *,
    valid_share: float,
    config: TrainConfig,
    every_epoch: bool = False,
    workers: int | None = None,
    resume: bool = False,
) -> HoldOut:
    """Fit every arm once on the users outside `test_users` and predict the samples of those inside.

    Args:
        samples: all samples.
        arms: name -> arm.
        test_users: [U] True for the users to test on.
        valid_share: share of the other users that stops the training early.
        config: training settings; its seed also draws the validation users and initial weights.
        every_epoch: also predict the test samples after every epoch, into `by_epoch`, and log test_auc and
            test_logloss. This shows what a choice by the test would have given; it changes no prediction.
        workers: processes, see `training.run_jobs`.
        resume: keep every finished fit on disk and take it from there if this run is repeated.

    Raises:
        UserError: `test_users` has the wrong length, or a part of the split has no sample.
    """
    user = samples.user_row.numpy()
    if test_users.shape != (len(test_users),) or len(test_users) <= user.max():
        raise UserError(
            f"test_users must tell of every user row, 0 to {user.max()}, not be of shape {test_users.shape}"
        )
    masks = fold_masks(user, test_users.astype(int), 1, valid_share, config.seed)
    if not masks[2].any():
        raise UserError("no test user has a sample")

    def run(name: str, arm: Arm) -> tuple[np.ndarray, FitResult, np.ndarray]:
        predictions = []

        def watch(model: nn.Module, test: Samples) -> dict[str, float]:
            predictions.append(predict(model, test))
            label = test.label.cpu().numpy()
            return {"test_auc": auc(label, predictions[-1]), "test_logloss": logloss(label, predictions[-1])}

        predicted, result = fit_arm(samples, arm, masks, config, watch if every_epoch else None)
        return predicted, result, np.array(predictions)

    # an arm is an argument, not held, so that a finished fit is found again when other arms join
    jobs = [{"name": name, "arm": arm} for name, arm in arms.items()]
    fits = run_jobs(remembered(run) if resume else run, jobs, workers, "fits")
    results = dict(zip(arms, fits, strict=True))
    index = np.flatnonzero(masks[2])
    return HoldOut(
        label=samples.label.numpy()[index],
        user=user[index],
        probability={name: predicted for name, (predicted, _, _) in results.items()},
        fits=pd.DataFrame({"arm": name, "fold": 0} | fit_row(fit) for name, (_, fit, _) in results.items()),
        index=index,
        epochs=pd.DataFrame(
            {"arm": name, "epoch": number} | epoch
            for name, (_, fit, _) in results.items()
            for number, epoch in enumerate(fit.epochs, 1)
        ),
        by_epoch={name: each for name, (_, _, each) in results.items()} if every_epoch else {},
    )
