"""Models of the click-through rate, with extra dense fields fed in as KAR (Xi et al., RecSys 2024) does.

`build(name, samples)` makes any of `MODELS`; each maps a batch, and optionally dense [B, dense_dim] such
as KAR's [a_u ; a_i], to logits [B]. Shapes: B samples, F item fields, L history steps, d `embed_dim`.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from rec_utils.batches import Batch, CTRSamples
from rec_utils.errors import UserError
from rec_utils.layers import MLP, TargetAttention
from rec_utils.settings import check_choice

#: Hidden widths of the final perceptron, in KAR's experiments and here.
FINAL_MLP = (200, 80)


class CTRModel(nn.Module):
    """One table of embeddings for all ids, and the parts of a batch looked up in it."""

    def __init__(self, n_fields: int, n_ids: int, *, dense_dim: int = 0, embed_dim: int = 32) -> None:
        super().__init__()
        self.n_fields = n_fields
        self.dense_dim = dense_dim
        self.embed_dim = embed_dim
        self.embedding = nn.Embedding(n_ids, embed_dim, padding_idx=0)

    def forward(self, batch: Batch, dense: Tensor | None = None) -> Tensor:
        """Logits [B] of a batch, given dense [B, dense_dim] if the model was built with dense fields."""
        width = 0 if dense is None else dense.shape[-1]
        if width != self.dense_dim:
            raise UserError(
                f"the model was built for dense_dim={self.dense_dim} but got {width} dense values"
            )
        return self._logits(batch, batch.label.new_empty(len(batch.label), 0) if dense is None else dense)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        """Logits [B]; dense is [B, dense_dim], with no columns for a model without dense fields."""
        raise NotImplementedError

    def look_up(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings of the candidate [B, F, d] and of the history [B, L, F + 1, d].

        Both in one index-select: its backward pass fills a gradient of the whole table.
        """
        ids = torch.cat([batch.item, batch.history.flatten(1)], dim=1)
        item, history = self.embedding(ids).tensor_split([self.n_fields], dim=1)
        return item, history.unflatten(1, batch.history.shape[1:])


class DIN(CTRModel):
    """Deep interest network (Zhou et al., KDD 2018): attention of the candidate over the history.

    A step [item fields ; rating] is mapped to the width of the item; the final perceptron sees
    [interest ; item ; dense].
    """

    def __init__(
        self, n_fields: int, n_ids: int, *, dense_dim: int = 0, embed_dim: int = 32, dropout: float = 0.0
    ) -> None:
        super().__init__(n_fields, n_ids, dense_dim=dense_dim, embed_dim=embed_dim)
        width = n_fields * embed_dim
        self.step = nn.Linear(width + embed_dim, width)
        self.attention = TargetAttention(width, dropout=dropout)
        self.final = MLP(2 * width + dense_dim, FINAL_MLP, 1, dropout=dropout)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        item, history = self.look_up(batch)
        query = item.flatten(1)
        interest = self.attention(query, self.step(history.flatten(2)), batch.mask)
        return self.final(torch.cat([interest, query, dense], dim=1)).squeeze(1)


MODELS: dict[str, type[CTRModel]] = {model.__name__: model for model in (DIN,)}


def build(
    name: str, samples: CTRSamples, *, dense_dim: int = 0, embed_dim: int = 32, seed: int = 0, **kw: Any
) -> CTRModel:
    """The model `name` for the fields and ids of `samples`, initialised from `seed` alone.

    Args:
        name: one of `MODELS`.
        samples: gives the number of item fields and of ids.
        dense_dim: number of extra dense values a sample; KAR's [a_u ; a_i] has 2 * `embed_dim`.
        embed_dim: width d of an embedding.
        seed: of the initial weights; torch's global generator is left as it was.
        kw: further parameters of the model, such as `dropout`.

    Raises:
        UserError: for an unknown model or parameter, or a dense_dim that the model cannot take.
    """
    model_class = MODELS[check_choice("model", name, list(MODELS))]
    for parameter in kw:
        known = [p for p in inspect.signature(model_class).parameters if p not in ("n_fields", "n_ids")]
        check_choice(f"parameter of {name}", parameter, known)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = model_class(samples.n_fields, samples.n_ids, dense_dim=dense_dim, embed_dim=embed_dim, **kw)
        _initialise(model, samples)
    return model


def _initialise(model: CTRModel, samples: CTRSamples) -> None:
    """Xavier-normal weights and zero biases, as in KAR.

    KAR has a table for each kind of field, and Xavier's standard deviation depends on the shape of the
    table. So in the shared table every field gets the one that a table of its own would have.
    """
    fields = [column.unique() for column in (*samples.item_fields.T, samples.rating_ids)]
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            weight = module.weight.detach()
            nn.init.xavier_normal_(weight)
            for ids in fields:
                weight[ids] = nn.init.xavier_normal_(weight.new_empty(len(ids), module.embedding_dim))
            weight[0] = 0
