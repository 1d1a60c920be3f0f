"""Implicit feedback: the split inside users, k-cores, sparse rows made dense."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rec_utils.errors import UserError
from rec_utils.implicit import ImplicitTask, RowSamples, core, implicit_task, likes
from tests.unit.tiny_ratings import dataset, random_dataset


def task(train, n_users=3, n_items=4):
    one = np.array([[0, 0]])
    return ImplicitTask("tiny", n_users, n_items, np.array(train), one, one)


def test_a_matrix_holds_the_pairs_once_and_the_last_weight():
    tiny = task([[0, 3], [0, 1], [2, 0], [0, 3]])
    found = tiny.matrix("train", weights=np.array([0.1, 0.2, 0.3, 0.4])).toarray()
    assert found == pytest.approx(np.array([[0, 0.2, 0, 0.4], [0] * 4, [0.3, 0, 0, 0]]))
    assert tiny.matrix("train", "test").toarray().tolist() == [[1, 1, 0, 1], [0] * 4, [1, 0, 0, 0]]


@pytest.mark.parametrize("pairs", [[[3, 0]], [[0, 4]], [[-1, 0]], np.empty((0, 2), int)])
def test_pairs_must_be_of_users_and_items(pairs):
    with pytest.raises(UserError, match="train"):
        task(pairs)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40), st.integers(1, 4))
def test_a_core_is_the_largest_set_in_which_all_are_frequent(pairs, least):
    table = pd.DataFrame(sorted(set(pairs)), columns=["user_id", "item_id"])
    found = {tuple(row) for row in core(table, least, least).to_numpy().tolist()}
    rest = set(pairs)
    while True:  # the definition: throw out one rare user or item at a time
        rare = next(
            (p for p in rest for side in (0, 1) if sum(q[side] == p[side] for q in rest) < least), None
        )
        if rare is None:
            break
        rest.discard(rare)
    assert found == rest


def test_likes_stand_in_time_order_and_ties_are_shuffled_by_seed():
    rows = [(1, item, 5, 100 if item < 30 else 50) for item in range(40)] + [(1, 99, 3, 1), (0, 7, 4, 9)]
    data = dataset(rows, dict.fromkeys(range(100), ""), (1.0, 5.0))
    found = likes(data, seed=0)
    assert found["user_id"].tolist() == [0] + [1] * 40  # three stars are no like
    late = found["item_id"].tolist()[11:]
    assert sorted(late) == list(range(30))
    assert late != sorted(late)
    assert late != likes(data, seed=1)["item_id"].tolist()[11:]


def test_every_users_latest_likes_are_the_test():
    data = random_dataset(n_users=20, n_items=15, n_each=14)
    tiny = implicit_task(data, min_user=5, min_item=2)
    liked = core(likes(data), 5, 2)
    for row, (_, group) in enumerate(liked.groupby("user_id")):
        items = np.searchsorted(tiny.item_ids, group["item_id"])
        parts = [getattr(tiny, part) for part in ("train", "validation", "test")]
        own = [pairs[pairs[:, 0] == row, 1].tolist() for pairs in parts]
        assert [item for part in own for item in part] == items.tolist()
        cuts = np.round(np.cumsum([0.7, 0.2]) * len(items)).astype(int)
        assert [len(part) for part in own[:2]] == np.diff([0, *cuts]).tolist()
    assert tiny.counts()["all"] == len(liked)


def test_nothing_left_is_an_error():
    with pytest.raises(UserError, match="min_user = 50"):
        implicit_task(random_dataset(), min_user=50)


@given(st.integers(0, 2**32 - 1))
def test_rows_are_those_of_the_matrix(seed):
    rng = np.random.default_rng(seed)
    pairs = np.unique(rng.integers((7, 5), size=(rng.integers(1, 25), 2)), axis=0)
    matrix = task(pairs, 7, 5).matrix("train", weights=rng.random(len(pairs)))
    samples = RowSamples.of(matrix)
    users = torch.from_numpy(rng.integers(7, size=4))
    assert np.array_equal(samples.rows(users).numpy(), matrix.toarray()[users])
    assert samples.label.tolist() == np.unique(pairs[:, 0]).tolist()  # users without a choice are no samples
    index = torch.tensor([len(samples) - 1])
    batch = samples.select(index).batch(torch.tensor([0]))
    assert batch.label.item() == pairs[-1, 0]
    assert np.array_equal(batch.x.numpy(), matrix.toarray()[pairs[-1:, 0]])
