"""Numbers of a run are pooled with those of recorded seeds, each seed once."""

import pytest

from rec_utils import records
from rec_utils.cards import load_card
from rec_utils.stats import Interval, mean_interval, over_seeds
from rec_utils.verdicts import conclude

DEFAULTS = {"PROFILE": "laptop", "SEED": 0, "SWEEP": False, "SIZE": 1}
CARD = load_card("kar")
FIRST, SECOND = [claim.id for claim in CARD.claims if not claim.not_testable][:2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path))
    monkeypatch.setattr(records, "COMMITTED", tmp_path / "committed")


def interval(value):
    return Interval(value, value - 0.1, value + 0.1, 0.95, 10)


def started(**changed):
    return records.start("01_kar", "laptop", DEFAULTS | changed, DEFAULTS, CARD)


def recorded(value, **changed):
    run = started(**changed)
    numbers = {FIRST: interval(value), f"{SECOND}/a": interval(1.0), f"{SECOND}/b": interval(value)}
    conclude(run, CARD, numbers | {"other": value}, "no run")
    run.finish()


def of(verdicts, claim):
    return next(v for v in verdicts if v.claim == claim)


def test_seeds_are_pooled_once_each_and_other_parameters_are_not():
    for seed, value in {1: 2.0, 2: 3.0}.items():
        recorded(value, SEED=seed)
        recorded(value, SEED=seed, SWEEP=True)
    recorded(99.0, SEED=0, SWEEP=True)  # the run itself, recorded before
    recorded(99.0, SEED=3, SIZE=2)
    verdicts, n = conclude(started(), CARD, {FIRST: interval(1.0)}, "no run", "SWEEP")
    expected = over_seeds([interval(v) for v in (1.0, 2.0, 3.0)])
    assert n == 3
    assert (of(verdicts, FIRST).value, of(verdicts, FIRST).low) == (expected.value, expected.low)
    assert of(verdicts, SECOND).reason == "no run"


def test_the_weakest_part_decides():
    numbers = {f"{SECOND}/good": interval(5.0), f"{SECOND}/bad": interval(-5.0)}
    verdicts, n = conclude(started(), CARD, numbers, "no run")
    assert (n, of(verdicts, SECOND).decided_by) == (1, "bad")


def test_a_plain_number_needs_two_seeds():
    verdicts, _ = conclude(started(), CARD, {FIRST: 1.0}, "one seed")
    assert of(verdicts, FIRST).reason == "one seed"
    run = started(SEED=1)
    conclude(run, CARD, {FIRST: 3.0}, "one seed")
    run.finish()
    verdicts, _ = conclude(started(), CARD, {FIRST: 1.0}, "one seed")
    assert of(verdicts, FIRST).low == pytest.approx(mean_interval([1.0, 3.0]).low)


def test_numbers_are_recorded_and_pooled_evidence_is_used():
    run = started()
    verdicts, _ = conclude(run, CARD, {"other": 2.0}, "no run", pooled={FIRST: interval(4.0)})
    record = records.read(run.finish())
    assert record.metrics["other"] == 2.0
    assert [v.claim for v in record.verdicts] == [v.claim for v in verdicts]
    assert of(verdicts, FIRST).value == 4.0


def test_a_claim_about_all_parts_needs_all_of_them():
    numbers = {f"{SECOND}/a": interval(5.0), f"{SECOND}/b": interval(5.0)}
    assert of(conclude(started(), CARD, numbers, "too few", parts={SECOND: 2})[0], SECOND).value == 5.0
    verdicts, _ = conclude(started(), CARD, numbers, "too few", parts={SECOND: 3, FIRST: 1})
    assert of(verdicts, SECOND).reason == of(verdicts, FIRST).reason == "too few"
