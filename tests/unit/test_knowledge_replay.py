import pytest

from rec_utils.errors import UserError
from rec_utils.knowledge import prompts
from rec_utils.knowledge.llm import ReplayBackend, generate
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store


def response(name, model="m"):
    return Response(Request("p", "s", name), f"{name} by {model}", model)


@pytest.fixture
def store(tmp_path):
    def make(name, *responses):
        made = Store(tmp_path / f"{name}.jsonl")
        made.append(responses)
        return made

    return make


class NoBackend:
    model = "m"

    def answer(self, requests):
        raise AssertionError("nothing was to be asked")


def test_the_shipped_answers_are_the_default():
    heat = prompts.item_facts("Heat (1995)", "Action|Crime|Drama|Thriller")
    (answer,) = generate([heat], progress=False)
    assert answer.model == "Anthropic Claude"
    assert "Michael Mann" in answer.text


def test_a_request_without_answer_is_named_not_made_up():
    missing = prompts.item_facts("Heat (1995)", "Musical")
    message = (
        rf"item_facts request {missing.key[:12]} \('Heat \(1995\)\\nGenres: Musical'\) has no stored answer"
    )
    with pytest.raises(UserError, match=message):
        generate([missing], progress=False)


def test_stored_answers_are_not_asked_again(store):
    mine = store("mine", response("a"), response("b"))
    asked = [response(name).request for name in "baab"]
    answers = generate(asked, mine, NoBackend(), progress=False)
    assert [answer.text for answer in answers] == ["b by m", "a by m", "a by m", "b by m"]


def test_another_models_answer_does_not_count(store):
    mine = store("mine", response("a", "other"))
    with pytest.raises(AssertionError, match="nothing was to be asked"):
        generate([response("a").request], mine, NoBackend(), progress=False)
    with pytest.raises(UserError, match="has no stored answer by m"):
        generate([response("a").request], None, ReplayBackend(mine, model="m"), progress=False)


def test_models_are_not_mixed_across_stores(store):
    stores = store("one", response("a", "x")), store("two", response("a", "y"), response("b", "y"))
    both = [response("a").request, response("b").request]
    with pytest.raises(UserError, match="answered by x and y in different stores"):
        generate(both, None, ReplayBackend(*stores), progress=False)
    answers = generate(both, None, ReplayBackend(*stores, model="y"), progress=False)
    assert [answer.text for answer in answers] == ["a by y", "b by y"]


def test_replayed_answers_keep_their_author_in_a_new_store(store):
    source, copy = store("source", response("a", "x")), store("copy")
    generate([response("a").request], copy, ReplayBackend(source), progress=False)
    assert list(Store(copy.path)) == [response("a", "x")]


def test_a_store_of_another_process_is_needed_to_share_work():
    class Half:
        model = "m"

        def answer(self, requests):
            yield [response(requests[0].prompt)]

    with pytest.raises(UserError, match=r"'b'\) was not answered; several processes must share one store"):
        generate([response("a").request, response("b").request], None, Half(), progress=False)
