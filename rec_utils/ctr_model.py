"""What all models of the click-through rate share: their inputs and the look-up of embeddings.

Shapes: B samples, F fields of the item (and of the user, where known), L history steps of S fields (those of
an item, and its rating), d `embed_dim`; M fields in all: F, S and the dense ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.batches import Batch
from rec_utils.errors import UserError


class Fields(Protocol):
    """What samples tell a model about their ids, which index one table; id 0 is padding."""

    @property
    def n_ids(self) -> int:
        """Size of the table, padding included."""

    @property
    def n_fields(self) -> int:
        """Fields of a candidate, those of its user included."""

    @property
    def n_step_fields(self) -> int:
        """Fields of a history step; 0 without a history."""

    @property
    def field_ids(self) -> list[Tensor]:
        """The ids that occur in each kind of field."""


@dataclass(frozen=True)
class Inputs:
    """What a model reads, in numbers."""

    n_fields: int  #: F
    n_step_fields: int  #: S, 0 without a history
    n_ids: int  #: rows of the embedding table, padding included
    dense_dim: int
    embed_dim: int  #: d

    @classmethod
    def of(cls, samples: Fields, dense_dim: int, embed_dim: int) -> Inputs:
        """Those of a model for `samples`."""
        return cls(samples.n_fields, samples.n_step_fields, samples.n_ids, dense_dim, embed_dim)

    @property
    def item_dim(self) -> int:
        """Width F d of the item's fields."""
        return self.n_fields * self.embed_dim

    @property
    def step_dim(self) -> int:
        """Width S d of a history step."""
        return self.n_step_fields * self.embed_dim

    @property
    def all_dim(self) -> int:
        """Width of [item ; mean history ; dense]."""
        return self.item_dim + self.step_dim + self.dense_dim


class CTRModel(nn.Module):
    """One table of embeddings for all ids, and the parts of a batch looked up in it.

    A model implements `_logits(batch, dense)`, where dense is [B, dense_dim], without columns if the
    model takes no dense fields.
    """

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        self.embedding = nn.Embedding(inputs.n_ids, inputs.embed_dim, padding_idx=0)

    def forward(self, batch: Batch, dense: Tensor | None = None) -> Tensor:
        """Logits [B] of a batch, given dense [B, dense_dim] if the model was built with dense fields."""
        if dense is None:
            dense = self.embedding.weight.new_empty(len(batch.item), 0)
        if dense.shape[1] != self.inputs.dense_dim:
            raise UserError(f"dense has {dense.shape[1]} columns, not dense_dim={self.inputs.dense_dim}")
        return self._logits(batch, dense)

    def hidden(self, batch: Batch, dense: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the last linear layer reads, [B, `head.in_features`], and the logits [B] of `forward`.

        Raises:
            UserError: see `head`.
        """
        read: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            logits = self(batch, dense)
        finally:
            hook.remove()
        return read[0], logits

    @property
    def head(self) -> nn.Linear:
        """The last linear layer; in FiGNN, that which weighs the fields by the states of all of them.

        Raises:
            UserError: the model has no linear layer.
        """
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise UserError(f"{type(self).__name__} has no hidden layer that prompts could be made of")
        return layers[-1]

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        raise NotImplementedError

    def _look_up(self, item: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the ids item [B, F] -> [B, F d] and history [B, L, S] -> [B, L, S d].

        Both in one index-select: its backward pass fills a gradient of the whole table.
        """
        ids = torch.cat([item, history.flatten(1)], dim=1)
        items, steps = self.embedding(ids).split([item.shape[1], ids.shape[1] - item.shape[1]], dim=1)
        return items.flatten(1), steps.reshape(*history.shape[:2], -1)

    def _sparse_fields(self, batch: Batch) -> Tensor:
        """The item's fields and the mean of each history field over the real steps: [B, F + S, d]."""
        if not self.inputs.n_step_fields:
            return self.embedding(batch.item)
        n_history = self.inputs.n_step_fields
        weight = (batch.mask / batch.mask.sum(1, keepdim=True).clamp(min=1)).to(self.embedding.weight.dtype)
        # A bag sums the weighted rows as it reads them: about twice as fast as look up, then average.
        means = F.embedding_bag(
            batch.history.transpose(1, 2).flatten(0, 1),
            self.embedding.weight,
            per_sample_weights=weight.repeat_interleave(n_history, dim=0),
            mode="sum",
            padding_idx=0,
        )
        return torch.cat([self.embedding(batch.item), means.unflatten(0, (-1, n_history))], dim=1)

    def _all_values(self, batch: Batch, dense: Tensor) -> Tensor:
        """[item ; mean history ; dense], one row a sample: [B, all_dim]."""
        return torch.cat([self._sparse_fields(batch).flatten(1), dense], dim=1)


class FieldModel(CTRModel):
    """A model of M fields of one width: the dense values are cut into fields of d beside the others."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        if inputs.dense_dim % inputs.embed_dim:
            raise UserError(
                f"{type(self).__name__} takes dense values as fields of width embed_dim={inputs.embed_dim}, "
                f"and dense_dim={inputs.dense_dim} is not a multiple of it"
            )
        self.n_all = inputs.all_dim // inputs.embed_dim

    def _all_fields(self, batch: Batch, dense: Tensor) -> Tensor:
        """[B, M, d]."""
        return self._all_values(batch, dense).unflatten(1, (self.n_all, -1))


class HistoryModel(CTRModel):
    """A model that attends to the history."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        if not inputs.n_step_fields:
            raise UserError(f"{type(self).__name__} attends to a history, and history_length is 0")
