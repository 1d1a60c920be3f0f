import itertools
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from fault_server import completion, serving

from rec_utils.errors import UserError
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.request import Request
from rec_utils.knowledge.server import ServerBackend
from rec_utils.knowledge.store import Store


def ask(prompts, url, store=None, **settings):
    requests = [Request("p", "system text", prompt) for prompt in prompts]
    settings = {"max_wait": 0.02, "attempts": 3, "timeout": 5} | settings
    return generate(requests, store, ServerBackend(url, "m", **settings), progress=False)


def ok(prompt, attempt):
    return "ok"


def test_answers_come_in_request_order_and_equal_requests_are_asked_once():
    with serving(lambda prompt, _: time.sleep(0.1 if prompt == "a" else 0) or "ok") as server:
        texts = [response.text for response in ask("abcab", server.url)]
    assert texts == [f"answer to {prompt}" for prompt in "abcab"]
    assert sorted(server.prompts()) == list("abc")


def test_what_is_sent():
    decoding = {"max_new_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3}
    with serving(ok) as server:
        backend = ServerBackend(server.url, "m")
        requests = [Request("p", "sys", "user", decoding), Request("p", "", "user")]
        generate(requests, None, backend, progress=False)
    first, second = sorted(server.bodies, key=lambda body: -len(body["messages"]))
    assert first == {
        "model": "m",
        "messages": [{"role": "system", "content": "sys"}, {"role": "user", "content": "user"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
    }
    assert second["messages"] == [{"role": "user", "content": "user"}]
    assert second["temperature"] == 0  # greedy by default


HALF = completion("answer")[:60]
PASSING = [408, 409, 429, 500, 503, "drop", "cut", "hang", HALF, "<html>busy</html>", "{}", completion(None)]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_passing_failure_is_tried_again(fault):
    with serving(lambda prompt, attempt: fault if attempt < 3 else "ok") as server:
        (response,) = ask("a", server.url, timeout=0.2 if fault == "hang" else 5)
    assert response.text == "answer to a"
    assert len(server.bodies) == 3


@pytest.mark.fault("no network", "knowledge", "It names the server; what was answered is kept.")
@pytest.mark.parametrize(
    ("fault", "attempts", "message"),
    [
        (429, 3, r"still answers 429 \(too many requests\) after 3 attempts; lower requests_per_minute"),
        (503, 3, "status 503: .*planted 503"),
        (400, 1, "status 400: .*planted 400"),
        (401, 1, r"refuses the key \(status 401\)"),
        (404, 1, r"has no model 'm'.*it serves small, big"),
        ("hang", 3, r"did not answer within 0\.2 s, in 3 attempts"),
        ("drop", 3, "cannot be reached .* in 3 attempts"),
        ("cut", 3, "cannot be reached .* in 3 attempts"),
        (HALF, 3, "no chat completion .* in 3 attempts"),
        (completion(None), 3, r"no chat completion \(it holds no text\)"),
    ],
    ids=str,
)
def test_a_lasting_failure_is_one_sentence_and_loses_nothing(tmp_path, fault, attempts, message):
    """One request fails for good while others are answered; the next call asks only what is missing."""
    store = Store(tmp_path / "s.jsonl")
    with serving(lambda prompt, _: fault if prompt == "bad" else "ok") as server:
        timeout = 0.2 if fault == "hang" else 5
        with pytest.raises(UserError, match=message) as caught:
            ask(["a", "b", "bad", "c"], server.url, store, timeout=timeout, concurrency=1)
        assert "2 of 4 answers are kept in" in str(caught.value)
        assert server.prompts() == ["a", "b"] + ["bad"] * attempts
    with serving(ok) as server:
        responses = ask(["a", "b", "bad", "c"], server.url, Store(tmp_path / "s.jsonl"))
        assert sorted(server.prompts()) == ["bad", "c"]
    assert [response.text for response in responses] == [f"answer to {p}" for p in ["a", "b", "bad", "c"]]


def test_requests_under_way_when_another_fails_are_kept(tmp_path):
    store = Store(tmp_path / "s.jsonl")
    with (
        serving(lambda prompt, _: 400 if prompt == "bad" else time.sleep(0.3) or "ok") as server,
        pytest.raises(UserError, match="1 of 6 answers are kept"),
    ):
        ask(["slow", "bad", "c", "d", "e", "f"], server.url, store, concurrency=2)
    assert [row.request.prompt for row in store] == ["slow"]


@pytest.mark.fault("no network", "knowledge")
def test_a_refused_connection_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(
            UserError, match=rf"the server {url} cannot be reached \(.*refused.*is it running\?"
        ):
            ask("a", url)


def test_retry_after_is_obeyed():
    with serving(lambda _, attempt: (429, 0.5) if attempt == 1 else "ok") as server:
        ask("a", server.url, max_wait=0.001)
    assert server.times[1] - server.times[0] >= 0.5


def test_rate_limit_counts_every_try():
    with serving(lambda prompt, attempt: 500 if attempt == 1 else "ok") as server:
        ask("abcd", server.url, requests_per_minute=1200, concurrency=4)
    assert len(server.times) == 8
    # starts are 50 ms apart; arrivals jitter, so the whole span is measured
    assert server.times[-1] - server.times[0] >= 7 * 0.05 - 0.03


def test_concurrency_is_used_and_kept():
    with serving(lambda *_: time.sleep(0.15) or "ok") as server:
        ask("abcdefghi", server.url, concurrency=3)
    assert server.most_running == 3


def test_an_answer_that_is_no_text_is_stored_as_text(tmp_path):
    """JSON can carry half a surrogate pair, which no file can hold."""
    store = Store(tmp_path / "s.jsonl")
    with serving(lambda *_: completion("x\ud83d")) as server:
        ask("a", server.url, store)
    assert [row.text for row in Store(store.path)] == ["x?"]


@pytest.mark.parametrize("name", ["concurrency", "attempts", "timeout", "requests_per_minute"])
def test_wrong_parameters_are_named(name):
    with pytest.raises(UserError, match=f"parameter {name} must be positive"):
        ServerBackend("http://127.0.0.1:1/v1", "m", **{name: 0})


CHILD = """
import sys
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.request import Request
from rec_utils.knowledge.server import ServerBackend
from rec_utils.knowledge.store import Store
requests = [Request("p", "system text", str(number)) for number in range(60)]
generate(requests, Store(sys.argv[1]), ServerBackend(sys.argv[2], "m", concurrency=3), progress=False)
"""


@pytest.mark.fault("SIGKILL", "knowledge")
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "s.jsonl"
    path.touch()
    with serving(lambda *_: time.sleep(0.03) or "ok") as server:
        child = subprocess.Popen([sys.executable, "-c", CHILD, path, server.url])
        while path.read_bytes().count(b"\n") < 10:
            assert child.poll() is None
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        left = path.read_bytes()
        kept = left[: left.rfind(b"\n") + 1]
        answered = {json.loads(line)["prompt"] for line in kept.splitlines()}
        assert 10 <= len(answered) < 60
        time.sleep(0.1)  # what was under way has ended
        before = len(server.bodies)
        responses = ask(map(str, range(60)), server.url, Store(path))
        asked_again = set(server.prompts()[before:])
    assert asked_again == {str(number) for number in range(60)} - answered
    assert [response.text for response in responses] == [f"answer to {number}" for number in range(60)]
    assert path.read_bytes().startswith(kept)
    rows = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    assert sorted(rows, key=int) == list(map(str, range(60)))


def test_ctrl_c_keeps_what_was_answered(tmp_path):
    """An interrupt of the loop over the answers ends the run without asking the rest."""
    store = Store(tmp_path / "s.jsonl")
    with serving(lambda *_: time.sleep(0.02) or "ok") as server:
        backend = ServerBackend(server.url, "m", concurrency=1)
        answers = backend.answer([Request("p", "", str(number)) for number in range(50)])
        for group in itertools.islice(answers, 3):
            store.append(group)
        answers.close()
        time.sleep(0.1)
        assert len(server.bodies) <= 5
    assert len(Store(store.path)) == 3
