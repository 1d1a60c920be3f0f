"""All claims in one table and one figure."""

import dataclasses

import numpy as np
import pytest

from rec_utils import plots, records, report, scoreboard
from rec_utils.claims import STATUSES, check, load_card
from rec_utils.stats import Interval


def interval(value, half=1.0):
    return Interval(value, value - half, value + half, 0.95, 100)


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A record of the RELIFE notebook with one verdict of each kind."""
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path))
    card = load_card("relife")
    values = {"over-mir": 3.0, "over-all": -0.5, "hybrid": -4.0, "modules": 0.0}
    evidence = {claim.id: interval(values.get(claim.id, 2.0)) for claim in card.claims}
    parameters = {"PROFILE": "laptop", "SEED": 0, "SWEEP": False}
    run = records.start("07_relife", "laptop", parameters, parameters, card)
    run.metric("gain", interval(3.0))
    run.metric("cost", 1.5)
    run.verdicts(check(card, evidence))
    return records.read(run.finish())


def test_a_claim_stands_in_half_widths_from_its_null(record):
    table = scoreboard.claims([record]).set_index("claim")
    assert table.loc["over-mir", "standing"] == pytest.approx(3.0)
    assert table.loc["hybrid", "standing"] == pytest.approx(-4.0)
    assert table.loc["modules", "standing"] == pytest.approx(0.0)
    # a control that must stay below its null of 0.5
    assert table.loc["control-world-none", "standing"] == pytest.approx(-1.5)
    assert table.loc["over-mir", ["status", "ours"]].tolist() == ["matched", False]
    assert table["command"].unique().tolist() == ["python -m rec_utils.batch run 07_relife"]


def test_other_runs_and_profiles(record):
    other = dataclasses.replace(record, run_id="laptop-SEED=1")
    paper = dataclasses.replace(record, run_id="paper", profile="paper")
    table = scoreboard.claims([record, other, paper])
    assert table["profile"].value_counts().tolist() == [len(record.verdicts)] * 2
    assert table["command"].iloc[-1].endswith("07_relife --profile paper")


def test_the_summary_counts_statuses(record):
    table = scoreboard.claims([record])
    row = scoreboard.summary(table).iloc[0]
    assert row["paper"] == "RELIFE"
    assert (row["claims"], row["matched"], row["not matched"]) == (4, 1, 3)
    held = (table["ours"] & (table["status"] == "matched")).sum()
    assert row["controls that hold"] == f"{held} of {table['ours'].sum()}"


def test_the_spread_is_over_seeds_alone(record):
    def varied(run_id, value, **changed):
        metrics = {"gain": interval(value), "cost": 1.5}
        parameters = record.parameters | changed
        return dataclasses.replace(record, run_id=run_id, metrics=metrics, parameters=parameters)

    swept = varied("laptop-SWEEP", 3.0, SWEEP=True)
    seed = varied("laptop-SEED=1", 5.0, SEED=1)
    table = scoreboard.spread([record, swept, seed]).set_index("number")
    assert table.loc["gain", ["seeds", "lowest", "highest"]].tolist() == [2, 3.0, 5.0]
    assert table.loc["gain", "sd"] == pytest.approx(np.sqrt(2))
    assert table.loc["cost", "sd"] == 0
    assert scoreboard.spread([record]).empty
    assert scoreboard.headline_spread([record]).empty and scoreboard.headline_spread([]).empty


def test_the_spread_of_headlines_is_that_of_the_numbers_of_claims(record):
    claim = record.verdicts[0].claim
    runs = [
        dataclasses.replace(
            record,
            run_id=f"laptop-SEED={seed}" if seed else "laptop",
            metrics={claim: interval(1.0 + seed), "cost": 2.0},
            parameters=record.parameters | {"SEED": seed},
        )
        for seed in range(3)
    ]
    table = scoreboard.headline_spread(runs)
    assert table[["number", "seeds", "mean", "sd"]].to_numpy().tolist() == [[claim, 3, 2.0, 1.0]]
    results = report.readme_blocks(runs, report.COMMITTED.parent / "bench")["results"]
    assert f"| {record.notebook} | {claim} | 3 | 2 | 1 | 1 | 3 |" in results


def test_each_claim_is_a_point_of_the_figure(record):
    table = scoreboard.claims([record])
    fig = plots.standings(table)
    left, right = fig.axes
    drawn = sum(
        len(line.get_xdata()) for ax in (left, right) for line in ax.lines if line.get_label() in STATUSES
    )
    assert drawn == len(table)
    assert left.get_title(loc="left") == "claims of the papers, n = 4"
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["RELIFE"]
