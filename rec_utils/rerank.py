"""Re-ranking models: scores of all candidates of a list at once, as in KAR's experiments and beyond.

`build(name, lists)` makes any of `ALL`; each maps a batch of lists, and optionally dense [B, n, dense_dim]
such as KAR's [a_u ; a_i] of every candidate, to scores [B, n]. A candidate enters as
x_j = [embeddings of its fields ; dense_j]. The structures of `MODELS` are those of KAR's code, which shortens
the papers'; each class says where. Those of `rerank_baselines` follow LibRerank.

`objective(name)` is what `training.fit` needs: the model's loss, and the choice of the epoch by MAP@5 of
the validation lists. KAR takes MAP@5, too, but of the test lists.

Shapes: B lists, n candidates, L history steps, d `embed_dim`, D width of x_j.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rec_utils.ctr import HIDDEN, initialise
from rec_utils.ctr_model import Inputs
from rec_utils.errors import UserError
from rec_utils.layers import MLP, masked_softmax, padding_last
from rec_utils.metrics import hit_count_at_k, map_at_k, ndcg_at_k
from rec_utils.rerank_baselines import GSF, Seq2Slate, miDNN
from rec_utils.rerank_lists import ListBatch
from rec_utils.rerank_model import (
    HEADS,
    STATE_DIM,
    ListFields,
    Reranker,
    attention_loss,
    item_loss,
    map5,
    padded,
    tapered,
    width_for,
)
from rec_utils.settings import check_choice
from rec_utils.training import Objective

#: Where KAR's tables cut the lists.
CUTS = (1, 3, 5, 7)


class DLCM(Reranker):
    """Deep listwise context model (Ai et al., SIGIR 2018).

    A GRU reads the initial list, o_j = GRU(x_1 ... x_j), and a local ranking function compares every state
    with the last, the list's context s = o_n: score_j = v . (o_j * tanh(W s + b)). As in KAR's code the
    states are batch-normalised first, the paper's tensor W has one slice, and the loss is the binary
    cross-entropy of each item (KAR's softmax of two logits is a sigmoid of their difference).
    """

    def __init__(self, inputs: Inputs, *, width: int = STATE_DIM, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.reader = nn.GRU(self.width, width, batch_first=True)
        self.norm = nn.BatchNorm1d(width)
        self.context = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(dropout))
        self.out = nn.Linear(width, 1)

    def _scores(self, batch: ListBatch, x: Tensor) -> Tensor:
        states, _ = self.reader(x)
        if batch.real is None:
            states = self.norm(states.flatten(0, 1)).view_as(states)
            last = states[:, -1:]
        else:  # padding stands last, and is in no average
            states = torch.zeros_like(states).index_put((batch.real,), self.norm(states[batch.real]))
            last = states[torch.arange(len(states)), batch.real.sum(1) - 1][:, None]
        return self.out(states * self.context(last)).squeeze(2)


class SetRank(Reranker):
    """SetRank (Pang et al., SIGIR 2020): self-attention over the set of candidates, blind to their order.

    score_j = MLP([attention(X)_j ; x_j]), permuted as the candidates are. KAR's code has one multi-head
    attention in place of the paper's stack of (induced) blocks, and no embedding of the initial rank.
    """

    loss = staticmethod(attention_loss)

    def __init__(self, inputs: Inputs, *, width: int = HIDDEN[0], dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.attention = nn.MultiheadAttention(self.width, HEADS, batch_first=True)
        self.final = MLP(2 * self.width, tapered(width), 1, dropout=dropout)

    def _scores(self, batch: ListBatch, x: Tensor) -> Tensor:
        context, _ = self.attention(x, x, x, padded(batch), need_weights=False)
        return self.final(torch.cat([context, x], dim=2)).squeeze(2)


class PRM(SetRank):
    """Personalised re-ranking model (Pei et al., RecSys 2019): a Transformer encoder over the initial list.

    As SetRank, on x_j + p_j with the embedding p_j of the initial rank j, and with the binary cross-entropy
    of each item as loss. The positions are learned, as in the paper; KAR's code has fixed sinusoids, and
    one attention layer in place of the paper's blocks. The paper's personalised vectors are KAR's dense part.
    """

    loss = staticmethod(item_loss)

    def __init__(
        self, inputs: Inputs, n_candidates: int, *, width: int = HIDDEN[0], dropout: float = 0.0
    ) -> None:
        super().__init__(inputs, width=width, dropout=dropout)
        self.position = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_candidates, self.width)))

    def _scores(self, batch: ListBatch, x: Tensor) -> Tensor:
        return super()._scores(batch, x + self.position)


class SetToList(nn.Module):
    """MIR's attention between the set of candidates V [B, n, v d] and the history list Q [B, L, q d].

    The affinity of step l and candidate j joins items and features: C = tanh(Q W V' + sum over their
    fields f, g of m_fg Q_f M V_g'), zero in padding. With P = V W_v V' and R = V W_q Q',

        v = softmax(tanh(P + R C)) V        q = softmax(tanh(R + P C')) Q

    KAR's code has weights of the positions 1 ... n in place of the V in P and R, so that its scores depend
    on the random initial order; the paper wants them permuted as the candidates are, and so they are here.
    """

    def __init__(self, v_fields: int, q_fields: int, dim: int) -> None:
        super().__init__()
        v_dim, q_dim = v_fields * dim, q_fields * dim
        self.dim = dim
        self.items = nn.Linear(v_dim, q_dim, bias=False)  # W
        self.features = nn.Linear(dim, dim, bias=False)  # M
        self.pairs = nn.Linear(v_fields, q_fields, bias=False)  # m
        self.of_set = nn.Linear(v_dim, v_dim, bias=False)  # W_v
        self.of_list = nn.Linear(v_dim, q_dim, bias=False)  # W_q

    def forward(
        self, v: Tensor, q: Tensor, mask: Tensor, padded: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Candidates [B, n, v d] and history [B, n, q d], both as each candidate attends to them.

        Args:
            v: candidates [B, n, v d], zeros in padding.
            q: history [B, L, q d].
            mask: [B, L] True where a step is real.
            padded: [B, n] True where a candidate is padding; None if all are real.
        """
        fields = v.unflatten(2, (-1, self.dim)).transpose(2, 3)
        features = self.features(self.pairs(fields).transpose(2, 3)).flatten(2)
        affinity = torch.tanh(q @ (self.items(v) + features).transpose(1, 2)) * mask[..., None]
        among_set, to_list = v @ self.of_set(v).transpose(1, 2), self.of_list(v) @ q.transpose(1, 2)
        of_set = torch.tanh(among_set + to_list @ affinity)
        if padded is not None:
            of_set = of_set.masked_fill(padded[:, None], -torch.inf)
        of_list = torch.tanh(to_list + among_set @ affinity.transpose(1, 2))
        return of_set.softmax(dim=2) @ v, masked_softmax(of_list, mask[:, None]) @ q


class MIR(Reranker):
    """Multi-level interaction re-ranking (Xi et al., CIKM 2022): the set of candidates meets the history.

    Candidates attend to each other, V = [X ; attention(X)]; a GRU reads the history S, Q = [S ; GRU(S)];
    then score_j = MLP([v_j ; q_j ; x_j ; mean of Q]) with `SetToList`'s v and q. As in KAR's code there is
    no decay of the history by its age. KAR's code gives MIR the knowledge nowhere; here it is part of x_j.
    """

    def __init__(self, inputs: Inputs, *, width: int = HIDDEN[0], dropout: float = 0.0) -> None:
        super().__init__(inputs)
        dim = inputs.embed_dim
        if inputs.dense_dim % dim or STATE_DIM % dim:
            raise UserError(
                f"MIR reads fields of embed_dim = {dim}, of which neither dense_dim = {inputs.dense_dim} "
                f"nor the state of {STATE_DIM} may hold a part"
            )
        step_dim = inputs.step_dim + STATE_DIM
        self.attention = nn.MultiheadAttention(self.width, HEADS, batch_first=True)
        self.reader = nn.GRU(inputs.step_dim, STATE_DIM, batch_first=True)
        self.set_to_list = SetToList(2 * self.width // dim, step_dim // dim, dim)
        self.final = MLP(3 * self.width + 2 * step_dim, tapered(width), 1, dropout=dropout)

    def _scores(self, batch: ListBatch, x: Tensor) -> Tensor:
        history, mask = padding_last(batch.history, batch.mask)
        steps = self.embedding(history).flatten(2)
        states, _ = self.reader(steps)
        q = torch.cat([steps, states], dim=2) * mask[..., None]
        mean = q.sum(1, keepdim=True) / mask.sum(1).clamp(min=1)[:, None, None]
        context, _ = self.attention(x, x, x, padded(batch), need_weights=False)
        v = torch.cat([x, context], dim=2)
        v, met = self.set_to_list(
            v if batch.real is None else v * batch.real[..., None], q, mask, padded(batch)
        )
        return self.final(torch.cat([v, met, x, mean.expand(-1, x.shape[1], -1)], dim=2)).squeeze(2)


#: Those of KAR's experiments.
MODELS: dict[str, type[Reranker]] = {model.__name__: model for model in (DLCM, PRM, SetRank, MIR)}
ALL: dict[str, type[Reranker]] = MODELS | {model.__name__: model for model in (GSF, miDNN, Seq2Slate)}


def build(
    name: str, lists: ListFields, *, dense_dim: int = 0, embed_dim: int = 32, seed: int = 0, **kw: Any
) -> Reranker:
    """The model `name` for the candidates of `lists`, initialised from `seed` alone; see `ctr.build`.

    Raises:
        UserError: for an unknown model or parameter, or a dense_dim that MIR cannot take.
    """
    model_class = ALL[check_choice("re-ranking model", name, list(ALL))]
    known = list(inspect.signature(model_class).parameters)[1:]
    for parameter in kw:
        check_choice(f"{name} parameter", parameter, known)
    if "n_candidates" in known:
        kw["n_candidates"] = lists.n_candidates
    inputs = Inputs.of(lists, dense_dim, embed_dim)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = model_class(inputs, **kw)
        initialise(model, lists)
    return model


def objective(name: str) -> Objective:
    """The loss of the model `name`, and the choice of the epoch by MAP@5 of the validation lists."""
    loss = ALL[check_choice("re-ranking model", name, list(ALL))].loss
    return Objective(loss, map5, higher_is_better=True)


def equal_budgets(
    names: Iterable[str], lists: ListFields, budget: int, *, embed_dim: int = 32
) -> dict[str, dict[str, int]]:
    """Settings for `build` with which every model has about `budget` parameters outside the embeddings.

    Args:
        names: of models in `ALL`.
        lists: for which they are built.
        budget: parameters of each model; a model of the smallest or largest width may miss it.
        embed_dim: width d of an embedding, the same for all.
    """
    return {
        name: {"width": width_for(lambda w, m=name: build(m, lists, embed_dim=embed_dim, width=w), budget)}
        for name in names
    }


def list_scores(label: np.ndarray, score: np.ndarray, cuts: Iterable[int] = CUTS) -> dict[str, np.ndarray]:
    """KAR's metrics of every list [N] for label and score [N, n]: MAP@k, NDCG@k and CLICK@k, k of `cuts`.

    MAP@k divides by the hits among the first k; CLICK@k is their number.
    """
    metrics = {"MAP": map_at_k, "NDCG": ndcg_at_k, "CLICK": hit_count_at_k}
    return {f"{name}@{k}": metric(label, score, k) for name, metric in metrics.items() for k in cuts}
