"""Answers from a causal language model of the Hugging Face library, run here in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from rec_utils.errors import UserError
from rec_utils.knowledge.request import DEFAULT_DECODING, Request, Response
from rec_utils.settings import check_choice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rec_utils.decoding import TreeDecoder

DECODERS = ("generate", "dare", "dare-strict")
BATCH_SIZE = 8


class HuggingFaceBackend:
    """Any causal LM, by Hugging Face name or folder, or as a loaded (model, tokenizer).

    On GPUs a named model is spread over all of them (`device_map="auto"`), or held whole on each under
    `accelerate launch`, where the processes share the requests through a common store. Decoding is greedy
    unless a request states a temperature; sampled answers repeat only for equal batches. `name` is the
    model's name in the store and is needed for a loaded model. Remote code is never run.

    With `decoder="dare"` every answer is drafted from those before it (`rec_utils.decoding`), one request at
    a time and with a pool for each purpose that grows as it goes; `drafts_from` are answers to start with,
    say those of the store. A draft is accepted where the model finds it likely, so wordings may differ from
    greedy ones; with "dare-strict" they do not. What this saved is in `decoders[purpose].counts`.
    """

    def __init__(
        self,
        model: str | tuple[PreTrainedModel, PreTrainedTokenizerBase],
        *,
        name: str | None = None,
        batch_size: int | None = None,
        decoder: str = "generate",
        drafts_from: Iterable[Response] = (),
    ) -> None:
        import torch
        from accelerate import PartialState

        if name is None and not isinstance(model, str):
            raise UserError(
                "parameter name: a loaded model needs the name under which its answers are stored"
            )
        check_choice("parameter decoder", decoder, DECODERS)
        drafting = decoder != "generate"
        if batch_size is not None and (batch_size < 1 or (drafting and batch_size > 1)):
            rule = "1 with this decoder" if drafting else "at least 1"
            raise UserError(f"parameter batch_size must be {rule}, not {batch_size}")
        self.model = name or model
        self.batch_size = batch_size or (1 if drafting else BATCH_SIZE)
        self._processes = PartialState(cpu=not torch.cuda.is_available())
        self.n_processes: int = self._processes.num_processes
        if self.n_processes > 1:
            # who is done first may wait for hours; a process that dies is noticed at once all the same
            self._waiting = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=30))
        self._lm, self._tokenizer = self._load(model) if isinstance(model, str) else model
        self._lm.eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._decoder = decoder
        self.decoders: dict[str, TreeDecoder] = {}  #: by the purpose of the requests
        for response in drafts_from if drafting else ():
            tokens = self._tokenizer(response.text, add_special_tokens=False)["input_ids"]
            self._drafting(response.request.purpose).pool.add([*tokens, *self._end_tokens()[:1]])

    def answer(self, requests: Sequence[Request]) -> Iterator[list[Response]]:
        """Yield the responses batch by batch, longest prompts first; see `llm.Backend`.

        Processes of a launch end together: all must call, also those to which nothing is left to answer.
        """
        import torch

        # a request's process follows from its key, so no two processes ever answer the same one
        world, rank = self.n_processes, self._processes.process_index
        mine = [request for request in requests if int(request.key, 16) % world == rank]
        texts = {request.key: self._text(request) for request in mine}
        # one batch has one kind of decoding and texts of like length
        mine.sort(key=lambda request: (_settings(request), len(texts[request.key])), reverse=True)
        for _, group in groupby(mine, key=_settings):
            alike = list(group)
            for start in range(0, len(alike), self.batch_size):
                batch = alike[start : start + self.batch_size]
                yield self._answer_batch(batch, [texts[request.key] for request in batch])
        if world > 1:
            torch.distributed.barrier(self._waiting)

    def _load(self, name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        alone = self._processes.num_processes == 1
        device_map = (
            {"": self._processes.device} if not alone else "auto" if torch.cuda.is_available() else None
        )
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            # half precision is slow on a CPU
            dtype = "auto" if torch.cuda.is_available() else torch.float32
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, device_map=device_map, trust_remote_code=False
            )
        except (OSError, ValueError, UnpicklingError) as error:  # the last: weights that are code
            raise UserError(
                f"language model {name!r} could not be loaded: {str(error).splitlines()[0]}"
            ) from error
        return model, tokenizer

    def _text(self, request: Request) -> str:
        """The request as the model reads it: in its chat template, if it has one."""
        from jinja2 import TemplateError

        plain = f"{request.system}\n\n{request.prompt}".lstrip()
        if not self._tokenizer.chat_template:
            return f"{plain}\n\n"
        system = [{"role": "system", "content": request.system}] if request.system else []
        user = {"role": "user", "content": request.prompt}
        try:
            return self._apply_template([*system, user])
        except TemplateError:  # some templates know no system role
            return self._apply_template([{"role": "user", "content": plain}])

    def _apply_template(self, messages: list[dict[str, str]]) -> str:
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _answer_batch(self, requests: list[Request], texts: list[str]) -> list[Response]:
        import torch

        decoding = DEFAULT_DECODING | dict(requests[0].decoding)
        tokens = self._tokenizer(
            texts,
            padding=True,
            padding_side="left",
            add_special_tokens=not self._tokenizer.chat_template,  # a template has written them already
            return_tensors="pt",
        )
        length = tokens["input_ids"].shape[1]
        self._check_length(requests, tokens["attention_mask"].sum(1).tolist(), decoding["max_new_tokens"])
        how = _sampling(decoding)
        if self._decoder != "generate":
            if decoding["temperature"] > 0:
                raise UserError(f"{requests[0].describe()} asks for sampling, but {self._decoder} is greedy")
            how["custom_generate"] = self._drafting(requests[0].purpose)
        if decoding["temperature"] > 0:
            torch.manual_seed(decoding.get("seed", 0))
        try:
            written = self._lm.generate(
                tokens["input_ids"].to(self._lm.device),
                attention_mask=tokens["attention_mask"].to(self._lm.device),
                max_new_tokens=decoding["max_new_tokens"],
                pad_token_id=self._tokenizer.pad_token_id,
                **how,
            )
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"parameter batch_size: {len(requests)} requests of {length} tokens"
                " do not fit into the GPU's memory; use fewer"
            ) from error
        written = written[:, length:].cpu()
        ended = torch.isin(written, torch.tensor(self._end_tokens())).any(1).tolist()
        decoded = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        meta = {} if self._decoder == "generate" else {"decoder": self._decoder}
        return [
            Response(request, text.strip(), self.model, "stop" if end else "length", meta)
            for request, text, end in zip(requests, decoded, ended, strict=True)
        ]

    def _drafting(self, purpose: str) -> TreeDecoder:
        """The decoder for requests of a purpose, whose answers resemble each other."""
        from rec_utils.decoding import Pool, Relaxed, Strict, TreeDecoder

        if purpose not in self.decoders:
            self.decoders[purpose] = TreeDecoder(
                Pool(self._lm.config.get_text_config().vocab_size),
                tree_size=64 if self._lm.device.type == "cuda" else 16,
                verification=Relaxed() if self._decoder == "dare" else Strict(),
                grow=True,
            )
        return self.decoders[purpose]

    def _end_tokens(self) -> list[int]:
        end = self._lm.generation_config.eos_token_id
        return end if isinstance(end, list) else [] if end is None else [end]

    def _check_length(self, requests: list[Request], lengths: list[int], max_new_tokens: int) -> None:
        limit = getattr(self._lm.config.get_text_config(), "max_position_embeddings", None)
        for request, length in zip(requests, lengths, strict=True):
            if limit is not None and length + max_new_tokens > limit:
                raise UserError(
                    f"{request.describe()} has {length} tokens and asks for {max_new_tokens} more,"
                    f" but {self.model} reads {limit}"
                )


def _settings(request: Request) -> list[tuple[str, int | float]]:
    return sorted(request.decoding.items())


def _sampling(decoding: Mapping[str, int | float]) -> dict[str, Any]:
    if decoding["temperature"] == 0:
        return {"do_sample": False}
    # top_k is 50 in the library and off at servers
    return {
        "do_sample": True,
        "temperature": decoding["temperature"],
        "top_p": decoding.get("top_p", 1.0),
        "top_k": 0,
    }
