"""MemoCRS on ReDial: the floor of the reference harness, and the questions that stored answers belong to."""

import hashlib
import json
import sys

import numpy as np
import pytest

from rec_utils import dialogues
from rec_utils.errors import run_cli
from rec_utils.papers import memocrs, memocrs_study
from rec_utils.papers import memocrs_requests as requests
from rec_utils.papers.memocrs_contexts import contexts
from rec_utils.papers.memocrs_experts import Neighbours
from rec_utils.papers.memocrs_language import extraction_requests, ranking_requests

#: SHA-256 over the keys in their order; another one orphans the stored answers.
KEYS = {
    "extraction": "89ff7becf8ade638040f451e029d981c8eebb99b4ce213285f11da71f8c8e51f",
    "ranking": "29d5acdccd14fefc8d236c4623f05bb198a462ea8e99827c6bbe5674d4265d62",
    "ranking_without_user_memory": "78b2a2b6096e865539a64f706620797b8671d1818b4b2590359a4ba7e5b60bca",
}


@pytest.fixture(scope="module")
def redial():
    return dialogues.load("redial")


@pytest.fixture(scope="module")
def test(redial):
    return redial.split("test")


@pytest.fixture(scope="module")
def general(redial):
    return memocrs.GeneralMemory.fit(redial.split("train"))


@pytest.fixture(scope="module")
def known(test, general):
    return requests.asked_evidence(test, general)


def test_the_expert_alone_is_above_the_floor(redial, test):
    """The reference harness, trained on 1,813 of these dialogues, has HR@10 .1037 and MRR@10 .0440."""
    turns = contexts(test)
    found = memocrs_study.expert_ranks(turns, {"expert": Neighbours.fit(redial.split("train"))})
    rows = memocrs_study.table(found, turns).set_index(["arm", "group"])
    assert rows.loc[("expert", "all"), "HR@10"] > 0.1037 and rows.loc[("expert", "all"), "MRR@10"] > 0.0440
    assert rows.loc[("popularity", "all"), "HR@10"] < 0.1037
    # half of the dialogues, as many as the reference had: still above
    train = redial.split("train")
    half = train.select(train.sessions["session_id"].sample(1813, random_state=0))
    found = memocrs_study.expert_ranks(turns, {"expert": Neighbours.fit(half)})
    assert memocrs_study.metrics(found["expert"])[["HR@10", "MRR@10"]].mean().gt([0.1037, 0.0440]).all()


def test_the_sessions_asked_about_are_all_that_the_memories_need(test):
    asked = requests.asked_sessions(test)
    sizes = asked.groupby("seeker").size()
    assert len(sizes) == requests.N_SEEKERS and sizes.between(10, requests.N_SESSIONS).all()
    extracted = set(requests.asked_extractions(test).sessions["session_id"])
    turns = requests.asked_turns(test).merge(test.sessions, on="session_id")
    assert len(extracted) >= 300 and len(turns) >= 300 and turns["session_id"].is_unique
    assert (turns["n_earlier"] >= requests.MIN_EARLIER).all() and turns["n_earlier"].is_monotonic_increasing
    for turn in turns.itertuples():
        mine = test.sessions[test.sessions["seeker"] == turn.seeker]
        assert set(mine.loc[mine["session_id"] < turn.session_id, "session_id"]) <= extracted


def test_the_questions_are_those_that_were_answered(test, general, known):
    built = {
        "extraction": list(extraction_requests(requests.asked_extractions(test)).values()),
        "ranking": ranking_requests(test, known, general),
        "ranking_without_user_memory": ranking_requests(test, known, general, "general memory"),
    }
    for name, each in built.items():
        assert max(len(request.prompt.split()) for request in each) <= 350
        keys = "\n".join(request.key for request in each)
        assert hashlib.sha256(keys.encode()).hexdigest() == KEYS[name], name


def test_no_question_shows_its_answer(test, general, known):
    titles = test.movies["title"].to_numpy()
    prompts = [request.prompt for request in ranking_requests(test, known, general)]
    memocrs_study.check_leaks(test, known, general.extractor.extract(test))
    for context, movie in zip(known.contexts.context, known.contexts.target, strict=True):
        assert titles[movie] not in prompts[context].partition("Dialogue so far:\n")[2]
    assert known.contexts.table[["session_id", "turn"]].equals(requests.asked_turns(test))


def test_the_command_writes_the_questions(test, general, monkeypatch, tmp_path, redial):
    monkeypatch.setattr(requests, "load", lambda name: redial)
    monkeypatch.setattr(memocrs.GeneralMemory, "fit", lambda train: general)
    monkeypatch.setattr(sys, "argv", ["memocrs_requests", str(tmp_path)])
    assert run_cli(requests.main) == 0
    for name, digest in KEYS.items():
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines()]
        assert all({"key", "purpose", "system", "prompt", "decoding"} == set(row) for row in rows)
        assert hashlib.sha256("\n".join(row["key"] for row in rows).encode()).hexdigest() == digest
    assert len(np.unique([row["key"] for row in rows])) > 300
