"""Sequences: leave-one-out, prefixes and windows against plain loops."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rec_utils.errors import UserError
from rec_utils.implicit import core, likes
from rec_utils.sequences import SequenceTask, Windows, by_length, in_order, sequence_task
from tests.unit.tiny_ratings import random_dataset

USERS = st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=14), min_size=1, max_size=6)


def task_of(users):
    return SequenceTask.of("tiny", [np.array(items) for items in users], 9)


@given(USERS, st.integers(1, 6))
def test_every_target_has_the_items_before_it(users, length):
    task = task_of(users)
    expected = {"train": [], "validation": [], "test": []}
    for items in users:
        for place in range(1, len(items)):
            part = {1: "test", 2: "validation"}.get(len(items) - place, "train")
            expected[part].append((items[max(0, place - length) : place], items[place]))
    for part, samples in expected.items():
        prefixes = task.prefixes(part, length)
        assert len(prefixes) == len(samples)
        if not samples:
            continue
        batch = prefixes.batch(torch.arange(len(prefixes)))
        for row, (history, target) in enumerate(samples):
            n = batch.length[row].item()
            assert batch.history[row, :n].tolist() == history
            assert not batch.history[row, n:].any()
            assert batch.label[row] == target


@given(USERS, st.integers(1, 6))
def test_windows_cover_every_training_target_once(users, length):
    task = task_of(users)
    windows = task.windows(length)
    pairs = []
    for index in range(len(windows)):
        batch = windows.batch(torch.tensor([index]))
        n = batch.length.item()
        assert 1 <= n <= length
        assert not batch.history[0, n:].any()
        assert not batch.label[0, n:].any()
        assert batch.history[0, 1:n].tolist() == batch.label[0, : n - 1].tolist()
        pairs += zip(batch.history[0, :n].tolist(), batch.label[0, :n].tolist(), strict=True)
    expected = [pair for items in users for pair in pairwise(items[:-2])]
    assert sorted(pairs) == sorted(expected)


def test_uncounted_items_are_read_but_are_no_targets():
    task = task_of([[1, 2, 3, 4, 5, 6]])
    windows = task.windows(10)
    counted = torch.tensor([False, False, True, True, True, True])
    batch = Windows(windows.sequence, windows.first, 4, windows.label, counted).batch(torch.tensor([0]))
    assert batch.history.tolist() == [[1, 2, 3, 0]]
    assert batch.label.tolist() == [[0, 3, 4, 0]]


def test_targets_and_what_was_seen_before_them():
    task = task_of([[3, 1, 2, 9], [4, 5, 6]])
    assert task.targets("validation").nonzero()[1].tolist() == [1, 4]
    assert task.targets("test").nonzero()[1].tolist() == [8, 5]
    assert task.seen("validation").nonzero()[1].tolist() == [0, 2, 3]
    assert task.seen("test").nonzero()[1].tolist() == [0, 1, 2, 3, 4]
    assert task.implicit().train.tolist() == [[0, 2], [0, 0], [1, 3]]
    assert task.lengths().tolist() == [2, 1]


@given(USERS, st.integers(1, 4))
def test_parts_of_similar_length_hold_each_row_once_and_no_needless_padding(users, size):
    task = task_of(users)
    for samples in (task.prefixes("test", 6), task.windows(6)):
        if not len(samples):
            continue
        batch = samples.batch(torch.arange(len(samples)))
        parts = list(by_length(batch, size))
        for rows, part in parts:
            width = part.history.shape[1]
            assert len(rows) <= size
            assert width == part.length.max()
            assert torch.equal(part.history, batch.history[rows, :width])
            assert not batch.history[rows, width:].any()
            expected = batch.label[rows] if batch.label.ndim == 1 else batch.label[rows, :width]
            assert torch.equal(part.label, expected)
        assert torch.equal(in_order((rows, part.length) for rows, part in parts), batch.length)


def test_select_keeps_the_samples():
    prefixes = task_of([[1, 2, 3, 4, 5], [6, 7, 8, 9]]).prefixes("train", 5)
    some = prefixes.select(torch.tensor([2, 0]))
    assert some.batch(torch.tensor([0, 1])).label.tolist() == [7, 2]


def test_sequences_of_a_data_set_are_its_likes_in_order():
    data = random_dataset(n_users=20, n_items=12, n_each=12)
    task = sequence_task(data, min_user=4, min_item=2)
    liked = core(likes(data), 4, 2)
    for row, (_, group) in enumerate(liked.groupby("user_id")):
        items = task.items[task.start[row] : task.start[row + 1]]
        assert task.item_ids[items - 1].tolist() == group["item_id"].tolist()
    short = sequence_task(data, min_user=4, min_item=2, max_length=3)
    assert np.diff(short.start).tolist() == [3] * task.n_users
    with pytest.raises(UserError, match="min_user = 99"):
        sequence_task(data, min_user=99)


def test_bad_sequences_are_errors():
    with pytest.raises(UserError, match="user 1 has fewer than 3"):
        task_of([[1, 2, 3], [1, 2]])
    with pytest.raises(UserError, match="between 1 and 9"):
        task_of([[1, 0, 3]])
