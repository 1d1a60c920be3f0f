"""Draft trees: the most frequent continuations of a text, and which tokens each of them attends to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec_utils.decoding.pool import OwnText, Pool, Tokens

MIN_NODES = 12  #: with a smaller trie after two tokens, that after the last one is taken


@dataclass(frozen=True)
class Tree:
    """A draft of n tokens as the pseudo-sequence that one pass of the model verifies."""

    tokens: Tokens  #: [n] depth first: a parent stands before its children
    depth: NDArray[np.int64]  #: [n] 0 for the tokens that may come next
    parent: NDArray[np.int64]  #: [n] place of the parent in the tree, -1 where the depth is 0
    sees: NDArray[np.bool_]  #: [n, n] row i is True at i and its ancestors
    weight: NDArray[np.int64]  #: [n] how often the branch down to this token was seen

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def empty(cls) -> Tree:
        """A draft of nothing."""
        none = np.empty(0, np.int64)
        return cls(none, none, none, np.empty((0, 0), bool), none)


class Trie:
    """The trie of some rows of tokens, each node with the summed weights of the rows that pass it.

    Args:
        rows: [m, d] tokens; from the id `end` on a row has none.
        weights: [m] int.
        end: the id after the last one of the vocabulary.
    """

    def __init__(self, rows: Tokens, weights: NDArray[np.int64], end: int) -> None:
        m, d = rows.shape
        # as big-endian bytes, rows sort like words in a dictionary; a node is then a run of rows
        words = rows.astype(rows.dtype.newbyteorder(">")).view(f"S{d * rows.itemsize}").ravel()
        order = np.argsort(words, kind="stable")
        rows, below = rows[order], np.append(0, np.cumsum(weights[order]))
        new = np.ones((m, d), bool)  # True where a run begins
        np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1, out=new[1:])
        depth, start = np.nonzero(new.T)
        stop = np.append(start[1:], 0)[: len(start)]
        stop[stop == 0] = m  # the next run belongs to another depth, whose first one begins at row 0
        token = rows[start, depth]
        real = ~np.logical_or.accumulate(rows == end, axis=1)[start, depth]
        self._depth, self._start, self._stop = depth[real], start[real], stop[real]
        self._token, self._weight = token[real], (below[stop] - below[start])[real]

    def __len__(self) -> int:
        return len(self._token)

    def tree(self, budget: int) -> Tree:
        """The `budget` heaviest nodes; of equal ones those of less depth. With a node comes its parent."""
        heaviest = np.argsort(-self._weight, kind="stable")[:budget]
        chosen = heaviest[np.lexsort((self._depth[heaviest], self._start[heaviest]))]
        depth, start, stop = self._depth[chosen], self._start[chosen], self._stop[chosen]
        sees = (depth <= depth[:, None]) & (start <= start[:, None]) & (start[:, None] < stop)
        place = np.arange(len(chosen))
        above = np.where(sees & (place < place[:, None]), place, -1)
        parent = above.max(axis=1, initial=-1)
        return Tree(self._token[chosen], depth, parent, sees, self._weight[chosen])


def draft(own: OwnText, pool: Pool | None, budget: int, depth: int) -> Tree:
    """The draft after a text: what followed its last two tokens, or its last one if that is too little.

    Args:
        own: the prompt and the text so far.
        pool: stored texts, or None.
        budget: tokens of the tree, at most.
        depth: tokens of a branch, at most.
    """
    if not budget or depth < 1:
        return Tree.empty()
    for n_last in (2, 1):
        rows, weights = own.followers(pool, n_last)
        trie = Trie(rows[:, :depth], weights, own.end)
        if len(trie) >= MIN_NODES:
            break
    return trie.tree(budget)
