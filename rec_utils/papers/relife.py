"""RELIFE: re-ranking with list-level hybrid feedback. Our reconstruction: no equation of the paper was read.

Weng et al., "Beyond Positive History: Re-ranking with List-level Hybrid Feedback", arXiv 2410.20778. A
user's history is a set of past *lists*, each with clicked and unclicked items. Known of the method is what
its abstract says: a Disentangled Interest Miner (DIM) finds interests in what was clicked and disinterests in
what was not, a Sequential Preference Mixer (SPM) reads both together in time, a Comparison-aware Pattern
Extractor (CPE) finds how the user chooses among the items of one list, and a contrastive loss aligns the
patterns of the candidate list and of the past lists. **Every formula below is ours.**

    S = LayerNorm(X + MHSA(X))                                  context of the candidates ("ICC")
    I+ = Attention+(S, clicked items), I- = Attention-(S, unclicked items)                     DIM
    M = Attention(S, Transformer(H + feedback + place + age))                                  SPM
    p_j = mean of g(a_k, a_l) over clicked k and unclicked l of past list j, A = MHSA(H_j + feedback)
    c = the same over all pairs of candidates;   p = sum_j softmax_j(c . p_j / sqrt(d)) p_j    CPE
    score_i = MLP([x_i ; s_i ; I+_i ; I-_i ; M_i ; p ; c ; p . c])
    L = BCE(scores, clicks) + alpha InfoNCE(c, p) + beta L_dis

MHSA stands for the layer of S, with its sum and norm, wherever it is named.
Shapes: B lists of n candidates, m past lists of h items, d width; L = m h.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.attention import Attention
from rec_utils.ctr import HIDDEN, initialise
from rec_utils.history_lists import HistoryLists
from rec_utils.layers import MLP, masked_softmax
from rec_utils.rerank_lists import ListBatch
from rec_utils.rerank_model import item_loss, map5
from rec_utils.settings import check_choice
from rec_utils.training import Objective

#: What an ablation can leave out; the contrastive loss needs CPE.
MODULES = ("DIM", "SPM", "CPE")
#: Row of the table of feedback for candidates, beside 0 for unclicked and 1 for clicked items.
UNKNOWN = 2


class Context(nn.Module):
    """Items in the light of the others: LayerNorm(X + MHSA(X)), the same for every order of the items."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.norm = Attention(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[N, t, d] -> [N, t, d]."""
        return self.norm(x + self.attention(x, x, mask))


class InterestMiner(nn.Module):
    """DIM: what of the clicked items, and what of the unclicked ones, each candidate has to do with.

    Two branches with weights of their own; a user without any item on one side gets a learned vector there.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Attention(width) for _ in range(2))
        self.nothing = _table(2, width)

    def forward(self, s: Tensor, items: Tensor, clicked: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """I+ and I- [B, n, d] for candidates s [B, n, d] and past items [B, L, d]."""
        interest, disinterest = (
            torch.where(mask.any(1)[:, None, None], branch(s, items, mask), nothing)
            for branch, nothing, mask in zip(
                self.branches, self.nothing, (clicked, real & ~clicked), strict=True
            )
        )
        return interest, disinterest


class Disentangling(nn.Module):
    """L_dis: interests alone must speak for what is clicked, and disinterests against it.

    BCE(sigmoid(s+ - s-), clicks) with s+ = (W+ s_i) . I+_i and s- = (W- s_i) . I-_i.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positive, self.negative = (nn.Linear(width, width, bias=False) for _ in range(2))

    def forward(self, s: Tensor, interest: Tensor, disinterest: Tensor) -> Tensor:
        """s+ - s- [B, n]."""
        return (self.positive(s) * interest - self.negative(s) * disinterest).sum(2)


class PreferenceMixer(nn.Module):
    """SPM: clicked and unclicked items as one sequence in time, and each candidate's attention to it."""

    def __init__(self, width: int, n_past: int, length: int) -> None:
        super().__init__()
        self.age, self.place = _table(n_past, width), _table(length, width)
        self.context = Context(width)
        self.feed_forward, self.norm = MLP(width, (2 * width,), width), nn.LayerNorm(width)
        self.attention = Attention(width)

    def forward(self, s: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """M [B, n, d] for candidates s [B, n, d] and tokens [B, m, h, d], items with their feedback."""
        u = (tokens + self.age[:, None] + self.place).flatten(1, 2)
        u = self.context(u, real)
        u = self.norm(u + self.feed_forward(u))
        return self.attention(s, u, real)


class PatternExtractor(nn.Module):
    """CPE: one vector for how the items of a list on one side compare with those on the other.

    The mean of g(a_k, a_l) over pairs k != l, g an MLP on [a_k ; a_l ; a_k - a_l ; a_k * a_l] with one hidden
    layer of d / 2. Its first layer W = [W1 W2 W3 W4] is applied as (W1 + W3) a_k + (W2 - W3) a_l +
    W4 (a_k * a_l), and the mean is taken before its second, linear one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.context = Context(width)
        self.first, self.second = nn.Linear(4 * width, width // 2), nn.Linear(width // 2, width)

    def forward(self, x: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Patterns [N, d] of lists [N, t, d]; masks [N, t] tell which items stand for k and which for l."""
        a = self.context(x, one | other)
        w_one, w_other, w_difference, w_product = self.first.weight.chunk(4, dim=1)
        of_one = F.linear(a, w_one + w_difference, self.first.bias).flatten(0, 1)
        of_other = F.linear(a, w_other - w_difference).flatten(0, 1)
        n_lists, t = one.shape
        itself = torch.eye(t, dtype=torch.bool, device=x.device)
        row, left, right = (one[:, :, None] & other[:, None] & ~itself).nonzero(as_tuple=True)
        left, right, a = row * t + left, row * t + right, a.flatten(0, 1)
        of_product = F.linear(a.index_select(0, left) * a.index_select(0, right), w_product)
        hidden = F.relu(of_one.index_select(0, left) + of_other.index_select(0, right) + of_product)
        total = hidden.new_zeros(n_lists, hidden.shape[1]).index_add(0, row, hidden)
        return self.second(total / row.bincount(minlength=n_lists).clamp(min=1)[:, None])


def sides(clicked: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Clicked and unclicked items [..., h] of lists; all items for a side that is empty."""
    unclicked = real & ~clicked
    return (
        torch.where(clicked.any(-1, keepdim=True), clicked, real),
        torch.where(unclicked.any(-1, keepdim=True), unclicked, real),
    )


def info_nce(c: Tensor, p: Tensor, user_row: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of candidate patterns c and history patterns p [B, d], by their cosine.

    A list's own history is the positive; negatives are the patterns of *other* users in the batch.
    """
    if not len(c):
        return c.sum()
    logits = F.normalize(c, dim=1) @ F.normalize(p, dim=1).T / temperature
    own = torch.eye(len(c), dtype=torch.bool, device=c.device)
    logits = logits.masked_fill((user_row[:, None] == user_row) & ~own, -torch.inf)
    truth = torch.arange(len(c), device=c.device)
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


class Fitting(NamedTuple):
    """What the model returns in training."""

    scores: Tensor  #: [B, n] logits
    penalty: Tensor  #: [] alpha L_CL + beta L_dis


class RELIFE(nn.Module):
    """The re-ranker; in evaluation it returns scores [B, n], in training a `Fitting`.

    Args:
        lists: for the numbers of fields, ids and past lists.
        embed_dim: width of an id's embedding.
        width: d, an even number.
        without: modules of `MODULES` to leave out.
        contrast: alpha; without CPE there is nothing to contrast.
        temperature: of InfoNCE.
        disentangle: beta; without DIM there is nothing to disentangle.
        dropout: in the final perceptron.
    """

    def __init__(
        self,
        lists: HistoryLists,
        *,
        embed_dim: int = 16,
        width: int = 64,
        without: Collection[str] = (),
        contrast: float = 0.1,
        temperature: float = 0.2,
        disentangle: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for module in without:
            check_choice("module", module, MODULES)
        self.n_item_fields, n_others = lists.n_item_fields, lists.n_fields - lists.n_item_fields
        self.temperature = temperature
        self.embedding = nn.Embedding(lists.n_ids, embed_dim, padding_idx=0)
        self.item = nn.Linear(self.n_item_fields * embed_dim, width)
        self.others = nn.Linear(n_others * embed_dim, width, bias=False) if n_others else None
        self.feedback = _table(3, width)
        self.icc = Context(width)
        self.dim = InterestMiner(width) if "DIM" not in without else None
        self.spm = PreferenceMixer(width, lists.n_past, lists.past_length) if "SPM" not in without else None
        self.cpe = PatternExtractor(width) if "CPE" not in without else None
        self.contrast = contrast if self.cpe else 0.0
        self.disentangle = disentangle if self.dim else 0.0
        self.disentangling = Disentangling(width) if self.disentangle else None
        n_parts = 2 + 2 * (self.dim is not None) + (self.spm is not None) + 2 * (self.cpe is not None)
        self.head = MLP(n_parts * width + (self.cpe is not None), HIDDEN, 1, dropout=dropout)

    def forward(self, batch: ListBatch) -> Tensor | Fitting:
        """Scores [B, n] of a batch, -inf in padding; in training with the other losses."""
        x, history = self._embed(batch)
        tokens = history + self.feedback[batch.past.clicked.long()]
        clicked, real = batch.past.clicked.flatten(1), batch.past.real.flatten(1)
        s, penalty = self.icc(x, batch.real), x.new_zeros(())
        parts = [x, s]
        if self.dim:
            interests = self.dim(s, history.flatten(1, 2), clicked, real)
            parts += interests
            if self.disentangling and self.training:
                margin = _unranked(self.disentangling(s, *interests), batch)
                penalty = penalty + self.disentangle * item_loss(margin, batch.label)
        if self.spm:
            parts.append(self.spm(s, tokens, real))
        if self.cpe:
            c, p = self._patterns(x, tokens, batch)
            parts += [pattern[:, None].expand_as(x) for pattern in (p, c)]
            parts.append((p * c).sum(1)[:, None, None].expand(-1, x.shape[1], 1))
            if self.contrast and self.training:
                known = real.any(1)
                loss = info_nce(c[known], p[known], batch.user_row[known], self.temperature)
                penalty = penalty + self.contrast * loss
        scores = _unranked(self.head(torch.cat(parts, dim=2)).squeeze(2), batch)
        return Fitting(scores, penalty) if self.training else scores

    def patterns(self, batch: ListBatch) -> tuple[Tensor, Tensor]:
        """c of the candidate list and p of the history, [B, d] each; p is 0 without a history."""
        x, history = self._embed(batch)
        return self._patterns(x, history + self.feedback[batch.past.clicked.long()], batch)

    def comparison(self, batch: ListBatch) -> Tensor:
        """CPE's attention among the items of each past list, the mean over heads: [B, m, h, h]."""
        past = batch.past
        tokens = self._embed(batch)[1] + self.feedback[past.clicked.long()]
        tokens, real = tokens.flatten(0, 1), past.real.flatten(0, 1)
        weights = self.cpe.context.attention.weights(tokens, tokens, real)
        return weights.mean(1).unflatten(0, past.real.shape[:2])

    def _embed(self, batch: ListBatch) -> tuple[Tensor, Tensor]:
        """X [B, n, d] and H [B, m, h, d]; what an item is, is read alike in both."""
        own, others = batch.item.tensor_split([self.n_item_fields], dim=2)
        x = self.item(self.embedding(own).flatten(2))
        if self.others:
            x = x + self.others(self.embedding(others).flatten(2))
        return x, self.item(self.embedding(batch.past.item).flatten(3))

    def _patterns(self, x: Tensor, tokens: Tensor, batch: ListBatch) -> tuple[Tensor, Tensor]:
        everything = torch.ones_like(batch.label, dtype=torch.bool) if batch.real is None else batch.real
        c = self.cpe(x + self.feedback[UNKNOWN], everything, everything)
        past = batch.past
        of_lists = self.cpe(
            tokens.flatten(0, 1), *(side.flatten(0, 1) for side in sides(past.clicked, past.real))
        )
        of_lists = of_lists.unflatten(0, past.real.shape[:2])
        weight = (of_lists @ c[..., None]).squeeze(2) / c.shape[1] ** 0.5
        weight = masked_softmax(weight, past.real.any(2))
        return c, (weight[..., None] * of_lists).sum(1)


def _table(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, width)))


def _unranked(scores: Tensor, batch: ListBatch) -> Tensor:
    """Scores [B, n] with -inf in padding."""
    return scores if batch.real is None else scores.masked_fill(~batch.real, -torch.inf)


def build(lists: HistoryLists, *, seed: int = 0, **settings: Any) -> RELIFE:
    """The model for `lists`, initialised from `seed` alone; `settings` are those of `RELIFE`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = RELIFE(lists, **settings)
        initialise(model, lists)
    return model


def _joint_loss(output: Fitting, label: Tensor) -> Tensor:
    return item_loss(output.scores, label) + output.penalty


#: The joint loss, and the choice of the epoch by MAP@5 of the validation lists.
OBJECTIVE = Objective(_joint_loss, map5, higher_is_better=True)
