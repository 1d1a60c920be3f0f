"""The data set of the survey's examples: what a model may know of a test user, and what is asked about it."""

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
import torch

from rec_utils.knowledge.store import Store
from rec_utils.papers import survey_language as language
from rec_utils.papers.survey_task import MIN_OF_CLASS, N_CANDIDATES, N_USERS, PROFILE, load_task

#: SHA-256 over the keys in their order; another one orphans the stored answers.
KEYS = {
    "scoring": "b558364771b94a5ba85e3c0ea6925ed44a550e0ce355a730f4f7dae555cafe9b",
    "question": "365b617af13793047a27077d234dc36890c9ff07b923ccaf2241fe7043f8c453",
    "reply": "34b68542082812ce3c23462971c06d39fadf149d1c2a851a832c4427d5658616",
    "tool": "961abf093a3387836106e49c451bf3db52236f2ebc81ae72f978daeb72b093dc",
}


@pytest.fixture(scope="module")
def survey():
    return load_task()


@pytest.fixture(scope="module")
def rated(survey):
    """Raw ratings of each test user in time order, beside the code under test."""
    order = survey.dataset.interactions.sort_values(["user_id", "timestamp", "item_id"])
    return [order[order["user_id"] == survey.task.user_ids[user]] for user in survey.users]


def test_candidates_are_the_ten_films_rated_after_the_profile(survey, rated):
    assert len(survey.users) == len(np.unique(survey.users)) == N_USERS
    for shown, rows, label, mine in zip(survey.profiles, survey.candidates, survey.label, rated, strict=True):
        later = mine.iloc[PROFILE : PROFILE + N_CANDIDATES].set_index("item_id")["rating"]
        items = survey.task.item_ids[rows]
        assert set(items) == set(later.index) and len(later) == N_CANDIDATES
        assert ((later.loc[items] >= 4).to_numpy() == label).all()
        assert shown["item_id"].tolist() == mine["item_id"].iloc[:PROFILE].tolist()
        assert shown["rating"].tolist() == mine["rating"].iloc[:PROFILE].tolist()
    likes = survey.label.sum(1)
    assert likes.min() >= MIN_OF_CLASS and likes.max() <= N_CANDIDATES - MIN_OF_CLASS
    # an order by time or number would be known to whoever answers
    assert not (np.sort(survey.lists, axis=1) == survey.lists).all(1).any()


def test_a_sample_sees_the_profile_and_nothing_later(survey, rated):
    prompts = survey.task.prompts.groupby("user_row")
    items, ratings = prompts["item_row"].agg(list), prompts["rating"].agg(list)
    batch = survey.samples.batch(torch.arange(len(survey.samples)))
    levels = np.unique(survey.task.ratings["rating"])
    first_level = int(survey.samples.rating_ids.min())
    assert int(survey.samples.rating_ids.max()) - first_level == len(levels) - 1
    for row in np.random.default_rng(0).permutation(len(survey.samples))[:500]:
        user, seen = int(batch.user_row[row]), batch.mask[row]
        assert (batch.history[row, seen, 0] - 1).tolist() == items[user]
        assert levels[batch.history[row, seen, -1] - first_level].tolist() == ratings[user]
    assert (batch.item_row == survey.task.samples.item_row).all()
    assert (batch.label == survey.task.samples.label).all()


def test_a_smoke_run_keeps_the_test_and_a_few_others(survey):
    few = load_task(first_users=5)
    assert few.users.tolist() == survey.users.tolist()
    assert (few.candidates == survey.candidates).all() and (few.label == survey.label).all()
    user = few.samples.user_row.numpy()
    assert set(user) - set(few.users) == set(np.setdiff1d(survey.samples.user_row.numpy(), survey.users)[:5])


def test_no_label_of_a_test_user_is_trained_on(survey):
    train, valid, test = survey.masks(0)
    user = survey.samples.user_row.numpy()
    assert set(user[test]) == set(survey.users) and test.sum() == survey.lists.size
    assert not set(user[train | valid]) & set(survey.users)
    assert set(np.flatnonzero(test)) == set(survey.lists.ravel())
    assert (survey.masks(1)[1] != valid).any() and (survey.masks(1)[2] == test).all()
    # popularity counts others only
    others = ~np.isin(survey.task.ratings["user_row"], survey.users)
    counted = survey.task.ratings[others]["item_row"].value_counts()
    assert survey.popularity.sum() == others.sum() and (survey.popularity[counted.index] == counted).all()


def test_the_questions_are_those_that_were_answered(survey):
    questions = language.question_requests(survey)
    stored = Store(language.ANSWERS, readonly=True)
    topics = [language.read_topic(stored.get(request).text) for request in questions]
    built = {
        "scoring": language.scoring_requests(survey),
        "question": questions,
        "reply": language.reply_requests(survey, topics),
        "tool": language.tool_requests(survey),
    }
    assert len(stored) == len(built) * N_USERS
    for name, requests in built.items():
        keys = [request.key for request in requests]
        assert len(set(keys)) == N_USERS and all(map(stored.get, requests))
        assert hashlib.sha256("".join(keys).encode()).hexdigest() == KEYS[name], name


def test_a_request_shows_no_rating_of_a_candidate(survey, rated):
    """Each shown rating is one of the profile, and each candidate stands there with title and genres."""
    topics = ["Drama", "1990s", "Comedy", "Horror"] * 25
    asked = {
        PROFILE: language.scoring_requests(survey),
        language.N_SEEN: language.question_requests(survey),
        0: language.reply_requests(survey, topics),
    }
    titles = survey.dataset.items.set_index("item_id")["title"]
    for n_seen, requests in asked.items():
        for request, rows, mine in zip(requests, survey.candidates, rated, strict=True):
            before, after = request.prompt.split("\n\nFilms:\n")
            films = [re.fullmatch(r"\d+\. (.*?) \| [^|\d]*", line)[1] for line in after.split("\n")]
            assert films == titles.loc[survey.task.item_ids[rows]].str.strip().tolist()
            if n_seen:
                shown = [line.rpartition(" | ")[2] for line in before.split("\n")[1:]]
                assert list(map(float, shown)) == mine["rating"].iloc[:n_seen].tolist()
    for request in language.tool_requests(survey):
        assert "star" not in request.prompt.split("\n\nFilms:\n")[1]


def test_the_reply_tells_what_is_known_of_a_topic():
    rated = pd.DataFrame(
        {
            "title": [f"Film {n}" for n in range(9)],
            "genres": ["Comedy|Sci-Fi"] * 8 + ["Drama"],
            "year": pd.array([1979, 1980, 1985, 1990, 1990, 1990, 1990, 1990, None], "Int16"),
            "rating": [1.0, 5.0, 3.0, 3.5, 2.0, 4.5, 4.0, 0.5, 5.0],
        }
    )
    assert language.reply(rated, "1980s") == (
        "I have rated 2 more of them, with 4.0 stars on average: Film 1 5; Film 2 3."
    )
    assert language.reply(rated, "sci-fi") == (
        "I have rated 8 more of them, with 2.9 stars on average. The best: Film 1 5; Film 5 4.5; Film 6 4."
        " The lowest: Film 4 2; Film 0 1; Film 7 0.5."
    )
    assert language.reply(rated, "Western") == "I cannot think of one that I have rated."


def test_answers_are_read_as_they_are_asked_for():
    text = "1: 64\n2: 7.5\n3:100%\n10: 0\nask: Sci-Fi"
    scores = language.read_scores([text, "no idea"])
    assert scores.shape == (2, 10) and (scores[1] == 0.5).all()
    assert scores[0].tolist() == [0.64, 0.075, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0]
    assert language.read_scores(["11: 3\n0: 4\n1: 250"])[0].tolist() == [1] + 9 * [0.5]
    assert language.read_topic(text) == "Sci-Fi" and language.read_topic("ask: 1980s") == "1980s"
    assert language.read_topic("I would ask about love") == "Drama"
    assert language.read_tool("tool: language") == "language" and language.read_tool("both") == "model"
