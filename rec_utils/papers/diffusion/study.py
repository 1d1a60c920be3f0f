"""Diffusion recommenders beside their baselines, all trained, chosen and judged alike.

`compare` runs several methods and seeds on all cores, `tune` chooses a setting on the validation part. What
is trained is in `methods`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from rec_utils.errors import UserError
from rec_utils.papers.diffusion.dreamrec import mean_cosine
from rec_utils.papers.diffusion.methods import DETERMINISTIC, Fitted, Task, fit, methods
from rec_utils.papers.diffusion.schedules import scaled_linear
from rec_utils.ranking import CHOSEN_BY, CUTS, means
from rec_utils.resume import remembered
from rec_utils.settings import check_choice
from rec_utils.stats import Draws, Interval, draw_mean, over_seeds
from rec_utils.training import run_jobs


@dataclass(frozen=True)
class Comparison:
    """Metrics by user of several methods and seeds."""

    users: pd.DataFrame  #: label, seed, user and the metrics; a method without a seed stands under each
    #: label, seed, validation Recall@20, best epoch, epochs and seconds of training, mean cosine of the items
    #: and how the model was asked, if not by default
    fits: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Mean of each metric over users and seeds, one row a label."""
        return self.users.drop(columns=["seed", "user"]).groupby("label", sort=False).mean()

    def draws(self, metric: str, seed: int, *, among: np.ndarray | None = None) -> Draws:
        """A bootstrap over users of the metric of all labels, for one seed.

        Args:
            metric: a column of `users`, such as "NDCG@20".
            seed: of the training.
            among: only these users.
        """
        rows = self.users[self.users["seed"] == seed]
        if among is not None:
            rows = rows[rows["user"].isin(among)]
        values = rows.pivot(index="user", columns="label", values=metric)
        return draw_mean({label: values[label] for label in values}, values.index.to_numpy())

    def interval(self, metric: str, label: str, *, among: np.ndarray | None = None) -> Interval:
        """The mean of a metric, with an interval over users and seeds."""
        return self._over_seeds(metric, lambda draws: draws.interval(lambda m: m[label]), among)

    def gain(self, metric: str, label: str, over: str, *, among: np.ndarray | None = None) -> Interval:
        """Relative change from `over` to `label` in percent, with an interval over users and seeds."""
        return self._over_seeds(metric, lambda draws: draws.gain(label, over), among)

    def _over_seeds(
        self, metric: str, interval: Callable[[Draws], Interval], among: np.ndarray | None
    ) -> Interval:
        seeds = self.users["seed"].unique()
        return over_seeds([interval(self.draws(metric, seed, among=among)) for seed in seeds])


@dataclass(frozen=True)
class Arm:
    """A method with its settings, under a label of its own in a comparison."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)  #: see `methods.fit`
    training: Mapping[str, Any] = field(default_factory=dict)  #: fields of `TrainConfig` that differ
    every: int | None = None  #: epochs from one validation to the next; None: as the others
    #: ways to sample, see `Fitted.evaluate`; validation chooses the one that the model is judged by
    asked: Sequence[Mapping[str, Any]] = ({},)
    #: label -> sampling: the trained model is judged in these ways, too
    ways: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipes:
    """Arms with the learning rate, the epochs and the sizes that a card names for its profile."""

    size: Mapping[
        str, Any
    ]  #: "lr" by method, "epochs" and "every" by part, "patience", and sizes of the models
    tuned: Mapping[
        tuple[str, str], Mapping[str, Any]
    ]  #: (kind, method) -> settings of a baseline, see `tune`
    guidance: float = 2.0  #: of DreamRec

    def simple(self, kind: str) -> dict[str, Arm]:
        """The methods without training, as tuned for rows or sequences."""
        return {name: Arm(name, self.tuned.get((kind, name), {})) for name in DETERMINISTIC}

    def arm(self, method: str, part: str | None = None, **fields: Any) -> Arm:
        """A method that is trained.

        Args:
            method: see `methods.fit`.
            part: whose epochs and validations it has; its own by default.
            fields: `asked` and `ways` of the arm; all others are settings.
        """
        own = {
            "DreamRec": {"betas": scaled_linear(self.size["dreamrec_steps"]), "guidance": self.guidance},
            "DiffuRec": self.size["diffurec"],
        }
        part = method if part is None else part
        training = {
            "lr": self.size["lr"][method],
            "max_epochs": self.size["epochs"][part],
            "patience": self.size["patience"],
        }
        of_arm = {name: fields.pop(name) for name in ("asked", "ways") if name in fields}
        return Arm(method, own.get(method, {}) | fields, training, self.size["every"][part], **of_arm)


def compare(
    task: Task,
    arms: Mapping[str, Arm],
    *,
    seeds: Sequence[int] = (0,),
    training: Mapping[str, Any] = MappingProxyType({}),
    every: int = 1,
    cuts: Sequence[int] = CUTS,
    masked: bool = True,
    workers: int | None = None,
    resume: bool = False,
) -> Comparison:
    """Train every arm with every seed on all cores, and judge it on the test part, in all its ways.

    Args:
        task: users' rows or sequences.
        arms: label -> arm.
        seeds: of `methods.fit`; a method without training runs once.
        training: fields of `TrainConfig` for all arms, before those of an arm.
        every: epochs from one validation to the next.
        cuts: the k of the metrics.
        masked: see `methods.fit`.
        workers: processes, see `training.run_jobs`.
        resume: keep every finished fit on disk and take it from there if this is repeated.

    Raises:
        UserError: a method is unknown for this kind of task, or a label stands twice.
    """
    for arm in arms.values():
        check_choice("method", arm.method, methods(task))
    labels = [*arms, *(way for arm in arms.values() for way in arm.ways)]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"two arms or ways have the label {twice[0]!r}")
    shared = dict(training)  # a mapping proxy cannot be sent to another process

    def run(arm: Arm, seed: int) -> tuple[list[pd.DataFrame], dict[str, Any]]:
        own = {"training": shared | dict(arm.training), "every": arm.every or every, "masked": masked}
        fitted = fit(task, arm.method, seed=seed, **own, **arm.settings)
        best = _best_way(fitted, arm.asked)
        tables = [fitted.evaluate(cuts=cuts, **sampling) for sampling in (best, *arm.ways.values())]
        said = ", ".join(f"{name} {value}" for name, value in best.items())
        return tables, _fit_row(fitted) | {"asked": said}

    # a label is no argument, so that a finished fit is found again under another one
    cells = [
        (label, arm, seed)
        for seed in seeds
        for label, arm in arms.items()
        if seed == seeds[0] or arm.method not in DETERMINISTIC
    ]
    jobs = [{"arm": arm, "seed": seed} for _, arm, seed in cells]
    results = run_jobs(remembered(run) if resume else run, jobs, workers, "fits")
    users, fits = [], []
    for (label, arm, seed), (tables, row) in zip(cells, results, strict=True):
        under = seeds if arm.method in DETERMINISTIC else [seed]
        for name, table in zip([label, *arm.ways], tables, strict=True):
            users += [table.assign(label=name, seed=each) for each in under]
        fits.append({"label": label, "seed": seed} | row)
    return Comparison(pd.concat(users, ignore_index=True), pd.DataFrame(fits))


def _best_way(fitted: Fitted, ways: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The way to sample with the best validation Recall@20, the first of equals."""
    if len(ways) == 1:
        return ways[0]
    found = [means(fitted.evaluate("validation", **sampling))[CHOSEN_BY] for sampling in ways]
    return ways[int(np.argmax(found))]


def _fit_row(fitted: Fitted) -> dict[str, Any]:
    """What a table of fits tells about one."""
    if fitted.log is None:
        validation = means(fitted.evaluate("validation"))[CHOSEN_BY]
        return {"validation": validation, "best_epoch": 0, "epochs": 0, "seconds": 0.0, "cosine": math.nan}
    return {
        "validation": fitted.log.epochs[fitted.log.best_epoch - 1][f"valid_{CHOSEN_BY}"],
        "best_epoch": fitted.log.best_epoch,
        "epochs": len(fitted.log.epochs),
        "seconds": fitted.log.seconds,
        "cosine": _spread(fitted),
    }


def _spread(fitted: Fitted) -> float:
    """`mean_cosine` of the embeddings of the items, where the method has any; else nan."""
    items = getattr(fitted.model, "items", None)
    return math.nan if items is None else mean_cosine(items.weight[1:])


def tune(
    task: Task,
    method: str,
    grid: Sequence[Mapping[str, Any]] | None = None,
    **settings: Any,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The best of some settings by validation Recall@20, and all their values.

    Args:
        task: users' rows or sequences.
        method: what is tuned.
        grid: settings to try; by default those of `DETERMINISTIC`.
        settings: of `fit`, the same for all.

    Raises:
        UserError: there is no grid for this method.
    """
    grid = DETERMINISTIC.get(method) if grid is None else grid
    if not grid:
        raise UserError(f"tune needs a grid of settings for {method}")
    found = [means(fit(task, method, **settings, **each).evaluate("validation"))[CHOSEN_BY] for each in grid]
    table = pd.DataFrame([dict(each) | {CHOSEN_BY: value} for each, value in zip(grid, found, strict=True)])
    return dict(grid[int(np.argmax(found))]), table
