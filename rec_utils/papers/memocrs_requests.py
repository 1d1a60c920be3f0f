"""The questions of MemoCRS that the shipped answers of a language model belong to, the same ones each time.

They are about the first sessions of the seekers with the most sessions, so that a memory can be built
session by session from the answers alone. One turn of a session is asked about, so that no dialogue shows
the answer to another question of its session. `python -m rec_utils.papers.memocrs_requests DIR` writes them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rec_utils.dialogues import Dialogues, load, recommendations
from rec_utils.errors import run_cli
from rec_utils.files import write_atomic
from rec_utils.knowledge.request import Request, canonical_json
from rec_utils.papers.memocrs import GeneralMemory
from rec_utils.papers.memocrs_language import extraction_requests, ranking_requests
from rec_utils.papers.memocrs_refine import Evidence

#: The seekers asked about, and the number of sessions of each, from the first.
N_SEEKERS, N_SESSIONS = 32, 12
#: A ranking is asked for in sessions with at least so many earlier ones.
MIN_EARLIER = 2
#: Entries of the memory retrieved for each query.
K = 5


def asked_sessions(test: Dialogues) -> pd.DataFrame:
    """The first `N_SESSIONS` sessions of the `N_SEEKERS` seekers with the most; rows of `test.sessions`."""
    sizes = test.sessions.groupby("seeker").size()
    # of seekers with equally many, those with the lower numbers
    seekers = sizes.sort_values(ascending=False, kind="stable").index[:N_SEEKERS]
    sessions = test.sessions
    return sessions[sessions["seeker"].isin(seekers) & (sessions["n_earlier"] < N_SESSIONS)]


def asked_extractions(test: Dialogues) -> Dialogues:
    """The sessions whose entities are asked for: those that the memory of a later asked session needs."""
    asked = asked_sessions(test)
    return test.select(asked.loc[asked["seeker"].duplicated(keep="last"), "session_id"])


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


def asked_evidence(
    test: Dialogues, general: GeneralMemory, extracted: pd.DataFrame | None = None
) -> Evidence:
    """What is known at the asked turns, in the order of `asked_turns`; `extracted` as in `evidence`."""
    known = general.evidence(test, extracted, k=K)
    table = known.contexts.table.reset_index(names="row")
    return known.select(
        table.merge(asked_turns(test), on=["session_id", "turn"], how="right")["row"].to_numpy()
    )


def write_requests(path: Path, requests: Iterable[Request]) -> None:
    """Write requests as JSON lines with their keys."""
    names = ("key", "purpose", "system", "prompt")
    rows = [
        {name: getattr(each, name) for name in names} | {"decoding": dict(each.decoding)} for each in requests
    ]
    write_atomic(path, "".join(canonical_json(row) + "\n" for row in rows))


def main() -> None:
    """Write the requests of extraction and ranking into a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    redial = load("redial")
    test, general = redial.split("test"), GeneralMemory.fit(redial.split("train"))
    known = asked_evidence(test, general)
    for name, requests in {
        "extraction": extraction_requests(asked_extractions(test)).values(),
        "ranking": ranking_requests(test, known, general),
        "ranking_without_user_memory": ranking_requests(test, known, general, "general memory"),
    }.items():
        write_requests(folder / f"{name}.jsonl", requests)
        print(f"{folder / name}.jsonl")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
