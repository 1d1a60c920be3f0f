"""Small data sets of ratings for tests."""

import numpy as np
import pandas as pd

from rec_utils.data import Dataset


def dataset(rows, genres, scale=(0.5, 5.0), titles=None, name="tiny"):
    """Ratings `rows` of (user, item, rating, timestamp), in file order, over the items that `genres` maps."""
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"]).astype(
        {"user_id": np.int64, "item_id": np.int64, "rating": np.float32, "timestamp": np.int64}
    )
    items = pd.DataFrame({"item_id": list(genres), "genres": list(genres.values())})
    items["title"] = [(titles or {}).get(item, f"Film {item}") for item in genres]
    users = pd.DataFrame({"user_id": interactions["user_id"].unique()})
    return Dataset(name, name, users, items, interactions, scale, "", "", {})


def random_dataset(n_users=12, n_items=20, n_each=12, seed=0, **kw):
    """Users 10, 20, ... who rate `n_each` of the items 100, 101, ... once, one a day, 1 to 5 stars."""
    rng = np.random.default_rng(seed)
    rows = [
        (10 * (1 + user), 100 + item, rng.integers(1, 6), 86_400 * day)
        for user in range(n_users)
        for day, item in enumerate(rng.permutation(n_items)[:n_each])
    ]
    genres = {100 + item: ("Drama|War", "War", "Comedy", "")[item % 4] for item in range(n_items)}
    return dataset(rows, genres, (1.0, 5.0), **kw)
