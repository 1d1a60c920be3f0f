"""A semi-synthetic log of lists whose truth is known: real tastes, made-up exposure and clicks.

- *Taste.* A matrix factorisation is fitted to real ratings. What it predicts for user u and film k,
  standardised over all users and films, is the preference z_uk.
- *Exposure.* A noisy ranker shows films in the order of taste * z_uk + Gumbel noise: one after another, each
  with a probability proportional to exp(taste * z_uk) among those that are left. A user meets each film
  once; the films are dealt out at random to the user's lists, each of which keeps the ranker's order.
- *Clicks.* The user looks at place r = 1, 2, ... with probability r^-decay, and then clicks with
  probability a_uk, the attraction:

      log odds(a_uk) = b + slope * z_uk - s_u * sum over rivals j of log(1 + exp(z_uj - z_uk))

  Rivals are the other films of the list that share the first genre: users compare films of one kind. As
  1 / (1 + exp(z_j - z_k)) is the probability that k beats j in a duel (Bradley and Terry), the odds are
  multiplied by the probability of beating each rival, to the power of the user's own strength s_u.

Why rivals of one kind, and not the whole list: were every film a rival of every other, the film with the
higher z would have the higher attraction whatever the strength, and no re-ranker could gain from knowing it.
Rivals do not depend on the order of the list, so the attraction holds for any order, and the clicks that a
re-ranked list would get are known: `metrics.expected_clicks_at_k`.

With strength 0 nobody compares; everything else, also the lists, is the same. The parameters of `World` were
settled by the reasons beside them before any model had seen the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import brentq
from scipy.special import expit

from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.list_log import ListLog, id_columns


@dataclass(frozen=True)
class World:
    """All that the log depends on beside the ratings."""

    #: films with fewer ratings are left out: the factorisation would know little more than their mean
    min_ratings: int = 20
    factors: int = 16  #: of the factorisation
    #: its ridge penalty; of 2, 5, 10, 15, 20 and 30 the best on held-out ratings of MovieLens latest-small
    l2: float = 10.0
    lists_per_user: int = 20  #: about the mean of MovieLens latest-small cut into lists of 10
    length: int = 10  #: films of a list, as in the lists cut from ratings
    #: of the ranker: a film that is one standard deviation better is e times as likely to be shown next
    taste: float = 1.0
    #: at strength 0 preferences tell clicks apart with an AUC of about 0.8, as good click models do
    slope: float = 1.5
    #: mean of s_u over users, exponentially distributed: many users compare a little, few a lot; at 1 a
    #: rival that is just as good halves the odds of a click, as if both shared them
    strength: float = 1.0
    decay: float = 0.3  #: half of the users still look at place 10
    click_rate: float = 0.2  #: expected, which sets b; about that of 5 stars in MovieLens-1M
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("min_ratings", "factors", "l2", "lists_per_user", "length"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("strength", "decay"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative, but is {getattr(self, name)}")
        if not 0 < self.click_rate < 1:
            raise UserError(f"click_rate must lie between 0 and 1, not at {self.click_rate}")


@dataclass(frozen=True)
class ClickWorld:
    """A log with its truth; T lists of h films, U users."""

    log: ListLog
    preference: np.ndarray  #: [T, h] z of what was shown
    attraction: np.ndarray  #: [T, h] probability of a click by who looks
    examination: np.ndarray  #: [h] probability that the user looks at each place
    strength: np.ndarray  #: [U] s_u


def click_world(dataset: Dataset, world: World = World()) -> ClickWorld:
    """Draw the log of a world; the same world gives the same log.

    Raises:
        UserError: the data set has too few films with `min_ratings` ratings for the lists of a user.
    """
    ratings = dataset.interactions
    n_ratings = ratings["item_id"].map(ratings["item_id"].value_counts())
    ratings = ratings[n_ratings >= world.min_ratings]
    user_ids, user = np.unique(ratings["user_id"], return_inverse=True)
    item_ids, item = np.unique(ratings["item_id"], return_inverse=True)
    n_shown = world.lists_per_user * world.length
    if n_shown > len(item_ids):
        raise UserError(
            f"{dataset.name} has {len(item_ids)} films with min_ratings = {world.min_ratings} ratings, "
            f"too few for {world.lists_per_user} lists of {world.length}"
        )
    z = factorise(user, item, ratings["rating"].to_numpy(np.float64), world)
    z = (z - z.mean()) / z.std()

    ranker, people, clicks = np.random.default_rng(world.seed).spawn(3)
    item_row = _expose(z, world, ranker)  # [U, lists, h]
    genres = dataset.items.set_index("item_id")["genres"].reindex(item_ids).fillna("")
    genre = genres.str.split("|").str[0].to_numpy(str)
    item_fields, n_ids = id_columns([item_ids, genre])

    shown = item_row.reshape(-1, world.length)
    user_row = np.repeat(np.arange(len(user_ids)), world.lists_per_user)
    preference = z[user_row[:, None], shown]
    strength = world.strength * people.exponential(size=len(user_ids))
    examination = np.arange(1, world.length + 1) ** -world.decay
    log_odds = click_log_odds(preference, item_fields[shown, 1], strength[user_row], world.slope)
    b = brentq(lambda b: (examination * expit(b + log_odds)).mean() - world.click_rate, -50, 50)
    attraction = expit(b + log_odds)
    number = np.arange(len(shown))
    log = ListLog(
        name=f"{dataset.name}, clicks of strength {world.strength:g}",
        user_row=user_row,
        item_row=shown,
        real=np.ones(shown.shape, bool),
        clicked=clicks.random(shown.shape) < examination * attraction,
        begin=number,
        end=number,
        user_ids=user_ids,
        item_ids=item_ids,
        item_fields=item_fields,
        n_ids=n_ids,
    )
    return ClickWorld(log, preference, attraction, examination, strength)


def click_log_odds(
    preference: np.ndarray, kind: np.ndarray, strength: np.ndarray, slope: float
) -> np.ndarray:
    """log odds(a_uk) - b of every film [T, h] of T lists.

    Args:
        preference: [T, h] z.
        kind: [T, h] films with equal values are rivals.
        strength: [T] s_u of the list's user.
        slope: of the film's own preference.
    """
    rivals = (kind[:, :, None] == kind[:, None]) & ~np.eye(kind.shape[1], dtype=bool)
    duel = np.logaddexp(0, preference[:, None] - preference[:, :, None])  # [T, k, j]
    return slope * preference - strength[:, None] * (rivals * duel).sum(2)


def factorise(user: np.ndarray, item: np.ndarray, rating: np.ndarray, world: World) -> np.ndarray:
    """Predicted rating of every user and item [U, I]: mean + b_u + b_i + p_u . q_i.

    Alternating least squares: the items held, a user's (p_u, b_u) is a ridge regression of the residuals on
    the items' (q_i, 1), and so in turn; twenty sweeps from small random q.

    Args:
        user: [N] rows.
        item: [N] rows.
        rating: [N].
        world: factors, l2 and seed.
    """
    mean = rating.mean()
    table = sparse.csr_array((rating - mean, (user, item)))
    seen = sparse.csr_array((np.ones(len(user)), (user, item)))
    q = np.random.default_rng(world.seed).normal(scale=0.1, size=(table.shape[1], world.factors + 1))
    q[:, -1] = 0  # the last column holds the biases
    for _ in range(20):
        p = _ridge(table, seen, q, world.l2)
        q = _ridge(table.T.tocsr(), seen.T.tocsr(), p, world.l2)
    return mean + p[:, :-1] @ q[:, :-1].T + p[:, -1:] + q[:, -1]


def _ridge(table: sparse.csr_array, seen: sparse.csr_array, other: np.ndarray, l2: float) -> np.ndarray:
    """Factors and bias of each row of `table`, given those of the columns `other` [columns, f + 1]."""
    x = np.concatenate([other[:, :-1], np.ones((len(other), 1))], axis=1)
    f = x.shape[1]
    gram = (seen @ (x[:, :, None] * x[:, None]).reshape(len(x), -1)).reshape(-1, f, f)
    target = table @ x - seen @ (x * other[:, -1:])  # residuals after the other side's biases
    return np.linalg.solve(gram + l2 * np.eye(f), target[..., None])[..., 0]


def _expose(z: np.ndarray, world: World, rng: np.random.Generator) -> np.ndarray:
    """Rows of the films shown to each user [U, lists_per_user, length]."""
    score = world.taste * z + rng.gumbel(size=z.shape)
    n_shown = world.lists_per_user * world.length
    best = np.argsort(-score, axis=1)[:, :n_shown]
    # dealt out at random; a list is then in order of the films' places among the best
    place = rng.permuted(np.tile(np.arange(n_shown), (len(z), 1)), axis=1)
    place = np.sort(place.reshape(len(z), world.lists_per_user, world.length), axis=2)
    return np.take_along_axis(best, place.reshape(len(z), -1), axis=1).reshape(place.shape)
