"""Verdicts of a run, from its numbers and those of recorded runs with other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rec_utils import claims, records, stats
from rec_utils.cards import Card
from rec_utils.records import Run
from rec_utils.stats import Interval


def conclude(
    run: Run,
    card: Card,
    numbers: Mapping[str, Interval | float],
    missing: str,
    *free: str,
    pooled: Mapping[str, Interval] | None = None,
    parts: Mapping[str, int] | None = None,
) -> tuple[list[claims.Verdict], int]:
    """Record the numbers of a run, pool them over seeds, and judge the claims of a card by them.

    A number named after a claim is its evidence; of those named "claim/part" the weakest decides. Numbers
    with other names are recorded only.

    Args:
        run: under way; it keeps numbers and verdicts.
        card: whose claims are judged.
        numbers: an interval, or a number that has one over seeds only; it needs two seeds.
        missing: why a claim without evidence is not testable here.
        free: parameters besides SEED that do not touch these numbers, such as SWEEP.
        pooled: further evidence that holds all seeds already.
        parts: claims that need so many parts to be judged at all.

    Returns:
        The verdicts, and how many seeds they rest on.
    """
    for name, number in numbers.items():
        run.metric(name, number)
    # a seed may be recorded with and without a sweep: its numbers count once
    others = {r.parameters["SEED"]: r.metrics for r in records.siblings(run, "SEED", *free)}
    others.pop(run.parameters["SEED"], None)
    evidence: dict[str, Any] = {}
    for name, number in numbers.items():
        of_seeds = [number, *(metrics[name] for metrics in others.values() if name in metrics)]
        if isinstance(number, Interval):
            _file(evidence, name, stats.over_seeds(of_seeds))
        elif len(of_seeds) > 1:
            _file(evidence, name, stats.mean_interval(of_seeds))
    for name, interval in (pooled or {}).items():
        _file(evidence, name, interval)
    for claim, number in (parts or {}).items():
        if len(evidence.get(claim, {})) < number:
            evidence.pop(claim, None)
    testable = [claim.id for claim in card.claims if not claim.not_testable]
    verdicts = claims.check(card, {c: evidence.get(c, claims.NotTestable(missing)) for c in testable})
    run.verdicts(verdicts)
    return verdicts, 1 + len(others)


def _file(evidence: dict[str, Any], name: str, interval: Interval) -> None:
    claim, _, part = name.partition("/")
    if part:
        evidence.setdefault(claim, {})[part] = interval
    else:
        evidence[claim] = interval
