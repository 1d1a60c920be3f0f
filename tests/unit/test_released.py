"""KAR's ids and split, against what stands in its released file and against published counts."""

import numpy as np
import pandas as pd
import pytest

from data_prep.build import Built
from rec_utils import data
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.papers.released import released_items, released_split, released_users
from rec_utils.samples import ctr_task


def _dataset(rows: list[tuple[int, int, int]]) -> Dataset:
    ratings = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    empty = pd.DataFrame()
    return Dataset("tiny", "Tiny", empty, empty, ratings.assign(rating=4.0), (1, 5), "", "", {})


def test_users_stand_in_the_order_of_the_released_file():
    users = released_users()
    assert users[:5].tolist() == [2179, 3813, 2108, 778, 4232]  # the first keys of begin_index.json
    assert sorted(users) == list(range(1, 6041))


def test_items_are_numbered_by_first_appearance_over_the_shuffled_users():
    first, second, third = released_users(3)
    day = 86_400
    rows = [
        (third, 10, 0),
        (second, 30, 2 * day),  # a later day than the next row of this user
        (second, 20, day + 5),
        (first, 40, 9),
        (first, 50, 3),  # the same day as 40: the file's order counts, not the second
        (third, 40, 0),
    ]
    assert released_items(_dataset(rows)).tolist() == [40, 50, 20, 30, 10]


def test_the_split_does_not_depend_on_the_order_of_the_ids():
    ids = np.arange(1, 21)
    test = released_split(ids)
    assert test.sum() == 2
    assert set(ids[test]) == set(ids[::-1][released_split(ids[::-1])])


@pytest.mark.parametrize("ids", [[2, 3, 4], [1, 2, 2]])
def test_other_user_ids_are_refused(ids):
    with pytest.raises(UserError, match="users 1 to 3"):
        released_split(np.array(ids))


def test_items_of_other_user_ids_are_refused():
    with pytest.raises(UserError, match="tiny has other user ids"):
        released_items(_dataset([(7, 1, 0)]))


def test_the_counts_on_movielens_1m():
    if Built.read("ml-1m") is None:
        pytest.skip("MovieLens-1M may not be shipped and is not built here: python -m data_prep build ml-1m")
    dataset = data.load("ml-1m")
    task = ctr_task(dataset, history_length=5, min_ratings=10, prompt_rule="released", order="date")
    test = released_split(task.user_ids)[task.samples.user_row.numpy()]
    label = task.samples.label.numpy()
    assert (test.sum(), (~test).sum()) == (91_127, 744_062)
    assert round(float(label[test].mean()), 4) == 0.5677
    assert round(float(label[~test].mean()), 4) == 0.5611
    assert len(released_items(dataset)) == 3_706
