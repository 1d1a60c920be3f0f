"""LIBER's fusion against a plain loop, with no partition of the future, in any backbone; controls."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_ratings import dataset
from torch import nn

from rec_utils import ctr
from rec_utils.batches import CTRSamples
from rec_utils.errors import UserError
from rec_utils.metrics import auc
from rec_utils.papers.liber import (
    FUSIONS,
    SEEN,
    PartitionFusion,
    arm,
    dealt,
    last_end,
    plain_tables,
    weights_by_age,
)
from rec_utils.papers.ubsp import Condition, of_task, partition
from rec_utils.samples import ctr_task
from rec_utils.training import TrainConfig, fit, predict

M, WIDTH = 5, 3
#: Ratings of each user; half of them are samples.
LENGTHS = (4, 9, 14, 20, 27)


@pytest.fixture(scope="module")
def task():
    """Users with `LENGTHS` ratings of 30 films, one a day."""
    rng = np.random.default_rng(0)
    rows = [
        (user, item, rng.integers(1, 6), 86_400 * day)
        for user, length in enumerate(LENGTHS)
        for day, item in enumerate(rng.permutation(30)[:length])
    ]
    return ctr_task(dataset(rows, dict.fromkeys(range(30), "Drama"), (1.0, 5.0)), history_length=3)


@pytest.fixture(scope="module")
def partitions(task):
    return of_task(task, Condition(count=4))


@pytest.fixture(scope="module")
def tables(partitions):
    rng = torch.Generator().manual_seed(0)
    drawn = {kind: torch.randn(len(partitions.start), M, generator=rng) for kind in ("summary", "shift")}
    drawn["shift"][partitions.number == 0] = 0
    return drawn


@pytest.fixture(scope="module")
def query(task):
    return torch.randn(len(task.item_ids), M, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def batch(task):
    return task.samples.batch(torch.arange(len(task.samples)))


# Fusion


def fusion_of(tables, partitions, query, **kw):
    """A small fusion layer with weights and biases far from zero."""
    made = PartitionFusion(tables, partitions, query, width=WIDTH, **kw)
    generator = torch.Generator().manual_seed(2)
    for parameter in made.parameters():
        nn.init.normal_(parameter, generator=generator)
    return made


def visible(partitions, user, position, seen="all"):
    """Rows of the partitions that a sample may see, by the definition."""
    own = [
        row
        for row in range(len(partitions.start))
        if partitions.user_row[row] == user and partitions.end[row] <= position
    ]
    return {"all": own, "first": own[:1], "last": own[-1:]}[seen]


def attend(q, k):
    """Weights [n] of keys k [n, d] for a query q [d], both scaled to a mean square of 1."""
    scaled = [v * np.sqrt(v.shape[-1] / (v**2).sum(-1, keepdims=True)) for v in (q, k)]
    powers = np.exp(scaled[1] @ scaled[0] / np.sqrt(len(q)))
    return powers / powers.sum()


def values_of(made):
    return {name: value.numpy() for name, value in made.state_dict().items()}


def mapped(made, rows, tables):
    """h [n, d] of the partitions `rows`."""
    maps = [(table, values_of(made)[f"maps.{kind}.weight"]) for kind, table in tables.items()]
    return np.stack([np.concatenate([w @ table[row].numpy() for table, w in maps]) for row in rows])


def attention(made, h, item, query):
    """w [n] of the partitions h by the target item."""
    q = values_of(made)["of_target.weight"] @ query[item].numpy()
    return attend(q, h)


def by_hand(made, rows, item, tables, query):
    """u of one sample that sees the partitions `rows`."""
    values = values_of(made)
    if not rows:
        return values["before_any"]
    h = mapped(made, rows, tables)
    if made.fusion == "target":
        return attention(made, h, item, query) @ h
    if made.fusion == "self":
        weight, bias = np.split(values["of_steps.weight"], 3), np.split(values["of_steps.bias"], 3)
        q, k, v = (h @ w.T + b for w, b in zip(weight, bias, strict=True))
        h = np.stack([attend(row, k) @ v for row in q])
    return h.mean(axis=0)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("kinds", [["summary", "shift"], ["summary"]])
@torch.no_grad()
def test_fusion_equals_a_loop_over_samples(fusion, seen, kinds, tables, partitions, query, batch):
    tables = {kind: tables[kind] for kind in kinds}
    made = fusion_of(tables, partitions, query, fusion=fusion, seen=seen)
    u = made(batch)
    assert u.shape == (len(batch.label), made.out_dim) == (36, WIDTH * len(kinds))
    n_seen = set()
    for n, (user, position, item) in enumerate(
        zip(batch.user_row, batch.position, batch.item_row, strict=True)
    ):
        rows = visible(partitions, user, position, seen)
        n_seen.add(len(rows))
        np.testing.assert_allclose(u[n], by_hand(made, rows, item, tables, query), rtol=1e-4, atol=1e-5)
    assert n_seen == ({0, 1, 2, 3, 4, 5, 6} if seen == "all" else {0, 1})


def test_weights_by_age_are_means_over_the_samples_of_each_number(task, tables, partitions, query, batch):
    model = built(task, tables, partitions, query)
    expected = {}
    for user, position, item in zip(batch.user_row, batch.position, batch.item_row, strict=True):
        rows = visible(partitions, user, position)
        if 2 <= len(rows) <= 5:
            weights = attention(model.fusion, mapped(model.fusion, rows, tables), item, query)
            for age, weight in enumerate(reversed(weights), 1):
                expected.setdefault((len(rows), age), []).append(weight)
    found = weights_by_age(model, task.samples, 5).set_index(["closed", "age"])
    assert dict(found["n"]) == {place: len(weights) for place, weights in expected.items()}
    for place, weight in found["weight"].items():
        assert weight == pytest.approx(np.mean(expected[place]), rel=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_reach_every_parameter(fusion, tables, partitions, query, batch):
    made = fusion_of(tables, partitions, query, fusion=fusion)
    made(batch).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_samples_without_a_partition_teach_their_own_vector_alone(fusion, task, tables, partitions, query):
    early = torch.from_numpy(partitions.closed)[task.samples.position] == 0
    batch = task.samples.batch(early.nonzero().squeeze(1))
    assert len(batch.label) == 2
    made = fusion_of(tables, partitions, query, fusion=fusion)
    u = made(batch)
    assert torch.equal(u, made.before_any.expand(2, -1))
    u.sum().backward()
    gradients = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
    assert {name for name, gradient in gradients.items() if gradient.any()} == {"before_any"}
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("kw", [{"fusion": "Target"}, {"seen": "lst"}], ids=str)
def test_an_unknown_fusion_is_named(kw, tables, partitions, query):
    with pytest.raises(UserError, match=r"did you mean '(target|last)'"):
        PartitionFusion(tables, partitions, query, **kw)


# The model


def built(task, tables, partitions, query, *, item_side=True, seed=0, **kw):
    """A model of `arm` with `item_side` or without it."""
    arrays = {kind: table.numpy() for kind, table in tables.items()}
    items = query.numpy() if item_side else None
    return arm(arrays, partitions, query.numpy(), item_vectors=items, **kw).build(task.samples, seed)


@pytest.mark.parametrize("backbone", ["DIN", "DIEN", "DCNv2"])
@pytest.mark.parametrize("item_side", [False, True])
def test_a_backbone_runs_and_learns(backbone, item_side, task, tables, partitions, query, batch):
    model = built(task, tables, partitions, query, backbone=backbone, item_side=item_side)
    assert model.backbone.inputs.dense_dim == 32 * (1 + item_side)
    dense = [model.user({"user": model.fusion(batch)})]
    if item_side:
        dense.append(model.item({"item": query[batch.item_row]}))
    model.eval()
    torch.testing.assert_close(model(batch), model.backbone(batch, torch.cat(dense, dim=1)))
    model.train()(batch).square().sum().backward()
    assert all(p.grad.any() for p in (*model.fusion.parameters(), *model.user.parameters()) if p.ndim > 1)

    config = TrainConfig(lr=0.02, batch_size=16, max_epochs=5)
    losses = [e["train_loss"] for e in fit(model, task.samples, task.samples, config, progress=False).epochs]
    assert losses[-1] < losses[0]
    assert np.isfinite(predict(model, task.samples)).all()


@pytest.mark.parametrize("backbone", ["DIN", "DIEN", "DCNv2"])
@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_a_logit_depends_on_the_texts_of_closed_partitions_alone(
    backbone, fusion, task, tables, partitions, query, batch
):
    model = built(task, tables, partitions, query, backbone=backbone, fusion=fusion).eval()
    for parameter in model.parameters():  # from weights as small as at the start, no input shows
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    logits = model(batch)
    for n, (user, position) in enumerate(zip(batch.user_row, batch.position, strict=True)):
        own = torch.zeros(len(partitions.start), 1)
        own[visible(partitions, user, position)] = 1
        for kind, table in tables.items():
            setattr(model.fusion, f"vectors_{kind}", table + 3 * (1 - own))
        assert torch.equal(model(batch)[n], logits[n])
        for kind, table in tables.items():
            setattr(model.fusion, f"vectors_{kind}", table + 3 * own)
        assert torch.equal(model(batch)[n], logits[n]) == (not own.any())


def test_vectors_are_frozen_and_not_saved(task, tables, partitions, query):
    model = built(task, tables, partitions, query)
    assert set(model.fusion.state_dict()) == {name for name, _ in model.fusion.named_parameters()}
    assert "item_vectors" not in model.state_dict()
    fit(model, task.samples, task.samples, TrainConfig(lr=0.1, max_epochs=1), progress=False)
    for kind, table in tables.items():
        assert torch.equal(getattr(model.fusion, f"vectors_{kind}"), table)


def test_an_arm_depends_on_its_seed_alone(task, tables, partitions, query):
    weights = []
    for seed, elsewhere in ((0, 1), (0, 2), (1, 2)):
        torch.manual_seed(elsewhere)
        state = torch.get_rng_state()
        weights.append(built(task, tables, partitions, query, seed=seed).state_dict())
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    for part in ("fusion.maps.shift.weight", "user.shared.weight", "backbone.embedding.weight"):
        assert not torch.equal(weights[0][part], weights[2][part])


def test_settings_of_an_arm_reach_every_part(task, tables, partitions, query):
    kw = {"fusion": "self", "seen": "last", "backbone": "DCNv2"}
    kw |= {"backbone_settings": {"dropout": 0.25}, "adaptor_settings": {"kind": "MLP", "out": 7}}
    model = built(task, tables, partitions, query, **kw)
    assert isinstance(model.backbone, ctr.DCNv2)
    assert {m.p for m in model.backbone.modules() if isinstance(m, nn.Dropout)} == {0.25}
    assert (model.user.out_dim, model.item.out_dim, model.backbone.inputs.dense_dim) == (7, 7, 14)
    assert model.fusion.fusion == "self"
    assert model.fusion.steps(task.samples.batch(torch.arange(36)))[1].sum(1).max() == 1


def changing_tastes(n_users=120, n_each=24, count=4, seed=0):
    """Users like everything or nothing by the mood of the last partition closed, a new one each time.

    Returns samples, partitions and one table, whose vectors tell the moods. A sample's recent history
    tells nothing, since all ratings there are equal.
    """
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), n_each)
    partitions = partition(user, np.zeros(len(user)), Condition(count=count))
    table = rng.normal(size=(len(partitions.start), M)).astype(np.float32)
    position = np.flatnonzero(partitions.closed > 0)
    mood = table[partitions.rows[user[position], partitions.closed[position] - 1], 0]
    samples = CTRSamples(
        item_fields=1 + torch.arange(10)[:, None],
        sequence=torch.from_numpy(rng.integers(0, 10, len(user))),
        rating_ids=torch.full((len(user),), 11),
        first=torch.from_numpy(n_each * user[position]),
        position=torch.from_numpy(position),
        user_row=torch.from_numpy(user[position]),
        label=torch.from_numpy(mood > 0).float(),
        history_length=2,
        n_ids=12,
    )
    return samples, partitions, {"summary": table}


def test_only_the_right_partition_tells_of_a_change():
    samples, partitions, table = changing_tastes()
    train, valid, test = (
        samples.select((samples.user_row >= low) & (samples.user_row < high))
        for low, high in ((0, 60), (60, 80), (80, 120))
    )
    query = np.eye(10, M, dtype=np.float32)
    config, scores = TrainConfig(lr=3e-3, batch_size=64, max_epochs=8, patience=3), {}
    arms = {
        "last": (table, "last"),
        "first": (table, "first"),
        "dealt": (dealt(table, partitions, 0), "last"),
    }
    for name, (texts, seen) in arms.items():
        model = arm(texts, partitions, query, seen=seen, backbone_settings={"embed_dim": 8}).build(samples, 0)
        fit(model, train, valid, config, progress=False)
        scores[name] = auc(test.label.numpy(), predict(model, test))
    assert scores["last"] > 0.95
    assert abs(scores["first"] - 0.5) < 0.2 and abs(scores["dealt"] - 0.5) < 0.2


# Controls


def test_plain_tables_are_means_over_the_liked_and_the_other_films_of_a_partition(task, partitions):
    vectors = np.random.default_rng(0).normal(size=(len(task.item_ids), M)).astype(np.float32)
    loved = task.ratings["rating"].to_numpy(copy=True)
    loved[partitions.start[1] : partitions.end[1]] = 5  # a partition without a film that was not liked
    task = replace(task, ratings=task.ratings.assign(rating=loved))
    found = plain_tables(task, partitions, vectors)
    assert list(found) == ["liked", "other"]
    for kind, table in found.items():
        means = np.zeros((len(partitions.start), M))
        for row, (start, end) in enumerate(zip(partitions.start, partitions.end, strict=True)):
            rated = task.ratings.iloc[start:end]
            chosen = rated["item_row"][(rated["rating"] >= 4) == (kind == "liked")]
            if len(chosen):
                means[row] = vectors[chosen].mean(axis=0)
        some = means.any(axis=1)
        means[some] -= means[some].mean(axis=0)
        means[some] /= np.linalg.norm(means[some], axis=1, keepdims=True)
        np.testing.assert_allclose(table, means, atol=1e-5)
        assert table.dtype == np.float32
    assert not found["other"][1].any()


def test_dealt_texts_stay_together_and_keep_their_number(partitions):
    rows = np.arange(len(partitions.start))
    found = dealt({"summary": rows[:, None], "shift": -rows[:, None]}, partitions, 0)
    order = found["summary"][:, 0]
    np.testing.assert_array_equal(found["shift"][:, 0], -order)
    np.testing.assert_array_equal(np.sort(order), rows)
    np.testing.assert_array_equal(partitions.number[order], partitions.number)
    assert (order != rows).any()
    np.testing.assert_array_equal(dealt({"summary": rows}, partitions, 0)["summary"], order)
    assert (dealt({"summary": rows}, partitions, 1)["summary"] != order).any()


def test_the_long_history_ends_with_the_last_closed_partition(task, partitions):
    ends = last_end(task, partitions)
    for row in task.samples.position.tolist():
        user, place = task.ratings.loc[row, ["user_row", "place"]]
        rows = visible(partitions, user, row)
        assert ends[row] == (partitions.end[rows[-1]] if rows else row - place)


@torch.no_grad()
def test_attention_tells_texts_of_length_1_apart_before_any_training(tables, partitions, query, batch):
    """Text vectors have length 1, so plain products of their maps are all but equal."""
    unit = {kind: nn.functional.normalize(table, dim=-1) for kind, table in tables.items()}
    made = PartitionFusion(unit, partitions, nn.functional.normalize(query, dim=-1))
    h, mask = made.steps(batch)
    two = mask.sum(1) == 2
    first, second = made.weights(batch, h, mask)[two][:, :2].T
    assert ((first / second).log().abs() > 0.2).float().mean() > 0.5
