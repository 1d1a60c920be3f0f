"""Next-item models: no look ahead, no effect of padding, the loss by hand, a cycle learned."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rec_utils.papers.diffusion.diffurec import DiffuRec
from rec_utils.papers.diffusion.dreamrec import DreamRec, mean_cosine
from rec_utils.papers.diffusion.schedules import linear
from rec_utils.sequences import SequenceBatch, SequenceTask
from rec_utils.sequential import GRU4Rec, SASRec

N_ITEMS = 11
READERS = {
    "SASRec": lambda: SASRec(N_ITEMS, length=12, dim=8, heads=2),
    "GRU4Rec": lambda: GRU4Rec(N_ITEMS, dim=8, hidden=6),
}
GENERATORS = {
    "DreamRec": lambda: DreamRec(N_ITEMS, betas=linear(20, 1e-3, 0.3), length=12, dim=32),
    "DiffuRec": lambda: DiffuRec(N_ITEMS, steps=8, dim=8, blocks=2, heads=2),
}
MODELS = READERS | GENERATORS


def make(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


def batch_of(*histories, width, label=None):
    rows = torch.zeros(len(histories), width, dtype=torch.int64)
    for row, items in enumerate(histories):
        rows[row, : len(items)] = torch.tensor(items)
    length = torch.tensor([len(items) for items in histories])
    return SequenceBatch(rows, length, torch.ones(len(rows), dtype=torch.int64) if label is None else label)


@pytest.mark.parametrize("name", READERS)
def test_later_items_do_not_change_earlier_states(name):
    model = make(name)
    history = torch.randint(1, N_ITEMS + 1, (3, 10))
    other = history.clone()
    other[:, 6:] = torch.randint(1, N_ITEMS + 1, (3, 4))
    states, changed = model.read(history), model.read(other)
    assert torch.allclose(states[:, :6], changed[:, :6], atol=1e-6)
    assert not torch.allclose(states[:, 6:], changed[:, 6:], atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_padding_has_no_effect(name):
    model = make(name)
    short = model.scores(batch_of([3, 1, 4], [1, 5, 9], width=3))
    padded = model.scores(batch_of([3, 1, 4], [1, 5, 9], width=8))
    assert torch.allclose(short, padded, atol=1e-4)


@pytest.mark.parametrize("name", READERS)
def test_neighbours_in_the_batch_have_no_effect(name):
    model = make(name)
    alone = model.scores(batch_of([3, 1, 4], width=8))
    beside = model.scores(batch_of([3, 1, 4], [2, 6, 5, 3, 5, 8], width=8))
    assert torch.allclose(alone, beside[:1], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_the_history_counts_where_it_should(name):
    model = make(name)
    one, other = model.scores(batch_of([3, 1, 4], [1, 3, 4], width=3))
    # DiffuRec has no positions: only which item is last counts
    assert torch.allclose(one, other, atol=0.02) == (name == "DiffuRec")


@pytest.mark.parametrize("name", READERS)
def test_the_loss_is_the_cross_entropy_of_every_real_step(name):
    model = make(name)
    batch = batch_of([3, 1, 4], [1, 5], width=5, label=torch.tensor([[1, 4, 2, 0, 0], [5, 0, 0, 0, 0]]))
    expected = []
    for history, target in (([3], 1), ([3, 1], 4), ([3, 1, 4], 2), ([1], 5)):
        logits = model.scores(batch_of(history, width=5))
        expected.append(F.cross_entropy(logits, torch.tensor([target - 1])))
    assert torch.allclose(model(batch).sort().values, torch.stack(expected).sort().values, atol=1e-4)


@pytest.mark.parametrize("name", GENERATORS)
def test_generation_depends_on_its_seed_alone(name):
    model, batch = make(name), batch_of([3, 1, 4], width=4)
    state = torch.get_rng_state()
    first = model.scores(batch, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, model.scores(batch, seed=1))
    assert not torch.equal(first, model.scores(batch, seed=2))


def cycle():
    """Users who walk round a circle of items, from different starts."""
    walks = [np.arange(start, start + 14) % N_ITEMS + 1 for start in range(N_ITEMS)] * 2
    return SequenceTask.of("cycle", walks)


def trained(name, task, epochs, lr):
    torch.manual_seed(0)
    model = MODELS[name]()
    samples = task.windows(12) if name in READERS else task.prefixes("train", 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in samples.batches(64, torch.Generator().manual_seed(0)):
            optimizer.zero_grad()
            model(batch).mean().backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize(
    ("name", "epochs", "lr"),
    [("SASRec", 60, 1e-2), ("GRU4Rec", 60, 1e-2), ("DiffuRec", 30, 1e-2), ("DreamRec", 60, 3e-3)],
)
def test_a_cycle_is_learned(name, epochs, lr):
    task = cycle()
    model = trained(name, task, epochs, lr)
    test = task.prefixes("test", 12)
    best = model.scores(test.batch(torch.arange(len(test)))).argmax(1) + 1
    assert (best == test.label).float().mean() > 0.8


# DreamRec


def test_dreamrecs_loss_is_the_distance_to_the_next_items_embedding():
    model = make("DreamRec")
    batch = batch_of([3, 1], [4], width=3, label=torch.tensor([7, 2]))
    torch.manual_seed(1)
    found = model(batch)
    torch.manual_seed(1)
    h = model.reader(model.items(batch.history), batch.length)
    h = torch.where(torch.rand(2, 1) < 0.1, model.null, h)
    t = torch.randint(20, (2,))
    x0 = model.items.weight[[7, 2]]
    predicted = model.denoise(model.process.q_sample(x0, t, torch.randn_like(x0)), h, t)
    assert torch.allclose(found, ((x0 - predicted) ** 2).mean(1))


def test_without_guidance_the_null_vector_is_not_used():
    model, batch = make("DreamRec"), batch_of([3, 1, 4], width=4)
    plain, guided = model.scores(batch, guidance=0.0), model.scores(batch, guidance=2.0)
    with torch.no_grad():
        model.null.add_(1)
    assert torch.equal(model.scores(batch, guidance=0.0), plain)
    assert not torch.allclose(model.scores(batch, guidance=2.0), guided)


def test_guidance_is_linear_in_its_strength():
    """The denoiser mlp1 is linear in x and h, so with the same draws the result moves on a line."""
    model, batch = make("DreamRec"), batch_of([3, 1, 4], width=4)
    by_strength = [model.scores(batch, guidance=w, steps=1) for w in (0.0, 1.0, 2.0)]
    assert torch.allclose(by_strength[1] * 2 - by_strength[0], by_strength[2], atol=1e-4)


def test_nothing_keeps_dreamrecs_embeddings_apart():
    """Its loss falls to nothing as all embeddings become one."""
    short, long = (trained("DreamRec", cycle(), epochs, 1e-2) for epochs in (10, 200))
    assert abs(mean_cosine(short.items.weight[1:])) < 0.1
    assert mean_cosine(long.items.weight[1:]) > 0.7


def test_the_mean_cosine_is_that_of_all_pairs():
    vectors = torch.randn(7, 3)
    pairs = [F.cosine_similarity(vectors[i], vectors[j], 0) for i in range(7) for j in range(i)]
    assert mean_cosine(vectors) == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)
    assert mean_cosine(torch.ones(5, 3)) == pytest.approx(1)
