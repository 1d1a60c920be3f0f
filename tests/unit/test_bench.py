"""The benchmark's own parts: what it judges, that its contenders do the same, that a stopped run goes on."""

import numpy as np
import pytest
import torch

from rec_utils.training import predict
from tests.bench import contender, goals, ours, synthetic, training


def times(*processor, clock=None):
    return {"processor": list(processor), "clock": list(clock or processor)}


def test_a_goal_is_judged_by_the_median_of_ratios_within_rounds():
    raced = {
        "loop": {"train": times(1.0, 2.0, 4.0, clock=[1.0, 1.0, 1.0]), "predict": times(1.0, 1.0, 1.0)},
        "fuxictr": {"train": times(1.4, 3.2, 8.0, clock=[3.0, 2.0, 1.0]), "predict": times(1.4, 1.5, 1.3)},
    }
    train, predicted = goals.judge(raced)
    assert (train["above"], train["below"], train["of"], train["at_least"]) == (
        "fuxictr",
        "loop",
        "train",
        1.5,
    )
    assert [train[k] for k in ("ratio", "least", "greatest")] == pytest.approx([1.6, 1.4, 2.0])
    assert train["by the clock"] == 2.0
    assert train["met"] and not predicted["met"]


def test_a_bound_from_above_and_a_ratio_without_bound():
    raced = {
        "loop": {"train": times(1.2), "predict": times(1.1)},
        "bare": {"train": times(1.0), "predict": times(1.0)},
        "plain": {"train": times(1.5), "predict": times(1.6)},
    }
    met = {(g["above"], g["of"]): g["met"] for g in goals.judge(raced)}
    assert met == {
        ("loop", "train"): False,
        ("loop", "predict"): True,
        ("plain", "train"): None,
        ("plain", "predict"): None,
    }


def test_every_contender_of_a_race_is_judged_and_skipped_peers_do_not_run():
    for model, skipped in (("DIN", ["recbole"]), ("DeepFM", [])):
        names = goals.contenders(model, skipped)
        raced = {name: {"train": times(1.0), "predict": times(1.0)} for name in names}
        judged = {name for goal in goals.judge(raced) for name in (goal["above"], goal["below"])}
        assert judged == set(names)
        assert not set(skipped) & set(names)
    assert set(goals.PEERS) == set(training.PEERS)


def test_logloss_is_that_of_the_definition():
    label, probability = np.array([1.0, 0.0]), np.array([0.8, 0.4])
    assert contender.logloss(label, probability) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)


def test_plain_attention_gives_what_the_factorised_one_gives_and_learns_the_same():
    samples = ours.samples_of(synthetic.ratings(512))
    factorised, plain = (ours.model_of(kind, "DIN", samples) for kind in ("bare", "plain"))
    assert type(plain.attention) is ours.PlainAttention and type(factorised.attention) is not type(
        plain.attention
    )
    batch = samples.batch(torch.arange(512))
    out = {model: model(batch) for model in (factorised, plain)}
    torch.testing.assert_close(out[plain], out[factorised], rtol=1e-4, atol=1e-5)
    for model, logits in out.items():
        logits.square().sum().backward()
        assert model.attention.first.weight.grad.abs().max() > 1e-3
    for (name, a), b in zip(factorised.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3, msg=name)
    np.testing.assert_allclose(predict(plain, samples), predict(factorised, samples), rtol=1e-4)


def test_columns_of_the_peers_hold_the_batch_of_ours():
    data = synthetic.ratings(64)
    batch, columns = ours.samples_of(data).batch(torch.arange(64)), data.columns()
    offset = {"item": 0, "genre": synthetic.N_ITEMS, "rating": synthetic.N_ITEMS + synthetic.N_GENRES}
    for place, name in enumerate(("item", "genre", "rating")):
        real = columns[f"hist_{name}"] > 0
        np.testing.assert_array_equal(
            batch.history[..., place], (columns[f"hist_{name}"] + offset[name]) * real
        )
        np.testing.assert_array_equal(batch.mask, real)
    np.testing.assert_array_equal(batch.item[:, 1], columns["genre"] + offset["genre"])


def test_an_interrupted_recording_goes_on_unless_its_settings_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path / "figures"))
    first = training.Recording("training", 100, 3)
    assert first.find("DIN", 256) is None
    first.add({"model": "DIN", "batch": 256})
    assert not first.path.exists()
    again = training.Recording("training", 100, 3)
    assert again.find("DIN", 256)["git"] and again.find("DIN", 2048) is None
    assert training.Recording("training", 200, 3).find("DIN", 256) is None
    assert "DIN" in again.finish().read_text()
    assert training.Recording("training", 100, 3).find("DIN", 256) is None
