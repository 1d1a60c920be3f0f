"""Further re-ranking models, those of LibRerank: GSF, miDNN and Seq2Slate.

Shapes: B lists, n candidates, D width of x_j, g size of a group, G groups.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rec_utils.ctr_model import Inputs
from rec_utils.layers import MLP
from rec_utils.rerank_lists import ListBatch
from rec_utils.rerank_model import STATE_DIM, Reranker

#: Values of a field that differ by less than this in a list are the same to miDNN.
SAME = 1e-6


def softmax_loss(scores: Tensor, label: Tensor) -> Tensor:
    """Softmax cross-entropy of scores and label [B, n], mean over lists; a list's clicks share its weight.

    A list without a click counts as 0.
    """
    share = label / label.sum(1, keepdim=True).clamp(min=1)
    return -torch.where(share > 0, share * scores.log_softmax(dim=1), 0).sum(1).mean()


def pointer_loss(steps: Tensor, label: Tensor) -> Tensor:
    """Softmax cross-entropy of every step of a pointer network, the mean over lists.

    Step t = 1, 2, ... weighs 1 / log2(t + 1); the clicks among the candidates left share its weight.

    Args:
        steps: logits [B, n, n] of the candidates (last) at each step; -inf for those that are gone.
        label: [B, n].
    """
    left = label[:, None] * (steps > -torch.inf)
    share = left / left.sum(2, keepdim=True).clamp(min=1)
    loss = -torch.where(share > 0, share * steps.log_softmax(dim=2), 0).sum(2)
    place = torch.arange(1, steps.shape[1] + 1, device=steps.device)
    return (loss / torch.log2(place + 1)).sum(1).mean()


class GSF(Reranker):
    """Groupwise scoring functions (Ai et al., ICTIR 2019): a perceptron scores groups of candidates.

    It gives each member of a group [x_i ; x_j ...] a score, and a candidate's score is the mean over the
    groups that it is in (the paper's sum, but as large in lists of any length). Groups are all ordered
    selections of g different candidates, so that the order of the list does not matter. LibRerank's
    settings have g = 1, with which no candidate sees another.
    """

    loss = staticmethod(softmax_loss)

    def __init__(
        self, inputs: Inputs, *, group_size: int = 2, width: int = 512, dropout: float = 0.0
    ) -> None:
        super().__init__(inputs)
        self.group_size = group_size
        hidden = (width, width // 2, width // 4)
        self.score = MLP(group_size * self.width, hidden, group_size, dropout=dropout)

    def _scores(self, batch: ListBatch, x: Tensor) -> Tensor:
        n = x.shape[1]
        groups = torch.tensor(list(itertools.permutations(range(n), self.group_size)), device=x.device)
        # the first layer is applied once to a candidate for each place in a group, not once to a group
        first, *rest = self.score
        parts = (
            F.linear(x, weight)[:, members]
            for weight, members in zip(first.weight.chunk(self.group_size, 1), groups.T, strict=True)
        )
        scores = sum(parts, first.bias)
        for layer in rest:
            scores = layer(scores)
        scores = scores.flatten(1)  # [B, G g]
        count = x.new_ones(groups.numel()).expand_as(scores)
        if batch.real is not None:  # a group with padding in it is no group
            whole = batch.real[:, groups].all(2)
            count = whole.repeat_interleave(self.group_size, dim=1).to(x.dtype)
        total = x.new_zeros(len(x), n).index_add(1, groups.flatten(), scores * count)
        return total / x.new_zeros(len(x), n).index_add(1, groups.flatten(), count).clamp(min=1)


class miDNN(Reranker):
    """Mutual-influence-aware ranking (Zhuang et al., IJCAI 2018): each candidate in relation to its list.

    score_j = MLP([x_j ; (x_j - min) / (max - min)]), minimum and maximum of every value being the list's; a
    value that is the same in the whole list becomes 0.
    """

    def __init__(self, inputs: Inputs, *, width: int = 512, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.score = MLP(2 * self.width, (width, width // 2, width // 4), 1, dropout=dropout)

    def _scores(self, batch: ListBatch, x: Tensor) -> Tensor:
        low = high = x
        if batch.real is not None:
            padding = ~batch.real[..., None]
            low, high = x.masked_fill(padding, torch.inf), x.masked_fill(padding, -torch.inf)
        low, high = low.amin(1, keepdim=True), high.amax(1, keepdim=True)
        spread = high - low
        relative = (x - low) / torch.where(spread > SAME, spread, 1)
        return self.score(torch.cat([x, relative], dim=2)).squeeze(2)


class Seq2Slate(Reranker):
    """Seq2Slate (Bello et al., 2018): a pointer network writes the new list, one candidate after another.

    An LSTM reads the initial list, e_1 ... e_n. A second one goes on from its last state: at step t its
    state d_t points to one of the candidates that are left, logit_tj = v . tanh(W_e e_j + W_d d_t), and
    then reads the x of the one with the highest logit. In training, too, the network follows its own
    choices, and all steps are learned from (the paper's supervised training).

    In evaluation the scores are 0, -1, -2 ... in the order of choice; in training the model returns the
    logits [B, n, n] of all steps, as `pointer_loss` takes them.
    """

    loss = staticmethod(pointer_loss)

    def __init__(self, inputs: Inputs, *, width: int = STATE_DIM, dropout: float = 0.0) -> None:
        super().__init__(inputs)
        self.encoder = nn.LSTM(self.width, width, batch_first=True)
        self.decoder = nn.LSTMCell(self.width, width)
        self.begin = nn.Parameter(torch.zeros(self.width))  # what the decoder reads first
        self.of_encoded = nn.Linear(width, width)  # W_e
        self.of_state = nn.Linear(width, width, bias=False)  # W_d
        self.point = nn.Sequential(nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 1, bias=False))

    def forward(self, batch: ListBatch, dense: Tensor | None = None) -> Tensor:
        """Scores [B, n]; in training the logits [B, n, n] of the candidates (last) at each step."""
        x = self._candidates(batch, dense)
        encoded, state = self._encode(x, batch.real)
        keys = self.of_encoded(encoded)
        free = torch.ones_like(batch.label, dtype=torch.bool) if batch.real is None else batch.real
        row = torch.arange(len(x), device=x.device)
        read, steps, order = self.begin.expand(len(x), -1), [], []
        for _ in range(x.shape[1]):
            state = self.decoder(read, state)
            logits = self.point(keys + self.of_state(state[0])[:, None]).squeeze(2)
            logits = logits.masked_fill(~free, -torch.inf)
            chosen = logits.argmax(1)
            free = free.scatter(1, chosen[:, None], False)
            read = x[row, chosen]
            steps.append(logits)
            order.append(chosen)
        if self.training:
            return torch.stack(steps, dim=1)
        # once a shorter list is used up, steps point anywhere: the first choice of a candidate counts
        place = -torch.arange(x.shape[1], dtype=x.dtype, device=x.device).expand(len(x), -1)
        scores = torch.full_like(place, -torch.inf)
        return scores.scatter_reduce(1, torch.stack(order, dim=1), place, "amax")

    def _encode(self, x: Tensor, real: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States [B, n, width] of the encoder, and where it stands after the last real candidate."""
        if real is None:
            encoded, (h, c) = self.encoder(x)
        else:
            packed = pack_padded_sequence(x, real.sum(1).cpu(), batch_first=True, enforce_sorted=False)
            encoded, (h, c) = self.encoder(packed)
            encoded, _ = pad_packed_sequence(encoded, batch_first=True, total_length=x.shape[1])
        return encoded, (h[0], c[0])
