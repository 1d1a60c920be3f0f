"""RELIFE: each module against its formula, what may not change a score, and what the model can learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_lists import random_log
from torch import nn
from torch.nn import functional as F

from rec_utils.attention import Attention
from rec_utils.errors import UserError
from rec_utils.history_lists import history_lists
from rec_utils.metrics import map_at_k
from rec_utils.papers import relife
from rec_utils.papers.relife_patterns import attention_by_feedback, comparisons, patterns
from rec_utils.rerank_model import item_loss
from rec_utils.training import TrainConfig, fit, predict

D = 8
LISTS = {
    "full": history_lists(random_log(), n_past=3, min_past=0, mixed=False),
    "padded": history_lists(
        random_log(pad=True, user_fields=True, seed=1), n_past=3, min_past=0, mixed=False
    ),
}
every_log = pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
ABLATIONS = [(), ("DIM",), ("SPM",), ("CPE",), ("DIM", "SPM", "CPE")]
every_ablation = pytest.mark.parametrize("without", ABLATIONS, ids=["-".join(w) or "all" for w in ABLATIONS])


def all_of(lists):
    return lists.batch(torch.arange(len(lists)))


def lively(lists, std=0.3, seed=1, **settings):
    """A model with weights far from their small start, so that a wrong input shows in the scores."""
    model = relife.build(lists, embed_dim=4, width=D, **settings)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    model.embedding.weight.data[0] = 0
    return model.eval()


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some(*shape, seed=0, share=0.5):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


# Attention


def test_attention_equals_pytorchs_and_its_own_weights():
    ours, theirs = Attention(D), nn.MultiheadAttention(D, 2, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]).detach()
    theirs.in_proj_bias.data = torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]).detach()
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    queries, tokens, mask = random(5, 3, D), random(5, 6, D, seed=1), some(5, 6)
    mask[:, 0] = True
    expected, weights = theirs(queries, tokens, tokens, ~mask)
    torch.testing.assert_close(ours(queries, tokens, mask), expected)
    torch.testing.assert_close(ours.weights(queries, tokens, mask).mean(1), weights)
    whole, _ = theirs(queries, tokens, tokens)
    torch.testing.assert_close(ours(queries, tokens, None), whole)


def test_attention_to_nothing_is_the_bias_with_finite_gradients():
    attention = Attention(D)
    queries = random(2, 3, D).requires_grad_()
    mixed = attention(queries, random(2, 4, D), torch.tensor([[False] * 4, [True] * 4]))
    torch.testing.assert_close(mixed[0], attention.out.bias.expand(3, -1))
    mixed.sum().backward()
    assert queries.grad.isfinite().all() and not queries.grad[0].any()
    assert not attention.weights(queries, random(2, 4, D), torch.zeros(2, 4, dtype=torch.bool)).any()


# Modules


def test_the_context_is_the_same_in_every_order():
    context, x = relife.Context(D), random(4, 6, D)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(context(x, None)[:, order], context(x[:, order], None))
    expected = F.layer_norm(x + context.attention(x, x, None), (D,))
    torch.testing.assert_close(context(x, None), expected)


def test_interests_come_from_clicked_and_disinterests_from_unclicked_items():
    miner = relife.InterestMiner(D)
    s, items = random(6, 4, D), random(6, 9, D, seed=1)
    real = some(6, 9, seed=2, share=0.8)
    clicked = some(6, 9, seed=3) & real
    clicked[0], clicked[1] = False, real[1]
    with torch.no_grad():
        found = miner(s, items, clicked, real)
        for side, branch, mask in ((0, 0, clicked), (1, 1, real & ~clicked)):
            for b in range(6):
                own = items[b, mask[b]][None]
                expected = (
                    miner.branches[branch](s[b : b + 1], own, None)[0]
                    if mask[b].any()
                    else miner.nothing[branch].expand(4, -1)
                )
                torch.testing.assert_close(found[side][b], expected)


def test_a_pattern_is_the_mean_over_pairs():
    extractor = relife.PatternExtractor(D)
    x = random(5, 6, D)
    one, other = some(5, 6, seed=1), some(5, 6, seed=2)
    one[3], other[3] = torch.arange(6) == 2, torch.arange(6) == 2  # no pair of different items
    with torch.no_grad():
        a = extractor.context(x, one | other)
        found = extractor(x, one, other)
        for n in range(5):
            g = [
                extractor.second(
                    F.relu(
                        extractor.first(torch.cat([a[n, k], a[n, l], a[n, k] - a[n, l], a[n, k] * a[n, l]]))
                    )
                )
                for k in range(6)
                for l in range(6)  # noqa: E741
                if one[n, k] and other[n, l] and k != l
            ]
            expected = torch.stack(g).mean(0) if g else extractor.second.bias
            torch.testing.assert_close(found[n], expected)


def test_an_empty_side_is_taken_by_all_items():
    clicked = torch.tensor([[True, False, False], [False, False, False], [True, True, False]])
    real = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    one, other = relife.sides(clicked, real)
    assert one.tolist() == [[True, False, False], [True, True, True], [True, True, False]]
    assert other.tolist() == [[False, True, True], [True, True, True], [True, True, False]]


def test_infonce_by_hand():
    c, p = random(4, D), random(4, D, seed=1)
    users = torch.tensor([0, 1, 0, 2])
    cosine = F.normalize(c, dim=1) @ F.normalize(p, dim=1).T / 0.2
    total = 0.0
    for i in range(4):
        others = [j for j in range(4) if j == i or users[j] != users[i]]
        total += torch.logsumexp(cosine[i, others], 0) - cosine[i, i]
        total += torch.logsumexp(cosine[others, i], 0) - cosine[i, i]
    torch.testing.assert_close(relife.info_nce(c, p, users, 0.2), total / 8)


@pytest.mark.parametrize("users", [[], [3], [3, 3, 3]])
def test_infonce_without_another_user_is_0_with_finite_gradients(users):
    c, p = (random(len(users), D, seed=seed).requires_grad_() for seed in (0, 1))
    loss = relife.info_nce(c, p, torch.tensor(users, dtype=torch.long), 0.2)
    loss.backward()
    assert loss == 0
    assert all(x.grad is None or x.grad.isfinite().all() for x in (c, p))


# The model


def by_hand(model, batch, row):
    """Scores of one list without padding, from the formulas of the module's docstring."""
    n = batch.item.shape[1]
    x = model.item(model.embedding.weight[batch.item[row, :, :2]].flatten(1))
    x = x + model.others(model.embedding.weight[batch.item[row, :, 2:]].flatten(1))
    there = batch.past.real[row].any(1)
    items = model.item(model.embedding.weight[batch.past.item[row]].flatten(2))[there]
    clicked = batch.past.clicked[row][there]
    s = model.icc(x[None], None)[0]
    plus = model.dim.branches[0](s[None], items[clicked][None], None)[0]
    minus = model.dim.branches[1](s[None], items[~clicked][None], None)[0]
    told = items + model.feedback[clicked.long()]
    u = (told + model.spm.age[there][:, None] + model.spm.place).flatten(0, 1)
    u = model.spm.context(u[None], None)
    u = model.spm.norm(u + model.spm.feed_forward(u))
    mixed = model.spm.attention(s[None], u, None)[0]
    everything = torch.ones(1, n, dtype=torch.bool)
    c = model.cpe((x + model.feedback[2])[None], everything, everything)[0]
    of_lists = []
    for tokens, click in zip(told, clicked, strict=True):
        one = click if click.any() else torch.ones_like(click)
        other = ~click if (~click).any() else torch.ones_like(click)
        of_lists.append(model.cpe(tokens[None], one[None], other[None])[0])
    of_lists = torch.stack(of_lists)
    p = torch.softmax(of_lists @ c / D**0.5, dim=0) @ of_lists
    told = [x, s, plus, minus, mixed, p.expand(n, -1), c.expand(n, -1), (p @ c).expand(n, 1)]
    return model.head(torch.cat(told, dim=1))[:, 0]


def test_scores_equal_the_formula():
    lists = LISTS["full"]
    model, batch = lively(lists), all_of(lists)
    flat = batch.past.clicked.flatten(1)
    rows = (flat.any(1) & (batch.past.real.flatten(1) & ~flat).any(1)).nonzero().squeeze(1).tolist()
    assert len(rows) > 10
    with torch.no_grad():
        scores = model(batch)
        for row in rows:
            torch.testing.assert_close(scores[row], by_hand(model, batch, row), rtol=1e-4, atol=1e-4)


@every_log
@every_ablation
def test_scores_follow_the_candidates(lists, without):
    model, batch = lively(lists, without=without), all_of(lists)
    n = lists.n_candidates
    order = torch.stack(
        [torch.randperm(n, generator=torch.Generator().manual_seed(i)) for i in range(len(lists))]
    )
    moved = replace(
        batch,
        item=batch.item.gather(1, order[..., None].expand_as(batch.item)),
        real=None if batch.real is None else batch.real.gather(1, order),
    )
    with torch.no_grad():
        torch.testing.assert_close(model(batch).gather(1, order), model(moved), rtol=1e-4, atol=1e-4)


@every_log
@every_ablation
def test_a_list_is_scored_alone_whatever_pads_it(lists, without):
    model, longer = lively(lists, without=without), lists.with_past(5)
    with torch.no_grad():
        scores = model(all_of(lists))
        alone = torch.cat([model(lists.batch(torch.tensor([i]))) for i in range(len(lists))])
        torch.testing.assert_close(alone, scores, rtol=1e-4, atol=1e-4)
    if lists.real is not None:
        assert (scores[~lists.real] == -torch.inf).all() and scores[lists.real].isfinite().all()
    # more room than lists in the history changes nothing, given the same table of ages
    short = lists.select(lists.target - lists.first <= 3)
    wide = lively(longer, without=without)
    wide.load_state_dict(
        {key: value for key, value in model.state_dict().items() if key != "spm.age"}, strict=False
    )
    if wide.spm:
        wide.spm.age.data[2:] = model.spm.age
    with torch.no_grad():
        found = wide(all_of(short.with_past(5)))
        torch.testing.assert_close(found, model(all_of(short)), rtol=1e-4, atol=1e-4)


@every_log
@every_ablation
def test_both_kinds_of_feedback_matter_to_the_modules_that_read_them(lists, without):
    model, batch = lively(lists, without=without), all_of(lists)
    known = batch.past.real.flatten(1).any(1)
    flipped = replace(batch, past=replace(batch.past, clicked=batch.past.real & ~batch.past.clicked))
    with torch.no_grad():
        moved = (model(batch) - model(flipped)).nan_to_num().abs().amax(1)
        fewer = model(all_of(lists.positives_only()))
    assert (moved[known] > 1e-4).all() if len(without) < 3 else not moved.any()
    assert not moved[~known].any()
    assert torch.equal(model(batch), fewer) == (len(without) == 3)


@every_log
@every_ablation
def test_a_gradient_reaches_every_parameter(lists, without):
    model = relife.build(lists, embed_dim=4, width=D, without=without, disentangle=0.1).train()
    batch = all_of(lists)
    relife.OBJECTIVE.loss(model(batch), batch.label).backward()
    # a constant added to all keys changes no attention, and without any module no feedback is read
    without_effect = ["feedback"] if len(without) == 3 else []
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert [key for key in idle if not key.endswith("key.bias")] == without_effect
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_log
def test_the_loss_is_that_of_clicks_patterns_and_interests(lists):
    batch = all_of(lists)
    model = lively(lists, contrast=0.3, disentangle=0.7, temperature=0.5).train()
    with torch.no_grad():
        scores, penalty = model(batch)
        c, p = model.patterns(batch)
        known = batch.past.real.flatten(1).any(1)
        contrast = relife.info_nce(c[known], p[known], batch.user_row[known], 0.5)
        x, history = model._embed(batch)
        s = model.icc(x, batch.real)
        plus, minus = model.dim(
            s, history.flatten(1, 2), batch.past.clicked.flatten(1), batch.past.real.flatten(1)
        )
        margin = (s @ model.disentangling.positive.weight.T * plus).sum(2)
        margin -= (s @ model.disentangling.negative.weight.T * minus).sum(2)
        real = torch.ones_like(batch.label, dtype=torch.bool) if batch.real is None else batch.real
        apart = F.binary_cross_entropy_with_logits(margin[real], batch.label[real])
        torch.testing.assert_close(penalty, 0.3 * contrast + 0.7 * apart)
        loss = relife.OBJECTIVE.loss((relife.Fitting(scores, penalty)), batch.label)
        torch.testing.assert_close(loss, item_loss(scores, batch.label) + penalty)
        assert contrast > 0
        torch.testing.assert_close(model.eval()(batch), scores)
    plain = lively(lists, contrast=0.0).train()
    assert plain(batch).penalty == 0
    assert lively(lists, without=("CPE",)).train()(batch).penalty == 0


def test_weights_come_from_the_seed_alone():
    lists = LISTS["full"]
    torch.manual_seed(4)
    state = torch.get_rng_state()
    one, same, other = (relife.build(lists, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_an_unknown_module_is_refused():
    with pytest.raises(UserError, match="did you mean 'CPE'"):
        relife.build(LISTS["full"], without=("CPA",))


def test_unclicked_items_of_past_lists_tell_what_to_put_last():
    """Every user has a category that is never clicked; all else is clicked at random, so likes say little."""
    log = random_log((9,) * 150, length=6, n_items=40)
    rng = np.random.default_rng(0)
    category = log.item_fields[:, 1][log.item_row]
    hated = rng.permutation(np.unique(category))[rng.integers(0, 4, 150)][log.user_row]
    log.clicked[:] = (category != hated[:, None]) & (rng.random(log.clicked.shape) < 0.5)
    lists = history_lists(log, n_past=4)
    users = np.arange(150)
    train, test = lists.of_users(users < 110), lists.of_users(users >= 110)
    config = TrainConfig(lr=0.005, batch_size=64, max_epochs=10)
    model = relife.build(train, embed_dim=8, width=16)
    result = fit(model, train, test, config, False, relife.OBJECTIVE)
    assert result.epochs[-1]["train_loss"] < result.epochs[0]["train_loss"] - 0.03
    found = map_at_k(test.label, predict(model, test), 5).mean()
    chance = map_at_k(test.label, rng.random(test.label.shape), 5).mean()
    assert found > chance + 0.08


# What was learned


@every_log
def test_the_pictures_show_what_the_model_computes(lists):
    model, batch = lively(lists), all_of(lists)
    with torch.no_grad():
        weights, (c, p) = model.comparison(batch), model.patterns(batch)
    for row in (1, 6, len(lists) - 1):
        shown = comparisons(model, lists, row)
        there = batch.past.real[row].any(1).nonzero().squeeze(1).tolist()
        assert len(shown) == len(there)
        for picture, j in zip(shown, there, strict=True):
            n = int(batch.past.real[row, j].sum())
            np.testing.assert_allclose(picture.attention, weights[row, j, :n, :n], rtol=1e-5)
            np.testing.assert_allclose(picture.attention.sum(1), 1, rtol=1e-5)
            assert picture.item_row.tolist() == batch.past.item_row[row, j, :n].tolist()
            assert picture.clicked.tolist() == batch.past.clicked[row, j, :n].tolist()
    found = patterns(model, lists)
    known = batch.past.real.flatten(1).any(1)
    assert found.user_row.tolist() == lists.user_row[known].tolist()
    cosine = F.cosine_similarity(c[known], p[known]).numpy()
    np.testing.assert_allclose((found.candidates * found.history).sum(1), cosine, rtol=1e-4)
    table = found.alignment()
    for one in table.index:
        for two in table.columns:
            pairs = found.candidates[found.user_row == one] @ found.history[found.user_row == two].T
            assert table.loc[one, two] == pytest.approx(pairs.mean(), abs=1e-5)
    gap = found.own_and_others()
    assert gap.loc[4, "own"] == table.loc[4, 4]
    assert gap.loc[4, "others"] == pytest.approx(table.loc[4].drop(4).mean())


@every_log
def test_attention_between_clicked_and_unclicked_items_equals_a_loop(lists):
    model = lively(lists)
    batch = all_of(lists)
    with torch.no_grad():
        weights = model.comparison(batch)[:, -1].double().numpy()
    clicked, real = batch.past.clicked[:, -1].numpy(), batch.past.real[:, -1].numpy()
    values = {}
    for row in range(len(lists)):
        n = real[row].sum()
        for k in range(n):
            others = [j for j in range(n) if j != k]
            for to in (True, False):
                among = [j for j in others if clicked[row, j] == to]
                if among:
                    weight = weights[row, k, among].sum() / weights[row, k, others].sum()
                    key = int(lists.user_row[row]), bool(clicked[row, k]), to
                    values.setdefault(key, []).append(weight / (len(among) / len(others)))
    found = attention_by_feedback(model, lists)
    assert len(found) == len(values)
    for user, of, to, attention in found[["user_row", "of", "to", "attention"]].itertuples(index=False):
        assert attention == pytest.approx(np.mean(values[user, of == "clicked", to == "clicked"]), rel=1e-5)


def test_without_cpe_there_are_no_patterns_to_look_at():
    lists = LISTS["full"]
    model = lively(lists, without=("CPE",))
    for look in (
        lambda: comparisons(model, lists, 0),
        lambda: attention_by_feedback(model, lists),
        lambda: patterns(model, lists),
    ):
        with pytest.raises(UserError, match="without CPE has no patterns"):
            look()
