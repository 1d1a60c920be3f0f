"""Random ratings of MovieLens-1M's shape, in plain NumPy, so that every contender reads the same data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_USERS, N_ITEMS, N_GENRES, N_LEVELS, N_RATINGS = 6040, 3706, 18, 5, 1_000_209
HISTORY = 5  # steps, as in KAR
DIM, HIDDEN, ATTENTION, CROSS_LAYERS = 32, (200, 80), (32, 16), 3  # sizes of every model


@dataclass(frozen=True)
class Ratings:
    """T ratings user by user, and N samples among them; ids of items, genres and levels count from 0."""

    genre: np.ndarray  #: [I] of each item
    item: np.ndarray  #: [T]
    level: np.ndarray  #: [T] stars - 1
    user: np.ndarray  #: [T]
    first: np.ndarray  #: [T] position at which the user begins
    sample: np.ndarray  #: [N] positions

    @property
    def label(self) -> np.ndarray:
        """[N] 1.0 for four and five stars."""
        return (self.level[self.sample] > 2).astype(np.float64)

    def columns(self) -> dict[str, np.ndarray]:
        """One row a sample, as the peers want it: ids from 1, padding 0, histories [N, L]."""
        places = self.sample[:, None] + np.arange(-HISTORY, 0)
        real = places >= self.first[self.sample][:, None]
        items = self.item[places.clip(0)]
        return {
            "item": self.item[self.sample] + 1,
            "genre": self.genre[self.item[self.sample]] + 1,
            "hist_item": (items + 1) * real,
            "hist_genre": (self.genre[items] + 1) * real,
            "hist_rating": (self.level[places.clip(0)] + 1) * real,
            "label": self.label,
        }


#: Ids of each column, padding included.
VOCABULARY = {
    "item": N_ITEMS + 1,
    "genre": N_GENRES + 1,
    "hist_item": N_ITEMS + 1,
    "hist_genre": N_GENRES + 1,
    "hist_rating": N_LEVELS + 1,
}


def ratings(n_samples: int, seed: int = 0) -> Ratings:
    """Users of uneven activity, items of uneven popularity, stars that depend on item, genre and user."""
    rng = np.random.default_rng(seed)
    activity = 20 + rng.lognormal(4.2, 1.1, N_USERS)
    lengths = rng.multinomial(N_RATINGS - 20 * N_USERS, activity / activity.sum()) + 20
    user = np.repeat(np.arange(N_USERS), lengths)
    popularity = rng.lognormal(0, 1.5, N_ITEMS)
    item = rng.choice(N_ITEMS, N_RATINGS, p=popularity / popularity.sum())
    genre = rng.integers(N_GENRES, size=N_ITEMS)
    liking = rng.normal(size=N_ITEMS)[item] + rng.normal(size=(N_USERS, N_GENRES))[user, genre[item]]
    level = np.digitize(liking + rng.normal(size=N_RATINGS), [-2.6, -1.6, -0.3, 1.3])
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    later = np.flatnonzero(np.arange(N_RATINGS) - first >= 10)  # the first ten are nobody's sample
    return Ratings(genre, item, level, user, first, rng.permutation(later)[:n_samples])
