"""LightGCN against dense matrices, and the three kinds of groups."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score

from rec_utils import metrics
from rec_utils.errors import UserError
from rec_utils.papers import dare_groups
from rec_utils.papers.dare_groups import (
    GCNConfig,
    Graph,
    at_random,
    by_attribute,
    collaborative,
    light_gcn,
    like_matrix,
)


def random_likes(n_users, n_items, share, seed):
    likes = np.random.default_rng(seed).random((n_users, n_items)) < share
    return csr_array(likes.astype(np.float32))


def communities(n_users=40, n_items=60, seed=0):
    """Even users like even items often and odd ones seldom, odd users the reverse."""
    alike = (np.arange(n_users)[:, None] + np.arange(n_items)) % 2 == 0
    likes = np.random.default_rng(seed).random(alike.shape) < np.where(alike, 0.5, 0.03)
    return csr_array(likes.astype(np.float32))


def dense(likes, kept=None, keep=1.0):
    """The adjacency matrix by its definition; `kept` says which of the likes, row by row, stay."""
    table = likes.toarray()
    n_users, n_items = table.shape
    by_user, by_item = table.sum(1), table.sum(0)
    matrix = np.zeros((n_users + n_items,) * 2)
    for number, (u, i) in enumerate(zip(*table.nonzero(), strict=True)):
        if kept is None or kept[number]:
            weight = 1 / np.sqrt(by_user[u] * by_item[i]) / keep
            matrix[u, n_users + i] = matrix[n_users + i, u] = weight
    return torch.from_numpy(matrix)


# LightGCN

sizes = st.integers(1, 9)


@settings(deadline=None)
@given(sizes, sizes, st.floats(0, 1), st.integers(0, 3), st.integers(0, 10_000))
def test_propagation_and_its_gradient_are_those_of_dense_matrices(n_users, n_items, share, n_layers, seed):
    """Also for users and items without a like, which keep a share of their first embedding."""
    likes = random_likes(n_users, n_items, share, seed)
    matrix = dense(likes)
    nodes = torch.randn(n_users + n_items, 3, generator=torch.Generator().manual_seed(seed))
    ours, plain = nodes.clone().requires_grad_(), nodes.double().requires_grad_()
    final = Graph(likes).propagate(ours, n_layers)
    powers = [torch.linalg.matrix_power(matrix, k) for k in range(n_layers + 1)]
    expected = sum(powers) @ plain / (n_layers + 1)
    torch.testing.assert_close(final.double(), expected, atol=1e-5, rtol=1e-4)
    final.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad.double(), plain.grad, atol=1e-4, rtol=1e-3)


def test_an_edge_is_dropped_in_both_directions_and_the_rest_is_scaled():
    likes, keep = random_likes(8, 9, 0.5, 0), 0.8
    graph = Graph(likes)
    entries = graph.entries(keep, torch.Generator().manual_seed(3))
    kept = (torch.rand(graph.n_edges, generator=torch.Generator().manual_seed(3)) < keep).numpy()
    assert 0 < kept.sum() < len(kept)
    nodes = torch.randn(17, 3, generator=torch.Generator().manual_seed(0))
    matrix = dense(likes, kept, keep)
    expected = (nodes.double() + matrix @ nodes.double()) / 2
    torch.testing.assert_close(graph.propagate(nodes, 1, entries).double(), expected, atol=1e-6, rtol=1e-5)


def test_sampled_items_are_all_those_not_liked():
    likes = random_likes(6, 7, 0.5, 1)
    user = torch.arange(6).repeat(400)
    liked = torch.from_numpy(np.flatnonzero(likes.toarray()))
    item = dare_groups._not_liked(user, liked, 7, torch.Generator().manual_seed(0))
    drawn = {*zip(user.tolist(), item.tolist(), strict=True)}
    assert drawn == {*map(tuple, np.argwhere(likes.toarray() == 0).tolist())}


def test_recall_is_that_of_the_list_metric():
    likes = random_likes(30, 50, 0.3, 2)
    first = np.arange(likes.nnz) % 4 > 0
    known, hidden = dare_groups._select(likes, first), dare_groups._select(likes, ~first)
    nodes = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    score = (nodes[:30] @ nodes[30:].T).numpy()
    score[known.nonzero()] = -np.inf
    has_any = hidden.toarray().any(1)
    expected = metrics.recall_at_k(hidden.toarray()[has_any], score[has_any], 10).mean()
    assert 0 < expected < 1
    assert dare_groups._recall(nodes, known, hidden, 10) == pytest.approx(expected)


def test_training_ranks_hidden_likes_and_repeats_itself():
    likes = communities()
    users, items, log = light_gcn(likes, 0, replace(GCNConfig(), top=10), progress=False)
    again = light_gcn(likes, 0, replace(GCNConfig(), top=10), progress=False)
    other = light_gcn(likes, 1, replace(GCNConfig(), top=10), progress=False)
    assert users.shape == (40, 32) and items.shape == (60, 32)
    np.testing.assert_array_equal(users, again[0])
    assert log.equals(again[2]) and not log.equals(other[2])
    alike = (np.arange(40)[:, None] + np.arange(60)) % 2 == 0
    score = users @ items.T
    assert score[alike].mean() > score[~alike].mean() + 1
    assert log["loss"].iloc[-1] < 0.5 < log["loss"].iloc[0]


def test_training_stops_when_recall_does_and_keeps_the_best_epoch():
    """At a learning rate of 0 no epoch is better than the first one looked at."""
    likes, config = communities(), GCNConfig(lr=0.0, eval_every=2, patience=3)
    _, _, log = light_gcn(likes, 0, config, progress=False)
    assert log["epoch"].tolist() == [2, 4, 6, 8]
    assert log["recall"].nunique() == 1


# Groups


def test_two_communities_are_found():
    group = collaborative(communities(), 2, seed=0, progress=False)
    assert group.dtype == np.int64
    assert adjusted_rand_score(np.arange(40) % 2, group) == 1


@pytest.mark.parametrize("n_groups", [0, 41])
def test_a_number_of_groups_that_cannot_be_is_refused(n_groups):
    with pytest.raises(UserError, match=f"between 1 and the 40 users, not at {n_groups}"):
        collaborative(communities(), n_groups, seed=0, progress=False)


@pytest.mark.parametrize(
    ("likes", "got"),
    [
        (csr_array(np.eye(3, 5, dtype=np.float32)), "got 3 likes of 3 users among 5 items"),
        (csr_array(np.ones((4, 5), np.float32)), "got 20 likes of 4 users among 5 items"),
    ],
)
def test_likes_from_which_nothing_can_be_learnt_are_refused(likes, got):
    with pytest.raises(UserError, match=got):
        light_gcn(likes, 0, progress=False)


def test_likes_are_ratings_above_the_threshold_in_the_order_of_the_users():
    interactions = pd.DataFrame(
        {
            "user_id": [7, 7, 3, 3, 5, 9],
            "item_id": [20, 10, 10, 30, 20, 40],
            "rating": [3.5, 3.0, 5.0, 4.0, 1.0, 5.0],
        }
    )
    likes = like_matrix(interactions, [3, 5, 7])
    # items 10, 20 and 30; nobody asked about user 9
    np.testing.assert_array_equal(likes.toarray(), [[1, 0, 1], [0, 0, 0], [0, 1, 0]])


#: Every genre of MovieLens, by the group that DARE's authors put it into.
GENRES = {
    0: ["Adventure"],
    1: ["Comedy"],
    2: ["Action", "Crime"],
    3: ["Drama"],
    4: ["Animation", "Children"],
    5: ["Sci-Fi", "Fantasy", "Mystery"],
    6: ["Documentary"],
    7: ["Horror", "Thriller"],
    8: ["Western", "Film-Noir", "Romance", "War", "Musical", "IMAX", "(no genres listed)", ""],
}


def test_every_genre_has_its_group_and_the_first_one_counts():
    expected = [group for group, genres in GENRES.items() for _ in genres]
    genres = [genre for genres in GENRES.values() for genre in genres]
    np.testing.assert_array_equal(by_attribute(pd.DataFrame({"genres": genres})), expected)
    longer = [f"{genre}|Comedy|War" for genre in genres]
    np.testing.assert_array_equal(by_attribute(pd.DataFrame({"genres": longer})), expected)


def test_the_genres_are_all_that_the_data_know():
    from rec_utils.data import load

    items = load("ml-latest-small").items
    known = {genre for genres in GENRES.values() for genre in genres}
    assert set(items["genres"].str.split("|").explode()) <= known
    assert set(by_attribute(items)) == set(GENRES)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=6), st.integers(0, 100))
def test_random_groups_keep_the_sizes(sizes, seed):
    group = at_random(sizes, seed)
    np.testing.assert_array_equal(np.bincount(group, minlength=len(sizes)), sizes)
    np.testing.assert_array_equal(group, at_random(sizes, seed))


def test_random_groups_are_random():
    one, other = at_random([30, 30], 0), at_random([30, 30], 1)
    assert abs(adjusted_rand_score(one, other)) < 0.3
    assert abs(adjusted_rand_score(one, np.repeat([0, 1], 30))) < 0.3
