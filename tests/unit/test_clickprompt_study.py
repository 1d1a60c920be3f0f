"""The variants of ClickPrompt, rare users and items, and the attention to prompts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_clickprompt import DIM, HEADS, LAYERS, TITLES, K, embedded, made, plain_encoder
from tiny_plm import tiny
from tiny_ratings import random_dataset

from rec_utils import ctr
from rec_utils.errors import UserError
from rec_utils.field_task import field_task
from rec_utils.papers.clickprompt import BY_AUC
from rec_utils.papers.clickprompt_study import (
    VARIANTS,
    Recipe,
    Variant,
    fit_variants,
    is_rare,
    prompt_attention,
)
from rec_utils.training import TrainConfig, fit, predict

STAGE = TrainConfig(max_epochs=2, batch_size=16, lr=0.01)
RECIPE = Recipe("DCNv2", STAGE, STAGE, STAGE, plm_lr=0.001, n_prompts=2, backbone_settings={"embed_dim": 8})


@pytest.fixture(scope="module")
def task():
    return field_task(random_dataset(n_users=12, titles=TITLES), "CoReLLa")


@pytest.fixture(scope="module")
def models(task, tmp_path_factory):
    return {"bert": tiny("bert", task, tmp_path_factory.mktemp("bert"))}


def test_every_variant_predicts_the_test_rows_and_depends_on_the_seed_alone(task, models):
    plm, samples = models["bert"]
    run = lambda seed, names=VARIANTS: fit_variants(  # noqa: E731
        samples, plm, task.masks, {name: VARIANTS[name] for name in names}, RECIPE, seed, progress=False
    )
    probability, fits = run(3)
    assert list(probability) == list(fits["variant"]) == list(VARIANTS)
    n_test = task.masks[2].sum()
    assert all(p.shape == (n_test,) and ((p > 0) & (p < 1)).all() for p in probability.values())
    assert len({p.tobytes() for p in probability.values()}) == len(VARIANTS)
    # a variant does not depend on the others of the run
    some = ("without prompts", "ClickPrompt without LM", "language model")
    again, _ = run(3, some)
    assert all(np.array_equal(again[name], probability[name]) for name in some)
    assert not np.array_equal(run(4, some[:1])[0][some[0]], probability[some[0]])
    fits = fits.set_index("variant")
    assert fits["pretraining_seconds"].gt(0).tolist() == [v.pretrained for v in VARIANTS.values()]
    assert fits["masked_loss"].notna().tolist() == [v.pretrained for v in VARIANTS.values()]
    assert fits.loc["ClickPrompt", "masked_loss"] == fits.loc["ClickPrompt without LM", "masked_loss"]


def test_the_ctr_model_alone_is_trained_as_ever(task, models):
    plm, samples = models["bert"]
    name = "CTR model"
    probability, _ = fit_variants(samples, plm, task.masks, {name: VARIANTS[name]}, RECIPE, 5, progress=False)
    train, valid, test = (task.samples.select(torch.from_numpy(np.flatnonzero(m))) for m in task.masks)
    model = ctr.build("DCNv2", task.samples, embed_dim=8, seed=5)
    fit(model, train, valid, replace(STAGE, seed=5), False, BY_AUC)
    assert np.array_equal(probability[name], predict(model, test))


def test_pretraining_sees_no_label_and_no_test_row(task, models):
    """Other labels change no pretraining; other test rows change nothing at all."""
    plm, samples = models["bert"]
    run = lambda data: fit_variants(  # noqa: E731
        data, plm, task.masks, {"ClickPrompt": Variant()}, RECIPE, 0, progress=False
    )[1].iloc[0]
    base = run(samples)
    other = run(replace(samples, ctr=replace(samples.ctr, label=samples.label.roll(1))))
    assert other["masked_loss"] == base["masked_loss"] and other["valid_logloss"] != base["valid_logloss"]
    test = torch.from_numpy(task.masks[2])
    position = torch.where(test, samples.ctr.position.roll(1), samples.ctr.position)
    other = run(replace(samples, ctr=replace(samples.ctr, position=position)))
    scores = ["masked_loss", "valid_auc", "valid_logloss"]
    assert other[scores].equals(base[scores])


def test_every_pretrained_reader_is_shown_once(task, models):
    plm, samples = models["bert"]
    names = ("ClickPrompt without LM", "ClickPrompt", "without pretraining", "without prompts")
    words, seen = plm.bert.embeddings.word_embeddings.weight, []

    def look(reader):
        seen.append((reader.fusion, torch.equal(reader.encoder.embeddings.word_embeddings.weight, words)))

    variants = {name: VARIANTS[name] for name in names}
    fit_variants(samples, plm, task.masks, variants, RECIPE, 3, False, look)
    assert seen == [("layers", False), ("add", False)]


def test_a_variant_of_nothing_is_refused(task, models):
    plm, samples = models["bert"]
    nothing = {"empty": Variant("text", pretrained=False, with_plm=False)}
    with pytest.raises(UserError, match="variant 'empty' has neither a language model nor a CTR model"):
        fit_variants(samples, plm, task.masks, nothing, RECIPE, 0, progress=False)


@given(
    rows=st.lists(st.tuples(st.integers(0, 15), st.booleans()), min_size=1, max_size=80),
    share=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_rare_are_those_with_the_fewest_training_rows(rows, share):
    row, train = (np.array(column) for column in zip(*rows, strict=True))
    if not train.any():
        return
    counts = {r: sum(train & (row == r)) for r in set(row.tolist())}
    known = sorted(c for c in counts.values() if c)
    limit = known[int(np.ceil(share * len(known))) - 1]
    assert is_rare(row, train, share).tolist() == [counts[r] <= limit for r in row.tolist()]


@torch.no_grad()
def test_attention_to_prompts_equals_the_formulas(models):
    model, samples, _ = made(models)
    reader = model.reader.train()
    kernel = reader.encoder.config._attn_implementation
    some = samples.select(torch.arange(3, 8))
    table = prompt_attention(reader, some, batch_size=2)
    assert reader.training and reader.encoder.config._attn_implementation == kernel
    assert len(table) == 4 * K and list(table["field"].unique()) == list(samples.field_names)
    reader.eval()
    for number, name in enumerate(samples.field_names):
        seen_by = []
        for n in range(5):
            batch = some.batch(torch.tensor([n]))
            chosen = batch.field[0] == number
            tokens = batch.tokens[0].masked_fill(chosen, samples.mask_id)
            q, _ = reader.ctr.hidden(batch.ctr)
            prefix = (
                reader.prompts.network(q[0]).view(K, LAYERS, 2, HEADS, DIM // HEADS).permute(1, 2, 0, 3, 4)
            )
            seen = torch.ones(K + len(tokens), dtype=torch.bool)
            _, weights = plain_encoder(reader.encoder, embedded(reader.encoder, tokens, 0), seen, prefix)
            seen_by.append(weights[:, :, chosen, :K].mean((0, 1)))
        expected = torch.cat(seen_by).mean(0)
        shown = table[table["field"] == name].sort_values("prompt")["weight"].to_numpy()
        np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-6)


def test_only_prompts_in_layers_are_attended_to(models):
    model, samples, _ = made(models, fusion="input")
    with pytest.raises(UserError, match="that of fusion 'layers', not of 'input'"):
        prompt_attention(model.reader, samples)
