"""Layers in which the embeddings of a sample's fields interact.

Shapes: B samples, M fields, d width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pair_sum(fields: Tensor) -> Tensor:
    """Sum of <v_i, v_j> over the pairs i < j of fields [B, M, d] -> [B] (Rendle, ICDM 2010, lemma 3.1)."""
    return 0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(1)


class CIN(nn.Module):
    """Compressed interaction network (xDeepFM, Lian et al., KDD 2018, equation 6), without activation.

    Layer k: x^k_h = b_h + sum_ij W^k_hij (x^{k-1}_i * x^0_j), * being element-wise over the d embedding
    values. The output is every x^k_h, summed over its d values.
    """

    def __init__(self, n_fields: int, widths: Sequence[int]) -> None:
        super().__init__()
        previous = [n_fields, *widths[:-1]]
        self.layers = nn.ModuleList(nn.Linear(p * n_fields, w) for p, w in zip(previous, widths, strict=True))

    def forward(self, fields: Tensor) -> Tensor:
        """[B, M, d] -> [B, sum(widths)]."""
        state, pooled = fields, []
        for i, layer in enumerate(self.layers):
            # Summed over d first, x_i * x_j is <x_i, x_j>; so the last layer, where most of the work
            # would be, needs no products of width d.
            inner = (state @ fields.transpose(1, 2)).flatten(1)
            pooled.append(F.linear(inner, layer.weight, layer.bias * fields.shape[2]))
            if i + 1 < len(self.layers):
                pairs = (state[:, :, None] * fields[:, None]).flatten(1, 2)
                state = layer.weight @ pairs + layer.bias[:, None]
        return torch.cat(pooled, dim=1)


class VectorCross(nn.Module):
    """Cross layer of DCN (Wang et al., ADKDD 2017, equation 3): x_{l+1} = x_0 (w . x_l) + b + x_l."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Linear(dim, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """x_0 and x_l [B, dim] -> x_{l+1} [B, dim]."""
        return x0 * self.weight(x) + self.bias + x


class MatrixCross(nn.Module):
    """Cross layer of DCN-V2 (Wang et al., WWW 2021, equation 1): x_{l+1} = x_0 * (W x_l + b) + x_l."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """x_0 and x_l [B, dim] -> x_{l+1} [B, dim]."""
        return torch.addcmul(x, x0, self.linear(x))


class FieldAttention(nn.Module):
    """Self-attention over fields (AutoInt, Song et al., CIKM 2019) with one head.

    Scores are scaled by 1 / sqrt(width); the residual is mapped by a matrix only where the width changes.
    """

    def __init__(self, in_dim: int, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.query = nn.Linear(in_dim, width, bias=False)
        self.key = nn.Linear(in_dim, width, bias=False)
        self.value = nn.Linear(in_dim, width, bias=False)
        self.residual = nn.Identity() if in_dim == width else nn.Linear(in_dim, width, bias=False)
        self.dropout = dropout

    def forward(self, fields: Tensor) -> Tensor:
        """[B, M, in_dim] -> [B, M, width]."""
        dropout = self.dropout if self.training else 0.0
        # With an axis for the one head, torch takes its fused kernel.
        parts = (part(fields)[:, None] for part in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(*parts, dropout_p=dropout).squeeze(1)
        return F.relu(F.dropout(mixed, dropout) + self.residual(fields))


class SENet(nn.Module):
    """Squeeze and excitation of fields (FiBiNET, Huang et al., RecSys 2019).

    A field is squeezed to its mean; two layers turn the M means into M weights. The hidden layer has
    2 M units: KAR's reduction ratio is 0.5, so what reduces in the paper expands here.
    """

    def __init__(self, n_fields: int) -> None:
        super().__init__()
        hidden = 2 * n_fields
        self.excitation = nn.Sequential(
            nn.Linear(n_fields, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, n_fields, bias=False),
            nn.ReLU(),
        )

    def forward(self, fields: Tensor) -> Tensor:
        """[B, M, d] -> [B, M, d]."""
        return fields * self.excitation(fields.mean(-1))[..., None]


class Bilinear(nn.Module):
    """Bilinear interaction (FiBiNET), one matrix for all fields: p_ij = (W v_i) * v_j, i < j."""

    def __init__(self, n_fields: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)
        left, right = torch.triu_indices(n_fields, n_fields, offset=1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        """[B, M, d] -> [B, M (M - 1) / 2, d], pairs in the order (0, 1), (0, 2) ... (M - 2, M - 1)."""
        mapped = self.linear(fields)
        return mapped.index_select(1, self.left) * fields.index_select(1, self.right)


class FieldGraph(nn.Module):
    """Gated graph network over fields (FiGNN, Li et al., CIKM 2019).

    The graph has an edge from every field j to every other field i, with the weight
    g_ij = softmax_j(LeakyReLU(w . [v_i ; v_j])). A step is
    a_i = W_in,i sum_j g_ij W_out,j h_j + b and h_i = GRU(a_i, h_i) + v_i; all steps share their weights.
    """

    def __init__(self, n_fields: int, dim: int, n_steps: int) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.edge_to = nn.Linear(dim, 1, bias=False)
        self.edge_from = nn.Linear(dim, 1, bias=False)
        self.w_out = nn.Parameter(torch.empty(n_fields, dim, dim))
        self.w_in = nn.Parameter(torch.empty(n_fields, dim, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.gru = nn.GRUCell(dim, dim)
        self.register_buffer("self_loop", torch.eye(n_fields, dtype=torch.bool), persistent=False)
        for matrix in (*self.w_out.detach(), *self.w_in.detach()):
            nn.init.xavier_normal_(matrix)

    def graph(self, fields: Tensor) -> Tensor:
        """Edge weights [B, M, M] (row i: edges to field i, summing to 1) of fields [B, M, d]."""
        scores = F.leaky_relu(self.edge_to(fields) + self.edge_from(fields).transpose(1, 2))
        return scores.masked_fill(self.self_loop, -torch.inf).softmax(dim=-1)

    def forward(self, fields: Tensor) -> Tensor:
        """[B, M, d] -> [B, M, d]."""
        graph, state = self.graph(fields), fields
        for _ in range(self.n_steps):
            sent = torch.einsum("med,bmd->bme", self.w_out, state)
            received = torch.einsum("med,bmd->bme", self.w_in, graph @ sent) + self.bias
            state = self.gru(received.flatten(0, 1), state.flatten(0, 1)).view_as(fields) + fields
        return state
