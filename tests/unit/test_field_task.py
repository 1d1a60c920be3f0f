"""The samples of ClickPrompt and CoReLLa against plain loops, and against what the papers report."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import dataset, random_dataset

from data_prep.build import Built
from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.field_task import field_task
from rec_utils.splits import LeakError, check_history_precedes, check_time_split

GENRES = {3: "Drama|War", 5: "War", 11: "", 40: "Drama"}
TITLES = {3: "Heat (1995)", 5: "Heat (1986)", 11: "2001 (a remake)", 40: "Se7en (1995) "}
row = st.tuples(
    st.sampled_from([2, 7, 30]),
    st.sampled_from(list(GENRES)),
    st.sampled_from(np.arange(0.5, 5.5, 0.5).tolist()),
    st.integers(0, 9),
)


@settings(deadline=None)
@given(
    rows=st.lists(row, min_size=20, max_size=60),
    protocol=st.sampled_from(["ClickPrompt", "CoReLLa"]),
    length=st.integers(0, 4),
    first_users=st.none() | st.integers(1, 3),
)
def test_samples_are_the_ratings_in_time_order_each_with_what_its_user_rated_before(
    rows, protocol, length, first_users
):
    made = dataset(rows, GENRES, titles=TITLES)
    kept = [r for r in rows if protocol == "CoReLLa" or not 3 <= r[2] < 4]
    users = sorted({user for user, *_ in kept})[:first_users]
    kept = sorted((r for r in kept if r[0] in users), key=lambda r: (r[3], r[0], r[1]))
    if len(kept) < 10:
        return
    task = field_task(made, protocol, history_length=length, first_users=first_users)
    samples = task.samples
    assert len(samples) == len(kept)
    texts = {0: "padding"}
    for table, ids in ((task.user_texts, samples.user_fields), (task.item_texts, samples.item_fields)):
        for line, line_ids in zip(table.to_numpy(), ids.tolist(), strict=True):
            for name, text, number in zip(table, line, line_ids, strict=True):
                assert texts.setdefault(number, (name, text)) == (name, text)
    assert len(set(texts.values())) == len(texts)  # one id a text, one text an id
    # ratings of one user and second may stand in any order that the samples agree on
    rating_of = dict(zip(samples.position.tolist(), task.ratings["rating"], strict=True))
    assert list(task.ratings["rating"]) == pytest.approx([r[2] for r in kept])

    batch = samples.batch(torch.arange(len(samples)))
    for n, (user, item, rating, _) in enumerate(kept):
        title = {3: "Heat", 5: "Heat", 11: "2001 (a remake)", 40: "Se7en"}[item]
        genre = GENRES[item].split("|")[0] or "unknown"
        assert [texts[number] for number in batch.item[n].tolist()] == [
            ("User ID", str(user)),
            ("Movie ID", str(item)),
            ("Title", title),
            ("Film genre", genre),
        ]
        assert bool(batch.label[n]) == (rating >= 4)
        earlier = [r for r in kept[:n] if r[0] == user][
            max(0, sum(r[0] == user for r in kept[:n]) - length) :
        ]
        steps = batch.history[n][batch.mask[n]].tolist()
        assert [texts[step[0]][1] for step in steps] == [str(r[1]) for r in earlier]
        before = int(samples.position[n])
        assert [rating_of[before - len(steps) + k] for k in range(len(steps))] == [r[2] for r in earlier]
        assert len({step[3] for step in steps}) == len({r[2] for r in earlier})


def test_the_split_is_by_time_and_its_random_counterpart_has_the_same_sizes():
    task = field_task(random_dataset(n_users=30), "CoReLLa", history_length=3)
    time = task.ratings["timestamp"].to_numpy()
    check_time_split(time, task.masks, ties=True)
    sizes = [mask.sum() for mask in task.masks]
    assert sizes == [288, 36, 36]
    mixed = task.random_masks(1)
    assert [mask.sum() for mask in mixed] == sizes
    with pytest.raises(LeakError):
        check_time_split(time, mixed, ties=True)
    assert all(np.array_equal(a, b) for a, b in zip(mixed, task.random_masks(1), strict=True))
    assert not np.array_equal(mixed[2], task.random_masks(2)[2])
    samples, order = task.samples, np.argsort(task.samples.position.numpy())
    nobody = np.zeros(len(order), bool)
    user = task.ratings["user_row"].to_numpy()
    check_history_precedes(user[order], time[order], samples.first.numpy(), samples.position.numpy(), nobody)


def test_a_profile_becomes_fields_in_clickprompts_order():
    made = random_dataset(n_users=3, name="ml-1m")
    profile = {"gender": ["F", "M", "F"], "age": [1, 56, 25], "occupation": [10, 0, 12], "zip": ["04001"] * 3}
    made = data.Dataset(**{**vars(made), "users": made.users.assign(**profile)})
    task = field_task(made, "CoReLLa")
    assert [*task.user_texts, *task.item_texts] == [
        *("User ID", "Gender", "Age", "Job", "Zipcode"),
        *("Movie ID", "Title", "Film genre"),
    ]
    assert task.user_texts.to_numpy().tolist() == [
        ["10", "female", "under 18", "K-12 student", "04001"],
        ["20", "male", "56+", "other or not specified", "04001"],
        ["30", "female", "25-34", "programmer", "04001"],
    ]
    exact = made.users.assign(age=[25, 24, 7], occupation=["writer", "other", "none"])
    other = field_task(data.Dataset(**{**vars(made), "users": exact, "name": "ml-100k"}), "CoReLLa")
    assert other.user_texts["Age"].tolist() == ["25", "24", "7"]
    assert other.user_texts["Job"].tolist() == ["writer", "other", "none"]
    assert task.samples.user_fields[:, 1].unique().numel() == 2
    assert task.samples.user_fields[:, 4].unique().numel() == 1


def test_mistakes_are_named():
    with pytest.raises(UserError, match="did you mean 'ClickPrompt'"):
        field_task(random_dataset(), "clickprompt")
    with pytest.raises(UserError, match="tiny: 2 ratings are too few to split by time"):
        field_task(dataset([(1, 3, 5.0, 1), (1, 5, 1.0, 2)], GENRES), "CoReLLa")


@pytest.mark.skipif(Built.read("ml-1m") is None, reason="MovieLens-1M is not built here")
@pytest.mark.parametrize(
    ("protocol", "sizes", "positive"),
    [
        ("ClickPrompt", (591_208, 73_902, 73_902), 0.7784),
        ("CoReLLa", (800_167, 100_021, 100_021), 0.5752),
    ],
)
def test_movielens_1m_has_the_published_numbers(protocol, sizes, positive):
    task = field_task(data.load("ml-1m"), protocol)
    assert tuple(int(mask.sum()) for mask in task.masks) == sizes
    assert task.samples.label.mean().item() == pytest.approx(positive, abs=5e-5)
    assert task.samples.n_fields == 8
    if protocol == "ClickPrompt":
        features = pd.concat([task.user_texts.nunique(), task.item_texts.nunique()])
        assert features.tolist() == [6040, 2, 7, 21, 3439, 3668, 3626, 18]
        assert task.samples.n_ids == 1 + 16_821 + 4  # padding, features, rating levels
