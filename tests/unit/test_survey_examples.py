"""The arms of the survey's examples, and how they are compared: on few rows, with answers made up."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from rec_utils.baselines import SMOOTHING
from rec_utils.papers import survey_examples as examples
from rec_utils.papers import survey_task, taxonomy
from rec_utils.training import TrainConfig

SMALL = {
    "CTR_TRAINING": TrainConfig(batch_size=256, max_epochs=1),
    "LM_TRAINING": TrainConfig(batch_size=16, max_epochs=1),
    "JOINT_TRAINING": TrainConfig(batch_size=16, max_epochs=1),
    "LM_ROWS": 32,
    "JOINT_ROWS": 32,
    "LM_VALID": 16,
}


@pytest.fixture(scope="module")
def survey():
    """A test set of fewer users, and fewer samples to train on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey_task, "N_USERS", 10)
        patch.setattr(survey_task, "MAX_SAMPLES", 12)
        return survey_task.load_task()


@pytest.fixture
def small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(examples, name, value)


@pytest.fixture(scope="module")
def compared(survey):
    """Random scores; the arms of the language model know more than the others."""
    rng = np.random.default_rng(0)

    def scored(knows: float) -> np.ndarray:
        return rng.random(survey.label.shape) + knows * survey.label

    fitted = {name: scored(0.1) for name in examples.TRAINED}
    answers = SimpleNamespace(
        zero_shot=scored(1), before_reply=scored(0.5), after_reply=scored(0.7), tools=["language"] * 6
    )
    answers.tools += ["model"] * 3 + ["popularity"]
    return fitted, answers, examples.compare(survey, fitted, {"tuned LM": 3.0}, answers, seed=1, n_boot=50)


def test_every_stage_and_every_quadrant_has_an_example():
    arms = examples.EXAMPLES.values()
    assert {arm.stage for arm in arms} - {"baseline"} == set(taxonomy.STAGES.values())
    assert {arm.quadrant for arm in arms} == {"", "Q1", "Q2", "Q3", "Q4"}
    assert all((arm.stage == "baseline") == (arm.quadrant == "") == (arm.lm == "") for arm in arms)
    # as the survey defines them: quadrant 1 is tuned with a CRM, 3 is neither
    quadrants = [examples.Example("", *how).quadrant for how in ((True, True), (False, False))]
    assert quadrants == ["Q1", "Q3"]
    assert set(examples.TRAINED) < set(examples.EXAMPLES)


def test_the_baselines_count_ratings_of_others(survey):
    rated = survey.task.ratings[~survey.task.ratings["user_row"].isin(survey.users)]
    assert len(rated) < len(survey.task.ratings)
    rate, popular = examples.like_rate(survey, 0), examples.popularity(survey, 0)
    assert rate.shape == popular.shape == survey.lists.shape
    mean = (rated["rating"] >= 4).mean()
    for row, column in np.random.default_rng(0).integers(0, 10, (20, 2)):
        stars = rated.loc[rated["item_row"] == survey.candidates[row, column], "rating"]
        expected = ((stars >= 4).sum() + SMOOTHING * mean) / (len(stars) + SMOOTHING)
        assert rate[row, column] == pytest.approx(expected)
    # the more ratings, the more probable
    order = np.argsort(survey.popularity[survey.candidates], axis=None)
    assert (np.diff(popular.ravel()[order]) >= 0).all() and popular.min() < popular.max()


@pytest.mark.parametrize("arm", sorted(examples.TRAINED))
def test_an_arm_learns_from_no_label_of_the_test(arm, survey, small):
    def scores(flipped: np.ndarray) -> np.ndarray:
        label = torch.where(torch.from_numpy(flipped), 1 - survey.samples.label, survey.samples.label)
        return examples.TRAINED[arm](replace(survey, samples=replace(survey.samples, label=label)), 0)

    train, _, test = survey.masks(0)
    as_it_is = scores(np.zeros_like(test))
    assert as_it_is.shape == survey.lists.shape and ((as_it_is > 0) & (as_it_is < 1)).all()
    if arm != "LM and CTR model":  # slow, and `fit_variants` has such a test of its own
        assert np.array_equal(scores(test), as_it_is)
    if arm in ("CTR model", "popularity"):  # the others are trained in the same ways
        assert not np.array_equal(scores(train), as_it_is)


def test_few_rows_are_drawn_from_their_parts(survey):
    train, valid, test = survey.masks(3)
    few = examples._few(survey, 50, 3)
    assert [mask.sum() for mask in few] == [50, examples.LM_VALID, test.sum()]
    assert not (few[0] & ~train).any() and not (few[1] & ~valid).any() and (few[2] == test).all()
    assert (examples._few(survey, 50, 4)[0] != few[0]).any()


def test_the_controller_hands_each_user_to_the_chosen_tool(compared):
    fitted, answers, found = compared
    tools = {"language": answers.zero_shot, "model": fitted["CTR model"], "popularity": fitted["popularity"]}
    for row, tool in enumerate(answers.tools):
        assert np.array_equal(found.scores["controller"][row], tools[tool][row])
    # one call to choose, and another one for 6 of 10 users
    assert found.calls["controller"] == pytest.approx(1.6)
    assert found.calls["after a question"] == 2 and found.calls["LLM texts"] == 0


def test_the_table_has_the_metrics_and_their_change_over_the_ctr_model(compared, survey):
    _, answers, found = compared
    table = found.table()
    assert list(table.index) == list(examples.EXAMPLES)
    expected = {name: roc_auc_score(survey.label.ravel(), s.ravel()) for name, s in found.scores.items()}
    assert table["AUC"].to_dict() == pytest.approx(expected)
    assert table.loc["zero-shot", "AUC change"] == pytest.approx(
        expected["zero-shot"] - expected["CTR model"]
    )
    assert (table.loc["CTR model", ["AUC change", "AUC low", "NDCG@5 high"]] == 0).all()
    assert (table["AUC low"] <= table["AUC change"]).all() and (
        table["AUC change"] <= table["AUC high"]
    ).all()
    # NDCG@5 of the first list, by its definition
    order = np.argsort(-answers.zero_shot[0])
    gains, discounts = survey.label[0][order], 1 / np.log2(np.arange(2, 12))
    ideal = np.sort(survey.label[0])[::-1]
    ndcg = (gains[:5] @ discounts[:5]) / (ideal[:5] @ discounts[:5])
    one = examples.ndcg_at_k(survey.label[:1], answers.zero_shot[:1], examples.K)
    assert one[0] == pytest.approx(ndcg)
    assert table["CPU seconds"].dropna().to_dict() == {"tuned LM": 3.0}


def test_contrasts_name_the_best_arm_of_a_quadrant(compared):
    _, _, found = compared
    assert found.best("Q3") == "zero-shot" and found.best("Q4") == "tuned LM"
    assert found.best("Q2") == "controller"  # which asks the language model for most users
    table = found.contrasts().set_index(["of", "metric"])
    question = table.loc[("question", "AUC")]
    assert question["label"] == "after a question - before a question"
    assert question["value"] == found.auc.value["after a question"] - found.auc.value["before a question"]
    assert table.loc[("Q3", "NDCG@5"), "label"] == "zero-shot - like rate"
    assert table.loc[("Q3", "AUC"), "low"] > 0 and (table["low"] <= table["high"]).all()
    assert len(table) == 12
