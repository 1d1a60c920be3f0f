"""CoReLLa's alignment and stages against plain formulas and separate trainings."""

import numpy as np
import pytest
import torch
from tiny_ratings import random_dataset
from torch.nn.functional import binary_cross_entropy, layer_norm

from rec_utils import ctr
from rec_utils.field_task import field_task
from rec_utils.metrics import logloss
from rec_utils.papers import corella
from rec_utils.papers.corella import (
    PATHS,
    Alignment,
    CoReLLa,
    Pair,
    Trained,
    align,
    go_on,
    joint_objective,
    outcomes,
    train_variants,
    warm_up,
)
from rec_utils.papers.corella_lm import SmallLlama
from rec_utils.papers.corella_samples import draw_parts
from rec_utils.papers.routing import route
from rec_utils.training import TrainConfig, fit, predict

LANGUAGE = SmallLlama(layers=2, width=64)
ONCE = TrainConfig(batch_size=16, max_epochs=1)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def task_and_parts():
    task = field_task(random_dataset(20, 30, 15), "CoReLLa", history_length=4)
    sizes = {"n_joint": 60, "n_alone": 50, "n_valid": 25, "n_test": 20}
    return task, draw_parts(task, LANGUAGE.tokens, history_length=2, seed=0, **sizes)


@pytest.fixture(scope="module")
def parts():
    return task_and_parts()[1]


def build(parts, seed=0, **kw):
    crm = ctr.build("DCNv2", parts.train, embed_dim=4, seed=seed)
    return CoReLLa(crm, LANGUAGE.scorer(seed), seed=seed, width=8, **kw)


def copied(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module, weights):
    return {name for name, value in module.state_dict().items() if torch.equal(value, weights[name])}


# Alignment


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_the_distance_is_a_power_of_the_norm_summed_over_pairs(exponent):
    torch.manual_seed(0)
    alignment = Alignment(2, 6, 9, width=4, exponent=exponent)
    lm, crm = torch.randn(2, 5, 6), torch.randn(2, 5, 9)
    expected = torch.zeros(5)
    for j in range(2):
        for i in range(5):
            of_lm = alignment.of_lm[j][1](layer_norm(lm[j, i], (6,)))
            of_crm = alignment.of_crm[j][1](layer_norm(crm[j, i], (9,)))
            expected[i] += torch.linalg.vector_norm(of_lm - of_crm) ** exponent
    torch.testing.assert_close(alignment(list(lm), list(crm)), expected)


def test_the_middle_and_the_last_layers_are_aligned(parts):
    model = build(parts).eval()
    batch = parts.joint.batch(torch.arange(7))
    lm_logit, crm_logit, lm_states, crm_states = model.states(batch)
    values = crossed = model.crm._all_values(batch.ctr, torch.empty(7, 0))
    each = [crossed := layer(values, crossed) for layer in model.crm.cross]
    assert len(each) == 3 and len(crm_states) == len(lm_states) == 2
    for state, layer in zip(crm_states, (each[1], each[2]), strict=True):
        torch.testing.assert_close(state, layer)
    for state, expected in zip(lm_states, model.lm.score(batch, (1, 2))[1], strict=True):
        torch.testing.assert_close(state, expected)
    output = model(batch)
    torch.testing.assert_close(
        output, torch.stack([lm_logit, crm_logit, model.alignment(lm_states, crm_states)], dim=1)
    )
    torch.testing.assert_close(crm_logit, model.crm(batch.ctr))
    assert not any(layer._forward_hooks for layer in model.crm.cross)


def test_the_loss_and_what_chooses_the_epoch():
    rng = np.random.default_rng(0)
    output, label = torch.from_numpy(rng.normal(size=(9, 3))), torch.from_numpy(rng.integers(0, 2, 9) * 1.0)
    objective = joint_objective((2.0, 3.0, 0.1))
    p = output.sigmoid()
    lm, crm = (binary_cross_entropy(p[:, column], label) for column in (0, 1))
    torch.testing.assert_close(objective.loss(output, label), 2 * lm + 3 * crm + 0.1 * output[:, 2].mean())
    name, value = next(iter(objective.scores(label.numpy(), p.numpy()).items()))
    assert name == "logloss" and value == pytest.approx((2 * lm + 3 * crm).item())
    assert not objective.higher_is_better


def test_watching_finds_both_kinds_of_collapse(parts):
    model = build(parts)
    seen = model.watch(parts.valid)
    assert model.training and min(seen[name] for name in ("lm_norm", "crm_norm", "crm_spread")) > 0.5
    batch = parts.valid.batch(torch.arange(len(parts.valid)))
    with torch.no_grad():
        of_lm, of_crm = model.eval().alignment.project(*model.states(batch)[2:])
        spread = [(pair - pair.mean(0)).norm(dim=1).mean() for pair in of_lm]
        others = [
            (lm[i] - crm[i - 1]).norm() for lm, crm in zip(of_lm, of_crm, strict=True) for i in range(25)
        ]
        assert seen["lm_spread"] == pytest.approx(np.mean(spread), rel=1e-4)
        assert seen["distance_to_others"] == pytest.approx(np.mean(others), rel=1e-4)
        for projection in [*model.alignment.of_lm, *model.alignment.of_crm]:
            projection[1].weight.zero_()
    constant = model.watch(parts.valid)
    assert constant["lm_spread"] < 1e-5 > constant["crm_spread"] and constant["crm_norm"] > 0.1
    with torch.no_grad():
        for projection in [*model.alignment.of_lm, *model.alignment.of_crm]:
            projection[1].bias.zero_()
    assert set(model.watch(parts.valid).values()) == {0.0}


def test_the_distance_alone_is_learned_away_by_a_collapse(parts):
    model = build(parts, weights=(0.0, 0.0, 1.0))
    config = TrainConfig(batch_size=16, max_epochs=12, patience=12, lr=3e-3)
    first, *_, last = align(model, parts, config, progress=False).epochs
    for name in ("distance", "crm_spread"):
        assert last[name] < 0.7 * first[name], name


# Stages


def test_each_stage_trains_its_models_only(parts):
    model = build(parts)
    crm, lm, projections = (copied(module) for module in (model.crm, model.lm, model.alignment))
    warm_up(model, parts, ONCE, progress=False)
    assert same(model.lm, lm) == set(lm) and len(same(model.crm, crm)) < len(crm) / 2

    crm = copied(model.crm)
    align(model, parts, ONCE, progress=False)
    assert not (same(model.lm, lm) | same(model.crm, crm) | same(model.alignment, projections))

    crm, lm, projections = (copied(module) for module in (model.crm, model.lm, model.alignment))
    go_on(model, parts, ONCE, progress=False)
    assert same(model.crm, crm) == set(crm) and same(model.alignment, projections) == set(projections)
    assert not same(model.lm, lm)


def test_without_alignment_stage_2_is_two_trainings_side_by_side(parts):
    model, crm, lm = (build(parts, weights=(1.0, 1.0, 0.0)) for _ in range(3))
    align(model, parts, ONCE, progress=False)
    fit(crm.crm, parts.joint.ctr, parts.valid.ctr, ONCE, progress=False)
    fit(lm.lm, parts.joint, parts.valid, ONCE, progress=False)
    for trained, alone in ((model.crm, crm.crm), (model.lm, lm.lm)):
        for name, weight in alone.state_dict().items():
            torch.testing.assert_close(trained.state_dict()[name], weight, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def trained(parts):
    """Variants, and how often each stage ran."""
    counts = dict.fromkeys((1, 2, 3), 0)

    def counted(number, stage):
        def run(*arguments):
            counts[number] += 1
            return stage(*arguments)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corella, "STAGES", {n: counted(n, stage) for n, stage in corella.STAGES.items()})
        return train_variants(build(parts), parts, dict.fromkeys((1, 2, 3), ONCE), progress=False), counts


def test_variants_share_what_they_have_in_common_and_are_as_trained_alone(parts, trained):
    variants, counts = trained
    assert counts == {1: 1, 2: 2, 3: 3}
    stages = {1: warm_up, 2: align, 3: go_on}
    for name, path in PATHS.items():
        model = build(parts)
        fits = {stage: stages[stage](model, parts, ONCE, progress=False) for stage in path}
        variant = variants[name]
        assert list(variant.fits) == list(path)
        for stage, log in fits.items():
            assert variant.fits[stage].epochs[0]["train_loss"] == log.epochs[0]["train_loss"]
        for part, pair in ((parts.valid, variant.valid), (parts.test, variant.test)):
            np.testing.assert_array_equal(pair.crm, predict(model.crm, part.ctr))
            if name == "CRM":
                assert pair.lm is None
            else:
                np.testing.assert_array_equal(pair.lm, predict(model.lm, part))


def test_rows_of_the_tables(parts, trained):
    variants, _ = trained
    label = parts.valid.label.numpy()
    rows = outcomes(variants, label, (0.0, 0.3, 1.0))
    assert set(rows) == {*PATHS, "LM", "w/o mix"}
    for name, row in rows.items():
        assert logloss(parts.test.label.numpy(), row.probability) > 0
        if name in PATHS and name != "CRM":
            np.testing.assert_array_equal(row.probability, route(*variants[name].test, row.share))
    np.testing.assert_array_equal(rows["w/o mix"].probability, variants["w/o stage 3"].test.crm)
    np.testing.assert_array_equal(rows["LM"].probability, variants["w/o stage 2"].test.lm)


def test_the_share_is_chosen_on_validation_samples():
    """The LM is right on validation samples and wrong on test samples: it is chosen, and loses."""
    label = np.array([1.0, 0, 1, 0])
    good, bad = 0.5 + 0.3 * (label - 0.5), 0.5 - 0.3 * (label - 0.5)
    each = Trained(valid=Pair(bad, good), test=Pair(good, bad), fits={})
    rows = outcomes(dict.fromkeys(PATHS, each), label, (0.0, 1.0))
    assert rows["CoReLLa"].share == 1
    np.testing.assert_array_equal(rows["CoReLLa"].probability, bad)
