"""Every CTR model: what may not change a prediction, what it computes, and what it can learn."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from rec_utils import ctr
from rec_utils.batches import CTRSamples
from rec_utils.errors import UserError

VARIANTS = [(name, {}) for name in ctr.MODELS if name != "DIEN"]
VARIANTS += [("DIEN", {"evolution": evolution}) for evolution in ("GRU", "AIGRU", "AUGRU")]
every_model = pytest.mark.parametrize(
    ("name", "kw"), VARIANTS, ids=["-".join([name, *kw.values()]) for name, kw in VARIANTS]
)
N_ITEMS, N_GENRES, N_LEVELS = 30, 4, 5
DIM = 8


def random_samples(lengths=(1, 2, 3, 5, 9, 12), history_length=12, seed=0):
    """A sample at every interaction of users with `lengths` interactions: histories of 0 steps and more."""
    g = torch.Generator().manual_seed(seed)
    item, genre = torch.arange(N_ITEMS), torch.randint(N_GENRES, (N_ITEMS,), generator=g)
    counts = torch.tensor(lengths)
    n = int(counts.sum())
    user = torch.arange(len(lengths)).repeat_interleave(counts)
    return CTRSamples(
        item_fields=torch.stack([1 + item, 1 + N_ITEMS + genre], dim=1),
        sequence=torch.randint(N_ITEMS, (n,), generator=g),
        rating_ids=1 + N_ITEMS + N_GENRES + torch.randint(N_LEVELS, (n,), generator=g),
        first=(counts.cumsum(0) - counts)[user],
        position=torch.arange(n),
        user_row=user,
        label=torch.randint(2, (n,), generator=g).float(),
        history_length=history_length,
        n_ids=1 + N_ITEMS + N_GENRES + N_LEVELS,
    )


def all_of(samples):
    return samples.batch(torch.arange(len(samples)))


def lively(name, samples, dense_dim=2 * DIM, **kw):
    """A model with weights far from their small start, so that a wrong input shows in the logits."""
    model = ctr.build(name, samples, dense_dim=dense_dim, embed_dim=DIM, **kw)
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    model.embedding.weight.data[0] = 0
    for key, buffer in model.named_buffers():
        if "running" in key:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def samples():
    return random_samples()


@pytest.fixture(scope="module")
def dense(samples):
    return torch.randn(len(samples), 2 * DIM, generator=torch.Generator().manual_seed(2))


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_more_padding_changes_no_prediction(name, kw, training, samples, dense):
    model = lively(name, samples, **kw).train(training)
    logits = model(all_of(samples), dense)
    longer = model(all_of(samples.with_history(31)), dense)
    torch.testing.assert_close(longer, logits, atol=1e-4, rtol=1e-4)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_ids_at_padded_positions_are_ignored(name, kw, training, samples, dense):
    model = lively(name, samples, **kw).train(training)
    batch = all_of(samples)
    noise = torch.randint(1, samples.n_ids, batch.history.shape, generator=torch.Generator().manual_seed(3))
    noisy = replace(batch, history=torch.where(batch.mask[..., None], batch.history, noise))
    torch.testing.assert_close(model(noisy, dense), model(batch, dense), atol=1e-5, rtol=1e-5)


@every_model
def test_batch_composition_changes_no_prediction(name, kw, samples, dense):
    model = lively(name, samples, **kw)
    together = model(all_of(samples), dense)
    alone = [model(samples.batch(torch.tensor([i])), dense[[i]]) for i in range(len(samples))]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-4, rtol=1e-4)


@every_model
def test_every_input_changes_the_prediction(name, kw, samples, dense):
    model = lively(name, samples, **kw)
    batch = all_of(samples)
    logits = model(batch, dense)
    for field in range(2):
        item = batch.item.clone()
        item[:, field] = item[:, field].roll(1)
        assert ((model(replace(batch, item=item), dense) - logits).abs() > 1e-3).any()
    real = batch.mask.any(1)
    for field in range(3):
        history = batch.history.clone()
        history[:, -1, field] = torch.where(history[:, -1, field] > 1, 1, 2)
        change = (model(replace(batch, history=history * batch.mask[..., None]), dense) - logits).abs()
        assert (change[real] > 1e-3).float().mean() > 0.8
        assert change[~real].max() < 1e-5
    for column in range(dense.shape[1]):
        other = dense.clone()
        other[:, column] += 1
        assert ((model(batch, other) - logits).abs() > 1e-3).float().mean() > 0.8


@every_model
def test_gradients_reach_every_parameter_and_every_id(name, kw, samples, dense):
    model = lively(name, samples, **kw).train()
    batch = all_of(samples)
    model(batch, dense).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), key
    touched = model.embedding.weight.grad.any(1).nonzero().squeeze(1)
    seen = torch.cat([batch.item.flatten(), batch.history[batch.mask].flatten()]).unique()
    assert touched.tolist() == seen.tolist()


@every_model
def test_the_seed_alone_decides_the_weights(name, kw, samples):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = ctr.build(name, samples, seed=7, **kw).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = (ctr.build(name, samples, seed=seed, **kw).state_dict() for seed in (7, 8))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_weights_are_xavier_normal_and_each_field_as_if_its_table_were_its_own(samples):
    model = ctr.build("DIN", samples, embed_dim=100)
    items, genres, levels = model.embedding.weight.detach()[1:].split([N_ITEMS, N_GENRES, N_LEVELS])
    for table in (items, genres, levels):
        assert table.std() == pytest.approx((2 / (len(table) + 100)) ** 0.5, rel=0.07)
    assert items.std() < 0.95 * genres.std()  # one Xavier deviation for the whole table would fail here
    assert model.embedding.weight[0].eq(0).all()
    assert model.step.weight.detach().std() == pytest.approx((2 / (300 + 200)) ** 0.5, rel=0.02)
    assert model.step.bias.eq(0).all()


# What the models compute: every sample by itself, its real steps only, plain formulas.


def parts(model, samples, i):
    """Embeddings of sample i without padding: item [F, d], history [n, F + 1, d]."""
    table, fields = model.embedding.weight, samples.item_fields
    position, first = int(samples.position[i]), int(samples.first[i])
    steps = range(max(first, position - samples.history_length), position)
    history = [torch.cat([fields[samples.sequence[t]], samples.rating_ids[t : t + 1]]) for t in steps]
    item_ids = fields[samples.sequence[position]]
    return item_ids, table[item_ids], table[torch.stack(history)] if history else table.new_zeros(0, 3, DIM)


def sparse_fields(item, history):
    return torch.cat([item, history.mean(0) if len(history) else torch.zeros(3, DIM)])


def lr(model, ids, item, history, dense):
    logit = model.bias[0] + dense @ model.dense_weight + item[:, 0].sum()
    return logit + history[..., 1].sum() / max(1, len(history))


def fm(model, ids, item, history, dense):
    fields = sparse_fields(item, history)
    pairs = sum(fields[i] @ fields[j] for i in range(5) for j in range(i))
    return model.bias[0] + model.id_weight.weight[ids].sum() + dense @ model.dense_weight + pairs


def deepfm(model, ids, item, history, dense):
    deep = model.deep(torch.cat([sparse_fields(item, history).flatten(), dense]))
    return fm(model, ids, item, history, dense) + deep[0]


def dnn(model, ids, item, history, dense):
    return model.deep(torch.cat([sparse_fields(item, history).flatten(), dense]))[0]


def pnn(model, ids, item, history, dense):
    fields = all_fields(item, history, dense)[0]
    products = [fields[i] @ fields[j] for i in range(7) for j in range(i + 1, 7)]
    return model.deep(torch.cat([fields.flatten(), torch.stack(products)]))[0]


def dcn(model, ids, item, history, dense):
    values = crossed = torch.cat([sparse_fields(item, history).flatten(), dense])
    for layer in model.cross:
        crossed = values * (layer.weight.weight[0] @ crossed) + layer.bias + crossed
    return model.final(torch.cat([model.deep(values), crossed]))[0]


def dcnv2(model, ids, item, history, dense):
    values = crossed = torch.cat([sparse_fields(item, history).flatten(), dense])
    for layer in model.cross:
        crossed = values * layer.linear(crossed) + crossed
    return model.final(torch.cat([model.deep(values), crossed]))[0]


def all_fields(item, history, dense):
    return torch.cat([sparse_fields(item, history), dense.view(2, DIM)])[None]


def xdeepfm(model, ids, item, history, dense):
    fields = all_fields(item, history, dense)
    return model.final(torch.cat([model.cin(fields), model.deep(fields.flatten(1))], dim=1))[0, 0]


def autoint(model, ids, item, history, dense):
    fields = all_fields(item, history, dense)
    for layer in model.attention:
        query, key, value = layer.query(fields), layer.key(fields), layer.value(fields)
        scores = query @ key.mT / 8  # width 64
        fields = (scores.softmax(-1) @ value + layer.residual(fields)).relu()
    return model.final(fields.flatten())[0]


def fibinet(model, ids, item, history, dense):
    fields = all_fields(item, history, dense)
    pairs = [model.bilinear(fields), model.bilinear(model.senet(fields))]
    return model.final(torch.cat(pairs).flatten())[0]


def fignn(model, ids, item, history, dense):
    states = model.graph(all_fields(item, history, dense))
    weights = (model.weight.weight @ states.flatten()).sigmoid()
    return sum(
        weight * (model.score.weight[0] @ state) for weight, state in zip(weights, states[0], strict=True)
    )


def attention_weights(model, query, keys):
    first = [torch.cat([query, k, query - k, query * k]) for k in keys]
    return model.attention.rest(model.attention.first(torch.stack(first))).squeeze(1)


def din(model, ids, item, history, dense):
    query, interest = item.flatten(), torch.zeros(2 * DIM)
    if len(history):
        keys = model.step(history.flatten(1))
        interest = attention_weights(model, query, keys) @ keys
    return model.final(torch.cat([interest, query, dense]))[0]


def dien(model, ids, item, history, dense):
    query, interest = item.flatten(), torch.zeros(2 * DIM)
    if len(history):
        interests = model.extractor(history.flatten(1))[0]
        if model.evolution == "GRU":
            states = model.evolver(interests)[0]
            interest = attention_weights(model, query, states) @ states
        elif model.evolution == "AIGRU":
            weights = attention_weights(model, query, interests)
            interest = model.evolver(weights[:, None] * interests)[1][0]
        else:
            weights = attention_weights(model, query, interests).softmax(0)
            interest = model.evolver(interests[None], weights[None])[0]
    return model.final(torch.cat([interest, query, dense]))[0]


FORMULAS = {
    "LR": lr,
    "FM": fm,
    "DNN": dnn,
    "PNN": pnn,
    "DeepFM": deepfm,
    "xDeepFM": xdeepfm,
    "DCN": dcn,
    "DCNv2": dcnv2,
    "AutoInt": autoint,
    "FiBiNET": fibinet,
    "FiGNN": fignn,
    "DIN": din,
    "DIEN": dien,
}


@every_model
@pytest.mark.parametrize("history_length", [3, 12])
def test_prediction_equals_the_formula_of_one_unpadded_sample(name, kw, history_length, samples, dense):
    samples = samples.with_history(history_length)
    model = lively(name, samples, **kw)
    expected = [
        FORMULAS[name](model, *parts(model, samples, i), dense[i]).reshape(()) for i in range(len(samples))
    ]
    torch.testing.assert_close(model(all_of(samples), dense), torch.stack(expected), atol=1e-4, rtol=1e-4)


# What the models can learn.


def planted(item_fields, history, ratings, candidate, label, n_ids):
    """Samples from history rows [N, L] of items, rating ids [N, L], candidate items [N] and labels [N]."""
    n, length = history.shape
    place = torch.arange(n) * (length + 1)
    return CTRSamples(
        item_fields=item_fields,
        sequence=torch.cat([history, candidate[:, None]], dim=1).flatten(),
        rating_ids=torch.cat([ratings, ratings[:, :1]], dim=1).flatten(),
        first=place,
        position=place + length,
        user_row=torch.arange(n),
        label=label.float(),
        history_length=length,
        n_ids=n_ids,
    )


def exclusive_or(n, seed):
    """Label = genre of the candidate XOR rating of the one step before; neither tells anything alone.

    The step's item is always the ninth, of a third genre. Were it drawn like the candidate, FM could not
    tell the two apart, since the table is shared: it would answer for both and end at an AUC of 0.875.
    """
    g = torch.Generator().manual_seed(seed)
    genre = torch.tensor([0, 1] * 4 + [2])
    candidate, rating = torch.randint(8, (n,), generator=g), torch.randint(2, (n,), generator=g)
    fields = torch.stack([1 + torch.arange(9), 10 + genre], dim=1)
    history = torch.full((n, 1), 8)
    return planted(
        fields, history, 13 + rating[:, None], candidate, genre[candidate] ^ rating, n_ids=15
    ), None


def dense_exclusive_or(n, seed):
    """Label = genre of the candidate XOR a bit that only the dense values carry."""
    samples, _ = exclusive_or(n, seed)
    genre = samples.item_fields[samples.item_row, 1] - 10
    bit = torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed + 100))
    dense = (2.0 * bit - 1)[:, None] * torch.linspace(-1, 1, 2 * DIM)
    return replace(samples, label=(genre ^ bit).float()), dense


def matching(n, seed):
    """Label = rating of the step with the candidate's genre; all genres stand in each history, once."""
    g = torch.Generator().manual_seed(seed)
    genre = torch.arange(12) % 3
    history_genre = torch.rand(n, 3, generator=g).argsort(1)
    history = history_genre + 3 * torch.randint(4, (n, 3), generator=g)
    rating = torch.randint(2, (n, 3), generator=g)
    candidate = torch.randint(12, (n,), generator=g)
    label = rating[history_genre == genre[candidate][:, None]]
    fields = torch.stack([1 + torch.arange(12), 13 + genre], dim=1)
    return planted(fields, history, 16 + rating, candidate, label, n_ids=18), None


def auc_after_training(name, kw, task, n, epochs):
    """AUC on fresh samples of a model trained on n samples of the task."""
    train, dense = task(n, seed=1)
    model = ctr.build(name, train, dense_dim=0 if dense is None else 2 * DIM, embed_dim=DIM, **kw)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    g = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for index in torch.randperm(n, generator=g).split(50):
            batch = train.batch(index)
            logits = model(batch, None if dense is None else dense[index])
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(logits, batch.label).backward()
            optimiser.step()
    test, dense = task(500, seed=2)
    with torch.no_grad():
        return roc_auc_score(test.label, model.eval()(all_of(test), dense))


@every_model
def test_learns_an_interaction_of_item_and_history_unless_it_is_linear(name, kw):
    auc = auc_after_training(name, kw, exclusive_or, n=600, epochs=8)
    assert 0.4 < auc < 0.6 if name == "LR" else auc > 0.95


@every_model
def test_learns_an_interaction_of_item_and_dense_values_unless_they_enter_linearly(name, kw):
    auc = auc_after_training(name, kw, dense_exclusive_or, n=400, epochs=4)
    assert 0.4 < auc < 0.6 if name in ("LR", "FM") else auc > 0.95


@every_model
def test_only_attention_finds_the_step_that_matches_the_candidate(name, kw):
    """The mean of the history holds three ratings but not whose they are: AUC 0.81 at the very best."""
    auc = auc_after_training(name, kw, matching, n=1000, epochs=10)
    assert auc > 0.95 if name in ("DIN", "DIEN") else auc < 0.85


# Mistakes of the user.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "DCNV2"}, "did you mean 'DCNv2'"),
        ({"name": "DIN", "dropuot": 0.1}, "DIN parameter 'dropuot'.*did you mean 'dropout'"),
        ({"name": "LR", "dropout": 0.1}, "LR parameter 'dropout'"),
        ({"name": "DIEN", "evolution": "LSTM"}, "evolution 'LSTM' is not one of GRU, AIGRU, AUGRU"),
        ({"name": "AutoInt", "dense_dim": 40}, "AutoInt .*embed_dim=32.*dense_dim=40"),
    ],
)
def test_build_names_the_wrong_argument(arguments, message, samples):
    with pytest.raises(UserError, match=message):
        ctr.build(samples=samples, **arguments)


@pytest.mark.parametrize(("dense_dim", "given"), [(64, None), (0, 64), (64, 32)])
def test_dense_values_must_have_the_width_that_was_built(dense_dim, given, samples):
    model = ctr.build("DIN", samples, dense_dim=dense_dim)
    dense = None if given is None else torch.zeros(len(samples), given)
    with pytest.raises(UserError, match=f"{given or 0} columns, not dense_dim={dense_dim}"):
        model(all_of(samples), dense)
