"""Full ranking equals the list metrics on the whole list, ties and all, and training keeps the best epoch."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from torch import nn

from rec_utils.errors import UserError
from rec_utils.implicit import ImplicitTask, RowSamples
from rec_utils.metrics import ndcg_at_k, recall_at_k
from rec_utils.ranking import evaluate, fit_ranker, means, rank_rows
from rec_utils.training import TrainConfig


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_metrics_equal_those_of_the_whole_list(seed, tied):
    rng = np.random.default_rng(seed)
    n, n_items = 9, 12
    scores = (rng.integers(3, size=(n, n_items)) if tied else rng.normal(size=(n, n_items))).astype(
        np.float32
    )
    state = rng.choice(3, p=[0.6, 0.2, 0.2], size=(n, n_items))
    truth, seen = (sparse.csr_array((state == kind).astype(float)) for kind in (1, 2))
    found = rank_rows(lambda rows: torch.from_numpy(scores[rows]), truth, seen, cuts=(1, 5), batch_size=4)
    users = np.flatnonzero((state == 1).any(axis=1))
    assert found["user"].tolist() == users.tolist()
    label, masked = (state == 1)[users], np.where(state == 2, -np.inf, scores)[users]
    for k in (1, 5):
        if len(users):
            assert found[f"Recall@{k}"].to_numpy() == pytest.approx(recall_at_k(label, masked, k))
            assert found[f"NDCG@{k}"].to_numpy() == pytest.approx(ndcg_at_k(label, masked, k))


def test_a_seen_item_is_no_candidate_even_if_all_others_are_used_up():
    truth, seen = sparse.csr_array([[0.0, 1, 0]]), sparse.csr_array([[1.0, 1, 0]])
    found = rank_rows(lambda rows: torch.tensor([[3.0, 2, 1]]), truth, seen, cuts=(3,))
    assert means(found) == {"Recall@3": 0, "NDCG@3": 0}


def test_bad_scores_and_cuts_are_errors():
    truth = sparse.csr_array([[0.0, 1, 0], [1, 0, 0]])
    with pytest.raises(UserError, match="item 2 for user 1 is NaN"):
        rank_rows(lambda rows: torch.tensor([[0.0, 1, 2], [0, 1, torch.nan]]), truth, cuts=(1,))
    with pytest.raises(UserError, match="between 1 and the 3 items"):
        rank_rows(lambda rows: torch.zeros(2, 3), truth, cuts=(4,))


def test_each_part_leaves_out_what_was_seen_before_it():
    pairs = [np.array([[0, item]]) for item in range(3)]
    task = ImplicitTask("tiny", 1, 5, *pairs)
    scorer = lambda rows: torch.tensor([[5.0, 4, 3, 2, 1]])  # noqa: E731
    for part in ("validation", "test"):
        assert means(evaluate(scorer, task, part, cuts=(1,)))["Recall@1"] == 1
    with pytest.raises(UserError, match="part 'train'"):
        evaluate(scorer, task, "train")


class Constant(nn.Module):
    """Its one weight grows by the learning rate at every step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        return -self.weight * batch.x.mean(1)


@pytest.mark.parametrize(("every", "best"), [(1, 4), (3, 3)])
def test_the_best_validated_epoch_is_kept(every, best):
    model, samples = Constant(), RowSamples.of(sparse.csr_array(np.eye(2, 3)))
    config = TrainConfig(lr=1.0, batch_size=2, max_epochs=10, patience=4)
    seen = []

    def validate(trained):
        assert not trained.training
        seen.append(round(trained.weight.item()))
        return pd.DataFrame({"user": [0], "NDCG@1": [1.0], "Recall@20": [-abs(seen[-1] - 4)]})

    result = fit_ranker(model, samples, config, validate, every=every, progress=False)
    assert result.best_epoch == best == round(model.weight.item())
    assert seen == [epoch for epoch in range(1, 11) if epoch % every == 0 and epoch <= {1: 8, 3: 9}[every]]
    assert list(result.epochs[best - 1]) == ["train_loss", "valid_Recall@20", "valid_NDCG@1", "seconds"]


def test_the_last_epoch_is_always_validated():
    model, samples = Constant(), RowSamples.of(sparse.csr_array(np.eye(2, 3)))
    table = pd.DataFrame({"user": [0], "Recall@20": [0.5]})
    config = TrainConfig(lr=1.0, batch_size=2, max_epochs=2, patience=1)
    assert fit_ranker(model, samples, config, lambda _: table, every=5, progress=False).best_epoch == 2
