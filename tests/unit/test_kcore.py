"""The k-core by SQL equals the one by brute force on random graphs, and survives a tight memory limit."""

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.kcore import k_core
from rec_utils.errors import UserError


def brute_force(ratings, user_core, item_core):
    """Drop one user or one item after the other, the worst first."""
    while len(ratings):
        users, items = ratings["user_id"].value_counts(), ratings["item_id"].value_counts()
        if users.min() < user_core:
            ratings = ratings[ratings["user_id"] != users.idxmin()]
        elif items.min() < item_core:
            ratings = ratings[ratings["item_id"] != items.idxmin()]
        else:
            break
    return ratings


def by_sql(ratings, user_core, item_core):
    with duckdb.connect() as connection:
        connection.from_df(ratings).create("ratings")
        rounds = k_core(connection, "ratings", user_core, item_core)
        return connection.sql("SELECT * FROM ratings ORDER BY row").df(), rounds


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7)), min_size=1, max_size=60),
    user_core=st.integers(1, 5),
    item_core=st.integers(1, 5),
)
def test_equals_brute_force(pairs, user_core, item_core):
    ratings = pd.DataFrame(pairs, columns=["user_id", "item_id"])  # pairs may repeat, as reviews do
    ratings["row"] = range(len(ratings))
    expected = brute_force(ratings, user_core, item_core)
    if expected.empty:
        with pytest.raises(UserError, match=f"user_core {user_core} and item_core {item_core}"):
            by_sql(ratings, user_core, item_core)
    else:
        found, _ = by_sql(ratings, user_core, item_core)
        assert found["row"].tolist() == expected["row"].tolist()
        assert found.columns.tolist() == ratings.columns.tolist()


def test_a_chain_falls_link_by_link():
    # each user shares one item with the next; the first has one item only, and pulls down all of them
    links = [(user, item) for user in range(1, 30) for item in (user, user + 1)][1:]
    core = [(100 + user, 100 + item) for user in range(2) for item in range(2)]
    ratings = pd.DataFrame(links + core, columns=["user_id", "item_id"]).assign(row=lambda t: t.index)
    found, rounds = by_sql(ratings, 2, 2)
    assert found["user_id"].tolist() == [100, 100, 101, 101]
    assert rounds > 10


def test_nothing_falls_from_a_core():
    ratings = pd.DataFrame({"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2], "row": range(4)})
    found, rounds = by_sql(ratings, 2, 2)
    assert rounds == 0
    pd.testing.assert_frame_equal(found, ratings, check_dtype=False)
