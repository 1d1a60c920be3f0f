"""SIM: both searches against plain loops, and what the backbone reads of what was retrieved."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import dataset, random_dataset

from rec_utils import ctr
from rec_utils.errors import UserError
from rec_utils.metrics import auc
from rec_utils.papers import sim
from rec_utils.papers.sim import Retrieval, arm, search
from rec_utils.samples import ctr_task
from rec_utils.training import TrainConfig, fit, predict

GENRES = {item: ("Drama|War", "Comedy|Drama", "War", "")[item % 4] for item in range(12)}


def first_rows(task):
    """[T] position of the first rating of each rating's user."""
    return np.arange(len(task.ratings)) - task.ratings["place"].to_numpy()


def everything(samples):
    return samples.batch(torch.arange(len(samples)))


@st.composite
def tasks(draw):
    """Users who rate some items of few genres, and for each rating the end of what may be searched."""
    rated = draw(st.lists(st.permutations(range(12)), min_size=1, max_size=4))
    levels = draw(st.lists(st.integers(1, 5), min_size=48, max_size=48))
    rows = []
    for user, items in enumerate(rated):
        for time, item in enumerate(items[: draw(st.integers(2, 12))]):
            rows.append((user, item, levels[len(rows)], time))
    task = ctr_task(dataset(rows, GENRES, (1.0, 5.0)), history_length=draw(st.integers(1, 5)))
    places = task.ratings["place"].tolist()
    seen = [draw(st.integers(0, place)) for place in places]
    return task, first_rows(task) + seen


# General search unit


def reference(task, k, upto, relevance):
    """`search` as a loop over ratings; `relevance` of a behaviour's item for a candidate's, None for none."""
    items = task.ratings["item_row"].tolist()
    table = []
    for row, (first, end) in enumerate(zip(first_rows(task), upto, strict=True)):
        scored = [(relevance(items[row], items[place]), place) for place in range(first, end)]
        best = sorted((pair for pair in scored if pair[0] is not None), reverse=True)[:k]
        found = sorted(place for _, place in best)
        table.append([-1] * (k - len(found)) + found)
    return table


@settings(deadline=None)
@given(made=tasks(), k=st.integers(1, 14), block=st.integers(1, 13))
def test_hard_search_takes_the_latest_of_the_first_genre(made, k, block):
    task, upto = made
    first_genre = [GENRES[item].split("|")[0] for item in task.item_ids]
    expected = reference(task, k, upto, lambda a, b: 0 if first_genre[a] == first_genre[b] else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim, "BLOCK", block)
        places = search(task, k, upto)
    assert places.tolist() == expected
    assert places.dtype == np.int32


@settings(deadline=None)
@given(made=tasks(), k=st.integers(1, 14), block=st.integers(1, 13), seed=st.integers(0, 99))
def test_soft_search_takes_the_largest_inner_products_and_the_later_of_equals(made, k, block, seed):
    task, upto = made
    vectors = np.random.default_rng(seed).integers(-1, 2, (len(task.item_ids), 2)).astype(np.float32)
    expected = reference(task, k, upto, lambda a, b: sum(vectors[a] * vectors[b]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim, "BLOCK", block)
        assert search(task, k, upto, vectors).tolist() == expected


@pytest.mark.parametrize("block", [1, 2, 5, 512])
def test_items_with_the_same_vector_tie_in_spite_of_rounding(block, monkeypatch):
    """A matrix product may sum its columns in different orders."""
    monkeypatch.setattr(sim, "BLOCK", block)
    task = ctr_task(random_dataset(n_users=2, n_items=200, n_each=200), history_length=1)
    upto = np.arange(400)
    latest = upto[:, None] + np.arange(-3, 0)
    latest[latest < first_rows(task)[:, None]] = -1
    for vector in np.random.default_rng(0).normal(size=(3, 1, 384)):
        np.testing.assert_array_equal(search(task, 3, upto, vector.repeat(200, axis=0)), latest)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k must be at least 1, not 0"),
        (
            {"upto": np.arange(143)},
            r"upto must have one entry for each of the 144 ratings, not shape \(143,\)",
        ),
        (
            {"upto": np.arange(144) + (np.arange(144) > 70)},
            "upto of rating 71 is 72: the candidate would see itself or its future",
        ),
        ({"vectors": np.ones((19, 2))}, r"vectors must have one row for each of 20 items, not \(19, 2\)"),
        ({"vectors": np.ones(20)}, r"vectors must have one row for each of 20 items, not \(20,\)"),
    ],
    ids=str,
)
def test_a_search_that_cannot_be_is_refused(wrong, message):
    task = ctr_task(random_dataset(), history_length=3)
    with pytest.raises(UserError, match=message):
        search(task, **{"k": 2, "upto": np.arange(144)} | wrong)


# Exact search unit


def read_by(model, batch):
    """The batch that a model hands to its backbone."""
    seen = []
    with model.backbone.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs)):
        model.eval()(batch)
    return seen[0]


@settings(deadline=None, max_examples=50)
@given(made=tasks(), k=st.integers(1, 14), soft=st.booleans())
def test_the_backbone_reads_what_was_retrieved_then_what_is_recent_each_once(made, k, soft):
    task, upto = made
    samples = task.samples
    vectors = np.random.default_rng(0).normal(size=(len(task.item_ids), 3)) if soft else None
    places = search(task, k, upto, vectors)
    batch = everything(samples)
    read = read_by(arm(places, backbone="LR").build(samples, 0), batch)
    width = k + samples.history_length
    for n, (position, first) in enumerate(
        zip(samples.position.tolist(), samples.first.tolist(), strict=True)
    ):
        recent = range(max(first, position - samples.history_length), position)
        shown = sorted({*places[position].tolist(), *recent} - {-1})
        steps = [
            [*samples.item_fields[samples.sequence[place]].tolist(), int(samples.rating_ids[place])]
            for place in shown
        ]
        padding = width - len(steps)
        assert read.history[n].tolist() == [[0, 0, 0]] * padding + steps
        assert read.mask[n].tolist() == [False] * padding + [True] * len(steps)
    for name in set(vars(batch)) - {"history", "mask"}:
        assert torch.equal(getattr(read, name), getattr(batch, name))


MODELS = [("DIN", {}), ("DIEN", {}), ("DIEN", {"evolution": "AUGRU"}), ("DCNv2", {})]
every_model = pytest.mark.parametrize(("backbone", "kw"), MODELS)


@pytest.fixture(scope="module")
def task():
    return ctr_task(random_dataset(n_users=30), history_length=3)


@every_model
@pytest.mark.parametrize("training", [True, False])
def test_with_nothing_retrieved_it_is_the_backbone(backbone, kw, training, task):
    places = search(task, 4, first_rows(task))
    assert (places == -1).all()
    model = arm(places, backbone=backbone, backbone_settings=kw).build(task.samples, 5).train(training)
    alone = ctr.build(backbone, task.samples, seed=5, **kw).train(training)
    batch = everything(task.samples)
    torch.testing.assert_close(model(batch), alone(batch))


@every_model
def test_with_everything_retrieved_it_is_the_backbone_on_a_long_history(backbone, kw, task):
    places = search(task, 12, np.arange(360), np.ones((20, 1)))
    model = arm(places, backbone=backbone, backbone_settings=kw).build(task.samples, 5).eval()
    alone = ctr.build(backbone, task.samples, seed=5, **kw).eval()
    short, long = (everything(task.samples.with_history(length)) for length in (3, 12))
    torch.testing.assert_close(model(short), alone(long))
    assert not torch.allclose(model(short), alone(short))


def test_the_gradient_reaches_what_is_only_retrieved(task):
    places = search(task, 2, np.arange(360))
    model = arm(places).build(task.samples, 0)
    found, position = places[task.samples.position], task.samples.position.numpy()
    both_before_the_recent = (found[:, 0] >= 0) & (found[:, 1] < position - 3)
    batch = task.samples.batch(torch.tensor([both_before_the_recent.argmax()]))
    model(batch).sum().backward()
    gradient = model.backbone.embedding.weight.grad.any(dim=1)
    only_retrieved = set(read_by(model, batch).history.flatten().tolist())
    only_retrieved -= set(batch.history.flatten().tolist()) | {0}
    assert len(only_retrieved) >= 2 and all(gradient[i] for i in only_retrieved)


def test_places_are_not_saved_and_belong_to_the_samples(task):
    model = arm(search(task, 2, np.arange(360))).build(task.samples, 0)
    assert all(name.startswith("backbone.") for name in model.state_dict())
    for places in (np.zeros((359, 2), np.int32), np.zeros(360, np.int32)):
        with pytest.raises(UserError, match="places must have one row for each of 360 ratings"):
            Retrieval(model.backbone, task.samples, torch.from_numpy(places))


def test_a_taste_that_showed_long_ago_is_found():
    """Users like four of eight genres; each comes up once in 8 ratings, and the recent history holds 2."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(150):
        likes = rng.permutation([1, 1, 1, 1, 5, 5, 5, 5])
        items = (8 * rng.permutation(6)[:4, None] + rng.permutation(8)).flatten().tolist()
        rows += [(user, item, likes[item % 8], time) for time, item in enumerate(items)]
    genres = {item: f"Genre {item % 8}" for item in range(48)}
    task = ctr_task(dataset(rows, genres, (1.0, 5.0)), history_length=2)
    samples = task.samples
    user = samples.user_row
    test, valid, train = (
        samples.select(mask) for mask in (user < 40, (user >= 40) & (user < 60), user >= 60)
    )
    config = TrainConfig(lr=5e-3, batch_size=64, max_epochs=15)
    scores = {}
    for name, upto in {"found": np.arange(len(task.ratings)), "nothing": first_rows(task)}.items():
        model = arm(search(task, 2, upto), backbone_settings={"embed_dim": 8}).build(samples, 0)
        fit(model, train, valid, config, progress=False)
        scores[name] = auc(test.label.numpy(), predict(model, test))
    assert scores["found"] > 0.95
    assert scores["nothing"] < 0.65
