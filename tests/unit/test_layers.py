"""The shared layers against plain loops and torch's own modules."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rec_utils.layers import AUGRU, MLP, Block, Dice, Dropout, TargetAttention, masked_softmax, padding_last


def left_padded(lengths, width):
    """Mask [B, width] whose row i has its last lengths[i] steps real."""
    return torch.arange(width) >= width - torch.tensor(lengths)[:, None]


def test_mlp_is_relu_between_linear_layers_and_plain_at_the_end():
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    mlp = MLP(3, (4,), 2)
    first, last = (m for m in mlp if isinstance(m, nn.Linear))
    expected = (x @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(mlp(x), expected)
    assert expected.min() < 0 <= MLP(3, (4,))(x).min()


def test_mlp_drops_units_in_training_only():
    mlp = MLP(3, (400,), dropout=0.5)
    nn.init.constant_(mlp[0].bias, 10.0)
    x = torch.randn(1, 3)
    assert 0.3 < (mlp.train()(x) == 0).float().mean() < 0.7
    assert (mlp.eval()(x) > 0).all()


def test_dice_uses_batch_statistics_in_training_and_running_ones_in_evaluation():
    torch.manual_seed(0)
    dice, norm = Dice(4), nn.BatchNorm1d(4, eps=1e-8, affine=False)
    nn.init.uniform_(dice.alpha)

    def expected(rows):
        p = norm(rows).sigmoid()
        return p * rows + (1 - p) * dice.alpha * rows

    for _ in range(5):
        rows = 3 * torch.randn(50, 4) + 2
        torch.testing.assert_close(dice(rows), expected(rows))
    dice.eval(), norm.eval()
    torch.testing.assert_close(dice(rows), expected(rows))
    torch.testing.assert_close(dice(rows)[:1], dice(rows[:1]))


@pytest.mark.parametrize("n_rows", [0, 1])
def test_dice_trains_on_a_batch_without_variance(n_rows):
    dice = Dice(3)
    rows = torch.randn(n_rows, 3, requires_grad=True)
    out = dice(rows)
    out.sum().backward()
    assert out.isfinite().all() and rows.grad.isfinite().all()
    assert dice.running_mean.eq(0).all() and dice.running_var.eq(1).all()


def naive_weights(attention, query, keys, mask):
    """DIN's attention as it is written in the paper: one input row [q, k, q - k, q * k] a real step."""
    rows = [
        torch.cat([q, k, q - k, q * k])
        for q, sample, real in zip(query, keys, mask, strict=True)
        for k in sample[real]
    ]
    weights = torch.zeros(mask.shape)
    weights[mask] = attention.rest(attention.first(torch.stack(rows))).squeeze(1)
    return weights


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4), min_size=2, max_size=5).filter(lambda n: sum(n) > 1),
    dim=st.integers(1, 6),
    training=st.booleans(),
)
def test_factorised_attention_equals_the_naive_one(lengths, dim, training):
    torch.manual_seed(sum(lengths) + dim)
    mask = left_padded(lengths, 4)
    query = torch.randn(len(lengths), dim, requires_grad=True)
    keys = torch.randn(len(lengths), 4, dim, requires_grad=True)
    attention = TargetAttention(dim, (5, 3)).train(training)
    expected = naive_weights(attention, query, keys, mask)
    weights = attention.weights(query, keys, mask)
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)
    assert weights[~mask].eq(0).all()

    interest = torch.stack([(w[:, None] * k).sum(0) for w, k in zip(expected, keys, strict=True)])
    torch.testing.assert_close(attention(query, keys, mask), interest, atol=1e-5, rtol=1e-4)


def test_factorised_attention_has_the_naive_gradients():
    torch.manual_seed(0)
    mask = left_padded([3, 1, 4], 4)
    query, keys = torch.randn(3, 6, requires_grad=True), torch.randn(3, 4, 6, requires_grad=True)
    attention = TargetAttention(6)
    inputs = [query, keys, attention.first.weight, attention.first.bias]
    seen = torch.randn(3, 4)
    naive = torch.autograd.grad((naive_weights(attention, query, keys, mask) * seen).sum(), inputs)
    factorised = torch.autograd.grad((attention.weights(query, keys, mask) * seen).sum(), inputs)
    for ours, expected in zip(factorised, naive, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_augru_with_full_attention_is_a_gru():
    """torch's GRU keeps z of the old state where DIEN keeps 1 - u, so u = sigmoid(-x) for z = sigmoid(x)."""
    torch.manual_seed(0)
    ours, gru = AUGRU(3, 4), nn.GRU(3, 4, batch_first=True)
    with torch.no_grad():
        for linear, weight, bias in (
            (ours.of_input, gru.weight_ih_l0, gru.bias_ih_l0),
            (ours.of_state, gru.weight_hh_l0, gru.bias_hh_l0),
        ):
            sign = torch.ones(12)
            sign[4:8] = -1
            linear.weight.copy_(sign[:, None] * weight)
            linear.bias.copy_(sign * bias)
    steps = torch.randn(5, 6, 3)
    torch.testing.assert_close(ours(steps, torch.ones(5, 6)), gru(steps)[1][0])


def test_augru_scales_the_update_gate_of_each_step():
    torch.manual_seed(0)
    layer = AUGRU(2, 3)
    steps, attention = torch.randn(1, 4, 2), torch.tensor([[0.3, 0.0, 1.0, 0.6]])
    state = [0.0] * 3

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    for x, a in zip(steps[0], attention[0].tolist(), strict=True):
        of_input = layer.of_input(x).tolist()
        of_state = layer.of_state(torch.tensor(state)).tolist()
        for i in range(3):
            reset = sigmoid(of_input[i] + of_state[i])
            gate = a * sigmoid(of_input[3 + i] + of_state[3 + i])
            new = math.tanh(of_input[6 + i] + reset * of_state[6 + i])
            state[i] = (1 - gate) * state[i] + gate * new
    torch.testing.assert_close(layer(steps, attention), torch.tensor([state]))


def test_masked_softmax_is_the_softmax_of_the_real_steps():
    torch.manual_seed(0)
    mask = left_padded([3, 0, 5, 1], 5)
    scores = (10 * torch.randn(4, 5)).requires_grad_()
    weights = masked_softmax(scores, mask)
    for row, out, real in zip(scores, weights, mask, strict=True):
        torch.testing.assert_close(out[real], row[real].softmax(0))
        assert out[~real].eq(0).all()
    weights.square().sum().backward()
    assert scores.grad.isfinite().all()


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_padding_last_keeps_the_order_of_the_real_steps(lengths):
    mask = left_padded(lengths, 6)
    history = torch.arange(len(lengths) * 12).view(-1, 6, 2)
    moved, moved_mask = padding_last(history, mask)
    for row, out, real, out_real, n in zip(history, moved, mask, moved_mask, lengths, strict=True):
        assert out_real.tolist() == [True] * n + [False] * (6 - n)
        assert out[:n].tolist() == row[real].tolist()


# Dropout and the Transformer block


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_a_share_keeps_the_mean_and_is_seeded(p):
    layer, x = Dropout(p), torch.ones(300, 1001, requires_grad=True)
    torch.manual_seed(0)
    y = layer(x)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert y.detach().unique().tolist() == pytest.approx([0, 1 / (1 - p)], abs=1e-4)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(0)
    assert torch.equal(layer(x), y)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_block_is_torchs_encoder_layer():
    torch.manual_seed(0)
    ours = Block(8, 2, 16, 0.3, nn.ReLU()).eval()
    theirs = nn.TransformerEncoderLayer(8, 2, 16, 0.3, batch_first=True, norm_first=True).eval()
    state = {
        "self_attn.in_proj_weight": torch.cat([ours.query.weight, ours.key_value.weight]),
        "self_attn.in_proj_bias": torch.cat([ours.query.bias, ours.key_value.bias]),
        "self_attn.out_proj": ours.out,
        "linear1": ours.feed_forward[0],
        "linear2": ours.feed_forward[3],
        "norm1": ours.norms[0],
        "norm2": ours.norms[1],
    }
    flat = {}
    for name, value in state.items():
        parts = {name: value} if isinstance(value, torch.Tensor) else value.state_dict(prefix=f"{name}.")
        flat |= parts
    theirs.load_state_dict(flat)
    x, visible = torch.randn(3, 5, 8), torch.ones(1, 5, 5, dtype=torch.bool).tril()
    expected = theirs(x, ~visible[0])
    assert torch.allclose(ours(x, visible), expected, atol=1e-5)
    step = torch.tensor([4, 2, 0])
    some = ours(x, visible[0][step][:, None], step)
    assert torch.allclose(some[:, 0], expected[torch.arange(3), step], atol=1e-5)
