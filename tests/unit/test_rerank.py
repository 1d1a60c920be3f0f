"""Every re-ranking model: what may not change a score, what it computes, and what it can learn."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_ctr import random_samples
from torch import nn

from rec_utils import rerank
from rec_utils.errors import UserError
from rec_utils.metrics import map_at_k
from rec_utils.rerank_baselines import pointer_loss, softmax_loss
from rec_utils.rerank_lists import Lists
from rec_utils.rerank_model import n_parameters, width_for
from rec_utils.training import TrainConfig, fit, predict

DIM, N = 8, 6
every_model = pytest.mark.parametrize("name", list(rerank.ALL))
#: Models to which the order of the candidates means nothing.
BLIND = ("SetRank", "MIR", "GSF", "miDNN")


def random_lists(n_candidates=N, seed=0, **kw):
    """A list at every sample, of random items and labels; histories of 0 steps and more."""
    start = random_samples(seed=seed, **kw)
    g = torch.Generator().manual_seed(seed)
    shape = (len(start), n_candidates)
    item_row = torch.randint(len(start.item_fields), shape, generator=g)
    label = torch.randint(2, shape, generator=g).float()
    return Lists(start, item_row, label, label > 0)


def all_of(lists):
    return lists.batch(torch.arange(len(lists)))


def lively(name, lists, dense_dim=2 * DIM, std=0.3, **kw):
    """A model with weights far from their small start, so that a wrong input shows in the scores."""
    model = rerank.build(name, lists, dense_dim=dense_dim, embed_dim=DIM, **kw)
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    model.embedding.weight.data[0] = 0
    for key, buffer in model.named_buffers():
        if "running" in key:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return model.eval()


def dense_of(lists, seed=3):
    shape = (len(lists), lists.n_candidates, 2 * DIM)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@every_model
def test_scores_follow_the_candidates_where_the_model_is_blind_to_their_order(name):
    lists = random_lists()
    batch, dense = all_of(lists), dense_of(lists)
    order = torch.stack(
        [torch.randperm(N, generator=torch.Generator().manual_seed(i)) for i in range(len(lists))]
    )
    permuted = replace(
        batch,
        **{key: getattr(batch, key).gather(1, order) for key in ("item_row", "label")},
        item=batch.item.gather(1, order[..., None].expand_as(batch.item)),
    )
    model = lively(name, lists)
    with torch.no_grad():
        scores = model(batch, dense).gather(1, order)
        again = model(permuted, dense.gather(1, order[..., None].expand_as(dense)))
    difference = (scores - again).abs().max()
    assert difference < 1e-4 if name in BLIND else difference > 1e-2


@every_model
def test_padding_of_the_history_changes_no_score(name):
    short, long = random_lists(history_length=12), random_lists(history_length=40)
    model, dense = lively(name, short), dense_of(short)
    with torch.no_grad():
        torch.testing.assert_close(model(all_of(short), dense), model(all_of(long), dense))


@every_model
def test_only_mir_reads_the_history(name):
    lists = random_lists(lengths=(12, 12, 12)).select(torch.arange(36) % 12 > 0)
    model, dense, batch = lively(name, lists), dense_of(lists), all_of(lists)
    with torch.no_grad():
        scores = model(batch, dense)
        moved = (scores - model(replace(batch, history=batch.history.clamp(max=1)), dense)).abs().amax(1)
    assert (moved > 1e-4).all() if name == "MIR" else not moved.any()


@every_model
def test_a_list_is_scored_alone(name):
    lists = random_lists()
    model, dense = lively(name, lists), dense_of(lists)
    with torch.no_grad():
        together = model(all_of(lists), dense)
        alone = torch.cat(
            [model(lists.batch(torch.tensor([i])), dense[i : i + 1]) for i in range(len(lists))]
        )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_padded_candidates_change_no_score_and_no_loss(name, training):
    lists, long = random_lists(), random_lists(N + 3)
    model = lively(name, long, dense_dim=0, dropout=0.0).train(training)
    batch = all_of(lists)
    real = (torch.arange(N + 3) < N).expand(len(lists), -1)
    widened = replace(
        batch,
        **{key: nn.functional.pad(getattr(batch, key), (0, 3)) for key in ("item_row", "label")},
        item=nn.functional.pad(batch.item, (0, 0, 0, 3)),
        real=real,
    )
    with torch.no_grad():
        again = model(widened)
        if name == "PRM":
            model.position = nn.Parameter(model.position[:N])
        scores = model(batch)
    if name == "Seq2Slate" and training:
        assert (again[:, :, N:] == -torch.inf).all()
        torch.testing.assert_close(again[:, :N, :N], scores, rtol=1e-4, atol=1e-4)
    else:
        assert (again[:, N:] == -torch.inf).all()
        torch.testing.assert_close(again[:, :N], scores, rtol=1e-4, atol=1e-4)
    if training:
        loss, same = model.loss(scores, batch.label), model.loss(again, widened.label)
        torch.testing.assert_close(same, loss, rtol=1e-4, atol=1e-4)


@every_model
def test_candidates_see_each_other_and_their_dense_part(name):
    lists = random_lists()
    model, dense, batch = lively(name, lists), dense_of(lists), all_of(lists)
    changed = dense.clone()
    changed[:, 0] += 1
    with torch.no_grad():
        moved = (model(batch, dense) - model(batch, changed)).abs()
    assert (moved.amax(0) > 1e-3).all()


@every_model
@pytest.mark.parametrize("dense_dim", [0, 2 * DIM])
def test_a_gradient_reaches_every_parameter(name, dense_dim):
    lists = random_lists()
    model = rerank.build(name, lists, dense_dim=dense_dim, embed_dim=DIM).train()
    model.loss(model(all_of(lists), dense_of(lists) if dense_dim else None), lists.label).backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert without == []


@every_model
def test_weights_come_from_the_seed_alone(name):
    lists = random_lists()
    torch.manual_seed(4)
    state = torch.get_rng_state()
    one, same, other = (rerank.build(name, lists, embed_dim=DIM, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


@every_model
def test_equal_budgets_give_models_of_about_one_size(name):
    lists = random_lists(10)
    budget = 60_000
    settings = rerank.equal_budgets([name], lists, budget, embed_dim=DIM)[name]
    assert set(settings) == {"width"}
    size = n_parameters(rerank.build(name, lists, embed_dim=DIM, **settings))
    assert abs(size - budget) < 0.02 * budget
    for step in (-1, 1):  # no other width comes nearer
        other = rerank.build(name, lists, embed_dim=DIM, width=settings["width"] + step)
        assert abs(n_parameters(other) - budget) >= abs(size - budget)


def test_the_size_of_a_model_leaves_out_the_table_of_embeddings():
    lists = random_lists()
    model = rerank.build("DLCM", lists, embed_dim=DIM, width=5)
    gru, norm, context, out = 3 * 5 * (2 * DIM + 5 + 2), 10, 30, 6
    assert n_parameters(model) == gru + norm + context + out


@pytest.mark.parametrize(("budget", "width"), [(0, 2), (20, 2), (21, 2), (39, 4), (41, 4), (10_000, 64)])
def test_the_width_found_is_a_multiple_of_the_step(budget, width):
    def build(width):
        model = nn.Module()
        model.embedding, model.layer = nn.Embedding(3, 3), nn.Linear(9, width)
        return model

    assert width_for(build, budget, step=2, most=64) == width


def test_wrong_parts_are_refused():
    lists = random_lists()
    with pytest.raises(UserError, match="dense has 3 columns, not dense_dim=16"):
        lively("PRM", lists)(all_of(lists), torch.zeros(len(lists), N, 3))
    with pytest.raises(UserError, match="MIR reads fields of embed_dim = 8"):
        rerank.build("MIR", lists, dense_dim=12, embed_dim=DIM)
    with pytest.raises(UserError, match="did you mean 'SetRank'"):
        rerank.build("Setrank", lists)
    with pytest.raises(UserError, match="PRM parameter 'widht' is not"):
        rerank.build("PRM", lists, widht=3)


# Formulas


def test_dlcm_equals_its_formula():
    lists = random_lists()
    model, batch = lively("DLCM", lists, dense_dim=0), all_of(lists)
    with torch.no_grad():
        x = model.embedding.weight[batch.item].flatten(2)
        states = model.reader(x)[0]
        norm = model.norm
        states = (states - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        for row in range(len(lists)):
            context = torch.tanh(model.context[0](states[row, -1]))
            expected = [
                (model.out.weight[0] * state * context).sum() + model.out.bias[0] for state in states[row]
            ]
            torch.testing.assert_close(model(batch)[row], torch.stack(expected))


def test_self_attention_equals_its_formula():
    lists = random_lists()
    model, batch = lively("SetRank", lists, dense_dim=0), all_of(lists)
    attention = model.attention
    with torch.no_grad():
        x = model.embedding.weight[batch.item].flatten(2)[0]
        q, k, v = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=1)
        heads = [
            torch.softmax(a @ b.T / len(a.T) ** 0.5, dim=1) @ c
            for a, b, c in zip(*(part.chunk(2, dim=1) for part in (q, k, v)), strict=True)
        ]
        context = attention.out_proj(torch.cat(heads, dim=1))
        expected = model.final(torch.cat([context, x], dim=1))[:, 0]
        torch.testing.assert_close(model(batch)[0], expected)


def test_set_to_list_attention_equals_its_formula():
    g = torch.Generator().manual_seed(0)
    dim, v_fields, q_fields = 3, 2, 4
    layer = rerank.SetToList(v_fields, q_fields, dim)
    v, q = torch.randn(1, 5, v_fields * dim, generator=g), torch.randn(1, 7, q_fields * dim, generator=g)
    real = 4
    mask = torch.arange(7)[None] < real
    with torch.no_grad():
        of_set, of_list = layer(v, q * mask[..., None], mask)
        affinity = torch.zeros(real, 5)
        for step in range(real):
            for j in range(5):
                affinity[step, j] = q[0, step] @ layer.items.weight @ v[0, j]
                for f in range(q_fields):
                    for k in range(v_fields):
                        left, right = q[0, step].view(-1, dim)[f], v[0, j].view(-1, dim)[k]
                        affinity[step, j] += layer.pairs.weight[f, k] * (left @ layer.features.weight @ right)
        affinity = torch.tanh(affinity)
        among, to_list = v[0] @ layer.of_set(v[0]).T, layer.of_list(v[0]) @ q[0, :real].T
        weight = torch.softmax(torch.tanh(among + to_list @ affinity), dim=1)
        torch.testing.assert_close(of_set[0], weight @ v[0])
        weight = torch.softmax(torch.tanh(to_list + among @ affinity.T), dim=1)
        torch.testing.assert_close(of_list[0], weight @ q[0, :real])


def test_the_loss_of_items_counts_every_candidate_alike():
    scores, label = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.eye(4, 5)
    p = torch.sigmoid(scores)
    expected = -(label * p.log() + (1 - label) * (1 - p).log()).sum() / 20
    torch.testing.assert_close(rerank.item_loss(scores, label), expected)


def test_the_attention_loss_by_hand():
    scores, label = torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    p = np.exp([2, 4]) / np.exp([2, 4]).sum()  # temperature 0.5, and nothing below 0
    expected = -(np.log(1 - p[0]) + np.log(p[1]) + np.log(1)) / 3
    assert rerank.attention_loss(scores, label).item() == pytest.approx(expected, rel=1e-5)
    two = torch.tensor([[0.0, 1.0, 1.0]])  # half each; the third has p = 0, and PyTorch's log stops at -100
    expected = -(np.log(1 - p[0]) + 0.5 * np.log(p[1] * (1 - p[1])) - 50) / 3
    assert rerank.attention_loss(scores, two).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scores", [[500.0, 400.0, -500.0], [-1.0, -2.0, 0.0]])
@pytest.mark.parametrize("label", [[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
def test_the_attention_loss_is_finite_whatever_the_scores(scores, label):
    scores = torch.tensor([scores], requires_grad=True)
    loss = rerank.attention_loss(scores, torch.tensor([label]))
    loss.backward()
    assert loss.isfinite() and scores.grad.isfinite().all()
    assert not scores.grad[scores <= 0].any()


def test_gsf_is_the_mean_over_the_groups_that_a_candidate_is_in():
    lists = random_lists()
    batch = all_of(lists)
    for size in (1, 2, 3):
        model = lively("GSF", lists, dense_dim=0, group_size=size)
        with torch.no_grad():
            x = model.embedding.weight[batch.item].flatten(2)[0]
            found = [[] for _ in range(N)]
            for group in itertools.permutations(range(N), size):
                for member, score in zip(group, model.score(x[list(group)].flatten()), strict=True):
                    found[member].append(score)
            expected = torch.stack([torch.stack(scores).mean() for scores in found])
            torch.testing.assert_close(model(batch)[0], expected)


def test_midnn_reads_the_place_of_each_value_in_the_range_of_its_list():
    lists = random_lists()
    model, batch = lively("miDNN", lists, dense_dim=0), all_of(lists)
    batch = replace(batch, item=torch.cat([batch.item[..., :1], torch.full_like(batch.item[..., 1:], 31)], 2))
    told = []
    model.score.register_forward_pre_hook(lambda _, given: told.append(given[0]))
    with torch.no_grad():
        model(batch)
        x = model.embedding.weight[batch.item].flatten(2)
    scaled = (x - x.amin(1, keepdim=True)) / (x.amax(1, keepdim=True) - x.amin(1, keepdim=True))
    assert scaled[..., DIM:].isnan().all()  # the second field is the same in the whole list
    torch.testing.assert_close(told[0], torch.cat([x, scaled.nan_to_num()], dim=2))


def test_seq2slate_equals_its_formula():
    lists = random_lists()
    model, batch = lively("Seq2Slate", lists, dense_dim=0), all_of(lists)
    with torch.no_grad():
        x = model.embedding.weight[batch.item].flatten(2)
        scores, steps = model(batch), model.train()(batch)
        for row in (0, 7, 20):
            encoded, (h, c) = model.encoder(x[row])
            read, left = model.begin, list(range(N))
            for step in range(N):
                h, c = model.decoder(read[None], (h, c))
                logit = {
                    j: model.point[2](
                        torch.tanh(model.of_encoded(encoded[j]) + model.of_state(h[0]))
                    ).squeeze()
                    for j in left
                }
                best = max(left, key=logit.get)
                for j in range(N):
                    torch.testing.assert_close(steps[row, step, j], logit.get(j, torch.tensor(-torch.inf)))
                assert scores[row, best] == -step
                left.remove(best)
                read = x[row, best]


def test_the_softmax_loss_by_hand():
    scores = torch.tensor([[1.0, 2.0, -torch.inf], [0.5, 0.0, 1.0], [3.0, 2.0, 1.0]])
    label = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    first = -np.log(np.exp(2) / np.exp([1, 2]).sum())
    second = -np.log(np.exp([0.5, 1]) / np.exp([0.5, 0, 1]).sum()).mean()
    assert softmax_loss(scores, label).item() == pytest.approx((first + second) / 3, rel=1e-5)


def test_the_pointer_loss_by_hand():
    gone = -torch.inf
    steps = torch.tensor([[[1.0, 2.0, 0.0], [1.0, gone, 0.5], [gone, gone, 3.0]]])
    label = torch.tensor([[1.0, 1.0, 0.0]])
    first = -np.log(np.exp([1, 2]) / np.exp([1, 2, 0]).sum()).mean()
    second = -np.log(np.exp(1) / np.exp([1, 0.5]).sum()) / np.log2(3)  # one click is left; then none
    assert pointer_loss(steps, label).item() == pytest.approx(first + second, rel=1e-5)


@pytest.mark.parametrize("name", ["DLCM", "SetRank", "GSF", "Seq2Slate"])
def test_gradients_are_finite_beside_padding(name):
    lists = random_lists()
    batch = replace(all_of(lists), real=(torch.arange(N) < 2).expand(len(lists), -1))
    batch = replace(batch, label=batch.label * batch.real)
    model = rerank.build(name, lists, embed_dim=DIM).train()
    model.loss(model(batch), batch.label).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# Learning


@every_model
def test_a_planted_order_is_learned(name):
    """An item is relevant if its row is below 10."""
    lists = random_lists(lengths=(40,) * 40)
    lists = replace(lists, label=(lists.item_row < 10).float())
    train, valid = lists.select(torch.arange(1200)), lists.select(torch.arange(1200, 1600))
    model = rerank.build(name, lists, embed_dim=DIM)
    result = fit(model, train, valid, TrainConfig(lr=0.01, max_epochs=6), False, rerank.objective(name))
    score = predict(model, valid)
    label = valid.label.numpy()
    some = label.any(1)
    assert map_at_k(label[some], score[some], 5).mean() > 0.97
    assert result.epochs[result.best_epoch - 1]["valid_map5"] == max(e["valid_map5"] for e in result.epochs)


def test_scores_of_lists_have_kars_names():
    label, score = np.array([[1.0, 0, 1, 0, 0, 0, 0]]), np.array([[7.0, 6, 5, 4, 3, 2, 1]])
    scores = {name: value.item() for name, value in rerank.list_scores(label, score).items()}
    assert len(scores) == 12
    assert scores["MAP@1"] == scores["NDCG@1"] == scores["CLICK@1"] == 1
    assert scores["MAP@3"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["NDCG@3"] == pytest.approx((1 + 0.5) / (1 + 1 / np.log2(3)))
    assert scores["CLICK@3"] == scores["CLICK@7"] == 2
