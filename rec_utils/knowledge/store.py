"""Answers of language models in a JSONL file that survives being killed at any moment.

One answer is one line. A line is written by a single `write` at the end of the file while the file is
locked, and forced to disk; a line torn by a crash is cut off when the file is next opened for writing,
so its request counts as not answered. A row is known by (key of the request, model): answers of two
models to one request can share a file, but are never taken for each other.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rec_utils.errors import UserError
from rec_utils.files import writing
from rec_utils.knowledge.prompts import SYSTEM
from rec_utils.knowledge.request import Request, Response

_FIELDS = {"key", "purpose", "system", "prompt", "decoding", "model", "finish", "text", "meta"}


class Store:
    """The answers in one JSONL file, held in memory and kept in step with the file.

    With `readonly` the file must exist and be whole; otherwise it is made when missing and a torn last
    line is cut off. Several processes may append to one file at the same time.
    """

    def __init__(self, path: Path | str, *, readonly: bool = False) -> None:
        self.path = Path(path)
        self.readonly = readonly
        self._rows: dict[str, dict[str, Response]] = {}
        self._offset = 0  # bytes of the file that are in `_rows`
        self._lines = 0
        if readonly and not self.path.is_file():
            raise UserError(f"knowledge store {self.path} does not exist")
        self.refresh()

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def __iter__(self) -> Iterator[Response]:
        for answers in self._rows.values():
            yield from answers.values()

    def models(self) -> list[str]:
        """Names of the models that wrote the answers, sorted."""
        return sorted({response.model for response in self})

    def get(self, request: Request, model: str | None = None) -> Response | None:
        """The answer of `model`, or None.

        Without `model` the answer must be the only one: `UserError` when several models answered.
        """
        answers = self._rows.get(request.key, {})
        if model is not None:
            return answers.get(model)
        if len(answers) > 1:
            raise UserError(
                f"{request.describe()} was answered by {' and '.join(sorted(answers))} in {self.path};"
                " name the model whose answer you want"
            )
        return next(iter(answers.values()), None)

    def append(self, responses: Sequence[Response]) -> int:
        """Write answers, each as one whole line, and return how many were new.

        A row already there (its request answered by the same model, perhaps just now by another
        process) is left as it is. `UserError` when the disk is full or read-only; the file then keeps its
        former content.
        """
        if self.readonly:
            raise UserError(f"knowledge store {self.path} was opened for reading only")
        with self._locked() as handle:
            self._read_new(handle)
            fresh = {(r.key, r.model): r for r in responses if self.get(r.request, r.model) is None}
            self._write(handle, "".join(map(_line, fresh.values())).encode())
            self._read_new(handle)
        return len(fresh)

    def refresh(self) -> None:
        """Take in what other processes have appended since."""
        with self._locked() as handle:
            self._read_new(handle)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with writing(self.path):
            if not self.readonly:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDONLY if self.readonly else os.O_RDWR | os.O_APPEND | os.O_CREAT
            handle = os.open(self.path, flags, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH if self.readonly else fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)  # unlocks, too

    def _write(self, handle: int, content: bytes) -> None:
        with writing(self.path):
            try:
                if os.write(handle, content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, self._offset)
                raise

    def _read_new(self, handle: int) -> None:
        with os.fdopen(os.dup(handle), "rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            # every writer holds the lock, so a line without end was left by one that died
            if self.readonly:
                line = self._lines + content.count(b"\n") + 1
                raise UserError(f"{self.path} is cut off in the middle of line {line}; restore the file")
            warnings.warn(
                f"{self.path} ended within a line, as after a crash: it is cut off and will be asked again",
                stacklevel=4,
            )
            os.ftruncate(handle, self._offset + whole)
        for line in content[:whole].split(b"\n")[:-1]:
            self._lines += 1
            self._add(line)
        self._offset += whole

    def _add(self, line: bytes) -> None:
        try:
            response = _parse(json.loads(line))
        except (ValueError, KeyError, TypeError, UserError) as error:
            reason = f"has no field {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"line {self._lines} of {self.path} is not an answer: {reason}; restore the file, or"
                " remove the line and its request will be asked again"
            ) from error
        answers = self._rows.setdefault(response.key, {})
        if response.model in answers:
            raise UserError(
                f"line {self._lines} of {self.path} answers {response.request.describe()} a second time"
            )
        answers[response.model] = response


def _line(response: Response) -> str:
    request = response.request
    row: dict[str, Any] = {"key": response.key, "purpose": request.purpose}
    if request.system != SYSTEM.get(request.purpose):
        row["system"] = request.system
    row["prompt"] = request.prompt
    if request.decoding:
        row["decoding"] = dict(request.decoding)
    row |= {"model": response.model, "text": response.text}
    if response.finish is not None:
        row["finish"] = response.finish
    if response.meta:
        row["meta"] = dict(response.meta)
    return json.dumps(row, ensure_ascii=False) + "\n"


def _parse(row: Any) -> Response:
    if not isinstance(row, dict):
        raise TypeError("it is not a JSON object")
    if unknown := set(row) - _FIELDS:
        raise ValueError(f"unknown field {min(unknown)!r}")
    for name in ("key", "purpose", "prompt", "model", "text"):
        if not isinstance(row[name], str):
            raise TypeError(f"field {name} is {row[name]!r}, not a text")
    ours = "system" not in row and row["purpose"] in SYSTEM
    system = SYSTEM[row["purpose"]] if ours else row["system"]
    request = Request(row["purpose"], system, row["prompt"], row.get("decoding", {}))
    if request.key != row["key"]:
        raise ValueError(
            f"its key {row['key'][:12]} is not that of its request ({request.key[:12]}): the prompt or the"
            f" system text of {request.purpose} was changed"
        )
    return Response(request, row["text"], row["model"], row.get("finish"), row.get("meta", {}))
