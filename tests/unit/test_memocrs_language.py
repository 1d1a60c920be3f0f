"""MemoCRS with a language model: prompts by arm, answers read and grounded, replay; the sequential expert."""

import json

import numpy as np
import pandas as pd
import pytest
import tiny_dialogues as tiny
import torch

from rec_utils.errors import UserError
from rec_utils.knowledge.llm import ReplayBackend
from rec_utils.knowledge.request import Response
from rec_utils.knowledge.store import Store
from rec_utils.papers import memocrs, memocrs_study
from rec_utils.papers import memocrs_language as language
from rec_utils.papers.memocrs_contexts import contexts, ranks
from rec_utils.papers.memocrs_grounding import Catalog
from rec_utils.papers.memocrs_sequential import LENGTH, Sequential


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return tiny.loaded(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def test(toy):
    return toy.split("test")


@pytest.fixture(scope="module")
def general(toy):
    return memocrs.GeneralMemory.fit(toy.split("train"), n_folds=2)


@pytest.fixture(scope="module")
def known(general, test):
    return general.evidence(test)


class Writer:
    """A model that answers by a function of the prompt."""

    model = "writer"

    def __init__(self, write):
        self.write, self.asked = write, []

    def answer(self, requests):
        self.asked += requests
        yield [Response(request, self.write(request.prompt), self.model) for request in requests]


# Titles


def test_titles_are_found_exactly_then_without_year_then_nearly():
    movies = pd.DataFrame(
        {
            "title": [
                "Heat (1995)", "Heat (1986)", "Spider-Man: Homecoming (2017)", "Up (2009)", "It", "It (2017)",
                "Star Wars: Episode VIII – The Last Jedi (2017)", "",
            ]
        }
    )  # fmt: skip
    catalog = Catalog(movies, np.array([5, 9, 1, 1, 4, 4, 1, 0]))
    asked = {
        "heat  (1995)": 0, "HEAT (1986)": 1, "Heat": 1, "Heat (2001)": 1, "It": 4, "It (1990)": 4,
        "Spiderman: Homecoming (2017)": 2, "Star Wars: The Last Jedi (2017)": 6, "Us (2019)": -1,
        "The Last Jedi of the Cinema (2004)": -1, "": -1,
    }  # fmt: skip
    assert catalog.rows(list(asked)).tolist() == list(asked.values())
    assert catalog.rows(list(asked)[::-1]).tolist() == list(asked.values())[::-1]
    assert catalog.rows([]).tolist() == []


# Answers


@pytest.mark.parametrize(
    ("text", "titles", "pairs"),
    [
        ('["A (1990)", " B "]', ["A (1990)", "B"], []),
        ('Here: [{"entity": "A", "attitude": "likes"}, {"entity": "B"}, "C"] done', ["C"], [("A", "likes")]),
        ("no list", [], []),
        ('["cut off', [], []),
        ('[{"entity": null, "attitude": "likes"}, 3, ""]', [], []),
    ],
)
def test_answers_are_read_and_never_repaired(text, titles, pairs):
    assert language.read_titles(text) == titles
    assert language.read_pairs(text) == pairs


def test_extraction_grounds_films_and_keeps_other_entities(general, test):
    writer = Writer(
        lambda prompt: (
            '[{"entity": "heat", "attitude": "likes"}, {"entity": "Al Pacino", "attitude": "likes"},'
            ' {"entity": "Heat (1995)", "attitude": "dislikes"}]'
        )
    )
    part = test.select(test.sessions["session_id"][:3])
    found = language.LanguageModel(general, writer).extract(part)
    assert found["session_id"].tolist() == np.repeat(part.sessions["session_id"], 2).tolist()
    assert found[["entity", "attitude"]].values.tolist()[:2] == [
        ["Al Pacino", "likes"],
        ["Heat (1995)", "dislikes"],
    ]
    assert [request.purpose for request in writer.asked] == ["dialogue_memory"] * 3


def test_ranks_are_places_in_the_answer(general, test, known):
    turns = known.contexts
    row = next(r for r in range(len(turns)) if turns.named[[r]].nnz == 1)
    part = known.select(np.array([row]))
    titles = test.movies["title"]
    named = titles[part.contexts.named.indices[0]]
    free = [title for title in titles if title != named][:3]
    listed = [free[0], named, "A film of nobody (1900)", free[0].upper(), free[1]]
    scores = language.LanguageModel(general, Writer(lambda _: json.dumps(listed))).rank(
        test, part, "both memories"
    )
    found = {titles[movie]: -scores[0, movie] for movie in np.flatnonzero(np.isfinite(scores[0]))}
    # the named one and the repetition fall out, the unknown one takes up the second place
    assert found == {free[0]: 0, free[1]: 2}
    assert (
        language.LanguageModel(general, Writer(lambda _: "?")).rank(test, part, "no memory") == -np.inf
    ).all()


# Prompts


@pytest.mark.parametrize(
    ("arm", "parts"),
    [
        ("no memory", set()),
        ("raw history", {"Earlier dialogues"}),
        ("user memory", {"Remembered of the seeker"}),
        ("general memory", {"Candidates", "Guidelines"}),
        ("raw history + general", {"Candidates", "Guidelines", "Earlier dialogues"}),
        ("both memories", {"Candidates", "Guidelines", "Remembered of the seeker"}),
    ],
)
def test_a_prompt_shows_what_the_arm_may_see(general, test, known, arm, parts):
    requests = language.ranking_requests(test, known, general, arm)
    warm = np.flatnonzero(known.recalled.held)
    names = {"Earlier dialogues", "Remembered of the seeker", "Candidates", "Guidelines"}
    for row in warm[:10]:
        shown = {name for name in names if f"{name}:\n" in requests[row].prompt}
        assert shown == parts
    with pytest.raises(UserError, match="did you mean 'both memories'"):
        language.ranking_requests(test, known, general, "both memory")


def test_no_prompt_shows_what_is_to_be_predicted(general, test, known):
    """The dialogue ends before the turn, and earlier dialogues are those of the seeker's earlier sessions."""
    turns, titles = known.contexts, test.movies["title"].to_numpy()
    requests = language.ranking_requests(test, known, general, "raw history")
    for context, movie in zip(turns.context, turns.target, strict=True):
        assert titles[movie] not in requests[context].prompt.partition("Dialogue so far:\n")[2]
    past = language.earlier_dialogues(test, turns.table)
    for turn, text in zip(turns.table.itertuples(), past, strict=True):
        sessions = test.sessions
        earlier = (sessions["seeker"] == turn.seeker) & (sessions["session_id"] < turn.session_id)
        said = test.texts()[test.turns["session_id"].isin(sessions["session_id"][earlier])]
        words = " ".join(text.replace("Seeker: ", "").replace("Recommender: ", "").split())
        assert words == " ".join(" ".join(said).split())


def test_what_is_remembered_is_cut_to_the_entries_touched_last(known, monkeypatch):
    whole = language.remembered(known)
    monkeypatch.setattr(language, "N_ENTRIES", 2)
    for long, short in zip(whole, language.remembered(known), strict=True):
        assert short == "\n".join(long.split("\n")[-2:])


def test_stored_answers_are_replayed_and_a_missing_one_is_named(general, test, known, tmp_path):
    part = known.select(np.arange(4))
    first = language.LanguageModel(
        general, Writer(lambda _: '["Heat (1995)"]'), Store(tmp_path / "answers.jsonl")
    )
    written = first.rank(test, part, "both memories")
    replay = language.LanguageModel(general, ReplayBackend(Store(tmp_path / "answers.jsonl", readonly=True)))
    np.testing.assert_array_equal(replay.rank(test, part, "both memories"), written)
    with pytest.raises(UserError, match=r"dialogue_ranking request .* has no stored answer"):
        replay.rank(test, known, "general memory")


def test_both_assistants_serve_the_same_experiments(general, test, known):
    titles = json.dumps([title for title in test.movies["title"] if title])
    for assistant in (memocrs.Rules(general), language.LanguageModel(general, Writer(lambda _: titles))):
        found = memocrs_study.arm_ranks(test, known, assistant, ["no memory", "both memories"])
        assert all(len(rank) == len(known.contexts.target) for rank in found.values())
        assert {"session_id", "entity", "attitude"} == set(assistant.extract(test).columns)


# Experiments


def test_tables_and_draws_agree_with_plain_means(test, known, general):
    found = memocrs_study.expert_ranks(known.contexts, {"co-occurrence": general.expert})
    found |= memocrs_study.arm_ranks(test, known, memocrs.Rules(general))
    turns = known.contexts
    rows = memocrs_study.table(found, turns, cuts=(1, 3)).set_index(["arm", "group"])
    assert set(found) == {"popularity", "co-occurrence", *memocrs.ARMS}
    rank = found["both memories"]
    repeats = turns.warm & turns.repeat
    assert rows.loc[("both memories", "warm, repeats"), "HR@3"] == (rank[repeats] <= 3).mean()
    assert rows.loc[("both memories", "cold"), "targets"] == (~turns.warm).sum()
    assert rows.loc[("both memories", "all"), "MRR@1"] == rows.loc[("both memories", "all"), "HR@1"]
    single = memocrs_study.table(found, turns, by_seeker=True).set_index(["arm", "group"])
    means = [(rank[turns.seeker == seeker] <= 10).mean() for seeker in np.unique(turns.seeker)]
    assert single.loc[("both memories", "all"), "HR@10"] == pytest.approx(np.mean(means))
    drawn = memocrs_study.draws(found, turns, "HR@3", "warm", n_boot=50)
    assert drawn.value["both memories"] == pytest.approx(rows.loc[("both memories", "warm"), "HR@3"])
    assert drawn.n == rows.loc[("both memories", "warm"), "seekers"]


def test_ablations_and_sweeps(test, known, general):
    found = memocrs_study.ablations(general, known)
    arms = memocrs_study.arm_ranks(test, known, memocrs.Rules(general))
    for name, arm in {"both memories": "both memories", "without user memory": "general memory"}.items():
        np.testing.assert_array_equal(found[name], arms[arm])
    assert any((found[name] != found["both memories"]).any() for name in list(found)[1:])
    rows = memocrs_study.sweep(general, test, known, budgets=(2, None), ks=(1, 3), metric="MRR@10")
    assert rows["swept"].tolist() == ["budget", "budget", "k", "k"]
    assert rows["held"][0] <= 2 < rows["held"][1] == rows["held"][3]
    assert rows["retrieved"][2] <= rows["retrieved"][3] and rows["MRR@10"].between(0, 1).all()
    assert (
        rows["MRR@10"][1]
        == rows["MRR@10"][3]
        == pytest.approx(
            memocrs_study.metrics(found["both memories"][known.contexts.warm], (10,))["MRR@10"].mean()
        )
    )


def test_prompt_tokens_grow_with_the_history_and_not_with_the_memory(test, known):
    tokens = memocrs_study.prompt_tokens(test, known)
    assert (tokens[tokens["n_earlier"] == 0][["memory", "history"]] == 0).all(axis=None)
    last = tokens["n_earlier"].idxmax()
    past = language.earlier_dialogues(test, known.contexts.table)[last]
    from rec_utils.knowledge.encoder import token_counts

    assert tokens["history"][last] == token_counts([past])[0] > tokens["memory"][last] > 0


def test_a_dialogue_can_be_followed(test, known, general):
    session = test.sessions[test.sessions["n_earlier"] == 3]["session_id"].iloc[0]
    found = memocrs_study.expert_ranks(known.contexts, {"expert": general.expert})
    rows = memocrs_study.follow(test, known, found, session)
    turns = test.turns[test.turns["session_id"] == session]
    assert rows["turn"].tolist() == turns["turn"].tolist()
    asked = rows.dropna(subset="recommended")
    assert len(asked) and asked["speaker"].eq("recommender").all()
    for row in asked.itertuples():
        assert all(title in row.text for title in row.recommended) and len(row.expert) == len(row.recommended)
    before = memocrs_study.memory_before(general, test, session)
    listed = {line.partition(": ")[0] for text in asked["retrieved"] for line in text.split("\n") if line}
    assert {entry.entity for entry in before} >= {
        name for name in listed if name in set(test.movies["title"])
    }
    assert len(before) == known.recalled.held[known.contexts.table["session_id"] == session][0]


# The sequential expert


def test_the_sequential_expert_learns_what_follows_what(toy):
    train, turns = toy.split("train"), contexts(toy.split("test"))
    before = torch.random.get_rng_state()
    expert = Sequential.fit(train)
    assert torch.equal(torch.random.get_rng_state(), before)
    scores = expert.scores(turns.named)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-4)
    popular = np.tile(expert.popularity, (len(turns), 1))
    reciprocal = [1 / ranks(each.astype(float), turns) for each in (scores, popular)]
    assert reciprocal[0].mean() > reciprocal[1].mean() + 0.2, "a film is answered by the next one in the list"
    np.testing.assert_array_equal(Sequential.fit(train).scores(turns.named), scores)


def test_the_sequential_expert_reads_the_last_movies_in_the_order_of_their_naming(toy):
    turns = contexts(toy.split("test"))
    expert = Sequential(np.ones(12), None, np.arange(1, 12))  # knows all but the first row
    history, length = expert._histories(turns.named)
    for row in range(len(turns)):
        here = turns.named[[row]].tocoo()
        order = here.coords[1][np.argsort(-here.data)]
        expected = [movie for movie in order if movie > 0][-LENGTH:]
        assert history[row, : length[row]].tolist() == expected and not history[row, length[row] :].any()
