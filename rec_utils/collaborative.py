"""Collaborative baselines on implicit feedback: popularity, ItemKNN, EASE and MultiVAE.

The first three need no training: they turn the matrix X [U, I] of choices into item scores or item-to-item
weights B [I, I], and a user's scores are the user's row times B. They are what a generative model has to
beat with the same data and the same care for its settings (Dacrema et al., RecSys 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.errors import UserError
from rec_utils.implicit import RowBatch
from rec_utils.layers import Dropout
from rec_utils.ranking import Scorer


def popularity(x: sparse.csr_array) -> Scorer:
    """The number of users who chose an item, the same score for every user."""
    count = torch.from_numpy(np.asarray(x.sum(0), dtype=np.float32))
    return lambda users: count.repeat(len(users), 1)


def item_knn(x: sparse.csr_array, k: int = 200) -> Scorer:
    """ItemKNN: the sum of an item's cosine similarities to what the user chose; see `cosine_neighbours`."""
    return linear(x, cosine_neighbours(x, k))


def ease(x: sparse.csr_array, l2: float = 1000.0) -> Scorer:
    """EASE: a linear auto-encoder over items; see `ease_weights`."""
    return linear(x, ease_weights(x, l2))


def linear(x: sparse.csr_array, weights: np.ndarray | sparse.csr_array) -> Scorer:
    """Scores x B of users' rows x with weights B [I, I]; a column of B is the item that is scored."""

    def scores(users: np.ndarray) -> Tensor:
        found = x[users] @ weights
        return torch.from_numpy(found.toarray() if sparse.issparse(found) else found)

    return scores


def cosine_neighbours(x: sparse.csr_array, k: int) -> sparse.csr_array:
    """Cosine similarities of the columns of X [U, I], of which each item keeps its k highest above 0.

    Returns:
        [I, I]: in column j the similarities to item j of its neighbours i != j.

    Raises:
        UserError: k is below 1.
    """
    if k < 1:
        raise UserError(f"k must be at least 1 neighbour, not {k}")
    norm = np.sqrt(np.asarray(x.multiply(x).sum(0))).ravel()
    unit = (x @ sparse.diags_array(1 / np.where(norm > 0, norm, 1))).tocsr()
    similarity = (unit.T @ unit).toarray().astype(np.float32)
    np.fill_diagonal(similarity, 0)
    value, neighbour = torch.from_numpy(similarity).topk(min(k, len(similarity)), dim=1)
    item = np.repeat(np.arange(len(similarity)), value.shape[1])
    found = sparse.csr_array(
        (value.numpy().ravel(), (neighbour.numpy().ravel(), item)), shape=similarity.shape
    )
    found.eliminate_zeros()
    return found


def ease_weights(x: sparse.csr_array, l2: float) -> np.ndarray:
    """The B [I, I] with zero diagonal that minimises |X - X B|^2 + l2 |B|^2 (Steck, WWW 2019).

    With P = (X'X + l2 1)^-1 it is B_ij = -P_ij / P_jj off the diagonal.

    Raises:
        UserError: l2 is not above 0.
    """
    if not l2 > 0:
        raise UserError(f"l2 must be above 0, not {l2}")
    gram = torch.from_numpy((x.T @ x).toarray().astype(np.float64))
    gram.diagonal().add_(l2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = -inverse / inverse.diagonal()
    weights.fill_diagonal_(0)
    return weights.float().numpy()


class MultiVAE(nn.Module):
    """Variational auto-encoder with multinomial likelihood (Liang et al., WWW 2018).

    The encoder reads the row normalised to length 1, after dropout, and gives mean and log variance of z; the
    decoder maps z to logits over the items. The loss of a user is -sum_i x_i log softmax(logits)_i + beta
    KL(q(z | x) | N(0, 1)), beta growing linearly to `beta` over `anneal_steps` batches.
    """

    def __init__(
        self,
        n_items: int,
        widths: Sequence[int] = (600, 200),
        *,
        dropout: float = 0.5,
        beta: float = 0.2,
        anneal_steps: int = 2000,
    ) -> None:
        super().__init__()
        *hidden, latent = widths
        self.encoder = _tanh_layers([n_items, *hidden, 2 * latent])
        self.decoder = _tanh_layers([latent, *reversed(hidden), n_items])
        self.dropout, self.beta, self.anneal_steps = Dropout(dropout), beta, anneal_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: RowBatch) -> Tensor:
        """Loss [B]; in training z is drawn and the step counted."""
        mean, log_variance = self._encode(batch.x)
        self.step += 1
        beta = self.beta * (self.step / self.anneal_steps).clamp(max=1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        fit = (F.log_softmax(self.decoder(z), dim=1) * batch.x).sum(1)
        return beta * gaussian_kl(mean, log_variance) - fit

    @torch.no_grad()
    def scores(self, x: Tensor) -> Tensor:
        """Logits [B, I] of rows [B, I], at the mean of z."""
        return self.decoder(self._encode(x)[0])

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(self.dropout(F.normalize(x))).chunk(2, dim=1)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence [B] of N(mean, exp(log_variance)) [B, d] from the standard normal."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(1)


def _tanh_layers(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    for layer in layers[::2]:
        nn.init.xavier_normal_(layer.weight)
        nn.init.normal_(layer.bias, std=1e-3)
    return nn.Sequential(*layers[:-1])
