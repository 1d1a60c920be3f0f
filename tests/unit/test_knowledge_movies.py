"""The shipped knowledge: whole, bound to its requests, and found from each data set."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from rec_utils import data, settings
from rec_utils.errors import UserError
from rec_utils.knowledge import movies, prompts
from rec_utils.knowledge.llm import generate

BUNDLED = settings.BUNDLED / "knowledge"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REC_DATA", str(tmp_path_factory.mktemp("data")))
        yield {name: data.load(name) for name in ("ml-latest-small", "movietweetings")}


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("items.jsonl", 4323),
        ("users_ml-latest-small.jsonl", 610),
        ("groups_ml-latest-small.jsonl", 146),
        ("partitions_ml-latest-small.jsonl", 1812),
    ],
)
def test_every_line_is_bound_to_its_request(file, rows):
    """The key is recomputed, without our classes, from the system text in `prompts` and the line's prompt."""
    lines = [json.loads(line) for line in (BUNDLED / file).read_bytes().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == rows
    for line in lines:
        request = {
            "decoding": {},
            "prompt": line["prompt"],
            "purpose": line["purpose"],
            "system": prompts.SYSTEM[line["purpose"]],
        }
        canonical = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
        assert line["key"] == hashlib.sha256(canonical.encode()).hexdigest()
        assert set(line) == {"key", "purpose", "prompt", "model", "text", "meta"}
        assert line["model"] == "Anthropic Claude"


def test_item_texts_answer_the_requests_that_the_data_give(datasets):
    """2,323 films are asked by their MovieLens title and genres, 2,000 by those of MovieTweetings."""
    listed = {answer.meta["imdb"]: answer.meta["listed_in"] for answer in movies.item_answers().values()}
    for name, count in [("ml-latest-small", 2323), ("movietweetings", 2000)]:
        items = datasets[name].items
        items = items[items["imdb"].map(listed) == name]
        assert len(items) == count
        requests = [
            prompts.item_facts(title, genres)
            for title, genres in zip(items["title"], items["genres"], strict=True)
        ]
        texts = [response.text for response in generate(requests, progress=False)]
        assert texts == movies.item_texts(items["imdb"]).tolist()


def test_user_texts_were_written_from_the_first_ratings_only(datasets):
    """KAR's rule, from the data: sorted by time, then movie, the first min((n + 1) // 2, 30) ratings."""
    small = datasets["ml-latest-small"]
    titles = small.items.set_index("item_id")["title"]
    ordered = small.interactions.sort_values(["user_id", "timestamp", "item_id"])
    requests, users = [], []
    for user, rows in ordered.groupby("user_id"):
        first = rows.head(min((len(rows) + 1) // 2, 30))
        shown = list(zip(titles[first["item_id"]], first["rating"].tolist(), strict=True))
        requests.append(prompts.user_preferences(shown))
        users.append(user)
        history = list(zip(first["item_id"].tolist(), first["rating"].tolist(), strict=True))
        assert movies.user_answers()[user].meta["history"] == [list(pair) for pair in history]
    texts = [response.text for response in generate(requests, progress=False)]
    assert texts == movies.user_texts(pd.Series(users)).tolist()
    assert len(texts) == 610


def test_coverage_is_what_the_card_says(datasets):
    card = (BUNDLED / "README.md").read_text()
    for name in ("ml-latest-small", "movietweetings"):
        items = datasets[name].items
        known = items["item_id"][movies.item_texts(items["imdb"]).notna()]
        share = datasets[name].interactions["item_id"].isin(known).mean()
        assert f"| `{name}` | {len(known):,} of {len(items):,} | {share:.1%} |" in card


@pytest.mark.parametrize("text", movies.ITEM_TEXTS)
def test_items_without_text_get_zeros_and_rows_keep_their_order(text):
    imdb = pd.Series(["0113277", None, "9999999", "0114709"], index=[7, 5, 3, 1], dtype="str")
    texts = movies.item_texts(imdb, text)
    assert texts.index.tolist() == [7, 5, 3, 1]
    assert texts.isna().tolist() == [False, True, True, False]
    vectors, has_text = movies.item_vectors(pd.DataFrame({"imdb": imdb}), text)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, 384)
    assert has_text.tolist() == [True, False, False, True]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 0, 1], atol=1e-3)
    swapped, _ = movies.item_vectors(pd.DataFrame({"imdb": imdb[::-1]}), text)
    np.testing.assert_array_equal(swapped, vectors[::-1])
    assert not np.allclose(vectors[0], vectors[3])


def test_the_control_is_what_the_model_was_given():
    heat = pd.Series(["0113277"])
    assert movies.item_texts(heat, "title_genres")[0] == "Heat (1995)\nGenres: Action|Crime|Drama|Thriller"
    assert "Pacino" in movies.item_texts(heat)[0]
    first = pd.Series([1])
    history, answer = movies.user_texts(first, "history")[0], movies.user_texts(first)[0]
    assert history.startswith("She's the One (1996) 4; Star Wars")
    assert movies.user_texts(first, "history_preferences")[0] == f"{history}. {answer}"


@pytest.mark.parametrize("text", movies.USER_TEXTS)
def test_unknown_users_get_zeros(text):
    vectors, has_text = movies.user_vectors(pd.Series([610, 611, 1]), text)
    assert has_text.tolist() == [True, False, True]
    assert (np.linalg.norm(vectors, axis=1) > 0.9).tolist() == [True, False, True]


def test_mistakes_are_named():
    with pytest.raises(UserError, match="no column imdb"):
        movies.item_vectors(pd.DataFrame({"item_id": [1]}))
    with pytest.raises(
        UserError, match=r"text 'fact' is not one of facts, title_genres; did you mean 'facts'"
    ):
        movies.item_texts(pd.Series(["0113277"]), "fact")
    with pytest.raises(UserError, match="text 'facts' is not one of preferences"):
        movies.user_vectors(pd.Series([1]), "facts")
