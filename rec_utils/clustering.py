"""Hierarchical groups: a binary tree over points, cut where its nodes become small enough.

REKI clusters items and users into a tree (StreaKHC in the paper) and makes a group of every highest node
with fewer than T points. The cut works on any tree that is given by its nodes' parents: `ward_tree` builds
one from vectors, and the trees that REKI released are of the same form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster import hierarchy

from rec_utils.errors import UserError


@dataclass(frozen=True)
class Tree:
    """A rooted tree of K nodes over P points; every point is one leaf."""

    parent: np.ndarray  #: [K] node above each node, -1 for the root
    leaf: np.ndarray  #: [P] the node that holds each point

    def __post_init__(self) -> None:
        if (self.parent < 0).sum() != 1:
            raise UserError(f"a tree has one root, but {(self.parent < 0).sum()} nodes are without a parent")
        if len(np.unique(self.leaf)) != len(self.leaf) or np.isin(self.leaf, self.parent).any():
            raise UserError("every point must be a leaf of its own")

    def sizes(self) -> np.ndarray:
        """Number of points below each node [K]."""
        size = np.zeros(len(self.parent), dtype=np.int64)
        node = self.leaf  # all points climb one step at a time
        for _ in range(len(self.parent)):
            size += np.bincount(node, minlength=len(size))
            node = self.parent[node]
            node = node[node >= 0]
            if not len(node):
                return size
        raise UserError("the tree has a circle: its points never reach the root")


def cut(tree: Tree, below: int) -> np.ndarray:
    """Group of each point [P]: from the root down, the first node with fewer than `below` points.

    Groups are numbered from 0 by their first point. A single point always stops the walk.
    """
    if below < 1:
        raise UserError(f"groups of fewer than {below} points do not exist; below must be at least 1")
    size = tree.sizes()
    stops = size < below
    stops[tree.leaf] = True
    # each node points to its parent as long as the parent stops, too; doubling finds the last such node
    above = tree.parent
    top = np.where((above >= 0) & stops[above], above, np.arange(len(above)))
    while (top[top] != top).any():
        top = top[top]
    node = top[tree.leaf]
    _, first, group = np.unique(node, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def ward_tree(vectors: np.ndarray) -> Tree:
    """Ward's agglomerative tree over vectors [P, m]; P >= 2. Deterministic, O(P^2) time and memory."""
    if len(vectors) < 2:
        raise UserError(f"a tree needs at least two points, not {len(vectors)}")
    return from_linkage(hierarchy.ward(vectors.astype(np.float64)))


def from_linkage(linkage: np.ndarray) -> Tree:
    """The tree of scipy's linkage matrix [P - 1, 4]: points are nodes 0 to P - 1, merges follow in order."""
    n_points = len(linkage) + 1
    parent = np.full(2 * n_points - 1, -1)
    parent[linkage[:, :2].astype(np.int64)] = np.arange(n_points, 2 * n_points - 1)[:, None]
    return Tree(parent, np.arange(n_points))
