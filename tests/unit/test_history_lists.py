"""Lists with their history against plain loops, and the leak checks against planted leaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_lists import random_log
from tiny_ratings import dataset, random_dataset

from rec_utils.errors import UserError
from rec_utils.history_lists import PARTS, check_leaks, history_lists, split_users
from rec_utils.list_log import id_columns, rating_lists
from rec_utils.splits import LeakError

LOGS = {
    "full": random_log(),
    "padded": random_log(pad=True, seed=1),
    "with users": random_log(user_fields=True, seed=2),
}
every_log = pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)


def all_of(lists):
    return lists.batch(torch.arange(len(lists)))


# From ratings


def cut(rows, length, min_lists, max_lists):
    """(user, ratings of a list as (time, item, rating)) of every list, by a loop; times must differ."""
    lists = []
    for user in sorted({row[0] for row in rows}):
        own = sorted((time, item, rating) for who, item, rating, time in rows if who == user)
        parts = [own[i : i + length] for i in range(0, len(own) - length + 1, length)]
        lists += [(user, part) for part in parts[:max_lists]] if len(parts) >= min_lists else []
    return lists


@pytest.mark.parametrize(
    ("length", "min_lists", "max_lists"), [(3, 2, None), (2, 1, 3), (4, 4, 4), (5, 1, None)]
)
def test_ratings_are_cut_into_lists_in_time_order(length, min_lists, max_lists):
    rng = np.random.default_rng(0)
    rows = [
        (10 + user, 100 + item, float(rng.integers(1, 6)), int(time))
        for user, n in enumerate([3, 8, 20, 17])
        for item, time in zip(rng.permutation(40)[:n], rng.permutation(1000)[:n], strict=True)
    ]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    genres = {100 + item: ("Drama|War", "War", "")[item % 3] for item in range(40)}
    log = rating_lists(
        dataset(rows, genres), like_from=4, length=length, min_lists=min_lists, max_lists=max_lists
    )
    expected = cut(rows, length, min_lists, max_lists)
    assert log.user_ids[log.user_row].tolist() == [user for user, _ in expected]
    assert log.item_ids[log.item_row].tolist() == [[item for _, item, _ in part] for _, part in expected]
    assert log.clicked.tolist() == [[rating >= 4 for *_, rating in part] for _, part in expected]
    assert log.begin.tolist() == [part[0][0] for _, part in expected]
    assert log.end.tolist() == [part[-1][0] for _, part in expected]
    assert log.real.all() and log.length == length
    assert log.click_rate == log.clicked.mean()
    assert len(np.unique(log.user_row)) == len(log.user_ids)
    assert len(np.unique(log.item_row)) == len(log.item_ids)
    # equal ids mean equal values, and no two fields share one
    first = [genres[item].split("|")[0] for item in log.item_ids]
    for i in range(len(first)):
        for j in range(len(first)):
            assert (log.item_fields[i, 1] == log.item_fields[j, 1]) == (first[i] == first[j])
    assert sorted(np.unique(log.item_fields)) == list(range(1, log.n_ids))


def test_ratings_of_one_second_are_shuffled_by_the_seed_and_no_further():
    rows = [(1, item, 5.0 if item % 2 else 1.0, item // 20) for item in range(100)]
    data = dataset(rows, dict.fromkeys(range(100), "War"))
    one, same, other = (rating_lists(data, like_from=5, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.item_row, same.item_row)
    assert not np.array_equal(one.item_row, other.item_row)
    for log in (one, other):
        of_second = log.item_ids[log.item_row].reshape(5, 20)
        assert (np.sort(of_second) == np.arange(100).reshape(5, 20)).all()
        assert not (of_second == np.sort(of_second)).all()


def test_the_first_users_only():
    log = rating_lists(random_dataset(n_users=9), like_from=4, length=4, min_lists=1, first_users=3)
    assert log.user_ids.tolist() == [10, 20, 30]


def test_ids_of_columns_count_on():
    ids, next_id = id_columns([np.array(["b", "a", "b"]), np.array([7, 7, 3])], 5)
    assert ids.tolist() == [[6, 8], [5, 8], [6, 7]] and next_id == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length must be at least 1, not 0"),
        ({"max_lists": 0}, "max_lists must be at least 1"),
        ({"min_lists": 3}, "tiny: no user has min_lists = 3 lists of 10"),
        ({"like_from": 6, "min_lists": 1}, "like_from = 6 all ratings are clicks, or none"),
        ({"like_from": 1, "min_lists": 1}, "like_from = 1 all ratings are clicks, or none"),
    ],
)
def test_what_cannot_be_cut_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        rating_lists(random_dataset(), **({"like_from": 5} | settings))


# With history


@every_log
@pytest.mark.parametrize("min_past", [0, 1, 3])
@pytest.mark.parametrize("mixed", [True, False])
def test_lists_to_rerank_are_those_of_a_loop(log, min_past, mixed):
    lists = history_lists(log, min_past=min_past, mixed=mixed)
    expected = []
    for t, user in enumerate(log.user_row):
        n_before = (log.user_row[:t] == user).sum()
        clicks = log.clicked[t][log.real[t]]
        if n_before >= min_past and not (mixed and clicks.all() | ~clicks.any()):
            expected.append(t)
    assert lists.target.tolist() == expected
    assert np.array_equal(lists.label.numpy(), log.clicked[expected])
    assert np.array_equal(lists.item_row.numpy(), log.item_row[expected])
    assert (lists.real is None) == log.real[expected].all()


@every_log
@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize(("m", "h"), [(5, 5), (2, 5), (3, 2), (1, 1)])
def test_the_history_is_that_of_a_loop(log, only, m, h):
    lists = history_lists(log, n_past=4, min_past=0, mixed=False).with_past(m, h)
    lists = lists.positives_only() if only else lists
    batch = all_of(lists)
    not_clicked, clicked = log.n_ids, log.n_ids + 1
    for row, t in enumerate(lists.target.tolist()):
        past = np.zeros((m, h, 2), int)
        was_clicked, real, flat = np.zeros((m, h), bool), np.zeros((m, h), bool), []
        for age in range(m, 0, -1):
            if t - age < 0 or log.user_row[t - age] != log.user_row[t]:
                continue
            for j in range(h):
                click = log.clicked[t - age, j]
                if not log.real[t - age, j] or (only and not click):
                    continue
                fields = log.item_fields[log.item_row[t - age, j]]
                past[m - age, j], was_clicked[m - age, j], real[m - age, j] = fields, click, True
                assert batch.past.item_row[row, m - age, j] == log.item_row[t - age, j]
                flat.append([*fields, clicked if click else not_clicked])
        assert np.array_equal(batch.past.item[row], past)
        assert np.array_equal(batch.past.clicked[row], was_clicked)
        assert np.array_equal(batch.past.real[row], real)
        assert batch.history[row][batch.mask[row]].tolist() == flat
        assert not batch.history[row][~batch.mask[row]].any()
        assert batch.mask[row].tolist() == sorted(batch.mask[row].tolist())  # padding on the left
    assert not batch.past.clicked[~batch.past.real].any()


@every_log
@pytest.mark.parametrize("with_rank", [True, False])
def test_candidates_have_the_fields_of_item_user_and_rank(log, with_rank):
    lists = history_lists(log, min_past=1)
    lists = lists if with_rank else lists.without_rank()
    index = torch.tensor([3, 0, 5])
    batch = lists.batch(index)
    for row, i in enumerate(index.tolist()):
        t = lists.target[i]
        for j in range(log.length):
            ids = [*log.item_fields[log.item_row[t, j]]]
            ids += [] if log.user_fields is None else [*log.user_fields[log.user_row[t]]]
            ids += [log.n_ids + 2 + j] if with_rank else []
            assert batch.item[row, j].tolist() == (ids if log.real[t, j] else [0] * len(ids))
    assert batch.item.shape[2] == lists.n_fields
    assert batch.item.max() < lists.n_ids
    assert batch.user_row.tolist() == log.user_row[lists.target[index]].tolist()
    if batch.real is not None:
        assert np.array_equal(batch.real, log.real[lists.target[index]])
    # every id of the table but padding is in one field
    ids = torch.cat(lists.field_ids)
    assert sorted(ids.tolist()) == list(range(1, lists.n_ids))


@every_log
def test_an_initial_ranker_brings_the_candidates_into_its_order(log):
    lists = history_lists(log, min_past=1)
    score = np.random.default_rng(0).integers(0, 3, lists.label.shape)
    ranked = lists.ranked_by(score)
    values = np.random.default_rng(1).normal(size=log.item_row.shape)
    for i in range(len(lists)):
        t = lists.target[i].item()
        n = log.real[t].sum()
        order = sorted(range(n), key=lambda j: -score[i, j])  # stable
        assert ranked.place[i, :n].tolist() == order
        for name, of_log in (("item_row", log.item_row), ("label", log.clicked)):
            assert getattr(ranked, name)[i, :n].tolist() == of_log[t, order].tolist()
        assert ranked.of_log(values)[i, :n].tolist() == values[t, order].tolist()
        assert ranked.category[i, :n].tolist() == log.item_fields[log.item_row[t, order], 1].tolist()
    before, after = all_of(lists), all_of(ranked)
    assert torch.equal(before.past.item, after.past.item)
    assert torch.equal(before.item[..., -1], after.item[..., -1])  # ranks stay where they are
    with pytest.raises(UserError, match=r"scores for \("):
        lists.ranked_by(score[:, :2])
    with pytest.raises(UserError, match="score of list 2 is NaN"):
        lists.ranked_by(np.where(np.arange(len(lists))[:, None] >= 2, np.nan, score))


@every_log
def test_shuffled_feedback_keeps_the_number_of_clicks_of_a_list_and_the_labels(log):
    lists = history_lists(log, min_past=1)
    one, same, other = (lists.with_shuffled_feedback(seed) for seed in (0, 0, 1))
    assert torch.equal(one.clicked, same.clicked)
    assert not torch.equal(one.clicked, other.clicked)
    assert torch.equal(one.clicked.sum(1), lists.clicked.sum(1))
    assert not (one.clicked & ~one.is_real).any()
    assert torch.equal(one.label, lists.label)
    moved = (one.clicked != lists.clicked).sum() / lists.clicked.sum()
    assert moved > 0.5  # twice the share of clicks that are elsewhere now


def test_lists_are_selected_and_moved_with_all_their_parts():
    lists = history_lists(LOGS["padded"], min_past=1)
    index = torch.tensor([4, 1, 3])
    chosen = lists.select(index)
    for one, two in zip(
        vars(chosen.batch(torch.arange(3))).values(), vars(lists.batch(index)).values(), strict=True
    ):
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else True
    assert torch.equal(chosen.batch(torch.arange(3)).past.item, lists.batch(index).past.item)
    users = np.array([False, True, False, False, True])
    assert set(lists.of_users(users).user_row.tolist()) == {1, 4}
    assert len(lists.of_users(users)) == sum(users[lists.user_row.numpy()])
    moved = lists.to("meta")
    assert {v.device.type for v in vars(moved).values() if isinstance(v, torch.Tensor)} == {"meta"}


@pytest.mark.parametrize(("m", "h"), [(0, 5), (2, 0), (2, 6)])
def test_a_history_that_is_not_there_is_refused(m, h):
    with pytest.raises(UserError, match=f"A history of {m} lists of {h} places"):
        history_lists(LOGS["full"]).with_past(m, h)


def test_a_log_without_lists_to_rerank_is_refused():
    with pytest.raises(UserError, match="no list to re-rank has min_past = 9"):
        history_lists(LOGS["full"], min_past=9)


# Parts


@pytest.mark.parametrize("n_users", [20, 61, 500])
def test_users_are_drawn_into_parts_of_the_given_shares(n_users):
    users = split_users(n_users, 0)
    assert list(users) == list(PARTS)
    assert (np.sum(list(users.values()), axis=0) == 1).all()
    size = {name: mask.sum() for name, mask in users.items()}
    assert abs(size["ranker"] - 0.4 * n_users) <= 1
    assert abs(size["test"] - 0.1 * n_users) <= 1
    assert abs(size["valid"] - 0.05 * n_users) <= 1
    again, other = split_users(n_users, 0), split_users(n_users, 1)
    assert all(np.array_equal(users[name], again[name]) for name in PARTS)
    assert not np.array_equal(users["train"], other["train"])
    assert users["ranker"][: n_users // 2].any() and users["ranker"][n_users // 2 :].any()


def test_shares_that_leave_a_part_empty_are_refused():
    with pytest.raises(UserError, match="3 users are too few: the"):
        split_users(3, 0)
    with pytest.raises(UserError, match="must be positive and sum to 1"):
        split_users(30, 0, shares=(0.5, 0.5, 0.1))


@every_log
def test_leaks_are_found(log):
    lists = history_lists(log, n_past=2, min_past=1, mixed=False)
    masks = {"ranker": [True, True, False, False, False], "train": [False, False, True, True, False]}
    masks["test"] = [False, False, False, False, True]
    parts = {name: lists.of_users(np.array(mask)) for name, mask in masks.items()}
    check_leaks(log, parts)
    with pytest.raises(LeakError, match="user row 4 is in test and in valid"):
        check_leaks(log, parts | {"valid": parts["test"].select(torch.tensor([0]))})
    late = log.end.copy()
    t = parts["train"].target[3].item()
    late[t - 1] = log.begin[t] + 1
    with pytest.raises(
        LeakError, match=rf"list 3 of train \(list {t} of tiny\) reads a list that ends later"
    ):
        check_leaks(replace(log, end=late), parts)
    wrong = replace(parts["train"], first=parts["train"].first - 1)
    with pytest.raises(LeakError, match="reads a list of another user"):
        check_leaks(log, parts | {"train": wrong})
