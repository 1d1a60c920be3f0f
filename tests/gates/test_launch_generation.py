"""`accelerate launch -m rec_utils.launch knowledge` with one of two processes killed; and a mistake."""

import json
import sys

import pytest

from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.request_file import read_requests
from rec_utils.settings import ROOT
from tests.gates.launches import MODULE, finish, kill, start
from tests.gates.processes import wait_until

sys.path.insert(0, str(ROOT / "tests" / "unit"))
import tiny_lm


@pytest.fixture
def requests(tmp_path):
    path = tmp_path / "requests.jsonl"
    rows = [
        {
            "purpose": "p",
            "system": "Be brief.",
            "prompt": f"Film {i}: " + "a train and " * (i % 7),
            "decoding": {"max_new_tokens": 60},
        }
        for i in range(80)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.fault("SIGKILL", "knowledge", "It asks for what is not in the store, and for nothing twice.")
def test_generation_goes_on_where_it_was(tmp_path, requests):
    model, folder = tiny_lm.save(tmp_path / "lm"), tmp_path / "texts"
    command = (*MODULE, "knowledge", "--requests", requests, "--model", model, "--folder", folder)
    store = folder / "answers.jsonl"
    launch = start(*command, "--batch-size", "1")
    wait_until(lambda: store.exists() and store.read_bytes().count(b"\n") >= 10)
    err = kill(launch, 0)
    assert f"what was finished is kept in {folder}, and the same command goes on from there\n" in err
    content = store.read_bytes()
    kept = content[: content.rfind(b"\n") + 1]
    n_kept = kept.count(b"\n")
    assert 10 <= n_kept < 80

    found = json.loads(finish(start(*command, "--batch-size", "8")))
    assert (found["answers"], found["answered before"]) == (80, n_kept)
    assert store.read_bytes().startswith(kept)
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    asked = read_requests(requests)
    assert sorted(row["key"] for row in rows) == sorted(request.key for request in asked)
    backend = HuggingFaceBackend(tiny_lm.build(), name="tiny", batch_size=8)
    alone = {answer.key: answer.text for answer in generate(asked, None, backend, progress=False)}
    assert {row["key"]: row["text"] for row in rows} == alone
    assert json.loads((folder / "metrics.json").read_text())["metrics"] == found


def test_a_mistake_is_told_once(tmp_path):
    launch = start(*MODULE, "corella", "-p", "LM_BATHC=3", "--folder", tmp_path)
    _, err = launch.communicate(timeout=100)
    assert launch.returncode != 0
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and told[0].startswith("error: -p LM_BATHC: the parameters are SEED, LM, LR, ")
    assert not (tmp_path / "metrics.json").exists()
