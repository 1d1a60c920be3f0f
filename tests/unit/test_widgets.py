"""The explorer of one user: what it shows, that it escapes it, and that it switches users."""

from base64 import b64decode
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_ratings import random_dataset

from rec_utils.errors import UserError
from rec_utils.knowledge import movies
from rec_utils.knowledge.request import Request, Response
from rec_utils.rerank_lists import rerank_lists
from rec_utils.samples import ctr_task
from rec_utils.widgets import (
    TOP,
    DecodingExplorer,
    GuidanceExplorer,
    ListExplorer,
    TimelineExplorer,
    UserExplorer,
)

EVIL = "<script>alert(1)</script> & co"


@pytest.fixture
def answers(monkeypatch):
    """Texts about users 10 and 20."""
    request = Request("user_preferences", "", "")
    texts = {user: Response(request, f"{EVIL} about {user}", "nobody") for user in (10, 20)}
    monkeypatch.setattr(movies, "user_answers", lambda: texts)


def explorer(name=movies.USERS_OF, ties=False, arms=("base", "KAR"), **kw):
    tiny = random_dataset(n_users=4, n_items=40, n_each=30, name=name, **kw)
    task = ctr_task(tiny, history_length=2)
    rng = np.random.default_rng(0)
    n = len(task.samples)
    scores = {arm: rng.integers(0, 3, n) / 4 if ties else rng.random(n) for arm in arms}
    return UserExplorer(tiny, task, scores)


def test_the_history_is_the_prompt_history_in_order():
    made = explorer()
    rated = made.task.ratings[made.task.ratings["user_row"] == 1].head(15)
    history = made.history(20)
    assert history["title"].tolist() == [f"Film {made.task.item_ids[row]}" for row in rated["item_row"]]
    assert history["rating"].tolist() == rated["rating"].tolist()


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_places_in_the_order_of_the_scores(ties):
    made = explorer(ties=ties)
    rows = np.flatnonzero(made.task.samples.user_row == 2)
    table = made.ranking(30)
    assert sorted(table["rank: base"]) == sorted(table["rank: KAR"]) == list(range(1, len(rows) + 1))
    titles = np.array([f"Film {made.task.item_ids[row]}" for row in made.task.samples.item_row[rows]])
    for arm, scores in made.probability.items():
        best_first = titles[np.argsort(-scores[rows], kind="stable")]
        by_rank = table.sort_values(f"rank: {arm}")["title"]
        assert by_rank.tolist() == best_first.tolist()
    assert table["rank: KAR"].is_monotonic_increasing
    liked = dict(zip(titles, made.task.samples.label[rows] > 0, strict=True))
    assert table["liked"].tolist() == ["yes" if liked[title] else "no" for title in table["title"]]


def test_whatever_comes_from_outside_is_escaped(answers):
    made = explorer(titles=dict.fromkeys(range(100, 140), EVIL), arms=("base", EVIL))
    page = made.show(10).data
    assert "<script" not in page
    shown = "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co"
    assert page.count(shown) == 2 * TOP + 2  # titles of both tables, one arm, the text
    assert f"{shown} about 10" in page


def test_texts_belong_to_the_users_of_one_data_set(answers):
    assert "about 20" in explorer().show(20).data
    assert "no text about this user" in explorer().show(30).data
    elsewhere = explorer(name="movietweetings").show(20).data
    assert "about 20" not in elsewhere and "no text about this user" in elsewhere


@pytest.mark.parametrize("user", [0, 15, 41])
def test_an_unknown_user_is_named(user):
    made = explorer()
    for view in (made.history, made.ranking, made.show):
        with pytest.raises(UserError, match=f"there is no user {user} in the samples"):
            view(user)


def test_choosing_a_user_shows_them(answers):
    made = explorer()
    choice, page = made.widget().children
    assert list(choice.options) == [10, 20, 30, 40]
    for user in (10, 30, 20):
        choice.value = user
        assert page.value == made.show(user).data
    assert "about 20" in page.value


# Lists


def list_explorer():
    tiny = random_dataset(n_users=4, n_items=40, n_each=30, titles=dict.fromkeys(range(100, 110), EVIL))
    task = ctr_task(tiny, history_length=2)
    lists = rerank_lists(task)
    rng = np.random.default_rng(0)
    return ListExplorer(tiny, task, lists, {arm: rng.random(lists.label.shape) for arm in ("base", EVIL)})


def test_a_list_shows_what_its_candidates_are_and_their_ranks():
    made = list_explorer()
    table, score = made.table(3), made.scores["base"][3]
    order = np.argsort(-made.scores[EVIL][3])
    kinds = {(1, True): "liked", (0, True): "rated, not liked", (0, False): "random"}
    label, rated = made.lists.label[3].tolist(), made.lists.rated[3].tolist()
    assert table["in the list as"].tolist() == [kinds[label[j], rated[j]] for j in order]
    assert table["title"].tolist() == [made.titles[made.lists.item_row[3, j]] for j in order]
    assert table["rank: base"].tolist() == [1 + int((score > score[j]).sum()) for j in order]
    assert table[f"rank: {EVIL}"].tolist() == list(range(1, 11))


def test_lists_are_escaped_chosen_and_checked():
    made = list_explorer()
    choice, page = made.widget().children
    for number in (2, 0):
        choice.value = number
        assert page.value == made.show(number).data
        assert "<script" not in page.value and "&lt;script&gt;" in page.value
    with pytest.raises(UserError, match="list 99 is not one of 0 to"):
        made.table(99)


def test_a_timeline_shows_the_periods_of_one_user_in_order_and_escapes_them():
    table = pd.DataFrame(
        {
            "user_id": [7, 7, 3],
            "partition": [1, 2, 1],
            "summary": [EVIL, "second", "another's"],
            "shift": ["", "new", ""],
        }
    )
    made = TimelineExplorer(table)
    shown = made.show(7).data
    assert shown.index("alert(1)") < shown.index("second") < shown.index("new")
    assert "<script>" not in shown and "another" not in shown
    choice, page = made.widget().children
    assert choice.options == (3, 7) and "another" in page.value
    choice.value = 7
    assert page.value == shown


def test_a_timeline_names_what_is_missing():
    with pytest.raises(UserError, match="user_id"):
        TimelineExplorer(pd.DataFrame({"summary": ["x"]}))
    with pytest.raises(UserError, match="no user 8"):
        TimelineExplorer(pd.DataFrame({"user_id": [7], "summary": ["x"]})).show(8)


def test_a_decoded_text_shows_its_passes_and_is_escaped():
    passes = [[["A"], [" quiet", EVIL, " film"]], [["B"]]]
    made = DecodingExplorer([EVIL, "second\n"], passes.__getitem__)
    shown = made.show(0).data
    assert "<script" not in shown
    assert "4 tokens in 2 passes" in shown
    drafted = [part.split("</span>")[0].split(">")[-1] for part in shown.split("background")[1:]]
    assert drafted[0] == "" and drafted[1].startswith(" quiet") and " film" not in drafted[1]
    choice, page = made.widget().children
    choice.value = 1
    assert page.value == made.show(1).data
    with pytest.raises(UserError, match="prompt 2 is not one of 0 to 1"):
        made.show(2)


def test_a_slider_draws_pictures_anew():
    asked = []

    def draw(number, **strength):
        asked.append((number, strength))
        return np.full((2, 3, 3), number - 1.0)

    made = GuidanceExplorer(draw, 2, {"history": 2.0, "<b>": 1.0})
    shown = made.show(1, history=3.0).data
    assert asked == [(1, {"history": 3.0, "<b>": 1.0})]
    assert "history 3" in shown and "<b>" not in shown
    png = Image.open(BytesIO(b64decode(shown.split("base64,")[1].split('"')[0])))
    assert png.size == (80, 40)
    choice, history, _, page = made.widget().children
    history.value = 5.0
    assert page.value == made.show(0, history=5.0).data
    choice.value = 1
    assert page.value == made.show(1, history=5.0).data
    with pytest.raises(UserError, match="number 2 is not one of 0 to 1"):
        made.show(2)
    with pytest.raises(UserError, match="'mutual' is no strength; there are history, <b>"):
        made.show(0, mutual=1.0)
