"""MemoCRS' refinement without a language model: a linear ranking whose weights are learnt by reflection.

The score of movie j in a context is sum_f w_f x_f(j) over the signals of `SIGNALS`. Reflection follows the
paper's rule that only successful traces teach: of the training turns, those whose movie is among the
candidates of the expert. There the weights maximise the likelihood of that movie among the candidates,

    sum over traces of log softmax(w x)[true] - |w|^2 / 2,

and said in words they are the guidelines [reconstruction: the paper's guidelines are written by a language
model].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import optimize, sparse, special

from rec_utils.errors import UserError
from rec_utils.papers.memocrs_contexts import Contexts
from rec_utils.papers.memocrs_experts import Expert
from rec_utils.papers.memocrs_recall import EntitySpace, Recalled

#: Weights from which on a guideline is given, and is a strong one.
_MATTERS, _STRONG = 0.1, 0.4


@dataclass(frozen=True)
class Evidence:
    """All that is known at C contexts."""

    contexts: Contexts
    expert: Expert
    space: EntitySpace
    recalled: Recalled
    history: sparse.csr_array  #: [C, M] 1 where the movie was named in an earlier session of the seeker

    def select(self, rows: np.ndarray) -> Evidence:
        """What is known at the contexts `rows`, in that order."""
        return replace(
            self,
            contexts=self.contexts.select(rows),
            recalled=self.recalled.select(rows),
            history=self.history[rows],
        )

    @property
    def movie_genres(self) -> np.ndarray:
        """[M, G] genres, rows of length 1."""
        return self.space.genres[: self.space.n_movies]

    @cached_property
    def opinions(self) -> sparse.csr_array:
        """[C, M + G] 1 for what is remembered as liked, -1 for disliked."""
        return self.recalled.matrix(self.space, 1) - self.recalled.matrix(self.space, -1)


#: Which values of a matrix [C, M] are wanted: a NumPy index, `...` for all.
At = Any


def _expert(known: Evidence, at: At) -> np.ndarray:
    return _log_share(known.expert.scores(known.contexts.named), at)


def _popularity(known: Evidence, at: At) -> np.ndarray:
    share = _log_share(known.expert.popularity[None].astype(np.float32), ...)
    return np.broadcast_to(share, known.contexts.named.shape)[at]


def _genres_now(known: Evidence, at: At) -> np.ndarray:
    spoken = known.contexts.wanted + known.contexts.named.sign() @ known.movie_genres
    return _cosine(spoken, known.movie_genres)[at]


def _history_repeat(known: Evidence, at: At) -> np.ndarray:
    return known.history.astype(np.float32).toarray()[at]


def _history_genres(known: Evidence, at: At) -> np.ndarray:
    return _cosine(known.history @ known.movie_genres, known.movie_genres)[at]


def _history_expert(known: Evidence, at: At) -> np.ndarray:
    return _log_share(known.expert.scores(_before(known, known.history)), at)


def _memory_repeat(known: Evidence, at: At) -> np.ndarray:
    return known.opinions[:, : known.space.n_movies].astype(np.float32).toarray()[at]


def _memory_genres(known: Evidence, at: At) -> np.ndarray:
    return _cosine(known.opinions @ known.space.genres, known.movie_genres)[at]


def _memory_expert(known: Evidence, at: At) -> np.ndarray:
    liked = known.recalled.matrix(known.space, 1)[:, : known.space.n_movies]
    return _log_share(known.expert.scores(_before(known, liked)), at)


#: Signal -> its values [C, M] for all movies, and the words for it in the guidelines.
SIGNALS: Mapping[str, tuple[Callable[[Evidence, At], np.ndarray], str]] = MappingProxyType(
    {
        "expert": (_expert, "films that other people's dialogues name together with this dialogue's films"),
        "popularity": (_popularity, "films that many dialogues name"),
        "genres_now": (_genres_now, "films of the genres spoken of in this dialogue"),
        "history_repeat": (_history_repeat, "films named in the seeker's earlier dialogues"),
        "history_genres": (_history_genres, "films of the genres of the seeker's earlier dialogues"),
        "history_expert": (
            _history_expert,
            "films named together with those of the seeker's earlier dialogues",
        ),
        "memory_repeat": (_memory_repeat, "films that the seeker is remembered to like"),
        "memory_genres": (_memory_genres, "films of the genres that the seeker is remembered to like"),
        "memory_expert": (
            _memory_expert,
            "films named together with those that the seeker is remembered to like",
        ),
    }
)


def signal(name: str, known: Evidence, at: At = ...) -> np.ndarray:
    """Values, float32, of one signal: of all movies [C, M], or those at an index of that matrix."""
    return SIGNALS[name][0](known, at)


@dataclass(frozen=True)
class Guidelines:
    """Weights of the signals, and what they were learnt from."""

    weights: Mapping[str, float]  #: signal -> weight of the signal divided by its spread
    spread: Mapping[str, float]  #: signal -> standard deviation inside a candidate list
    n_traces: int  #: training turns
    n_successes: int  #: those whose movie was among the candidates

    def scores(self, known: Evidence) -> np.ndarray:
        """Scores [C, M], float32."""
        total = np.zeros(known.contexts.named.shape, dtype=np.float32)
        for name, weight in self.weights.items():
            total += np.float32(weight / self.spread[name]) * signal(name, known)
        return total

    def unlearnt(self) -> Guidelines:
        """The same signals, all with weight 1: what a ranking is without reflection."""
        return Guidelines(dict.fromkeys(self.weights, 1.0), self.spread, 0, 0)

    def text(self) -> str:
        """One sentence for each signal that matters, the strongest first."""
        ordered = sorted(self.weights.items(), key=lambda item: -abs(item[1]))
        advice = [
            f"{_advice(weight)} {SIGNALS[name][1]}." for name, weight in ordered if abs(weight) >= _MATTERS
        ]
        return "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(advice, 1))


@dataclass(frozen=True)
class Traces:
    """What reflection reads: lists of candidates of training turns with all signals."""

    values: np.ndarray  #: [successes, candidates, signals in the order of `SIGNALS`], the true movie first
    n_traces: int  #: movies to be predicted, whether among the candidates or not

    @classmethod
    def of(cls, known: Evidence, n_candidates: int = 50) -> Traces:
        """The traces of training turns; the expert was fitted without their sessions.

        `n_candidates` is the length of the expert's lists of movies that the dialogue has not named yet.
        """
        rows, true = known.contexts.context, known.contexts.target
        listed = candidates(known.expert.scores(known.contexts.named), known.contexts, n_candidates)[rows]
        is_true = listed == true[:, None]
        success = is_true.any(axis=1)
        # a stable sort by "is not the true one" puts the true one first
        order = np.argsort(~is_true[success], axis=1, kind="stable")
        columns = np.take_along_axis(listed[success], order, axis=1)
        values = [signal(name, known, (rows[success][:, None], columns)) for name in SIGNALS]
        return cls(np.stack(values, axis=-1).astype(np.float64), len(true))

    @classmethod
    def join(cls, parts: Sequence[Traces]) -> Traces:
        """The traces of several parts of the training dialogues."""
        return cls(np.concatenate([part.values for part in parts]), sum(part.n_traces for part in parts))


def reflect(traces: Traces, signals: Sequence[str]) -> Guidelines:
    """Learn the weights of the named `signals` from the successful traces.

    Raises:
        UserError: no signal is named, or no trace is successful.
    """
    if not signals:
        raise UserError(f"Reflection needs at least one signal of {', '.join(SIGNALS)}.")
    if len(traces.values) == 0:
        raise UserError(
            "No list of candidates holds the movie recommended, so there is nothing to learn from."
        )
    values = traces.values[:, :, [list(SIGNALS).index(name) for name in signals]]
    spread = values.std(axis=1).mean(axis=0)
    # a signal that is the same for all candidates can be given any weight
    spread[spread == 0] = 1
    scaled = values / spread

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = scaled @ weights
        chance = special.softmax(scores, axis=1)
        gap = np.einsum("nkf,nk->f", scaled, chance) - scaled[:, 0].sum(0)
        value = (special.logsumexp(scores, axis=1) - scores[:, 0]).sum()
        return value + weights @ weights / 2, gap + weights

    options = {"ftol": 1e-14, "gtol": 1e-9}
    found = optimize.minimize(loss, np.zeros(len(signals)), jac=True, method="L-BFGS-B", options=options)
    return Guidelines(
        dict(zip(signals, found.x.tolist(), strict=True)),
        dict(zip(signals, spread.tolist(), strict=True)),
        traces.n_traces,
        len(values),
    )


def candidates(scores: np.ndarray, contexts: Contexts, n: int) -> np.ndarray:
    """Rows [C, n] of the n best movies of each context that its dialogue has not named; the best first.

    Scores are compared as float32; of equal ones the movie of the lower row is first. Of fewer than n movies
    all are listed.
    """
    n = min(n, scores.shape[1])
    # the bits of a float32, with those of negative numbers turned round, are in the order of the numbers
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    place = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    cost = np.arange(scores.shape[1]) - place * scores.shape[1]
    cost[contexts.named.nonzero()] = np.iinfo(np.int64).max
    best = np.argpartition(cost, n - 1, axis=1)[:, :n]
    order = np.argsort(np.take_along_axis(cost, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def _before(known: Evidence, earlier: sparse.csr_array) -> sparse.csr_array:
    """What was named in the dialogue and, as if named before, the `earlier` movies [C, M]; each once."""
    named = known.contexts.named
    return sparse.csr_array(named + (earlier - earlier * named.sign()) * (named.max() + 1))


def _log_share(scores: np.ndarray, at: At) -> np.ndarray:
    """log of the share of each movie in its row's sum, after a thousandth of the sum is spread evenly."""
    share = scores / np.maximum(scores.sum(axis=1, keepdims=True), np.float32(1e-9))
    return np.log(share[at] + np.float32(1e-3 / scores.shape[1]))


def _cosine(profiles: np.ndarray, movies: np.ndarray) -> np.ndarray:
    """Cosine [C, M] of genre profiles [C, G] with movies of length 1; 0 for an empty profile."""
    length = np.linalg.norm(profiles, axis=1, keepdims=True)
    return (profiles / np.where(length == 0, 1, length)).astype(np.float32) @ movies.T.astype(np.float32)


def _advice(weight: float) -> str:
    if weight < 0:
        return "Avoid"
    return "Strongly prefer" if weight > _STRONG else "Prefer"
