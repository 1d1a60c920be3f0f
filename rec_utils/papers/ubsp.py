"""User behaviour streaming partition (UBSP), the first module of LIBER.

Zhu et al., "LIBER: Lifelong User Behavior Modeling Based on Large Language Models", arXiv 2411.14713. New
behaviours of a user go into a *short-term cache*. When a condition holds, the cache is closed into a
*partition*, which a language model reads once and nobody reads again, and the cache starts anew. So what is
kept for a user does not grow with the history.

- `Stream` does so one behaviour after another, as a service would.
- `partition` finds the same partitions in a table of ratings at once, and what each sample may see of them.

Which condition the paper uses, and with which numbers, could not be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rec_utils.errors import UserError
from rec_utils.files import write_atomic
from rec_utils.samples import CTRTask
from rec_utils.splits import LeakError


class Behaviour(NamedTuple):
    """One rating."""

    item: int
    rating: float
    time: int  #: seconds


@dataclass(frozen=True)
class Condition:
    """When the short-term cache is closed; with both parts, by whichever comes first."""

    count: int | None = None  #: as soon as it holds this many behaviours
    gap: int | None = (
        None  #: seconds: when a behaviour comes this long after the last; it begins the next cache
    )

    def __post_init__(self) -> None:
        if self.count is None and self.gap is None:
            raise UserError("a partition condition needs a count, a gap or both")
        for name, value in asdict(self).items():
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"{name} must be a whole number from 1 on, not {value!r}")


@dataclass(frozen=True)
class Partition:
    """A closed partition."""

    user: int
    number: int  #: 0 for the user's first
    start: int  #: place of its first behaviour in the user's history
    behaviours: tuple[Behaviour, ...]


@dataclass
class _User:
    number: int = 0  # of the partition that the cache will be
    start: int = 0  # place of the cache's first behaviour
    cache: list[Behaviour] = field(default_factory=list)

    def close(self, user: int) -> Partition:
        closed = Partition(user, self.number, self.start, tuple(self.cache))
        self.number, self.start, self.cache = self.number + 1, self.start + len(self.cache), []
        return closed


class Stream:
    """The short-term caches of all users: behaviours come in one by one, closed partitions go out.

    It keeps one cache a user and no partition. With a gap alone a cache has no upper limit, and neither has
    the prompt that is made of it.
    """

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self._users: dict[int, _User] = {}

    def append(self, user: int, behaviour: Behaviour) -> Partition | None:
        """Take in one behaviour; returns the partition that it closes, if any.

        Raises:
            UserError: it is older than the last one in the cache, and the condition has a gap.
        """
        state = self._users.setdefault(user, _User())
        count, gap = self.condition.count, self.condition.gap
        closed = None
        if gap is not None and state.cache:
            waited = behaviour.time - state.cache[-1].time
            if waited < 0:
                raise UserError(f"user {user}: a behaviour is {-waited} s older than the one before it")
            if waited >= gap:
                closed = state.close(user)
        state.cache.append(behaviour)
        # one behaviour never closes two: after a gap the cache holds one, and with count = 1 it is never
        # found filled
        if len(state.cache) == count:
            closed = state.close(user)
        return closed

    def extend(self, behaviours: Iterable[tuple[int, Behaviour]]) -> list[Partition]:
        """Take in (user, behaviour) pairs in order; returns the partitions that they close, in order."""
        return [closed for user, behaviour in behaviours if (closed := self.append(user, behaviour))]

    def cache(self, user: int) -> tuple[Behaviour, ...]:
        """The short-term cache of a user: what no language model has read yet."""
        return tuple(self._users[user].cache) if user in self._users else ()

    def save(self, path: Path) -> None:
        """Write the state to a JSON file, atomically."""
        users = {user: [state.number, state.start, state.cache] for user, state in self._users.items()}
        write_atomic(path, json.dumps({"condition": asdict(self.condition), "users": users}))

    @classmethod
    def load(cls, path: Path) -> Stream:
        """The stream that was saved; it goes on as if it had never stopped.

        Raises:
            UserError: the file is missing or is not such a state.
        """
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            stream = cls(Condition(**state["condition"]))
            stream._users = {int(user): _User(*_user(saved)) for user, saved in state["users"].items()}
        except FileNotFoundError as error:
            raise UserError(f"{path}: no saved stream is there") from error
        except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} does not hold the state of a stream: {error}") from error
        return stream


def _user(saved: list[Any]) -> tuple[int, int, list[Behaviour]]:
    number, start, cache = saved
    behaviours = [Behaviour(int(item), float(rating), int(time)) for item, rating, time in cache]
    return int(number), int(start), behaviours


@dataclass(frozen=True)
class Partitions:
    """The P closed partitions of T ratings of U users, who stand one after another in time order.

    J is the largest number of partitions of a user, or 1 if there is none.
    """

    user_row: np.ndarray  #: [P]
    number: np.ndarray  #: [P] 0 for a user's first
    start: np.ndarray  #: [P] position of the first behaviour among all ratings
    end: np.ndarray  #: [P] position after the last one
    rows: np.ndarray  #: [U, J] row of each user's partitions, -1 where there is none
    closed: np.ndarray  #: [T] how many of its user's partitions were closed before a rating came


def partition(user_row: np.ndarray, time: np.ndarray, condition: Condition) -> Partitions:
    """What `Stream` closes when the ratings come in this order, and what was closed before each of them.

    A partition that is full is closed by its last behaviour, one that ends in a gap by the next behaviour:
    so the rating that ends a gap does not see it yet.

    Args:
        user_row: [T] from 0, ascending: user by user.
        time: [T] seconds; only a condition with a gap reads it.
        condition: when a cache is closed.

    Raises:
        UserError: the users are not in order; or the times of one are not, and the condition has a gap.
    """
    n, places = len(user_row), np.arange(len(user_row))
    if (np.diff(user_row) < 0).any():
        raise UserError("ratings must stand user by user")
    new_user = np.diff(user_row, prepend=-1) > 0
    # a run is what lies between two gaps; counting starts anew in each
    begins = new_user.copy()
    if condition.gap is not None:
        waited = np.diff(time, prepend=time[:1])
        if (late := np.flatnonzero((waited < 0) & ~new_user)).size:
            raise UserError(f"user row {user_row[late[0]]}: rating {late[0]} is older than the one before it")
        begins |= waited >= condition.gap
    if condition.count is not None:
        begins |= (places - np.maximum.accumulate(np.where(begins, places, 0))) % condition.count == 0
    start = np.flatnonzero(begins)
    end = np.append(start, n)[1:]
    full = end - start == condition.count
    followed = ~np.append(new_user, True)[end]  # by another rating of the same user, after a gap
    start, end, full = (values[full | followed] for values in (start, end, full))

    # those closed by a rating count from the next one on
    events = np.bincount(np.where(full, end - 1, end) + 1, minlength=n + 2).cumsum()[:n]
    of_user = user_row[start]
    first = np.searchsorted(of_user, of_user)
    number = np.arange(len(start)) - first
    rows = np.full((int(user_row.max(initial=-1)) + 1, int(number.max(initial=0)) + 1), -1)
    rows[of_user, number] = np.arange(len(start))
    before_user = events[np.searchsorted(user_row, user_row)]
    return Partitions(of_user, number, start, end, rows, events - before_user)


def of_task(task: CTRTask, condition: Condition) -> Partitions:
    """The partitions that the samples of a task see, none of them too early.

    Raises:
        UserError: see `partition`.
        LeakError: see `check_closed_before`.
    """
    user_row, time = (task.ratings[name].to_numpy() for name in ("user_row", "timestamp"))
    samples = task.samples.user_row.numpy(), task.samples.position.numpy()
    partitions = seen_by(partition(user_row, time, condition), *samples)
    check_closed_before(partitions, *samples)
    return partitions


def seen_by(partitions: Partitions, user_row: np.ndarray, position: np.ndarray) -> Partitions:
    """The partitions that some sample sees: nobody needs to ask a language model about the others.

    Args:
        partitions: of all ratings.
        user_row: [N] of the samples.
        position: [N] of the samples among all ratings; `closed` of the result is 0 elsewhere.
    """
    most = np.zeros(len(partitions.rows), int)
    np.maximum.at(most, user_row, partitions.closed[position])
    kept = partitions.number < most[partitions.user_row]
    closed = np.zeros_like(partitions.closed)
    closed[position] = partitions.closed[position]
    new_row = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last one for -1
    return Partitions(
        user_row=partitions.user_row[kept],
        number=partitions.number[kept],
        start=partitions.start[kept],
        end=partitions.end[kept],
        rows=new_row[partitions.rows][:, : max(1, most.max(initial=0))],
        closed=closed,
    )


def check_closed_before(partitions: Partitions, user_row: np.ndarray, position: np.ndarray) -> None:
    """Stop if a sample sees a partition of another user, or one that was not over when the sample came.

    Args:
        partitions: with the counts that a model goes by.
        user_row: [N] of the samples.
        position: [N] of the samples among all ratings.

    Raises:
        LeakError: it names the first such sample.
    """
    count, never = partitions.closed[position], len(partitions.closed) + 1
    # when a user's first 1, 2, … partitions are all over: never, if one is not there or is another's
    users = np.arange(len(partitions.rows))[:, None]
    own = np.append(partitions.user_row, -1)[partitions.rows] == users
    over = np.where(own, np.append(partitions.end, never)[partitions.rows], never)
    over = np.pad(np.maximum.accumulate(over, axis=1), ((0, 0), (1, 1)), constant_values=((0, 0), (0, never)))
    late = np.flatnonzero(over[user_row, count.clip(max=over.shape[1] - 1)] > position)
    if late.size:
        first = late[0]
        raise LeakError(
            f"sample {first} (user row {user_row[first]}, rating {position[first]}) sees {count[first]}"
            " partitions, which are not all its user's and over by then"
        )
