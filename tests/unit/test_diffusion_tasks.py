"""Data of the survey by name, and their check."""

from dataclasses import replace

import numpy as np
import pytest

from rec_utils.errors import UserError
from rec_utils.papers.diffusion import tasks


def test_likes_of_a_data_set_by_name():
    rows = tasks.rows("ml-latest-small", first_users=30)
    assert (rows.name, rows.n_users) == ("ml-latest-small", 30)
    sequences = tasks.sequences("ml-latest-small", first_users=30, max_length=7)
    assert np.diff(sequences.start).max() == 7


@pytest.mark.parametrize("read", [tasks.rows, tasks.sequences])
def test_unknown_data_are_named(read):
    with pytest.raises(UserError, match="beuaty"):
        read("beuaty")


@pytest.mark.parametrize("part", ["validation", "test"])
def test_an_item_in_two_parts_is_found(part):
    rows = tasks.rows("ml-latest-small", first_users=30)
    tasks.check_leaks(rows)
    user, item = rows.train[5]
    leaking = replace(rows, **{part: np.concatenate([getattr(rows, part), rows.train[5:6]])})
    with pytest.raises(UserError, match=f"user {user} has item {item} in {part}"):
        tasks.check_leaks(leaking)
