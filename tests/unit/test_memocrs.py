"""MemoCRS without a language model: contexts, experts, entities, recall, refinement, and no leaks."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny_dialogues as tiny
from scipy import sparse
from sklearn.metrics import ndcg_score

from rec_utils import metrics
from rec_utils.dialogues import Dialogues
from rec_utils.errors import UserError
from rec_utils.papers import memocrs, memocrs_study
from rec_utils.papers import memocrs_attitudes as attitudes
from rec_utils.papers import memocrs_contexts as contexts
from rec_utils.papers import memocrs_experts as experts
from rec_utils.papers import memocrs_genres as genres
from rec_utils.papers import memocrs_recall as recalled
from rec_utils.papers import memocrs_refine as refine
from rec_utils.splits import LeakError


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return tiny.loaded(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def train(toy):
    return toy.split("train")


@pytest.fixture(scope="module")
def test(toy):
    return toy.split("test")


@pytest.fixture(scope="module")
def general(train):
    return memocrs.GeneralMemory.fit(train, n_folds=2)


@pytest.fixture(scope="module")
def known(general, test):
    return general.evidence(test)


# Contexts and ranks


def test_contexts_hold_what_was_named_before_the_turn_and_nothing_else(test):
    found, movies = contexts.contexts(test), test.movies["movie_id"].to_numpy()
    assert len(found.target) > len(found) / 2 and len(np.unique(found.context)) == len(found)
    for row, turn in enumerate(found.table.itertuples()):
        named = test.mentions[(test.mentions["session_id"] == turn.session_id)]
        before = named[named["turn"] < turn.turn].drop_duplicates("movie_id", keep="last")
        # the one named last is 1, the one before it 2 and so on
        expected = dict(zip(before["movie_id"], range(len(before), 0, -1), strict=True))
        here = found.named[[row]].tocoo()
        assert dict(zip(movies[here.coords[1]], here.data, strict=True)) == expected
        spoken = test.turns[(test.turns["session_id"] == turn.session_id) & test.turns["by_seeker"]]
        words = " ".join(spoken[spoken["turn"] < turn.turn]["text"])
        assert found.wanted[row].any() == bool(re.search(genres.ANY_GENRE, words))
        assert test.turns.loc[turn.time, ["session_id", "turn"]].tolist() == [turn.session_id, turn.turn]


def test_contexts_can_be_chosen_in_any_order(test):
    found = contexts.contexts(test)
    rows = np.array([7, 2, 5])
    part = found.select(rows)
    for place, row in enumerate(rows):
        assert part.table.loc[place].equals(found.table.loc[row])
        assert sorted(part.target[part.context == place]) == sorted(found.target[found.context == row])
    assert (part.named != found.named[rows]).nnz == 0


def test_ranks_and_metrics_equal_those_of_whole_lists(test):
    found = contexts.contexts(test)
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, size=found.named.shape).astype(float)  # many ties
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    listed = np.where(found.named.toarray() > 0, -np.inf, scores)[found.context]
    label = np.zeros(listed.shape)
    label[np.arange(len(listed)), found.target] = 1
    rank = contexts.ranks(scores, found)
    ranked = np.isfinite(listed[np.arange(len(listed)), found.target])
    for k in (1, 3, 10):
        ours = memocrs_study.metrics(rank, [k])[ranked]
        for name, of_list in (
            ("HR", metrics.hit_rate_at_k), ("NDCG", metrics.ndcg_at_k), ("MRR", metrics.mrr_at_k),
        ):  # fmt: skip
            np.testing.assert_allclose(ours[f"{name}@{k}"], of_list(label, listed, k)[ranked], err_msg=name)
    assert (rank[~ranked] == listed.shape[1]).all()
    plain = rng.permuted(np.tile(np.arange(listed.shape[1]), (len(found), 1)), axis=1).astype(float)
    ours = memocrs_study.metrics(contexts.ranks(plain, found), [5])["NDCG@5"]
    shown = np.where(found.named.toarray() > 0, -1, plain)[found.context]
    np.testing.assert_allclose(ours.mean(), ndcg_score(label, shown, k=5))
    with pytest.raises(UserError, match="hold NaN"):
        contexts.ranks(np.full(scores.shape, np.nan), found)
    with pytest.raises(UserError, match="are not one for each context and movie"):
        contexts.ranks(scores[:, 1:], found)


# Experts


def test_neighbours_count_sessions_that_name_both(train):
    together = experts.Neighbours.fit(train, shrink=3)
    cosine = experts.Neighbours.fit(train, cosine=True, shrink=3)
    rows = train.mentions["movie_id"].map(contexts.movie_rows(train))
    sets = [set(part) for _, part in rows.groupby(train.mentions["session_id"])]
    n = [sum(i in each for each in sets) for i in range(len(train.movies))]
    for i in range(len(n)):
        for j in range(len(n)):
            both = 0 if i == j else sum({i, j} <= each for each in sets)
            assert together.weights[i, j] == pytest.approx(both / (n[i] + 3))
            assert cosine.weights[i, j] == pytest.approx(both / np.sqrt((n[i] + 3) * (n[j] + 3)))
    named = sparse.csr_array(np.eye(len(n))[[0]] * 2 + np.eye(len(n))[[4]])
    expected = (together.weights[[0]] + together.weights[[4]]).toarray()[0] + 0.01 * np.array(n) / max(n)
    np.testing.assert_allclose(together.scores(named)[0], expected, rtol=1e-5)


def test_candidates_are_the_best_unnamed_movies(known):
    turns, rng = known.contexts, np.random.default_rng(1)
    scores = rng.integers(-2, 4, size=turns.named.shape).astype(np.float32) * 0.7
    found = refine.candidates(scores, turns, 5)
    listed = np.where(turns.named.toarray() > 0, -np.inf, scores)
    assert found.tolist() == np.argsort(-listed, axis=1, kind="stable")[:, :5].tolist()


# Entities and attitudes


def test_genres_come_from_the_catalogs_and_from_words():
    movies = pd.DataFrame(
        {
            "title": ["Matrix, The (1999)", "The Matrix", "Titanic (2012)", "No such film (1901)", ""],
            "year": pd.array([1999, None, 2012, 1901, None], dtype="Int16"),
        }
    )
    found = genres.movie_genres(movies).toarray()
    names = [{g for g, there in zip(genres.GENRES, row, strict=True) if there} for row in found]
    assert names[0] == names[1] >= {"action", "science fiction"}
    assert "romance" in names[2] and not names[3] and not names[4]
    assert all(re.search(rf"\b(?:{words})\b", genre) for genre, words in genres.WORDS.items())


def test_attitudes_are_learnt_from_the_forms(train, test):
    extractor = attitudes.RulesExtractor(train)
    found = extractor.extract(test)
    scores = attitudes.extraction_scores(found, test)
    likes = attitudes.extraction_scores(found.assign(attitude="likes"), test)
    assert scores["f1_dislikes"] > 0.8 > 0 == likes["f1_dislikes"]
    assert scores["f1"] > likes["f1"]
    assert not found.duplicated(["session_id", "entity"]).any()
    with pytest.raises(UserError, match="toy has no forms to learn attitudes from"):
        attitudes.RulesExtractor(replace(train, forms=train.forms[:0]))


def test_extraction_reads_no_form(train, test):
    extractor = attitudes.RulesExtractor(train)
    other = replace(test, forms=test.forms.assign(liked=0, seen=0))
    pd.testing.assert_frame_equal(extractor.extract(test), extractor.extract(other))


def test_extraction_scores_equal_a_count_by_hand(test):
    form = test.forms[test.forms["by_seeker"]].iloc[:4]
    session, movies = form["session_id"].iloc[0], [1, 3, 4, 5]
    titles = [test.titles[movie] for movie in movies]
    forms = form.assign(session_id=session, movie_id=movies, liked=[1, 1, 0, 2], seen=[1, 0, 1, 2])
    part = replace(test, forms=forms)
    found = pd.DataFrame(
        {
            "session_id": session,
            "entity": [titles[0], titles[1], titles[2], titles[3], "horror", "Jaws (1975)"],
            "attitude": ["likes", "dislikes", "dislikes: slow", "wants to see", "likes", "no opinion"],
        }
    )
    scores = attitudes.extraction_scores(found, part)
    assert (scores["precision"], scores["recall"], scores["pairs"]) == (2 / 4, 2 / 3, 3)
    assert scores["f1_likes"] == 0.5 and scores["f1_dislikes"] == pytest.approx(2 / 3)
    assert scores["f1_macro"] == pytest.approx((0.5 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("text", "attitude"),
    [
        ("I like horror movies", "likes"),
        ("I don't like any scary films", "dislikes"),
        ("not really into horror", "dislikes"),
    ],
)
def test_genres_in_the_seekers_words(text, attitude, tmp_path):
    from data_prep.dialogue_formats import read_redial

    path = tiny.write_lines(
        tmp_path / "x.jsonl", [tiny.dialogue(1, 1, 2, [(False, "war films?"), (True, text)])]
    )
    found = attitudes._genres(Dialogues.of("x", read_redial({"train": path})))
    assert found.values.tolist() == [[1, "horror", attitude]]


def test_likeness_of_entities(general, train):
    space = general.space
    films = train.movies["title"].tolist()
    names = [*films[:5], "comedy", "scary movies", "nobody knows"]
    found = space.similarity(names, names)
    np.testing.assert_allclose(found, found.T)
    assert (np.diag(found)[:7] >= 1).all() and (found[7] == 0).all()
    one, two = 0, 3
    both = space.genres[[one, two]]
    assert found[one, two] == pytest.approx(space.cosine[one, two] + 0.1 * both[0] @ both[1])
    assert space.codes(["scary movies"]).tolist() == [space.n_movies + genres.GENRES.index("horror")]


# Recall, and what it must never hold


def test_memory_holds_earlier_sessions_of_the_same_seeker_only(test, known, general):
    pairs = general.extractor.extract(test).merge(test.sessions, on="session_id")
    for row, turn in enumerate(known.contexts.table.itertuples()):
        earlier = pairs[(pairs["seeker"] == turn.seeker) & (pairs["session_id"] < turn.session_id)]
        given = known.recalled.table[known.recalled.table["row"] == row]
        assert set(given["entity"]) <= set(earlier["entity"])
        liked = earlier[earlier["attitude"].map(attitudes.opinion) != 0]
        assert known.recalled.held[row] == liked["entity"].nunique()
        if not len(liked):
            assert given.empty, "a cold start"
    assert len(known.recalled.table) > 50


def test_the_future_and_other_seekers_change_nothing(test, known, general):
    session = test.sessions["session_id"].iloc[15]
    seeker = test.sessions["seeker"].iloc[15]
    mine = (test.sessions["seeker"] == seeker) & (test.sessions["session_id"] <= session)
    alone = general.evidence(test.select(test.sessions["session_id"][mine]))
    rows = known.contexts.table.index[known.contexts.table["session_id"] == session]
    part, ours = known.select(rows.to_numpy()), alone.contexts.table.index
    lone = alone.select(ours[alone.contexts.table["session_id"] == session].to_numpy())
    assert len(part.contexts) == len(lone.contexts) > 0
    pd.testing.assert_frame_equal(part.recalled.table, lone.recalled.table)
    assert (part.history != lone.history).nnz == 0
    for arm in memocrs.ARMS:
        guidelines = general.guidelines(arm)
        np.testing.assert_allclose(guidelines.scores(part), guidelines.scores(lone), rtol=1e-4, atol=1e-4)


def test_leaks_are_found(test, known, general):
    pairs = general.extractor.extract(test)
    memocrs_study.check_leaks(test, known, pairs)
    turns = known.contexts
    target = sparse.csr_array(
        (np.ones(len(turns.target)), (turns.context, turns.target)), shape=turns.named.shape
    )
    rows = known.recalled.table
    late = pairs.groupby("entity")["session_id"].transform("max")
    for leaky, message in (
        (
            replace(known, contexts=replace(turns, named=turns.named + target)),
            "to be predicted is among those",
        ),
        (replace(known, history=known.history + target), "is known before it was named"),
        (
            replace(known, recalled=replace(known.recalled, table=rows.assign(row=0))),
            "is remembered for",
        ),
    ):
        with pytest.raises(LeakError, match=message):
            memocrs_study.check_leaks(test, leaky, pairs)
    with pytest.raises(LeakError, match="of which no earlier session of theirs tells"):
        memocrs_study.check_leaks(test, known, pairs[pairs["session_id"] == late])


def test_a_budget_is_kept_and_k_limits_what_is_retrieved(test, general, known):
    pairs = general.extractor.extract(test)
    small = recalled.recall(test, known.contexts, pairs, general.space, k=1, budget=3)
    assert small.held.max() == 3 and max(map(len, small.banks.banks.values())) == 3
    queries = np.diff(known.contexts.named.indptr) + known.contexts.wanted.sum(axis=1)
    taken = np.bincount(small.table["row"], minlength=len(queries))
    assert (taken <= np.maximum(queries, 1)).all()


# Refinement


def test_reflection_learns_from_successes_alone_and_finds_the_best_weights(general):
    traces = general.traces
    assert 0 < len(traces.values) <= traces.n_traces
    names = ("expert", "popularity")
    found = refine.reflect(traces, names)
    assert (found.n_traces, found.n_successes) == (traces.n_traces, len(traces.values))
    columns = [list(refine.SIGNALS).index(name) for name in names]
    scaled = traces.values[:, :, columns] / [found.spread[name] for name in names]

    def objective(weights):
        scores = scaled @ weights
        chance = np.exp(scores - scores.max(1, keepdims=True))
        return np.log(chance[:, 0] / chance.sum(1)).sum() - weights @ weights / 2

    best = np.array([found.weights[name] for name in names])
    rng = np.random.default_rng(0)
    assert all(objective(best) > objective(best + rng.normal(size=2) * 0.05) for _ in range(20))
    with pytest.raises(UserError, match="there is nothing to learn"):
        refine.reflect(refine.Traces(traces.values[:0], 5), names)
    with pytest.raises(UserError, match="needs at least one signal"):
        refine.reflect(traces, ())


def test_guidelines_say_what_matters_the_strongest_first():
    weights = {"popularity": -0.2, "expert": 0.5, "genres_now": 0.3, "memory_repeat": 0.05}
    text = refine.Guidelines(weights, dict.fromkeys(weights, 1.0), 10, 5).text().split("\n")
    assert [line.partition(" films")[0] for line in text] == ["1. Strongly prefer", "2. Prefer", "3. Avoid"]


def test_signals_at_places_are_those_of_the_whole_matrix(known):
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(len(known.contexts), size=(9, 1)), rng.integers(12, size=(9, 4))
    for name in refine.SIGNALS:
        whole = refine.signal(name, known)
        assert whole.shape == known.contexts.named.shape and np.isfinite(whole).all()
        np.testing.assert_array_equal(refine.signal(name, known, (rows, columns)), whole[rows, columns])


def test_memory_signals_follow_the_opinions(known):
    """A bank with one liked and one disliked film lifts the one and lowers the other."""
    titles = known.space
    liked, hated = "Alien (1979)", "Toy Story (1995)"
    table = pd.DataFrame({"row": [0, 0], "entity": [liked, hated], "attitude": ["likes", "dislikes"]})
    given = replace(known, recalled=replace(known.recalled, table=table))
    row = dict(zip([liked, hated], titles.codes([liked, hated]), strict=True))
    repeat = refine.signal("memory_repeat", given)
    assert (repeat[0, row[liked]], repeat[0, row[hated]], np.abs(repeat[1:]).max()) == (1, -1, 0)
    taste = refine.signal("memory_genres", given)[0]
    aliens, up = titles.codes(["Aliens (1986)", "Up (2009)"])
    assert taste[aliens] > 0 > taste[up]


def test_arms_see_what_their_names_say(known):
    """Without a memory an arm is blind to it: other memories leave its scores as they are."""
    empty = replace(
        known, recalled=replace(known.recalled, table=known.recalled.table[:0]), history=known.history * 0
    )
    for arm, signals in memocrs.ARMS.items():
        flat = refine.Guidelines(dict.fromkeys(signals, 1.0), dict.fromkeys(signals, 1.0), 1, 1)
        same = np.array_equal(flat.scores(known), flat.scores(empty))
        assert same == (arm in ("no memory", "general memory")), arm


def test_the_expert_of_a_part_never_saw_its_seekers(train, monkeypatch):
    seen = []
    fit = experts.Neighbours.fit

    def spy(part, *arguments, **settings):
        seen.append(set(part.sessions["seeker"]))
        return fit(part, *arguments, **settings)

    lived = []
    of = refine.Traces.of
    monkeypatch.setattr(memocrs, "EXPERTS", {"co-occurrence": spy})
    monkeypatch.setattr(
        refine.Traces, "of", lambda known: (lived.append(set(known.contexts.table["seeker"])), of(known))[1]
    )
    memocrs.GeneralMemory.fit(train, n_folds=2)
    assert len(lived) == 2 and set.union(*lived) == set(train.sessions["seeker"])
    assert not lived[0] & seen[0] and not lived[1] & seen[1]
    with pytest.raises(UserError, match="did you mean 'co-occurrence'"):
        memocrs.GeneralMemory.fit(train, expert="cooccurrence")
