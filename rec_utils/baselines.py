"""Simple baselines of clicks and of lists: how much an item, and a user, is liked on average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from rec_utils.field_task import FieldTask
from rec_utils.rerank_lists import Lists
from rec_utils.samples import CTRTask

#: Ratings of average taste that every rate starts from.
SMOOTHING = 5.0


def like_rates(task: CTRTask, folds: np.ndarray) -> dict[str, np.ndarray]:
    """Out-of-fold probabilities [N] of two baselines without any embedding.

    "item rate" is the share of an item's ratings by users of the other folds that are likes. "item and user
    rate" is a logistic regression on its log odds and on those of the share of likes among *all* ratings
    that the user gave before the sample, so it knows how generous the user is.

    Args:
        task: samples and ratings.
        folds: [U] fold of every user, as from `splits.user_folds`.
    """
    samples = task.samples
    label = samples.label.numpy().astype(np.float64)
    user, item = samples.user_row.numpy(), samples.item_row.numpy()
    liked = (task.ratings["rating"] >= task.like_from).to_numpy(np.float64)
    rated_by, rated = task.ratings["user_row"].to_numpy(), task.ratings["item_row"].to_numpy()

    of_user = _before(liked, samples.first.numpy(), samples.position.numpy())
    item_rate, both = np.empty(len(label)), np.empty(len(label))
    for fold in np.unique(folds[user]):
        test = folds[user] == fold
        known = folds[rated_by] != fold
        # a training sample must not count itself
        own_like, own = label * ~test, ~test
        mean = (liked[known].sum() - own_like) / (known.sum() - own)
        likes = np.bincount(rated[known], liked[known], minlength=len(task.item_ids))[item] - own_like
        ratings = np.bincount(rated[known], minlength=len(task.item_ids))[item] - own
        rates = _smoothed(likes, ratings, mean), _smoothed(*of_user, mean)
        item_rate[test] = rates[0][test]
        both[test] = _from_rates(rates, label, test)
    return {"item rate": item_rate, "item and user rate": both}


def like_rates_in_time(task: FieldTask) -> dict[str, np.ndarray]:
    """The baselines of `like_rates` for the test samples [n] of a split by time, in order.

    The rates of items are those of the training part, and so is the regression.
    """
    samples, (train, _, test) = task.samples, task.masks
    label, item = samples.label.numpy().astype(np.float64), samples.item_row.numpy()
    position = samples.position.numpy()
    liked = np.empty(len(label))  # every rating is a sample
    liked[position] = label
    own_like, own = label * train, train  # a training sample must not count itself
    mean = (label[train].sum() - own_like) / (train.sum() - own)
    likes = np.bincount(item[train], label[train], minlength=len(task.item_ids))[item] - own_like
    ratings = np.bincount(item[train], minlength=len(task.item_ids))[item] - own
    of_user = _before(liked, samples.first.numpy(), position)
    known = train | test
    rates = [_smoothed(*counts, mean)[known] for counts in ((likes, ratings), of_user)]
    of_test = test[known]
    return {"item rate": rates[0][of_test], "item and user rate": _from_rates(rates, label[known], of_test)}


def list_rankers(task: CTRTask, lists: Lists, folds: np.ndarray) -> dict[str, np.ndarray]:
    """Out-of-fold scores [N, n] of the candidates of lists by three orders without any model of the user.

    "initial order" is the one that the re-rankers receive, "like rate" the smoothed share of the movie's
    ratings that are likes, "number of likes" their number. Ratings are those by users of the other folds.

    Args:
        task: ratings.
        lists: made from the same task.
        folds: [U] fold of every user, as from `splits.user_folds`.
    """
    n_items = len(task.item_ids)
    liked = (task.ratings["rating"] >= task.like_from).to_numpy(np.float64)
    cell = folds[task.ratings["user_row"]] * n_items + task.ratings["item_row"].to_numpy()
    shape = (int(folds.max()) + 1, n_items)
    likes, ratings = (
        np.bincount(cell, weights, minlength=shape[0] * shape[1]).reshape(shape) for weights in (liked, None)
    )
    # of all users but those of the fold
    likes, ratings = likes.sum(0) - likes, ratings.sum(0) - ratings
    mean = likes.sum(1, keepdims=True) / ratings.sum(1, keepdims=True)
    rate = (likes + SMOOTHING * mean) / (ratings + SMOOTHING)
    fold, item = folds[lists.user_row.numpy()][:, None], lists.item_row.numpy()
    return {
        "initial order": np.broadcast_to(-np.arange(lists.n_candidates, dtype=np.float64), item.shape),
        "like rate": rate[fold, item],
        "number of likes": likes[fold, item],
    }


def _before(liked: np.ndarray, first: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Likes and ratings [N] of the user before each sample; `liked` [T] is user by user in time order."""
    likes = np.concatenate([[0], np.cumsum(liked)])
    return likes[position] - likes[first], position - first


def _smoothed(likes: np.ndarray, ratings: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return (likes + SMOOTHING * mean) / (ratings + SMOOTHING)


def _from_rates(rates: Sequence[np.ndarray], label: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Probabilities of the samples in `test`, by a logistic regression on the log odds of the others."""
    features = np.stack([_log_odds(rate) for rate in rates], axis=1)
    model = LogisticRegression().fit(features[~test], label[~test])
    return model.predict_proba(features[test])[:, 1]


def _log_odds(rate: np.ndarray) -> np.ndarray:
    rate = rate.clip(1e-3, 1 - 1e-3)
    return np.log(rate / (1 - rate))
