import hashlib

import pytest

from rec_utils.errors import UserError
from rec_utils.knowledge import prompts
from rec_utils.knowledge.request import Request


def test_key_is_the_sha256_of_the_canonical_json():
    request = Request("p", "s", "Amélie \n2", {"temperature": 0.5, "max_new_tokens": 9})
    canonical = (
        '{"decoding":{"max_new_tokens":9,"temperature":0.5},'
        '"prompt":"Amélie \\n2","purpose":"p","system":"s"}'
    )
    assert request.key == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        Request("q", "s", "x"),
        Request("p", "s ", "x"),
        Request("p", "s", "X"),
        Request("p", "s", "x", {"seed": 0}),
    ],
)
def test_any_difference_gives_another_key(other):
    assert other.key != Request("p", "s", "x").key


def test_equal_numbers_give_one_key():
    keys = {Request("p", "s", "x", {"temperature": t, "seed": s}).key for t, s in [(0, 1), (0.0, 1.0)]}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"temprature": 0.5}, "did you mean 'temperature'"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be of type int"),
        ({"temperature": "0.5"}, "temperature must be of type float"),
        ({"seed": True}, "seed must be of type int"),
    ],
)
def test_wrong_decoding_settings_are_named(decoding, message):
    with pytest.raises(UserError, match=message):
        Request("p", "s", "x", decoding)


def test_decoding_cannot_change_behind_the_key():
    settings = {"seed": 1}
    request = Request("p", "s", "x", settings)
    settings["seed"] = 2
    assert request.key == Request("p", "s", "x", {"seed": 1}).key
    with pytest.raises(TypeError):
        request.decoding["seed"] = 3


def test_our_prompts_word_for_word():
    assert prompts.item_facts("Heat (1995) ", "Action|Crime").prompt == "Heat (1995)\nGenres: Action|Crime"
    assert prompts.item_facts("Heat (1995)", "").prompt == "Heat (1995)\nGenres: (no genres listed)"
    history = [("Toy Story (1995)", 4.0), ("Heat (1995)", 4.5)]
    assert prompts.user_preferences(history).prompt == "Toy Story (1995) 4; Heat (1995) 4.5"


@pytest.mark.parametrize("build", [prompts.user_preferences, prompts.kar_user])
def test_an_empty_history_is_refused(build):
    with pytest.raises(UserError, match="history is empty"):
        build([])


@pytest.mark.parametrize("factors", [prompts.MOVIE_FACTORS, prompts.BOOK_FACTORS])
def test_kar_prompts_of_a_pair_name_the_same_nine_factors(factors):
    item = prompts.kar_item("Emma", factors).prompt
    user = prompts.kar_user([("Emma", 5)], factors=factors).prompt
    assert len(set(factors)) == 9
    for factor in factors:
        assert factor in item
        assert factor in user


def test_kar_user_text_is_profile_and_history_then_the_answer():
    history = [("Heat (1995)", 4), ("Se7en; or Seven (1995)", 3.5)]
    request = prompts.kar_user(history, prompts.ml1m_profile("female", "25-34", "writer"))
    assert prompts.knowledge_text(request, "Likes crime; hates none.") == (
        "The user is female, aged 25-34, occupation writer. The user's rated movies in order:"
        ' "Heat (1995)", 4 stars; "Se7en; or Seven (1995)", 3.5 stars. Likes crime; hates none.'
    )
    ours = prompts.user_preferences(history)
    assert prompts.knowledge_text(ours, "Likes crime.") == f"{ours.prompt}. Likes crime."
