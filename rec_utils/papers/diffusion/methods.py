"""Every recommender of the survey and its baselines behind one call: train, choose the epoch, rank.

`fit` trains one method on users' rows (`ImplicitTask`) or on sequences (`SequenceTask`) and keeps the epoch
with the best validation Recall@20; `Fitted.evaluate` gives the metrics of every user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pandas as pd
import torch
from torch import nn

from rec_utils import collaborative
from rec_utils.batches import Samples
from rec_utils.collaborative import MultiVAE
from rec_utils.implicit import ImplicitTask, RowSamples
from rec_utils.papers.diffusion.diffrec import DiffRec, time_weighted
from rec_utils.papers.diffusion.diffuasr import augmented, windows
from rec_utils.papers.diffusion.diffurec import DiffuRec
from rec_utils.papers.diffusion.dreamrec import DreamRec
from rec_utils.papers.diffusion.ldiffrec import LDiffRec, clusters, item_vectors
from rec_utils.ranking import CUTS, SEEN, Scorer, fit_ranker, rank_rows
from rec_utils.sequences import SequenceTask
from rec_utils.sequential import GRU4Rec, SASRec
from rec_utils.settings import check_choice
from rec_utils.training import FitResult, TrainConfig

#: Methods that no seed changes, and what each has to choose.
DETERMINISTIC = {
    "popularity": [{}],
    "ItemKNN": [{"k": k} for k in (20, 50, 100, 200, 400)],
    "EASE": [{"l2": l2} for l2 in (100.0, 300.0, 1000.0, 3000.0)],
}
ROW_MODELS = ("MultiVAE", "DiffRec", "T-DiffRec", "L-DiffRec")
SEQUENCE_MODELS = {"SASRec": SASRec, "GRU4Rec": GRU4Rec, "DreamRec": DreamRec, "DiffuRec": DiffuRec}
#: Training settings where they differ from those of `TrainConfig`: the released models', or this project's.
TRAINING = {
    "MultiVAE": {"batch_size": 400},
    "DiffRec": {"batch_size": 400},
    "T-DiffRec": {"batch_size": 400},
    "L-DiffRec": {"batch_size": 400, "lr_of": {"diffusion.": 5e-4}},
    "SASRec": {"batch_size": 128},
    "GRU4Rec": {"batch_size": 128},
    "DreamRec": {"batch_size": 256},
    "DiffuRec": {"batch_size": 512},
}
#: How many past items each model reads.
LENGTHS = {"SASRec": 50, "GRU4Rec": 50, "DreamRec": 10, "DiffuRec": 50}
#: Sampling while an epoch is chosen, where the full one is slow.
CHOOSING = {name: {"steps": 1} for name in ("DiffRec", "T-DiffRec", "L-DiffRec", "DiffuRec")}
#: Epochs of L-DiffRec's annealing.
LDIFFREC_EPOCHS = 500

Task = ImplicitTask | SequenceTask


@dataclass(frozen=True)
class Fitted:
    """A method that is ready to rank."""

    task: Task
    method: str
    scorer: Callable[..., Scorer]  #: (part, **sampling) -> scorer
    model: nn.Module | None = None
    log: FitResult | None = None
    masked: bool = True  #: whether what a user has chosen before is no candidate

    def evaluate(self, part: str = "test", *, cuts: Sequence[int] = CUTS, **sampling: Any) -> pd.DataFrame:
        """Metrics of every user, see `ranking.rank_rows`; `sampling` are settings of the model's `scores`."""
        check_choice("part", part, list(SEEN))
        if isinstance(self.task, ImplicitTask):
            truth, seen = self.task.matrix(part), self.task.matrix(*SEEN[part])
        else:
            truth, seen = self.task.targets(part), self.task.seen(part)
        return rank_rows(self.scorer(part, **sampling), truth, seen if self.masked else None, cuts=cuts)


def fit(
    task: Task,
    method: str,
    *,
    seed: int = 0,
    training: Mapping[str, Any] = MappingProxyType({}),
    every: int = 1,
    progress: bool | str = False,
    masked: bool = True,
    **settings: Any,
) -> Fitted:
    """Train one method, or just prepare it if it needs no training.

    Args:
        task: users' rows or sequences.
        method: a name in `methods`.
        seed: of initial weights, shuffling, dropout and noise.
        training: fields of `TrainConfig` that differ from the method's own in `TRAINING`.
        every: epochs from one validation to the next.
        progress: see `training.fit`.
        masked: whether what a user chose before is no candidate; DreamRec's and DiffuRec's code ranks it.
        settings: of the method: of `cosine_neighbours`, `ease_weights` or the model's class. On rows, too:
            `weights` (lowest, highest) of T-DiffRec, or of L-DiffRec, which makes it LT-DiffRec, or of EASE
            as their control; `n_clusters` of L-DiffRec. On sequences: `length` of the history; `made_up`
            (items [U, M], which users [U] get them), see `diffuasr`.

    Raises:
        UserError: the method is unknown for this kind of task.
    """
    check_choice("method", method, methods(task))
    if method in DETERMINISTIC:
        return _prepare(task, method, masked, dict(settings))
    config = TrainConfig(**(TRAINING[method] | dict(training) | {"seed": seed}))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        build = _row_model if isinstance(task, ImplicitTask) else _sequence_model
        model, train, scorer = build(task, method, config, dict(settings))
    fitted = Fitted(task, method, scorer, model, masked=masked)

    def validate(_: nn.Module) -> pd.DataFrame:
        return fitted.evaluate("validation", **CHOOSING.get(method, {}))

    log = fit_ranker(model, train, config, validate, every=every, progress=progress)
    model.eval()
    return replace(fitted, log=log)


def methods(task: Task) -> list[str]:
    """Names of the methods for a kind of task."""
    return [*DETERMINISTIC, *(ROW_MODELS if isinstance(task, ImplicitTask) else SEQUENCE_MODELS)]


def _prepare(task: Task, method: str, masked: bool, settings: dict[str, Any]) -> Fitted:
    """A method without training: item weights from train, applied to what is known before each part."""
    rows = task if isinstance(task, ImplicitTask) else task.implicit()
    by_time = settings.pop("weights", None) if rows is task else None
    train = rows.matrix("train") if by_time is None else time_weighted(rows, *by_time)
    if method == "popularity":
        scorer = collaborative.popularity(train, **settings)
        return Fitted(task, method, lambda part: scorer, masked=masked)
    if method == "ItemKNN":
        weights = collaborative.cosine_neighbours(train, **({"k": 200} | settings))
    else:
        weights = collaborative.ease_weights(train, **({"l2": 1000.0} | settings))

    def known(part: str) -> Scorer:
        # a sequence model reads the validation item before the test item, so its baselines do, too
        return collaborative.linear(train if rows is task else task.seen(part), weights)

    return Fitted(task, method, known, masked=masked)


def _row_model(
    task: ImplicitTask, method: str, config: TrainConfig, settings: dict[str, Any]
) -> tuple[nn.Module, Samples, Callable[..., Scorer]]:
    """(Untrained model, its training samples, scorer of a part) on users' rows."""
    weights = settings.pop("weights", (0.1, 1.0) if method == "T-DiffRec" else None)
    matrix = task.matrix("train") if weights is None else time_weighted(task, *weights)
    rows = RowSamples.of(matrix)
    if method == "L-DiffRec":
        vectors = item_vectors(matrix) if task.item_vectors is None else task.item_vectors
        groups = clusters(vectors, settings.pop("n_clusters", 2), config.seed)
        batches = LDIFFREC_EPOCHS * -(-len(rows) // config.batch_size)
        model = LDiffRec(groups, **({"anneal_batches": batches} | settings))
    else:
        model = (MultiVAE if method == "MultiVAE" else DiffRec)(task.n_items, **settings)

    def scorer(part: str, *, seed: int = 0, **sampling: Any) -> Scorer:
        if sampling.get("corrupt"):
            sampling["generator"] = torch.Generator().manual_seed(seed)
        device = next(model.parameters()).device
        return lambda users: model.scores(rows.rows(torch.from_numpy(users)).to(device), **sampling)

    return model, rows, scorer


def _sequence_model(
    task: SequenceTask, method: str, config: TrainConfig, settings: dict[str, Any]
) -> tuple[nn.Module, Samples, Callable[..., Scorer]]:
    """(Untrained model, its training samples, scorer of a part) on sequences."""
    length = settings.pop("length", LENGTHS[method])
    if method in ("SASRec", "DreamRec"):  # these have positions
        settings["length"] = length
    read, real = task, torch.ones(len(task.items), dtype=torch.bool)
    if (added := settings.pop("made_up", None)) is not None:
        read, real = augmented(task, *added)
    model = SEQUENCE_MODELS[method](task.n_items, **settings)
    if method in ("SASRec", "GRU4Rec"):
        train = windows(read, real, length)
    else:
        train = read.prefixes("train", length)
        train = train.select(real[train.position])

    def scorer(part: str, **sampling: Any) -> Scorer:
        prefixes = read.prefixes(part, length).to(next(model.parameters()).device)
        return lambda users: model.scores(prefixes.batch(torch.from_numpy(users)), **sampling)

    return model, train, scorer
