"""MemoCRS turn by turn: banks grow session by session, and every turn retrieves from what came before.

Nothing of a session enters its seeker's bank before the session is over, so the memory of a turn holds
earlier sessions only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from rec_utils.dialogues import Dialogues
from rec_utils.papers.memocrs_bank import MemoryBank, MemoryBanks, opinion
from rec_utils.papers.memocrs_contexts import Contexts
from rec_utils.papers.memocrs_genres import GENRES, WORDS

_EXTRACTED = ("session_id", "entity", "attitude")


class EntitySpace:
    """Which entities are alike: films by who names them together and by genre, genres by the films of them.

    The likeness is the cosine of co-occurrence in training sessions plus a tenth of the cosine of genres. An
    entity that is neither a film of the catalog nor speaks of a genre is like nothing else.
    """

    def __init__(self, movies: pd.DataFrame, genres: sparse.csr_array, cosine: sparse.csr_array) -> None:
        """`genres` [M, G] and `cosine` [M, M] as of `movie_genres` and of `Neighbours` of items."""
        self.n_movies = len(movies)
        known = np.vstack([genres.toarray(), np.eye(len(GENRES))])
        self.genres = known / np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1)
        self.cosine = cosine
        self._codes = _Codes(zip(movies["title"][::-1], range(self.n_movies - 1, -1, -1), strict=True))
        self._codes |= {genre: self.n_movies + column for column, genre in enumerate(GENRES)}
        self._row = np.zeros(len(known) + 1)  # a dense row of `cosine`; the last stands for unknown entities

    def codes(self, entities: Sequence[str]) -> np.ndarray:
        """Row of each entity [E] among the M films and G genres, -1 for neither."""
        return np.array([self._codes[entity] for entity in entities], dtype=np.int64)

    def similarity(self, queries: Sequence[str], entities: Sequence[str]) -> np.ndarray:
        """How alike two lists of entities are, [Q, E]; 1 and more for the same, 0 for nothing in common."""
        q, e = self.codes(queries), self.codes(entities)
        alike = 0.1 * self.genres[q] @ self.genres[e].T + (q[:, None] == e)
        for number, film in enumerate(q):
            if film < self.n_movies:
                columns = slice(self.cosine.indptr[film], self.cosine.indptr[film + 1])
                self._row[self.cosine.indices[columns]] = self.cosine.data[columns]
                alike[number] += self._row[e]
                self._row[self.cosine.indices[columns]] = 0
        return alike * (q >= 0)[:, None] * (e >= 0)


class _Codes(dict):
    """Rows of entities; one that is not there has the row of the first genre that it speaks of, else -1."""

    def __missing__(self, entity: str) -> int:
        spoken = (g for g, words in WORDS.items() if re.search(rf"\b(?:{words})\b", entity.casefold()))
        self[entity] = self[genre] if (genre := next(spoken, None)) else -1
        return self[entity]


@dataclass(frozen=True)
class Recalled:
    """What the memories gave for C contexts."""

    table: pd.DataFrame  #: row (of the context), entity, attitude; in the order of the bank
    held: np.ndarray  #: [C] entries in the seeker's bank at that time
    banks: MemoryBanks  #: as they are in the end

    def select(self, rows: np.ndarray) -> Recalled:
        """What was given for the contexts `rows`, in that order."""
        place = pd.DataFrame({"row": rows, "place": range(len(rows))})
        table = self.table.merge(place, on="row").assign(row=lambda each: each.pop("place"))
        return Recalled(table, self.held[rows], self.banks)

    def matrix(self, space: EntitySpace, sign: int) -> sparse.csr_array:
        """[C, M + G] 1 where an entity was recalled with the opinion `sign` (1 or -1)."""
        rows = self.table[self.table["attitude"].map(opinion) == sign]
        codes = space.codes(rows["entity"])
        shape = (len(self.held), space.n_movies + len(GENRES))
        values = (np.ones((codes >= 0).sum()), (rows["row"].to_numpy()[codes >= 0], codes[codes >= 0]))
        matrix = sparse.csr_array(values, shape=shape)
        return matrix.sign()


def recall(
    dialogues: Dialogues,
    contexts: Contexts,
    extracted: pd.DataFrame,
    space: EntitySpace,
    k: int = 3,
    budget: int | None = None,
) -> Recalled:
    """Live through all sessions in time: retrieve for every context, then take in the session's entities.

    Args:
        dialogues: all sessions of the seekers.
        contexts: contexts of these sessions.
        extracted: session_id, entity, attitude; sessions without rows leave the memory as it is.
        space: tells which entities are alike.
        k: entries retrieved for each film named and genre asked for so far, see `MemoryBank.retrieve`.
        budget: entries that a bank may hold.
    """
    banks, rows, held = MemoryBanks(budget), [], np.zeros(len(contexts), dtype=np.int64)
    for bank, row, time, queries in _operations(dialogues, contexts, extracted, banks):
        if row is None:
            bank.write(queries, time)
        else:
            held[row] = len(bank)
            found = bank.retrieve(queries, k, space.similarity, time)
            rows += [(row, entry.entity, entry.attitude) for entry in found]
    return Recalled(pd.DataFrame(rows, columns=["row", "entity", "attitude"]), held, banks)


def _operations(
    dialogues: Dialogues, contexts: Contexts, extracted: pd.DataFrame, banks: MemoryBanks
) -> Iterator[tuple[MemoryBank, int | None, int, list]]:
    """(bank, context or None when a session ends, time, queries or the session's pairs), in time order."""
    titles, named = dialogues.movies["title"].to_numpy(), contexts.named
    pairs = defaultdict(list)
    for session, entity, attitude in zip(*(extracted[name] for name in _EXTRACTED), strict=True):
        pairs[session].append((entity, attitude))
    ends = dialogues.turns[["session_id"]].drop_duplicates(keep="last").reset_index(names="time")
    ends = ends.merge(dialogues.sessions[["session_id", "seeker"]], on="session_id").assign(row=-1)
    turns = contexts.table[["session_id", "time", "seeker"]].reset_index(names="row")
    # at the last turn of a session, the question comes before the session ends
    steps = pd.concat([turns, ends]).sort_values("time", kind="stable")
    for row, session, time, seeker in steps[["row", "session_id", "time", "seeker"]].itertuples(index=False):
        if row < 0:
            yield banks[seeker], None, time, pairs[session]
        else:
            films = titles[named.indices[named.indptr[row] : named.indptr[row + 1]]]
            asked = [
                genre for genre, is_wanted in zip(GENRES, contexts.wanted[row], strict=True) if is_wanted
            ]
            yield banks[seeker], row, time, [*films, *asked]
