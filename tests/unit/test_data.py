import io
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

from data_prep.build import Built
from rec_utils.data import load
from rec_utils.errors import UserError
from rec_utils.settings import BUNDLED, ROOT


@pytest.fixture
def data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path))
    return tmp_path


def test_ml_latest_small_equals_the_published_files(data_home):
    dataset = load("ml-latest-small")
    with zipfile.ZipFile(BUNDLED / "ml-latest-small/ml-latest-small.zip") as archive:
        ratings, movies, links = (
            pd.read_csv(io.BytesIO(archive.read(f"{name}.csv")), dtype={"imdbId": str})
            for name in ("ratings", "movies", "links")
        )
    assert len(ratings) == 100_836
    for ours, theirs in (
        ("user_id", "userId"),
        ("item_id", "movieId"),
        ("rating", "rating"),
        ("timestamp", "timestamp"),
    ):
        np.testing.assert_array_equal(dataset.interactions[ours], ratings[theirs])
    np.testing.assert_array_equal(dataset.items["item_id"], movies["movieId"])
    np.testing.assert_array_equal(dataset.items["title"], movies["title"].str.strip())
    np.testing.assert_array_equal(dataset.items["genres"], movies["genres"].replace("(no genres listed)", ""))
    np.testing.assert_array_equal(
        dataset.items["imdb"], links.set_index("movieId")["imdbId"].loc[movies["movieId"]]
    )
    assert dataset.users["user_id"].tolist() == list(range(1, 611))
    assert dataset.rating_scale == (0.5, 5.0)
    assert "GroupLens" in dataset.licence and "Harper" in dataset.citation
    assert dataset.hashes["ml-latest-small.zip"].startswith("5359cbec2e80")

    years = dataset.items.set_index("title")["year"]
    assert years["Toy Story (1995)"] == 1995
    assert years["1984 (Nineteen Eighty-Four) (1984)"] == 1984
    assert years.isna().sum() == 13  # titles without one, such as Paterson and a series of 2006–2007
    assert years.dropna().between(1902, 2018).all()


def test_movietweetings_equals_the_published_files(data_home):
    dataset = load("movietweetings")
    lines = (BUNDLED / "movietweetings/ratings.dat").read_text().splitlines()
    rows = np.array([line.split("::") for line in lines]).astype(np.int64)
    assert rows.shape == (100_000, 4)
    np.testing.assert_array_equal(dataset.interactions.to_numpy(), rows)
    movies = [
        line.split("::") for line in (BUNDLED / "movietweetings/movies.dat").read_text("utf-8").splitlines()
    ]
    assert dataset.items["imdb"].tolist() == [movie[0] for movie in movies]
    assert dataset.items["title"].tolist() == [movie[1] for movie in movies]
    assert dataset.items["genres"].tolist() == [movie[2] for movie in movies]
    assert dataset.items["year"].tolist() == [int(movie[1][-5:-1]) for movie in movies]
    assert dataset.users["user_id"].tolist() == sorted(set(rows[:, 0]))


@pytest.mark.parametrize("name", ["ml-latest-small", "movietweetings"])
def test_tables_have_the_stated_types(name, data_home):
    dataset = load(name)
    assert {column: str(kind) for column, kind in dataset.interactions.dtypes.items()} == {
        "user_id": "int64",
        "item_id": "int64",
        "rating": "float32",
        "timestamp": "int64",
    }
    assert [str(kind) for kind in dataset.items.dtypes] == ["int64", "str", "Int16", "str", "str"]
    assert dataset.items["imdb"].str.fullmatch(r"\d{7,}").all()


@pytest.mark.fault("damaged file", "build", "It names the table and the command that builds it anew.")
def test_altered_tables_are_refused(data_home):
    load("movietweetings")
    path = data_home / "movietweetings/interactions.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(
        UserError, match=r"interactions.parquet is missing or altered.*data_prep build movietweetings"
    ):
        load("movietweetings")


def test_unknown_and_unbuilt_data_sets_are_named(data_home):
    with pytest.raises(UserError, match="did you mean 'movietweetings'"):
        load("movietweeting")
    with pytest.raises(UserError, match=r"data_prep fetch ml-1m.*data_prep build ml-1m --from DIR"):
        load("ml-1m")


@pytest.mark.fault("two processes", "build")
def test_many_processes_may_load_first_at_once_without_torch(data_home):
    code = "import sys; from rec_utils.data import load; print(len(load('ml-latest-small').interactions)); "
    code += "assert 'torch' not in sys.modules"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in started:
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "100836\n"), error


def test_ml_1m_as_built_by_the_user():
    if Built.read("ml-1m") is None:
        pytest.skip("MovieLens-1M may not be shipped and is not built here: python -m data_prep build ml-1m")
    dataset = load("ml-1m")
    stars = dataset.interactions["rating"].value_counts().sort_index()
    assert stars.to_dict() == {1: 56_174, 2: 107_557, 3: 261_197, 4: 348_971, 5: 226_310}
    assert (len(dataset.users), len(dataset.items)) == (6_040, 3_883)
    assert dataset.interactions["item_id"].nunique() == 3_706
    assert dataset.users["gender"].value_counts().to_dict() == {"M": 4_331, "F": 1_709}
    assert dataset.users["zip"].nunique() == 3_439
    assert dataset.interactions.iloc[0].tolist()[:4] == [1, 1193, 5, 978_300_760]
    assert dataset.items.set_index("item_id")["imdb"][1] == "0114709"
