"""What is asked of a language model and what it answered, with an identity that cannot drift.

A request is known by the SHA-256 of its canonical JSON, so a stored answer belongs to exactly one
wording of the question and one set of decoding settings: change a letter and it is another request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from rec_utils.errors import UserError
from rec_utils.settings import check_choice

#: Decoding settings a request may state, each with its type. What it does not state is the back-end's
#: default (`DEFAULT_DECODING`), so that one request can be sent to any model.
DECODING_TYPES: Mapping[str, type] = MappingProxyType(
    {"max_new_tokens": int, "temperature": float, "top_p": float, "seed": int}
)

#: Greedy, and long enough for 150 words of prose in most tokenisers.
DEFAULT_DECODING: Mapping[str, int | float] = MappingProxyType({"max_new_tokens": 256, "temperature": 0.0})


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no escapes beyond what JSON demands."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Request:
    """One question: `purpose` groups requests of a kind, `system` and `prompt` are sent as they are.

    `decoding` may hold max_new_tokens, temperature (0 = greedy), top_p and seed; anything else, or a
    value that is not a number, raises `UserError`.
    """

    purpose: str
    system: str
    prompt: str
    decoding: Mapping[str, int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = {}
        for name, value in self.decoding.items():
            kind = DECODING_TYPES[check_choice("decoding setting", name, tuple(DECODING_TYPES))]
            # 0 and 0.0 mean the same and must not give two keys
            if isinstance(value, bool) or not isinstance(value, int | float) or kind(value) != value:
                raise UserError(f"decoding setting {name} must be of type {kind.__name__}, not {value!r}")
            settings[name] = kind(value)
        object.__setattr__(self, "decoding", MappingProxyType(settings))

    @cached_property
    def key(self) -> str:
        """Hex SHA-256 of the canonical JSON of the four fields."""
        fields = {
            "purpose": self.purpose,
            "system": self.system,
            "prompt": self.prompt,
            "decoding": dict(self.decoding),
        }
        return hashlib.sha256(canonical_json(fields).encode()).hexdigest()

    def describe(self) -> str:
        """Purpose, start of the key and start of the prompt, for messages."""
        start = self.prompt[:60] + ("…" if len(self.prompt) > 60 else "")
        return f"{self.purpose} request {self.key[:12]} ({start!r})"


@dataclass(frozen=True)
class Response:
    """One answer: `model` says who wrote it, `finish` why it ended ("stop", "length", or None if unknown).

    `meta` holds what the asker wants to keep beside it, such as the IMDb id of the film.
    """

    request: Request
    text: str
    model: str
    finish: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Key of the request answered."""
        return self.request.key
