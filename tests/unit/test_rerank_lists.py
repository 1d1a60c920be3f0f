"""Lists against a plain loop over blocks, and against the counts known of KAR's lists."""

import numpy as np
import pytest
import torch
from tiny_ratings import random_dataset

from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.papers.released import released_split
from rec_utils.rerank_lists import rerank_lists
from rec_utils.samples import ctr_task


@pytest.fixture(scope="module")
def task():
    """Users with 7 samples each."""
    return ctr_task(random_dataset(n_users=30, n_items=40, n_each=14), history_length=3)


def blocks(task, n_rated):
    """(user, positions of the block's samples) of every list, by a loop."""
    found = []
    for user in np.unique(task.samples.user_row):
        positions = task.samples.position[task.samples.user_row == user].tolist()
        found += [(user, positions[i : i + n_rated]) for i in range(0, len(positions), n_rated)]
    return found


@pytest.mark.parametrize("n_rated", [1, 4, 7])
def test_lists_hold_blocks_of_a_users_samples_in_order(task, n_rated):
    lists = rerank_lists(task, n_rated=n_rated)
    expected = blocks(task, n_rated)
    assert len(lists) == len(expected)
    liked = (task.ratings["rating"] >= task.like_from).to_numpy()
    items = task.ratings["item_row"].to_numpy()
    for row, (user, positions) in enumerate(expected):
        assert lists.user_row[row] == user
        rated = lists.rated[row]
        got = sorted(zip(lists.item_row[row][rated].tolist(), lists.label[row][rated].tolist(), strict=True))
        assert got == sorted(zip(items[positions], liked[positions].astype(float), strict=True))
        assert not lists.label[row][~rated].any()
    assert lists.label.any()


def test_a_batch_has_the_history_before_the_block(task):
    lists = rerank_lists(task)
    index = torch.tensor([5, 0, 2, 1])
    batch = lists.batch(index)
    history = {}
    for row, (_, positions) in enumerate(blocks(task, 4)):
        history[row] = task.samples.sequence[positions[0] - 3 : positions[0]]
    for k, row in enumerate(index.tolist()):
        assert torch.equal(batch.history[k, :, 0], 1 + history[row])
        assert batch.mask[k].all()
    for name in ("item_row", "label", "user_row"):
        assert torch.equal(getattr(batch, name), getattr(lists, name)[index])
    assert torch.equal(batch.item, task.samples.item_fields[lists.item_row[index]])
    chosen = lists.select(index)
    for name, value in vars(chosen.batch(torch.arange(4))).items():
        if name in ("real", "past"):  # no padding, and no lists before
            assert value is None
        else:
            assert torch.equal(value, getattr(batch, name)), name
    assert lists.with_history(2).batch(index).history.shape[1] == 2
    (everything,) = lists.batches(len(lists))
    assert torch.equal(everything.label, lists.label)


def test_all_parts_move_to_another_device(task):
    moved = rerank_lists(task).to("meta")
    tensors = [*vars(moved).values(), *vars(moved.start).values()]
    assert {t.device.type for t in tensors if isinstance(t, torch.Tensor)} == {"meta"}
    assert moved.start.history_length == 3


def test_random_items_are_uniform_and_places_are_shuffled():
    task = ctr_task(random_dataset(n_users=400, n_items=20, n_each=12), history_length=1)
    lists = rerank_lists(task)
    drawn = np.bincount(lists.item_row[~lists.rated], minlength=20)
    mean = drawn.sum() / 20
    assert ((drawn - mean) ** 2 / mean).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001
    at_place = lists.rated.sum(0).numpy()
    mean = at_place.sum() / 10
    assert ((at_place - mean) ** 2 / mean).sum() < 27.9  # 9 degrees of freedom, p = 0.001
    again, other = rerank_lists(task), rerank_lists(task, seed=1)
    assert torch.equal(again.item_row, lists.item_row)
    assert not torch.equal(other.item_row, lists.item_row)


def test_lists_can_be_made_of_a_part_of_the_catalogue(task):
    catalogue = np.arange(3, 40, 2)
    lists = rerank_lists(task, catalogue=catalogue)
    assert set(lists.item_row.flatten().tolist()) == set(catalogue)
    inside = torch.from_numpy(np.isin(task.samples.item_row, catalogue))
    assert lists.rated.sum() == inside.sum()
    assert lists.label.sum() == task.samples.label[inside].sum()
    for user in lists.user_row.unique():
        counts = lists.rated[lists.user_row == user].sum(1)
        assert (counts[:-1] == 4).all() and counts[-1] > 0
    with pytest.raises(UserError, match="no sample is of an item of the catalogue"):
        rerank_lists(task, catalogue=np.array([], int))


@pytest.mark.parametrize("n_rated", [0, 11])
def test_a_list_must_hold_its_rated_items(task, n_rated):
    with pytest.raises(UserError, match="n_rated must lie between 1 and n_candidates = 10"):
        rerank_lists(task, n_rated=n_rated)


@pytest.mark.parametrize(
    ("rule", "train", "test"), [("released", 188_040, 23_011), ("half", 189_860, 23_232)]
)
def test_movielens_1m_gives_as_many_lists_as_the_released_code(rule, train, test):
    try:
        dataset = data.load("ml-1m")
    except UserError as error:
        pytest.skip(str(error))
    lists = rerank_lists(ctr_task(dataset, history_length=5, prompt_rule=rule, order="date"))
    is_test = released_split(np.arange(1, 6041))[lists.user_row.numpy()]
    assert (np.count_nonzero(~is_test), np.count_nonzero(is_test)) == (train, test)
