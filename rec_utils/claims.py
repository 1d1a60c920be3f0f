"""From measured intervals to verdicts on a paper's claims.

A claim says on which side of a null value a number lies, and in which band it would match the paper
(`rec_utils.cards`). Given the number with its confidence interval, the status is

    matched            the interval excludes the null on the claimed side, and the value is in the band
    partly             the interval excludes the null on the claimed side, but the value is outside the band
    not matched        the interval contains the null or lies on the other side
    not testable here  no number can be had here; the reason is given

So a status never rests on a point value alone, and a run without effect cannot match anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rec_utils.cards import Card, Claim, card_ids, load_card
from rec_utils.errors import UserError

if TYPE_CHECKING:
    from rec_utils.stats import Interval

__all__ = [
    "FRAGILE",
    "LEVEL",
    "STATUSES",
    "NotTestable",
    "Verdict",
    "card_ids",
    "check",
    "judge",
    "load_card",
]

MATCHED, PARTLY, NOT_MATCHED, NOT_TESTABLE = STATUSES = (
    "matched",
    "partly",
    "not matched",
    "not testable here",
)

#: Confidence level of every interval that decides a claim.
LEVEL = 0.95

#: A verdict whose interval ends closer to the null than this share of its half-width is called fragile.
FRAGILE = 0.25


@dataclass(frozen=True)
class NotTestable:
    """Given to `check` in place of an interval, with the reason why there is none."""

    reason: str


@dataclass(frozen=True)
class Verdict:
    """The status of one claim in one run; the numbers are None where the claim was not testable."""

    claim: str  #: id of the claim
    status: str  #: one of `STATUSES`
    text: str  #: the claim in words
    ours: bool  #: a control of our own, not a claim of the paper
    unit: str
    null: float
    band: tuple[float, float]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None  #: see `margin`
    decided_by: str = ""  #: name of the interval that decided, where the claim needs several
    reason: str = ""  #: why it is not testable here

    @property
    def fragile(self) -> bool:
        """True if the interval ends so close to the null that another seed or fold may flip the status."""
        return self.margin is not None and abs(self.margin) < FRAGILE


def margin(claim: Claim, interval: Interval) -> float:
    """Distance of the deciding bound from the null, in half-widths of the interval.

    Positive if the interval excludes the null on the claimed side, 0 if it just touches it, -1 if the
    null is the middle of the interval; infinite for an interval of no width away from the null.
    """
    greater = claim.direction == "greater"
    distance = interval.low - claim.null_value if greater else claim.null_value - interval.high
    half_width = (interval.high - interval.low) / 2
    if half_width == 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / half_width


def check(
    card: Card, evidence: Mapping[str, Interval | Mapping[str, Interval] | NotTestable]
) -> list[Verdict]:
    """Verdicts on all claims of a card, in the card's order.

    `evidence` gives for each claim id an interval, or several named ones that must all support the claim
    ("on every backbone": the weakest decides), or `NotTestable`. Claims that the card itself declares not
    testable need no entry. Raises `UserError` for a claim without evidence, evidence for an unknown claim
    or for one that the card declares not testable, and an interval that is not finite, not ordered or not
    of level `LEVEL`.
    """
    for claim_id in evidence:
        if card.claim(claim_id).not_testable:
            raise UserError(
                f"card {card.id}: claim {claim_id!r} is declared not testable, but evidence was given"
            )
    verdicts = []
    for claim in card.claims:
        given = NotTestable(claim.not_testable) if claim.not_testable else evidence.get(claim.id)
        if given is None or given == {}:
            raise UserError(
                f"card {card.id}: claim {claim.id!r} has no evidence; give an interval or NotTestable(reason)"
            )
        try:
            verdicts.append(judge(claim, given))
        except UserError as error:
            raise UserError(f"card {card.id}: {error}") from None
    return verdicts


def judge(claim: Claim, given: Interval | Mapping[str, Interval] | NotTestable) -> Verdict:
    """Verdict on one claim; see `check`."""
    common = {
        "claim": claim.id,
        "text": claim.text,
        "ours": claim.ours,
        "unit": claim.unit,
        "null": claim.null_value,
        "band": (claim.band[0], claim.band[1]),
    }
    if isinstance(given, NotTestable):
        if not given.reason:
            raise UserError(f"claim {claim.id!r} is called not testable without a reason")
        return Verdict(status=NOT_TESTABLE, reason=given.reason, **common)
    intervals = given if isinstance(given, Mapping) else {"": given}
    for name, interval in intervals.items():
        value, low, high = interval.value, interval.low, interval.high
        at = f"claim {claim.id!r}" + (f", {name}" if name else "")
        if not all(map(math.isfinite, (value, low, high))) or low > high:
            raise UserError(f"{at}: {value} [{low}, {high}] is not a finite interval")
        if interval.level != LEVEL:
            raise UserError(f"{at}: verdicts need {LEVEL:.0%} intervals, not one of {interval.level:.0%}")
    # the worst status first; among equals the one closest to falling
    name, interval = min(
        intervals.items(), key=lambda item: (-STATUSES.index(_status(claim, item[1])), margin(claim, item[1]))
    )
    return Verdict(
        status=_status(claim, interval),
        value=float(interval.value),
        low=float(interval.low),
        high=float(interval.high),
        margin=margin(claim, interval),
        decided_by=name,
        **common,
    )


def _status(claim: Claim, interval: Interval) -> str:
    if margin(claim, interval) <= 0:
        return NOT_MATCHED
    return MATCHED if claim.band[0] <= interval.value <= claim.band[1] else PARTLY
