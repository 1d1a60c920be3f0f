"""Models of the click-through rate, with extra dense fields fed in as KAR (Xi et al., RecSys 2024) does.

`build(name, samples)` makes any of `MODELS`; each maps a batch, and optionally dense [B, dense_dim] such
as KAR's [a_u ; a_i], to logits [B]. Sizes (three cross layers, final perceptron of 200 and 80 units ...)
are those of KAR's experiments; DIN and DIEN attend to the history, the others see its mean, if there is one.

Shapes are those of `ctr_model`.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rec_utils.batches import Batch
from rec_utils.ctr_model import CTRModel, FieldModel, Fields, HistoryModel, Inputs
from rec_utils.interactions import (
    CIN,
    Bilinear,
    FieldAttention,
    FieldGraph,
    MatrixCross,
    SENet,
    VectorCross,
    pair_sum,
)
from rec_utils.layers import AUGRU, MLP, TargetAttention, masked_softmax, padding_last
from rec_utils.settings import check_choice

#: Hidden widths of the final perceptron and of the deep parts.
HIDDEN = (200, 80)


class LR(CTRModel):
    """Logistic regression on the ids of the item, the ids of the history and the dense values.

    Each id has two weights, one as the item's and one as the history's, whose weights are averaged over
    the steps; `embed_dim` does not matter.
    """

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(replace(inputs, embed_dim=2))
        self.dense_weight = nn.Parameter(torch.zeros(inputs.dense_dim))
        self.bias = nn.Parameter(torch.zeros(1))

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        item, history = self._sparse_fields(batch).tensor_split([self.inputs.n_fields], dim=1)
        return item[..., 0].sum(1) + history[..., 1].sum(1) + dense @ self.dense_weight + self.bias


class FM(CTRModel):
    """Factorisation machine (Rendle, ICDM 2010), as it stands in KAR's DeepFM.

    First order: the item's ids and the dense values. Second order: all pairs of item and history fields.
    """

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.id_weight = nn.Embedding(inputs.n_ids, 1, padding_idx=0)
        self.dense_weight = nn.Parameter(torch.zeros(inputs.dense_dim))
        self.bias = nn.Parameter(torch.zeros(1))

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        return self._first_order(batch, dense) + pair_sum(self._sparse_fields(batch))

    def _first_order(self, batch: Batch, dense: Tensor) -> Tensor:
        return self.id_weight(batch.item).sum((1, 2)) + dense @ self.dense_weight + self.bias


class DeepFM(FM):
    """DeepFM (Guo et al., IJCAI 2017): factorisation machine plus perceptron on [item ; history ; dense]."""

    def __init__(self, inputs: Inputs, *, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.deep = MLP(inputs.all_dim, HIDDEN, 1, dropout=dropout)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        sparse = self._sparse_fields(batch)
        deep = self.deep(torch.cat([sparse.flatten(1), dense], dim=1)).squeeze(1)
        return self._first_order(batch, dense) + pair_sum(sparse) + deep


class DNN(CTRModel):
    """A perceptron on [item ; history ; dense]."""

    def __init__(self, inputs: Inputs, *, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.deep = MLP(inputs.all_dim, HIDDEN, 1, dropout=dropout)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        return self.deep(self._all_values(batch, dense)).squeeze(1)


class DCN(CTRModel):
    """Deep and cross network (Wang et al., ADKDD 2017): cross layers and a perceptron, then a final one."""

    cross_layer: type[nn.Module] = VectorCross

    def __init__(self, inputs: Inputs, *, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.cross = nn.ModuleList(self.cross_layer(inputs.all_dim) for _ in range(3))
        self.deep = MLP(inputs.all_dim, HIDDEN, dropout=dropout)
        self.final = MLP(HIDDEN[-1] + inputs.all_dim, HIDDEN, 1, dropout=dropout)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        values = crossed = self._all_values(batch, dense)
        for layer in self.cross:
            crossed = layer(values, crossed)
        return self.final(torch.cat([self.deep(values), crossed], dim=1)).squeeze(1)


class DCNv2(DCN):
    """DCN-V2 (Wang et al., WWW 2021): DCN with a full matrix in each cross layer."""

    cross_layer = MatrixCross


class PNN(FieldModel):
    """PNN (Qu et al., ICDM 2016): a perceptron on the fields and the inner products of all their pairs."""

    def __init__(self, inputs: Inputs, *, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.register_buffer("pairs", torch.triu_indices(self.n_all, self.n_all, 1), persistent=False)
        self.deep = MLP(inputs.all_dim + self.pairs.shape[1], HIDDEN, 1, dropout=dropout)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        fields = self._all_fields(batch, dense)
        i, j = self.pairs
        products = (fields @ fields.transpose(1, 2))[:, i, j]
        return self.deep(torch.cat([fields.flatten(1), products], dim=1)).squeeze(1)


class xDeepFM(FieldModel):
    """xDeepFM (Lian et al., KDD 2018): a compressed interaction network beside a perceptron."""

    def __init__(self, inputs: Inputs, *, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        widths = (50, 50)
        self.cin = CIN(self.n_all, widths)
        self.deep = MLP(inputs.all_dim, HIDDEN, dropout=dropout)
        self.final = nn.Linear(sum(widths) + HIDDEN[-1], 1)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        fields = self._all_fields(batch, dense)
        return self.final(torch.cat([self.cin(fields), self.deep(fields.flatten(1))], dim=1)).squeeze(1)


class AutoInt(FieldModel):
    """AutoInt (Song et al., CIKM 2019): three layers of self-attention over fields, then a linear output."""

    def __init__(self, inputs: Inputs, *, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        width = 64
        self.attention = nn.Sequential(
            *(FieldAttention(w, width, dropout=dropout) for w in (inputs.embed_dim, width, width))
        )
        self.final = nn.Linear(self.n_all * width, 1)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        return self.final(self.attention(self._all_fields(batch, dense)).flatten(1)).squeeze(1)


class FiBiNET(FieldModel):
    """FiBiNET (Huang et al., RecSys 2019): bilinear pairs of the fields and of the SENet-weighted fields."""

    def __init__(self, inputs: Inputs, *, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.senet = SENet(self.n_all)
        self.bilinear = Bilinear(self.n_all, inputs.embed_dim)
        n_pairs = self.n_all * (self.n_all - 1) // 2
        self.final = MLP(2 * n_pairs * inputs.embed_dim, HIDDEN, 1, dropout=dropout)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        fields = self._all_fields(batch, dense)
        pairs = torch.cat([self.bilinear(fields), self.bilinear(self.senet(fields))], dim=1)
        return self.final(pairs.flatten(1)).squeeze(1)


class FiGNN(FieldModel):
    """FiGNN (Li et al., CIKM 2019): two steps of a graph network over fields, then an attentional sum.

    Every field scores its own state; its weight comes from the states of all fields.
    """

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.graph = FieldGraph(self.n_all, inputs.embed_dim, n_steps=2)
        self.score = nn.Linear(inputs.embed_dim, 1, bias=False)
        self.weight = nn.Linear(inputs.all_dim, self.n_all, bias=False)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        states = self.graph(self._all_fields(batch, dense))
        return (self.weight(states.flatten(1)).sigmoid() * self.score(states).squeeze(2)).sum(1)


class DIN(HistoryModel):
    """Deep interest network (Zhou et al., KDD 2018): attention of the candidate over the history.

    A step [item fields ; rating] is mapped to the width of the item; the final perceptron sees
    [interest ; item ; dense].
    """

    def __init__(self, inputs: Inputs, *, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        width = inputs.item_dim
        self.step = nn.Linear(inputs.step_dim, width)
        self.attention = TargetAttention(width, dropout=dropout)
        self.final = MLP(2 * width + inputs.dense_dim, HIDDEN, 1, dropout=dropout)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        item, steps = self._look_up(batch.item, batch.history)
        interest = self.attention(item, self.step(steps), batch.mask)
        return self.final(torch.cat([interest, item, dense], dim=1)).squeeze(1)


class DIEN(HistoryModel):
    """Deep interest evolution network (Zhou et al., AAAI 2019), without its auxiliary loss, as in KAR.

    A GRU extracts an interest at every step; a second one follows how it evolves towards the candidate:

    - "GRU" (KAR's default): GRU over the interests, then DIN's attention over its states;
    - "AIGRU": GRU over the interests weighted by DIN's attention, last state;
    - "AUGRU": GRU whose update gate is scaled by the softmax of DIN's attention, last state.
    """

    def __init__(self, inputs: Inputs, *, evolution: str = "GRU", dropout: float = 0.0) -> None:
        super().__init__(inputs)
        width = inputs.item_dim
        self.evolution = check_choice("evolution", evolution, ("GRU", "AIGRU", "AUGRU"))
        self.extractor = nn.GRU(inputs.step_dim, width, batch_first=True)
        self.attention = TargetAttention(width, dropout=dropout)
        self.evolver = AUGRU(width, width) if evolution == "AUGRU" else nn.GRU(width, width, batch_first=True)
        self.final = MLP(2 * width + inputs.dense_dim, HIDDEN, 1, dropout=dropout)

    def _logits(self, batch: Batch, dense: Tensor) -> Tensor:
        history, mask = padding_last(batch.history, batch.mask)
        item, steps = self._look_up(batch.item, history)
        interests, _ = self.extractor(steps)
        interest = self._evolve(item, interests, mask)
        return self.final(torch.cat([interest, item, dense], dim=1)).squeeze(1)

    def _evolve(self, item: Tensor, interests: Tensor, mask: Tensor) -> Tensor:
        """Final interest [B, F d] of item [B, F d] in interests [B, L, F d], padding last."""
        if self.evolution == "GRU":
            states, _ = self.evolver(interests)
            return self.attention(item, states, mask)
        weights = self.attention.weights(item, interests, mask)
        if self.evolution == "AUGRU":
            return self.evolver(interests, masked_softmax(weights, mask))
        states, _ = self.evolver(weights[..., None] * interests)
        length = mask.sum(1)
        last = states[torch.arange(len(states), device=states.device), (length - 1).clamp(min=0)]
        return last * (length > 0)[:, None]


MODELS: dict[str, type[CTRModel]] = {
    model.__name__: model
    for model in (LR, FM, DNN, PNN, DeepFM, xDeepFM, DCN, DCNv2, AutoInt, FiBiNET, FiGNN, DIN, DIEN)
}


def takes_dropout(name: str) -> bool:
    """Whether KAR gives the model dropout: all but LR, FM and FiGNN."""
    return "dropout" in inspect.signature(MODELS[check_choice("model", name, list(MODELS))]).parameters


def build(
    name: str, samples: Fields, *, dense_dim: int = 0, embed_dim: int = 32, seed: int = 0, **kw: Any
) -> CTRModel:
    """The model `name` for the fields and ids of `samples`, initialised from `seed` alone.

    Args:
        name: one of `MODELS`.
        samples: gives the number of fields, whether there is a history, and the ids of each field.
        dense_dim: number of extra dense values a sample; KAR's [a_u ; a_i] has 2 * `embed_dim`.
        embed_dim: width d of an embedding.
        seed: of the initial weights; torch's global generator is left as it was.
        kw: further parameters of the model, such as `dropout`.

    Raises:
        UserError: for an unknown model or parameter, or a dense_dim or a lack of history that the model
            cannot take.
    """
    model_class = MODELS[check_choice("model", name, list(MODELS))]
    known = ["dense_dim", "embed_dim", "seed", *list(inspect.signature(model_class).parameters)[1:]]
    for parameter in kw:
        check_choice(f"{name} parameter", parameter, known)
    inputs = Inputs.of(samples, dense_dim, embed_dim)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = model_class(inputs, **kw)
        initialise(model, samples)
    return model


def initialise(model: nn.Module, samples: Fields) -> None:
    """Xavier-normal weights and zero biases of linear layers and tables, as in KAR.

    KAR has a table for each kind of field, and Xavier's standard deviation depends on the shape of the
    table. So in the shared table every field gets the one that a table of its own would have.
    """
    fields = samples.field_ids
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
