import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_utils.errors import UserError
from rec_utils.knowledge import prompts
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store


def response(number, model="m", text=None):
    request = Request("p", "s", f"question {number}", {"seed": 1})
    return Response(
        request, f"answer {number}\nä\u2028" if text is None else text, model, "stop", {"id": number}
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "store.jsonl"


def test_answers_come_back_as_they_were(path):
    rows = [response(number) for number in range(3)]
    assert Store(path).append(rows) == 3
    store = Store(path, readonly=True)
    assert list(store) == rows
    assert store.get(rows[1].request) == rows[1]
    assert store.get(Request("p", "s", "question 1", {"seed": 2})) is None


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.builds(Request, text, text, text), text, text.filter(bool))
def test_any_text_survives(tmp_path_factory, request_, answer, model):
    path = tmp_path_factory.mktemp("store") / "s.jsonl"
    row = Response(request_, answer, model)
    Store(path).append([row])
    assert list(Store(path, readonly=True)) == [row]
    assert path.read_bytes().count(b"\n") == 1


def test_system_text_of_our_prompts_is_not_repeated_but_counts(path, monkeypatch):
    row = Response(prompts.item_facts("Heat (1995)", "Crime"), "A film.", "m")
    Store(path).append([row])
    assert "system" not in json.loads(path.read_text())
    assert list(Store(path)) == [row]
    monkeypatch.setitem(prompts.SYSTEM, "item_facts", "Other words.")
    with pytest.raises(UserError, match=r"line 1 of .*store\.jsonl.*system text of item_facts was changed"):
        Store(path)


def test_a_second_answer_of_the_same_model_is_not_written(path):
    store = Store(path)
    assert store.append([response(0), response(0, text="other"), response(1)]) == 2
    before = path.read_bytes()
    assert store.append([response(1, text="other")]) == 0
    assert Store(path).append([response(0, text="other")]) == 0
    assert path.read_bytes() == before


def test_two_models_share_a_file_but_are_not_mixed(path):
    store = Store(path)
    store.append([response(0, "a"), response(0, "b"), response(1, "a")])
    assert store.models() == ["a", "b"]
    assert store.get(response(0).request, "b").model == "b"
    assert store.get(response(1).request, "b") is None
    assert store.get(response(1).request).model == "a"
    with pytest.raises(UserError, match="answered by a and b"):
        store.get(response(0).request)


@pytest.mark.fault("damaged file", "knowledge")
def test_every_torn_end_is_repaired_without_losing_a_whole_line(path):
    Store(path).append([response(0), response(1)])
    kept = len(path.read_bytes())
    Store(path).append([response(2)])
    whole = path.read_bytes()
    for cut in range(kept + 1, len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.warns(UserWarning, match=r"store\.jsonl ended within a line"):
            store = Store(path)
        assert path.read_bytes() == whole[:kept]
        assert [row.meta["id"] for row in store] == [0, 1]
        assert store.append([response(2)]) == 1
        assert path.read_bytes() == whole


@pytest.mark.fault("damaged file", "knowledge")
def test_a_truncated_file_that_is_only_read_is_an_error_and_stays(path):
    Store(path).append([response(0), response(1)])
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    with pytest.raises(UserError, match=r"store\.jsonl is cut off in the middle of line 2"):
        Store(path, readonly=True)
    assert path.read_bytes() == torn


@pytest.mark.fault("damaged file", "knowledge")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"prompt": row["prompt"] + "!"}, "its key .* is not that of its request"),
        (lambda row: row | {"key": "0" * 64}, "its key 000000000000 is not that of its request"),
        (lambda row: {k: v for k, v in row.items() if k != "model"}, "has no field 'model'"),
        (lambda row: row | {"txt": ""}, "unknown field 'txt'"),
        (lambda row: row | {"decoding": {"heat": 1}}, "decoding setting 'heat'"),
        (lambda row: row | {"text": None}, "field text is None, not a text"),
        (lambda row: [row], "not a JSON object"),
        (lambda row: {k: v for k, v in row.items() if k != "system"}, "has no field 'system'"),
    ],
)
def test_an_altered_line_is_named(path, change, message):
    Store(path).append([response(0), response(1)])
    first, second = path.read_text().split("\n")[:2]
    path.write_text(f"{first}\n{json.dumps(change(json.loads(second)))}\n")
    with pytest.raises(UserError, match=rf"line 2 of .*store\.jsonl is not an answer: .*{message}"):
        Store(path)


@pytest.mark.fault("damaged file", "knowledge")
def test_half_json_and_a_repeated_line_are_named(path):
    Store(path).append([response(0)])
    line = path.read_text()
    path.write_text(line + line[:40] + "\n")
    with pytest.raises(UserError, match=r"line 2 of .*store\.jsonl is not an answer"):
        Store(path)
    path.write_text(line + line)
    with pytest.raises(UserError, match=r"line 2 of .*store\.jsonl answers .*'question 0'.* a second time"):
        Store(path)


def test_reading_needs_a_file_and_does_not_write(path):
    with pytest.raises(UserError, match=r"store\.jsonl does not exist"):
        Store(path, readonly=True)
    Store(path).append([response(0)])
    with pytest.raises(UserError, match="opened for reading only"):
        Store(path, readonly=True).append([response(1)])


APPEND = """
import pathlib, sys, time
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store
store = Store(sys.argv[1])
pathlib.Path(sys.argv[2]).touch()
while len(list(pathlib.Path(sys.argv[2]).parent.iterdir())) < 4:
    time.sleep(0.001)
for number in range(80):
    store.append([Response(Request("p", "s", f"question {number}"), "x" * 5000, "m")])
"""


@pytest.mark.fault("two processes", "knowledge")
def test_processes_append_to_one_file_at_the_same_time(path, tmp_path):
    """Four processes start together and have the same answers: each is written once, whole."""
    ready = tmp_path / "ready"
    ready.mkdir()
    children = [
        subprocess.Popen([sys.executable, "-c", APPEND, path, ready / str(number)]) for number in range(4)
    ]
    assert [child.wait() for child in children] == [0] * 4
    prompts_ = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    assert prompts_ == [f"question {number}" for number in range(80)]


def test_what_others_append_is_seen(path):
    mine = Store(path)
    Store(path).append([response(0)])
    assert len(mine) == 0
    mine.refresh()
    assert list(mine) == [response(0)]


FILL = """
import resource, signal, sys
from rec_utils.errors import UserError
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(sys.argv[1])
store.append([Response(Request("p", "s", "short"), "x", "m")])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
for _ in range(2):
    try:
        store.append([Response(Request("p", "s", "long"), "x" * 5000, "m")])
    except UserError as error:
        print(error)
"""


@pytest.mark.fault("full disk", "knowledge")
@pytest.mark.parametrize("limit", [1000, 1])
def test_a_full_disk_leaves_whole_lines_and_names_the_file(path, limit):
    """The file size limit cuts the write short (1000) or refuses it (1), as a full disk does."""
    run = subprocess.run(
        [sys.executable, "-c", FILL, path, str(limit)], capture_output=True, text=True, check=True
    )
    assert run.stdout.count(f" while writing {path}") == 2
    assert [row.request.prompt for row in Store(Path(path), readonly=True)] == ["short"]
