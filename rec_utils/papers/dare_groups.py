"""DARE's customised pools: which users, and which items, share one retrieval pool.

Xi et al., arXiv 2408.05676, split the pool of stored texts into groups, so that a search stays short and
what it finds is by like entities. A binary router chooses the kind of group: *collaborative* for entities
with interactions (LightGCN embeddings, then k-means), *by attribute* for new ones (the first genre), and
as a control groups of the same sizes *at random*. Settings are those of the released code; where it drops
edges once a step and scales the rest by 1 / 0.8, and how LightGCN's layers are averaged, is our reading.

LightGCN (He et al., SIGIR 2020): with A the symmetrically normalised graph of likes,
e^(k+1) = A e^(k), and the embedding of a user or an item is the mean of e^(0), …, e^(K).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array, csr_array
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import embedding_bag, logsigmoid

from rec_utils.errors import UserError
from rec_utils.progress import bar
from rec_utils.timing import one_thread

#: The first genres that make a group of films; all others, and films without a genre, are one more.
GENRE_GROUPS = (
    ("Adventure",),
    ("Comedy",),
    ("Action", "Crime"),
    ("Drama",),
    ("Animation", "Children"),
    ("Sci-Fi", "Fantasy", "Mystery"),
    ("Documentary",),
    ("Horror", "Thriller"),
)


def by_attribute(items: pd.DataFrame) -> np.ndarray:
    """Group 0 to 8 of each item [n] by the first of its `genres` ("A|B"); 8 holds the rest."""
    group = {genre: number for number, genres in enumerate(GENRE_GROUPS) for genre in genres}
    first = items["genres"].str.split("|").str[0]
    return first.map(group).fillna(len(GENRE_GROUPS)).to_numpy(np.int64)


def at_random(group_sizes: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Random groups [sum of sizes] of exactly these sizes, as a control for `np.bincount` of other groups."""
    sizes = np.asarray(group_sizes)
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


def collaborative(likes: csr_array, n_groups: int, seed: int, progress: bool = True) -> np.ndarray:
    """Group of each user [U] by k-means of LightGCN's embeddings; `likes` as from `like_matrix`.

    Raises:
        UserError: there are fewer users than groups, or too few likes to hold any out.
    """
    if not 1 <= n_groups <= likes.shape[0]:
        raise UserError(f"n_groups must lie between 1 and the {likes.shape[0]} users, not at {n_groups}")
    return k_means(light_gcn(likes, seed, progress=progress)[0], n_groups, seed)


def k_means(users: np.ndarray, n_groups: int, seed: int) -> np.ndarray:
    """Group of each user [U] from embeddings [U, d]; for several numbers of groups from one training."""
    return KMeans(n_groups, n_init=10, random_state=seed).fit_predict(users).astype(np.int64)


def like_matrix(interactions: pd.DataFrame, user_ids: Sequence[int], above: float = 3.0) -> csr_array:
    """Likes [users, items] of `user_ids`, in their order: 1 where a rating lies above the threshold.

    Columns are the items that any of these users likes. A user may have no like.
    """
    row = pd.Series(range(len(user_ids)), index=user_ids)
    liked = interactions[(interactions["rating"] > above) & interactions["user_id"].isin(row.index)]
    column, items = pd.factorize(liked["item_id"], sort=True)
    pairs = row[liked["user_id"]].to_numpy(), column
    return csr_array((np.ones(len(liked), np.float32), pairs), shape=(len(user_ids), len(items)))


# LightGCN


@dataclass(frozen=True)
class GCNConfig:
    """Settings of LightGCN, those of the released code but for the learning rate and the number of epochs.

    The code's 1e-3 is for data with many more steps an epoch. On latest-small, with 14, it would rank no
    better than popularity for 50 epochs, so that training would stop there.
    """

    dim: int = 32
    n_layers: int = 3
    keep: float = 0.8  #: share of the edges in each step's graph
    penalty: float = 1e-6  #: weight of the squared embeddings of a batch, per pair
    lr: float = 3e-2  #: see the class
    batch_size: int = 4096
    max_epochs: int = 150
    eval_every: int = 3  #: epochs
    patience: int = 5  #: evaluations in a row without a better recall
    held_out: float = 0.1  #: share of the likes that chooses the epoch
    top: int = 20  #: places of the recall


class Graph:
    """The normalised bipartite graph of users and items: nodes are the users, then the items.

    The matrix A has 1 / sqrt(degree_u degree_i) where user u likes item i, in CSR form and symmetric.
    """

    def __init__(self, likes: csr_array) -> None:
        n_users, n_items = self.shape = likes.shape
        user, item = likes.nonzero()
        self.n_edges = len(user)
        weight = 1 / np.sqrt(np.bincount(user)[user] * np.bincount(item)[item])
        # both directions of an edge carry its number, plus one since 0 is no entry
        number = np.tile(np.arange(1, self.n_edges + 1), 2)
        node = np.concatenate([user, n_users + item]), np.concatenate([n_users + item, user])
        matrix = coo_array((number, node), shape=(n_users + n_items,) * 2).tocsr()
        self.start = torch.from_numpy(matrix.indptr[:-1].astype(np.int64))
        self.neighbour = torch.from_numpy(matrix.indices.astype(np.int64))
        self.edge = torch.from_numpy(matrix.data - 1)
        self.weight = torch.from_numpy(weight.astype(np.float32))

    def entries(self, keep: float, generator: torch.Generator) -> Tensor:
        """Entries of A [2 E] when every edge stays with probability `keep`, scaled so that A's mean stays."""
        kept = torch.rand(self.n_edges, generator=generator) < keep
        return (self.weight * kept / keep)[self.edge]

    def propagate(self, nodes: Tensor, n_layers: int, entries: Tensor | None = None) -> Tensor:
        """Mean of e^(0) to e^(K) [U + I, d] from e^(0) = nodes."""
        entries = self.weight[self.edge] if entries is None else entries
        return _Propagation.apply(nodes, self, n_layers, entries)


class _Propagation(torch.autograd.Function):
    """(I + A + … + A^K) e / (K + 1). A is symmetric, so the gradient goes the same way back.

    A weighted `embedding_bag` is the product with A, here five times as fast as torch's sparse one.
    """

    @staticmethod
    def forward(ctx, nodes: Tensor, graph: Graph, n_layers: int, entries: Tensor) -> Tensor:  # noqa: ANN001
        ctx.arguments = graph, n_layers, entries
        layer = total = nodes
        for _ in range(n_layers):
            layer = embedding_bag(graph.neighbour, layer, graph.start, mode="sum", per_sample_weights=entries)
            total = total + layer
        return total / (n_layers + 1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN001
        return _Propagation.apply(gradient.contiguous(), *ctx.arguments), None, None, None


def light_gcn(
    likes: csr_array, seed: int, config: GCNConfig = GCNConfig(), progress: bool = True
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Train by BPR on 90 % of the likes, up to the epoch with the best recall@20 on the rest.

    The loss of a batch of pairs (u, i) and items j that u does not like is the mean of
    -log sigmoid(<u, i> - <u, j>), plus the penalty on the embeddings e^(0) of its users and items.

    Returns:
        Embeddings of users [U, d] and of items [I, d], and a log with epoch, loss and recall.

    Raises:
        UserError: there are fewer than 10 likes, or a user likes all items.
    """
    n_users, n_items = likes.shape
    if likes.nnz < 10 or np.diff(likes.indptr).max() == n_items:
        raise UserError(
            f"LightGCN needs 10 likes or more, and items that a user does not like; got {likes.nnz}"
            f" likes of {n_users} users among {n_items} items"
        )
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    user, item = map(torch.from_numpy, likes.nonzero())
    held_out = rng.permutation(likes.nnz) < round(config.held_out * likes.nnz)
    known, hidden = (_select(likes, rows) for rows in (~held_out, held_out))
    graph = Graph(known)
    user, item = (ids[torch.from_numpy(~held_out)].long() for ids in (user, item))
    liked = (user.long() * n_items + item).sort().values
    nodes = (0.1 * torch.randn(n_users + n_items, config.dim, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([nodes], lr=config.lr, fused=True)
    log, best, best_nodes = [], -1.0, nodes.detach()
    with one_thread(), bar(progress, total=config.max_epochs, desc="LightGCN", unit="epoch") as epochs_bar:
        for epoch in range(1, config.max_epochs + 1):
            losses = []
            for edge in torch.randperm(len(user), generator=generator).split(config.batch_size):
                u, i = user[edge], item[edge]
                j = _not_liked(u, liked, n_items, generator)
                entries = graph.entries(config.keep, generator)
                final = graph.propagate(nodes, config.n_layers, entries)
                pairs = torch.cat([u, n_users + i, n_users + j])
                of_u, of_i, of_j = final.index_select(0, pairs).view(3, len(u), -1)
                bpr = -logsigmoid((of_u * (of_i - of_j)).sum(1)).mean()
                size = nodes.index_select(0, pairs).square().sum() / len(u)
                loss = bpr + config.penalty * size
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            epochs_bar.update()
            if epoch % config.eval_every:
                continue
            recall = _recall(graph.propagate(nodes.detach(), config.n_layers), known, hidden, config.top)
            log.append({"epoch": epoch, "loss": torch.stack(losses).mean().item(), "recall": recall})
            epochs_bar.set_postfix(recall=f"{recall:.4f}")
            if recall > best:
                best, best_epoch, best_nodes = recall, epoch, nodes.detach().clone()
            elif epoch - best_epoch >= config.patience * config.eval_every:
                break
        epochs_bar.total = epochs_bar.n  # an early stop is a full bar, too
    final = graph.propagate(best_nodes, config.n_layers).numpy()
    return final[:n_users], final[n_users:], pd.DataFrame(log)


def _select(likes: csr_array, chosen: np.ndarray) -> csr_array:
    user, item = (ids[chosen] for ids in likes.nonzero())
    return csr_array((np.ones(len(user), np.float32), (user, item)), shape=likes.shape)


def _not_liked(user: Tensor, liked: Tensor, n_items: int, generator: torch.Generator) -> Tensor:
    """A random item for each user that is not among `liked`, the sorted cells user * I + item."""
    item = torch.empty_like(user)
    wrong = torch.arange(len(user))
    while len(wrong):
        item[wrong] = torch.randint(n_items, wrong.shape, generator=generator)
        cell = user[wrong] * n_items + item[wrong]
        place = torch.searchsorted(liked, cell).clamp(max=len(liked) - 1)
        wrong = wrong[liked[place] == cell]
    return item


def _recall(nodes: Tensor, known: csr_array, hidden: csr_array, top: int) -> float:
    """Mean share of a user's hidden likes among the `top` items that the user is not known to like."""
    n_users, n_items = known.shape
    recalls = []
    for start in range(0, n_users, 4096):  # a table of all users and items may not fit into memory
        rows = slice(start, min(start + 4096, n_users))
        score = nodes[rows] @ nodes[n_users:].T
        score[known[rows].nonzero()] = -torch.inf
        best = score.topk(min(top, n_items), dim=1).indices.numpy()
        hits = np.take_along_axis(hidden[rows].toarray(), best, axis=1).sum(1)
        count = np.diff(hidden.indptr[start : rows.stop + 1])
        recalls.append(hits[count > 0] / count[count > 0])
    return float(np.concatenate(recalls).mean())
