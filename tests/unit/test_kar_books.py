"""KAR's books: equal to its steps in plain Python, and of its released size on a sample planted to scale."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_books import meta, packed, reviews

from data_prep import catalog
from data_prep.build import build
from rec_utils import kar_books as module
from rec_utils.data import load_core
from rec_utils.errors import UserError
from rec_utils.kar_books import RELEASED, clean, kar_books
from rec_utils.samples import check_leaks

SCALE = 20


@pytest.fixture(autouse=True)
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path / "data"))


def built(folder, rows, items):
    folder.mkdir()
    (folder / "Books_5.json.gz").write_bytes(packed(reviews(rows)))
    (folder / "meta_Books.json.gz").write_bytes(packed(meta(items)))
    build(catalog.entry("amazon-books"), folder)


def asin(number):
    return f"B{number:09d}"


def plain_kar(rows, titles, user_core, item_core):
    """KAR's steps, one rating after the other."""
    histories = {}
    for user, item, rating, day in rows:
        histories.setdefault(user, []).append((item, rating, day))
    for history in histories.values():
        history.sort(key=lambda each: each[2])
    while True:
        of_item = Counter(item for history in histories.values() for item, _, _ in history)
        fewest = min(map(len, histories.values()))
        if fewest >= user_core and min(of_item.values()) >= item_core:
            break
        histories = {user: history for user, history in histories.items() if len(history) >= user_core}
        histories = {
            user: [each for each in history if of_item[each[0]] >= item_core]
            for user, history in histories.items()
        }
    stream = random.Random(1234)
    users = list(histories)
    stream.shuffle(users)
    n_prompt = [min((len(histories[user]) + 1) // 2, 15) for user in users]
    sequences = [[each[:2] for each in histories[user] if each[0] in titles] for user in users]
    order = list(range(1, len(users) + 1))
    stream.shuffle(order)
    return users, sequences, n_prompt, {users[number - 1] for number in order[int(0.9 * len(order)) :]}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_kars_steps_one_by_one(seed, tmp_path, monkeypatch):
    rng = np.random.default_rng(seed)
    # few days, so that times tie; users and items of uneven activity; pairs repeat
    rows = [
        (
            f"A{int(40 * rng.random() ** 2)}",
            asin(int(25 * rng.random() ** 2)),
            int(rng.integers(1, 6)),
            int(day),
        )
        for day in rng.integers(0, 9, 600)
    ]
    titles = {asin(number): f"Title {number}" for number in range(25) if number not in (2, 3)}
    items = [
        (key, title, f"Author {title[-1]}", ["Books", f"Shelf {title[-1]}"]) for key, title in titles.items()
    ]
    built(tmp_path / "raw", rows, items)
    for name, value in {"USER_CORE": 9, "ITEM_CORE": 12}.items():
        monkeypatch.setattr(module, name, value)

    books = kar_books(history_length=3)
    users, sequences, n_prompt, test_users = plain_kar(rows, titles, 9, 12)
    dataset = load_core("amazon-books", 9, 12)
    reviewer = dataset.users.set_index("user_id")["reviewer"]
    product = dataset.items.set_index("item_id")["asin"]
    task = books.task
    assert reviewer[task.user_ids].tolist() == users
    assert set(reviewer[task.user_ids[books.test_user]]) == test_users
    ours = task.ratings.assign(asin=product[task.item_ids[task.ratings["item_row"]]].to_numpy())
    for user, (sequence, n) in enumerate(zip(sequences, n_prompt, strict=True)):
        mine = ours[ours["user_row"] == user]
        assert list(zip(mine["asin"], mine["rating"], strict=True)) == sequence
        assert mine["in_prompt"].tolist() == [place < n for place in range(len(sequence))]
    expected = [
        (user, rating == 5)
        for user, (sequence, n) in enumerate(zip(sequences, n_prompt, strict=True))
        for _, rating in sequence[n:]
    ]
    samples = task.samples
    assert list(zip(samples.user_row.tolist(), samples.label.bool().tolist(), strict=True)) == expected
    test = books.test_user[samples.user_row.numpy()]
    valid = np.isin(samples.user_row.numpy(), [np.flatnonzero(~books.test_user)[0]])
    check_leaks(task, samples, [(~test & ~valid, valid, test)])

    batch = samples.batch(torch.tensor([0]))
    assert batch.item.shape == (1, 3) and batch.history.shape[:2] == (1, 3)
    row = samples.item_row[0]
    _, brand, category = samples.item_fields[row].tolist()
    same = books.items["brand"] == books.items["brand"][int(row)]
    assert (samples.item_fields[:, 1] == brand).tolist() == same.tolist()
    same = books.items["category"] == books.items["category"][int(row)]
    assert (samples.item_fields[:, 2] == category).tolist() == same.tolist()


def test_a_sample_to_scale_has_the_released_size(tmp_path):
    """A core of the released size over 20 among users and items that are too rare for it."""
    rng = np.random.default_rng(0)
    n_users, n_items = (round(RELEASED[name] / SCALE) for name in ("users", "items"))
    rows = []
    for user in range(n_users):
        days = rng.integers(0, 2000, 140)
        items = np.append(rng.choice(n_items, 133, replace=False), n_items + rng.integers(0, 900, 7))
        stars = rng.integers(1, 6, 140)
        review = zip(items, stars.tolist(), days.tolist(), strict=True)
        rows += [(f"A{user}", asin(item), star, day) for item, star, day in review]
    for user in range(2000):
        items = rng.choice(n_items, rng.integers(5, 20), replace=False)
        rows += [(f"AX{user}", asin(item), 5, 1) for item in items]
    items = [(asin(item), f"Title {item}", "Author", ["Books", "Shelf"]) for item in range(n_items + 900)]
    built(tmp_path / "raw", [rows[row] for row in rng.permutation(len(rows))], items)
    statistics = kar_books().statistics()
    for name, exact in {"users": n_users, "items": n_items, "prompt ratings a user": 15}.items():
        assert statistics.loc[name, "ours"] == exact
        assert statistics.loc[name, "released"] == RELEASED[name]
    assert statistics.loc["ratings", "ours"] == 133 * n_users
    assert statistics.loc["samples", "ours"] == (133 - 15) * n_users
    assert statistics.loc["test users", "ours"] == n_users - int(0.9 * n_users)


def test_no_core_is_said(tmp_path):
    built(tmp_path / "raw", [("A1", asin(1), 5, 1)], [(asin(1), "T", "B", ["Books"])])
    with pytest.raises(UserError, match="no ratings are left in the core of user_core 60 and item_core 40"):
        kar_books()


@pytest.mark.parametrize(
    "raw, expected",
    [
        ("Tom &amp; “Jerry” – a  tale…", 'Tom & "Jerry" - a tale'),
        ("Les Misérables", None),
        ("12", None),
        ("1984", None),
        ("", None),
        ("A&nbsp;b\nc", "A b c"),
        ("word " * 40, " ".join(["word"] * 29)),
    ],
)
def test_titles_are_cleaned_as_in_kars_code(raw, expected):
    assert clean(raw) == expected


def test_an_item_without_metadata_has_no_title_and_one_without_words_is_kept(tmp_path, monkeypatch):
    rows = [(f"A{user}", asin(item), 5, item) for user in range(4) for item in range(8)]
    items = [(asin(0), "Ésope", "Fontaine", ["Books"]), (asin(1), "EMINEM SHOW", "", ["Books", "Music"])]
    items += [(asin(item), f"Title {item}", "", ["Books", "Shelf"]) for item in range(2, 7)]
    built(tmp_path / "raw", rows, items)
    monkeypatch.setattr(module, "USER_CORE", 2)
    monkeypatch.setattr(module, "ITEM_CORE", 2)
    books = kar_books()
    assert books.items["known"].tolist() == [True, False, True, True, True, True, True, False]
    assert books.items["title"].isna().tolist() == [True] + 6 * [False] + [True]
    assert books.items["brand"].tolist() == ["Fontaine"] + 7 * ["unknown brand"]
    assert books.items["category"][0] == "unknown category"
    # n counts the ratings before items without metadata were left out
    assert books.task.ratings.groupby("user_row")["in_prompt"].sum().tolist() == [4, 4, 4, 4]
    assert books.task.ratings.groupby("user_row").size().tolist() == [6, 6, 6, 6]
