"""ClickPrompt's prompts, fusion and both stages against plain formulas on tiny BERT and RoBERTa models."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_plm import tiny
from tiny_ratings import random_dataset
from torch import nn
from torch.nn import functional as F
from transformers import DistilBertConfig, DistilBertForMaskedLM
from transformers.utils import logging

from rec_utils import ctr
from rec_utils.errors import UserError
from rec_utils.field_task import field_task
from rec_utils.papers.clickprompt import ClickPrompt, build, finetune, masked_lm, pretrain
from rec_utils.papers.clickprompt_text import SPECIAL
from rec_utils.training import TrainConfig, predict

KINDS = ["bert", "roberta"]
TITLES = {100 + item: "Film" + item % 4 * " again" for item in range(20)}
K, DIM, HEADS, LAYERS = 3, 16, 4, 2
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def task():
    return field_task(random_dataset(n_users=8, titles=TITLES), "CoReLLa")


@pytest.fixture(scope="module")
def models(task, tmp_path_factory):
    return {kind: tiny(kind, task, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def made(models, kind="bert", fusion="layers", backbone="DCNv2", **kw):
    """A model in evaluation mode whose prompts are large enough to matter, and a batch of unequal texts."""
    plm, samples = models[kind]
    model = build(backbone, samples, plm, fusion=fusion, n_prompts=K, embed_dim=8, **kw).eval()
    if fusion in ("layers", "input"):
        torch.manual_seed(1)
        for parameter in model.reader.prompts.parameters():
            nn.init.normal_(parameter, std=1.0)
    batch = samples.batch(torch.arange(9, 15))
    assert not batch.mask.all()
    return model, samples, batch


def plain_encoder(encoder, words, seen, prefix):
    """A BERT or RoBERTa encoder by its formulas: states [Z, d] and attention [L, heads, Z, K + Z] of a text.

    `words` are embedded words [Z, d]; `prefix` gives keys and values [K, heads, d / heads] of every layer.
    """
    state, weights = encoder.embeddings.LayerNorm(words), []
    for layer, (keys, values) in zip(encoder.encoder.layer, prefix, strict=True):
        own = layer.attention.self
        query, key, value = (m(state).view(-1, HEADS, DIM // HEADS) for m in (own.query, own.key, own.value))
        key, value = torch.cat([keys, key]), torch.cat([values, value])
        scores = torch.einsum("zhd,khd->hzk", query, key) / math.sqrt(DIM // HEADS)
        weights.append(scores.masked_fill(~seen, -math.inf).softmax(-1))
        context = torch.einsum("hzk,khd->zhd", weights[-1], value).flatten(1)
        state = layer.attention.output(context, state)
        state = layer.output(layer.intermediate(state), state)
    return state, torch.stack(weights)


def embedded(encoder, tokens, first):
    """Words with positions from `first` on and type 0, before normalisation."""
    table = encoder.embeddings
    places = first + torch.arange(len(tokens))
    vectors = tokens if tokens.is_floating_point() else table.word_embeddings(tokens)
    return vectors + table.position_embeddings(places) + table.token_type_embeddings.weight[0]


@every_kind
@pytest.mark.parametrize("fusion", ["layers", "input", "add", "text"])
@torch.no_grad()
def test_fusion_equals_the_formulas(kind, fusion, models):
    model, _, batch = made(models, kind, fusion)
    reader = model.reader
    out, logits = reader(batch, batch.tokens)
    assert out.last_hidden_state.shape == (6, batch.tokens.shape[1], DIM)
    if fusion == "text":
        assert logits is None
    else:
        q, expected_logits = reader.ctr.hidden(batch.ctr)
        assert torch.equal(logits, expected_logits)
    begin = 0 if kind == "bert" else 2  # RoBERTa's positions begin after that of padding, 1
    for b in range(6):
        words, seen = batch.tokens[b], batch.mask[b]
        prefix = torch.zeros(LAYERS, 2, 0, HEADS, DIM // HEADS)
        if fusion == "layers":
            # numbers of the last linear layer: prompt by prompt, then key and value of each layer
            prefix = reader.prompts.network(q[b]).view(K, LAYERS, 2, HEADS, -1).permute(1, 2, 0, 3, 4)
        if fusion == "input":
            words = torch.cat(
                [reader.prompts.network(q[b]).view(K, DIM), reader.encoder.embeddings.word_embeddings(words)]
            )
        seen = torch.cat([torch.ones(K if fusion in ("layers", "input") else 0, dtype=torch.bool), seen])
        state, _ = plain_encoder(reader.encoder, embedded(reader.encoder, words, begin), seen, prefix)
        state = state[K:] if fusion == "input" else state
        real = batch.mask[b]
        torch.testing.assert_close(out.last_hidden_state[b][real], state[real], atol=1e-4, rtol=1e-4)


@every_kind
@torch.no_grad()
def test_without_prompts_the_language_model_is_the_plain_one(kind, models):
    model, _, batch = made(models, kind, "add")
    plain = models[kind][0].eval().base_model(input_ids=batch.tokens, attention_mask=batch.mask.long())
    out, _ = model.reader(batch, batch.tokens)
    torch.testing.assert_close(out.last_hidden_state[batch.mask], plain.last_hidden_state[batch.mask])


@every_kind
@pytest.mark.parametrize("fusion", ["layers", "input"])
def test_words_see_both_sides_and_the_gradient_reaches_every_prompt(kind, fusion, models):
    model, _, batch = made(models, kind, fusion)
    reader = model.reader
    changed = batch.tokens.clone()
    last = int(batch.mask[0].sum()) - 2
    changed[0, last] = changed[0, last - 1]
    with torch.no_grad():
        states, others = (reader(batch, tokens)[0].last_hidden_state[0] for tokens in (batch.tokens, changed))
    assert (states[:last] - others[:last]).abs().amax(1).min() > 1e-4  # those before see it, too
    out, _ = reader(batch, batch.tokens)
    weights = torch.randn(out.last_hidden_state.shape, generator=torch.Generator().manual_seed(2))
    (weights * out.last_hidden_state)[batch.mask].sum().backward()
    final = reader.prompts.network[-1] if fusion == "layers" else reader.prompts.network
    of_prompts = final.bias.grad.view(K, -1, DIM)  # [K, 2 L, d] or [K, 1, d]
    assert (of_prompts.abs().amax(2) > 1e-4).all()
    assert reader.ctr.embedding.weight.grad.any(1)[batch.ctr.item.unique()].all()


@torch.no_grad()
def test_a_text_reads_the_same_alone_as_among_longer_ones(models):
    model, samples, batch = made(models)
    click = ClickPrompt(model.reader).eval()
    alone = [click(samples.batch(torch.tensor([n]))) for n in range(9, 15)]
    torch.testing.assert_close(torch.cat(alone), click(batch), atol=1e-5, rtol=1e-5)


# Pretraining


def test_masked_words_are_those_of_bert(models):
    model, samples, batch = made(models)
    torch.manual_seed(0)
    drawn = [model.corrupt(batch) for _ in range(3000)]
    tokens, chosen = (torch.stack(each) for each in zip(*drawn, strict=True))
    words = (batch.field != SPECIAL).expand_as(tokens)
    assert not (chosen & ~words).any()
    assert torch.equal(tokens[~chosen], batch.tokens.expand_as(tokens)[~chosen])
    assert chosen[words].float().mean().item() == pytest.approx(0.15, abs=0.003)
    assert chosen.float().mean(0)[batch.field != SPECIAL].min() > 0.12  # words of the template, too
    new, old = tokens[chosen], batch.tokens.expand_as(tokens)[chosen]
    same = 0.1 + 0.1 / samples.n_tokens  # kept, or by chance the same
    for share, part in ((0.8, new == samples.mask_id), (same, new == old)):
        assert part.float().mean().item() == pytest.approx(share, abs=0.012)
    random = new[(new != samples.mask_id) & (new != old)]
    assert len(random.unique()) == samples.n_tokens - 1  # any token but the mask
    assert random.bincount().max() < 0.05 * len(random)


@every_kind
@torch.no_grad()
def test_the_loss_is_that_of_the_library_over_the_chosen_words(kind, models):
    model, _, batch = made(models, kind, "text")
    torch.manual_seed(3)
    loss = model(batch)
    torch.manual_seed(3)
    tokens, chosen = model.corrupt(batch)
    labels = batch.tokens.masked_fill(~chosen, -100)
    plm = models[kind][0].eval()
    expected = plm(input_ids=tokens, attention_mask=batch.mask.long(), labels=labels).loss
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("backbone", [name for name in ctr.MODELS if name not in ("LR", "FM", "DIN", "DIEN")])
def test_pretraining_moves_all_parts_and_leaves_the_last_layer_of_the_ctr_model(backbone, models):
    model, samples, _ = made(models, backbone=backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = TrainConfig(max_epochs=1, batch_size=32, lr=0.01)
    pretrain(model, samples, config, 0.01, progress=False)
    moved = {name: not torch.equal(value, before[name]) for name, value in model.state_dict().items()}
    head = next(name for name, module in model.reader.ctr.named_modules() if module is model.reader.ctr.head)
    for part in ("reader.encoder.", "reader.prompts.", "reader.ctr.embedding", "lm_head."):
        assert all(moved[name] for name in moved if name.startswith(part) and "position_ids" not in name), (
            part
        )
    assert not any(moved[name] for name in moved if name.startswith(f"reader.ctr.{head}."))


def test_prompts_tell_masked_words_what_only_the_ids_know(models):
    """All that tells the item is hidden: its id can be guessed from the prompts alone."""
    losses = {}
    for fusion in ("layers", "input", "text"):
        plm, samples = models["bert"]
        model = build("DNN", samples, plm, fusion=fusion, n_prompts=K, embed_dim=8)
        item = samples.field_names.index("Movie ID")
        model.corrupt = lambda batch, item=item, model=model: (
            batch.tokens.masked_fill(batch.field >= item, model.mask_id),
            batch.field == item,
        )
        config = TrainConfig(max_epochs=40, batch_size=32, lr=0.02)
        losses[fusion] = pretrain(model, samples, config, 0.01, progress=False).epochs[-1]["train_loss"]
    assert losses["text"] > 0.5
    assert losses["layers"] < 0.5 * losses["text"] and losses["input"] < 0.5 * losses["text"]


def test_the_learning_rate_of_the_language_model_is_its_own(models):
    model, samples, _ = made(models)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pretrain(model, samples, TrainConfig(max_epochs=1, batch_size=32), 0.0, progress=False)
    for name, value in model.state_dict().items():
        if name.startswith(("reader.encoder.", "lm_head.")):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(model.reader.ctr.embedding.weight, before["reader.ctr.embedding.weight"])


# Finetuning


@torch.no_grad()
def test_the_logit_mixes_both_models(models):
    model, _, batch = made(models)
    for pooling in ("first", "mean"):
        click = ClickPrompt(model.reader, pooling=pooling).eval()
        assert click.alpha == 0.5
        states, of_ctr = model.reader(batch, batch.tokens)
        states = states.last_hidden_state
        rows = [
            s[0] if pooling == "first" else s[real].mean(0)
            for s, real in zip(states, batch.mask, strict=True)
        ]
        of_plm = click.head(torch.stack(rows)).squeeze(1)
        torch.testing.assert_close(click(batch), 0.5 * of_ctr + 0.5 * of_plm)
        click.alpha.fill_(0.25)
        torch.testing.assert_close(click(batch), 0.25 * of_ctr + 0.75 * of_plm)
        click.alpha.fill_(1.0)
        torch.testing.assert_close(click(batch), model.reader.ctr(batch.ctr))
    text, _, batch = made(models, fusion="text")
    alone = ClickPrompt(text.reader, pooling="first").eval()
    states = text.reader(batch, batch.tokens)[0].last_hidden_state
    torch.testing.assert_close(alone(batch), alone.head(states[:, 0]).squeeze(1))
    assert not hasattr(alone, "alpha")


def test_finetuning_learns_clicks_from_the_text(models):
    model, samples, _ = made(models, fusion="text")
    liked = samples.ctr.item_row % 2 == 0
    samples = replace(samples, ctr=replace(samples.ctr, label=liked.float()))
    click = ClickPrompt(model.reader)
    result = finetune(
        click, samples, samples, TrainConfig(max_epochs=12, batch_size=16, lr=0.01), 0.01, False
    )
    assert result.epochs[result.best_epoch - 1]["valid_auc"] == max(e["valid_auc"] for e in result.epochs)
    assert np.mean((predict(click, samples) > 0.5) == liked.numpy()) > 0.9


def test_alone_the_pretrained_ctr_model_is_the_plain_one_with_other_weights(models):
    model, samples, batch = made(models, seed=4)
    plain = ctr.build("DCNv2", samples.ctr, embed_dim=8, seed=4)
    alone = model.reader.ctr
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), alone.parameters(), strict=True))
    pretrain(model, samples, TrainConfig(max_epochs=1, batch_size=32), 1e-3, progress=False)
    assert type(alone) is type(plain)
    shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in (alone, plain)]
    assert shapes[0] == shapes[1]
    plain.load_state_dict(alone.state_dict())
    assert torch.equal(plain(batch.ctr), alone(batch.ctr))


# Building


def test_the_seed_decides_new_weights_and_the_language_model_given_is_not_touched(models):
    plm, samples = models["bert"]
    before = {name: value.clone() for name, value in plm.state_dict().items()}
    first, again, other = (build("DNN", samples, plm, seed=seed, embed_dim=8) for seed in (1, 1, 2))
    states = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(first.reader.prompts.network[0].weight, other.reader.prompts.network[0].weight)
    a, b = (
        pretrain(m, samples, TrainConfig(max_epochs=1, batch_size=32), 1e-3, False) for m in (first, again)
    )
    assert a.epochs[0]["train_loss"] == b.epochs[0]["train_loss"]
    states = [model.state_dict() for model in (first, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(torch.equal(value, before[name]) for name, value in plm.state_dict().items())
    heads = [ClickPrompt(first.reader, seed=seed).head[0].weight for seed in (5, 5, 6)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_mistakes_are_named(models, tmp_path):
    plm, samples = models["bert"]
    with pytest.raises(UserError, match="LR has no hidden layer that prompts could be made of"):
        build("LR", samples, plm)
    build("LR", samples, plm, fusion="add")
    with pytest.raises(UserError, match=r"fusion 'layer' is not one of .*did you mean 'layers'"):
        build("DNN", samples, plm, fusion="layer")
    with pytest.raises(UserError, match="n_prompts must be at least 1, not 0"):
        build("DNN", samples, plm, n_prompts=0)
    shape = DistilBertConfig(vocab_size=samples.n_tokens, dim=16, n_layers=1, n_heads=2, hidden_dim=16)
    with pytest.raises(UserError, match="DistilBertForMaskedLM is no masked LM of the BERT family"):
        build("DNN", samples, DistilBertForMaskedLM(shape))
    with pytest.raises(UserError, match="pooling 'max' is not one of first, mean"):
        ClickPrompt(build("DNN", samples, plm).reader, pooling="max")
    with pytest.raises(UserError, match=r"masked LM '.*nowhere' could not be loaded"):
        masked_lm(str(tmp_path / "nowhere"))


def test_minilm_comes_with_its_own_weights_and_a_new_head(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    plm, tokenizer = masked_lm(layers=1, seed=1)
    again, other = masked_lm(layers=1, seed=1)[0], masked_lm(layers=2, seed=2)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr().err == "" and logging.is_progress_bar_enabled()
    assert (len(plm.bert.encoder.layer), len(other.bert.encoder.layer)) == (1, 2)
    assert torch.equal(
        plm.bert.embeddings.word_embeddings.weight, other.bert.embeddings.word_embeddings.weight
    )
    heads = [m.cls.predictions.transform.dense.weight for m in (plm, again, other)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert plm.cls.predictions.decoder.weight is plm.bert.embeddings.word_embeddings.weight
    assert (
        F.cosine_similarity(
            *plm.bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids(["movie", "film"])],
            dim=0,
        )
        > 0.3
    )
