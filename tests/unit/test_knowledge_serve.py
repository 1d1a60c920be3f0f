"""The server back-end against a real `transformers serve` process on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tiny_lm

from rec_utils.errors import UserError
from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.request import Request
from rec_utils.knowledge.server import ServerBackend
from rec_utils.knowledge.store import Store

N, NEW_TOKENS = 40, 40


def requests():
    decoding = {"max_new_tokens": NEW_TOKENS}
    return [Request("p", "Be brief.", f"Film {i}: " + "a train and " * (i % 5), decoding) for i in range(N)]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, model name) of a running server."""
    folder = tiny_lm.save(tmp_path_factory.mktemp("serve") / "lm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder.parent / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as file:
        server = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    deadline = time.monotonic() + 120
    try:
        while True:
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        server.terminate()
        server.wait()


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from test_knowledge_serve import requests
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.server import ServerBackend
from rec_utils.knowledge.store import Store
backend = ServerBackend(sys.argv[2], sys.argv[3], concurrency=2)
generate(requests(), Store(sys.argv[4]), backend, progress=False)
"""


@pytest.mark.fault("SIGKILL", "knowledge")
def test_a_killed_run_goes_on_and_agrees_with_the_model_run_here(served, tmp_path):
    url, model = served
    path = tmp_path / "s.jsonl"
    path.touch()
    child = subprocess.Popen([sys.executable, "-c", CHILD, Path(__file__).parent, url, model, path])
    while path.read_bytes().count(b"\n") < 4:
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    left = path.read_bytes()
    kept = left[: left.rfind(b"\n") + 1]
    assert 4 <= kept.count(b"\n") < N
    responses = generate(requests(), Store(path), ServerBackend(url, model), progress=False)
    assert path.read_bytes().startswith(kept)
    rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    assert sorted(row["key"] for row in rows) == sorted(request.key for request in requests())
    here = generate(requests(), None, HuggingFaceBackend(model), progress=False)
    assert [(r.text, r.finish) for r in responses] == [(r.text, r.finish) for r in here]
    assert len({response.text for response in responses}) > N / 2


def test_a_model_that_is_not_served_is_named(served):
    with pytest.raises(UserError, match=r"status 400: .*requested 'other'"):
        generate(requests()[:1], None, ServerBackend(served[0], "other"), progress=False)
