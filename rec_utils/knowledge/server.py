"""Answers from an OpenAI-compatible endpoint, such as vLLM, llama.cpp or `transformers serve`."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from json import JSONDecodeError

import openai
import tenacity

from rec_utils.errors import UserError
from rec_utils.knowledge.request import DEFAULT_DECODING, Request, Response

_PARAMETERS = {"max_new_tokens": "max_tokens"}  # names of decoding settings that differ in the protocol
_LONGEST_WAIT = 120.0  # seconds; what a server may ask for by Retry-After


class _BrokenAnswer(Exception):
    """The server's answer is not a chat completion."""


class ServerBackend:
    """An OpenAI-compatible chat endpoint at `base_url` (ends in /v1 as a rule) that serves `model`.

    A failure that may pass (refused connection, time-out, 408, 409, 429, 5xx, a broken answer) is tried
    again, at most `attempts` times in all, after the server's Retry-After or an exponential back-off of
    up to `max_wait` seconds; then it is a `UserError`. At most `concurrency` requests run at a time, and no
    more than `requests_per_minute` start in a minute. `timeout` is in seconds. The key is `api_key`, else
    `$OPENAI_API_KEY`; local servers need none. It is sent to the server and shown nowhere, also where the
    server repeats it.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 4,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        attempts: int = 6,
        max_wait: float = 20.0,
    ) -> None:
        for name, value in {"concurrency": concurrency, "attempts": attempts, "timeout": timeout}.items():
            if value <= 0:
                raise UserError(f"parameter {name} must be positive, not {value}")
        if requests_per_minute is not None and requests_per_minute <= 0:
            raise UserError(f"parameter requests_per_minute must be positive, not {requests_per_minute}")
        self._key = (api_key or os.environ.get("OPENAI_API_KEY") or "none").strip()
        if not re.fullmatch(r"[!-~]+", self._key):  # else the client's error would show it
            raise UserError("parameter api_key or OPENAI_API_KEY has a space or a letter that no key has")
        self.base_url = base_url
        self.model = model
        self.concurrency = concurrency
        self.attempts = attempts
        self.timeout = timeout
        self._backoff = tenacity.wait_random_exponential(multiplier=0.5, max=max_wait)
        self._limit = _RateLimit(60 / requests_per_minute if requests_per_minute else 0.0)
        # retries are ours, so that each of them also counts in the rate limit
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=self._key,
            timeout=timeout,
            max_retries=0,
        )

    def answer(self, requests: Sequence[Request]) -> Iterator[list[Response]]:
        """Yield each response as it arrives; see `llm.Backend`.

        After the first failure no request is started any more, but those under way are waited for.
        """
        stopped = threading.Event()
        failure = None
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self._ask, request, stopped) for request in requests]
            try:
                for future in as_completed(futures):
                    error = future.exception()
                    if error is None:
                        yield [future.result()]
                    elif not isinstance(error, CancelledError):
                        failure = failure or error
            finally:  # also when the caller stops listening
                stopped.set()
        if failure is not None:
            raise self._explain(failure) from None  # its cause may show the key

    def _ask(self, request: Request, stopped: threading.Event) -> Response:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(self.attempts) | tenacity.stop_when_event_set(stopped),
            wait=lambda state: _retry_after(state.outcome.exception()) or self._backoff(state),
            sleep=tenacity.sleep_using_event(stopped),
            reraise=True,
        )
        try:
            return retrying(self._ask_once, request, stopped)
        except BaseException:
            stopped.set()
            raise

    def _ask_once(self, request: Request, stopped: threading.Event) -> Response:
        if stopped.wait(self._limit.delay()):
            raise CancelledError
        system = [{"role": "system", "content": request.system}] if request.system else []
        decoding = DEFAULT_DECODING | dict(request.decoding)
        try:
            completion = self._client.chat.completions.create(
                model=self.model,
                messages=[*system, {"role": "user", "content": request.prompt}],
                **{_PARAMETERS.get(name, name): value for name, value in decoding.items()},
            )
            choice = completion.choices[0]
            text, finish = choice.message.content, choice.finish_reason
        except (JSONDecodeError, UnicodeDecodeError, AttributeError, IndexError, TypeError) as error:
            raise _BrokenAnswer(str(error)) from None
        if not isinstance(text, str):
            raise _BrokenAnswer("it holds no text")
        # a lone surrogate, legal in JSON, is no character and cannot be stored
        text = text.encode("utf-8", "replace").decode()
        return Response(request, self._hidden(text).strip(), self.model, finish)

    def _hidden(self, text: str) -> str:
        """A text without the key, unless that is so short that it is none."""
        return text.replace(self._key, "***") if len(self._key) >= 8 else text

    def _explain(self, error: BaseException) -> UserError:
        """The error in one sentence; one that is no fault of server or user is raised as it is."""
        address = re.sub(r"//[^/]*@|[?#].*", lambda part: "//" if part[0][0] == "/" else "", self.base_url)
        server, tries = f"the server {address}", f"{self.attempts} attempts"
        match error:
            case openai.APITimeoutError():
                return UserError(f"{server} did not answer within {self.timeout:g} s, in {tries}")
            case openai.APIConnectionError():
                return UserError(
                    f"{server} cannot be reached ({self._hidden(str(error.__cause__ or error))}), in {tries};"
                    " is it running?"
                )
            case openai.RateLimitError():
                return UserError(
                    f"{server} still answers 429 (too many requests) after {tries};"
                    " lower requests_per_minute or concurrency"
                )
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return UserError(f"{server} refuses the key (status {error.status_code}); set OPENAI_API_KEY")
            case openai.NotFoundError():
                return UserError(
                    f"{server} has no model {self.model!r} or no chat endpoint (404); {self._served()}"
                )
            case openai.APIStatusError():
                said = _start(self._hidden(error.response.text))
                return UserError(f"{server} answers with status {error.status_code}: {said}")
            case _BrokenAnswer():
                return UserError(
                    f"{server} answers with something that is no chat completion"
                    f" ({self._hidden(str(error))}), in {tries}"
                )
        return error

    def _served(self) -> str:
        try:
            names = [model.id for model in self._client.models.list()]
        except (openai.OpenAIError, JSONDecodeError, AttributeError, TypeError):
            return "it does not list its models"
        return self._hidden(f"it serves {', '.join(names) or 'none'}")


class _RateLimit:
    """Spreads starts evenly: no two are closer than `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = 0.0
        self._lock = threading.Lock()

    def delay(self) -> float:
        """Seconds to wait before the next start, which is thereby taken."""
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now)
            self._next = start + self._interval
            return start - now


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | _BrokenAnswer)


def _retry_after(error: BaseException | None) -> float | None:
    """Seconds the server asks to wait, if it says so in a form and length we follow."""
    if not isinstance(error, openai.APIStatusError):
        return None
    try:
        return min(float(error.response.headers["retry-after"]), _LONGEST_WAIT)
    except (KeyError, ValueError):
        return None


def _start(text: str) -> str:
    return " ".join(text.split())[:200]
