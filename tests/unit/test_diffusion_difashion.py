"""Outfits of digits and their guided generation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rec_utils.errors import UserError
from rec_utils.papers.diffusion.difashion import DiFashion, Guidance
from rec_utils.papers.diffusion.digits import (
    N_CATEGORIES,
    USERS,
    Judge,
    outfits,
    pictures,
    written_by,
)


@pytest.fixture(scope="module")
def train():
    return outfits(300, "train")


@pytest.fixture(scope="module")
def batch():
    return outfits(24, "test", seed=1).batch(torch.arange(24))


def make(**settings):
    torch.manual_seed(0)
    return DiFashion(**({"width": 16, "blocks": 1, "steps": 50} | settings)).eval()


# Outfits


def test_an_outfit_is_four_digits_of_one_user_on_one_ground(train):
    batch = train.batch(torch.arange(len(train)))
    for row in batch.category.tolist():
        assert len(set(row)) == 4
    # a dark ground means dark corners
    corner = batch.image[:, :, 0]
    assert (corner[batch.ground == 0] < 0).float().mean() > 0.8
    assert (corner[batch.ground == 1] > 0).float().mean() > 0.8
    assert batch.image.abs().max() <= 1


def test_a_history_is_the_mean_of_the_users_pictures_of_the_digit(train):
    batch = train.batch(torch.tensor([5]))
    for place in range(4):
        past = train.past[5, place]
        assert (train.digit[past] == batch.category[0, place]).all()
        expected = train.pictures[train.user[5]][past].mean(0)
        assert torch.allclose(batch.history[0, place], expected)


def test_the_parts_share_no_picture_and_seeds_change_the_draw():
    first, second = outfits(10, "train"), outfits(10, "test")
    rows = {
        name: {tuple(p.tolist()) for p in part.pictures[2]} for name, part in (("a", first), ("b", second))
    }
    assert not rows["a"] & rows["b"]
    assert torch.equal(outfits(10, "train").item, first.item)
    assert not torch.equal(outfits(10, "train", seed=1).item, first.item)
    with pytest.raises(UserError, match="'valid'"):
        outfits(10, "valid")


def test_users_write_as_they_are_said_to():
    ink, _ = pictures()
    rows = np.arange(8)[:, None]

    def lean(images):
        """Covariance of row and column under the ink: positive if it leans to the right going down."""
        weight = images / images.sum((1, 2), keepdims=True)
        columns = np.arange(8)[None]
        mean_row, mean_column = ((weight * axis).sum((1, 2)) for axis in (rows, columns))
        return ((weight * rows * columns).sum((1, 2)) - mean_row * mean_column).mean()

    leans = [lean(written_by(ink, slant, bold=False)) for slant in (3, 0, -3)]
    assert leans == sorted(leans)
    assert leans[0] + 1 < leans[1] < leans[2] - 1
    assert written_by(ink, 0, True).mean() > 1.5 * written_by(ink, 0, False).mean()
    assert len(USERS) == 6


def test_the_judge_knows_real_pictures_and_not_shuffled_ones(train):
    judge = Judge(train)
    batch = outfits(60, "test", seed=2).batch(torch.arange(60))
    right = {name: found.mean() for name, found in judge.right(batch.image, batch).items()}
    assert right["digit"] > 0.85
    assert right["user"] > 0.95
    assert right["ground"] > 0.99
    other = judge.right(batch.image.roll(1, 0), batch)
    assert other["digit"].mean() < 0.3


# Guidance


def test_the_terms_add_up():
    null, category, mutual, every = torch.randn(4, 3)
    assert torch.allclose(Guidance(1, 1, 1).combine(null, category, mutual, every), every)
    assert torch.equal(Guidance(0, 0, 0).combine(null, category, mutual, every), null)
    assert torch.allclose(Guidance(1, 0, 0).combine(null, category, mutual, every), category)
    found = Guidance(12, 5, 4).combine(null, category, mutual, every)
    assert torch.allclose(found, -11 * null + 7 * category + mutual + 4 * every, atol=1e-4)


def known(batch, *flags):
    """Conditions for `predict`, and every item wanted."""
    return [torch.full_like(batch.category, flag, dtype=torch.bool) for flag in (*flags, True)]


def test_each_condition_enters_only_where_it_is_known(batch):
    model, t = make(), torch.full((24,), 20)
    x = torch.randn_like(batch.image)
    plain = model.predict(x, batch, t, *known(batch, False, False, False))
    for other, *flags in (
        (replace(batch, category=(batch.category + 1) % N_CATEGORIES), True, False, False),
        (replace(batch, history=batch.history + 1), False, False, True),
    ):
        assert torch.equal(model.predict(x, other, t, *known(batch, False, False, False)), plain)
        first, second = (model.predict(x, each, t, *known(batch, *flags)) for each in (batch, other))
        assert not torch.allclose(first, second)


def test_the_mutual_part_is_what_the_other_items_show(batch):
    model, t = make(), torch.full((24,), 20)
    x = torch.randn_like(batch.image)
    others = x.clone()
    others[:, 1:] += torch.randn(24, 3, 64)
    for flag in (False, True):
        what = known(batch, False, flag, False)
        first, second = (
            model.predict(pictures, batch, t, *what).view_as(x)[:, 0] for pictures in (x, others)
        )
        assert torch.allclose(first, second, atol=1e-5) != flag
    shuffled = x[:, [0, 3, 1, 2]]  # a mean does not depend on the order
    what = known(batch, False, True, False)
    first, second = (model.predict(each, batch, t, *what).view_as(x)[:, 0] for each in (x, shuffled))
    assert torch.allclose(first, second, atol=1e-5)


def test_the_wanted_items_have_the_noise_that_they_have_among_all(batch):
    model, t = make(), torch.arange(24)
    x = torch.randn_like(batch.image)
    *what, every = known(batch, True, True, True)
    wanted = torch.rand(24, 4, generator=torch.Generator().manual_seed(0)) < 0.3
    every, some = (model.predict(x, batch, t, *what, which) for which in (every, wanted))
    assert len(some) == wanted.sum() > 0
    assert torch.allclose(some, every.view_as(x)[wanted], atol=1e-5)


def test_the_loss_is_the_weighted_error_of_the_noise(batch, monkeypatch):
    model = make().train()
    model.mutual[2].p = 0.0
    seen = {}
    predict = model.predict

    def watched(x, batch, t, *what):
        seen.update(t=t, x=x, what=what)
        return predict(x, batch, t, *what)

    monkeypatch.setattr(model, "predict", watched)
    torch.manual_seed(3)
    found = model(batch)
    t, what = seen["t"], seen["what"]
    noise = model.process.noise_of(batch.image, seen["x"], t)
    error = (noise - predict(seen["x"], batch, t, *what).view_as(noise)).square().mean(2)
    assert torch.allclose(found, error * model.process.min_snr_weight(t)[:, None], rtol=1e-2, atol=1e-4)


def test_conditions_are_dropped_as_often_as_in_the_paper(monkeypatch):
    model, many = make().train(), outfits(4000, "train").batch(torch.arange(4000))
    seen = []
    monkeypatch.setattr(model, "predict", lambda x, batch, t, *what: seen.extend(what) or x)
    model(many)
    category, mutual, history, wanted = seen
    assert wanted.all()
    assert category.float().mean().item() == pytest.approx(0.8, abs=0.02)
    for flags, share in (
        ((True, True), 0.3),
        ((True, False), 0.2),
        ((False, True), 0.2),
        ((False, False), 0.3),
    ):
        both = (mutual == flags[0]) & (history == flags[1])
        assert both.float().mean().item() == pytest.approx(share, abs=0.02)


def test_only_blanks_are_generated(batch):
    model = make()
    blank = torch.zeros_like(batch.category, dtype=torch.bool)
    blank[:, 2] = True
    state = torch.get_rng_state()
    found = model.generate(batch, blank, steps=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found[~blank], batch.image[~blank])
    assert not torch.allclose(found[blank], batch.image[blank], atol=0.1)
    assert found.abs().max() <= 1
    assert torch.equal(found, model.generate(batch, blank, steps=5))
    assert not torch.equal(found, model.generate(batch, blank, steps=5, seed=1))
    with pytest.raises(UserError, match="no item"):
        model.generate(batch, blank & False)


def test_a_perfect_denoiser_gives_the_pictures_back(batch, monkeypatch):
    model = make()
    monkeypatch.setattr(
        model, "predict", lambda x, batch, t, *what: model.process.noise_of(batch.image, x, t).flatten(0, 1)
    )
    found = model.generate(batch, torch.ones_like(batch.category, dtype=torch.bool), steps=10)
    assert torch.allclose(found, batch.image, atol=1e-3)


def test_category_and_history_guide_after_a_short_training(train):
    torch.manual_seed(0)
    model, judge = DiFashion(width=64, blocks=2, steps=1000), Judge(train)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        for part in train.batches(25, torch.Generator().manual_seed(0)):
            optimizer.zero_grad()
            model(part).mean().backward()
            optimizer.step()
    test = outfits(100, "test", seed=3).batch(torch.arange(100))
    blank = torch.zeros_like(test.category, dtype=torch.bool)
    blank[:, 0] = True
    guides = {"none": Guidance(0, 0, 0), "category": Guidance(3, 0, 0), "history": Guidance(0, 0, 3)}
    right = {}
    for name, guide in guides.items():
        found = judge.right(model.eval().generate(test, blank, guide, steps=20), test)
        right[name] = {key: values[:, 0].mean() for key, values in found.items()}
    assert right["category"]["digit"] > right["none"]["digit"] + 0.3
    assert right["history"]["user"] > right["none"]["user"] + 0.2
