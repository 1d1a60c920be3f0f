"""ClickPrompt: a CTR model writes the prompts of a language model, and the two learn from each other.

Lin et al., "ClickPrompt: CTR Models are Strong Prompt Generators for Adapting Language Models to CTR
Prediction", WWW 2024, arXiv 2310.09234. A sample has two views, ids for a CTR model and a text for a masked
language model (see `clickprompt_text`). One section each:

1. *Prompt generation*: the CTR model's last hidden vector q becomes K prompt vectors.
2. *Prompt fusion*: the language model attends to them, in every layer.
3. *Pretraining* (PA-MLM): tokens of the text are masked and guessed with the help of the prompts, whose ids
   are never masked; the gradient reaches the CTR model through the prompts.
4. *Finetuning* for clicks, with the language model, or of the CTR model alone, which then costs what it
   always cost.

Where paper and released code differ, this is the code: one network makes all prompts, and they are keys and
values, not hidden states. The mixing weight alpha multiplies the CTR model's logit, as in the paper.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from rec_utils import ctr
from rec_utils.ctr_model import CTRModel
from rec_utils.errors import UserError
from rec_utils.knowledge.encoder import MINILM, minilm_folder
from rec_utils.papers.clickprompt_text import SPECIAL, TextBatch, TextSamples
from rec_utils.settings import check_choice
from rec_utils.training import CLICKS, FitResult, Objective, TrainConfig, click_scores, fit

#: How the CTR model enters the language model: prompts in every layer (the paper's way), prompts before the
#: words only, not at all ("add": the two logits are mixed, no more), or there is no CTR model ("text").
FUSIONS = ("layers", "input", "add", "text")
POOLINGS = ("first", "mean")


def masked_lm(
    name: str = MINILM, *, layers: int | None = None, seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model and its tokenizer.

    Args:
        name: all-MiniLM-L6-v2, which comes with the project, or any masked LM of the BERT family by its
            Hugging Face name or folder. MiniLM is a sentence encoder, so its head for masked tokens is new.
        layers: keep only this many layers, from the first on; None keeps all.
        seed: of new weights.

    Raises:
        UserError: it cannot be loaded.
    """
    source = minilm_folder() if name == MINILM else name
    shape = {} if layers is None else {"num_hidden_layers": layers}
    loud, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # no table of the weights that are new or cut off
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            plm = AutoModelForMaskedLM.from_pretrained(
                source, dtype=torch.float32, trust_remote_code=False, **shape
            )
    except (OSError, ValueError) as error:
        raise UserError(f"masked LM {name!r} could not be loaded: {str(error).splitlines()[0]}") from error
    finally:
        logging.set_verbosity(loud)
        if bars:
            logging.enable_progress_bar()
    return plm, tokenizer


# 1 Prompt generation


class LayerPrompts(nn.Module):
    """K pairs of a key and a value for each layer: Linear(D -> d), tanh, Linear(d -> K d 2 L)."""

    def __init__(self, width: int, n_prompts: int, config: Any) -> None:
        super().__init__()
        dim = config.hidden_size
        self.shape = (n_prompts, 2 * config.num_hidden_layers, config.num_attention_heads, -1)
        self.network = nn.Sequential(
            nn.Linear(width, dim),
            nn.Tanh(),
            nn.Linear(dim, n_prompts * dim * 2 * config.num_hidden_layers),
        )

    def forward(self, q: Tensor) -> Tensor:
        """From q [B, D] to [2 L, B, heads, K, d / heads]: key and value of the first layer, and so on."""
        return self.network(q).unflatten(1, self.shape).permute(2, 0, 3, 1, 4)


class InputPrompts(nn.Module):
    """K vectors before the words: a Linear(D -> d) for each."""

    def __init__(self, width: int, n_prompts: int, config: Any) -> None:
        super().__init__()
        self.n_prompts = n_prompts
        self.network = nn.Linear(width, n_prompts * config.hidden_size)

    def forward(self, q: Tensor) -> Tensor:
        """From q [B, D] to [B, K, d]."""
        return self.network(q).unflatten(1, (self.n_prompts, -1))


# 2 Prompt fusion


class PromptedReader(nn.Module):
    """A language model that reads the text of samples, with prompts that a CTR model makes of their ids."""

    def __init__(self, encoder: PreTrainedModel, model: CTRModel | None, fusion: str, n_prompts: int) -> None:
        super().__init__()
        self.fusion = check_choice("fusion", fusion, FUSIONS)
        self.encoder = encoder
        self.ctr = None if fusion == "text" else model
        self.prompts: nn.Module | None = None
        self.n_prompts = 0
        if fusion in ("layers", "input"):
            if n_prompts < 1:
                raise UserError(f"n_prompts must be at least 1, not {n_prompts}")
            if "past_key_values" not in inspect.signature(encoder.forward).parameters:
                raise UserError(f"{type(encoder).__name__} takes no keys and values, so no prompts either")
            kind = LayerPrompts if fusion == "layers" else InputPrompts
            self.prompts = kind(model.head.in_features, n_prompts, encoder.config)
            self.n_prompts = n_prompts

    def extra_repr(self) -> str:
        """Shown with the model, and one of the things by which a checkpoint is known."""
        return f"fusion={self.fusion}"

    def forward(self, batch: TextBatch, tokens: Tensor, **kw: Any) -> tuple[Any, Tensor | None]:
        """The output of the language model for tokens [B, Z], and the logits [B] of the CTR model, if any.

        `last_hidden_state` [B, Z, d] is that of the words; `kw` goes to the language model.
        """
        inputs: dict[str, Any] = {"input_ids": tokens}
        n_before = 0  # vectors that are read before the words
        if self.prompts is None:
            logits = None if self.ctr is None else self.ctr(batch.ctr)
        else:
            q, logits = self.ctr.hidden(batch.ctr)
            prompts = self.prompts(q)
            if self.fusion == "layers":
                inputs["past_key_values"] = cache = DynamicCache()
                for layer, (key, value) in enumerate(prompts.unflatten(0, (-1, 2)).unbind()):
                    cache.update(key, value, layer)
            else:
                words = self.encoder.get_input_embeddings()(tokens)
                inputs = {"inputs_embeds": torch.cat([prompts, words], dim=1)}
                n_before = self.n_prompts
        # Given positions, since some models would shift those of the words by the number of cached keys
        places = torch.arange(n_before + tokens.shape[1], device=tokens.device) + self._first_position()
        out = self.encoder(
            **inputs, position_ids=places.expand(len(tokens), -1), attention_mask=self._mask(batch.mask), **kw
        )
        out.last_hidden_state = out.last_hidden_state[:, n_before:]
        return out, logits

    def _mask(self, real: Tensor) -> Tensor:
        """What is added to attention scores, [B, 1, 1, K + Z]: prompts and real words are seen by all."""
        seen = F.pad(real, (self.n_prompts, 0), value=True)[:, None, None]
        dtype = self.encoder.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=real.device).masked_fill_(
            ~seen, torch.finfo(dtype).min
        )

    def _first_position(self) -> int:
        """0 in BERT; in RoBERTa positions begin after that of padding."""
        padding = self.encoder.embeddings.position_embeddings.padding_idx
        return 0 if padding is None else padding + 1


# 3 Pretraining


class PAMLM(nn.Module):
    """Prompt-augmented masked language modelling; its forward pass is the loss of a batch.

    Of the words, template included and special tokens not, `SHARE` are chosen; of these 80 % become the mask
    token, 10 % a random one, and 10 % stay. The loss is the mean cross-entropy over the chosen ones.
    """

    SHARE = 0.15

    def __init__(self, reader: PromptedReader, lm_head: nn.Module, mask_id: int, n_tokens: int) -> None:
        super().__init__()
        self.reader, self.lm_head = reader, lm_head
        self.mask_id, self.n_tokens = mask_id, n_tokens

    def forward(self, batch: TextBatch) -> Tensor:
        """Loss of the batch, a number; draws from torch's global generator."""
        tokens, chosen = self.corrupt(batch)
        out, logits = self.reader(batch, tokens)
        scores = self.lm_head(out.last_hidden_state[chosen])
        loss = F.cross_entropy(scores, batch.tokens[chosen], reduction="sum") / chosen.sum().clamp(min=1)
        # The click logit takes no part; without a gradient of its last layer, processes could not share one.
        return loss if logits is None else loss + 0 * logits.sum()

    def corrupt(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Tokens [B, Z] with some replaced, and which were chosen, bool [B, Z]."""
        draw = torch.rand(batch.tokens.shape, device=batch.tokens.device) / self.SHARE
        words = batch.field != SPECIAL
        random = torch.randint_like(batch.tokens, self.n_tokens)
        tokens = batch.tokens.masked_fill(words & (draw < 0.8), self.mask_id)
        return torch.where(words & (draw >= 0.8) & (draw < 0.9), random, tokens), words & (draw < 1)


def build(
    backbone: str,
    samples: TextSamples,
    plm: PreTrainedModel,
    *,
    fusion: str = "layers",
    n_prompts: int = 5,
    seed: int = 0,
    **kw: Any,
) -> PAMLM:
    """The model of the first stage, untrained but for the weights of `plm`, of which it takes a copy.

    Args:
        backbone: a name in `ctr.MODELS`.
        samples: give the fields and the vocabulary.
        plm: a masked language model, see `masked_lm`.
        fusion: one of `FUSIONS`.
        n_prompts: K.
        seed: of all new weights.
        kw: see `ctr.build`.

    Raises:
        UserError: the backbone has no hidden vector, or the language model is not of the BERT family.
    """
    plm = copy.deepcopy(plm)
    heads = [module for name, module in plm.named_children() if name != plm.base_model_prefix]
    if len(heads) != 1:
        raise UserError(f"{type(plm).__name__} is no masked LM of the BERT family: it has {len(heads)} heads")
    model = ctr.build(backbone, samples.ctr, seed=seed, **kw)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        reader = PromptedReader(plm.base_model, model, fusion, n_prompts)
    return PAMLM(reader, heads[0], samples.mask_id, samples.n_tokens)


def pretrain(
    model: PAMLM,
    samples: TextSamples,
    config: TrainConfig,
    plm_lr: float,
    progress: bool | str = True,
    checkpoint: Path | None = None,
) -> FitResult:
    """Train all parts in place on the texts and ids of `samples`, whose labels are not read, for all epochs.

    `plm_lr` is the learning rate of the language model and its head, `config.lr` of all else. Of several
    processes each masks words of its share, and the means over these are weighted by samples.
    """
    config = replace(config, lr_of={"reader.encoder.": plm_lr, "lm_head.": plm_lr})
    return fit(model, samples, None, config, progress, Objective(_loss_itself), checkpoint=checkpoint)


def _loss_itself(loss: Tensor, _: Tensor) -> Tensor:
    return loss


# 4 Finetuning


class ClickPrompt(nn.Module):
    """Both models together: alpha y_ctr + (1 - alpha) y_plm, with a learned alpha from 0.5 on.

    y_plm = Linear(d -> 1)(tanh(Linear(d -> d)(pooled))), where pooled is the state of the first token or the
    mean of all real ones. Without a CTR model (fusion "text") the logit is y_plm.
    """

    def __init__(self, reader: PromptedReader, *, pooling: str = "mean", seed: int = 0) -> None:
        super().__init__()
        self.reader = reader
        self.pooling = check_choice("pooling", pooling, POOLINGS)
        dim = reader.encoder.config.hidden_size
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for layer in (self.head[0], self.head[2]):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        if reader.ctr is not None:
            self.alpha = nn.Parameter(torch.tensor(0.5))

    def extra_repr(self) -> str:
        """See `PromptedReader.extra_repr`."""
        return f"pooling={self.pooling}"

    def forward(self, batch: TextBatch) -> Tensor:
        """Logits [B]."""
        out, of_ctr = self.reader(batch, batch.tokens)
        states = out.last_hidden_state
        if self.pooling == "first":
            pooled = states[:, 0]
        else:
            pooled = (states * batch.mask[..., None]).sum(1) / batch.mask.sum(1, keepdim=True)
        of_plm = self.head(pooled).squeeze(1)
        return of_plm if of_ctr is None else self.alpha * of_ctr + (1 - self.alpha) * of_plm


def finetune(
    model: ClickPrompt,
    train: TextSamples,
    valid: TextSamples,
    config: TrainConfig,
    plm_lr: float,
    progress: bool | str = True,
    checkpoint: Path | None = None,
) -> FitResult:
    """Train all parts in place for clicks; `plm_lr` is the learning rate of the language model.

    To finetune the CTR model alone, `training.fit` it, `reader.ctr`, on `TextSamples.ctr`: it is the plain
    model, with other weights to start from. Its last layer is as new, since no masked word reached it.
    """
    config = replace(config, lr_of={"reader.encoder.": plm_lr})
    return fit(model, train, valid, config, progress, BY_AUC, checkpoint=checkpoint)


def _auc_first(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    scores = click_scores(label, probability)
    return {"auc": scores["auc"], "logloss": scores["logloss"]}


#: Clicks, but the epoch with the best validation AUC is kept, as the authors do.
BY_AUC = Objective(CLICKS.loss, _auc_first, higher_is_better=True)
