"""DiffuASR: what it learns from, the loss by hand, rounding, longer sequences; and the U-Net."""

import numpy as np
import pytest
import torch

from rec_utils.errors import UserError
from rec_utils.papers.diffusion.diffuasr import WAYS, DiffuASR, Starts, augmented, made_up, windows
from rec_utils.papers.diffusion.unet import UNet
from rec_utils.sequences import SequenceTask

N_ITEMS = 12


def task_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return SequenceTask.of("tiny", [rng.integers(1, N_ITEMS + 1, n) for n in lengths], N_ITEMS)


def make(**settings):
    torch.manual_seed(0)
    return DiffuASR(N_ITEMS, **({"n_first": 3, "dim": 16, "steps": 20} | settings))


# The U-Net


@pytest.mark.parametrize(("levels", "side"), [((1, 2, 2, 2), 8), ((1, 2), 4), ((2,), 3)])
def test_the_net_keeps_the_picture_and_reads_time_and_guide(levels, side):
    torch.manual_seed(0)
    net = UNet(3, 5, levels=levels, guide_dim=7).eval()
    x, t, guide = torch.randn(2, 3, side, side), torch.tensor([0, 9]), torch.randn(2, 7)
    found = net(x, t, guide)
    assert found.shape == (2, 5, side, side)
    for other in (net(x + 1, t, guide), net(x, t + 50, guide), net(x, t, guide + 1)):
        assert not torch.allclose(found, other, atol=1e-4)
    assert torch.allclose(net(x[:1], t[:1], guide[:1]), found[:1], atol=1e-5)  # rows do not mix


# What it learns from


def test_starts_are_the_first_training_items_and_those_that_follow():
    task = task_of([5, 8, 20])  # 3, 6 and 18 training items
    starts = Starts.of(task, n_first=3, n_rest=10)
    assert starts.label.tolist() == [1, 2]
    batch = starts.batch(torch.arange(2))
    for row, user in enumerate((1, 2)):
        items = task.items[task.start[user] : task.start[user + 1] - 2]
        assert batch.first[row].tolist() == items[:3].tolist()
        rest = items[3:13].tolist()
        assert batch.rest[row].tolist() == rest + [0] * (10 - len(rest))
    assert starts.select(torch.tensor([1])).batch(torch.tensor([0])).label.tolist() == [2]
    with pytest.raises(UserError, match="more than 22"):
        Starts.of(task, n_first=20)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_the_loss_is_the_error_of_the_guided_noise(guidance):
    model = make(guidance=guidance).eval()
    batch = Starts.of(task_of([9, 9, 12]), n_first=3).batch(torch.arange(3))
    torch.manual_seed(1)
    found = model(batch)
    torch.manual_seed(1)
    half = torch.randint(20, (2,))
    t = torch.tensor([half[0], half[1], 19 - half[0]])
    x0 = model.items.weight[batch.first].view(3, 3, 4, 4)
    noise = torch.randn_like(x0)
    xt = model.process.q_sample(x0, t, noise)
    guide = torch.stack([model.items.weight[row[row > 0]].sum(0) for row in batch.rest])
    given, free = model.net(xt, t, guide), model.net(xt, t, model.null.expand(3, -1))
    expected = (noise - (given + guidance * (given - free))).square().mean((1, 2, 3))
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_is_generated_is_rounded_to_the_nearest_direction(monkeypatch):
    model = make().eval()
    target = torch.tensor([[5, 2, 9], [1, 12, 7]])
    x0 = 3 * model.items.weight[target].view(2, 3, 4, 4)
    monkeypatch.setattr(model, "predict", lambda x, t, guide: model.process.noise_of(x0, x, t))
    found = model.generate(torch.tensor([[1], [2]]), generator=torch.Generator().manual_seed(0))
    assert torch.equal(found, target)


def test_the_guide_decides_what_is_generated():
    """Users of two kinds begin and go on with items of their kind: without a guide half would be right."""
    rng = np.random.default_rng(0)
    users = [rng.integers(1, 3, 9) + 2 * (user % 2) for user in range(40)]
    task = SequenceTask.of("kinds", users, 4)
    torch.manual_seed(0)
    vectors = torch.eye(4)
    model = DiffuASR(4, n_first=2, dim=4, steps=50, width=16, guidance=0.0, vectors=vectors)
    starts = Starts.of(task, n_first=2)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(starts.batch(torch.arange(len(starts)))).mean().backward()
        optimizer.step()
    items = np.stack([made_up(task, "diffusion", model=model.eval(), seed=seed) for seed in range(5)])
    right = (items > 2) == (np.arange(40) % 2 == 1)[:, None]
    assert right.mean() > 0.7
    assert torch.allclose(model.items.weight[1:], vectors / vectors.std())  # given vectors stay


# Made-up items


@pytest.mark.parametrize("way", WAYS)
def test_made_up_items_depend_on_the_seed_and_on_training_items_alone(way):
    task = task_of([5, 9, 16])
    model = make().eval()
    found = made_up(task, way, model=model, n_first=3, seed=1)
    assert found.shape == (3, 3)
    assert found.min() >= 1
    assert found.max() <= N_ITEMS
    assert np.array_equal(found, made_up(task, way, model=model, n_first=3, seed=1))
    other = task.items.copy()
    for end in task.start[1:]:
        other[end - 2 : end] = other[end - 2 : end] % N_ITEMS + 1
    changed = SequenceTask("tiny", other, task.start, N_ITEMS)
    assert np.array_equal(found, made_up(changed, way, model=model, n_first=3, seed=1))


def test_own_items_are_the_users_and_popular_ones_go_by_popularity():
    task = SequenceTask.of("tiny", [np.array([1, 1, 1, 2, 9, 9]), np.array([3, 1, 3, 1, 9, 9])] * 40, N_ITEMS)
    own = made_up(task, "own", n_first=50)
    assert set(own[0]) == {1, 2}
    assert set(own[1]) == {1, 3}
    popular = made_up(task, "popular", n_first=500)
    share = np.bincount(popular.ravel(), minlength=10)[1:] / popular.size
    assert share[:3] == pytest.approx([5 / 8, 1 / 8, 2 / 8], abs=0.02)
    assert share[8] == 0


def test_diffusion_needs_a_model_and_ways_a_name():
    with pytest.raises(UserError, match="needs a model"):
        made_up(task_of([9]), "diffusion")
    with pytest.raises(UserError, match="way 'randm'"):
        made_up(task_of([9]), "randm")
    with pytest.raises(UserError, match="square of a power of 2"):
        make(dim=36)


def test_made_up_items_come_first_and_change_no_target():
    task = task_of([5, 4, 7])
    first = np.array([[1, 2], [3, 4], [5, 6]])
    longer, real = augmented(task, first, only=np.array([True, False, True]))
    for user, added in enumerate(([1, 2], [], [5, 6])):
        items = task.items[task.start[user] : task.start[user + 1]].tolist()
        place = slice(longer.start[user], longer.start[user + 1])
        assert longer.items[place].tolist() == added + items
        assert real[place].tolist() == [False] * len(added) + [True] * len(items)
    for part in ("validation", "test"):
        assert (longer.targets(part) != task.targets(part)).nnz == 0


def test_made_up_items_are_read_but_never_asked_for():
    task = task_of([5, 4, 7])
    longer, real = augmented(task, np.full((3, 4), N_ITEMS))
    found = windows(longer, real, 4)
    pairs = []
    for index in range(len(found)):
        batch = found.batch(torch.tensor([index]))
        assert (batch.label > 0).any()
        pairs += [
            pair for pair in zip(batch.history[0].tolist(), batch.label[0].tolist(), strict=True) if pair[1]
        ]
    expected = []
    for user in range(3):
        items = task.items[task.start[user] : task.start[user + 1] - 2].tolist()
        expected += zip([N_ITEMS, *items[:-1]], items, strict=True)
    assert sorted(pairs) == sorted(expected)
