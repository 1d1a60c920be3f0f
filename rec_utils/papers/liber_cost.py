"""What LIBER costs in calls of a language model and in tokens, beside other ways to keep texts up to date.

No model is needed: what a user with n behaviours has caused follows from n and from the size K of a
partition (see `ubsp`; closed by count alone). Four policies are compared:

- *LIBER*: a summary of each partition when it is closed; from the second on, also the shift to it;
- *whole history*: at the same moments, a summary of everything so far;
- *every behaviour*: a summary of everything so far at each new behaviour, from the K-th on;
- *once*: a summary of the first K behaviours, as KAR makes it.

The tokens of LIBER grow like n, those of the next two like n².
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from rec_utils.errors import UserError
from rec_utils.knowledge.encoder import token_counts
from rec_utils.knowledge.request import Response
from rec_utils.papers.ubsp import Condition


@dataclass(frozen=True)
class Tokens:
    """Mean numbers of tokens in the parts of a call."""

    behaviour: float  #: one rated item in the request for a summary
    summary_prompt: float  #: the rest of that request, with its system text
    summary: float  #: its answer
    shift_prompt: float  #: the request for a shift, with its system text, without the two summaries in it
    shift: float  #: its answer

    @classmethod
    def measured(cls, answers: Iterable[Response], count: int) -> Tokens:
        """Means over stored requests and answers, in the vocabulary of `token_counts`.

        Args:
            answers: summaries and shifts.
            count: behaviours in each partition. A profile in the requests is counted with them.

        Raises:
            UserError: there is no summary or no shift.
        """
        by_purpose: dict[str, list[Response]] = {"interest_summary": [], "interest_shift": []}
        for answer in answers:
            by_purpose[answer.request.purpose].append(answer)
        summaries, shifts = by_purpose.values()
        if not summaries or not shifts:
            raise UserError("tokens cannot be measured: there is no summary or no shift")
        summary = _mean(answer.text for answer in summaries)
        asked = _mean(f"{answer.request.system}\n{answer.request.prompt}" for answer in shifts)
        return cls(
            behaviour=_mean(answer.request.prompt for answer in summaries) / count,
            summary_prompt=_mean(answer.request.system for answer in summaries),
            summary=summary,
            shift_prompt=asked - 2 * summary,
            shift=_mean(answer.text for answer in shifts),
        )


def _mean(texts: Iterable[str]) -> float:
    return float(token_counts(list(texts)).mean())


class Cost(NamedTuple):
    """What each of some users has caused so far, [U] each."""

    calls: np.ndarray
    read: np.ndarray  #: tokens that the language model has read
    written: np.ndarray  #: tokens that it has written
    longest: np.ndarray  #: tokens of the longest prompt

    @property
    def tokens(self) -> np.ndarray:
        """Read and written."""
        return self.read + self.written


def costs(n: np.ndarray, count: int, tokens: Tokens) -> dict[str, Cost]:
    """What users with `n` [U] behaviours have caused under each policy, in closed form.

    Args:
        n: behaviours of each user.
        count: K, behaviours in a partition.
        tokens: in the parts of a call.

    Raises:
        UserError: `count` is no whole number from 1 on.
    """
    Condition(count=count)  # refuses a bad one

    def summaries(calls: np.ndarray, behaviours: np.ndarray, longest: np.ndarray) -> Cost:
        """Calls that read so many behaviours, together and in the longest of them."""
        prompts, written = tokens.summary_prompt * calls, tokens.summary * calls
        longest_prompt = (calls > 0) * (tokens.summary_prompt + tokens.behaviour * longest)
        return Cost(calls, prompts + tokens.behaviour * behaviours, written, longest_prompt)

    closed = n // count
    any_closed = np.minimum(closed, 1)
    updates = np.maximum(n - count + 1, 0)
    own = summaries(closed, count * closed, count * any_closed)
    shifts, shift_prompt = closed - any_closed, tokens.shift_prompt + 2 * tokens.summary
    return {
        "LIBER": Cost(
            own.calls + shifts,
            own.read + shift_prompt * shifts,
            own.written + tokens.shift * shifts,
            np.maximum(own.longest, shift_prompt * (shifts > 0)),
        ),
        "whole history": summaries(closed, count * closed * (closed + 1) // 2, count * closed),
        "every behaviour": summaries(updates, updates * (count + n) // 2, n),
        "once": summaries(any_closed, count * any_closed, count * any_closed),
    }


def totals(lengths: np.ndarray, count: int, tokens: Tokens) -> pd.DataFrame:
    """What all users together have caused at the end: one row a policy, in the order of `costs`.

    Args:
        lengths: [U] behaviours of each user.
        count: K, behaviours in a partition.
        tokens: in the parts of a call.

    Returns:
        Columns calls, tokens read, tokens written, and longest prompt in tokens.
    """
    rows = {
        policy: {
            "calls": cost.calls.sum(),
            "tokens read": cost.read.sum(),
            "tokens written": cost.written.sum(),
            "longest prompt": cost.longest.max(),
        }
        for policy, cost in costs(lengths, count, tokens).items()
    }
    return pd.DataFrame(rows.values(), index=pd.Index(rows, name="policy"))


def over_stream(place: np.ndarray, count: int, tokens: Tokens, points: int = 200) -> pd.DataFrame:
    """Calls and tokens (read and written) of each policy so far, while the behaviours of all users come in.

    Args:
        place: [T] of each behaviour in its user's history, 0 for the first, in order of arrival.
        count: K, behaviours in a partition.
        tokens: in the parts of a call.
        points: about how many moments to tell, evenly spread; the last behaviour is one of them.

    Returns:
        Columns policy, behaviours (that have come), calls, tokens; policy by policy.
    """
    behaviours = np.unique(np.linspace(1, len(place), points).round().astype(int))
    parts = []
    for policy, cost in costs(np.arange(place.max() + 2), count, tokens).items():
        curve = {"policy": policy, "behaviours": behaviours}
        for name in ("calls", "tokens"):
            # what the n-th behaviour of a user adds does not depend on the user
            curve[name] = np.diff(getattr(cost, name))[place].cumsum()[behaviours - 1]
        parts.append(pd.DataFrame(curve))
    return pd.concat(parts, ignore_index=True)


def growth(lengths: np.ndarray, count: int, tokens: Tokens) -> pd.Series:
    """Exponent with which each policy's tokens (read and written) grow with the length of a history.

    The slope of log tokens on log length: 1 is linear, 2 quadratic. Those are limits; in short histories
    the parts of a call that do not grow weigh in as well.

    Args:
        lengths: [n] of histories, such as 10 K, 20 K and 40 K.
        count: K, behaviours in a partition.
        tokens: in the parts of a call.

    Raises:
        UserError: there are no two lengths, or one is shorter than a partition.
    """
    if len(np.unique(lengths)) < 2 or lengths.min() < count:
        raise UserError(f"growth needs two lengths or more, from {count} on, not {lengths.tolist()}")
    return pd.Series(
        {
            policy: np.polyfit(np.log(lengths), np.log(cost.tokens), 1)[0]
            for policy, cost in costs(lengths, count, tokens).items()
        }
    )
