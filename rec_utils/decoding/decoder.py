"""A decoding loop in which one pass of the model verifies a tree of drafted tokens."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    DynamicCache,
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    PreTrainedModel,
    StoppingCriteriaList,
)

from rec_utils.decoding.pool import OwnText, Pool
from rec_utils.decoding.tree import Tree, draft
from rec_utils.errors import UserError

BRANCH = 12  #: tokens of a branch where no pool says otherwise


@dataclass(frozen=True)
class Strict:
    """Accept a drafted token if it is the most probable one: the text is that of greedy decoding."""

    def accepts(self, logits: Tensor, best: Tensor, row: Tensor, token: Tensor) -> Tensor:
        """[n] whether `token` [n] may stand where the model gave `logits` [q, V] at `row` [n].

        `best` [q] is the argmax of each row.
        """
        return best[row] == token


@dataclass(frozen=True)
class Relaxed:
    """Accept a drafted token too that is among the `k` most probable and has a probability above `p`.

    `p` is a threshold for the one token, not the mass of a nucleus.
    """

    k: int = 2
    p: float = 0.1

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 <= self.p < 1:
            raise UserError(f"Relaxed: k must be at least 1 and p in [0, 1), not {self.k} and {self.p}")

    def accepts(self, logits: Tensor, best: Tensor, row: Tensor, token: Tensor) -> Tensor:
        """As in `Strict`."""
        own = logits[row, token]
        near_best = (logits[row] > own[:, None]).sum(-1) < self.k
        probable = (own - logits.logsumexp(-1)[row]).exp() > self.p
        return (best[row] == token) | (near_best & probable)


@dataclass
class Counts:
    """What decoding cost, summed over texts."""

    texts: int = 0
    tokens: int = 0  #: written
    passes: int = 0  #: of the model, those over prompts included
    drafted: int = 0  #: tokens that were verified
    retrieval: float = 0.0  #: seconds for looking drafts up and making trees of them
    seconds: float = 0.0  #: in all


class TreeDecoder:
    """A decoding method for `model.generate(..., custom_generate=TreeDecoder(pool))`.

    It serves every decoder-only model of the library that takes position ids, one text at a time. Limits of
    length, end tokens, other stopping criteria and logits processors work as they do there.

    Args:
        pool: texts to draft from; without one, drafts come from the prompt and the text itself.
        tree_size: drafted tokens a pass, at most. On a CPU each of them costs time (16 is a good choice), on
            a GPU 64 cost about as much as none. 0 is plain greedy decoding.
        verification: which drafted tokens to accept.
        grow: add every finished text to the pool.
    """

    def __init__(
        self,
        pool: Pool | None = None,
        *,
        tree_size: int = 16,
        verification: Strict | Relaxed = Strict(),
        grow: bool = False,
    ) -> None:
        if tree_size < 0:
            raise UserError(f"parameter tree_size must not be negative, but is {tree_size}")
        if grow and pool is None:
            raise UserError("parameter grow: there is no pool to add texts to")
        self.pool, self.tree_size, self.verification, self.grow = pool, tree_size, verification, grow
        self.counts = Counts()
        self.written: list[list[int]] = []  #: token ids that each pass over the last text wrote

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,
    ) -> Tensor:
        """Token ids [1, prompt + written]. `UserError` for what cannot be decoded this way."""
        began, counts = perf_counter(), self.counts
        _check(model, input_ids, generation_config, model_kwargs)
        text = input_ids[0].tolist()
        own = self._own(text, model)
        n_prompt, stop = len(text), _Stop(stopping_criteria, input_ids.device)
        passes = Passes(model)
        tree, logits, self.written = None, passes.read(input_ids), []
        while True:
            scores = _processed(logits, tree, text, logits_processor)
            path, following = _walk(scores, tree, self.verification)
            new = [*tree.tokens[path].tolist(), following] if tree else [following]
            done, new = stop(text, new)
            text += new
            self.written.append(new)
            counts.passes += 1
            if done:
                break
            if tree is not None:
                passes.keep(path)
            own.write(new)
            started = perf_counter()
            # the pass after the last draft writes one token more
            depth = min(own.branch, generation_config.max_length - len(text) - 1)
            tree = draft(own, self.pool, self.tree_size, depth)
            counts.retrieval += perf_counter() - started
            counts.drafted += len(tree)
            logits = passes.verify(text[-1], tree)
        if self.grow:
            self.pool.add(text[n_prompt:])
        counts.texts += 1
        counts.tokens += len(text) - n_prompt
        counts.seconds += perf_counter() - began
        return torch.tensor([text], device=input_ids.device)

    def _own(self, prompt: Sequence[int], model: PreTrainedModel) -> OwnText:
        vocab_size = model.config.get_text_config().vocab_size
        if self.pool is None:
            return OwnText(prompt, vocab_size, BRANCH)
        if self.pool.vocab_size != vocab_size:
            raise UserError(
                f"the pool is for {self.pool.vocab_size} token ids, but the model's vocabulary has"
                f" {vocab_size}"
            )
        return OwnText(prompt, vocab_size, self.pool.branch)


class Passes:
    """Passes of a model over a text and drafts after it, with the cache of what was accepted."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._cache = model, DynamicCache()
        self._past = 0  # tokens in the cache, without those of a draft
        self._eager = model.config._attn_implementation == "eager"

    def read(self, input_ids: Tensor) -> Tensor:
        """[1, V] logits after the prompt [1, n]."""
        ids = input_ids.to(self._model.device)
        kept = {"logits_to_keep": 1} if self._model._supports_logits_to_keep() else {}
        logits = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **kept).logits
        self._past = ids.shape[1]
        return logits[0, -1:].float()

    def verify(self, last: int, tree: Tree) -> Tensor:
        """[1 + n, V] logits after the last token of the text and after each of the tree's n tokens."""
        n, device = len(tree), self._model.device
        ids = torch.tensor([[last, *tree.tokens.tolist()]], device=device)
        position = torch.tensor([[self._past, *(self._past + 1 + tree.depth).tolist()]], device=device)
        logits = self._model(
            input_ids=ids,
            position_ids=position,
            attention_mask=self._mask(tree) if n else None,
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        return logits[0].float()

    def keep(self, path: NDArray[np.intp]) -> None:
        """Keep the last token and the accepted ones in the cache; the rest of the draft goes."""
        first = self._past + 1
        self._past = first + len(path)
        moved = None if (path == np.arange(len(path))).all() else torch.from_numpy(first + path)
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)
                if moved is not None:
                    states[:, :, first : self._past] = states[:, :, moved.to(states.device)]
                setattr(layer, name, states[:, :, : self._past])

    def _mask(self, tree: Tree) -> Tensor:
        """[1, 1, 1 + n, past + 1 + n]: all see the text, a drafted token itself and its ancestors too."""
        n = len(tree)
        mask = torch.ones(1, 1, 1 + n, self._past + 1 + n, dtype=torch.bool)
        mask[..., 0, self._past + 1 :] = False
        mask[..., 1:, self._past + 1 :] = torch.from_numpy(tree.sees)
        mask = mask.to(self._model.device)
        if not self._eager:
            return mask
        # the plain implementation adds its mask to the scores
        zeros = torch.zeros(mask.shape, dtype=self._model.dtype, device=mask.device)
        return zeros.masked_fill(~mask, torch.finfo(self._model.dtype).min)


class _Stop:
    """Where a text ends: at the limit, after an end token, or where another criterion says so."""

    def __init__(self, criteria: StoppingCriteriaList, device: torch.device) -> None:
        self._limit, self._ends, self._others, self._device = None, set(), StoppingCriteriaList(), device
        for one in criteria:
            if type(one) is MaxLengthCriteria:
                self._limit = min(one.max_length, self._limit or one.max_length)
            elif type(one) is EosTokenCriteria:
                self._ends |= set(one.eos_token_id.tolist())
            else:
                self._others.append(one)

    def __call__(self, text: Sequence[int], new: list[int]) -> tuple[bool, list[int]]:
        """Whether a text ends within its `new` tokens, and those up to there."""
        for n, token in enumerate(new, 1):
            ids = [*text, *new[:n]] if self._others else text
            if (
                token in self._ends
                or len(text) + n == self._limit
                or (self._others and self._others(torch.tensor([ids], device=self._device), None).all())
            ):
                return True, new[:n]
        return False, new


def _walk(scores: Tensor, tree: Tree | None, verification: Strict | Relaxed) -> tuple[NDArray[np.intp], int]:
    """The longest accepted branch as places in the tree, and the most probable token after it.

    Of equally long ones it is the most frequent. `scores` [1 + n, V] are those after the last token of the
    text and after each node.
    """
    best = scores.argmax(-1)
    if not tree:
        return np.empty(0, np.intp), int(best[0])
    row, token = (
        torch.from_numpy(a.astype(np.int64)).to(best.device) for a in (tree.parent + 1, tree.tokens)
    )
    accepted = verification.accepts(scores, best, row, token).cpu().numpy()
    whole = ~(tree.sees & ~accepted).any(axis=1)
    if not whole.any():
        return np.empty(0, np.intp), int(best[0])
    last = np.lexsort((-tree.weight, -tree.depth, ~whole))[0]
    return np.flatnonzero(tree.sees[last]), int(best[last + 1])


def _processed(
    logits: Tensor, tree: Tree | None, text: Sequence[int], processors: LogitsProcessorList
) -> Tensor:
    """Logits after the processors, each row with the tokens that lead to it."""
    if not processors:
        return logits
    branches = [[]] if tree is None else [[], *(tree.tokens[sees].tolist() for sees in tree.sees)]
    ids = (torch.tensor([[*text, *branch]], device=logits.device) for branch in branches)
    return torch.cat([processors(i, row[None]) for i, row in zip(ids, logits, strict=True)])


def _check(
    model: PreTrainedModel, input_ids: Tensor, config: GenerationConfig, model_kwargs: dict[str, Any]
) -> None:
    def refuse(reason: str) -> None:
        raise UserError(f"tree decoding of {type(model).__name__}: {reason}")

    if model.config.is_encoder_decoder:
        refuse("only decoder-only models can be decoded this way")
    if config.do_sample or config.num_beams > 1:
        refuse("it is greedy; set do_sample=False and num_beams=1")
    if len(input_ids) != 1:
        refuse(f"it takes one prompt at a time, not {len(input_ids)}")
    if model_kwargs.get("attention_mask") is not None:
        refuse("the prompt is padded or masked; pass its tokens alone")
    if config.return_dict_in_generate:
        refuse("return_dict_in_generate is not supported; what was done is in `counts`")
    cache = model_kwargs.get("past_key_values")
    if not isinstance(cache, DynamicCache) or cache.get_seq_length():
        refuse("it needs the dynamic cache, and an empty one")
    if model.config._attn_implementation not in {"sdpa", "eager"}:
        refuse(f"attention {model.config._attn_implementation!r} takes no tree; load the model with 'sdpa'")
    if "position_ids" not in inspect.signature(model.forward).parameters:
        refuse("it takes no position ids")
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if (
        window
        and getattr(model.config.get_text_config(), "use_sliding_window", True)
        and config.max_length > window
    ):
        refuse(f"its attention sees {window} tokens only, but up to {config.max_length} were asked for")
