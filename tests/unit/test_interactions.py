"""The interactions of fields against brute force and torch's own modules, on small random inputs."""

from itertools import combinations

import pytest
import torch
from torch import nn

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


@pytest.fixture
def fields():
    """[B, M, d] = [4, 5, 6]."""
    torch.manual_seed(0)
    return torch.randn(4, 5, 6)


def test_pair_sum_is_the_sum_over_all_pairs(fields):
    expected = [sum(float(u @ v) for u, v in combinations(sample, 2)) for sample in fields]
    torch.testing.assert_close(pair_sum(fields), torch.tensor(expected))


def test_cin_is_the_weighted_sum_of_element_wise_products(fields):
    cin = CIN(5, (4, 3, 2))
    for sample, out in zip(fields, cin(fields), strict=True):
        expected, state = [], sample
        for layer, width in zip(cin.layers, (4, 3, 2), strict=True):
            weight = layer.weight.view(width, len(state), 5)
            new = []
            for h in range(width):
                x = layer.bias[h] + torch.zeros(6)
                for i, x_i in enumerate(state):
                    for j, x_j in enumerate(sample):
                        x = x + weight[h, i, j] * x_i * x_j
                new.append(x)
            state = torch.stack(new)
            expected += [x.sum() for x in new]
        torch.testing.assert_close(out, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_vector_cross_is_the_outer_product_form(fields):
    x0, x = fields[:, 0], fields[:, 1]
    layer = VectorCross(6)
    nn.init.normal_(layer.bias)
    expected = torch.stack(
        [torch.outer(a, b) @ layer.weight.weight[0] + layer.bias + b for a, b in zip(x0, x, strict=True)]
    )
    torch.testing.assert_close(layer(x0, x), expected)


def test_matrix_cross_is_element_wise(fields):
    x0, x = fields[:, 0], fields[:, 1]
    layer = MatrixCross(6)
    weight, bias = layer.linear.weight, layer.linear.bias
    for a, b, out in zip(x0, x, layer(x0, x), strict=True):
        expected = [a[i] * (sum(weight[i, j] * b[j] for j in range(6)) + bias[i]) + b[i] for i in range(6)]
        torch.testing.assert_close(out, torch.stack(expected))


def test_field_attention_is_torchs_with_one_head_residual_and_relu(fields):
    layer = FieldAttention(6, 6)
    torchs = nn.MultiheadAttention(6, 1, bias=False, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([m.weight for m in (layer.query, layer.key, layer.value)]))
        torchs.out_proj.weight.copy_(torch.eye(6))
    mixed, _ = torchs(fields, fields, fields)
    torch.testing.assert_close(layer(fields), (mixed + fields).relu())


def test_field_attention_of_another_width_maps_the_residual(fields):
    layer = FieldAttention(6, 8)
    out = layer(fields)
    assert out.shape == (4, 5, 8)
    nn.init.zeros_(layer.value.weight)
    without = layer(fields)
    torch.testing.assert_close(without, (fields @ layer.residual.weight.T).relu())
    assert not torch.allclose(out, without)


def test_senet_weights_each_field_by_all_means(fields):
    senet = SENet(5)
    squeeze, excite = (senet.excitation[i].weight.detach() for i in (0, 2))
    assert squeeze.shape == (10, 5)  # KAR's ratio of 0.5 expands
    nn.init.uniform_(squeeze), nn.init.uniform_(excite)
    for sample, out in zip(fields, senet(fields), strict=True):
        means = [float(v.mean()) for v in sample]
        hidden = [max(0.0, sum(float(w) * m for w, m in zip(row, means, strict=True))) for row in squeeze]
        for v, row, weighted in zip(sample, excite, out, strict=True):
            weight = max(0.0, sum(float(w) * h for w, h in zip(row, hidden, strict=True)))
            torch.testing.assert_close(weighted, weight * v)


def test_bilinear_maps_the_first_of_each_pair(fields):
    layer = Bilinear(5, 6)
    for sample, out in zip(fields, layer(fields), strict=True):
        expected = torch.stack([(layer.linear.weight @ u) * v for u, v in combinations(sample, 2)])
        torch.testing.assert_close(out, expected)


def test_field_graph_is_a_gated_graph_network_without_self_loops(fields):
    layer = FieldGraph(5, 6, n_steps=2)
    nn.init.normal_(layer.bias)
    edge = torch.cat([layer.edge_to.weight[0], layer.edge_from.weight[0]])
    for sample, out in zip(fields, layer(fields), strict=True):
        graph = torch.zeros(5, 5)
        for i in range(5):
            scores = {
                j: nn.functional.leaky_relu(edge @ torch.cat([sample[i], sample[j]]))
                for j in range(5)
                if j != i
            }
            total = sum(s.exp() for s in scores.values())
            for j, score in scores.items():
                graph[i, j] = score.exp() / total
        state = sample
        for _ in range(2):
            sent = [layer.w_out[j] @ state[j] for j in range(5)]
            received = [
                layer.w_in[i] @ sum(graph[i, j] * sent[j] for j in range(5)) + layer.bias for i in range(5)
            ]
            state = torch.stack(
                [layer.gru(a, h) + v for a, h, v in zip(received, state, sample, strict=True)]
            )
        torch.testing.assert_close(out, state, rtol=1e-4, atol=1e-5)
