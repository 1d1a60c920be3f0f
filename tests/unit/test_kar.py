"""KAR: the adaptor against plain loops, what each expert sees, storing, and what the vectors can teach."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_ratings import dataset, random_dataset
from torch import nn

from rec_utils import ctr
from rec_utils.batches import CTRSamples
from rec_utils.errors import UserError
from rec_utils.knowledge import movies
from rec_utils.knowledge.vectors import permuted
from rec_utils.metrics import auc
from rec_utils.papers.kar import ADAPTORS, KAR, HybridExpertAdaptor, arm, item_vectors, user_vectors
from rec_utils.samples import ctr_task
from rec_utils.training import TrainConfig, fit, predict

SIDES = ["item", "user", "user_liked"]
M, OUT = 6, 4
every_kind = pytest.mark.parametrize("kind", ADAPTORS)


def adaptor(kind="HEA", sides=SIDES, **kw):
    """A small adaptor with weights and biases far from zero."""
    made = HybridExpertAdaptor(
        sides, M, **{"shared": 2, "dedicated": 3, "hidden": 5, "out": OUT, "kind": kind} | kw
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, generator=generator)
    return made


def random_vectors(sides=SIDES, n=7, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return {side: torch.randn(n, M, generator=rng) for side in sides}


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


# The adaptor


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def by_hand(made, side, r):
    """a_p of one vector r [m] from the equations: a softmax gate over two layers with ReLU each."""

    def expert(stack, e):
        first = range(5 * e, 5 * (e + 1))
        hidden = [max(0.0, dot(stack.hidden.weight[k], r) + stack.hidden.bias[k]) for k in first]
        return [max(0.0, dot(stack.weight[e, :, o], hidden) + stack.bias[OUT * e + o]) for o in range(OUT)]

    stacks = [made.shared, *([made.dedicated[side]] if made.dedicated else [])]
    answers = [expert(stack, e) for stack in stacks for e in range(stack.n_experts)]
    if not made.gates:
        (only,) = answers
        return only
    gate = made.gates[side]
    scores = [np.exp(float(dot(w, r) + b)) for w, b in zip(gate.weight, gate.bias, strict=True)]
    return [dot(scores, [answer[o] for answer in answers]) / sum(scores) for o in range(OUT)]


@every_kind
@pytest.mark.parametrize("n_sides", [1, 2, 3])
@torch.no_grad()
def test_the_adaptor_equals_a_loop_over_samples(kind, n_sides):
    sides = SIDES[:n_sides]
    made, vectors = adaptor(kind, sides), random_vectors(sides)
    adapted = made(vectors)
    assert adapted.shape == (7, made.out_dim) == (7, OUT * n_sides)
    for row in range(7):
        expected = [a for side in sides for a in by_hand(made, side, vectors[side][row].tolist())]
        np.testing.assert_allclose(adapted[row], expected, rtol=1e-5, atol=1e-6)
    assert (adapted >= 0).all() and (adapted > 0).any()


@every_kind
def test_shared_experts_see_every_side_and_dedicated_ones_their_own(kind):
    made, vectors = adaptor(kind), random_vectors()
    for place, side in enumerate(SIDES):
        made.zero_grad()
        made(vectors)[:, OUT * place : OUT * (place + 1)].sum().backward()
        assert all(p.grad.any() for p in made.shared.parameters())
        if kind == "HEA":
            for other in SIDES:
                for part in (made.dedicated[other], made.gates[other]):
                    reached = [p.grad is not None and bool(p.grad.any()) for p in part.parameters()]
                    assert reached == [side == other] * len(reached)
    assert len(made.dedicated) == (3 if kind == "HEA" else 0)
    gates = {id(gate) for gate in made.gates.values()}
    assert len(gates) == {"HEA": 3, "MoE": 1, "MLP": 0}[kind]


def test_parameter_counts_are_those_of_the_paper():
    one = 768 * 128 + 128 + 128 * 32 + 32
    assert one == 102_560
    hea = HybridExpertAdaptor(["user", "item"], 768, shared=2, dedicated=5)
    assert n_parameters(hea) == 12 * one + 2 * (768 * 7 + 7)
    assert hea.out_dim == 64
    moe = HybridExpertAdaptor(["user", "item"], 768, shared=4, dedicated=5, kind="MoE")
    assert n_parameters(moe) == 4 * one + 768 * 4 + 4
    mlp = HybridExpertAdaptor(["user", "item"], 768, shared=4, dedicated=5, kind="MLP")
    assert n_parameters(mlp) == one
    private = HybridExpertAdaptor(["user", "item"], 768, shared=0, dedicated=1)
    assert n_parameters(private) == 2 * (one + 768 + 1)


def test_weights_start_as_those_of_single_layers_and_biases_at_zero():
    made = HybridExpertAdaptor(["item"], 300, shared=8, dedicated=0)
    for layer, fan in ((made.shared.hidden.weight.view(8, 128, 300), 428), (made.shared.weight, 160)):
        std = layer.detach().flatten(1).std(dim=1)
        np.testing.assert_allclose(std, np.sqrt(2 / fan), rtol=0.06)
    biases = [p for p in made.parameters() if p.ndim == 1]
    assert len(biases) == 3 and not any(bias.any() for bias in biases)
    # what weight decay takes for a vector is exactly the biases
    assert sum(bias.numel() for bias in biases) == 8 * 128 + 8 * 32 + 8


def test_dropout_acts_after_both_layers_in_training_only():
    made = adaptor("MLP", ["item"], dropout=0.5, hidden=50)
    for parameter in made.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)  # no ReLU cuts anything, so that dropout keeps the mean
    vectors = {"item": random_vectors(["item"])["item"][:1].abs().expand(4000, M)}
    torch.manual_seed(0)
    dropped = made.train()(vectors).detach()
    kept = made.eval()(vectors).detach()
    assert 0.45 < (dropped == 0).float().mean() < 0.55  # the second layer's
    column = dropped[:, 0][dropped[:, 0] > 0]
    assert column.std() > 0.05 * column.mean()  # the first layer's
    np.testing.assert_allclose(dropped.mean(0), kept.mean(0), rtol=0.1)
    assert (kept == kept[0]).all()


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"kind": "hea"}, "adaptor 'hea' .* did you mean 'HEA'"),
        ({"shared": 0, "dedicated": 0}, "at least one expert, not shared = 0, dedicated = 0"),
        ({"shared": 0, "kind": "MoE"}, "at least one expert, not shared = 0"),
        ({"shared": -1}, "not shared = -1"),
    ],
    ids=str,
)
def test_an_adaptor_without_experts_is_refused(kw, message):
    with pytest.raises(UserError, match=message):
        HybridExpertAdaptor(["item"], M, **kw)


# The model


@pytest.fixture(scope="module")
def task():
    return ctr_task(random_dataset(), history_length=3)


@pytest.fixture(scope="module")
def tables(task):
    rng = torch.Generator().manual_seed(2)
    rows = {"item": len(task.item_ids), "user": len(task.user_ids)}
    return {side: torch.randn(n, M, generator=rng) for side, n in rows.items()}


def everything(samples):
    return samples.batch(torch.arange(len(samples)))


def kar(task, tables, backbone="DIN", dropout=0.0):
    made = adaptor(sides=list(tables), out=32, dropout=dropout)
    base = ctr.build(backbone, task.samples, dense_dim=made.out_dim)
    with torch.no_grad():
        for parameter in base.parameters():  # from weights as small as at the start, no input shows
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return KAR(base, made, tables)


@pytest.mark.parametrize("backbone", ctr.MODELS)
@pytest.mark.parametrize("knowledge", [False, True])
def test_every_backbone_runs_and_learns_with_and_without_knowledge(backbone, knowledge, task, tables):
    sides = {side: table.numpy() for side, table in tables.items()} if knowledge else {}
    model = arm(sides, backbone=backbone).build(task.samples, 0)
    assert getattr(model, "backbone", model).inputs.dense_dim == 64 * knowledge
    config = TrainConfig(lr=0.02, batch_size=64, max_epochs=5)
    losses = [e["train_loss"] for e in fit(model, task.samples, task.samples, config, progress=False).epochs]
    assert losses[-1] < losses[0]
    probability = predict(model, task.samples)
    assert probability.shape == (len(task.samples),) and np.isfinite(probability).all()


@pytest.mark.parametrize("backbone", ["DIN", "DCNv2", "FiBiNET"])
@pytest.mark.parametrize("side", ["item", "user"])
@torch.no_grad()
def test_a_text_reaches_exactly_the_samples_of_its_row(backbone, side, task, tables):
    batch = everything(task.samples)
    logits = kar(task, tables, backbone).eval()(batch)
    rows = batch.item_row if side == "item" else batch.user_row
    changed = tables[side].clone()
    changed[rows[5]] += 3
    moved = (kar(task, tables | {side: changed}, backbone).eval()(batch) - logits).abs()
    own = rows == rows[5]
    assert moved[own].min() > 1e-3 and moved[~own].max() < 1e-5


def test_dense_fields_are_user_and_item_in_the_adaptors_order(task, tables):
    model = kar(task, tables)
    batch = everything(task.samples)
    adapted = model.adaptor({"item": tables["item"][batch.item_row], "user": tables["user"][batch.user_row]})
    torch.testing.assert_close(model(batch), model.backbone(batch, adapted))


@pytest.mark.parametrize("was_training", [False, True])
def test_serving_from_the_store_equals_the_whole_model(was_training, task, tables):
    model = kar(task, tables, dropout=0.5)
    batch = everything(task.samples)
    model.train(was_training).store()
    assert model.stored_user.shape == (len(task.user_ids), 32)
    torch.testing.assert_close(model.serve(batch), model.eval()(batch))

    before = model.serve(batch)
    with torch.no_grad():
        model.adaptor.shared.bias += 1
    assert torch.equal(model.serve(batch), before)
    model.store()
    torch.testing.assert_close(model.serve(batch), model(batch))
    assert not torch.allclose(model.serve(batch), before)


def test_the_vectors_are_frozen_and_not_saved(task, tables):
    model = kar(task, tables)
    model.store()
    assert not [name for name in model.state_dict() if "vectors" in name or "stored" in name]
    given = {side: table.clone() for side, table in tables.items()}
    fit(model, task.samples, task.samples, TrainConfig(lr=0.1, max_epochs=1), progress=False)
    for side, table in given.items():
        assert torch.equal(getattr(model, f"vectors_{side}"), table)
    assert {id(p) for p in model.parameters()} == {
        id(p) for part in (model.backbone, model.adaptor) for p in part.parameters()
    }


@pytest.mark.parametrize(
    ("sides", "given", "message"),
    [
        (["item", "user"], ["item"], "no vectors for the adaptor's side 'user'"),
        (["item", "liked"], ["item", "liked"], "side 'liked' is neither 'item' nor begins with 'user'"),
    ],
)
def test_a_side_without_vectors_or_without_rows_is_named(sides, given, message, task, tables):
    made = adaptor(sides=sides, out=32)
    base = ctr.build("DIN", task.samples, dense_dim=64)
    with pytest.raises(UserError, match=message):
        KAR(base, made, dict.fromkeys(given, tables["item"]))


def test_an_arm_depends_on_its_seed_alone(task, tables):
    built = arm({side: table.numpy() for side, table in tables.items()}, history_length=9, train_users=4)
    assert (built.history_length, built.train_users) == (9, 4)
    weights = []
    for seed, elsewhere in ((0, 1), (0, 2), (1, 2)):
        torch.manual_seed(elsewhere)
        state = torch.get_rng_state()
        weights.append(built.build(task.samples, seed).state_dict())
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    for part in ("adaptor.shared.weight", "adaptor.gates.user.weight", "backbone.embedding.weight"):
        assert not torch.equal(weights[0][part], weights[2][part])


def test_settings_of_an_arm_reach_backbone_and_adaptor(task, tables):
    built = arm(
        {"item": tables["item"].numpy()},
        backbone="DCNv2",
        backbone_settings={"dropout": 0.25},
        adaptor_settings={"kind": "MoE", "shared": 3, "dropout": 0.75},
    ).build(task.samples, 0)
    assert isinstance(built.backbone, ctr.DCNv2)
    assert {m.p for m in built.backbone.modules() if isinstance(m, nn.Dropout)} == {0.25}
    assert {m.p for m in built.adaptor.modules() if isinstance(m, nn.Dropout)} == {0.75}
    assert built.adaptor.shared.n_experts == 3
    with pytest.raises(UserError, match="did you mean 'dropout'"):
        arm({}, backbone_settings={"dropot": 0.1}).build(task.samples, 0)


# What the vectors can teach


def cold_items(n_items=300, n_users=80, n_each=40, seed=0):
    """Likes depend on the item alone, by a direction of its vector; the last 60 users rate other items.

    Returns the samples of the first users, those of the last ones, and the items' vectors [I, M].
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n_items, M)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    user = np.repeat(np.arange(n_users), n_each)
    warm, half = user < n_users * 3 // 4, n_items // 2
    item = np.where(warm, rng.integers(0, half, len(user)), rng.integers(half, n_items, len(user)))
    label = rng.random(len(user)) < 1 / (1 + np.exp(-8 * vectors[item, 0]))
    samples = CTRSamples(
        item_fields=1 + torch.arange(n_items)[:, None],
        sequence=torch.from_numpy(item),
        rating_ids=torch.from_numpy(1 + n_items + label),
        first=torch.from_numpy(n_each * user),
        position=torch.arange(len(user)),
        user_row=torch.from_numpy(user),
        label=torch.from_numpy(label).float(),
        history_length=2,
        n_ids=n_items + 3,
    )
    return samples.select(torch.from_numpy(warm)), samples.select(torch.from_numpy(~warm)), vectors


def test_only_the_right_texts_tell_about_items_that_nobody_rated():
    warm, cold, vectors = cold_items()
    assert not set(warm.item_row.tolist()) & set(cold.item_row.tolist())
    valid, train = warm.select(warm.user_row < 10), warm.select(warm.user_row >= 10)
    config = TrainConfig(lr=3e-3, batch_size=128, max_epochs=15, patience=3)
    scores = {}
    sides = {"right": {"item": vectors}, "permuted": {"item": permuted(vectors, 1)}, "base": {}}
    for name, given in sides.items():
        model = arm(given, backbone_settings={"embed_dim": 8}, adaptor_settings={"out": 8}).build(warm, 0)
        fit(model, train, valid, config, progress=False)
        scores[name] = auc(cold.label.numpy(), predict(model, cold))
    best = auc(cold.label.numpy(), vectors[cold.item_row, 0])
    assert best > 0.85
    assert scores["right"] > best - 0.04
    assert abs(scores["permuted"] - 0.5) < 0.12 and abs(scores["base"] - 0.5) < 0.12


# The vectors


def test_item_vectors_follow_the_rows_of_the_task_and_are_centred():
    imdb = {1: "0113277", 2: None, 3: "0114709", 4: "0110912", 5: "0111161"}
    rows = [(user, item, 4.0, item) for user in (1, 2) for item in (5, 3, 2, 1)]
    tiny = dataset(rows, dict.fromkeys([4, 3, 1, 5, 2], "Drama"))
    tiny = replace(tiny, items=tiny.items.assign(imdb=tiny.items["item_id"].map(imdb)))
    task = ctr_task(tiny, history_length=1)
    table = item_vectors(tiny, task)
    texts = movies.item_vectors(tiny.items.set_index("item_id").loc[[1, 3, 5]])[0]
    expected = texts - texts.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert task.item_ids.tolist() == [1, 2, 3, 5]
    np.testing.assert_allclose(table[[0, 2, 3]], expected, atol=1e-6)
    assert not table[1].any() and table.dtype == np.float32
    assert not np.allclose(item_vectors(tiny, task, "title_genres"), table)


def test_user_vectors_follow_the_rows_of_the_task_and_belong_to_one_data_set():
    tiny = random_dataset(n_users=3, name=movies.USERS_OF)
    task = ctr_task(tiny, history_length=1)
    assert task.user_ids.tolist() == [10, 20, 30]
    table = user_vectors(tiny, task)
    of_all = user_vectors(tiny, replace(task, user_ids=task.user_ids[::-1]))
    np.testing.assert_allclose(table, of_all[::-1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-5)
    with pytest.raises(UserError, match="users of ml-latest-small only, not of movietweetings"):
        user_vectors(replace(tiny, name="movietweetings"), task)


def test_permuting_deals_the_texts_among_the_rows_that_have_one():
    vectors = np.random.default_rng(0).normal(size=(40, 3))
    vectors[::4] = 0
    before = vectors.copy()
    dealt = permuted(vectors, 0)
    np.testing.assert_array_equal(vectors, before)
    assert not dealt[::4].any()
    assert sorted(map(tuple, dealt)) == sorted(map(tuple, vectors))
    assert (dealt == vectors).all(axis=1)[vectors.any(axis=1)].mean() < 0.2
    np.testing.assert_array_equal(permuted(vectors, 0), dealt)
    assert (permuted(vectors, 1) != dealt).any()
