"""One interface to language models: requests in, responses out, whoever answers.

`ReplayBackend` looks answers up in stores, `huggingface.HuggingFaceBackend` runs a causal LM here,
`server.ServerBackend` asks an OpenAI-compatible endpoint. With a store, an answer is on disk as soon as
it is there: a run that was stopped, even by SIGKILL, goes on where it was and asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from rec_utils import settings
from rec_utils.errors import UserError
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store
from rec_utils.progress import bar


class Backend(Protocol):
    """Something that answers requests."""

    model: str | None  #: name of the model that answers; None if stored answers of any model will do

    def answer(self, requests: Sequence[Request]) -> Iterator[list[Response]]:
        """Yield the responses in groups, as they are ready, in any order.

        Raises `UserError` when it cannot go on, after having yielded all it has.
        """
        ...


class ReplayBackend:
    """Answers from stores alone; what is not in them is an error, never a made-up text."""

    def __init__(self, *stores: Store, model: str | None = None) -> None:
        self.stores = stores
        self.model = model

    @classmethod
    def bundled(cls) -> ReplayBackend:
        """Replay from the stores shipped with the project."""
        paths = sorted((settings.BUNDLED / "knowledge").glob("*.jsonl"))
        return cls(*(Store(path, readonly=True) for path in paths))

    def answer(self, requests: Sequence[Request]) -> Iterator[list[Response]]:
        """Yield all answers at once; `UserError` names the first request that is in no store."""
        yield [self._look_up(request) for request in requests]

    def _look_up(self, request: Request) -> Response:
        found = [answer for store in self.stores if (answer := store.get(request, self.model))]
        if not found:
            names = ", ".join(store.path.name for store in self.stores) or "no store"
            by = f" by {self.model}" if self.model else ""
            raise UserError(f"{request.describe()} has no stored answer{by} (looked in {names})")
        if len(models := sorted({answer.model for answer in found})) > 1:
            raise UserError(
                f"{request.describe()} was answered by {' and '.join(models)} in different stores;"
                " name the model whose answer you want"
            )
        return found[0]


def generate(
    requests: Sequence[Request],
    store: Store | None = None,
    backend: Backend | None = None,
    progress: bool = True,
) -> list[Response]:
    """Answer `requests`, in their order, from `store` where it can and from `backend` for the rest.

    Without `backend` the shipped answers are replayed. New answers are appended to `store` as they come;
    equal requests are asked once. `UserError` when the back-end fails; it says how many answers are kept.
    """
    backend = backend or ReplayBackend.bundled()
    wanted = {request.key: request for request in requests}
    answers = _stored(wanted, store, backend)
    pending = [request for key, request in wanted.items() if key not in answers]
    # processes of a launch wait for each other, also one that sees all the answers before another does
    together = getattr(backend, "n_processes", 1) > 1
    with bar(
        progress, total=len(wanted), initial=len(answers), desc=backend.model or "replay"
    ) as answers_bar:
        try:
            for group in backend.answer(pending) if pending or together else ():
                if store is not None:
                    store.append(group)
                answers |= {response.key: response for response in group}
                answers_bar.update(len(group))
        except UserError as error:
            if store is None or not answers:
                raise
            raise UserError(
                f"{error}; {len(answers)} of {len(wanted)} answers are kept in {store.path},"
                " and the same call goes on from there"
            ) from error
    if store is not None and len(answers) < len(wanted):
        # the other processes of an `accelerate launch` wrote their share
        store.refresh()
        answers = _stored(wanted, store, backend)
    if missing := next((request for key, request in wanted.items() if key not in answers), None):
        raise UserError(f"{missing.describe()} was not answered; several processes must share one store")
    return [answers[request.key] for request in requests]


def _stored(wanted: dict[str, Request], store: Store | None, backend: Backend) -> dict[str, Response]:
    if store is None:
        return {}
    found = ((key, store.get(request, backend.model)) for key, request in wanted.items())
    return {key: answer for key, answer in found if answer is not None}
