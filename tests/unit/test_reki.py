"""REKI: lists and requests of groups against plain loops, no rating of the future, controls, HEIN."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import dataset, random_dataset

from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.knowledge import movies
from rec_utils.knowledge.prompts import MOVIE_FACTORS, SYSTEM
from rec_utils.knowledge.store import Store
from rec_utils.papers import kar, reki
from rec_utils.papers.reki import (
    Grouping,
    check_prompts_only,
    group_request,
    id_codes,
    seeing_all,
    shared_items,
    user_groups,
)
from rec_utils.samples import ctr_task


def tiny(seed=0, **kw):
    return ctr_task(random_dataset(n_users=30, seed=seed, **kw), history_length=3)


def item_vectors(task, seed=0):
    return np.random.default_rng(seed).normal(size=(len(task.item_ids), 5))


# Lists


ratings = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), unique=True, max_size=50)


@settings(deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=10, max_size=10), ratings, st.integers(1, 4))
def test_a_list_holds_what_enough_users_of_the_group_share(group, rated, min_users):
    names = {g: n for n, g in enumerate(sorted({*group} - {-1}))} | {-1: -1}
    group = np.array([names[g] for g in group])  # numbered without gaps
    user, item = np.array(rated, dtype=int).reshape(-1, 2).T
    lists = shared_items(group, user, item, min_users)
    assert len(lists) == group.max() + 1
    for g, found in enumerate(lists):
        members = np.flatnonzero(group == g)
        needed = 1 if len(members) == 1 else min_users
        raters = {i: len({u for u, at in rated if at == i and u in members}) for i in range(6)}
        assert found.tolist() == [i for i in range(6) if raters[i] >= needed]


def test_lists_come_from_the_right_side_of_the_prompt_histories():
    """Three users like 1 and reject 2 in their prompts; what they like later is in no list."""
    rows = [
        (u, i, r, 10 * u + t) for u in (1, 2, 3) for t, (i, r) in enumerate([(1, 5), (2, 1), (3, 5), (4, 5)])
    ]
    task = ctr_task(dataset(rows, {1: "A", 2: "B", 3: "C", 4: "D"}), history_length=1)
    assert task.prompts["item_row"].isin([0, 1]).all()
    vectors = np.eye(4) - 0.25
    for liked, expected in ((True, [0]), (False, [1])):
        grouping = user_groups(task, vectors, 10, liked=liked)
        assert (grouping.group == 0).all()
        assert [items.tolist() for items in grouping.items] == [expected]


# No rating of the future


def flipped(task):
    """The same task after every rating behind the prompt histories was turned round."""
    rating = task.ratings["rating"].where(task.ratings["in_prompt"], 6 - task.ratings["rating"])
    assert (rating != task.ratings["rating"]).any()
    return replace(task, ratings=task.ratings.assign(rating=rating))


@pytest.mark.parametrize("liked", [True, False])
def test_no_rating_behind_the_prompt_histories_reaches_a_group(liked):
    task = tiny()
    vectors = item_vectors(task)
    one = user_groups(task, vectors, 8, liked=liked)
    other = user_groups(flipped(task), vectors, 8, liked=liked)
    np.testing.assert_array_equal(one.group, other.group)
    assert [items.tolist() for items in one.items] == [items.tolist() for items in other.items]
    assert any(map(len, one.items))


@pytest.mark.parametrize("liked", [True, False])
def test_the_check_finds_the_leak_that_the_control_makes(liked):
    task = tiny()
    vectors = item_vectors(task)
    check_prompts_only(task, lambda t: user_groups(t, vectors, 8, liked=liked))
    with pytest.raises(UserError, match="leak"):
        check_prompts_only(task, lambda t: user_groups(seeing_all(t), vectors, 8, liked=liked))


def test_the_check_finds_lists_that_leak_from_sound_groups():
    task = tiny()
    group = user_groups(task, item_vectors(task), 8, liked=True).group

    def lists_of_all(task):
        chosen = task.ratings[task.ratings["rating"] >= task.like_from]
        return Grouping(group, shared_items(group, *chosen[["user_row", "item_row"]].to_numpy().T))

    with pytest.raises(UserError, match="leak"):
        check_prompts_only(task, lists_of_all)


def test_a_user_who_rejected_nothing_has_no_group_of_that_side():
    rows = [(u, i, 5 if u < 3 else 1 + i % 5, i) for u in range(9) for i in range(6)]
    task = ctr_task(dataset(rows, dict.fromkeys(range(6), "A")), history_length=1)
    grouping = user_groups(task, item_vectors(task), 4, liked=False)
    assert (grouping.group[:3] == -1).all()
    assert (grouping.group[3:] >= 0).all()
    assert grouping.sizes().sum() == 6
    assert not grouping.spread(np.ones((len(grouping.items), 2)))[:3].any()


# Requests


def test_a_request_shows_fifteen_titles_of_the_list_in_its_order_and_the_factors_of_films():
    titles = [f"Film {n} (1999)" for n in range(40)]
    request = group_request(titles)
    shown = [title for title in titles if f'"{title}"' in request.prompt]
    assert len(shown) == 15
    assert request.prompt.index(shown[0]) < request.prompt.index(shown[-1])
    assert all(factor in request.prompt for factor in MOVIE_FACTORS)
    assert "author" not in request.prompt
    assert request.system == SYSTEM["group_traits"]
    assert request.key == group_request(titles).key != group_request(titles[1:]).key


def test_a_short_list_is_shown_whole_and_an_empty_one_asks_nothing():
    request = group_request(["A", "B"])
    assert '"A"; "B".' in request.prompt
    assert group_request([]) is None


def test_the_wording_is_the_one_that_was_answered():
    """A change of the wording orphans the shipped answers."""
    assert group_request(["Heat (1995)"]).key == KEY


KEY = "573bc37c4dddd78164bc5aa7824948f096e489d79fedaa34e38950bfdef77741"


# Controls


def test_dealt_groups_keep_their_sizes_and_leave_out_whom_they_left_out():
    grouping = Grouping(np.array([0, 0, 0, 1, -1, 1, 2, 0]), [np.array([k]) for k in range(3)])
    dealt = grouping.dealt(1)
    np.testing.assert_array_equal(np.sort(dealt.group), np.sort(grouping.group))
    assert dealt.group[4] == -1
    assert (dealt.group != grouping.group).any()


def test_rows_of_a_group_share_its_vector():
    grouping = Grouping(np.array([1, 0, -1, 1]), [np.array([0]), np.array([1])])
    table = grouping.spread(np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_array_equal(table, [[3, 4], [1, 2], [0, 0], [3, 4]])
    assert table.dtype == np.float32


def test_mean_titles_are_means_over_the_list_and_zero_for_an_empty_one():
    grouping = Grouping(np.array([0, 1, 2]), [np.array([0, 1]), np.array([2]), np.array([], dtype=int)])
    vectors = np.array([[2.0, 0.0], [0.0, 2.0], [-3.0, 1.0]])
    means = np.array([[1.0, 1.0], [-3.0, 1.0]])
    expected = means - means.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(reki.title_means(grouping, vectors), [*expected, [0, 0]], atol=1e-7)


def test_the_code_of_an_id_is_a_learned_embedding():
    """The first layer adds one column a group; no two groups of any side share one."""
    one = Grouping(np.array([0, 1, 1]), [np.array([0]), np.array([1])])
    two = Grouping(np.array([2, -1, 0]), [np.array([0])] * 3)
    codes = id_codes({"item": one, "user_liked": two})
    np.testing.assert_array_equal(codes["item"], [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(codes["user_liked"], [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]])
    layer = kar.HybridExpertAdaptor(["item", "user_liked"], 5, shared=1, dedicated=0).shared.hidden
    hidden = layer(torch.from_numpy(codes["item"]))
    np.testing.assert_allclose(hidden[0].detach(), (layer.weight[:, 0] + layer.bias).detach(), atol=1e-6)


# Integration


def test_hein_takes_an_items_group_and_both_groups_of_the_user():
    task = tiny()
    rng = np.random.default_rng(0)
    sides = {
        "item": rng.normal(size=(len(task.item_ids), 6)),
        "user_liked": rng.normal(size=(30, 6)),
        "user_disliked": rng.normal(size=(30, 6)),
    }
    sides = {name: table.astype(np.float32) for name, table in sides.items()}
    model = kar.arm(sides).build(task.samples, 0).eval()
    assert model.adaptor.out_dim == 96
    batch = task.samples.batch(torch.arange(5))
    before = model(batch)
    for name in sides:  # each side matters, and only by the rows of the batch
        changed = {n: t.copy() for n, t in sides.items()}
        row = (batch.item_row if name == "item" else batch.user_row)[0]
        changed[name][row] += 1
        after = kar.arm(changed).build(task.samples, 0).eval()(batch)
        assert after[0] != before[0]
        same_row = (batch.item_row if name == "item" else batch.user_row) == row
        torch.testing.assert_close(after[~same_row], before[~same_row])


# The shipped answers


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REC_DATA", str(tmp_path_factory.mktemp("data")))
        found = data.load("ml-latest-small")
        yield found, ctr_task(found, history_length=5, min_ratings=10, max_samples_per_user=200)


@pytest.fixture(scope="module")
def shipped_groups(small):
    """The groups that were asked about, by (side, limit)."""
    titles = reki.title_vectors(*small)
    tree = reki.item_tree(titles)
    groups = {("item", below): reki.item_groups(tree, below) for below in (200, 800)}
    for side, liked in {"user_liked": True, "user_disliked": False}.items():
        groups[side, 40] = user_groups(small[1], titles, 40, liked=liked)
    return groups


def test_the_shipped_answers_are_those_to_the_requests_that_the_data_give(small, shipped_groups):
    asked = {}
    for (side, below), grouping in shipped_groups.items():
        for number, request in enumerate(reki.group_requests(*small, grouping)):
            asked.setdefault(request.key, {"side": side, "below": below, "group": number})
    answers = {answer.key: answer for answer in Store(movies.GROUPS, readonly=True)}
    assert {key: dict(answer.meta) for key, answer in answers.items()} == asked
    assert len(asked) == 81 + 21 + 22 + 23 - 1  # one group of films is the same at both sizes


def test_every_row_with_a_group_has_the_vector_of_its_groups_answer(small, shipped_groups):
    for grouping in shipped_groups.values():
        table = reki.text_vectors(*small, grouping)
        np.testing.assert_array_equal(table.any(axis=1), grouping.group >= 0)
        assert len(np.unique(table[grouping.group >= 0], axis=0)) == len(grouping.items)


def test_item_groups_share_out_all_films(small, shipped_groups):
    """Every rated film is in exactly one group of each size, and no group reaches the limit."""
    for below in (200, 800):
        grouping = shipped_groups["item", below]
        members = np.concatenate(grouping.items)
        np.testing.assert_array_equal(np.sort(members), np.arange(len(small[1].item_ids)))
        assert grouping.sizes().max() < below


def test_groups_that_nobody_was_asked_about_are_named():
    unknown = random_dataset(n_users=30, titles={100 + n: f"Unknown film {n}" for n in range(20)})
    task = ctr_task(unknown, history_length=3)
    grouping = user_groups(task, item_vectors(task), 31, liked=True)
    with pytest.raises(UserError, match=r"group_traits request .* has no answer in groups_ml-latest-small"):
        reki.text_vectors(unknown, task, grouping)
