"""The comparison: what each variant may know, that users are apart, and how test lists are scored."""

import pickle

import cloudpickle
import numpy as np
import pytest
import torch
from tiny_lists import random_log
from tiny_ratings import random_dataset

from rec_utils import metrics, rerank
from rec_utils.click_world import World, click_world
from rec_utils.history_lists import history_lists, split_users
from rec_utils.list_log import rating_lists
from rec_utils.papers import relife_study as study
from rec_utils.training import TrainConfig

LOG = random_log((8,) * 60, length=5, n_items=20)
CONFIG = TrainConfig(max_epochs=1, batch_size=64, seed=3)
SIZES = study.Sizes(width=8, embed_dim=4)


@pytest.fixture(scope="module")
def prepared():
    return study.prepare(LOG, ranker="item rate", config=CONFIG, n_past=3)


def test_users_are_apart_and_lists_are_in_the_order_of_the_ranker(prepared):
    users = split_users(60, CONFIG.seed)
    for name in ("train", "valid", "test"):
        part = getattr(prepared, name)
        assert users[name][part.user_row.numpy()].all()
        assert set(part.user_row.tolist()) == set(np.flatnonzero(users[name]))
        assert (part.target - part.first >= 3).all() and part.n_past == 3
    shown = study.prepare(LOG, ranker=None, config=CONFIG, n_past=3)
    assert (shown.test.place == torch.arange(5)).all()
    assert not torch.equal(prepared.test.place, shown.test.place)
    assert shown.test.with_rank and prepared.test.with_rank
    bare = study.prepare(LOG, ranker=None, config=CONFIG, with_rank=False)
    assert not any(getattr(bare, name).with_rank for name in ("train", "valid", "test"))


def test_rates_and_propensities_know_no_test_user(prepared):
    test_users = split_users(60, CONFIG.seed)["test"]
    other = random_log((8,) * 60, length=5, n_items=20)
    other.clicked[test_users[other.user_row]] = True
    other.clicked[test_users[other.user_row], 0] = False
    changed = study.prepare(other, ranker="item rate", config=CONFIG, n_past=3)
    np.testing.assert_array_equal(changed.propensity, prepared.propensity)
    by_item = {}
    for part in (prepared, changed):
        rates = dict(zip(part.test.item_row.flatten().tolist(), part.simple[study.RATE].ravel(), strict=True))
        for item, rate in rates.items():
            assert by_item.setdefault(item, rate) == rate
    kept = ~test_users[LOG.user_row]
    expected = metrics.position_propensity(LOG.clicked[kept], LOG.item_fields[LOG.item_row[kept], 1])
    np.testing.assert_allclose(prepared.propensity, expected)


def test_all_models_have_about_one_size_and_only_the_hybrid_one_reads_unclicked_items(prepared):
    variants = study.baselines(prepared.train, SIZES) | {"RELIFE": study.relife_variant(SIZES)}
    assert set(variants) == {*rerank.ALL, "MIR, hybrid", "RELIFE"}
    sizes = {
        name: study.n_parameters(variant.build(variant.see(prepared.train), 0))
        for name, variant in variants.items()
    }
    budget = sizes["RELIFE"]
    assert all(abs(size - budget) < 0.05 * budget for size in sizes.values())
    for name, variant in variants.items():
        batch = variant.see(prepared.train).batch(torch.arange(9))
        assert batch.past.clicked[batch.past.real].all() == (name not in ("MIR, hybrid", "RELIFE"))
    assert variants["SetRank"].objective.loss is rerank.item_loss
    assert variants["GSF"].objective.loss is rerank.GSF.loss


def test_each_ablation_lacks_what_its_name_says(prepared):
    def made(name):
        variant = study.ablations(SIZES)[name]
        lists = variant.see(prepared.train)
        return variant.build(lists, 0), lists

    full, lists = made("RELIFE")
    assert full.dim and full.spm and full.cpe and full.contrast == 0.1 and full.disentangle == 0
    assert lists is prepared.train
    for module in ("DIM", "SPM", "CPE"):
        model, _ = made(f"without {module}")
        assert getattr(model, module.lower()) is None
    assert made("without contrast")[0].contrast == 0
    assert made("with disentangling loss")[0].disentangle == 0.1
    assert not made("without initial rank")[1].with_rank
    assert made("positives only")[1].only_positive
    shuffled = made("shuffled feedback")[1]
    assert not torch.equal(shuffled.clicked, lists.clicked) and torch.equal(shuffled.label, lists.label)


def test_the_sweeps_change_the_history_and_the_weight(prepared):
    for (what, value), variant in study.history_sweep(SIZES, (1, 4), (2,)).items():
        lists = variant.see(prepared.train)
        assert (lists.n_past if what == "past lists" else lists.past_length) == value
        assert (lists.past_length if what == "past lists" else lists.n_past) == (
            5 if what == "past lists" else 3
        )
        variant.build(lists, 0)(lists.batch(torch.arange(4)))
    weights = {
        key: variant.build(prepared.train, 0).contrast
        for key, variant in study.contrast_sweep(SIZES, (0.0, 0.3)).items()
    }
    assert weights == {("contrast", 0.0): 0.0, ("contrast", 0.3): 0.3}


def test_variants_are_trained_alike_also_after_the_way_to_another_process(prepared):
    variants = {
        name: variant
        for name, variant in (study.baselines(prepared.train, SIZES) | study.ablations(SIZES)).items()
        if name in ("DLCM", "Seq2Slate", "MIR", "RELIFE", "positives only")
    }
    one = study.compare(prepared, variants, CONFIG, workers=1, progress=False)
    sent = cloudpickle.loads(cloudpickle.dumps(variants))
    two = study.compare(prepared, sent, CONFIG, workers=1, progress=False)
    pickle.dumps(two.models)  # and back
    assert list(one.scores) == [study.INITIAL, study.RATE, *variants]
    for name in one.scores:
        assert one.scores[name].shape == prepared.test.label.shape
        np.testing.assert_array_equal(one.scores[name], two.scores[name])
    assert one.fits["name"].tolist() == list(variants)
    assert {"parameters", "best_epoch", "valid_map5", "seconds"} <= set(one.fits)
    variant = variants["positives only"]
    again = study.predict(one.models["positives only"], variant.see(prepared.test))
    np.testing.assert_array_equal(again, one.scores["positives only"])


def test_test_lists_are_scored_by_all_metrics(prepared):
    scores = prepared.simple | {"random": np.random.default_rng(0).random(prepared.test.label.shape)}
    found = study.scores_by_list(prepared, scores)
    assert set(found) == {f"{m}@{k}" for m in ("MAP", "NDCG", "CLICK", "UTILITY") for k in (1, 3, 5)}
    label = prepared.test.label.numpy()
    for name, score in scores.items():
        np.testing.assert_array_equal(found["NDCG@3"][name], metrics.ndcg_at_k(label, score, 3))
        np.testing.assert_array_equal(found["CLICK@5"][name], label.sum(1))
    shown = study.prepare(LOG, ranker=None, config=CONFIG)
    unmoved = study.scores_by_list(shown, shown.simple)["UTILITY@5"][study.INITIAL]
    np.testing.assert_allclose(unmoved, shown.test.label.sum(1))


def test_the_truth_of_a_world_bounds_what_an_order_can_get():
    world = click_world(
        random_dataset(n_users=60, n_items=40, n_each=20),
        World(min_ratings=2, factors=2, lists_per_user=6, length=5),
    )
    prepared = study.prepare(world.log, ranker=None, config=CONFIG, n_past=2, min_past=2, world=world)
    truth = prepared.simple[study.ORACLE]
    np.testing.assert_array_equal(truth, world.attraction[prepared.test.target.numpy()])
    scores = prepared.simple | {"random": np.random.default_rng(0).random(truth.shape)}
    found = study.scores_by_list(prepared, scores, world)["EXPECTED@3"]
    for name, value in found.items():
        assert (value <= found[study.ORACLE] + 1e-12).all(), name
    assert found["random"].mean() < found[study.ORACLE].mean()


def test_a_list_can_be_read_with_those_before_it():
    log = rating_lists(random_dataset(n_users=12, n_items=60, n_each=50), like_from=4, length=5)
    lists = history_lists(log, n_past=3, min_past=1)
    titles = np.array([f"film {item}" for item in log.item_ids])
    score = np.random.default_rng(0).random(lists.label.shape)
    table = study.readable(lists, log, titles, {"ours": score}, n_past=2)
    first = int(np.flatnonzero(lists.user_row.numpy() == 3)[0])
    target = int(lists.target[first])
    shown = table[table["user_id"] == log.user_ids[3]]
    last = shown[shown["list"] == "to re-rank"]
    assert last["title"].tolist() == [f"film {log.item_ids[i]}" for i in lists.item_row[first]]
    assert (last["clicked"] == "yes").tolist() == lists.label[first].bool().tolist()
    assert last.sort_values("rank: ours")["title"].tolist() == [
        f"film {log.item_ids[lists.item_row[first, j]]}" for j in np.argsort(-score[first])
    ]
    before = shown[shown["list"] == "1 before"]
    assert before["title"].tolist() == [f"film {log.item_ids[i]}" for i in log.item_row[target - 1]]
    assert (before["clicked"] == "yes").tolist() == log.clicked[target - 1].tolist()
    assert before["rank: ours"].isna().all()
