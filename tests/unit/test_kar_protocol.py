"""The released protocol's parts: plain features, batch statistics, and the choice by the test users."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_ratings import random_dataset

from rec_utils import ctr
from rec_utils.errors import UserError
from rec_utils.papers.kar_protocol import choose, predict_as_released, prompt_arm, prompt_fields
from rec_utils.samples import ctr_task
from rec_utils.training import predict


@pytest.fixture
def task():
    return ctr_task(random_dataset(), history_length=3)


def test_fields_hold_the_liked_and_the_other_items_and_the_levels_of_the_prompt_history(task):
    ids = prompt_fields(task)
    assert ids.shape == (12, 5, 6)  # (12 + 1) // 2 ratings a prompt
    for user, rows in task.prompts.groupby("user_row"):
        fields = task.samples.item_fields[torch.tensor(rows["item_row"].to_numpy())].tolist()
        liked = (rows["rating"] >= 4).tolist()
        for place, ((item, genre), like) in enumerate(zip(fields, liked, strict=True)):
            shown = [item, genre, 0, 0] if like else [0, 0, item, genre]
            assert ids[user, :4, place].tolist() == shown
        levels = ids[user, 4].tolist()
        assert [level - min(levels) for level in levels] != [0] * 6
        assert pd.Series(levels).corr(pd.Series(rows["rating"].to_numpy())) > 0.99


def test_plain_features_are_means_of_the_backbones_embeddings(task):
    ids = prompt_fields(task)
    model = prompt_arm(ids, backbone="DCN").build(task.samples, 0).eval()
    seen = {}
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.update(dense=inputs[1]))
    batch = task.samples.batch(torch.tensor([0, 17]))
    model(batch)
    table = model.backbone.embedding.weight
    for row, user in enumerate(batch.user_row):
        for field in range(5):
            real = ids[user, field][ids[user, field] > 0]
            mean = table[real].mean(0) if len(real) else torch.zeros(32)
            torch.testing.assert_close(seen["dense"][row, 32 * field : 32 * (field + 1)], mean)


def test_plain_features_reach_the_embeddings_by_their_gradient(task):
    model = prompt_arm(prompt_fields(task)).build(task.samples, 0)
    batch = task.samples.batch(torch.tensor([0]))
    model(batch).sum().backward()
    gradient = model.backbone.embedding.weight.grad.abs().sum(1)
    only_in_prompt = set(prompt_fields(task)[batch.user_row[0]].flatten().tolist()) - {0}
    only_in_prompt -= set(batch.history.flatten().tolist()) | set(batch.item.flatten().tolist())
    assert only_in_prompt and all(gradient[i] > 0 for i in only_in_prompt)


def test_batch_statistics_make_a_prediction_depend_on_its_batch_and_leave_the_model_as_it_was(task):
    samples = task.samples
    model = ctr.build("DIN", samples, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = predict(model, samples)
    np.testing.assert_allclose(predict(model, samples, 5), plain, atol=1e-6)
    assert (
        np.abs(predict_as_released(model, samples, 5) - predict_as_released(model, samples, 50)).max() > 1e-5
    )
    np.testing.assert_array_equal(predict(model, samples), plain)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_choice_by_test_and_by_validation():
    epochs = pd.DataFrame({"arm": ["a", "b"], "valid_auc": [0.7, 0.6], "test_auc": [0.5, 0.8]})
    assert choose(epochs, "valid")["arm"] == "a"
    assert choose(epochs, "test")["arm"] == "b"
    with pytest.raises(UserError, match="by"):
        choose(epochs, "train")
