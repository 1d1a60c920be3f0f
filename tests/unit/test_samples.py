"""KAR's protocol against a slow reference in plain Python, and against what is known of real data."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import dataset, random_dataset

from data_prep.build import Built
from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.knowledge import movies, prompts
from rec_utils.samples import check_leaks, ctr_task, prompt_lengths
from rec_utils.splits import LeakError, fold_masks, user_folds

DAY = 86_400
SCALES = {(0.5, 5.0): np.arange(0.5, 5.5, 0.5), (1.0, 5.0): np.arange(1, 6), (0.0, 10.0): np.arange(11)}
GENRES = ("Drama|War", "War|Drama", "War", "Film-Noir|Drama", "")


@st.composite
def datasets(draw):
    """Few users, items and times, so that times, dates and even whole ratings coincide."""
    scale = draw(st.sampled_from(list(SCALES)))
    items = draw(st.permutations([3, 5, 11, 40, 41, 900]))
    genres = {item: draw(st.sampled_from(GENRES)) for item in items}
    row = st.tuples(
        st.sampled_from([2, 7, 8, 30]),
        st.sampled_from(items[:-1]),  # the last one is never rated
        st.sampled_from(SCALES[scale].tolist()),
        st.sampled_from([-1, 0, 1, DAY - 1, DAY, DAY + 1, 5 * DAY]),
    )
    n = draw(st.integers(1, 60))
    return dataset(draw(st.lists(row, min_size=n, max_size=n)), genres, scale), genres


parameters = st.fixed_dictionaries(
    {
        "history_length": st.integers(1, 6),
        "prompt_rule": st.sampled_from(["half", "released"]),
        "prompt_cap": st.sampled_from([1, 2, 3, 5, 30]),
        "order": st.sampled_from(["timestamp", "date"]),
        "min_ratings": st.sampled_from([1, 2, 6]),
        "max_samples_per_user": st.none() | st.integers(1, 4),
        "first_users": st.none() | st.integers(1, 4),
    }
)


def reference(rows, best, genres, kw):
    """(user -> prompt history, list of samples) by loops: the protocol word by word."""
    users = {}
    for place, row in enumerate(rows):
        users.setdefault(row[0], []).append((place, row))
    kept = sorted(user for user, own in users.items() if len(own) >= kw["min_ratings"])
    prompt, samples = {}, []
    for user in kept[: kw["first_users"]]:
        own, cap = users[user], kw["prompt_cap"]
        if kw["order"] == "timestamp":
            own.sort(key=lambda entry: (entry[1][3], entry[1][1], entry[0]))
        else:
            own.sort(key=lambda entry: (datetime.fromtimestamp(entry[1][3], UTC).date(), entry[0]))
        own = [(item, rating) for _, (_, item, rating, _) in own]
        if kw["prompt_rule"] == "half":
            n = min((len(own) + 1) // 2, cap)
        else:
            n = cap if len(own) > cap else min(10, len(own))
        prompt[user] = own[:n]
        last = len(own) if kw["max_samples_per_user"] is None else n + kw["max_samples_per_user"]
        for place in range(n, min(last, len(own))):
            item, rating = own[place]
            recent = own[max(0, place - kw["history_length"]) : place]
            steps = [(i, genres[i].split("|")[0], r) for i, r in recent]
            samples.append((user, item, genres[item].split("|")[0], 5 * rating >= 4 * best, steps))
    return prompt, samples


def decoded(task, genres):
    """What `reference` gives, read back from the ids that a model sees."""
    item_of, genre_of, level_of = {}, {}, {}
    for row, (item, genre) in enumerate(task.samples.item_fields.tolist()):
        item_of[item] = task.item_ids[row]
        genre_of.setdefault(genre, set()).add(genres[task.item_ids[row]].split("|")[0])
    for level, rating in zip(task.samples.rating_ids.tolist(), task.ratings["rating"], strict=True):
        level_of.setdefault(level, set()).add(rating)
    ids = [*item_of, *genre_of, *level_of]
    assert sorted(ids) == list(range(1, task.samples.n_ids)), "fields share an id, or an id has no meaning"
    assert all(len(names) == 1 for names in (*genre_of.values(), *level_of.values()))
    assert len(set.union(*genre_of.values())) == len(genre_of)
    assert len(set.union(*level_of.values())) == len(level_of)
    genre_of, level_of = ({i: min(names) for i, names in table.items()} for table in (genre_of, level_of))

    batch = task.samples.batch(torch.arange(len(task.samples)))
    assert (batch.history[~batch.mask] == 0).all() and (batch.history[batch.mask] > 0).all()
    samples = []
    for k in range(len(task.samples)):
        item, genre = batch.item[k].tolist()
        assert task.item_ids[batch.item_row[k]] == item_of[item]
        steps = [
            (item_of[i], genre_of[g], level_of[r]) for i, g, r in batch.history[k][batch.mask[k]].tolist()
        ]
        user = task.user_ids[batch.user_row[k]]
        samples.append((user, item_of[item], genre_of[genre], bool(batch.label[k]), steps))
    shown = task.prompts.groupby("user_row")
    prompt = {
        task.user_ids[user]: list(zip(task.item_ids[rows["item_row"]], rows["rating"], strict=True))
        for user, rows in shown
    }
    return prompt, samples


@settings(deadline=None)
@given(made=datasets(), kw=parameters)
def test_samples_equal_a_slow_reference(made, kw):
    tiny, genres = made
    rows = list(tiny.interactions.itertuples(index=False, name=None))
    prompt, samples = reference(rows, tiny.rating_scale[1], genres, kw)
    if not samples:
        with pytest.raises(UserError, match="prompt_cap" if prompt else "min_ratings"):
            ctr_task(tiny, **kw)
        return
    task = ctr_task(tiny, **kw)
    assert decoded(task, genres) == (prompt, samples)
    assert task.samples.history_length == kw["history_length"]
    assert not task.ratings["in_prompt"].to_numpy()[task.samples.position].any()
    assert (task.ratings.groupby("user_row").cumcount() == task.ratings["place"]).all()


@pytest.mark.parametrize(
    ("count", "half", "released"),
    [(1, 1, 1), (2, 1, 2), (10, 5, 10), (11, 6, 10), (30, 15, 10), (31, 16, 30), (61, 30, 30), (900, 30, 30)],
)
def test_prompt_lengths(count, half, released):
    counts = np.array([count])
    assert prompt_lengths(counts).tolist() == [half]
    assert prompt_lengths(counts, "released").tolist() == [released]


def test_a_cap_is_never_exceeded():
    counts = np.arange(1, 40)
    for rule in ("half", "released"):
        for cap in (1, 5, 12):
            assert prompt_lengths(counts, rule, cap).max() == cap


@pytest.mark.parametrize(("scale", "first_like"), [((0.5, 5.0), 4.0), ((1.0, 5.0), 4.0), ((0.0, 10.0), 8.0)])
def test_a_like_begins_at_four_fifths_of_the_best_rating(scale, first_like):
    levels = SCALES[scale].tolist()
    rows = [(1, 1, rating, time) for time, rating in enumerate([*levels, *levels])]
    task = ctr_task(dataset(rows, {1: "Drama"}, scale), history_length=2)
    assert task.samples.label.tolist() == [float(rating >= first_like) for rating in levels]


def test_equal_times_go_by_item_and_equal_dates_by_place_in_the_file():
    rows = [(1, 9, 1.0, 50), (1, 4, 2.0, 50), (1, 7, 3.0, DAY + 5), (1, 2, 4.0, DAY), (1, 3, 5.0, DAY + 5)]
    tiny = dataset(rows, dict.fromkeys((2, 3, 4, 7, 9), "Drama"))
    by_time = ctr_task(tiny, history_length=1).ratings["rating"]
    assert by_time.tolist() == [2, 1, 4, 5, 3]
    by_date = ctr_task(tiny, history_length=1, order="date").ratings["rating"]
    assert by_date.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("kw", "message"),
    [
        ({"order": "timestamps"}, "order 'timestamps' .* did you mean 'timestamp'"),
        ({"prompt_rule": "Released"}, "prompt rule 'Released' .* did you mean 'released'"),
        ({"history_length": 0}, "history_length must be at least 1, not 0"),
        ({"prompt_cap": 0}, "prompt_cap must be at least 1, not 0"),
        ({"min_ratings": 0}, "min_ratings must be at least 1, not 0"),
        ({"max_samples_per_user": 0}, "max_samples_per_user must be at least 1, not 0"),
        ({"first_users": -1}, "first_users must be at least 1, not -1"),
        ({"min_ratings": 13}, "tiny: no user has min_ratings = 13 ratings or more"),
        ({"prompt_rule": "released", "prompt_cap": 12}, None),
        ({"prompt_rule": "released", "prompt_cap": 12, "n_each": 10}, r"tiny: .*\(prompt_cap = 12\)"),
    ],
    ids=str,
)
def test_a_mistake_is_one_clear_sentence(kw, message):
    tiny = random_dataset(n_each=kw.pop("n_each", 12))
    kw = {"history_length": 5} | kw
    if message is None:  # 12 ratings, of which the prompt takes 10
        assert len(ctr_task(tiny, **kw).samples) == 2 * len(tiny.users)
        return
    with pytest.raises(UserError, match=message):
        ctr_task(tiny, **kw)


@pytest.mark.parametrize("liked", [True, False])
def test_mean_of_the_liked_and_of_the_other_prompt_items(liked):
    rows = [(1, 5, 4.0, 0), (1, 6, 5.0, 1), (1, 5, 3.5, 2), (1, 7, 5.0, 3), (1, 8, 5.0, 4), (1, 8, 1.0, 5)]
    rows += [(2, item, rating, place) for place, (_, item, rating, _) in enumerate(rows)][::-1]
    rows += [(3, 6, 5.0, 0), (3, 7, 1.0, 1)]
    tiny = dataset(rows, dict.fromkeys((5, 6, 7, 8), "Drama"))
    task = ctr_task(tiny, history_length=1)
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = np.zeros((3, 3))
    for user, shown in enumerate([[(5, 4.0), (6, 5.0), (5, 3.5)]] * 2 + [[(6, 5.0)]]):
        chosen = [vectors[item - 5] for item, rating in shown if (rating >= 4) == liked]
        if chosen:
            expected[user] = np.mean(chosen, axis=0)
    means = task.prompt_mean(vectors, liked=liked)
    np.testing.assert_allclose(means, expected, atol=1e-6)
    assert means.dtype == np.float32


def test_the_shipped_user_texts_were_written_from_exactly_the_prompt_histories():
    small = data.load("ml-latest-small")
    task = ctr_task(small, history_length=5)
    titles = small.items.set_index("item_id").loc[task.item_ids, "title"].to_numpy()
    answers = movies.user_answers()
    users = 0
    for user_row, rows in task.prompts.groupby("user_row"):
        shown = list(zip(titles[rows["item_row"]], rows["rating"], strict=True))
        assert prompts.user_preferences(shown).key == answers[int(task.user_ids[user_row])].key
        users += 1
    assert users == len(answers) == 610


@pytest.mark.parametrize(
    ("rule", "n_prompt", "n_samples"), [("released", 165_020, 835_189), ("half", 156_749, 843_460)]
)
def test_movielens_1m_has_the_samples_that_kars_files_give(rule, n_prompt, n_samples):
    if Built.read("ml-1m") is None:
        pytest.skip("MovieLens-1M may not be shipped and is not built here: python -m data_prep build ml-1m")
    task = ctr_task(data.load("ml-1m"), history_length=5, prompt_rule=rule, order="date")
    assert (task.ratings["in_prompt"].sum(), len(task.samples)) == (n_prompt, n_samples)
    assert len(task.user_ids) == 6040
    assert task.samples.item_fields[:, 1].unique().numel() == 18  # first genres of the rated movies


def test_leaks_are_found_in_splits_and_in_histories():
    task = ctr_task(random_dataset(), history_length=3)
    samples, user = task.samples, task.samples.user_row.numpy()
    masks = fold_masks(user, user_folds(12, 3, 0), 0, 0.2, 0)
    check_leaks(task, samples, [masks])
    with pytest.raises(LeakError):
        check_leaks(task, samples, [(masks[0] | masks[2], masks[1], masks[2])])
    with pytest.raises(LeakError, match="another user"):
        check_leaks(task, replace(samples, first=samples.first * 0), [masks])
    one_day_backwards = task.ratings.assign(timestamp=1_000 - task.ratings["place"])
    with pytest.raises(LeakError, match="before row"):
        check_leaks(replace(task, ratings=one_day_backwards), samples, [masks])
    check_leaks(replace(task, ratings=one_day_backwards, order="date"), samples, [masks])
