"""LIBER's interest learning: the cascade of requests, a language model that writes, the shipped answers."""

import json
from typing import ClassVar

import numpy as np
import pytest
import tiny_lm
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import random_dataset

from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.knowledge import huggingface, movies
from rec_utils.knowledge.huggingface import HuggingFaceBackend
from rec_utils.knowledge.prompts import interest_shift, interest_summary
from rec_utils.knowledge.request import Request, Response
from rec_utils.knowledge.store import Store
from rec_utils.papers import liber
from rec_utils.papers.liber import Interest, behaviours, learn, text_vectors, titles, written
from rec_utils.papers.ubsp import Behaviour, Condition, Partition, Stream, of_task, partition
from rec_utils.samples import ctr_task


class Model:
    """Answers each request with a text of its own, remembers what it was asked, fails at one purpose."""

    def __init__(self, fails_at=None):
        self.fails_at, self.asked = fails_at, []

    def __call__(self, requests):
        if self.fails_at in {request.purpose for request in requests}:
            raise UserError("the model is not there")
        self.asked.append(list(requests))
        return [Response(request, f"It is {request.key}.", "fake") for request in requests]


FILMS = {item: f"Film {item} (1999)" for item in range(60)}


def parts_of(users, count=2):
    """What a stream closes whose behaviours come from these users."""
    stream = Stream(Condition(count=count))
    return stream.extend((user, Behaviour(n, 1 + n % 9 / 2, n)) for n, user in enumerate(users))


def cascade(parts, profiles):
    """What `learn` should return for a whole stream, one partition after the other."""
    say, last, found = Model(), {}, []
    for part in parts:
        rated = [(FILMS[behaviour.item], behaviour.rating) for behaviour in part.behaviours]
        (summary,) = say([interest_summary(rated, profiles.get(part.user, ""))])
        shift = say([interest_shift(last[part.user], summary.text)])[0] if part.number else None
        found.append(Interest(part.user, part.number, summary, shift))
        last[part.user] = summary.text
    return found, last


@settings(deadline=None)
@given(users=st.lists(st.integers(0, 2), max_size=30), cuts=st.sets(st.integers(0, 15)))
def test_the_cascade_is_the_same_however_partitions_are_grouped(users, cuts):
    parts, profiles = parts_of(users), {1: "The user is a writer."}
    expected, last = cascade(parts, profiles)
    model, previous, found, start = Model(), {}, [], 0
    for end in [*sorted(cuts), len(parts)]:
        found += learn(parts[start:end], FILMS, model, previous, profiles)
        start = max(start, end)
    assert found == expected
    assert previous == last
    assert sum(map(len, model.asked)) == len(parts) + sum(part.number > 0 for part in parts)


def test_all_summaries_are_asked_for_at_once_and_then_all_shifts():
    model = Model()
    learn(parts_of([0, 0, 0, 0, 1, 1, 0, 0]), FILMS, model, {})
    summaries, shifts = model.asked
    assert [request.prompt for request in summaries] == [
        "Film 0 (1999) 1; Film 1 (1999) 1.5",
        "Film 2 (1999) 2; Film 3 (1999) 2.5",
        "Film 4 (1999) 3; Film 5 (1999) 3.5",
        "Film 6 (1999) 4; Film 7 (1999) 4.5",
    ]
    text = [f"It is {request.key}." for request in summaries]
    assert [request.prompt for request in shifts] == [
        f"Before: {text[0]}\nNow: {text[1]}",
        f"Before: {text[1]}\nNow: {text[3]}",
    ]


@pytest.mark.parametrize("fails_at", ["interest_summary", "interest_shift"])
def test_after_a_failure_the_same_call_can_be_made_again(fails_at):
    parts, previous = parts_of([0] * 8), {}
    learn(parts[:1], FILMS, Model(), previous)
    before = dict(previous)
    with pytest.raises(UserError, match="not there"):
        learn(parts[1:], FILMS, Model(fails_at), previous)
    assert previous == before
    assert learn(parts[1:], FILMS, Model(), previous) == cascade(parts, {})[0][1:]


@pytest.mark.parametrize(
    ("numbers", "known", "message"),
    [
        ([1], {}, "user 7: partition 1 came where 0 was due"),
        ([0], {7: "Likes war."}, "user 7: partition 0 came where 1 was due"),
        ([0, 2], {}, "user 7: partition 2 came where 1 was due"),
        ([4, 4], {7: "Likes war."}, "user 7: partition 4 came where 5 was due"),
    ],
    ids=str,
)
def test_a_partition_out_of_turn_is_named_before_anything_is_asked(numbers, known, message):
    parts, model = [Partition(7, number, 0, (Behaviour(1, 3.0, 0),)) for number in numbers], Model()
    with pytest.raises(UserError, match=message):
        learn(parts, FILMS, model, dict(known))
    assert not model.asked


def test_an_item_without_a_title_is_named_before_anything_is_asked():
    model = Model()
    with pytest.raises(UserError, match="item 99, rated by user 7, has no title"):
        learn([Partition(7, 0, 0, (Behaviour(99, 3.0, 0),))], FILMS, model, {})
    assert not model.asked


# The partitions of a task


def sixes(dataset):
    """The task of a data set, and its partitions of 6 ratings."""
    task = ctr_task(dataset, history_length=3)
    return task, partition(*task.ratings[["user_row", "timestamp"]].to_numpy().T, Condition(count=6))


def test_partitions_of_a_task_are_those_of_the_stream():
    dataset = random_dataset()
    stream = Stream(Condition(count=6))
    rows = dataset.interactions.itertuples(index=False)  # user by user, one item a day
    expected = stream.extend((user, Behaviour(item, rating, time)) for user, item, rating, time in rows)
    assert behaviours(*sixes(dataset)) == expected
    assert titles(dataset)[expected[0].behaviours[0].item] == f"Film {expected[0].behaviours[0].item}"


class Counting(HuggingFaceBackend):
    """A back-end that remembers what it was asked; with `stops`, it ends after its first batch."""

    asked: ClassVar[list[Request]] = []
    stops = False

    def answer(self, requests):
        self.asked.extend(requests)
        for group in super().answer(requests):
            yield group
            if self.stops:
                raise UserError("the power is out")


def test_a_language_model_writes_all_texts_and_a_stopped_run_goes_on(tmp_path, monkeypatch):
    folder = tiny_lm.save(tmp_path / "lm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    monkeypatch.setattr(huggingface, "DEFAULT_DECODING", {"max_new_tokens": 12, "temperature": 0.0})
    monkeypatch.setattr(liber, "HuggingFaceBackend", Counting)
    dataset = random_dataset(n_users=6)
    task, partitions = sixes(dataset)

    def run(where, stops=False):
        """All texts, with the store in a folder, and the purposes of what the model was asked for them."""
        monkeypatch.setenv("REC_DATA", str(tmp_path / where))
        monkeypatch.setattr(Counting, "stops", stops)
        Counting.asked.clear()
        texts = written(dataset, task, partitions, str(folder))
        return texts, [request.purpose for request in Counting.asked]

    whole, purposes = run("whole")
    assert purposes == ["interest_summary"] * 12 + ["interest_shift"] * 6
    with pytest.raises(UserError, match="power is out; 8 of 12 answers are kept"):
        run("stopped", stops=True)
    rest, purposes = run("stopped")
    assert purposes == ["interest_summary"] * 4 + ["interest_shift"] * 6
    assert rest == whole
    parts = behaviours(task, partitions)
    assert [(one.user, one.number) for one in whole] == [(part.user, part.number) for part in parts]


# The shipped answers


def test_shipped_answers_are_replayed_and_never_made_up(tmp_path, monkeypatch):
    monkeypatch.setattr(movies, "PARTITIONS", tmp_path / "partitions.jsonl")
    requests = [interest_summary([(title, 4.0)]) for title in ("Heat (1995)", "Alien (1979)")]
    answers = Model()(requests)
    Store(movies.PARTITIONS).append(answers)
    assert liber.stored(requests[::-1]) == answers[::-1]
    with pytest.raises(UserError, match=r"interest_shift request .* in partitions\.jsonl"):
        liber.stored([interest_shift("War.", "Peace.")])


@pytest.fixture(scope="module")
def shipped():
    small = data.load("ml-latest-small")
    task = ctr_task(small, history_length=5, min_ratings=60, max_samples_per_user=320)
    return learn(behaviours(task, of_task(task, Condition(count=50))), titles(small), liber.stored, {})


def test_the_shipped_answers_are_those_to_the_requests_that_the_data_give(shipped):
    asked = {
        answer.key: {"user_id": one.user, "partition": one.number + 1}
        for one in shipped
        for answer in (one.summary, one.shift)
        if answer
    }
    answers = {answer.key: dict(answer.meta) for answer in Store(movies.PARTITIONS, readonly=True)}
    assert answers == asked
    assert (len(shipped), len(asked), max(one.number for one in shipped)) == (1074, 1812, 5)


def test_every_shipped_text_has_a_vector_of_its_own(shipped):
    tables = text_vectors(shipped)
    has_shift = np.array([one.shift is not None for one in shipped])
    assert has_shift.sum() == 738
    np.testing.assert_array_equal(tables["shift"].any(axis=1), has_shift)
    assert len(np.unique(tables["shift"], axis=0)) == 738 + 1
    assert len(np.unique(tables["summary"], axis=0)) == 1074


# Vectors


def test_texts_become_centred_vectors_and_no_shift_becomes_zeros(monkeypatch):
    interests = learn(parts_of([0, 0, 1, 1, 0, 0, 0, 0]), FILMS, Model(), {})

    def vector(text):
        return np.random.default_rng(list(text.encode())).normal(size=384).astype(np.float32)

    monkeypatch.setattr(movies.vectors, "encode", lambda texts, encoder: np.stack(list(map(vector, texts))))
    found = text_vectors(interests)
    for kind, rows in {"summary": [0, 1, 2, 3], "shift": [2, 3]}.items():
        own = np.stack([vector(getattr(interests[row], kind).text) for row in rows])
        expected = np.zeros((4, 384))
        expected[rows] = own - own.mean(axis=0)
        expected[rows] /= np.linalg.norm(expected[rows], axis=1, keepdims=True)
        np.testing.assert_allclose(found[kind], expected, atol=1e-6)
        assert found[kind].dtype == np.float32
