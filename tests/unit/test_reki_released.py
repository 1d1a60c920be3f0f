"""The reader and the rules of REKI's released files, on fabricated ones and on the real ones if built."""

import json

import numpy as np
import pandas as pd
import pytest

from rec_utils import data
from rec_utils.clustering import Tree
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.papers import reki_released as rr
from rec_utils.papers.foresight import foresight
from rec_utils.papers.released import released_items, released_split, released_users
from rec_utils.samples import ctr_task

N_USERS, N_ITEMS, N_EACH = 12, 30, 24


# Fabricated files


def answer(group, prompt, text, tokens=(10, 20)):
    return json.dumps(
        {
            "prompt": str(group),
            "prompt_txt": prompt,
            "choices": [{"message": {"content": text}}],
            "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]},
        }
    )


def prompt(titles):
    return f"Given a set of movies consisting of {titles}  please describe their author and literary quality."


@pytest.fixture
def files(tmp_path):
    """Amazon's items as three groups of five points, the answers out of order."""
    folder = tmp_path / "amz" / "item"
    (folder / "result").mkdir(parents=True)
    of_point = {"1": 2, "2": 1, "3": 2, "4": 3, "5": 2}
    (folder / "result" / "id2group.json").write_text(json.dumps(of_point))
    lines = [
        answer(3, prompt(" , "), "Sorry, please provide the movies."),
        answer(1, prompt("A, B and C (1990), D (1991), "), "x" * 500 + " films and a book"),
        answer(2, prompt("E, The (2001), "), "Dramas."),
    ]
    (folder / "knowledge.json").write_text("\n".join(lines) + "\n")
    return {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*.json")}


def test_answers_are_read_in_the_order_of_their_groups(files):
    groups = rr.read_groups("amz", "item", files)
    assert groups.of_point.tolist() == [1, 0, 1, 2, 1]
    assert groups.sizes.tolist() == [1, 3, 1]
    assert groups.answers["answer"][1] == "Dramas."
    assert groups.titles == [["A, B and C (1990)", "D (1991)"], ["E, The (2001)"], []]
    assert groups.empty.tolist() == [False, False, True]


def test_the_audit_counts_what_stands_in_the_files(files):
    (row,) = rr.audit([rr.read_groups("amz", "item", files)]).to_dict("records")
    expected = {"points": 5, "T": 80, "groups": 3, "size min": 1, "size median": 1, "size max": 3}
    expected |= {"groups of one": 2, "prompts without a title": 1, "points in their groups": 1}
    expected |= {"prompt tokens": 30, "answer tokens": 60}
    expected |= {"asked for book factors": 3, "speak of movies and books": 1}
    expected |= {"decline or ask for titles": 1, "under 400 characters": 2}
    assert {name: row[name] for name in expected} == expected


def test_costs_count_users_once_and_groups_on_both_sides():
    def side(name, n_points, n_groups):
        answers = pd.DataFrame(
            {"prompt": prompt("A (1990)"), "prompt_tokens": 1, "completion_tokens": 2}, index=range(n_groups)
        )
        return rr.Groups("ml-1m", name, np.arange(n_points) % n_groups, answers)

    table = rr.cost([side("item", 100, 4), side("user+", 60, 3), side("user-", 60, 2)])
    row = table.set_index("data set").loc["MovieLens-1M"]
    assert (row["calls, collective"], row["calls, individual"], row["share (%)"]) == (9, 160, 5.6)
    assert (row["with a title"], row["tokens, collective"]) == (9, 27)


def test_a_group_without_a_title_gets_a_vector_of_zeros(files, monkeypatch):
    made = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    monkeypatch.setattr(rr.vectors, "encode", lambda texts, encoder: made[: len(texts)].copy())
    table = rr.text_vectors(rr.read_groups("amz", "item", files), encoder=None)
    assert not table[2].any()
    np.testing.assert_allclose(table[0], -table[1], atol=1e-6)  # two texts, minus the mean of the two
    np.testing.assert_allclose(np.linalg.norm(table[:2], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("result/id2group.json", '{"1": 2, "3": 1}', "id '2' is missing between 1 and 2"),
        ("knowledge.json", answer(1, prompt("A (1990)"), "x"), "3 groups, but the answers are about others"),
    ],
)
def test_gaps_are_found(files, name, text, message):
    files[f"amz/item/{name}"].write_text(text)
    with pytest.raises(UserError, match=message):
        rr.read_groups("amz", "item", files)


def test_a_missing_file_is_named(files):
    del files["amz/item/knowledge.json"]
    with pytest.raises(UserError, match=r"lack amz/item/knowledge\.json"):
        rr.read_groups("amz", "item", files)
    with pytest.raises(UserError, match="did you mean 'item'"):
        rr.read_groups("amz", "items", files)


def comb(n_points, of_tooth):
    """A tree with `n_points` leaves in teeth of `of_tooth` points below the root, each tooth a chain."""
    parent, leaf = [-1], []
    for point in range(n_points):
        if point % of_tooth == 0:
            parent.append(0)
            tooth = len(parent) - 1
        parent.append(tooth)
        leaf.append(len(parent) - 1)
    return Tree(np.array(parent), np.array(leaf))


def test_the_check_of_the_cut_sees_a_single_moved_point(monkeypatch):
    monkeypatch.setitem(rr.BELOW, "ml-1m", {"item": 6})
    groups = rr.Groups("ml-1m", "item", np.array([7, 3, 5])[np.arange(15) // 5], pd.DataFrame())
    tree = comb(15, 5)
    rr.check_cut(tree, groups)
    moved = tree.parent.copy()
    moved[tree.leaf[4]] = moved[tree.leaf[5]]  # teeth of 4, 6 and 5: the second one is cut to pieces
    with pytest.raises(UserError, match="item: the cut does not give the released group of point"):
        rr.check_cut(Tree(moved, tree.leaf), groups)
    swapped = tree.leaf.copy()
    swapped[[4, 5]] = swapped[[5, 4]]  # the same sizes, other members
    with pytest.raises(UserError, match="does not give"):
        rr.check_cut(Tree(tree.parent, swapped), groups)
    merged = rr.Groups("ml-1m", "item", np.minimum(np.arange(15) // 5, 1), pd.DataFrame())
    with pytest.raises(UserError, match="does not give"):
        rr.check_cut(tree, merged)


# Rules, on ratings


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    rows = [(user, item) for user in range(1, N_USERS + 1) for item in rng.permutation(N_ITEMS)[:N_EACH]]
    user, item = np.array(rows).T
    ratings = pd.DataFrame(
        {
            "user_id": user,
            "item_id": 10 * (1 + item),
            "rating": rng.integers(1, 6, len(rows)).astype(np.float32),
            "timestamp": 86_400 * np.arange(len(rows)),
        }
    )
    items = pd.DataFrame(
        {
            "item_id": 10 * (1 + np.arange(N_ITEMS)),
            "title": [f"Film {n}, The (1999)" for n in range(N_ITEMS)],
            "genres": "Drama",
        }
    )
    users = pd.DataFrame({"user_id": np.arange(1, N_USERS + 1)})
    return Dataset("fab", "Fabricated", users, items, ratings, (1.0, 5.0), "", "", {})


@pytest.fixture(scope="module")
def task(dataset):
    return ctr_task(dataset, history_length=3, order="date", prompt_rule="released")


@pytest.mark.parametrize("rule", rr.LIST_RULES)
@pytest.mark.parametrize("side", ["user+", "user-"])
def test_lists_follow_the_rule_rating_by_rating(dataset, task, side, rule):
    of_point = np.array([0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2])  # one user alone
    groups = rr.Groups("ml-1m", side, of_point, pd.DataFrame(index=range(3)))
    test_users = released_split(task.user_ids)
    made = rr.grouping(groups, dataset, rr.reading(task, test_users, rule))
    internal = {raw: internal for internal, raw in enumerate(released_users(N_USERS))}
    assert made.group.tolist() == [of_point[internal[raw]] for raw in task.user_ids]
    votes = {group: {} for group in range(3)}
    for row in task.ratings.itertuples():
        may = rule == "all" or row.in_prompt or (rule == "released" and not test_users[row.user_row])
        if may and (row.rating > 3) == (side == "user+"):
            of_group = votes[made.group[row.user_row]]
            of_group[row.item_row] = of_group.get(row.item_row, 0) + 1
    for group, items in enumerate(made.items):
        least = 1 if group == 0 else 3
        assert items.tolist() == sorted(item for item, n in votes[group].items() if n >= least)


def test_item_groups_are_the_rows_of_the_task(dataset, task):
    raw = released_items(dataset)
    of_point = np.arange(len(raw)) % 4
    made = rr.grouping(rr.Groups("ml-1m", "item", of_point, pd.DataFrame(index=range(4))), dataset, task)
    for group in range(4):
        assert set(task.item_ids[made.items[group]]) == set(raw[of_point == group])
        assert (made.group[made.items[group]] == group).all()


def test_titles_are_found_in_their_own_group_under_both_spellings(dataset):
    raw = released_items(dataset)
    of_point = np.arange(len(raw)) % 2
    number = raw // 10 - 1
    prompts = [
        prompt(", ".join(f"The Film {n} (1999)" for n in number[of_point == 0][:3])),
        prompt(", ".join(f"Film {n}, The (1999)" for n in [*number[of_point == 1][:2], number[0]])),
    ]
    found = rr.titles_in_own_group(
        rr.Groups("ml-1m", "item", of_point, pd.DataFrame({"prompt": prompts})), dataset
    )
    assert found.to_numpy().tolist() == [[3, 3], [3, 2]]


def test_agreement_counts_sizes_and_shared_pairs():
    lists = [np.array([1, 2, 3]), np.array([], int), np.array([4, 5])]
    released = [np.array([2, 3, 9]), np.array([], int), np.array([4])]
    assert rr.agreement(lists, released) == {"groups": 3, "same size": 2, "Jaccard": 3 / 6}


# The real files


@pytest.fixture(scope="module")
def real():
    try:
        return data.files("reki"), data.load("ml-1m")
    except UserError as missing:
        pytest.skip(f"needs files that may not be shipped: {missing}")


def test_every_released_group_is_a_cut_and_every_movie_title_is_known(real):
    files, dataset = real
    for side in rr.SIDES:
        groups = rr.read_groups("ml-1m", side, files)
        rr.check_cut(rr.read_tree(side, files), groups)
    item = rr.read_groups("ml-1m", "item", files)
    own = rr.titles_in_own_group(item, dataset)
    assert own.sum().tolist() == [1193, 1131]
    assert (own["titles"] == own["own"]).sum() == 65


def test_released_lists_hold_whole_histories_of_training_users_only(real):
    files, dataset = real
    task = ctr_task(dataset, history_length=5, min_ratings=10, order="date", prompt_rule="released")
    test_users = released_split(task.user_ids)
    sizes = {}
    for side in ("user+", "user-"):
        groups, released = rr.read_groups("ml-1m", side, files), rr.read_lists(side, dataset, task, files)
        for rule in rr.LIST_RULES:
            made = rr.grouping(groups, dataset, rr.reading(task, test_users, rule))
            sizes[side, rule] = rr.agreement(made.items, released)["same size"]
    assert [sizes["user+", rule] for rule in rr.LIST_RULES] == [102, 8, 33]
    assert [sizes["user-", rule] for rule in rr.LIST_RULES] == [109, 11, 32]


def test_the_trees_know_later_ratings_of_training_users_only(real):
    files, dataset = real
    task = ctr_task(dataset, history_length=5, min_ratings=10, order="date", prompt_rule="released")
    test_users = released_split(task.user_ids)
    for side in ("user+", "user-"):
        groups = rr.grouping(rr.read_groups("ml-1m", side, files), dataset, task).group
        table = foresight(task, groups, side == "user+", test_users).set_index("users")
        assert table.loc["training", "low"] > 0 > table.loc["test", "high"]
