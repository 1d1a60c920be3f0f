"""Simple baselines of clicks and of lists: how much an item, and a user, is liked on average."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

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

    likes_before = np.concatenate([[0], np.cumsum(liked)])
    first, position = samples.first.numpy(), samples.position.numpy()
    user_likes, user_ratings = likes_before[position] - likes_before[first], position - first

    item_rate, both = np.empty(len(label)), np.empty(len(label))
    for fold in np.unique(folds[user]):
        test = folds[user] == fold
        known = folds[rated_by] != fold
        # a training sample must not count itself
        own_like, own = label * ~test, ~test
        mean = (liked[known].sum() - own_like) / (known.sum() - own)
        likes = np.bincount(rated[known], liked[known], minlength=len(task.item_ids))[item] - own_like
        ratings = np.bincount(rated[known], minlength=len(task.item_ids))[item] - own
        rate = (likes + SMOOTHING * mean) / (ratings + SMOOTHING)
        user_rate = (user_likes + SMOOTHING * mean) / (user_ratings + SMOOTHING)
        features = np.stack([_log_odds(rate), _log_odds(user_rate)], axis=1)
        model = LogisticRegression().fit(features[~test], label[~test])
        item_rate[test] = rate[test]
        both[test] = model.predict_proba(features[test])[:, 1]
    return {"item rate": item_rate, "item and user rate": both}


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


def _log_odds(rate: np.ndarray) -> np.ndarray:
    rate = rate.clip(1e-3, 1 - 1e-3)
    return np.log(rate / (1 - rate))
