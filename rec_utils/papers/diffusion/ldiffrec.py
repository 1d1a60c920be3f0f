"""L-DiffRec: the diffusion of DiffRec in a latent space, with an encoder for each cluster of items.

Wang et al., SIGIR 2023, section 3.3. Items are clustered by k-means of their vectors; a linear variational
encoder for each cluster maps the user's choices in it to a part of the latent vector z, whose size goes by
the cluster's share of the items. The diffusion works on z, and one linear decoder maps the denoised z to
all items. So the matrices that grow with the number of items are few and thin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.collaborative import gaussian_kl
from rec_utils.errors import UserError
from rec_utils.implicit import RowBatch
from rec_utils.layers import Dropout
from rec_utils.papers.diffusion.diffrec import RowDiffusion


def item_vectors(x: sparse.csr_array, dim: int = 64) -> np.ndarray:
    """Vectors [I, dim] of the items where none are published: V sqrt(S) of the truncated SVD of X [U, I].

    The paper takes LightGCN's. Deterministic up to the signs of the columns, which k-means does not see.
    """
    dim = min(dim, min(x.shape) - 1)
    start = np.random.default_rng(0).normal(size=min(x.shape))
    _, size, right = svds(x.astype(np.float64), k=dim, v0=start)
    return (right.T * np.sqrt(size)).astype(np.float32)


def clusters(vectors: np.ndarray, n: int, seed: int = 0) -> list[Tensor]:
    """The items of each of n clusters, by k-means of vectors [I, m]; each is sorted.

    Raises:
        UserError: there are fewer items than clusters.
    """
    if not 1 <= n <= len(vectors):
        raise UserError(f"the number of clusters must lie between 1 and {len(vectors)} items, not at {n}")
    of_item = KMeans(n, n_init=10, random_state=seed).fit_predict(vectors)
    return [torch.from_numpy(np.flatnonzero(of_item == cluster)) for cluster in range(n)]


def latent_sizes(sizes: Sequence[int], total: int) -> list[int]:
    """Latent size of each cluster: its share of `total` rounded down, at least 1; the last takes the rest.

    Raises:
        UserError: nothing is left for the last one.
    """
    parts = [max(1, total * size // sum(sizes)) for size in sizes[:-1]]
    if sum(parts) >= total:
        raise UserError(f"a latent vector of {total} has no room for {len(sizes)} clusters")
    return [*parts, total - sum(parts)]


class LDiffRec(nn.Module):
    """L-DiffRec on rows of choices; the defaults are those of the released model for MovieLens-1M (clean).

    loss = lambda |z - denoised|^2 (with DiffRec's weights) - sum_i x_i log softmax(decoded)_i + gamma KL.
    lambda falls linearly from `weight` towards 0 over `anneal_batches` (500 epochs in the authors' code), but
    not below 0.005; gamma grows from 0 to 0.3 by 1/200 a batch.
    """

    LEAST_WEIGHT, MOST_KL, KL_BATCHES = 0.005, 0.3, 200

    def __init__(
        self,
        item_clusters: Sequence[Tensor],
        *,
        latent: int = 300,
        widths: Sequence[int] = (300,),
        steps: int = 40,
        scale: float = 0.005,
        low: float = 0.005,
        high: float = 0.02,
        weight: float = 0.03,
        anneal_batches: int = 7500,
        input_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = [len(items) for items in item_clusters]
        for number, items in enumerate(item_clusters):
            self.register_buffer(f"items_{number}", items)
        parts = latent_sizes(sizes, latent)
        self.encoders = nn.ModuleList(
            nn.Linear(size, 2 * part) for size, part in zip(sizes, parts, strict=True)
        )
        self.decoder = nn.Linear(latent, sum(sizes))
        for layer in (*self.encoders, self.decoder):
            nn.init.xavier_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-3)
        self.diffusion = RowDiffusion(
            latent, widths=widths, steps=steps, scale=scale, low=low, high=high, reweight=True
        )
        self.dropout = Dropout(input_dropout)
        self.weight, self.anneal_batches = weight, anneal_batches
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z [B, latent], cluster by cluster."""
        x = self.dropout(x)
        parts = [
            encoder(x[:, getattr(self, f"items_{number}")]).chunk(2, dim=1)
            for number, encoder in enumerate(self.encoders)
        ]
        mean, log_variance = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
        return mean, log_variance

    def forward(self, batch: RowBatch) -> Tensor:
        """Loss [B]; in training z is drawn and the batch counted."""
        mean, log_variance = self.encode(batch.x)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        diffusion, denoised = self.diffusion.losses(z)
        fit = (F.log_softmax(self.decoder(denoised), dim=1) * batch.x).sum(1)
        weight = (self.weight * (1 - self.batches / self.anneal_batches)).clamp(min=self.LEAST_WEIGHT)
        gamma = (self.batches / self.KL_BATCHES).clamp(max=self.MOST_KL)
        if self.training:
            self.batches += 1
        return weight * diffusion - fit + gamma * gaussian_kl(mean, log_variance)

    @torch.no_grad()
    def scores(self, x: Tensor, *, steps: int | None = None) -> Tensor:
        """Scores [B, I] of rows [B, I]; `steps` as in `RowDiffusion.denoise`."""
        return self.decoder(self.diffusion.denoise(self.encode(x)[0], steps=steps))
