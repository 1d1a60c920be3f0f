"""MemoCRS with a language model: extraction and ranking by requests, whoever answers them.

The model may be replayed, run here or served, see `rec_utils.knowledge.llm`. Its answers are all read in the
same way; a text that is no list counts as an empty answer and is not repaired.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rec_utils.dialogues import Dialogues, transcripts
from rec_utils.knowledge.llm import Backend, generate
from rec_utils.knowledge.prompts import dialogue_memory, dialogue_ranking
from rec_utils.knowledge.request import Request
from rec_utils.knowledge.store import Store
from rec_utils.papers.memocrs import ARMS, GeneralMemory
from rec_utils.papers.memocrs_contexts import Contexts
from rec_utils.papers.memocrs_grounding import Catalog
from rec_utils.papers.memocrs_refine import Evidence, candidates
from rec_utils.settings import check_choice

#: Words of a dialogue that a prompt holds at most; the earlier ones are left out.
EXTRACTION_WORDS, RANKING_WORDS = 330, 145
#: Entries of the memory and candidates of the expert that a prompt shows at most.
N_ENTRIES, N_CANDIDATES = 15, 20

_LIST = re.compile(r"\[.*\]", re.DOTALL)
_END = np.iinfo(np.int16).max  # after the last turn


@dataclass(frozen=True)
class LanguageModel:
    """The language model as assistant; see `memocrs.Assistant`."""

    general: GeneralMemory
    backend: Backend | None = None  #: who answers; None for the shipped answers
    store: Store | None = None  #: keeps the answers, see `generate`

    def extract(self, dialogues: Dialogues) -> pd.DataFrame:
        """Entities and attitudes; a movie goes by its title in the catalog."""
        requests = extraction_requests(dialogues)
        answers = generate(list(requests.values()), self.store, self.backend)
        pairs = [
            (session, *pair)
            for session, answer in zip(requests, answers, strict=True)
            for pair in read_pairs(answer.text)
        ]
        found = pd.DataFrame(pairs, columns=["session_id", "entity", "attitude"])
        row = self._catalog(dialogues).rows(found["entity"])
        title = dialogues.movies["title"].to_numpy()[row]
        found["entity"] = found["entity"].mask(row >= 0, title)
        return found.drop_duplicates(["session_id", "entity"], keep="last", ignore_index=True)

    def rank(self, dialogues: Dialogues, known: Evidence, arm: str) -> np.ndarray:
        """Scores [C, M] of the movies that the model lists, the first one highest; others -inf.

        A title counts once, and not if the dialogue has named it. A title that is not in the catalog takes up
        its place in the list without being any movie.
        """
        requests = ranking_requests(dialogues, known, self.general, arm)
        answers = generate(requests, self.store, self.backend)
        catalog, contexts = self._catalog(dialogues), known.contexts
        scores = np.full(contexts.named.shape, -np.inf)
        for row, answer in enumerate(answers):
            listed = catalog.rows(read_titles(answer.text))
            again = pd.Series(listed).duplicated().to_numpy() & (listed >= 0)
            listed = listed[~again & ~np.isin(listed, _named(contexts, row))]
            places = np.flatnonzero(listed >= 0)
            scores[row, listed[places]] = -places
        return scores

    def _catalog(self, dialogues: Dialogues) -> Catalog:
        return Catalog(dialogues.movies, self.general.expert.popularity)


def extraction_requests(dialogues: Dialogues) -> dict[int, Request]:
    """The request for each session, by its number."""
    sessions = dialogues.sessions["session_id"]
    texts = transcripts(dialogues, pd.DataFrame({"session_id": sessions, "turn": _END}), EXTRACTION_WORDS)
    return {int(session): dialogue_memory(text) for session, text in zip(sessions, texts, strict=True)}


def ranking_requests(
    dialogues: Dialogues, known: Evidence, general: GeneralMemory, arm: str = "both memories"
) -> list[Request]:
    """The request [C] for each context, with what the arm may see.

    That is the memory, the earlier dialogues or neither, and the candidates and guidelines or neither.
    """
    signals = " ".join(ARMS[check_choice("arm", arm, list(ARMS))])
    turns, empty = known.contexts.table, [""] * len(known.contexts)
    memory = remembered(known) if "memory" in signals else empty
    history = earlier_dialogues(dialogues, turns) if "history" in signals else empty
    shared = "expert" in signals
    listed = candidates(general.expert.scores(known.contexts.named), known.contexts, N_CANDIDATES)
    titles = dialogues.movies["title"].to_numpy()[listed] if shared else [[]] * len(turns)
    guidelines = general.guidelines(arm).text() if shared else ""
    texts = transcripts(dialogues, turns, RANKING_WORDS)
    return [
        dialogue_ranking(text, remembers, guidelines, list(best), history=before)
        for text, remembers, best, before in zip(texts, memory, titles, history, strict=True)
    ]


def remembered(known: Evidence) -> list[str]:
    """What was retrieved for each context [C], a line an entry, those touched last."""
    lines = known.recalled.table.assign(line=lambda table: table["entity"] + ": " + table["attitude"])
    text = lines.groupby("row")["line"].agg(lambda each: "\n".join(each[-N_ENTRIES:]))
    return text.reindex(range(len(known.contexts)), fill_value="").tolist()


def earlier_dialogues(dialogues: Dialogues, turns: pd.DataFrame) -> list[str]:
    """All earlier dialogues of the seeker of each of `turns` (session_id, seeker), word for word."""
    sessions = dialogues.sessions[["session_id", "seeker"]]
    whole = transcripts(dialogues, sessions.assign(turn=_END), max_words=10**6)
    texts = sessions.assign(text=whole)
    pairs = (
        turns[["session_id", "seeker"]]
        .reset_index(names="row")
        .merge(texts, on="seeker", suffixes=("", "_then"))
    )
    pairs = pairs[pairs["session_id_then"] < pairs["session_id"]]
    return pairs.groupby("row")["text"].agg("\n\n".join).reindex(range(len(turns)), fill_value="").tolist()


def read_pairs(text: str) -> list[tuple[str, str]]:
    """(entity, attitude) pairs in an answer, without those in which either is missing or empty."""
    found = (each for each in _read_list(text) if isinstance(each, dict))
    pairs = (tuple(str(each.get(name) or "").strip() for name in ("entity", "attitude")) for each in found)
    return [pair for pair in pairs if all(pair)]


def read_titles(text: str) -> list[str]:
    """Titles in an answer, in its order."""
    return [each.strip() for each in _read_list(text) if isinstance(each, str) and each.strip()]


def _read_list(text: str) -> list:
    """The JSON list in a text, from its first "[" to its last "]"; empty where there is none."""
    found = _LIST.search(text)
    try:
        listed = json.loads(found[0]) if found else []
    except ValueError:
        return []
    return listed if isinstance(listed, list) else []


def _named(contexts: Contexts, row: int) -> np.ndarray:
    return contexts.named.indices[contexts.named.indptr[row] : contexts.named.indptr[row + 1]]
