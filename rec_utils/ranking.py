"""Full ranking: every item that the user has not chosen yet is a candidate, and the best k are judged.

The metrics are those of `rec_utils.metrics`, found from the first k places alone, so that no list of all
items is ever sorted. A scorer maps rows of users [B] to scores [B, I]; the result is one value a user,
ready for `stats.draw_mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor, nn

from rec_utils.batches import Samples
from rec_utils.errors import UserError
from rec_utils.implicit import ImplicitTask
from rec_utils.settings import check_choice
from rec_utils.training import FitResult, Objective, TrainConfig, fit

#: User rows [B] -> scores [B, I], float.
Scorer = Callable[[np.ndarray], Tensor]

#: Where DiffRec cuts the lists.
CUTS = (10, 20)
#: What chooses an epoch or a setting, on the validation part.
CHOSEN_BY = "Recall@20"
#: What each part's candidates leave out.
SEEN = {"validation": ("train",), "test": ("train", "validation")}


def evaluate(
    scorer: Scorer, task: ImplicitTask, part: str = "test", *, cuts: Sequence[int] = CUTS
) -> pd.DataFrame:
    """Recall@k and NDCG@k of the ranking of all unseen items, for every user with anything in `part`.

    Candidates for the validation part are the items outside train, for the test part those outside train and
    validation. See `rank_rows`.
    """
    check_choice("part", part, list(SEEN))
    return rank_rows(scorer, task.matrix(part), task.matrix(*SEEN[part]), cuts=cuts)


def rank_rows(
    scorer: Scorer,
    truth: sparse.csr_array,
    seen: sparse.csr_array | None = None,
    *,
    cuts: Sequence[int] = CUTS,
    batch_size: int = 1024,
) -> pd.DataFrame:
    """Recall@k and NDCG@k of every row of `truth` that is not empty.

    Recall@k is the share of the row's items among the first k; NDCG@k has discount log2(rank + 1) and the
    ideal of min(items, k) hits. Scores are compared as float32. Equal scores count against the model, as in
    `rec_utils.metrics`: else the items' order in the file would decide for models with many ties.

    Args:
        scorer: rows [B] -> scores [B, I].
        truth: [N, I] the items to be found.
        seen: [N, I] items that are no candidates; None for none.
        cuts: the k.
        batch_size: rows at once.

    Returns:
        One row for each row of `truth` with items: user (its number), and "Recall@k" and "NDCG@k" for each k.

    Raises:
        UserError: a score is NaN, or k is more than there are items.
    """
    deepest = max(cuts)
    if not 1 <= min(cuts) <= deepest <= truth.shape[1]:
        raise UserError(f"cuts {tuple(cuts)} must lie between 1 and the {truth.shape[1]} items")
    users = np.flatnonzero(np.diff(truth.indptr))
    discount = 1 / torch.log2(torch.arange(2, deepest + 2, dtype=torch.float64))
    found: list[Tensor] = []
    for start in range(0, len(users), batch_size):
        rows = users[start : start + batch_size]
        # float64 leaves room below every float32 for a right item that is tied with a wrong one
        scores = scorer(rows).detach().cpu().float().double()
        if scores.isnan().any():
            user, item = scores.isnan().nonzero()[0].tolist()
            raise UserError(f"the score of item {item} for user {rows[user]} is NaN")
        if seen is not None:
            scores[_places(seen, rows)] = -torch.inf
        right = _places(truth, rows)
        lowest = torch.tensor(-torch.inf, dtype=torch.float64)
        scores[right] = torch.nextafter(scores[right], lowest)
        is_right = torch.zeros(scores.shape, dtype=torch.bool)
        is_right[right] = True
        value, place = scores.topk(deepest, dim=1)
        hit = (is_right.gather(1, place) & value.isfinite()).double()
        count = torch.from_numpy(np.diff(truth.indptr)[rows])
        ideal = torch.cat([torch.zeros(1, dtype=torch.float64), discount.cumsum(0)])
        found.append(
            torch.stack(
                [hit[:, :k].sum(1) / count for k in cuts]
                + [(hit[:, :k] @ discount[:k]) / ideal[count.clamp(max=k)] for k in cuts],
                dim=1,
            )
        )
    columns = [f"{metric}@{k}" for metric in ("Recall", "NDCG") for k in cuts]
    table = pd.DataFrame(torch.cat(found).numpy(), columns=columns)
    table.insert(0, "user", users)
    return table


def _places(matrix: sparse.csr_array, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Row (of the batch) and column of every entry of `rows` of a matrix."""
    part = matrix[rows]
    row = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
    return torch.from_numpy(row), torch.from_numpy(part.indices.astype(np.int64))


def means(table: pd.DataFrame) -> dict[str, float]:
    """Mean over users of each metric."""
    return table.drop(columns="user").mean().to_dict()


def fit_ranker(
    model: nn.Module,
    train: Samples,
    config: TrainConfig,
    validate: Callable[[nn.Module], pd.DataFrame],
    *,
    every: int = 1,
    progress: bool | str = True,
) -> FitResult:
    """Train a model whose `forward` returns losses, and keep the epoch with the best validation Recall@20.

    Args:
        model: `forward(batch)` returns the losses of a batch, of any shape; their mean is lowered.
        train: what it learns from.
        config: training settings.
        validate: model -> metrics by user, see `rank_rows`; `CHOSEN_BY` decides, or the first one without it.
        every: epochs from one validation to the next.
        progress: see `training.fit`.
    """

    def scores(trained: nn.Module) -> dict[str, float]:
        found = means(validate(trained))
        first = CHOSEN_BY if CHOSEN_BY in found else next(iter(found))
        return {first: found[first]} | found

    objective = Objective(lambda loss, _: loss.mean(), higher_is_better=True, validate=scores, every=every)
    return fit(model, train, None, config, progress, objective)
