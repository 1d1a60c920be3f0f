"""CTR models on samples with fields of the user or without a history, and the hidden vector they show."""

from dataclasses import replace

import pytest
import torch
from test_ctr import DIM, all_of, every_model, lively, random_samples

from rec_utils import ctr
from rec_utils.errors import UserError


@pytest.fixture(scope="module")
def samples():
    return random_samples()


@pytest.fixture(scope="module")
def dense(samples):
    return torch.randn(len(samples), 2 * DIM, generator=torch.Generator().manual_seed(2))


def with_users(samples):
    """The same samples with two fields of each user, of ids beyond all others."""
    n_users = int(samples.user_row.max()) + 1
    user_fields = samples.n_ids + torch.stack([torch.arange(n_users), n_users + torch.arange(n_users) % 2], 1)
    return replace(samples, user_fields=user_fields, n_ids=samples.n_ids + n_users + 2)


@every_model
def test_user_fields_are_read_as_further_fields_of_the_item(name, kw, samples, dense):
    """They change the prediction, and their place in the batch is that of item fields."""
    samples = with_users(samples)
    model = lively(name, samples, **kw)
    batch = all_of(samples)
    logits = model(batch, dense)
    for field in range(4):
        item = batch.item.clone()
        item[:, field] = item[:, field].roll(1)
        assert ((model(replace(batch, item=item), dense) - logits).abs() > 1e-3).any()


@pytest.mark.parametrize("name", [name for name in ctr.MODELS if name not in ("DIN", "DIEN")])
def test_without_a_history_nothing_stands_in_for_it(name, samples, dense):
    bare = with_users(samples).with_history(0)
    model = lively(name, bare)
    assert model.inputs.all_dim == (model.inputs.embed_dim if name == "LR" else DIM) * 4 + 2 * DIM
    batch = all_of(bare)
    assert batch.history.shape[1] == 0 and batch.item.shape[1] == 4
    logits = model(batch, dense)
    model(batch, dense).sum().backward()
    touched = model.embedding.weight.grad.any(1).nonzero().squeeze(1)
    assert touched.tolist() == batch.item.unique().tolist()
    # a model that reads a history, of samples that have no step yet, adds nothing but zeros
    if name in ("LR", "FM"):
        reader = ctr.build(name, with_users(samples), dense_dim=2 * DIM, embed_dim=DIM)
        reader.load_state_dict(model.state_dict())
        first = samples.position == samples.first
        read = reader(all_of(with_users(samples)), dense)
        torch.testing.assert_close(read[first], logits[first])
        assert (read[~first] - logits[~first]).abs().min() > 1e-4


@pytest.mark.parametrize("name", ["DIN", "DIEN"])
def test_attention_needs_a_history(name, samples):
    with pytest.raises(UserError, match=f"{name} attends to a history, and history_length is 0"):
        ctr.build(name, samples.with_history(0))


# What prompts are made of.

HEADS = {
    "DNN": lambda model: model.deep[-1],
    "PNN": lambda model: model.deep[-1],
    "DeepFM": lambda model: model.deep[-1],
    "xDeepFM": lambda model: model.final,
    "AutoInt": lambda model: model.final,
    "FiGNN": lambda model: model.weight,
}


@every_model
def test_hidden_is_what_the_last_linear_layer_reads(name, kw, samples, dense):
    model = lively(name, samples, **kw)
    batch = all_of(samples)
    if name in ("LR", "FM"):
        with pytest.raises(UserError, match=f"{name} has no hidden layer"):
            model.hidden(batch, dense)
        return
    q, logits = model.hidden(batch, dense)
    assert model.head is HEADS.get(name, lambda model: model.final[-1])(model)
    assert q.shape == (len(samples), model.head.in_features)
    assert torch.equal(logits, model(batch, dense))
    if name == "DeepFM":
        logits = logits - fm_part(model, batch, dense)
    if name == "FiGNN":  # its logit is a weighted sum of scores, the states being q
        scores = model.score(q.unflatten(1, (model.n_all, -1))).squeeze(2)
        expected = (model.head(q).sigmoid() * scores).sum(1)
    else:
        expected = model.head(q).squeeze(1)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert not model.head._forward_pre_hooks


def fm_part(model, batch, dense):
    fields = model._sparse_fields(batch)
    return model._first_order(batch, dense) + (0.5 * (fields.sum(1).square() - fields.square().sum(1)).sum(1))
