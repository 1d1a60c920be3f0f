"""What the benchmark of training and inference wants to show, and whether a race shows it."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

PEERS = ("fuxictr", "recbole", "deepctr", "rechub")
BOTH = ("train", "predict")


@dataclass(frozen=True)
class Goal:
    """A bound on the time of one contender divided by the time of another; without one it is only told."""

    above: str
    below: str
    at_least: float | None = None
    at_most: float | None = None
    of: tuple[str, ...] = BOTH  #: what is timed


#: The loop costs little more than the bare one, every peer at least half as much again, KAR with stored text
#: vectors at most half as much again as its base. What the usual form of DIN's attention costs has no bound.
GOALS = (
    Goal("loop", "bare", at_most=1.1),
    *(Goal(peer, "loop", at_least=1.5) for peer in PEERS),
    Goal("kar", "loop", at_most=1.5, of=("train",)),
    Goal("plain", "bare"),
)


def contenders(model: str, skipped: Collection[str]) -> list[str]:
    """Who runs for a model."""
    only_din = ("plain", "kar") if model == "DIN" else ()
    return ["loop", "bare", *only_din, *(peer for peer in PEERS if peer not in skipped)]


def judge(raced: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ratios of a race, by the goals.

    Args:
        raced: contender -> what is timed -> "processor" and "clock", the seconds of every counted round.

    Returns:
        For each goal whose contenders took part: above, below, bounds, of, the median, least and greatest
        ratio of the processor's time over the rounds, the median by the clock, and met (None without bound).
    """
    return [
        asdict(goal) | {"of": of} | _ratio(goal, raced[goal.above][of], raced[goal.below][of])
        for goal in GOALS
        if goal.above in raced and goal.below in raced
        for of in goal.of
    ]


def _ratio(goal: Goal, above: Mapping[str, list[float]], below: Mapping[str, list[float]]) -> dict[str, Any]:
    by = {
        clock: [a / b for a, b in zip(above[clock], below[clock], strict=True)]
        for clock in ("processor", "clock")
    }
    ratio, met = statistics.median(by["processor"]), None
    if goal.at_least is not None:
        met = ratio >= goal.at_least
    elif goal.at_most is not None:
        met = ratio <= goal.at_most
    return {
        "ratio": ratio,
        "least": min(by["processor"]),
        "greatest": max(by["processor"]),
        "by the clock": statistics.median(by["clock"]),
        "met": met,
    }
