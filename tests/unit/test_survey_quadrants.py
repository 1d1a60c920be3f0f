"""Figure 4 of the survey: its totals, its match with the list, and the guess about conventional models."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rec_utils.cards import load_card
from rec_utils.papers import quadrants, taxonomy
from rec_utils.settings import NOTEBOOKS


@pytest.fixture(scope="module")
def survey():
    return quadrants.load()


def test_figure_4_has_its_totals(survey):
    figure = survey.figure
    assert len(figure) == 50 and not figure.duplicated(["name", "quadrant"]).any()
    baseline = figure["best_baseline_defeated"].value_counts()
    assert baseline.to_dict() == {"attention-based": 38, "Popularity": 8, "MF": 3, "Random": 1}
    sizes = figure["llm_size_class"].value_counts()
    assert [int(sizes[size]) for size in taxonomy.SIZES] == [24, 7, 5, 14]
    by_year = pd.crosstab(figure["quadrant"], figure["year"])
    assert by_year.to_numpy().tolist() == [[3, 2, 8], [1, 2, 7], [0, 0, 10], [1, 3, 13]]
    attention = figure.groupby("quadrant")["attention"].sum()
    assert attention.to_dict() == {"Q1": 13, "Q2": 9, "Q3": 0, "Q4": 16}
    pairs = figure[["tuned", "crm", "quadrant"]].drop_duplicates()
    assert {(t, c): q for t, c, q in pairs.itertuples(index=False)} == quadrants.QUADRANTS


def test_circles_are_matched_by_paper_and_say_why_not(survey):
    figure = survey.figure
    lost = figure[figure["paper"] == ""]
    assert lost["name"].tolist() == ["CTRL", "ChatGPT-1", "ChatGPT-2", "ChatGPT-3"]
    assert (lost["remark"] != "").all()
    listed = figure[figure["paper"] != ""]
    assert (listed["stage"] != "").all(), "a match that names no row of the list"
    # names that stand for several works were told apart
    months = listed.set_index(["name", "quadrant"])["month"]
    assert months["TransRec"].to_dict() == {"Q1": "2023-05", "Q2": "2022-06"}
    assert months["LLM-Rec", "Q2"] == "2023-07"
    works = survey.works.set_index([survey.works["leaf"], taxonomy.key(survey.works)])
    same = [
        works["name"][leaf, paper].casefold()
        for leaf, paper in zip(listed["leaf"], listed["paper"], strict=True)
    ]
    renamed = [(a, b) for a, b in zip(listed["name"], same, strict=True) if a.casefold() != b]
    assert renamed == [("GENRE", "once")]


def test_the_list_agrees_with_the_figure(survey):
    table = quadrants.agreement(survey.figure).set_index("works")[["agree", "n"]].to_numpy().tolist()
    assert table == [[16, 16], [4, 4], [17, 22], [37, 42], [43, 45], [45, 45]]
    assert quadrants.rule_share(survey.figure).value == pytest.approx(100 * 37 / 42)


def test_the_rule_reads_the_stage_alone(survey):
    rule = quadrants.crm_rule(survey.works)
    found = pd.Series(rule.to_numpy(), survey.works["stage"]).groupby(level=0).unique()
    assert found.map(list).to_dict() == {
        "feature engineering": ["with"],
        "feature encoder": ["with"],
        "scoring or ranking": ["without"],
        "user interaction": ["unknown"],
        "pipeline controller": ["unknown"],
    }


def test_the_figure_comes_before_corrections_and_these_before_the_rule(survey):
    works = survey.works
    assert works["crm from"].value_counts().to_dict() == {"rule": 121, "Figure 4": 45, "": 20, "by hand": 3}
    row = works[works["name"] == "ClickPrompt"].iloc[0]
    assert (row["crm"], row["crm from"], row["quadrant"]) == ("with", "Figure 4", "Q1")
    row = works[works["name"] == "LLaRA"].iloc[0]
    assert (row["crm"], row["crm from"], row["quadrant"]) == ("with", "by hand", "Q1")
    assert works[works["crm"] == "unknown"]["quadrant"].eq("").all()
    assert works[works["tuned"].isin(["mixed", "unknown"])]["quadrant"].eq("").all()
    # a correction that says what the rule says is none
    corrected = works["crm from"] == "by hand"
    assert (quadrants.crm_rule(works)[corrected] != works["crm"][corrected]).all()


def test_months_later_is_a_difference_of_means():
    later, earlier = pd.Series(["2023-02", "2023-04", ""]), pd.Series(["2022-11", "2022-12", "2023-01"])
    interval = quadrants.months_later(later, earlier)
    assert interval.value == pytest.approx(3)
    half = [stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n) for n, sd in ((2, np.sqrt(2)), (3, 1))]
    assert interval.high - interval.value == pytest.approx(np.hypot(*half))


def test_the_map_names_notebooks_that_are_there(survey):
    here = quadrants.HERE
    assert all((NOTEBOOKS / f"{name}.ipynb").is_file() for name in here["notebook"])
    assert set(here["stage"]) <= set(survey.works["stage"])
    # where Figure 4 is named, it says so
    shown = here[here["placed by"] == "Figure 4"].merge(survey.figure, left_on="method", right_on="name")
    assert shown["method"].tolist() == ["KAR", "ClickPrompt"]
    assert (shown["quadrant_x"] == shown["quadrant_y"]).all() and (shown["stage_x"] == shown["stage_y"]).all()


def test_hashes_are_those_of_all_files(survey):
    assert len(survey.hashes) == 7 and all(len(digest) == 64 for digest in survey.hashes.values())


def test_the_card_has_the_surveys_claims():
    card = load_card("llm_survey")
    assert sum(not claim.ours for claim in card.claims) == 7
    assert [claim.id for claim in card.claims if claim.not_testable] == ["hard-samples"]
