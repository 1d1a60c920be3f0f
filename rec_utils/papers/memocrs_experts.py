"""MemoCRS' collaborative knowledge: experts that know from training sessions what is named together.

An expert is fitted on training dialogues and scores all M movies for each context from what its dialogue has
named. The paper's expert is not known in detail; these are co-occurrence, item-based neighbours and (in
`memocrs_sequential`) a sequential model [reconstruction].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from rec_utils.dialogues import Dialogues
from rec_utils.papers.memocrs_contexts import session_movies


class Expert(Protocol):
    """What gives candidates."""

    popularity: np.ndarray  #: [M] training sessions that name the movie

    def scores(self, named: sparse.csr_array) -> np.ndarray:
        """Scores [C, M], float32, at least 0, from what was named [C, M]; see `Contexts.named`."""
        ...


@dataclass(frozen=True)
class Popularity:
    """Always the movies that most training sessions name."""

    popularity: np.ndarray

    @classmethod
    def fit(cls, train: Dialogues) -> Popularity:
        """Count the sessions of each movie."""
        return cls(np.asarray(session_movies(train).sum(0)).ravel())

    def scores(self, named: sparse.csr_array) -> np.ndarray:
        """See `Expert`."""
        return np.tile(self.popularity.astype(np.float32), (named.shape[0], 1))


@dataclass(frozen=True)
class Neighbours:
    """Score of j = sum over the movies i named of W_ij, plus a little for how popular j is.

    W_ij is `together`, the share of sessions with i that also name j, shrunk to 0 where i is rare:
    n_ij / (n_i + shrink). Of items (`cosine`), it is n_ij / sqrt((n_i + shrink) (n_j + shrink)).
    """

    popularity: np.ndarray
    weights: sparse.csr_array  #: [M, M], rows of what was named

    @classmethod
    def fit(cls, train: Dialogues, cosine: bool = False, shrink: float = 20.0) -> Neighbours:
        """Count the sessions that name two movies."""
        sessions = session_movies(train)
        popularity = np.asarray(sessions.sum(0)).ravel()
        together = (sessions.T @ sessions).tocsr()
        together.setdiag(0)
        together.eliminate_zeros()
        own = 1 / (popularity + shrink)
        rows = sparse.diags_array(np.sqrt(own) if cosine else own)
        columns = sparse.diags_array(np.sqrt(own) if cosine else np.ones_like(own))
        return cls(popularity, sparse.csr_array(rows @ together @ columns))

    def scores(self, named: sparse.csr_array) -> np.ndarray:
        """See `Expert`."""
        scores = (named.sign() @ self.weights).toarray().astype(np.float32)
        scores += np.float32(0.01 / self.popularity.max()) * self.popularity.astype(np.float32)
        return scores
