import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_lm

from rec_utils.errors import UserError
from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.request import Request
from rec_utils.knowledge.store import Store

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_lm.save(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def lm():
    return tiny_lm.build()


def requests(n, **decoding):
    decoding = {"max_new_tokens": 12} | decoding
    return [Request("p", "Be brief.", f"Film {i}: " + "a train and " * (i % 7), decoding) for i in range(n)]


def texts(backend, asked):
    return [response.text for response in generate(asked, None, backend, progress=False)]


def reference(lm, request):
    """The library's generate on one unpadded prompt: (text, whether the model ended it)."""
    model, tokenizer = lm
    messages = [("system", request.system), ("user", request.prompt)]
    prompt = "".join(f"<|{role}|>{content}<|end|>" for role, content in messages) + "<|assistant|>"
    tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
    written = model.generate(
        tokens,
        attention_mask=tokens.new_ones(tokens.shape),
        max_new_tokens=request.decoding["max_new_tokens"],
        do_sample=False,
    )[0, tokens.shape[1] :]
    text = tokenizer.decode(written, skip_special_tokens=True).strip()
    return text, "stop" if written[-1] == tokenizer.eos_token_id else "length"


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_answer_what_the_model_answers_alone(lm, batch_size):
    asked = requests(10) + requests(6, max_new_tokens=3)
    expected = [reference(lm, request) for request in asked]
    assert len(set(expected)) > 8
    backend = HuggingFaceBackend(lm, name="tiny", batch_size=batch_size)
    responses = generate(asked, None, backend, progress=False)
    assert [response.request for response in responses] == asked
    assert [(response.text, response.finish) for response in responses] == expected


def test_a_model_loaded_by_name_is_the_same(lm, folder):
    asked = requests(4)
    backend = HuggingFaceBackend(str(folder))
    assert backend.model == str(folder)
    assert texts(backend, asked) == texts(HuggingFaceBackend(lm, name="tiny"), asked)


@pytest.mark.parametrize(("end", "finish"), [(0, "stop"), ([7, 0], "stop"), (None, "length")])
def test_why_an_answer_ended(end, finish):
    """A model without preferences always writes token 0."""
    model, tokenizer = tiny_lm.build()
    model.lm_head.weight.data.zero_()
    model.generation_config.eos_token_id = end
    backend = HuggingFaceBackend((model, tokenizer), name="x")
    (response,) = generate(requests(1), None, backend, progress=False)
    assert (response.text, response.finish) == ("", finish)


def test_sampling_repeats_with_its_seed_only(lm):
    backend = HuggingFaceBackend(lm, name="tiny", batch_size=3)
    first, again, other = (texts(backend, requests(3, temperature=1.0, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert texts(backend, requests(3, temperature=1e-4)) == texts(backend, requests(3))


def test_drafted_answers_are_the_greedy_ones_when_verified_strictly(lm):
    asked = requests(10) + requests(6, max_new_tokens=3)
    backend = HuggingFaceBackend(lm, name="tiny", decoder="dare-strict")
    responses = generate(asked, None, backend, progress=False)
    assert [(r.text, r.finish) for r in responses] == [reference(lm, request) for request in asked]
    assert {tuple(r.meta.items()) for r in responses} == {(("decoder", "dare-strict"),)}


def test_answers_of_the_store_are_drafted_from(lm):
    asked = requests(8, max_new_tokens=60)
    cold = HuggingFaceBackend(lm, name="tiny", decoder="dare")
    old = generate(asked, None, cold, progress=False)
    assert len(cold.decoders["p"].pool) == 8
    warm = HuggingFaceBackend(lm, name="tiny", decoder="dare-strict", drafts_from=old)
    greedy = texts(HuggingFaceBackend(lm, name="tiny"), asked)
    assert texts(warm, asked) == greedy
    assert warm.decoders["p"].counts.passes < cold.decoders["p"].counts.passes
    assert len(warm.decoders["p"].pool) == 16


def test_what_a_model_reads(lm):
    model, tokenizer = tiny_lm.build()
    request = Request("p", "SYS", "ASK")
    assert HuggingFaceBackend((model, tokenizer), name="x")._text(request) == (
        "<|system|>SYS<|end|><|user|>ASK<|end|><|assistant|>"
    )
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + tiny_lm.CHAT
    )
    assert HuggingFaceBackend((model, tokenizer), name="x")._text(request) == (
        "<|user|>SYS\n\nASK<|end|><|assistant|>"
    )
    tokenizer.chat_template = None
    assert HuggingFaceBackend((model, tokenizer), name="x")._text(request) == "SYS\n\nASK\n\n"
    assert HuggingFaceBackend((model, tokenizer), name="x")._text(Request("p", "", "ASK")) == "ASK\n\n"


def test_mistakes_are_named(lm, tmp_path):
    long = Request("p", "", "train " * 500)
    with pytest.raises(UserError, match=r"'train train.* tokens and asks for 256 more, but tiny reads 512"):
        texts(HuggingFaceBackend(lm, name="tiny"), [long])
    with pytest.raises(UserError, match="parameter name"):
        HuggingFaceBackend(lm)
    with pytest.raises(UserError, match="parameter batch_size must be at least 1, not 0"):
        HuggingFaceBackend(lm, name="tiny", batch_size=0)
    with pytest.raises(UserError, match="must be 1 with this decoder, not 4"):
        HuggingFaceBackend(lm, name="tiny", decoder="dare", batch_size=4)
    with pytest.raises(UserError, match=r"decoder.*'DARE'"):
        HuggingFaceBackend(lm, name="tiny", decoder="DARE")
    with pytest.raises(UserError, match="asks for sampling"):
        texts(HuggingFaceBackend(lm, name="tiny", decoder="dare"), requests(1, temperature=1.0))
    with pytest.raises(UserError, match=r"language model .*nothing.* could not be loaded"):
        HuggingFaceBackend(str(tmp_path / "nothing"))


class Counting:
    """A back-end that remembers what it answered."""

    def __init__(self, backend):
        self.backend, self.model, self.answered = backend, backend.model, []

    def answer(self, asked):
        for group in self.backend.answer(asked):
            self.answered += [response.request.prompt for response in group]
            yield group


def test_processes_of_a_launch_wait_for_each_other_also_with_nothing_to_answer(tmp_path, lm):
    """One process may see in the store what another one has just answered, and waits for it all the same."""
    backend, store, asked = (
        Counting(HuggingFaceBackend(lm, name="tiny")),
        Store(tmp_path / "s.jsonl"),
        requests(3),
    )
    expected = generate(asked, store, backend, progress=False)
    called = []
    backend.answer = lambda pending: iter(called.append(pending) or [])
    assert generate(asked, store, backend, progress=False) == expected and called == []
    backend.n_processes = 2
    assert generate(asked, store, backend, progress=False) == expected and called == [[]]


CHILD = """
import sys
sys.path.insert(0, sys.argv[3])
from test_knowledge_huggingface import Counting, requests
from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.llm import generate
from rec_utils.knowledge.store import Store
asked = requests(60, max_new_tokens=30)
backend = Counting(HuggingFaceBackend(sys.argv[1], name="tiny", batch_size=2))
assert [answer.request for answer in generate(asked, Store(sys.argv[2]), backend, progress=False)] == asked
sys.stdout.write(f"answered {len(backend.answered)}\\n")  # one write: two processes share the stream
"""


def rows(path):
    return [json.loads(line)["prompt"] for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.mark.fault("SIGKILL", "knowledge")
def test_a_killed_run_goes_on_where_it_was(tmp_path, folder, lm):
    path = tmp_path / "s.jsonl"
    path.touch()
    child = subprocess.Popen([sys.executable, "-c", CHILD, folder, path, HERE])
    while path.read_bytes().count(b"\n") < 6:
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    left = path.read_bytes()
    kept = left[: left.rfind(b"\n") + 1]
    answered = [json.loads(line)["prompt"] for line in kept.split(b"\n")[:-1]]
    assert 6 <= len(answered) < 60
    asked = requests(60, max_new_tokens=30)
    backend = Counting(HuggingFaceBackend(lm, name="tiny"))
    responses = generate(asked, Store(path), backend, progress=False)
    assert sorted(backend.answered + answered) == sorted(request.prompt for request in asked)
    assert [response.request for response in responses] == asked
    assert path.read_bytes().startswith(kept)
    assert sorted(rows(path)) == sorted(request.prompt for request in asked)
    assert [response.text for response in responses] == texts(backend, asked)


@pytest.mark.fault("two processes", "knowledge")
def test_processes_of_a_launch_share_the_requests(tmp_path, folder):
    """Two processes, one store: each request is answered once, and both return all answers."""
    script, path = tmp_path / "share.py", tmp_path / "s.jsonl"
    script.write_text(CHILD)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    run = subprocess.run(
        [*launch, script, folder, path, HERE],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    shares = [int(count) for count in re.findall(r"answered (\d+)", run.stdout)]
    assert len(shares) == 2
    assert sum(shares) == 60
    assert min(shares) > 0
    assert sorted(rows(path)) == sorted(request.prompt for request in requests(60))
