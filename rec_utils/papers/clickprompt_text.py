"""ClickPrompt's text view: every field of a sample as a clause, "Title is Heat.", in a fixed order.

A sample's text is that of its user followed by that of its item. So each user and each item is tokenised
once, and the tokens of a batch are put together by index selection.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rec_utils.batches import Batch, CTRSamples, Samples
from rec_utils.errors import UserError
from rec_utils.field_task import FieldTask

#: In place of a field's number: tokens of the template ("Title is ... ."), special ones and padding.
TEMPLATE, SPECIAL = -1, -2


@dataclass(frozen=True)
class TextBatch:
    """B samples in both views; Z is the number of tokens of the longest text."""

    ctr: Batch  #: the view by ids
    tokens: Tensor  #: [B, Z] token ids, padding on the right
    mask: Tensor  #: [B, Z] True where a token is real
    field: Tensor  #: [B, Z] number of the field of whose value a token is a part, or `TEMPLATE` or `SPECIAL`
    label: Tensor  #: [B]


@dataclass(frozen=True)
class TextSamples(Samples):
    """CTR samples with the tokens of U users' and I items' texts, special tokens included."""

    ctr: CTRSamples
    user_tokens: Tensor  #: [U, Zu]
    user_field: Tensor  #: [U, Zu] see `TextBatch.field`
    user_length: Tensor  #: [U] number of real tokens
    item_tokens: Tensor  #: [I, Zi]
    item_field: Tensor  #: [I, Zi]
    item_length: Tensor  #: [I]
    field_names: tuple[str, ...]
    pad_id: int
    mask_id: int
    n_tokens: int  #: size of the vocabulary

    @property
    def label(self) -> Tensor:  # type: ignore[override]
        """[N] 0. or 1."""
        return self.ctr.label

    def select(self, index: Tensor) -> TextSamples:
        """The samples at `index` (int64 positions or a boolean mask [N])."""
        return replace(self, ctr=self.ctr.select(index))

    def batch(self, index: Tensor) -> TextBatch:
        """The batch of the samples at `index` [B] (int64), as long as its longest text."""
        ctr = self.ctr.batch(index)
        user, item = ctr.user_row, ctr.item_row
        begin = self.user_length[user][:, None]  # of the item's text
        length = begin + self.item_length[item][:, None]
        place = torch.arange(int(length.max()), device=length.device).expand(len(index), -1)

        def join(users: Tensor, items: Tensor, padding: int) -> Tensor:
            of_user = users[user].gather(1, place.clamp(max=users.shape[1] - 1))
            of_item = items[item].gather(1, (place - begin).clamp(0, items.shape[1] - 1))
            return torch.where(place < begin, of_user, of_item).masked_fill(place >= length, padding)

        tokens = join(self.user_tokens, self.item_tokens, self.pad_id)
        field = join(self.user_field, self.item_field, SPECIAL)
        return TextBatch(ctr, tokens, place < length, field, ctr.label)


def text_samples(
    task: FieldTask, tokenizer: PreTrainedTokenizerBase, max_value_tokens: int | None = None
) -> TextSamples:
    """The samples of a task with the texts of their fields, in the tokenizer's vocabulary.

    Args:
        task: samples and texts.
        tokenizer: that of a masked language model.
        max_value_tokens: cut longer values of fields, such as titles, to so many tokens. A batch is as long
            as its longest text, so a few titles of 50 tokens would make it twice as long as most texts.

    Raises:
        UserError: the tokenizer lacks a token that masked language models need.
    """
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad", "mask")}
    if missing := [name for name, number in special.items() if number is None]:
        raise UserError(f"the tokenizer has no {missing[0]} token; ClickPrompt needs that of a masked LM")
    n_user_fields = task.user_texts.shape[1]
    users, user_fields = _tokenise(task.user_texts, tokenizer, 0, max_value_tokens)
    items, item_fields = _tokenise(task.item_texts, tokenizer, n_user_fields, max_value_tokens)
    users = [[special["cls"], *row] for row in users]
    user_fields = [[SPECIAL, *row] for row in user_fields]
    items = [[*row, special["sep"]] for row in items]
    item_fields = [[*row, SPECIAL] for row in item_fields]
    return TextSamples(
        ctr=task.samples,
        user_tokens=_padded(users, special["pad"]),
        user_field=_padded(user_fields, SPECIAL),
        user_length=torch.tensor([len(row) for row in users]),
        item_tokens=_padded(items, special["pad"]),
        item_field=_padded(item_fields, SPECIAL),
        item_length=torch.tensor([len(row) for row in items]),
        field_names=(*task.user_texts, *task.item_texts),
        pad_id=special["pad"],
        mask_id=special["mask"],
        n_tokens=len(tokenizer),
    )


def compact(plm: PreTrainedModel, samples: TextSamples) -> tuple[PreTrainedModel, TextSamples]:
    """The language model and the samples with the tokens that occur, and the special ones, as vocabulary.

    The kept tokens keep their vectors. The softmax of masked-token prediction and the optimiser then cost a
    fraction, and a masked token is guessed among those that the texts are made of.
    """
    lowest = torch.tensor([samples.pad_id, samples.mask_id])
    kept = torch.cat([samples.user_tokens.flatten(), samples.item_tokens.flatten(), lowest]).unique()
    number = torch.full((samples.n_tokens,), -1)
    number[kept] = torch.arange(len(kept))
    config = copy.deepcopy(plm.config)
    old_size, config.vocab_size = config.vocab_size, len(kept)
    config.pad_token_id = int(number[samples.pad_id])
    smaller = type(plm)(config)
    weights = plm.state_dict()
    smaller.load_state_dict({k: w[kept] if len(w) == old_size else w for k, w in weights.items()})
    return smaller, replace(
        samples,
        user_tokens=number[samples.user_tokens],
        item_tokens=number[samples.item_tokens],
        pad_id=int(number[samples.pad_id]),
        mask_id=int(number[samples.mask_id]),
        n_tokens=len(kept),
    )


def _tokenise(
    texts: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, first: int, longest: int | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens of each row's clauses, and the field of each token; fields are numbered from `first`."""
    tokens: list[list[int]] = [[] for _ in range(len(texts))]
    fields: list[list[int]] = [[] for _ in range(len(texts))]
    for number, name in enumerate(texts, first):
        # tokenizers of the byte level know a word in the middle of a text by the space before it
        begin = f" {name} is" if number else f"{name} is"
        n_begin = len(tokenizer(begin, add_special_tokens=False)["input_ids"])
        clauses = [f"{begin} {value}." for value in texts[name]]
        encoded = tokenizer(clauses, add_special_tokens=False)["input_ids"]
        for row, field, clause in zip(tokens, fields, encoded, strict=True):
            value = clause[n_begin:-1][:longest]
            row += [*clause[:n_begin], *value, clause[-1]]
            field += [*[TEMPLATE] * n_begin, *[number] * len(value), TEMPLATE]
    return tokens, fields


def _padded(rows: list[list[int]], padding: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=padding)
