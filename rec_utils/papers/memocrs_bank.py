"""MemoCRS' user-specific memory: a bank of entities for every user.

An entry of a bank is entity -> (attitude, time of the last operation on it); see Xi et al., CIKM 2024,
arXiv 2407.04960. The operations are add, merge, retrieve and delete. A bank with a budget deletes what was
not touched for longest. An empty answer of `retrieve` is the paper's cold start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from rec_utils.errors import UserError
from rec_utils.files import write_atomic

#: (queries [Q], entities [E]) -> similarities [Q, E], above 0 where they have anything in common
Similarity = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def opinion(attitude: str) -> int:
    """What an attitude says by its first words: 1 for likes and wants to see, -1 for dislikes, else 0."""
    said = attitude.strip().casefold()
    return (
        1 if said.startswith(("like", "love", "want")) else -1 if said.startswith(("dislike", "hate")) else 0
    )


def merge(old: str, new: str) -> str:
    """The attitude that is kept of two to one entity: the newer one, unless only the older holds an opinion.

    Where the two disagree, the older one is kept in brackets. The paper lets a language model write the
    merged attitude [reconstruction: this rule stands in for it].
    """
    if opinion(new) == 0 and opinion(old) != 0:
        return old
    past = old.partition(" (earlier: ")[0]
    return f"{new} (earlier: {past})" if opinion(new) * opinion(old) < 0 else new


@dataclass(frozen=True)
class Entry:
    """One entry of a bank."""

    entity: str
    attitude: str
    time: int  #: of the last operation on it


@dataclass
class MemoryBank:
    """The memory of one user; `budget` is the number of entries it may hold, None for any.

    Times are whole numbers of any clock that does not run backwards.
    """

    budget: int | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    now: int = -1  #: time of the last operation of all

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise UserError(f"The budget of a memory must be at least 1 entry, not {self.budget}.")

    def __len__(self) -> int:
        return len(self.entries)

    def write(self, pairs: Iterable[tuple[str, str]], time: int) -> None:
        """Take in the (entity, attitude) pairs of a finished session: add or merge each, then delete.

        Pairs without an opinion are not added, since they say nothing about the user.
        """
        self._tick(time)
        for entity, attitude in pairs:
            old = self.entries.pop(entity, None)  # the touched entry moves to the end
            if old is not None:
                attitude = merge(old.attitude, attitude)
            elif opinion(attitude) == 0:
                continue
            self.entries[entity] = Entry(entity, attitude, time)
        self._delete()

    def retrieve(self, queries: Sequence[str], k: int, similarity: Similarity, time: int) -> list[Entry]:
        """The k entries most like each query, their time set to `time`; in the order of the bank.

        Without a query, as before the first word of a session, the k entries touched last. An entry that has
        nothing in common with a query is not retrieved for it.
        """
        self._tick(time)
        names = list(self.entries)
        if not names:
            return []
        if queries:
            likeness = np.asarray(similarity(queries, names), dtype=np.float64)
            # of equally similar entries the one touched last; rounding keeps the choice the same everywhere
            order = np.argsort(-likeness[:, ::-1].round(9), axis=1, kind="stable")[:, :k]
            best = len(names) - 1 - order
            chosen = np.unique(best[np.take_along_axis(likeness, best, axis=1) > 0])
        else:
            chosen = np.arange(max(len(names) - k, 0), len(names))
        found = [names[place] for place in chosen]
        for name in found:
            old = self.entries.pop(name)
            self.entries[name] = Entry(name, old.attitude, time)
        return [self.entries[name] for name in found]

    def _tick(self, time: int) -> None:
        if time < self.now:
            raise UserError(f"The memory was last used at time {self.now}, so time {time} is in its past.")
        self.now = time

    def _delete(self) -> None:
        """Drop the entries with the oldest last operation, which stand first, until the budget is kept."""
        if self.budget is not None:
            for entity in list(self.entries)[: max(len(self.entries) - self.budget, 0)]:
                del self.entries[entity]


@dataclass
class MemoryBanks:
    """The banks of many users, each apart from the others; a new user gets an empty one."""

    budget: int | None = None
    banks: dict[int, MemoryBank] = field(default_factory=dict)

    def __getitem__(self, user: int) -> MemoryBank:
        return self.banks.setdefault(int(user), MemoryBank(self.budget))

    def save(self, path: Path) -> None:
        """Write all banks to one JSON file."""
        banks = {
            user: {"now": bank.now, "entries": [asdict(entry) for entry in bank.entries.values()]}
            for user, bank in self.banks.items()
        }
        write_atomic(path, json.dumps({"budget": self.budget, "banks": banks}, ensure_ascii=False, indent=1))

    @classmethod
    def load(cls, path: Path) -> MemoryBanks:
        """Read banks that `save` wrote.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            budget = held["budget"]
            banks = {
                int(user): MemoryBank(
                    budget, {row["entity"]: Entry(**row) for row in bank["entries"]}, bank["now"]
                )
                for user, bank in held["banks"].items()
            }
        except FileNotFoundError:
            raise UserError(f"There is no memory at {path}.") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} holds no memory banks ({type(error).__name__}: {error}).") from None
        return cls(budget, banks)
