"""MemoCRS' expert as a sequential model: SASRec over the movies of a dialogue as they are named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from rec_utils.dialogues import Dialogues
from rec_utils.papers.memocrs_contexts import movie_rows
from rec_utils.papers.memocrs_experts import Popularity
from rec_utils.sequences import SequenceBatch, Windows
from rec_utils.sequential import SASRec
from rec_utils.training import Objective, TrainConfig, fit

#: Movies of a dialogue that the model reads, the last ones.
LENGTH = 20
CONFIG = TrainConfig(lr=3e-3, lr_decay=True, batch_size=128, max_epochs=20)


@dataclass(frozen=True)
class Sequential:
    """A next-item model over the movies that training sessions name; other movies have score 0."""

    popularity: np.ndarray  #: [M]
    model: SASRec
    movies: np.ndarray  #: [I] rows of the movies that it knows

    @classmethod
    def fit(cls, train: Dialogues, seed: int = 0, progress: bool | str = False) -> Sequential:
        """Train on all sessions that name two movies or more, each movie once, where it was named first."""
        named = train.mentions.drop_duplicates(["session_id", "movie_id"])
        movies, item = np.unique(movie_rows(train).loc[named["movie_id"]], return_inverse=True)
        _, first, count = np.unique(named["session_id"], return_index=True, return_counts=True)
        steps = np.minimum(count - 1, LENGTH)
        windows = Windows(
            torch.from_numpy(item + 1),
            torch.from_numpy(first + count - 1 - steps)[steps > 0],
            LENGTH,
            torch.from_numpy(steps)[steps > 0],
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = SASRec(len(movies), length=LENGTH, blocks=1, dropout=0.3)
        config = TrainConfig(**(vars(CONFIG) | {"seed": seed}))
        fit(model, windows, None, config, progress, Objective(lambda loss, _: loss.mean()))
        return cls(Popularity.fit(train).popularity, model.eval(), movies)

    @torch.no_grad()
    def scores(self, named: sparse.csr_array) -> np.ndarray:
        """Chances [C, M], float32, of the next movie; where none was named, the shares of sessions."""
        scores = np.tile((self.popularity / self.popularity.sum()).astype(np.float32), (named.shape[0], 1))
        history, length = self._histories(named)
        for rows in np.array_split(np.flatnonzero(length), max(len(length) // 512, 1)):
            nothing = torch.zeros(len(rows), dtype=torch.int64)  # no label is needed
            batch = SequenceBatch(history[rows], torch.from_numpy(length[rows]), nothing)
            scores[rows] = 0
            scores[rows[:, None], self.movies] = self.model.scores(batch).softmax(dim=1).numpy()
        return scores

    def _histories(self, named: sparse.csr_array) -> tuple[Tensor, np.ndarray]:
        """Items [C, LENGTH] in the order they were named, padded on the right, and their numbers [C]."""
        known = named.tocsc()[:, self.movies].tocoo()
        order = np.lexsort((-known.data, known.row))  # the largest value was named first
        row, item = known.row[order], known.col[order] + 1
        count = np.bincount(row, minlength=named.shape[0])
        place = np.arange(len(row)) - (np.cumsum(count) - count)[row]
        cut = np.maximum(count - LENGTH, 0)
        kept = place >= cut[row]
        history = torch.zeros(named.shape[0], LENGTH, dtype=torch.int64)
        history[row[kept], (place - cut[row])[kept]] = torch.from_numpy(item[kept].astype(np.int64))
        return history, count - cut
