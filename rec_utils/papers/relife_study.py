"""What is compared for RELIFE: lists in parts, re-rankers of one size, ablations, scores of test lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rec_utils import rerank
from rec_utils.click_world import ClickWorld
from rec_utils.crossfit import fit_row
from rec_utils.history_lists import HistoryLists, check_leaks, history_lists, split_users
from rec_utils.initial_rankers import fit_ranker
from rec_utils.list_log import ListLog
from rec_utils.metrics import expected_clicks_at_k, position_propensity, utility_at_k
from rec_utils.papers import relife
from rec_utils.rerank_model import n_parameters
from rec_utils.training import Objective, TrainConfig, fit, predict, run_jobs

CUTS = (1, 3, 5, 10)
INITIAL, RATE, ORACLE = "initial order", "item rate", "oracle"


# Data


@dataclass(frozen=True)
class Prepared:
    """Lists in the order of an initial ranker, users apart."""

    train: HistoryLists
    valid: HistoryLists
    test: HistoryLists
    propensity: np.ndarray  #: [C, h] see `metrics.position_propensity`; of the users outside the test
    #: name -> scores [N, n] of the test lists by what needs no re-ranker
    simple: dict[str, np.ndarray]


def prepare(
    log: ListLog,
    *,
    ranker: str | None,
    config: TrainConfig,
    n_past: int = 5,
    min_past: int = 3,
    with_rank: bool = True,
    world: ClickWorld | None = None,
) -> Prepared:
    """Split the users of a log, fit the initial ranker on its own, and bring all other lists into its order.

    Args:
        log: the lists.
        ranker: one of `initial_rankers.RANKERS`; None keeps the order in which the lists were shown.
        config: of the initial ranker; its seed also draws the split.
        n_past: m, past lists of a history.
        min_past: lists with fewer before them are not re-ranked.
        with_rank: whether the initial rank is a field of a candidate. Where clicks depend on the place,
            models learn from it what is clicked because it stood on top.
        world: the truth about the log, where it is known: it gives the order that no re-ranker can beat.

    Raises:
        UserError: see `split_users` and `history_lists`.
        LeakError: see `check_leaks`.
    """
    users = split_users(len(log.user_ids), config.seed)
    everything = history_lists(log, n_past=n_past, min_past=0, mixed=False)
    parts = {"ranker": everything.of_users(users["ranker"])}
    lists = history_lists(log, n_past=n_past, min_past=min_past)
    parts |= {name: lists.of_users(users[name]) for name in ("train", "valid", "test")}
    check_leaks(log, parts)
    own = parts.pop("ranker")
    if ranker is not None:
        score = fit_ranker(ranker, own, config)
        parts = {name: part.ranked_by(score(part)) for name, part in parts.items()}
    if not with_rank:
        parts = {name: part.without_rank() for name, part in parts.items()}

    test = parts["test"]
    rate = fit_ranker(RATE, everything.of_users(users["ranker"] | users["train"]), config)
    simple = {INITIAL: -np.tile(np.arange(log.length), (len(test), 1)), RATE: rate(test)}
    if world is not None:
        simple[ORACLE] = test.of_log(world.attraction)
    known = ~users["test"][log.user_row]
    propensity = position_propensity(log.clicked & known[:, None], log.item_fields[log.item_row, 1])
    return Prepared(**parts, propensity=propensity, simple=simple)


def scores_by_list(
    prepared: Prepared, scores: Mapping[str, np.ndarray], world: ClickWorld | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Metric -> name -> value of every test list [N], as `stats.draw_mean` takes the inner ones.

    MAP, NDCG, CLICK and UTILITY at each k of `CUTS`; with the truth of a world also EXPECTED, the clicks that
    the new order would get.

    Args:
        prepared: gives the test lists.
        scores: name -> [N, n].
        world: the truth about the log.
    """
    test = prepared.test
    label, cuts = test.label.numpy(), [k for k in CUTS if k <= test.n_candidates]
    where = {
        "place": test.place.numpy(),
        "category": test.category.numpy(),
        "propensity": prepared.propensity,
    }
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, score in scores.items():
        values = rerank.list_scores(label, score, cuts)
        values |= {f"UTILITY@{k}": utility_at_k(label, score, k, **where) for k in cuts}
        if world is not None:
            truth = test.of_log(world.attraction)
            values |= {
                f"EXPECTED@{k}": expected_clicks_at_k(truth, score, k, world.examination) for k in cuts
            }
        for metric, value in values.items():
            found.setdefault(metric, {})[name] = value
    return found


def readable(
    lists: HistoryLists, log: ListLog, titles: np.ndarray, scores: Mapping[str, np.ndarray], n_past: int = 2
) -> pd.DataFrame:
    """One list of each user, with the past lists before it, to be read by a person.

    Args:
        lists: those to re-rank.
        log: where they come from; it gives the users' ids.
        titles: [I] of the log's items.
        scores: name -> [N, n] of the lists.
        n_past: past lists that are shown, at most.

    Returns:
        One row an item: user_id, list ("2 before", "1 before", "to re-rank"), title, clicked, and for the
        candidates the rank that each score gives them.
    """
    _, row = np.unique(lists.user_row.numpy(), return_index=True)
    batch = lists.batch(torch.from_numpy(row))

    def rows(name: str, item_row: Tensor, clicked: Tensor, real: Tensor | bool) -> pd.DataFrame:
        users = np.repeat(log.user_ids[batch.user_row.numpy()], item_row.shape[1])
        table = pd.DataFrame({"user_id": users, "list": name, "title": titles[item_row.flatten().numpy()]})
        table["clicked"] = np.where(clicked.flatten().numpy(), "yes", "no")
        return table if real is True else table[real.flatten().numpy()]

    past = batch.past
    shown = range(max(-n_past, -past.item_row.shape[1]), 0)
    parts = [rows(f"{-j} before", past.item_row[:, j], past.clicked[:, j], past.real[:, j]) for j in shown]
    last = rows("to re-rank", batch.item_row, batch.label > 0, True)
    for name, score in scores.items():
        last[f"rank: {name}"] = 1 + (-score[row]).argsort(1).argsort(1).ravel()
    table = pd.concat([*parts, last], ignore_index=True)
    return table.sort_values("user_id", kind="stable", ignore_index=True)


# Models


def as_they_are(lists: HistoryLists) -> HistoryLists:
    """All that is known of the lists."""
    return lists


@dataclass(frozen=True)
class Variant:
    """A re-ranker, and what it may know of the lists."""

    build: Callable[[HistoryLists, int], nn.Module]  #: lists and seed -> untrained model
    objective: Objective
    see: Callable[[HistoryLists], HistoryLists] = as_they_are
    #: fields of `TrainConfig` in which its training differs from that of the others
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """What all re-rankers of a comparison share."""

    width: int = 64  #: d of RELIFE; the others are as wide as gives them as many parameters
    embed_dim: int = 16
    dropout: float = 0.0


def relife_variant(
    sizes: Sizes, see: Callable[[HistoryLists], HistoryLists] = as_they_are, **settings: Any
) -> Variant:
    """RELIFE with further `settings` of `relife.RELIFE`."""

    def build(lists: HistoryLists, seed: int) -> nn.Module:
        return relife.build(lists, seed=seed, **(vars(sizes) | settings))

    return Variant(build, relife.OBJECTIVE, see)


def baselines(
    lists: HistoryLists, sizes: Sizes, names: Iterable[str] = tuple(rerank.ALL)
) -> dict[str, Variant]:
    """Re-rankers of `rerank.ALL` with as many parameters as RELIFE has; only MIR reads a history.

    MIR knows clicked items alone, as in its paper; "MIR, hybrid" reads unclicked ones, too. SetRank has the
    loss of the others: with its own it collapses on short training, see the notebook on KAR's re-ranking.

    Args:
        lists: for which the models are built.
        sizes: of RELIFE.
        names: of the models.
    """
    names = list(names)
    budget = n_parameters(relife.build(lists, **vars(sizes)))
    widths = rerank.equal_budgets(names, lists, budget, embed_dim=sizes.embed_dim)
    shared = {"embed_dim": sizes.embed_dim, "dropout": sizes.dropout}

    def variant(name: str, see: Callable[[HistoryLists], HistoryLists]) -> Variant:
        settings = shared | widths[name]
        objective = rerank.objective("PRM" if name == "SetRank" else name)
        return Variant(lambda lists, seed: rerank.build(name, lists, seed=seed, **settings), objective, see)

    found = {name: variant(name, HistoryLists.positives_only) for name in names}
    return found | ({"MIR, hybrid": variant("MIR", as_they_are)} if "MIR" in found else {})


def ablations(sizes: Sizes, shuffle_seed: int = 0) -> dict[str, Variant]:
    """RELIFE without each of its parts, with less or wrong history, and with the loss that is off."""
    return {
        "RELIFE": relife_variant(sizes),
        "without DIM": relife_variant(sizes, without=("DIM",)),
        "without SPM": relife_variant(sizes, without=("SPM",)),
        "without CPE": relife_variant(sizes, without=("CPE",)),
        "without contrast": relife_variant(sizes, contrast=0.0),
        "without initial rank": relife_variant(sizes, HistoryLists.without_rank),
        "with disentangling loss": relife_variant(sizes, disentangle=0.1),
        "positives only": relife_variant(sizes, HistoryLists.positives_only),
        "shuffled feedback": relife_variant(sizes, lambda lists: lists.with_shuffled_feedback(shuffle_seed)),
    }


def history_sweep(
    sizes: Sizes, n_past: Iterable[int] = (1, 3, 5, 10), lengths: Iterable[int] = (2, 5, 10)
) -> dict[tuple[str, int], Variant]:
    """RELIFE with other numbers of past lists, and of places that are read: (what, value) -> variant."""
    found = {("past lists", m): relife_variant(sizes, lambda lists, m=m: lists.with_past(m)) for m in n_past}
    return found | {
        ("places of a past list", h): relife_variant(
            sizes, lambda lists, h=h: lists.with_past(lists.n_past, h)
        )
        for h in lengths
    }


def contrast_sweep(
    sizes: Sizes, weights: Iterable[float] = (0.0, 0.01, 0.1, 0.5)
) -> dict[tuple[str, float], Variant]:
    """RELIFE with other weights of the contrastive loss: (what, value) -> variant."""
    return {("contrast", weight): relife_variant(sizes, contrast=weight) for weight in weights}


@dataclass(frozen=True)
class Compared:
    """Trained variants."""

    scores: dict[Any, np.ndarray]  #: name -> [N, n] of the test lists; the simple orders first
    models: dict[Any, nn.Module]  #: name -> trained model
    fits: pd.DataFrame  #: one row a variant: name, parameters, best_epoch, validation scores, seconds


def compare(
    prepared: Prepared,
    variants: Mapping[Any, Variant],
    config: TrainConfig,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Compared:
    """Train every variant once, on all cores, and score the test lists.

    Args:
        prepared: the lists.
        variants: by name.
        config: of training; its seed also draws the initial weights.
        workers: processes, see `training.run_jobs`.
        progress: whether to show a bar.
    """

    def run(name: Any) -> tuple[np.ndarray, nn.Module, dict[str, Any]]:
        variant = variants[name]
        train, valid, test = (variant.see(part) for part in (prepared.train, prepared.valid, prepared.test))
        model = variant.build(train, config.seed)
        result = fit(model, train, valid, replace(config, **variant.training), False, variant.objective)
        row = {"name": name, "parameters": n_parameters(model)} | fit_row(result)
        return predict(model, test), model.cpu(), row

    found = run_jobs(run, [{"name": name} for name in variants], workers, progress and "re-rankers")
    scores, models, rows = zip(*found, strict=True)
    return Compared(
        scores=prepared.simple | dict(zip(variants, scores, strict=True)),
        models=dict(zip(variants, models, strict=True)),
        fits=pd.DataFrame(rows),
    )
