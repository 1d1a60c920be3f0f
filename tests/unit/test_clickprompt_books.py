"""ClickPrompt's toys and BookCrossing: fields, labels and splits against plain Python and published sizes."""

import numpy as np
import pandas as pd
import pytest
from tiny_books import meta, packed, reviews

from data_prep import catalog
from data_prep.build import build
from rec_utils.clickprompt_books import bookcrossing, country, crossing_texts, toys
from rec_utils.data import load
from rec_utils.errors import UserError
from rec_utils.field_task import cut


@pytest.fixture(autouse=True)
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path / "data"))


def texts(task, part):
    """The texts of the samples of a part of the split, row by row."""
    ratings = task.ratings[part]
    user = task.user_texts.iloc[ratings["user_row"]].reset_index(drop=True)
    item = task.item_texts.iloc[ratings["item_row"]].reset_index(drop=True)
    return pd.concat([user, item], axis=1)


def test_the_split_has_the_published_sizes():
    """BookCrossing's train, validation and test rows; the rows of MovieLens-1M are in test_field_task."""
    masks = cut(1_031_175, "ClickPrompt")
    assert [int(mask.sum()) for mask in masks] == [824_936, 103_121, 103_118]


def test_toys(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        (f"A{user}", f"B{item:09d}", int(rng.integers(1, 6)), int(rng.integers(1000)))
        for user in range(30)
        for item in (np.arange(8) + 3 * user) % 20
    ]
    rare = [("ARARE", f"B{item:09d}", 5, 3) for item in range(4)]
    items = [
        (f"B{item:09d}", f"Toy {item}", "" if item else "Lego", ["Toys", f"Kind {item % 3}"])
        for item in range(19)
    ]
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "Toys_and_Games_5.json.gz").write_bytes(packed(reviews(rows + rare)))
    (folder / "meta_Toys_and_Games.json.gz").write_bytes(packed(meta(items)))
    build(catalog.entry("amazon-toys"), folder)

    task = toys()
    expected = sorted((row for row in rows if row[2] != 3), key=lambda row: row[3])
    everything = texts(task, np.ones(len(task.ratings), bool))
    assert everything.columns.tolist() == ["User ID", "Item ID", "Category", "Title", "Brand"]
    assert everything["User ID"].tolist() == [user for user, *_ in expected]
    assert everything["Item ID"].tolist() == [item for _, item, *_ in expected]
    assert task.samples.label.tolist() == [float(rating >= 4) for _, _, rating, _ in expected]
    last = everything[everything["Item ID"] == "B000000019"].iloc[0]  # without metadata
    assert last["Category"] == last["Title"] == last["Brand"] == "unknown"
    first = everything[everything["Item ID"] == "B000000000"].iloc[0]
    assert (first["Category"], first["Title"], first["Brand"]) == ("Kind 0", "Toy 0", "Lego")
    time = task.ratings["timestamp"]
    train, valid, test = task.masks
    assert time[train].max() <= time[valid].min() and time[valid].max() <= time[test].min()
    assert sum(map(sum, task.masks)) == len(expected)


USERS = [
    (1, "nyc, new york, usa", None),
    (2, "stockton, california, U.S.A.", 18),
    (3, "porto, v.n.gaia, portugal", 17),
    (4, "london, england, united kingdom", 101),
    (5, "?, ?, n/a", 4),
    (6, "fairfax, virginia,", 60),
]
BOOKS = [
    ("0195153448", "Classical Mythology", "Mark P. O. Morford", "2002", "Oxford"),
    ("002542730X", "Politically Correct", "N/A", "0", "n/a"),
    ("05-2542730", "A number with a hyphen", "A", "1999", "P"),
]
RATINGS = [
    (user, book[0], rating) for user, *_ in USERS for book, rating in zip(BOOKS, (0, 4, 5), strict=True)
]


@pytest.fixture
def crossing(tmp_path):
    def lines(header, rows):
        rows = ([f'"{value}"' if value is not None else "NULL" for value in row] for row in (header, *rows))
        return "".join(";".join(row) + "\r\n" for row in rows).encode("cp1252")

    folder = tmp_path / "raw"
    folder.mkdir()
    stray = [(1, "9999999999", 8), (7, "0195153448", 9)]  # a book and a user that no other file knows
    ratings = lines(("User-ID", "ISBN", "Book-Rating"), RATINGS + stray)
    (folder / "BX-Book-Ratings.csv").write_bytes(ratings)
    header = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher")
    (folder / "BX-Books.csv").write_bytes(lines(header, BOOKS))
    (folder / "BX-Users.csv").write_bytes(lines(("User-ID", "Location", "Age"), USERS))
    build(catalog.entry("bookcrossing"), folder)


@pytest.mark.usefixtures("crossing")
def test_bookcrossing():
    task = bookcrossing()
    everything = texts(task, np.ones(len(task.ratings), bool))
    names = ["User ID", "Location", "Age", "ISBN", "Book title", "Author", "Publication year", "Publisher"]
    assert everything.columns.tolist() == names
    found = everything.assign(rating=task.ratings["rating"], label=task.samples.label.numpy())
    expected = [
        (str(user), isbn, rating, float(rating >= 5)) for user, isbn, rating in RATINGS if "-" not in isbn
    ]
    pairs = found[["User ID", "ISBN", "rating", "label"]].itertuples(index=False, name=None)
    assert sorted(pairs) == sorted(expected)
    by_user = found.drop_duplicates("User ID").set_index("User ID").sort_index()
    ages = ["unknown", "18-24", "under 18", "unknown", "unknown", "60+"]
    assert by_user["Age"].tolist() == ages
    countries = ["USA", "USA", "Portugal", "United Kingdom", "unknown", "Virginia"]
    assert by_user["Location"].tolist() == countries
    by_book = found.drop_duplicates("ISBN").set_index("ISBN").loc["002542730X"]
    assert by_book[["Author", "Publication year", "Publisher"]].tolist() == ["unknown"] * 3
    again = bookcrossing()
    pd.testing.assert_frame_equal(again.ratings, task.ratings)
    assert found["User ID"].tolist() != sorted(found["User ID"])  # in random order


@pytest.mark.usefixtures("crossing")
def test_values_are_counted_over_the_whole_files():
    user_texts, item_texts = crossing_texts(load("bookcrossing"))
    assert len(user_texts) == len(USERS) and len(item_texts) == 2
    assert {name: user_texts[name].nunique() for name in user_texts} == {
        "User ID": 6,
        "Location": 5,
        "Age": 4,
    }


def test_countries():
    raw = ["a, b, us", "a, b, u.k.", "a, b, usa!", "x, y, &#20013;&#22269;", "a, b, ", "a, b, s", "spain"]
    expected = ["USA", "UK", "USA", "unknown", "unknown", "unknown", "Spain"]
    assert country(pd.Series(raw)).tolist() == expected


def test_what_is_not_built_is_said():
    with pytest.raises(UserError, match="python -m data_prep build bookcrossing --from DIR"):
        bookcrossing()
    with pytest.raises(UserError, match="python -m data_prep build amazon-toys --from DIR"):
        toys()
