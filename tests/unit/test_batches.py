"""Batches against plain loops over the interactions."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_utils.batches import CTRSamples

N_ITEMS = 6


@st.composite
def samples(draw):
    """Users with some interactions each; samples at any of them, in any order, even twice."""
    counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    total = sum(counts)
    user = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    begin = torch.tensor([sum(counts[:k]) for k in range(len(counts))])
    position = torch.tensor(draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=20)))
    rows = st.lists(st.integers(0, N_ITEMS - 1), min_size=total, max_size=total)
    return CTRSamples(
        item_fields=torch.stack([1 + torch.arange(N_ITEMS), 7 + torch.arange(N_ITEMS) % 2], dim=1),
        sequence=torch.tensor(draw(rows)),
        rating_ids=9 + torch.tensor(draw(rows)),
        first=begin[user[position]],
        position=position,
        user_row=user[position],
        label=torch.arange(len(position)) % 2.0,
        history_length=draw(st.integers(1, 8)),
        n_ids=15,
    )


def fixed():
    """Users with 3 and 4 interactions, a sample at each."""
    return CTRSamples(
        item_fields=torch.tensor([[1, 5], [2, 5], [3, 6], [4, 6]]),
        sequence=torch.tensor([0, 1, 2, 3, 2, 1, 0]),
        rating_ids=torch.tensor([7, 8, 7, 8, 7, 8, 7]),
        first=torch.tensor([0, 0, 0, 3, 3, 3, 3]),
        position=torch.arange(7),
        user_row=torch.tensor([0, 0, 0, 1, 1, 1, 1]),
        label=torch.tensor([0.0, 1, 0, 1, 0, 1, 1]),
        history_length=2,
        n_ids=9,
    )


def same(batch, other):
    return all(torch.equal(value, getattr(other, name)) for name, value in vars(batch).items())


@settings(deadline=None)
@given(made=samples(), data=st.data())
def test_a_batch_equals_a_loop_over_its_samples(made, data):
    index = data.draw(st.lists(st.integers(0, len(made) - 1), max_size=12))
    batch = made.batch(torch.tensor(index, dtype=torch.int64))
    length = made.history_length
    assert batch.history.shape == (len(index), length, 3)
    for k, n in enumerate(index):
        position, first = int(made.position[n]), int(made.first[n])
        steps = [
            [*made.item_fields[made.sequence[place]].tolist(), int(made.rating_ids[place])]
            for place in range(max(first, position - length), position)
        ]
        padding = length - len(steps)
        assert batch.history[k].tolist() == [[0, 0, 0]] * padding + steps
        assert batch.mask[k].tolist() == [False] * padding + [True] * len(steps)
        row = int(made.sequence[position])
        assert batch.position[k] == position
        assert batch.item_row[k] == made.item_row[n] == row
        assert batch.item[k].tolist() == made.item_fields[row].tolist()
        assert (batch.user_row[k], batch.label[k]) == (made.user_row[n], made.label[n])


@settings(deadline=None)
@given(made=samples(), data=st.data())
def test_fields_of_the_user_stand_before_those_of_the_item(made, data):
    users = 15 + torch.arange(3 * 5).view(5, 3)
    known = replace(made, user_fields=users, n_ids=30)
    index = torch.tensor(data.draw(st.lists(st.integers(0, len(made) - 1), max_size=12)), dtype=torch.int64)
    batch, without = known.batch(index), made.batch(index)
    assert (known.n_fields, made.n_fields, known.n_step_fields, made.n_step_fields) == (5, 2, 3, 3)
    for k, n in enumerate(index.tolist()):
        assert batch.item[k].tolist() == users[made.user_row[n]].tolist() + without.item[k].tolist()
    assert same(replace(batch, item=without.item), without)
    none = known.with_history(0)
    assert none.n_step_fields == 0 and none.n_fields == 5
    assert none.batch(index).history.shape == (len(index), 0, 3)
    assert torch.equal(none.batch(index).item, batch.item)


@settings(deadline=None)
@given(made=samples(), data=st.data())
def test_selecting_then_batching_is_batching_what_was_selected(made, data):
    keep = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(made), max_size=len(made))))
    rows = keep.nonzero().squeeze(1)
    for index in (keep, rows):
        part = made.select(index)
        assert len(part) == len(rows)
        assert same(part.batch(torch.arange(len(rows))), made.batch(rows))
    assert part.sequence is made.sequence  # long, so never copied


@settings(deadline=None)
@given(made=samples(), length=st.integers(1, 12))
def test_another_history_length_changes_the_history_only(made, length):
    everything = torch.arange(len(made))
    longest = made.with_history(12).batch(everything)
    batch = made.with_history(length).batch(everything)
    assert torch.equal(batch.history, longest.history[:, 12 - length :])
    assert torch.equal(batch.mask, longest.mask[:, 12 - length :])
    for name in ("item", "user_row", "item_row", "position", "label"):
        assert torch.equal(getattr(batch, name), getattr(longest, name))


def test_a_batch_leaves_the_samples_as_they_were():
    made, before = fixed(), fixed()
    made.batch(torch.arange(7))
    assert all(torch.equal(v, getattr(before, k)) for k, v in vars(made).items() if torch.is_tensor(v))


def test_to_moves_every_tensor_and_keeps_the_rest():
    moved = fixed().to("meta")
    devices = {name: value.device.type for name, value in vars(moved).items() if torch.is_tensor(value)}
    assert len(devices) == 7 and set(devices.values()) == {"meta"}
    assert (moved.history_length, moved.n_ids, moved.n_fields) == (2, 9, 2)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_cover_every_sample_once(size, shuffled):
    made = fixed().with_history(6)
    generator = torch.Generator().manual_seed(0) if shuffled else None
    batches = list(made.batches(size, generator))
    assert [len(batch.item) for batch in batches] == [min(size, 7 - k) for k in range(0, 7, size)]
    # a sample is known by its user and the number of steps before it
    seen = [
        (int(u), int(m.sum())) for batch in batches for u, m in zip(batch.user_row, batch.mask, strict=True)
    ]
    expected = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert sorted(seen) == expected
    assert (seen == expected) is not shuffled


def test_the_order_depends_on_the_generator_alone():
    made = fixed().select(torch.arange(7).repeat(20))

    def orders(seed):
        generator = torch.Generator().manual_seed(seed)
        return [torch.cat([batch.item_row for batch in made.batches(8, generator)]) for _ in range(2)]

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = orders(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = orders(5)
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, orders(6)[0])
