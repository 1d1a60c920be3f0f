"""The questions of MemoCRS to a language model, the same ones each time: extraction and ranking.

They are made for the first sessions of the seekers with the most sessions, so that a memory can be built
session by session from the answers alone. One turn of a session is asked about, so that no dialogue shows
the answer to another question of its session.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rec_utils.dialogues import Dialogues, recommendations, transcripts
from rec_utils.files import write_atomic
from rec_utils.knowledge.prompts import dialogue_memory, dialogue_ranking
from rec_utils.knowledge.request import Request, canonical_json
from rec_utils.papers.memocrs import GeneralMemory
from rec_utils.papers.memocrs_refine import candidates

#: The seekers asked about, and the number of sessions of each, from the first.
N_SEEKERS, N_SESSIONS = 32, 12
#: A ranking is asked for in sessions with at least so many earlier ones.
MIN_EARLIER = 2
#: Words of a dialogue that a prompt holds at most.
MAX_WORDS = {"extraction": 330, "ranking": 145}
#: Entries retrieved for each query, entries shown at most, and candidates of the expert.
K, N_ENTRIES, N_CANDIDATES = 5, 15, 20


def asked_sessions(test: Dialogues) -> pd.DataFrame:
    """The first `N_SESSIONS` sessions of the `N_SEEKERS` seekers with the most; rows of `test.sessions`."""
    sizes = test.sessions.groupby("seeker").size()
    # of seekers with equally many, those with the lower numbers
    seekers = sizes.sort_values(ascending=False, kind="stable").index[:N_SEEKERS]
    sessions = test.sessions
    return sessions[sessions["seeker"].isin(seekers) & (sessions["n_earlier"] < N_SESSIONS)]


def extraction_requests(test: Dialogues) -> dict[int, Request]:
    """The request for each session whose memory a later session of `asked_sessions` needs, by session."""
    asked = asked_sessions(test)
    needed = asked[asked["seeker"].duplicated(keep="last")]
    return extractions(test, needed["session_id"])


def extractions(dialogues: Dialogues, sessions: pd.Series) -> dict[int, Request]:
    """The request for each of some sessions, by session."""
    ends = pd.DataFrame({"session_id": sessions, "turn": np.iinfo(np.int16).max})
    texts = transcripts(dialogues, ends, MAX_WORDS["extraction"])
    return {int(session): dialogue_memory(text) for session, text in zip(sessions, texts, strict=True)}


def asked_turns(test: Dialogues, seed: int = 0) -> pd.DataFrame:
    """One turn, drawn evenly, of every asked session with `MIN_EARLIER` earlier ones: session_id and turn.

    In the order of the seekers' sessions: all third sessions, all fourth ones and so on. The memory in a
    question tells what was named in the seeker's earlier sessions, so whoever answers in this order, some
    thirty at a time, never sees the answer to a question still open.
    """
    sessions = asked_sessions(test).query("n_earlier >= @MIN_EARLIER")
    turns = recommendations(test)[["session_id", "turn"]].drop_duplicates()
    turns = turns[turns["session_id"].isin(sessions["session_id"])]
    drawn = turns.sample(frac=1, random_state=seed).drop_duplicates("session_id")
    order = drawn.merge(sessions[["session_id", "n_earlier"]], on="session_id")
    return order.sort_values(["n_earlier", "session_id"], ignore_index=True)[["session_id", "turn"]]


def ranking_requests(
    test: Dialogues, general: GeneralMemory, turns: pd.DataFrame, *, user_memory: bool = True
) -> list[Request]:
    """The request for each of `turns` (session_id and turn), with memories of the rules' extraction.

    The candidates are the first ones of the expert. Without `user_memory` what is remembered of the seeker is
    left out, and the guidelines are those learnt without it.
    """
    known = general.evidence(test, k=K)
    rows = known.contexts.table.reset_index().merge(turns, on=["session_id", "turn"], how="right")["index"]
    asked = known.contexts.select(np.sort(rows))
    listed = pd.Series(
        list(candidates(general.expert.scores(asked.named), asked, N_CANDIDATES)), index=np.sort(rows)
    )
    titles = test.movies["title"].to_numpy()
    lines = known.recalled.table.assign(line=lambda table: table["entity"] + ": " + table["attitude"])
    memory = lines.groupby("row")["line"].agg(lambda each: "\n".join(each[-N_ENTRIES:]))
    guidelines = general.guidelines("both memories" if user_memory else "general memory").text()
    dialogues = transcripts(test, turns, MAX_WORDS["ranking"])
    return [
        dialogue_ranking(
            dialogue, memory.get(row, "") if user_memory else "", guidelines, list(titles[listed[row]])
        )
        for row, dialogue in zip(rows, dialogues, strict=True)
    ]


def write_requests(path: Path, requests: Sequence[Request]) -> None:
    """Write requests as JSON lines with their keys."""
    rows = [
        {
            "key": request.key,
            "purpose": request.purpose,
            "system": request.system,
            "prompt": request.prompt,
            "decoding": dict(request.decoding),
        }
        for request in requests
    ]
    write_atomic(path, "".join(canonical_json(row) + "\n" for row in rows))
