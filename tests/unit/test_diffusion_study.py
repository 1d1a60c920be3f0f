"""All methods behind one call: trained, chosen, judged, compared; and the study of guidance on digits."""

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal

from rec_utils import collaborative, ranking
from rec_utils.errors import UserError
from rec_utils.implicit import implicit_task
from rec_utils.papers.diffusion import diffuasr, digit_study
from rec_utils.papers.diffusion.difashion import Guidance
from rec_utils.papers.diffusion.diffrec import time_weighted
from rec_utils.papers.diffusion.digits import Judge, outfits
from rec_utils.papers.diffusion.dreamrec import mean_cosine
from rec_utils.papers.diffusion.methods import CHOOSING, TRAINING, fit, methods
from rec_utils.papers.diffusion.study import Arm, Recipes, compare, tune
from rec_utils.sequences import sequence_task
from rec_utils.stats import draw_mean
from tests.unit.tiny_ratings import random_dataset

CUTS = (2, 5)
ONCE = {"max_epochs": 1, "batch_size": 16}
SMALL = {
    "MultiVAE": {"widths": (8, 4)},
    "DiffRec": {"widths": (4, 8), "steps": 4},
    "T-DiffRec": {"widths": (4, 8), "steps": 4, "weights": (0.5, 1.0)},
    "L-DiffRec": {"latent": 8, "widths": (8,), "steps": 4},
    "SASRec": {"dim": 8, "length": 6},
    "GRU4Rec": {"dim": 8, "hidden": 8},
    "DreamRec": {"dim": 8, "length": 4},
    "DiffuRec": {"dim": 8, "blocks": 1, "heads": 2, "steps": 3, "length": 5},
}


@pytest.fixture(scope="module")
def data():
    return random_dataset(n_users=40, n_items=24, n_each=24)


@pytest.fixture(scope="module")
def rows(data):
    return implicit_task(data, min_user=6, min_item=2)


@pytest.fixture(scope="module")
def sequences(data):
    return sequence_task(data, min_user=6, min_item=2)


@pytest.fixture
def tasks(rows, sequences):
    return {name: task for task in (rows, sequences) for name in methods(task) if name in SMALL}


@pytest.mark.parametrize("name", SMALL)
def test_every_model_is_trained_and_judged_the_same_for_a_seed(name, tasks):
    task = tasks[name]
    state = torch.get_rng_state()
    first, again, other = (fit(task, name, seed=seed, training=ONCE, **SMALL[name]) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    table = first.evaluate(cuts=CUTS)
    assert table.equals(again.evaluate(cuts=CUTS))
    weights = [next(fitted.model.parameters()).detach() for fitted in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.log.best_epoch == 1
    assert not first.model.training
    assert table.columns.tolist() == ["user", "Recall@2", "Recall@5", "NDCG@2", "NDCG@5"]


def test_methods_without_training_are_those_of_the_library(rows, sequences):
    train = rows.matrix("train")
    for name, scorer in (
        ("popularity", collaborative.popularity(train)),
        ("ItemKNN", collaborative.item_knn(train, 7)),
        ("EASE", collaborative.ease(train, 5.0)),
    ):
        settings = {"popularity": {}, "ItemKNN": {"k": 7}, "EASE": {"l2": 5.0}}[name]
        expected = ranking.evaluate(scorer, rows, cuts=CUTS)
        assert fit(rows, name, **settings).evaluate(cuts=CUTS).equals(expected)
    late = time_weighted(rows, 0.2, 1.0)
    expected = ranking.evaluate(collaborative.ease(late, 5.0), rows, cuts=CUTS)
    assert fit(rows, "EASE", l2=5.0, weights=(0.2, 1.0)).evaluate(cuts=CUTS).equals(expected)
    assert not fit(rows, "EASE", l2=5.0).evaluate(cuts=CUTS).equals(expected)
    # on sequences the validation item is known when the test item is asked for
    weights = collaborative.ease_weights(sequences.implicit().matrix("train"), 5.0)
    scorer = collaborative.linear(sequences.seen("test"), weights)
    expected = ranking.rank_rows(scorer, sequences.targets("test"), sequences.seen("test"), cuts=CUTS)
    assert fit(sequences, "EASE", l2=5.0).evaluate(cuts=CUTS).equals(expected)


def test_a_method_is_of_one_kind_of_task(rows, sequences):
    with pytest.raises(UserError, match="method 'DreamRec'"):
        fit(rows, "DreamRec")
    with pytest.raises(UserError, match="method 'DiffRec'"):
        compare(sequences, {"x": Arm("DiffRec")})


def test_seen_items_are_candidates_only_if_asked_for(sequences):
    best = {}
    for masked in (True, False):
        fitted = fit(sequences, "popularity", masked=masked)
        best[masked] = fitted.evaluate(cuts=(1,))["Recall@1"].mean()
    # who has chosen the most popular item cannot choose it again
    assert best[True] >= best[False]
    counts = np.bincount(sequences.implicit().train[:, 1])
    last = sequences.items[sequences.start[1:] - 1] - 1
    assert best[False] == np.mean(counts[last] > np.sort(counts)[-2])


def test_the_epoch_is_chosen_with_quick_sampling_and_judged_with_the_full_one(rows):
    fitted = fit(rows, "DiffRec", training=ONCE, **SMALL["DiffRec"])
    chosen = fitted.evaluate("validation", **CHOOSING["DiffRec"])
    assert fitted.log.epochs[0]["valid_Recall@20"] == pytest.approx(chosen["Recall@20"].mean())
    x = fitted.model.diffusion.denoise(torch.zeros(1, rows.n_items))
    assert torch.equal(x, fitted.model.diffusion.denoise(torch.zeros(1, rows.n_items), steps=4))


def test_a_methods_own_training_yields_to_what_is_asked_for(sequences):
    assert TRAINING["SASRec"]["batch_size"] == 128
    fitted = fit(sequences, "SASRec", training={"max_epochs": 3}, every=2, **SMALL["SASRec"])
    assert ["valid_Recall@20" in epoch for epoch in fitted.log.epochs] == [False, True, True]


# Comparisons


@pytest.fixture(scope="module")
def comparison(rows):
    arms = {
        "DiffRec": Arm("DiffRec", SMALL["DiffRec"], ways={"one step": {"steps": 1}}),
        "EASE": Arm("EASE", {"l2": 10.0}),
    }
    return compare(rows, arms, seeds=(0, 1), training=ONCE, cuts=CUTS, workers=1)


def test_a_comparison_is_the_single_fits(rows, comparison):
    table = comparison.users
    for seed in (0, 1):
        fitted = fit(rows, "DiffRec", seed=seed, training=ONCE, **SMALL["DiffRec"])
        for label, sampling in (("DiffRec", {}), ("one step", {"steps": 1})):
            own = table[(table["label"] == label) & (table["seed"] == seed)]
            expected = fitted.evaluate(cuts=CUTS, **sampling)
            assert own["NDCG@5"].tolist() == expected["NDCG@5"].tolist()
        ease = table[(table["label"] == "EASE") & (table["seed"] == seed)]
        assert ease["NDCG@5"].tolist() == fit(rows, "EASE", l2=10.0).evaluate(cuts=CUTS)["NDCG@5"].tolist()
    assert comparison.fits[["label", "seed"]].to_numpy().tolist() == [
        ["DiffRec", 0],
        ["EASE", 0],
        ["DiffRec", 1],
    ]
    assert comparison.table().index.tolist() == ["DiffRec", "one step", "EASE"]
    mean = table[table["label"] == "EASE"]["Recall@2"].mean()
    assert comparison.table().loc["EASE", "Recall@2"] == pytest.approx(mean)


def test_intervals_are_over_users_and_seeds(comparison):
    found = comparison.interval("Recall@5", "EASE")
    assert found.value == pytest.approx(comparison.table().loc["EASE", "Recall@5"])
    assert found.low < found.value < found.high
    half = comparison.users["user"].unique()[::2]
    among = comparison.users[comparison.users["user"].isin(half) & (comparison.users["label"] == "EASE")]
    assert comparison.interval("Recall@5", "EASE", among=half).value == pytest.approx(
        among["Recall@5"].mean()
    )
    gain = comparison.gain("Recall@5", "EASE", "DiffRec")
    draws = [comparison.draws("Recall@5", seed).gain("EASE", "DiffRec").value for seed in (0, 1)]
    assert gain.value == pytest.approx(np.mean(draws))


def test_tuning_takes_the_best_on_validation(rows):
    best, table = tune(rows, "EASE")
    for l2, value in zip(table["l2"], table["Recall@20"], strict=True):
        expected = ranking.evaluate(collaborative.ease(rows.matrix("train"), l2), rows, "validation")
        assert value == pytest.approx(expected["Recall@20"].mean())
    assert best["l2"] == table.loc[table["Recall@20"].idxmax(), "l2"]
    with pytest.raises(UserError, match="grid of settings for DiffRec"):
        tune(rows, "DiffRec")


def test_a_repeated_comparison_takes_finished_fits_from_disk(rows, comparison, monkeypatch, tmp_path):
    monkeypatch.setenv("REC_RUNS", str(tmp_path))
    arms = {"DiffRec": Arm("DiffRec", SMALL["DiffRec"], ways={"one step": {"steps": 1}})}
    first, second = (
        compare(rows, arms, seeds=(0,), training=ONCE, cuts=CUTS, workers=1, resume=True) for _ in range(2)
    )
    assert_frame_equal(first.fits, second.fits)  # to the microsecond: it was not trained again
    assert_frame_equal(first.users, second.users)
    same = comparison.users.query("seed == 0 and label != 'EASE'").reset_index(drop=True)
    assert_frame_equal(first.users, same)


def test_the_items_of_a_sequence_model_have_a_spread(sequences):
    fits = compare(sequences, {"GRU4Rec": Arm("GRU4Rec", SMALL["GRU4Rec"], every=3)}, training=ONCE).fits
    fitted = fit(sequences, "GRU4Rec", training=ONCE, every=3, **SMALL["GRU4Rec"])
    assert fits["cosine"].tolist() == [pytest.approx(mean_cosine(fitted.model.items.weight[1:]))]


def test_validation_chooses_how_a_model_is_asked():
    rows = implicit_task(random_dataset(n_users=40, n_items=150, n_each=60), min_user=6, min_item=1)
    ways = [{"steps": 1}, {"steps": 4}]
    settings = SMALL["DiffRec"] | {"scale": 50.0}  # so much noise that the steps matter
    found = compare(rows, {"DiffRec": Arm("DiffRec", settings, asked=ways)}, training=ONCE)
    fitted = fit(rows, "DiffRec", training=ONCE, **settings)
    recall = [fitted.evaluate("validation", **way)["Recall@20"].mean() for way in ways]
    assert recall[0] != recall[1]
    best = ways[int(np.argmax(recall))]
    assert found.fits["asked"].tolist() == [f"steps {best['steps']}"]
    assert found.users["NDCG@20"].tolist() == fitted.evaluate(**best)["NDCG@20"].tolist()


def test_recipes_are_those_of_the_card():
    size = {
        "lr": {"DiffRec": 0.1, "DreamRec": 0.2},
        "epochs": {"rows": 7, "DreamRec": 9},
        "every": {"rows": 2, "DreamRec": 3},
        "patience": 4,
        "dreamrec_steps": 5,
        "diffurec": {},
    }
    recipes = Recipes(size, {("rows", "EASE"): {"l2": 3.0}}, guidance=1.5)
    simple = recipes.simple("rows")
    assert (simple["EASE"].settings, simple["ItemKNN"].settings) == ({"l2": 3.0}, {})
    arm = recipes.arm("DiffRec", "rows", scale=0.0, asked=({"steps": 1},))
    assert (arm.settings, arm.asked, arm.every) == ({"scale": 0.0}, ({"steps": 1},), 2)
    assert arm.training == {"lr": 0.1, "max_epochs": 7, "patience": 4}
    other = recipes.arm("DreamRec", ways={"x": {}})
    assert (other.every, len(other.settings["betas"]), other.settings["guidance"]) == (3, 5, 1.5)
    assert other.ways == {"x": {}}


def test_a_label_stands_once(rows):
    with pytest.raises(UserError, match="label 'EASE'"):
        compare(rows, {"EASE": Arm("EASE"), "DiffRec": Arm("DiffRec", ways={"EASE": {"steps": 1}})})


# Augmentation


def test_made_up_items_lengthen_what_a_model_reads(sequences):
    model, log = diffuasr.train(sequences, n_first=3, training={"max_epochs": 1}, dim=16, steps=20)
    assert len(log.epochs) == 1
    items = diffuasr.made_up(sequences, "diffusion", model=model)
    short = sequences.lengths() < np.median(sequences.lengths())
    plain, longer = (
        fit(sequences, "SASRec", training=ONCE, **SMALL["SASRec"], **extra)
        for extra in ({}, {"made_up": (items, short)})
    )
    one, other = (fitted.scorer("test")(np.arange(sequences.n_users)) for fitted in (plain, longer))
    assert not torch.allclose(one, other)
    # the targets are the same users' same items
    assert longer.evaluate(cuts=CUTS)["user"].tolist() == plain.evaluate(cuts=CUTS)["user"].tolist()


# Digits


def test_the_terms_are_judged_picture_by_picture():
    model, log = digit_study.train(50, epochs=1, width=16, blocks=1)
    assert np.isfinite(log.epochs[0]["train_loss"])
    test, judge = outfits(30, "test"), Judge(outfits(200, "train", seed=1))
    guidances = digit_study.terms(Guidance(1, 2, 3))
    assert [guidances["all three"], guidances["mutual"]] == [Guidance(1, 2, 3), Guidance(0, 2, 0)]
    for task, new in (("one", 1), ("all", 4)):
        images = digit_study.pictures(model, test, {"x": guidances["history"]}, task=task, steps=3)
        changed = (images["x"] != images["real"]).any(2)
        assert changed[:, :new].all()
        assert not changed[:, new:].any()
        table = digit_study.judged(judge, test, images, task=task)
        real = table[table["guidance"] == "real"]
        assert len(table) == 60
        assert real["ground"].mean() == real["matching"].mean() == 1
        right = judge.right(images["x"], test.batch(torch.arange(30)))["user"][:, :new].mean(1)
        assert table[table["guidance"] == "x"]["user"].tolist() == right.tolist()
    draw_mean({"x": real["digit"]}, real["outfit"])  # ready for intervals over outfits
    with pytest.raises(UserError, match="task 'two'"):
        digit_study.blanks(3, "two")
