"""Trees and their cut, against a walk node by node."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy

from rec_utils.clustering import Tree, cut, from_linkage, ward_tree
from rec_utils.errors import UserError


def random_tree(n_points, seed, renamed=True):
    """A binary tree made by merging random nodes, its nodes in any order, one leaf a point."""
    rng = np.random.default_rng(seed)
    name = rng.permutation(2 * n_points - 1) if renamed else np.arange(2 * n_points - 1)
    parent = np.full(2 * n_points - 1, -1)
    roots = list(range(n_points))
    for new in range(n_points, 2 * n_points - 1):
        for _ in range(2):
            parent[name[roots.pop(rng.integers(len(roots)))]] = name[new]
        roots.append(new)
    return Tree(parent, name[:n_points])


def walk(tree, below):
    """Groups as sets of points, by walking down from the root."""
    children = {node: np.flatnonzero(tree.parent == node) for node in range(len(tree.parent))}
    point = {leaf: p for p, leaf in enumerate(tree.leaf.tolist())}

    def points(node):
        return [point[node]] if node in point else [p for c in children[node] for p in points(c)]

    def groups(node):
        inside = points(node)
        if len(inside) < below or node in point:
            return [frozenset(inside)]
        return [group for c in children[node] for group in groups(c)]

    return set(groups(int(np.flatnonzero(tree.parent < 0)[0])))


def as_sets(group):
    return {frozenset(np.flatnonzero(group == g).tolist()) for g in np.unique(group)}


trees = st.builds(random_tree, st.integers(2, 40), st.integers(0, 10_000))


@settings(deadline=None)
@given(trees, st.integers(1, 45))
def test_the_cut_is_the_walk_from_the_root(tree, below):
    assert as_sets(cut(tree, below)) == walk(tree, below)


@settings(deadline=None)
@given(trees, st.integers(2, 45))
def test_groups_are_as_large_as_the_limit_allows(tree, below):
    group, size = cut(tree, below), tree.sizes()
    counts = np.bincount(group)
    assert counts.max() < below or counts.max() == 1
    # no group could be joined with what its parent holds besides
    for members in as_sets(group):
        node = min((k for k in range(len(size)) if holds(tree, k) >= members), key=lambda k: size[k])
        above = tree.parent[node]
        assert above < 0 or size[above] >= below


def holds(tree, node):
    found = set()
    for point, at in enumerate(tree.leaf):
        while at >= 0 and at != node:
            at = tree.parent[at]
        if at == node:
            found.add(point)
    return found


@settings(deadline=None)
@given(trees, st.integers(2, 20), st.integers(2, 20))
def test_a_finer_cut_divides_the_groups_of_a_coarser_one(tree, one, other):
    fine, coarse = cut(tree, min(one, other)), cut(tree, max(one, other))
    assert len({*zip(fine.tolist(), coarse.tolist(), strict=True)}) == fine.max() + 1


def test_groups_are_numbered_by_their_first_point():
    group = cut(random_tree(30, 1), 6)
    first = [int(np.flatnonzero(group == g)[0]) for g in range(group.max() + 1)]
    assert first == sorted(first) and first[0] == 0


def test_a_limit_above_all_points_makes_one_group_and_one_or_two_makes_single_points():
    tree = random_tree(9, 3)
    assert set(cut(tree, 10)) == {0}
    assert cut(tree, 9).max() > 0
    for below in (1, 2):
        np.testing.assert_array_equal(cut(tree, below), np.arange(9))


def test_sizes_are_those_of_scipys_linkage():
    linkage = hierarchy.ward(np.random.default_rng(0).normal(size=(25, 3)))
    np.testing.assert_array_equal(from_linkage(linkage).sizes()[25:], linkage[:, 3])
    np.testing.assert_array_equal(from_linkage(linkage).sizes()[:25], 1)


def test_wards_tree_keeps_clusters_apart_and_repeats_itself():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 12)
    vectors = 10 * np.eye(4)[truth] + rng.normal(size=(48, 4))
    group = cut(ward_tree(vectors), 13)
    np.testing.assert_array_equal(group, truth)
    np.testing.assert_array_equal(group, cut(ward_tree(vectors), 13))


@pytest.mark.parametrize(
    ("parent", "leaf", "message"),
    [
        ([-1, -1], [0, 1], "one root"),
        ([1, 0], [0], "one root"),
        ([2, 2, -1], [0, 0], "a leaf of its own"),
        ([2, 2, -1], [0, 2], "a leaf of its own"),
    ],
)
def test_what_is_no_tree_is_refused(parent, leaf, message):
    with pytest.raises(UserError, match=message):
        Tree(np.array(parent), np.array(leaf))


def test_a_circle_is_refused():
    tree = Tree(np.array([1, 2, 1, -1]), np.array([0]))
    with pytest.raises(UserError, match="circle"):
        cut(tree, 2)


def test_bad_limits_and_single_points_are_refused():
    with pytest.raises(UserError, match="at least 1"):
        cut(random_tree(3, 0), 0)
    with pytest.raises(UserError, match="two points"):
        ward_tree(np.ones((1, 2)))
