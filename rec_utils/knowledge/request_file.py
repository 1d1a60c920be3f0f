"""Requests in a JSONL file: what a launch on several processes is asked to answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rec_utils.errors import UserError
from rec_utils.knowledge.prompts import SYSTEM
from rec_utils.knowledge.request import Request

#: Of a request; `system` may be left out where the project has a text for the purpose.
FIELDS = ("purpose", "system", "prompt", "decoding")
#: Of an answer in a store: they are passed over, so the questions of a store can be put to another model.
OF_ANSWERS = ("key", "model", "text", "finish", "meta")


def read_requests(path: Path) -> list[Request]:
    """The requests in a file, one JSON object a line, in its order and each once.

    Raises:
        UserError: the file cannot be read, is empty, or a line is no request; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"requests {path} cannot be read: {reason}") from error
    requests = {}
    for number, line in enumerate(lines, 1):
        try:
            request = _request(json.loads(line))
        except (ValueError, UserError) as error:
            raise UserError(f"line {number} of {path} is not a request: {error}") from error
        requests[request.key] = request
    if not requests:
        raise UserError(f"requests {path} is empty")
    return list(requests.values())


def _request(row: Any) -> Request:
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    if unknown := sorted(set(row) - {*FIELDS, *OF_ANSWERS}):
        raise ValueError(f"unknown field {unknown[0]!r}")
    known = {"system": SYSTEM.get(row.get("purpose")), "decoding": {}} | row
    for name, kind in zip(FIELDS, (str, str, str, dict), strict=True):
        if not isinstance(known.get(name), kind):
            what = "is missing" if known.get(name) is None else f"is {known[name]!r}"
            raise ValueError(f"field {name!r} {what}")
    return Request(*(known[name] for name in FIELDS))
