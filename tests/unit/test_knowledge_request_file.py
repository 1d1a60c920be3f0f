"""Requests from a file, and what a mistake in it says."""

import json

import pytest

from rec_utils.errors import UserError
from rec_utils.knowledge.prompts import SYSTEM
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.request_file import read_requests
from rec_utils.knowledge.store import Store

PURPOSE = next(iter(SYSTEM))


def write(path, *rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_requests_come_in_order_and_once(tmp_path):
    rows = [
        {"purpose": "x", "system": "Be brief.", "prompt": "b\nö", "decoding": {"max_new_tokens": 3}},
        {"purpose": "x", "system": "", "prompt": "a"},
        {"purpose": PURPOSE, "prompt": "a"},
    ]
    assert read_requests(write(tmp_path / "r.jsonl", *rows, rows[1])) == [
        Request("x", "Be brief.", "b\nö", {"max_new_tokens": 3}),
        Request("x", "", "a"),
        Request(PURPOSE, SYSTEM[PURPOSE], "a"),
    ]


def test_the_questions_of_a_store_can_be_asked_again(tmp_path):
    asked = [Request("x", "S", "q", {"temperature": 0.5}), Request(PURPOSE, SYSTEM[PURPOSE], "p")]
    Store(tmp_path / "s.jsonl").append([Response(r, "text", "model", "stop", {"imdb": 1}) for r in asked])
    assert read_requests(tmp_path / "s.jsonl") == asked


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "line 2 of .*r.jsonl is not a request: Expecting"),
        ("[1]", "line 2 .* it is not a JSON object"),
        ({"purpose": "x", "system": "", "prompts": "a"}, "unknown field 'prompts'"),
        ({"purpose": "x", "system": ""}, "field 'prompt' is missing"),
        ({"purpose": "x", "prompt": "a"}, "field 'system' is missing"),
        ({"purpose": "x", "system": "", "prompt": 3}, "field 'prompt' is 3"),
        ({"purpose": "x", "system": "", "prompt": "", "decoding": {"tokens": 3}}, "line 2 .*'tokens'"),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path, row, told):
    good = {"purpose": "x", "system": "", "prompt": "a"}
    with pytest.raises(UserError, match=told):
        read_requests(write(tmp_path / "r.jsonl", good, row))


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path):
    with pytest.raises(UserError, match=r"r\.jsonl cannot be read: No such file"):
        read_requests(tmp_path / "r.jsonl")
    with pytest.raises(UserError, match=r"r\.jsonl is empty"):
        read_requests(write(tmp_path / "r.jsonl"))
    (tmp_path / "r.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="it is not UTF-8"):
        read_requests(tmp_path / "r.jsonl")
