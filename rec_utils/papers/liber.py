"""LIBER: a language model reads a lifelong history once, partition by partition.

Zhu et al., "LIBER: Lifelong User Behavior Modeling Based on Large Language Models", arXiv 2411.14713. Three
modules, the first in `rec_utils.papers.ubsp`:

1. *UBSP* cuts the stream of a user's behaviours into partitions P_1, P_2, … that are closed one by one.
2. *UIL* (user interest learning) asks a language model twice a partition, in a cascade: for a summary s_j
   of the interests in P_j, and for the shift d_j from s_{j-1} to s_j.
3. *UIF* (user interest fusion) makes one vector of the texts of the partitions closed so far, by attention
   with the target item as query, and feeds it to any CTR model through an adaptor, as KAR does.

The paper's body could not be read: form and sizes of the attention and the wording of the prompts are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from rec_utils import ctr, settings
from rec_utils.batches import Batch, CTRSamples
from rec_utils.crossfit import Arm
from rec_utils.ctr import CTRModel
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.knowledge import ml1m, movies
from rec_utils.knowledge.encoder import Encoder
from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.llm import ReplayBackend, generate
from rec_utils.knowledge.prompts import interest_shift, interest_summary
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store
from rec_utils.knowledge.vectors import centred
from rec_utils.layers import masked_softmax
from rec_utils.papers.kar import HybridExpertAdaptor
from rec_utils.papers.ubsp import Behaviour, Partition, Partitions
from rec_utils.samples import CTRTask

FUSIONS = ("target", "self", "mean")
#: Which of the partitions closed so far a model sees.
SEEN = ("all", "first", "last")

#: Answers requests, in order: `llm.generate` with a store and a back-end filled in.
Ask = Callable[[Sequence[Request]], Sequence[Response]]


# UIL: user interest learning


@dataclass(frozen=True)
class Interest:
    """What the language model says about one partition."""

    user: int
    number: int  #: of the partition
    summary: Response
    shift: Response | None  #: None for a user's first partition


def learn(
    partitions: Sequence[Partition],
    titles: Mapping[int, str],
    ask: Ask,
    previous: MutableMapping[int, str],
    profiles: Mapping[int, str] = MappingProxyType({}),
) -> list[Interest]:
    """Ask about newly closed partitions: first for all summaries, then for the shifts between them.

    Args:
        partitions: as `Stream` hands them out, each user's in order.
        titles: of the items, with the year.
        ask: the language model.
        previous: last summary of every user, all that is kept of older partitions; updated.
        profiles: sentences about users, see `prompts.ml1m_profile`.

    Raises:
        UserError: a partition does not follow the user's last one, or an item has no title.
    """
    due: dict[int, int] = {}
    for part in partitions:
        # of older partitions the last summary alone is known, and not which number it had
        number = due.get(part.user, max(1, part.number) if part.user in previous else 0)
        if part.number != number:
            raise UserError(f"user {part.user}: partition {part.number} came where {number} was due")
        due[part.user] = number + 1
        for item, _, _ in part.behaviours:
            if item not in titles:
                raise UserError(f"item {item}, rated by user {part.user}, has no title")
    summaries = ask(
        [
            interest_summary(
                [(titles[item], stars) for item, stars, _ in part.behaviours], profiles.get(part.user, "")
            )
            for part in partitions
        ]
    )
    last: dict[int, str] = {}
    shifts: list[Request | None] = []
    for part, summary in zip(partitions, summaries, strict=True):
        before = last.get(part.user, previous.get(part.user))
        shifts.append(None if before is None else interest_shift(before, summary.text))
        last[part.user] = summary.text
    answers = iter(ask([request for request in shifts if request]))
    previous.update(last)  # only now: if the model fails, the same call can be made again
    return [
        Interest(part.user, part.number, summary, next(answers) if shift else None)
        for part, summary, shift in zip(partitions, summaries, shifts, strict=True)
    ]


def titles(dataset: Dataset) -> dict[int, str]:
    """Title with year of each item, by raw id."""
    return dict(zip(dataset.items["item_id"].tolist(), dataset.items["title"], strict=True))


def behaviours(task: CTRTask, partitions: Partitions) -> list[Partition]:
    """The partitions of a task with their ratings, as `Stream` hands them out; items and users by raw id."""
    ratings = task.ratings
    rated = list(
        map(
            Behaviour,
            task.item_ids[ratings["item_row"]].tolist(),
            ratings["rating"].tolist(),
            ratings["timestamp"].tolist(),
        )
    )
    users, places = task.user_ids[partitions.user_row].tolist(), ratings["place"].to_numpy()[partitions.start]
    spans = zip(partitions.start.tolist(), partitions.end.tolist(), strict=True)
    return [
        Partition(user, number, place, tuple(rated[start:end]))
        for user, number, place, (start, end) in zip(
            users, partitions.number.tolist(), places.tolist(), spans, strict=True
        )
    ]


def stored(requests: Sequence[Request]) -> list[Response]:
    """The shipped answers about partitions, an `Ask`; `UserError` names a request without one."""
    backend = ReplayBackend(Store(movies.PARTITIONS, readonly=True))
    return generate(requests, backend=backend, progress=False)


def written(dataset: Dataset, task: CTRTask, partitions: Partitions, model: str) -> list[Interest]:
    """Have a causal language model of Hugging Face write all texts; it takes hours on a GPU.

    Answers are kept in `<data folder>/knowledge/partitions_<data set>.jsonl`, so a stopped run goes on.

    Args:
        dataset: with titles, and on MovieLens-1M with the users' profiles.
        task: the ratings that were partitioned.
        partitions: of the task.
        model: a name or a folder.
    """
    path = settings.data_dir() / "knowledge" / f"partitions_{dataset.name}.jsonl"
    ask = partial(generate, store=Store(path), backend=HuggingFaceBackend(model))
    people = ml1m.profiles(dataset) if dataset.name == "ml-1m" else {}
    return learn(behaviours(task, partitions), titles(dataset), ask, {}, people)


def text_vectors(interests: Sequence[Interest]) -> dict[str, np.ndarray]:
    """Vectors e_j of the summaries and f_j of the shifts, [P, m] each, centred; zeros for no shift."""
    tables = {}
    for kind in ("summary", "shift"):
        answers = [getattr(interest, kind) for interest in interests]
        table, _ = movies.text_vectors(pd.Series([a and a.text for a in answers], dtype=object), Encoder())
        tables[kind] = centred(table)
    return tables


# UIF: user interest fusion


class PartitionFusion(nn.Module):
    """u [B, d]: one vector of the partitions that a sample sees.

    h_j = [W_s e_j ; W_d f_j], one part a text, and u = sum over j of w_j h_j with

    - "target": w = softmax_j(sqrt(d) cos(q, h_j)), q = W_q times the vector of the target item;
    - "self": w uniform over the rows of softmax(sqrt(d) cos(Q, K)) V, with Q, K, V linear in h;
    - "mean": w uniform over h.

    Both attentions are the usual q · k / sqrt(d) of vectors scaled to a mean square of 1. Unscaled, those of
    text vectors, which have length 1, are so small that the weights start equal and stay so. A sample that
    sees no partition yet gets a learned vector.

    Args:
        tables: vectors [P, m] of each text; zero rows stay zero.
        partitions: which of them each interaction sees.
        query: [I, m] vectors of the target items.
        fusion: one of `FUSIONS`.
        seen: one of `SEEN`.
        width: numbers a text; d is this many for each of `tables`.
    """

    def __init__(
        self,
        tables: Mapping[str, Tensor],
        partitions: Partitions,
        query: Tensor,
        *,
        fusion: str = "target",
        seen: str = "all",
        width: int = 64,
    ) -> None:
        super().__init__()
        self.fusion = settings.check_choice("fusion", fusion, FUSIONS)
        settings.check_choice("seen", seen, SEEN)
        self.out_dim = width * len(tables)
        self.maps = nn.ModuleDict(
            {kind: nn.Linear(table.shape[1], width, bias=False) for kind, table in tables.items()}
        )
        if fusion == "target":
            self.of_target = nn.Linear(query.shape[1], self.out_dim, bias=False)
            self.register_buffer("query", query, persistent=False)
        if fusion == "self":
            self.of_steps = nn.Linear(self.out_dim, 3 * self.out_dim)
        self.before_any = nn.Parameter(torch.zeros(self.out_dim))
        for kind, table in tables.items():
            self.register_buffer(f"vectors_{kind}", table, persistent=False)
        closed = torch.from_numpy(partitions.closed)
        self.register_buffer("rows", torch.from_numpy(partitions.rows), persistent=False)
        self.register_buffer(
            "begin", (closed - 1).clamp(min=0) if seen == "last" else 0 * closed, persistent=False
        )
        self.register_buffer("end", closed.clamp(max=1) if seen == "first" else closed, persistent=False)

    def steps(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """h [B, J, d], and a mask [B, J] of the partitions that each sample sees."""
        place = torch.arange(self.rows.shape[1], device=self.rows.device)
        begin, end = self.begin[batch.position][:, None], self.end[batch.position][:, None]
        mask = (place >= begin) & (place < end)
        # samples share partitions: each is mapped once a batch; the last row stands for none
        used, of_step = self.rows[batch.user_row][mask].unique(return_inverse=True)
        mapped = torch.cat(
            [to(getattr(self, f"vectors_{kind}")[used]) for kind, to in self.maps.items()], dim=1
        )
        index = torch.full_like(mask, len(used), dtype=torch.int64).masked_scatter(mask, of_step)
        h = nn.functional.embedding(index, nn.functional.pad(mapped, (0, 0, 0, 1)))
        return h, mask

    def weights(self, batch: Batch, h: Tensor, mask: Tensor) -> Tensor:
        """w [B, J], zero where `mask` is; uniform unless the fusion is "target"."""
        if self.fusion != "target":
            return mask / mask.sum(1, keepdim=True).clamp(min=1)
        q = self.of_target(self.query[batch.item_row])
        return _attention(q[:, None], h, mask[:, None]).squeeze(1)

    def forward(self, batch: Batch) -> Tensor:
        """u [B, d]."""
        h, mask = self.steps(batch)
        w = self.weights(batch, h, mask)
        if self.fusion == "self":
            q, k, v = self.of_steps(h).chunk(3, dim=-1)
            h = _attention(q, k, mask[:, None]) @ v
        u = (w[:, None] @ h).squeeze(1)
        return torch.where(mask.any(1)[:, None], u, self.before_any)


def _attention(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """softmax(sqrt(d) cos(q, k)) [B, M, J] of queries [B, M, d] over keys [B, J, d]; `mask` [B, 1, J]."""
    cosine = nn.functional.normalize(q, dim=-1) @ nn.functional.normalize(k, dim=-1).mT
    return masked_softmax(cosine * q.shape[-1] ** 0.5, mask)


class LIBER(nn.Module):
    """A CTR model with the fused interests of its user, and if wanted an item's text, as extra dense fields.

    Args:
        backbone: built with dense_dim = the `out_dim` of the adaptors.
        fusion: of the partitions.
        user: adaptor with a side "user", of the fused vector.
        item: adaptor with a side "item" of vectors `item_vectors`, or None.
        item_vectors: [I, m] r_i, or None.
    """

    def __init__(
        self,
        backbone: CTRModel,
        fusion: PartitionFusion,
        user: HybridExpertAdaptor,
        item: HybridExpertAdaptor | None = None,
        item_vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.fusion, self.user, self.item = backbone, fusion, user, item
        self.register_buffer("item_vectors", item_vectors, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B]."""
        dense = [self.user({"user": self.fusion(batch)})]
        if self.item is not None:
            dense.append(self.item({"item": self.item_vectors[batch.item_row]}))
        return self.backbone(batch, torch.cat(dense, dim=1))


def arm(
    tables: Mapping[str, np.ndarray],
    partitions: Partitions,
    query: np.ndarray,
    *,
    item_vectors: np.ndarray | None = None,
    fusion: str = "target",
    seen: str = "all",
    backbone: str = "DIN",
    backbone_settings: Mapping[str, Any] = MappingProxyType({}),
    adaptor_settings: Mapping[str, Any] = MappingProxyType({}),
) -> Arm:
    """An arm of a comparison: `backbone` with the fused partitions, and with item texts if there are any.

    Args:
        tables: text -> [P, m], see `PartitionFusion`.
        partitions: see `PartitionFusion`.
        query: see `PartitionFusion`.
        item_vectors: r_i [I, m], or None for no item side.
        fusion: one of `FUSIONS`.
        seen: one of `SEEN`.
        backbone: a name in `ctr.MODELS`.
        backbone_settings: passed to `ctr.build`.
        adaptor_settings: passed to `HybridExpertAdaptor`.
    """

    def build(samples: CTRSamples, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            held = {kind: torch.from_numpy(table) for kind, table in tables.items()}
            fused = PartitionFusion(held, partitions, torch.from_numpy(query), fusion=fusion, seen=seen)
            user = HybridExpertAdaptor(["user"], fused.out_dim, **adaptor_settings)
            item, r = None, None
            if item_vectors is not None:
                item, r = (
                    HybridExpertAdaptor(["item"], item_vectors.shape[1], **adaptor_settings),
                    torch.from_numpy(item_vectors),
                )
        dense_dim = user.out_dim + (item.out_dim if item else 0)
        base = ctr.build(backbone, samples, dense_dim=dense_dim, seed=seed, **backbone_settings)
        return LIBER(base, fused, user, item, r)

    return Arm(build)


@torch.no_grad()
def weights_by_age(model: LIBER, samples: CTRSamples, most: int) -> pd.DataFrame:
    """Mean weight of the partitions by age, for samples that see two partitions or more.

    Args:
        model: trained.
        samples: to average over, up to 2,000 for each number of closed partitions.
        most: the largest number of closed partitions to tell about.

    Returns:
        One row a number and an age: closed, age (1 = the newest), weight, n (samples).
    """
    end, rows = model.fusion.end[samples.position], []
    for closed in range(2, most + 1):
        index = torch.nonzero(end == closed).squeeze(1)[:2000]
        if len(index):
            batch = samples.batch(index)
            weights = model.fusion.weights(batch, *model.fusion.steps(batch))[:, :closed].mean(0).tolist()
            rows += [
                {"closed": closed, "age": closed - number, "weight": weight, "n": len(index)}
                for number, weight in enumerate(weights)
            ]
    return pd.DataFrame(rows, columns=["closed", "age", "weight", "n"])


# Controls without a language model


def last_end(task: CTRTask, partitions: Partitions) -> np.ndarray:
    """[T] where the last partition ends that a rating sees: what lies before is LIBER's long history.

    It is the position of the user's first rating for one that sees no partition.
    """
    user = task.ratings["user_row"].to_numpy()
    first = np.arange(len(user)) - task.ratings["place"].to_numpy()
    last = partitions.rows[user, np.maximum(partitions.closed - 1, 0)]
    return np.where(partitions.closed > 0, np.append(partitions.end, 0)[last], first)


def plain_tables(task: CTRTask, partitions: Partitions, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """In place of the texts: the mean vector of what was liked in a partition, and of what was not, centred.

    Args:
        task: the ratings that were partitioned.
        partitions: P of them.
        vectors: [I, m] of the items.

    Returns:
        "liked" and "other", [P, m] each; zeros where there is no such item.
    """
    length = partitions.end - partitions.start
    of = np.repeat(np.arange(len(length)), length)
    position = np.arange(len(of)) + np.repeat(partitions.start - (np.cumsum(length) - length), length)
    item, rating = (task.ratings[name].to_numpy()[position] for name in ("item_row", "rating"))
    tables = {}
    for kind, chosen in {"liked": rating >= task.like_from, "other": rating < task.like_from}.items():
        shape = (len(length), len(vectors))
        times = csr_array((chosen[chosen].astype(vectors.dtype), (of[chosen], item[chosen])), shape=shape)
        tables[kind] = centred(times @ vectors / np.maximum(times.sum(axis=1), 1)[:, None])
    return tables


def dealt(tables: Mapping[str, np.ndarray], partitions: Partitions, seed: int) -> dict[str, np.ndarray]:
    """The control: each partition gets the texts [P, m] of one of any user that has the same number."""
    order, rng = np.arange(len(partitions.number)), np.random.default_rng(seed)
    for number in np.unique(partitions.number):
        alike = np.flatnonzero(partitions.number == number)
        order[alike] = rng.permutation(alike)
    return {kind: table[order] for kind, table in tables.items()}
