"""KAR: open-world knowledge from a language model as extra features of a recommender.

Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models",
RecSys 2024, arXiv 2306.10933. Three stages, one section each:

1. *Knowledge*: a language model answers one prompt per user (preference reasoning) and one per item
   (factual knowledge); see `rec_utils.knowledge`.
2. *Adaptation*: a frozen encoder makes vectors r_u, r_i of the answers, and the hybrid-expert adaptor maps
   each to 32 numbers, a_u and a_i.
3. *Utilisation*: [a_u ; a_i] enters any CTR model as extra dense fields, y = sigmoid(R(x, a_u, a_i)),
   and is trained with it.

Stage 2 takes any number of sides, since REKI has three; KAR has "item" and "user".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from rec_utils import ctr
from rec_utils.batches import Batch, CTRSamples
from rec_utils.crossfit import Arm
from rec_utils.ctr import CTRModel
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.knowledge import movies
from rec_utils.knowledge.vectors import centred, tfidf
from rec_utils.samples import CTRTask
from rec_utils.settings import check_choice

ADAPTORS = ("HEA", "MoE", "MLP")


ENCODERS = ("MiniLM", "TF-IDF")


def item_vectors(dataset: Dataset, task: CTRTask, text: str = "facts", encoder: str = "MiniLM") -> np.ndarray:
    """r_i [I, m], centred; zeros for an item without a text.

    `text` is a key of `movies.ITEM_TEXTS`, `encoder` one of `ENCODERS`.
    """
    check_choice("encoder", encoder, ENCODERS)
    items = dataset.items.set_index("item_id").loc[task.item_ids]
    if encoder == "TF-IDF":
        return centred(tfidf(movies.item_texts(items["imdb"], text).tolist()))
    return centred(movies.item_vectors(items, text)[0])


def user_vectors(
    dataset: Dataset, task: CTRTask, text: str = "preferences", encoder: str = "MiniLM"
) -> np.ndarray:
    """r_u [U, m], centred, of the task's users.

    `text` is a key of `movies.USER_TEXTS`, `encoder` one of `ENCODERS`.

    Raises:
        UserError: nobody wrote texts about the users of this data set.
    """
    if dataset.name != movies.USERS_OF:
        raise UserError(f"there are texts about the users of {movies.USERS_OF} only, not of {dataset.name}")
    if check_choice("encoder", encoder, ENCODERS) == "TF-IDF":
        return centred(tfidf(movies.user_texts(pd.Series(task.user_ids), text).tolist()))
    return centred(movies.user_vectors(pd.Series(task.user_ids), text)[0])


class Experts(nn.Module):
    """E experts side by side: E_e(r) = drop(relu(W2_e drop(relu(W1_e r)))), from m to `out` numbers.

    The last layer has a ReLU too, as in the authors' code, so knowledge features are never negative.
    """

    def __init__(self, n_experts: int, m: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.n_experts = n_experts
        self.hidden = nn.Linear(m, n_experts * hidden)
        self.weight = nn.Parameter(torch.empty(n_experts, hidden, out))
        self.bias = nn.Parameter(torch.zeros(n_experts * out))  # a vector, which weight decay spares
        self.dropout = nn.Dropout(dropout)
        # Xavier over one expert's own shape, not over the stacked matrix
        for e in range(n_experts):
            nn.init.xavier_normal_(self.hidden.weight[e * hidden : (e + 1) * hidden])
            nn.init.xavier_normal_(self.weight[e])
        nn.init.zeros_(self.hidden.bias)

    def forward(self, r: Tensor) -> Tensor:
        """From r [B, m] to the experts' answers [E, B, out]."""
        h = self.dropout(torch.relu(self.hidden(r)))
        h = h.view(len(r), self.n_experts, -1).transpose(0, 1)
        bias = self.bias.view(self.n_experts, 1, -1)
        return self.dropout(torch.relu(torch.baddbmm(bias, h, self.weight)))


class HybridExpertAdaptor(nn.Module):
    """a_p = sum over e in S and D_p of g_p[e] E_e(r_p), with g_p = softmax(W_p r_p + b_p).

    Shared experts S see the vectors of every side, dedicated experts D_p only those of side p, and each
    side has its own gate. `kind` "MoE" uses one gate and the shared experts for all sides; "MLP" is one
    shared expert without a gate.

    Args:
        sides: names of the sides, in output order.
        m: size of the vectors.
        shared: number of shared experts.
        dedicated: number of dedicated experts of each side (HEA only).
        hidden: width of an expert's hidden layer.
        out: numbers a side.
        dropout: inside the experts.
        kind: "HEA", "MoE" or "MLP".
    """

    def __init__(
        self,
        sides: list[str],
        m: int,
        *,
        shared: int = 2,
        dedicated: int = 2,
        hidden: int = 128,
        out: int = 32,
        dropout: float = 0.0,
        kind: str = "HEA",
    ) -> None:
        super().__init__()
        check_choice("adaptor", kind, ADAPTORS)
        if kind == "MLP":
            shared = 1
        if kind != "HEA":
            dedicated = 0
        if shared + dedicated < 1 or min(shared, dedicated) < 0:
            raise UserError(
                f"an adaptor needs at least one expert, not shared = {shared}, dedicated = {dedicated}"
            )
        self.sides = list(sides)
        self.out_dim = out * len(self.sides)
        self.shared = Experts(shared, m, hidden, out, dropout) if shared else None
        self.dedicated = nn.ModuleDict(
            {side: Experts(dedicated, m, hidden, out, dropout) for side in self.sides} if dedicated else {}
        )
        if kind == "HEA":
            gates = {side: nn.Linear(m, shared + dedicated) for side in self.sides}
        else:
            gates = dict.fromkeys(self.sides, nn.Linear(m, shared)) if kind == "MoE" else {}
        self.gates = nn.ModuleDict(gates)
        for gate in self.gates.values():
            nn.init.xavier_normal_(gate.weight)
            nn.init.zeros_(gate.bias)

    def side(self, name: str, r: Tensor) -> Tensor:
        """a_p [B, out] of one side from its vectors r_p [B, m]."""
        experts = [self.shared] if self.shared else []
        if self.dedicated:
            experts.append(self.dedicated[name])
        answers = torch.cat([expert(r) for expert in experts])
        if not self.gates:
            return answers[0]
        gate = torch.softmax(self.gates[name](r), dim=-1)
        return torch.einsum("be,ebo->bo", gate, answers)

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """[a_1 ; a_2 ; …] [B, out * sides] from one [B, m] tensor a side."""
        return torch.cat([self.side(name, vectors[name]) for name in self.sides], dim=-1)


class KAR(nn.Module):
    """A CTR model with the adapted knowledge of its user and item as extra dense fields.

    Args:
        backbone: built with dense_dim = adaptor.out_dim.
        adaptor: stage 2.
        vectors: frozen text vectors of each side, "item" [I, m] and / or "user" [U, m]; further user-side
            tables (a control's, REKI's) have names that begin with "user".
    """

    def __init__(
        self, backbone: CTRModel, adaptor: HybridExpertAdaptor, vectors: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        if missing := set(adaptor.sides) - set(vectors):
            raise UserError(f"no vectors for the adaptor's side {sorted(missing)[0]!r}")
        for name in adaptor.sides:
            if name != "item" and not name.startswith("user"):
                raise UserError(f"side {name!r} is neither 'item' nor begins with 'user'")
        self.backbone = backbone
        self.adaptor = adaptor
        for name in adaptor.sides:
            self.register_buffer(f"vectors_{name}", vectors[name], persistent=False)

    def _lookup(self, batch: Batch, prefix: str) -> dict[str, Tensor]:
        rows = {side: batch.item_row if side == "item" else batch.user_row for side in self.adaptor.sides}
        return {side: getattr(self, f"{prefix}_{side}")[row] for side, row in rows.items()}

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B]: adaptor and backbone."""
        return self.backbone(batch, self.adaptor(self._lookup(batch, "vectors")))

    @torch.no_grad()
    def store(self) -> None:
        """Adapt every user and item once and keep a_u, a_i; puts the model in evaluation mode for serving."""
        self.eval()
        for side in self.adaptor.sides:
            adapted = self.adaptor.side(side, getattr(self, f"vectors_{side}"))
            self.register_buffer(f"stored_{side}", adapted, persistent=False)

    @torch.no_grad()
    def serve(self, batch: Batch) -> Tensor:
        """Logits [B] from the stored a_u, a_i: no adaptor, no encoder, no language model. Needs `store`."""
        stored = self._lookup(batch, "stored")
        return self.backbone(batch, torch.cat([stored[side] for side in self.adaptor.sides], dim=-1))


def arm(
    vectors: Mapping[str, np.ndarray],
    *,
    backbone: str = "DIN",
    backbone_settings: Mapping[str, Any] = MappingProxyType({}),
    adaptor_settings: Mapping[str, Any] = MappingProxyType({}),
    history_length: int | None = None,
    train_users: int | None = None,
    training: Mapping[str, Any] = MappingProxyType({}),
) -> Arm:
    """An arm of a comparison: `backbone` with the knowledge of the sides in `vectors`, or plain without any.

    Args:
        vectors: side -> [rows, m], see `KAR`; empty for the base.
        backbone: a name in `ctr.MODELS`.
        backbone_settings: passed to `ctr.build`.
        adaptor_settings: passed to `HybridExpertAdaptor`.
        history_length: see `crossfit.Arm`.
        train_users: see `crossfit.Arm`.
        training: see `crossfit.Arm`.
    """

    def build(samples: CTRSamples, seed: int) -> nn.Module:
        if not vectors:
            return ctr.build(backbone, samples, seed=seed, **backbone_settings)
        m = next(iter(vectors.values())).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            adaptor = HybridExpertAdaptor(list(vectors), m, **adaptor_settings)
        base = ctr.build(backbone, samples, dense_dim=adaptor.out_dim, seed=seed, **backbone_settings)
        return KAR(base, adaptor, {side: torch.tensor(table) for side, table in vectors.items()})

    return Arm(build, history_length, train_users, training=dict(training))
