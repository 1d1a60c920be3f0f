import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import yaml

from rec_utils import records, report
from rec_utils.cards import INHERITED
from rec_utils.claims import NotTestable, Verdict, check, load_card
from rec_utils.errors import UserError
from rec_utils.settings import CARDS
from rec_utils.stats import Interval

MARKED = """# Title
<!-- results:begin -->
old
<!-- results:end -->
between
<!-- cost:begin -->
<!-- cost:end -->
<!-- speed:begin -->
<!-- speed:end -->
end
"""


@pytest.fixture(scope="module")
def kar():
    return load_card("kar")


@pytest.fixture
def folder(tmp_path, monkeypatch, kar):
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path))
    run = records.start("01_kar", "laptop", {"SEED": 0}, {"SEED": 0}, kar)
    run.verdicts(verdicts(kar))
    run.finish()
    other = records.start("01_kar", "laptop", {"SEED": 1}, {"SEED": 0}, kar)
    other.verdicts(
        check(kar, {claim.id: NotTestable("seed one") for claim in kar.claims if not claim.not_testable})
    )
    other.finish()
    return tmp_path / "records"


def verdicts(card):
    evidence = {c.id: Interval(0.65, 0.4, 0.9, 0.95, 610) for c in card.claims if not c.not_testable}
    evidence["latency"] = Interval(1.042, 1.013, 1.071, 0.95, 20)
    evidence["superadditive"] = NotTestable("needs a | grid")
    evidence["both-over-each"] = {
        "facts": Interval(0.6, 0.4, 0.8, 0.95, 610),
        "reasoning": Interval(0.3, 0.004, 0.6, 0.95, 610),
    }
    return check(card, evidence)


@pytest.mark.parametrize(
    ("null", "numbers", "unit", "text"),
    [
        (0.0, (0.65, 0.4, 0.9), "%", "+0.65 [+0.40, +0.90] %"),
        (0.0, (-0.123, -0.456, 0.21), "%", "-0.12 [-0.46, +0.21] %"),
        (1.5, (1.042, 1.013, 1.071), "times", "1.042 [1.013, 1.071] times"),
        (0.0, (0.3, 0.004, 0.6), "%", "+0.300 [+0.004, +0.600] %"),
        (0.0, (123.4, 100.2, 146.6), "", "+123 [+100, +147]"),
        (0.0, (0.0, 0.0, 0.0), "%", "+0.000 [+0.000, +0.000] %"),
    ],
)
def test_a_value_shows_two_digits_and_never_a_bound_as_the_null(null, numbers, unit, text):
    value, low, high = numbers
    verdict = Verdict("c", "matched", "t", False, unit, null, (0.1, 1), value, low, high)
    assert report.value(verdict) == text


def test_verdict_table_without_numbers_keeps_what_a_repeated_run_must_give(kar):
    given = verdicts(kar)
    full, plain = report.verdict_table(given), report.verdict_table(given, numbers=False)
    assert full.loc["both-over-each", "status"].endswith(" (fragile)")
    assert full.loc["both-over-each", "remark"] == "weakest: reasoning"
    assert full.loc["latency", "match"] == "0.8 to 1.2 times"
    assert full.loc["online-ab", "value [95 % interval]"] == ""
    assert list(plain.columns) == ["status"] and not plain["status"].str.contains("fragile").any()
    assert list(plain.index) == [claim.id for claim in kar.claims]


def test_results_take_the_default_run_and_part_the_papers_claims_from_ours(folder, kar):
    found = records.load(folders=[folder])
    assert len(found) == 2
    paper, ours = (report.results_table(found, ours=flag) for flag in (False, True))
    assert len(paper) + len(ours) == len(kar.claims)
    assert set(ours["claim"]) == {claim.text for claim in kar.claims if claim.source.mark == "ours"}
    assert not paper["value [95 % interval]"].str.contains("seed one").any()
    assert report.results_table(found, profile="smoke").empty


def test_results_of_the_papers_sizes_hold_runs_of_a_part_with_what_they_tested(folder, kar):
    default, other = sorted(records.load(folders=[folder]), key=lambda record: len(record.run_id))
    settings = default.parameters | {"PROFILE": "paper", "LR": 0.5, "PARTS": ["a", "b"]}
    whole = replace(
        default, profile="paper", run_id="paper", parameters=default.parameters | {"PROFILE": "paper"}
    )
    part = replace(default, profile="paper", run_id="paper-PARTS=a", parameters=settings)
    table = report.results_table([default, other, whole, part], "paper")
    complete, partial = (rows for _, rows in table.groupby("settings"))
    assert set(table["settings"]) == {"", "LR=0.5, PARTS=a b"} and len(partial) < len(complete)
    untested = [rows["status"].str.startswith("not testable").any() for rows in (complete, partial)]
    assert untested == [True, False]
    assert len(report.results_table([default, other, whole, part])) == len(report.results_table([default]))


def test_smoke_runs_do_not_change_readme(folder, tmp_path):
    found = records.load(folders=[folder])
    smoke = replace(found[0], profile="smoke", run_id="smoke")
    assert report.readme_blocks([*found, smoke], tmp_path) == report.readme_blocks(found, tmp_path)


def test_two_notebooks_of_one_paper_stand_side_by_side(folder, kar, tmp_path, monkeypatch):
    cards = shutil.copytree(CARDS, tmp_path / "cards")
    fields = yaml.safe_load((CARDS / "kar.yaml").read_text())
    own = {key: value for key, value in fields.items() if key not in INHERITED}
    part = own | {
        "id": "kar_part",
        "paper": "kar",
        "notebook": "01_kar_part",
        "estimates": {"paper": "a day"},
    }
    (cards / "kar_part.yaml").write_text(yaml.safe_dump(part, sort_keys=False))
    monkeypatch.setattr("rec_utils.cards.CARDS", cards)
    card = load_card("kar_part")
    run = records.start("01_kar_part", "laptop", {"SEED": 0}, {"SEED": 0}, card)
    run.verdicts(verdicts(card))
    run.finish()
    blocks = report.readme_blocks(records.load(folders=[folder]), folder.parent / "bench")
    n_claims = len(kar.claims)
    assert blocks["results"].count("| KAR |") == 1 + 2 * n_claims, "one line by paper, and one a claim"
    for name in ("01_kar", "01_kar_part"):
        detailed = blocks["results"].split("<details>", 1)[1]
        assert detailed.count(f"| [{name}](notebooks/{name}.ipynb) |") == n_claims
    assert "| 01_kar_part | paper | estimate: a day |" in blocks["cost"]
    assert report.card_markdown(card) == report.card_markdown(kar)


def test_paper_vs_ours_shows_no_number_without_a_source(kar):
    unread = [entry.id for entry in kar.published if entry.value is None]
    table = report.paper_vs_ours(
        kar,
        {"din-ml1m-base": 0.75221, "gain-din": Interval(0.65, 0.4, 0.9, 0.95, 1)}
        | dict.fromkeys(unread, 1.0),
        "toy",
    )
    assert ((table["paper"] == "") == (table["source of the paper's number"] == "")).all()
    assert ((table["ours"] == "") == (table["our setting"] == "")).all()
    assert (table["paper"] == "").sum() == len(unread) > 0
    row = table[
        (table["cell"] == "DIN base") & (table["unit"] == "AUC") & (table["table"] == "CTR, ML-1M")
    ].squeeze()
    assert (row["paper"], row["ours"], row["our setting"]) == ("0.7863", "0.7522", "toy")
    counted = report.paper_vs_ours(kar, {"din-ml1m-base": 591_208}, "toy")
    assert counted["ours"].max() == "591208", "counts in full"
    only_known = report.paper_vs_ours(kar, {}, "toy")
    assert len(only_known) == len(kar.published) - len(unread) and (only_known["ours"] == "").all()
    with pytest.raises(UserError, match="no published entry 'din'"):
        report.paper_vs_ours(kar, {"din": 0.5}, "toy")


def test_costs_are_measured_where_a_run_is_recorded_and_estimated_elsewhere(folder):
    found = records.load(folders=[folder])
    slow = replace(
        found[0], seconds=150.0, peak_memory_gb=None, hardware=found[0].hardware | {"gpu": ["H100"]}
    )
    table = report.cost_table([slow, found[1]]).set_index(["notebook", "profile"])
    assert table.loc[("01_kar", "laptop")].to_list() == ["2.5 min", "", "H100"]
    assert table.loc[("01_kar", "paper"), "time"].startswith("estimate: ")
    measured = report.cost_table([replace(slow, profile="paper", run_id="paper", seconds=20.0)])
    assert measured.loc[measured["notebook"] == "01_kar", "time"].to_list() == ["20 s"]


def test_markdown_escapes_what_would_break_a_row():
    assert (
        report.markdown(pd.DataFrame({"a": ["x|y"], "b": [1]})) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"
    )


def test_readme_is_filled_between_its_markers_only(folder, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(MARKED)
    with pytest.raises(UserError, match=r"README\.md does not show the records as they are; run: .* update"):
        report.check_readme(path, folder)
    assert report.update_readme(path, folder) is True
    assert report.update_readme(path, folder) is False
    report.check_readme(path, folder)
    text = path.read_text()
    assert "\nold\n" not in text and text.startswith("# Title\n<!--") and text.endswith("end\n")
    assert text.count("| KAR |") == 1 + len(load_card("kar").claims) and "needs a \\| grid" in text


def test_a_changed_record_makes_readme_stale(folder, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(MARKED)
    report.update_readme(path, folder)
    (record,) = [r for r in records.load(folders=[folder]) if r.run_id == "laptop"]
    changed = [replace(record.verdicts[0], value=0.66), *record.verdicts[1:]]
    records.save(replace(record, verdicts=changed), folder / "01_kar" / "laptop.json")
    with pytest.raises(UserError, match="does not show the records"):
        report.check_readme(path, folder)


@pytest.mark.parametrize(
    "broken",
    [
        MARKED.replace("<!-- cost:end -->", ""),
        MARKED + "<!-- cost:begin -->",
        MARKED.replace("results:begin", "x")
        .replace("results:end", "results:begin")
        .replace("x -", "results:end -"),
    ],
)
def test_a_readme_without_sound_markers_is_refused(broken):
    with pytest.raises(UserError, match="needs the markers"):
        report.render(broken, {"results": "r", "cost": "c"})


def test_the_command_line_has_help_with_examples():
    done = subprocess.run(
        [sys.executable, "-m", "rec_utils.report", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "python -m rec_utils.report update" in done.stdout
