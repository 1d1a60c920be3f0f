"""Raw files of Amazon and BookCrossing to tables: faults are named by line and field."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys

import pandas as pd
import pytest
from tiny_books import DAY, START, meta, packed, reviews

from data_prep import catalog
from data_prep.build import Built, build
from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.settings import ROOT

ASINS = ["000100039X", "B00A1B2C3D", "0001055178", "0001473123"]
REVIEWS = [
    ("A2ZOE", ASINS[1], 5, 3),
    ("A1ADA", ASINS[0], 4, 1),
    ("A2ZOE", ASINS[0], 1, 2),
    ("A2ZOE", ASINS[1], 3, 9),  # reviewed again
    ("A3BOB", ASINS[2], 2, 1),
]
META = [
    (ASINS[0], "The Prophet", "Kahlil Gibran", ["Books", "Poetry", " Love &amp; Romance "]),
    (ASINS[3], "Nobody reviewed it", "X", ["Books"]),
    (ASINS[1], "An earlier title", "Y", ["Books", "Old"]),
    (ASINS[1], "Misérables", "", []),
]
BOOKS, TOYS = catalog.entry("amazon-books"), catalog.entry("amazon-toys")


@pytest.fixture(autouse=True)
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def amazon(folder, category="Books", rows=REVIEWS, items=META):
    folder.mkdir(exist_ok=True)
    (folder / f"{category}_5.json.gz").write_bytes(packed(reviews(rows)))
    (folder / f"meta_{category}.json.gz").write_bytes(packed(meta(items)))
    return folder


def test_reviews_and_metadata_become_tables(tmp_path):
    built, now = build(BOOKS, amazon(tmp_path / "raw"))
    assert now
    assert build(BOOKS, tmp_path / "raw") == (built, False)
    dataset = data.load("amazon-books")
    assert dataset.interactions.dtypes.astype(str).to_dict() == {
        "user_id": "int64",
        "item_id": "int64",
        "rating": "float32",
        "timestamp": "int64",
    }
    times = [START + DAY * day for *_, day in REVIEWS]
    assert list(dataset.interactions.itertuples(index=False, name=None)) == [
        (user, item, review[2], time)
        for user, item, review, time in zip([1, 2, 1, 1, 3], [1, 2, 2, 1, 3], REVIEWS, times, strict=True)
    ]
    assert dataset.users["reviewer"].tolist() == ["A2ZOE", "A1ADA", "A3BOB"]
    items = dataset.items
    assert items["item_id"].tolist() == [1, 2, 3]
    assert items["asin"].tolist() == [ASINS[1], ASINS[0], ASINS[2]]
    assert items["title"].fillna("-").tolist() == ["Misérables", "The Prophet", "-"]
    assert items["brand"].fillna("-").tolist() == ["", "Kahlil Gibran", "-"]
    assert items["genres"].tolist() == ["", "Poetry|Love &amp; Romance", ""]


def test_a_review_without_stars_is_left_out_and_plain_files_do(tmp_path):
    lines = reviews([("A0NONE", ASINS[3], 1, 0), *REVIEWS])
    del lines[0]["overall"]
    folder = amazon(tmp_path / "raw", "Toys_and_Games")
    whole, _ = build(TOYS, folder)
    (folder / "Toys_and_Games_5.json.gz").unlink()
    (folder / "Toys_and_Games_5.json").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (folder / "meta_Toys_and_Games.json").write_bytes(
        gzip.decompress((folder / "meta_Toys_and_Games.json.gz").read_bytes())
    )
    again, now = build(TOYS, folder)
    assert now and again.tables == whole.tables


def test_ratings_only_give_the_same_tables(tmp_path):
    folder = amazon(tmp_path / "raw")
    whole, _ = build(BOOKS, folder)
    (folder / "Books_5.json.gz").unlink()
    rows = [f"{asin},{user},{rating:.1f},{START + day * DAY}\n" for user, asin, rating, day in REVIEWS]
    (folder / "Books.csv").write_text("".join(rows))
    again, now = build(BOOKS, folder)
    assert now and again.tables == whole.tables
    # the columns as in the files of 2014
    rows = [",".join([line.split(",")[1], line.split(",")[0], *line.split(",")[2:]]) for line in rows]
    (folder / "Books.csv").write_text("".join(rows))
    with pytest.raises(
        UserError, match=r"Books.csv, line 1, column asin: 'A2ZOE' is not ten capital letters"
    ):
        build(BOOKS, folder)


def line(number, old, new):
    def spoil(content):
        lines = gzip.decompress(content).split(b"\n")
        assert old.encode() in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old.encode(), new.encode(), 1)
        return gzip.compress(b"\n".join(lines))

    return spoil


REVIEW, ITEM = "Books_5.json.gz", "meta_Books.json.gz"
# fmt: off
BAD = [
    ("cut object", REVIEW, line(3, ', "unix', '"unix'), ", line 3: no JSON object in '{\"overall\": 1.0"),
    ("list", REVIEW, lambda c: gzip.compress(b"[1, 2]\n"), ", line 1: no JSON object in '[1, 2]'"),
    ("word", REVIEW, line(5, "2.0", '"two"'), ", line 5, field overall: 'two' is not a number"),
    ("stars", REVIEW, line(2, "4.0", "6.0"), ", line 2, field overall: 6 is not on the scale from 1 to 5"),
    ("half a star", REVIEW, line(2, "4.0", "4.5"), ", line 2, field overall: 4.5 is not on the scale from 1"),
    ("no asin", REVIEW, line(4, "asin", "item"), ", line 4, field asin: an empty field is not ten capital"),
    ("strange asin", REVIEW, line(1, ASINS[1], "b1"), ", line 1, field asin: 'b1' is not ten capital"),
    ("no reviewer", REVIEW, line(1, "A2ZOE", ""), ", line 1, field reviewerID: '' is not a value"),
    ("no time", REVIEW, line(2, "unixReviewTime", "t"), ", line 2, field unixReviewTime: an empty field is"),
    ("milliseconds", REVIEW, line(2, "86400", "86400000"), ", line 2, field unixReviewTime: 13000864000"),
    ("cut file", REVIEW, lambda c: c[:-30], " is cut off or damaged ("),
    ("no gzip", REVIEW, gzip.decompress, " is cut off or damaged ("),
    ("empty", REVIEW, lambda c: gzip.compress(b""), " is empty"),
    ("category", ITEM, line(3, '["Books", "Old"]', '"Old"'), ", line 3, field category: '\"Old\"' is not a"),
    ("latin-1", ITEM, lambda c: gzip.compress(b'{"asin": "\xe9"}\n'), ", line 1: no JSON object in '{"),
]
# fmt: on


@pytest.mark.parametrize("file, spoil, message", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_fault_is_one_sentence_and_leaves_nothing_behind(file, spoil, message, tmp_path):
    folder = amazon(tmp_path / "raw")
    (folder / file).write_bytes(spoil((folder / file).read_bytes()))
    with pytest.raises(UserError, match=re.escape(file + message)) as caught:
        build(BOOKS, folder)
    assert "\n" not in str(caught.value)
    assert not [each for each in (tmp_path / "data").iterdir() if each.is_dir()]


KILLED = """
import os, signal
from pathlib import Path
from data_prep import build, catalog

def follow(connection, steps, label, old=build.follow):
    if label == "interactions.parquet":
        os.kill(os.getpid(), signal.SIGKILL)
    return old(connection, steps, label)

build.follow = follow
build.build(catalog.entry("amazon-books"), Path({folder!r}))
"""


@pytest.mark.fault("SIGKILL", "build")
def test_a_killed_build_starts_anew_and_leaves_nothing_behind(tmp_path, data_home):
    folder = amazon(tmp_path / "raw")
    code = KILLED.format(folder=str(folder))
    environment = {**os.environ, "REC_DATA": str(data_home)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert Built.read("amazon-books") is None
    assert list(data_home.glob(".amazon-books.new-*"))
    _, now = build(BOOKS, folder)
    assert now
    assert [each.name for each in data_home.iterdir() if each.is_dir()] == ["amazon-books"]


CROSSING = catalog.entry("bookcrossing")
BX = {
    "BX-Book-Ratings.csv": """\
"User-ID";"ISBN";"Book-Rating"
"276725";"034545104X";"0"
"276726";"0155061224";"5"
"276725";"0155061224";"10"
"276729";" 05 2165\\"";"3"
""",
    "BX-Books.csv": """\
"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S"
"0155061224";"Rites of Passage &amp; more; part \\"II\\"";"Judith Rae";"2001";"Heinle";"http://a"
"0000000000";"Éloge de l’ombre";"J. Tanizaki";"0";"P.O.F.";"http://a"
"034545104X";"Flesh Tones\\"";"M. J. Rose";"2002";"Ballantine Books";"http://a"
""",
    "BX-Users.csv": """\
"User-ID";"Location";"Age"
"276725";"tyler, texas, usa";NULL
"276726";"se\nattle, , ";"18"
"276729";"rijeka, n/a, croatia";"16"
""",
}


def crossing(folder, **changed):
    folder.mkdir(exist_ok=True)
    for name, content in BX.items():
        content = changed.get(name.removesuffix(".csv"), content)
        (folder / name).write_bytes(content.encode("cp1252"))
    return folder


def test_bookcrossing_becomes_tables(tmp_path):
    build(CROSSING, crossing(tmp_path / "raw"))
    dataset = data.load("bookcrossing")
    ratings = [(276725, 3, 0), (276726, 1, 5), (276725, 1, 10), (276729, 4, 3)]
    assert list(dataset.interactions.itertuples(index=False, name=None)) == ratings
    items = dataset.items
    assert items["item_id"].tolist() == [1, 2, 3, 4]
    assert items["isbn"].tolist() == ["0155061224", "0000000000", "034545104X", ' 05 2165"']
    titles = ['Rites of Passage &amp; more; part "II"', "Éloge de l’ombre", 'Flesh Tones"']
    assert items["title"].tolist()[:3] == titles
    assert pd.isna(items["title"][3])
    assert items["year"].fillna(0).tolist() == [2001, 0, 2002, 0]
    users = dataset.users
    assert users["location"].tolist() == ["tyler, texas, usa", "se\nattle, , ", "rijeka, n/a, croatia"]
    assert users["age"].fillna(0).tolist() == [0, 18, 16]


# fmt: off
BX_BAD = [
    ("BX-Book-Ratings", '"5"', '"11"', ", line 3, column Book-Rating: 11 is not on the scale from 0 to 10"),
    ("BX-Book-Ratings", '"5"', '"x"', ", line 3, column Book-Rating: not a number in"),
    ("BX-Book-Ratings", '"276726";', '', ", line 3: expected 3 columns"),
    ("BX-Book-Ratings", '"276726"', '"276725"', ", line 4 repeats BX-Book-Ratings.csv, line 3: both have"),
    ("BX-Books", '"Book-Author"', '"Writer"', ", line 1: column Book-Author is missing"),
    ("BX-Books", "0000000000", "0155061224", ", line 3 repeats BX-Books.csv, line 2: both have isbn '015"),
    ("BX-Users", '"16"', '"16.5"', "column Age: 16.5 is not a whole number"),
]
# fmt: on


@pytest.mark.parametrize("name, old, new, message", BX_BAD)
def test_a_fault_in_bookcrossing_is_named(name, old, new, message, tmp_path):
    assert old in BX[f"{name}.csv"]
    changed = {name: BX[f"{name}.csv"].replace(old, new, 1)}
    with pytest.raises(UserError, match=f"^{name}.csv.*{re.escape(message)}"):
        build(CROSSING, crossing(tmp_path / "raw", **changed))


def test_utf8_in_bookcrossing_was_converted_by_somebody(tmp_path):
    folder = crossing(tmp_path / "raw")
    (folder / "BX-Books.csv").write_text(BX["BX-Books.csv"], encoding="utf-8")
    with pytest.raises(UserError, match=r"BX-Books.csv: wrong encoding, expected cp1252 but found UTF-8"):
        build(CROSSING, folder)
