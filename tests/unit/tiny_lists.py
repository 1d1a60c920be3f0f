"""Small logs of lists for tests."""

import numpy as np

from rec_utils.list_log import ListLog, id_columns


def random_log(n_lists=(1, 3, 4, 7, 9), length=5, n_items=30, pad=False, user_fields=False, seed=0):
    """Lists of random items and clicks, one an hour, of users with `n_lists` each; padded, of any length."""
    rng = np.random.default_rng(seed)
    user_row = np.repeat(np.arange(len(n_lists)), n_lists)
    shape = (len(user_row), length)
    sizes = rng.integers(1, length + 1, len(user_row)) if pad else np.full(len(user_row), length)
    real = np.arange(length) < sizes[:, None]
    category = rng.integers(0, 4, n_items)
    item_fields, n_ids = id_columns([np.arange(n_items), category])
    of_users = None
    if user_fields:
        of_users, n_ids = id_columns([rng.integers(0, 3, len(n_lists)) for _ in range(2)], n_ids)
    begin = 3600 * np.arange(len(user_row))
    return ListLog(
        name="tiny",
        user_row=user_row,
        item_row=rng.integers(0, n_items, shape) * real,
        real=real,
        clicked=(rng.random(shape) < 0.35) & real,
        begin=begin,
        end=begin + 60,
        user_ids=10 + np.arange(len(n_lists)),
        item_ids=100 + np.arange(n_items),
        item_fields=item_fields,
        n_ids=n_ids,
        user_fields=of_users,
    )
