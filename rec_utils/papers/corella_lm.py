"""CoReLLa's language models: a prompt in, the log-odds of "yes" out.

Any causal language model serves, and a small one from scratch; a second kind is a sentence encoder with a
head. As in ReLLa, whose values of LoRA are used, a pretrained model learns by LoRA alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rec_utils.errors import UserError
from rec_utils.knowledge.encoder import minilm_folder
from rec_utils.papers.corella_samples import CUE, PromptedBatch

# Scorers


class LanguageScorer(nn.Module):
    """A language model that gives log-odds of "yes", and the hidden states from which it gives them.

    It can be trained alone: its loss is the cross-entropy of the answer among yes and no. ReLLa's is that
    among all tokens; the difference, -log(p(yes) + p(no)), does not depend on the label.

    Args:
        lm: from tokens to hidden states, a model of the transformers library.
    """

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm
        config = lm.config.get_text_config()
        self.n_blocks: int = config.num_hidden_layers
        self.width: int = config.hidden_size

    def forward(self, batch: PromptedBatch) -> Tensor:
        """Log-odds [B]."""
        return self.score(batch)[0]

    def score(self, batch: PromptedBatch, blocks: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Log-odds [B], and the states [B, d] after `blocks` (counted from 1) that the answer rests on."""
        raise NotImplementedError

    def _run(self, batch: PromptedBatch, states: bool, **kw: Any) -> Any:
        positions = (batch.mask.cumsum(1) - 1).clamp(min=0)
        return self.lm(
            input_ids=batch.tokens,
            attention_mask=batch.mask.long(),
            position_ids=positions,
            output_hidden_states=states,
            **kw,
        )


class CausalScorer(LanguageScorer):
    """A causal LM: logit of the token "yes" less that of "no" after the last token of the prompt.

    So sigmoid(score) = exp(a) / (exp(a) + exp(b)) with the paper's a and b.
    """

    def __init__(self, lm: nn.Module, yes: int, no: int) -> None:
        super().__init__(lm)
        self.yes, self.no = yes, no

    def score(self, batch: PromptedBatch, blocks: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """See `LanguageScorer.score`; a state is the last token's, normed after the last block."""
        out = self._run(batch, bool(blocks), logits_to_keep=1, use_cache=False)
        logits = out.logits[:, -1].float()
        states = [out.hidden_states[block][:, -1].float() for block in blocks]
        return logits[:, self.yes] - logits[:, self.no], states


class EncoderScorer(LanguageScorer):
    """An encoder with a linear head; its states are means over the real tokens, as MiniLM's vectors are."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__(lm)
        self.head = nn.Linear(self.width, 1)

    def score(self, batch: PromptedBatch, blocks: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """See `LanguageScorer.score`; a state is the mean over the tokens."""
        out = self._run(batch, bool(blocks))
        weight = (batch.mask / batch.mask.sum(1, keepdim=True))[:, None]

        def mean(hidden: Tensor) -> Tensor:
            return (weight @ hidden).squeeze(1)

        logit = self.head(mean(out.last_hidden_state)).squeeze(1)
        return logit, [mean(out.hidden_states[block]) for block in blocks]


# Language models


@dataclass(frozen=True)
class LanguageModel:
    """Where a language model comes from: its tokeniser, and the model before CoReLLa's training."""

    @property
    def source(self) -> str:
        """Name or folder of the tokeniser, and of the weights if there are any."""
        return _minilm()

    def scorer(self, seed: int) -> LanguageScorer:
        """The untrained model; `seed` draws what is not pretrained."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._scorer()

    def _scorer(self) -> LanguageScorer:
        raise NotImplementedError

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text.

        Raises:
            UserError: a text is longer than what the model reads.
        """
        ids = self._tokens(texts)
        limit = tokenizer(self.source).model_max_length
        for text, row in zip(texts, ids, strict=True):
            if len(row) > limit:
                raise UserError(f"{text[:40]!r}... has {len(row)} tokens, and the model reads {limit}")
        return ids

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return tokenizer(self.source)(list(texts))["input_ids"]


@dataclass(frozen=True)
class MiniLM(LanguageModel):
    """The first blocks of the encoder all-MiniLM-L6-v2 with LoRA, or its architecture from scratch."""

    layers: int = 6
    pretrained: bool = True

    def _scorer(self) -> LanguageScorer:
        if self.pretrained:
            lm = AutoModel.from_pretrained(self.source, trust_remote_code=False)
        else:
            lm = AutoModel.from_config(AutoConfig.from_pretrained(self.source, trust_remote_code=False))
        lm.pooler = None
        lm.encoder.layer = lm.encoder.layer[: self.layers]
        lm.config.num_hidden_layers = len(lm.encoder.layer)
        return EncoderScorer(with_lora(lm) if self.pretrained else lm)


class CausalLM(LanguageModel):
    """A language model whose next token is the answer."""

    def answers(self) -> tuple[int, int]:
        """Ids of the tokens yes and no, as they follow the cue.

        Raises:
            UserError: the tokeniser joins the cue and the answer.
        """
        cue, yes, no = self._tokens([CUE, f"{CUE} Yes", f"{CUE} No"])
        place = len(cue)
        if not yes[:place] == no[:place] == cue or yes[place] == no[place]:
            raise UserError(f"the tokeniser of {self.source} has no tokens of their own for yes and no")
        return yes[place], no[place]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Without the special tokens behind a text: the answer comes next."""
        special = tokenizer(self.source)(CUE, return_special_tokens_mask=True)["special_tokens_mask"]
        behind = special[::-1].index(0)
        return [row[: len(row) - behind] for row in super()._tokens(texts)]


@dataclass(frozen=True)
class SmallLlama(CausalLM):
    """The Llama architecture from scratch with MiniLM's vocabulary: it knows nothing about films."""

    layers: int = 2
    width: int = 128  #: a multiple of 64

    def _scorer(self) -> LanguageScorer:
        known = tokenizer(self.source)
        config = LlamaConfig(
            vocab_size=len(known),
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            max_position_embeddings=known.model_max_length,
            tie_word_embeddings=True,
            pad_token_id=known.pad_token_id,
            bos_token_id=None,
            eos_token_id=None,
        )
        return CausalScorer(LlamaForCausalLM(config), *self.answers())


@dataclass(frozen=True)
class HuggingFaceLM(CausalLM):
    """Any causal LM by Hugging Face name or folder, with LoRA; the paper's is meta-llama/Llama-2-7b-chat-hf.

    Blocks are computed again in the backward pass, since their activations for long prompts would not fit
    beside a 7B model. Remote code is never run.
    """

    name: str

    @property
    def source(self) -> str:
        """See `LanguageModel.source`."""
        return self.name

    def _scorer(self) -> LanguageScorer:
        dtype = "auto" if torch.cuda.is_available() else torch.float32  # half precision is slow on a CPU
        try:
            lm = with_lora(
                AutoModelForCausalLM.from_pretrained(self.name, dtype=dtype, trust_remote_code=False)
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"language model {self.name!r} could not be loaded: {str(error).splitlines()[0]}"
            ) from error
        lm.activation_checkpointing_enable()
        return CausalScorer(lm, *self.answers())


def with_lora(lm: PreTrainedModel) -> PeftModel:
    """The model, frozen, with ReLLa's LoRA; peft knows the query and value matrices of each architecture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        return get_peft_model(lm, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05))


@cache
def _minilm() -> str:
    return str(minilm_folder())  # which hashes the weights each time


@cache
def tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokeniser at `source`; a missing one is a `UserError`."""
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"tokeniser {source!r} could not be loaded: {str(error).splitlines()[0]}") from error
