"""Like rates against loops over the ratings, and that no label reaches its own prediction or feature."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tiny_ratings import dataset, random_dataset

from rec_utils import baselines
from rec_utils.baselines import SMOOTHING, like_rates, like_rates_in_time
from rec_utils.field_task import field_task
from rec_utils.rerank_lists import rerank_lists
from rec_utils.samples import ctr_task
from rec_utils.splits import user_folds


class Recorder(LogisticRegression):
    """Keeps the features and labels of every fit."""

    seen: tuple = ()

    def fit(self, features, label):
        Recorder.seen += ((features, label),)
        return super().fit(features, label)


@pytest.fixture
def features(monkeypatch):
    """Calls `like_rates` and returns what the regression of each fold was trained on."""
    monkeypatch.setattr(baselines, "LogisticRegression", Recorder)

    def call(task, folds):
        Recorder.seen = ()
        like_rates(task, folds)
        return Recorder.seen

    return call


def log_odds(rate):
    return np.log(rate / (1 - rate))


def by_hand(task, folds):
    """The two baselines by loops over all ratings."""
    samples = task.samples
    ratings = list(task.ratings.itertuples(index=False))
    item_rate, both = np.empty(len(samples)), np.empty(len(samples))
    for fold in sorted(set(folds)):
        rows = []
        for position in samples.position.tolist():
            own = ratings[position]
            others = [r for p, r in enumerate(ratings) if folds[r.user_row] != fold and p != position]
            mean = np.mean([r.rating >= task.like_from for r in others])
            of_item = [r.rating >= task.like_from for r in others if r.item_row == own.item_row]
            before = [r for r in ratings if r.user_row == own.user_row and r.place < own.place]
            of_user = [r.rating >= task.like_from for r in before]
            rates = [
                (sum(likes) + SMOOTHING * mean) / (len(likes) + SMOOTHING) for likes in (of_item, of_user)
            ]
            rows.append((rates, folds[own.user_row] == fold, own.rating >= task.like_from))
        table = np.array([log_odds(np.array(rates)) for rates, _, _ in rows])
        test = np.array([is_test for _, is_test, _ in rows])
        label = np.array([liked for _, _, liked in rows])
        model = LogisticRegression().fit(table[~test], label[~test])
        item_rate[test] = [rates[0] for rates, is_test, _ in rows if is_test]
        both[test] = model.predict_proba(table[test])[:, 1]
    return item_rate, both


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_rates_equal_loops_over_the_ratings(seed):
    task = ctr_task(random_dataset(n_users=6, n_items=8, n_each=6, seed=seed), history_length=1)
    folds = user_folds(6, 3, seed)
    user, label = task.samples.user_row.numpy(), task.samples.label
    assume(all(label[folds[user] != fold].unique().numel() == 2 for fold in range(3)))  # else no regression
    rates = like_rates(task, folds)
    item_rate, both = by_hand(task, folds)
    np.testing.assert_allclose(rates["item rate"], item_rate, rtol=1e-10)
    np.testing.assert_allclose(rates["item and user rate"], both, rtol=1e-4)


def test_rates_in_time_equal_loops_over_the_training_part():
    task = field_task(random_dataset(n_users=12, n_items=9, n_each=12), "CoReLLa")
    ratings = task.ratings.assign(liked=task.samples.label.numpy() > 0, train=task.masks[0])
    place = task.samples.position.numpy()
    rows = []
    for n, own in enumerate(ratings.itertuples()):
        known = ratings[ratings["train"] & (np.arange(len(ratings)) != n)]
        of_item = known[known["item_row"] == own.item_row]["liked"]
        of_user = ratings[(ratings["user_row"] == own.user_row) & (place < place[n])]["liked"]
        mean = known["liked"].mean()
        rows.append([(r.sum() + SMOOTHING * mean) / (len(r) + SMOOTHING) for r in (of_item, of_user)])
    table, (train, _, test) = np.array(rows), task.masks
    model = LogisticRegression().fit(log_odds(table[train]), ratings["liked"][train])
    rates = like_rates_in_time(task)
    np.testing.assert_allclose(rates["item rate"], table[test, 0], rtol=1e-10)
    expected = model.predict_proba(log_odds(table[test]))[:, 1]
    np.testing.assert_allclose(rates["item and user rate"], expected, rtol=1e-4)


def test_neither_a_prediction_nor_a_feature_knows_its_own_label(features):
    tiny = random_dataset(seed=3)
    task = ctr_task(tiny, history_length=1)
    folds = user_folds(len(task.user_ids), 3, 0)
    before, trained_before = like_rates(task, folds), features(task, folds)
    user = task.samples.user_row.numpy()
    for sample in range(0, len(user), 5):
        changed = flipped(task, sample)
        after, trained = like_rates(changed, folds), features(changed, folds)
        # the whole fold is predicted from others, but later samples of the user may know what came before
        unaware = (folds[user] == folds[user[sample]]) & (
            (user != user[sample]) | (np.arange(len(user)) <= sample)
        )
        for name in before:
            np.testing.assert_array_equal(after[name][unaware], before[name][unaware])
        for fold, ((x, y), (x_before, y_before)) in enumerate(zip(trained, trained_before, strict=True)):
            own = np.flatnonzero(np.flatnonzero(folds[user] != fold) == sample)
            assert (y != y_before).sum() == len(own) == (folds[user[sample]] != fold)
            np.testing.assert_allclose(x[own], x_before[own], rtol=1e-12)
            assert len(own) == 0 or (x != x_before).any()


def flipped(task, sample):
    """The same task with the label of one sample turned, in the samples and in the ratings."""
    position = int(task.samples.position[sample])
    ratings, label = task.ratings.copy(), task.samples.label.clone()
    ratings.loc[position, "rating"] = 1.0 if label[sample] else 5.0
    label[sample] = 1 - label[sample]
    return replace(task, ratings=ratings, samples=replace(task.samples, label=label))


def test_planted_tastes_are_found():
    rng = np.random.default_rng(0)
    quality, kindness = rng.normal(size=30), 2 * rng.normal(size=80)
    rows = [
        (user, item, 5.0 if rng.random() < 1 / (1 + np.exp(-quality[item] - kindness[user])) else 1.0, day)
        for user in range(80)
        for day, item in enumerate(rng.permutation(30))
    ]
    task = ctr_task(dataset(rows, dict.fromkeys(range(30), "Drama")), history_length=1)
    samples = task.samples
    rates = like_rates(task, user_folds(80, 4, 0))
    truth = 1 / (1 + np.exp(-quality[samples.item_row] - kindness[samples.user_row]))
    assert np.corrcoef(truth, rates["item and user rate"])[0, 1] > 0.85
    assert 0.2 < np.corrcoef(truth, rates["item rate"])[0, 1] < 0.6
    assert abs(rates["item and user rate"].mean() - samples.label.numpy().mean()) < 0.05


def test_users_without_samples_do_no_harm():
    tiny = random_dataset(n_users=9)
    silent = [(5, 100, 4.0, 0), (95, 101, 2.0, 0)]  # one rating each: all of it is prompt
    rows = [*tiny.interactions.itertuples(index=False, name=None), *silent]
    genres = dict(zip(tiny.items["item_id"], tiny.items["genres"], strict=True))
    task = ctr_task(dataset(rows, genres), history_length=1, min_ratings=1)
    folds = np.array([2, 0, 1, 0, 1, 0, 1, 0, 1, 0, 2])
    rates = like_rates(task, folds)
    for probability in rates.values():
        assert ((probability > 0) & (probability < 1)).all()


def test_list_rankers_equal_loops_over_the_other_folds_ratings():
    task = ctr_task(random_dataset(n_users=15, n_items=25), history_length=2)
    lists, folds = rerank_lists(task), user_folds(15, 3, 0)
    scores = baselines.list_rankers(task, lists, folds)
    liked = task.ratings["rating"] >= task.like_from
    for row in range(len(lists)):
        known = (folds[task.ratings["user_row"]] != folds[lists.user_row[row]]).astype(bool)
        mean = liked[known].mean()
        for place, item in enumerate(lists.item_row[row].tolist()):
            of_item = known & (task.ratings["item_row"] == item)
            likes, n = liked[of_item].sum(), of_item.sum()
            assert scores["number of likes"][row, place] == likes
            assert scores["like rate"][row, place] == pytest.approx(
                (likes + SMOOTHING * mean) / (n + SMOOTHING)
            )
        assert (np.diff(scores["initial order"][row]) < 0).all()
