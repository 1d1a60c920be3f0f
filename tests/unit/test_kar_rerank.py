"""KAR on lists: each candidate gets its own and the user's adapted vector, and an arm carries its loss."""

import numpy as np
import pytest
import torch
from test_rerank import all_of, random_lists

from rec_utils import rerank
from rec_utils.crossfit import cross_fit
from rec_utils.papers import kar_rerank
from rec_utils.training import TrainConfig

LISTS = random_lists(lengths=(6, 9, 7, 5, 8, 6))
RNG = np.random.default_rng(0)
ITEM = RNG.normal(size=(30, 7)).astype(np.float32)
USER = RNG.normal(size=(6, 7)).astype(np.float32)


@pytest.mark.parametrize("sides", [("item",), ("item", "user"), ("user", "item", "user_liked")])
@pytest.mark.parametrize("name", list(rerank.MODELS))
def test_every_candidate_gets_its_own_and_the_users_knowledge(name, sides):
    tables = {side: ITEM if side == "item" else USER for side in sides}
    model = kar_rerank.arm(tables, model=name).build(LISTS, 0).eval()
    batch, told = all_of(LISTS), {}
    model.backbone.register_forward_pre_hook(lambda _, given: told.update(dense=given[1]))
    scores = model(batch)
    assert scores.shape == batch.label.shape
    for b, j in ((0, 0), (3, 5), (20, 2)):
        rows = {side: batch.item_row[b, j] if side == "item" else batch.user_row[b] for side in sides}
        expected = [
            model.adaptor.side(s, torch.from_numpy(tables[s][row])[None])[0] for s, row in rows.items()
        ]
        torch.testing.assert_close(told["dense"][b, j], torch.cat(expected))


def test_an_arm_without_vectors_is_the_plain_model():
    plain = kar_rerank.arm({}, model="PRM", model_settings={"dropout": 0.1})
    built, expected = plain.build(LISTS, 3), rerank.build("PRM", LISTS, seed=3, dropout=0.1)
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), expected.parameters(), strict=True))


def test_arms_of_lists_are_cross_fitted_each_with_its_loss():
    arms = {
        name: kar_rerank.arm(tables, model=name, adaptor_settings={"dropout": 0.2})
        for name, tables in (("SetRank", {}), ("PRM", {"item": ITEM, "user": USER}))
    }
    assert arms["SetRank"].objective.loss is rerank.attention_loss
    assert arms["PRM"].objective.loss is rerank.item_loss
    config = TrainConfig(max_epochs=2, batch_size=8)
    fitted = cross_fit(LISTS, arms, n_folds=3, valid_share=0.3, config=config)
    assert fitted.label.shape == fitted.probability["PRM"].shape == LISTS.label.shape
    assert np.array_equal(fitted.label, LISTS.label)
    assert set(fitted.fits) == {"arm", "fold", "best_epoch", "valid_map5", "seconds"}
    assert np.isfinite(fitted.probability["SetRank"]).all()
