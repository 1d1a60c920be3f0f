"""Published texts about MovieLens-1M: from tiny files of their form and, where they are built, themselves."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tiny_ratings import dataset

from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.knowledge import ml1m
from rec_utils.samples import ctr_task

DAY = 86_400


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Two item texts, one of them empty, two summaries, three pairs."""
    paths = {
        name: tmp_path / name
        for name in (
            "ml-1m_items_deepseek.json",
            "ml-1m_users_gpt4omini.csv",
            "ml1m_u1_train_pairs.parquet",
        )
    }
    paths["ml-1m_items_deepseek.json"].write_text(json.dumps({"10": "Amélie, a film.", "20": " "}))
    paths["ml-1m_users_gpt4omini.csv"].write_text(
        'user_id,summary\n2,"Likes ""noir"", late."\n1,Likes all.\n'
    )
    pairs = pd.DataFrame({"user": [1, 1, 2], "movie": [10, 20, 10]})
    pairs.to_parquet(paths["ml1m_u1_train_pairs.parquet"])
    monkeypatch.setattr(data, "files", {"kar-ml-1m": paths}.__getitem__)


@pytest.mark.usefixtures("published")
def test_texts_are_found_by_id_and_none_where_there_is_none():
    items = ml1m.item_texts(pd.Series([20, 10, 99], index=[5, 6, 7]))
    assert items.to_dict() == {5: None, 6: "Amélie, a film.", 7: None}
    users = ml1m.user_summaries(pd.Series([1, 2, 3]))
    assert users.to_list() == ["Likes all.", 'Likes "noir", late.', None]
    assert ml1m.item_texts(pd.Series([99])).to_list() == [None]


@pytest.mark.usefixtures("published")
def test_pairs_are_named_like_ratings():
    pairs = ml1m.summary_pairs()
    assert list(pairs.columns) == ["user_id", "item_id"]
    assert list(pairs.itertuples(index=False, name=None)) == [(1, 10), (1, 20), (2, 10)]


@pytest.fixture
def people():
    """Three raters of ml-1m, listed in another order than their ids; 8 has too few ratings for a task."""
    rows = [
        (7, 30, 5.0, 2 * DAY),
        (3, 10, 4.0, DAY),
        (7, 10, 1.0, DAY),
        (8, 10, 1.0, DAY),
        (3, 20, 2.0, 3 * DAY),
        (3, 30, 3.0, 2 * DAY),
        (7, 20, 3.0, 3 * DAY),
        (3, 40, 3.0, 4 * DAY),
    ]
    genres = {40: "War", 30: "Drama", 20: "Comedy", 10: "Drama"}
    titles = {10: "Ten (1990)", 20: 'Twenty; "or" so (1991)', 30: "Thirty (1992)", 40: "Forty (1993)"}
    tiny = dataset(rows, genres, (1.0, 5.0), titles, "ml-1m")
    users = pd.DataFrame(
        {"user_id": [8, 7, 3], "gender": ["M", "F", "M"], "age": [56, 1, 25], "occupation": [3, 10, 0]}
    )
    return replace(tiny, users=users)


def test_a_user_prompt_is_profile_and_prompt_history_in_order(people):
    task = ctr_task(people, history_length=1, min_ratings=3)
    assert task.user_ids.tolist() == [3, 7]
    assert ml1m.user_prompts(people, task).to_list() == [
        "The user is male, aged 25-34, occupation other or not specified. The user's rated movies in order:"
        ' "Ten (1990)", 4 stars; "Thirty (1992)", 3 stars',
        "The user is female, aged under 18, occupation K-12 student. The user's rated movies in order:"
        ' "Ten (1990)", 1 stars; "Thirty (1992)", 5 stars',
    ]


def test_a_semicolon_in_a_title_cuts_nothing_off(people):
    task = ctr_task(people, history_length=1, min_ratings=3, prompt_rule="half", order="date")
    shifted = replace(task, ratings=task.ratings.assign(in_prompt=task.ratings["place"] < 3))
    assert ml1m.user_prompts(people, shifted)[1].endswith('"Twenty; "or" so (1991)", 3 stars')


def test_other_data_sets_have_no_profiles(people):
    other = replace(people, name="ml-latest-small")
    with pytest.raises(UserError, match="ml-latest-small has none"):
        ml1m.user_prompts(other, ctr_task(other, history_length=1))


def test_reading_texts_needs_no_torch():
    code = "import sys, rec_utils.knowledge.ml1m; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The real files


@pytest.fixture(scope="module")
def real():
    """ML-1M, beside which the published texts are built."""
    try:
        data.files("kar-ml-1m")
        return data.load("ml-1m")
    except UserError as error:
        pytest.skip(str(error))


def test_every_movie_but_one_and_every_user_has_a_text(real):
    items = ml1m.item_texts(real.items["item_id"])
    assert len(items) == 3883 and real.items.loc[items.isna(), "item_id"].to_list() == [1122]
    titles = real.items["title"].str.replace(r" \(\d{4}\)$|, (The|A)\b.*| \(.*", "", regex=True)
    named = [title in text for title, text in zip(titles, items, strict=True) if text]
    assert np.mean(named) > 0.9, "texts and movies are matched wrongly"
    users = ml1m.user_summaries(real.users["user_id"])
    assert len(users) == 6040 and users.str.len().min() > 100


def test_the_fold_is_a_random_part_of_the_ratings(real):
    pairs = ml1m.summary_pairs()
    assert len(pairs) == 800_164 and not pairs.duplicated().any()
    joined = real.interactions.merge(pairs, how="left", indicator=True)
    assert (joined["_merge"] == "both").sum() == 800_164
    rest = joined[joined["_merge"] == "left_only"]
    assert (len(rest), rest["user_id"].nunique()) == (200_045, 6039)


def test_every_user_of_kars_protocol_has_a_prompt(real):
    task = ctr_task(real, history_length=5, min_ratings=10, order="date", prompt_rule="released")
    prompts = ml1m.user_prompts(real, task)
    assert prompts.str.count(r'", [1-5] stars').to_numpy().tolist() == (
        task.prompts.groupby("user_row").size().to_list()
    )
    assert prompts.index.tolist() == list(range(6040)) and prompts.nunique() == 6040
