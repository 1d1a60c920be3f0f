"""MemoCRS: memory-enhanced sequential conversational recommendation.

Xi et al., CIKM 2024, arXiv 2407.04960. A seeker comes back session after session; at a turn of the
recommender, the movies it names next are to be predicted from the dialogue so far and two memories:

- the user-specific memory, a bank of entities and attitudes that grows with every finished session
  (`memocrs_bank`, `memocrs_recall`), filled by an extractor (`memocrs_attitudes`, `memocrs_language`);
- the general memory, shared by all: the candidates of an expert recommender (`memocrs_experts`) and
  guidelines learnt from successful training traces (`memocrs_refine`).

A cold seeker has an empty bank, so the general memory stands alone. The paper's code is not published and its
prompts and settings are not known: what stands here is a reconstruction of its mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import pandas as pd
from scipy import sparse

from rec_utils.dialogues import Dialogues, first_sessions
from rec_utils.papers.memocrs_attitudes import RulesExtractor
from rec_utils.papers.memocrs_contexts import Contexts, contexts, movie_rows
from rec_utils.papers.memocrs_experts import Expert, Neighbours
from rec_utils.papers.memocrs_genres import movie_genres
from rec_utils.papers.memocrs_recall import EntitySpace, recall
from rec_utils.papers.memocrs_refine import Evidence, Guidelines, Traces, reflect
from rec_utils.settings import check_choice
from rec_utils.splits import user_folds

_NOW = ("popularity", "genres_now")
#: Arm of a comparison -> the signals it may use.
ARMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "no memory": _NOW,
        "raw history": (*_NOW, "history_repeat", "history_genres"),
        "user memory": (*_NOW, "memory_repeat", "memory_genres"),
        "general memory": (*_NOW, "expert"),
        "raw history + general": (*_NOW, "expert", "history_repeat", "history_genres", "history_expert"),
        "both memories": (*_NOW, "expert", "memory_repeat", "memory_genres", "memory_expert"),
    }
)


def _sequential(train: Dialogues) -> Expert:
    from rec_utils.papers.memocrs_sequential import Sequential  # needs torch, the others do not

    return Sequential.fit(train)


#: Expert -> how it is fitted on training dialogues.
EXPERTS: Mapping[str, Callable[[Dialogues], Expert]] = MappingProxyType(
    {
        "co-occurrence": Neighbours.fit,
        "item-based": lambda train: Neighbours.fit(train, cosine=True),
        "sequential": _sequential,
    }
)


@dataclass(frozen=True)
class GeneralMemory:
    """What is learnt from training dialogues and shared by all seekers."""

    expert: Expert
    extractor: RulesExtractor
    space: EntitySpace
    traces: Traces  #: of the training turns, for reflection

    @classmethod
    def fit(
        cls, train: Dialogues, expert: str = "co-occurrence", n_folds: int = 5, k: int = 3
    ) -> GeneralMemory:
        """Learn from training dialogues, without those that are to be predicted.

        For reflection the expert of a training turn is fitted without its seeker; the extractor is not, so it
        reads the training dialogues a little better than others.

        Args:
            train: the dialogues; movies are those of the whole data set.
            expert: a name in `EXPERTS`.
            n_folds: parts of the training seekers for reflection.
            k: see `memocrs_recall.recall`.

        Raises:
            UserError: the expert is unknown, or there are fewer seekers than folds.
        """
        fitted = EXPERTS[check_choice("expert", expert, list(EXPERTS))]
        extractor, genres = RulesExtractor(train), movie_genres(train.movies)
        extracted = extractor.extract(train)
        seekers = np.unique(train.sessions["seeker"])
        fold = user_folds(len(seekers), n_folds, seed=0)[np.searchsorted(seekers, train.sessions["seeker"])]
        parts = []
        for number in range(n_folds):
            own, rest = (
                train.select(train.sessions["session_id"][each]) for each in (fold == number, fold != number)
            )
            parts.append(Traces.of(_evidence(own, fitted(rest), _space(rest, genres), extracted, k, None)))
        return cls(fitted(train), extractor, _space(train, genres), Traces.join(parts))

    def guidelines(self, arm: str) -> Guidelines:
        """Reflect on the training turns with the signals of an arm."""
        return reflect(self.traces, ARMS[check_choice("arm", arm, list(ARMS))])

    def evidence(
        self,
        dialogues: Dialogues,
        extracted: pd.DataFrame | None = None,
        k: int = 3,
        budget: int | None = None,
    ) -> Evidence:
        """Live through dialogues and collect what is known at every turn to be predicted.

        Args:
            dialogues: all sessions of their seekers.
            extracted: see `memocrs_recall.recall`; None for the rules' extraction.
            k: entries retrieved for each query.
            budget: entries that a bank may hold.
        """
        pairs = self.extractor.extract(dialogues) if extracted is None else extracted
        return _evidence(dialogues, self.expert, self.space, pairs, k, budget)


class Assistant(Protocol):
    """What fills the memories and ranks: rules here, a language model in `memocrs_language`."""

    def extract(self, dialogues: Dialogues) -> pd.DataFrame:
        """What finished sessions show of their seekers: session_id, entity, attitude."""
        ...

    def rank(self, dialogues: Dialogues, known: Evidence, arm: str) -> np.ndarray:
        """Scores [C, M] of all movies at C turns of the dialogues, from what the arm may use."""
        ...


@dataclass(frozen=True)
class Rules:
    """The assistant without a language model."""

    general: GeneralMemory

    def extract(self, dialogues: Dialogues) -> pd.DataFrame:
        """See `RulesExtractor.extract`."""
        return self.general.extractor.extract(dialogues)

    def rank(self, dialogues: Dialogues, known: Evidence, arm: str) -> np.ndarray:
        """See `Guidelines.scores`."""
        return self.general.guidelines(arm).scores(known)


def _evidence(
    dialogues: Dialogues, expert: Expert, space: EntitySpace, pairs: pd.DataFrame, k: int, budget: int | None
) -> Evidence:
    turns = contexts(dialogues)
    return Evidence(
        turns,
        expert,
        space,
        recall(dialogues, turns, pairs, space, k, budget),
        named_in_history(dialogues, turns),
    )


def _space(train: Dialogues, genres: sparse.csr_array) -> EntitySpace:
    return EntitySpace(train.movies, genres, Neighbours.fit(train, cosine=True).weights)


def named_in_history(dialogues: Dialogues, turns: Contexts) -> sparse.csr_array:
    """[C, M] 1 where a movie was named in an earlier session of the seeker."""
    first = first_sessions(dialogues).reset_index(name="first")
    named = turns.table[["session_id", "seeker"]].reset_index(names="row").merge(first, on="seeker")
    named = named[named["first"] < named["session_id"]]
    columns = movie_rows(dialogues).loc[named["movie_id"]]
    return sparse.csr_array((np.ones(len(named)), (named["row"], columns)), shape=turns.named.shape)
