"""The survey's list of works: how it is read, what it holds, and what a newer copy changes."""

import subprocess
import sys

import pandas as pd
import pytest

from rec_utils.errors import UserError
from rec_utils.papers import taxonomy

COLUMNS = ["Name", "Paper", "LLM Backbone (Largest)", "LLM Tuning Strategy", "Publication", "Link"]
HEAD = "".join(f"| **{name}** " for name in COLUMNS) + "|\n" + 6 * "|:---:" + "|\n"
ARXIV = "[[Link]](https://arxiv.org"
LIST = f"""# A list

## 1. Papers

<details><summary><b>1.1 LLM for Feature Engineering</b></summary>
<b>1.1.1 Augmentation</b>

{HEAD}| AbC | AbC: A \\| B | PaLM (540B)/ ChatGPT | Frozen | Arxiv 2023 | {ARXIV}/abs/2212.00001v1) |
| N/A | Two | LLaMA2 | Layerwise Adater Tuning | TNNLS | [[Link]](https://example.org/two) |

<b>1.5 LLM for RS Pipeline Controller</b>

{HEAD}| N/A | Two | T5 (223M) & T5-XXL (11B) | FFT & Frozen | W@X2024 | {ARXIV}/pdf/2401.00002.pdf) |

<details><summary><b>1.7 Newest Research Work List</b></summary>

| **Paper** | **Publication** | **Link** |
|:---|:---:|:---:|
| New | EMNLP 2025 | [[Link(https://arxiv.org/abs/2501.00003) |
| Slip | Falcon (40B) | Frozen | WSDM 2024 | [[Link]](https://arxiv.org/abs/2312.00004) |
| Slip | WWW 2025 | |[[Link]](https://arxiv.org/abs/2502.00005) |

## 2. Datasets

| **Dataset** | **Link** |
|:---:|:---:|
| X | Y |
"""


@pytest.fixture(scope="module")
def table():
    return taxonomy.works()


@pytest.fixture(scope="module")
def newest():
    papers = taxonomy.parse_papers(taxonomy.read_list())
    return papers[papers["leaf"].str.startswith("1.7")]


# ---------------------------------------------------------------- how a list is read


def test_a_list_becomes_a_table():
    table = taxonomy.parse(LIST)
    first, second, third = table.to_dict("records")
    assert first == {
        "stage": "feature engineering",
        "leaf": "1.1.1 Augmentation",
        "name": "AbC",
        "title": "AbC: A | B",
        "backbone": "PaLM (540B)/ ChatGPT",
        "model": "PaLM",
        "size_b": 540.0,
        "size": ">100B",
        "tuning": "Frozen",
        "tuned": "frozen",
        "venue": "arXiv",
        "year": 2023,
        "arxiv": "2212.00001",
        "month": "2022-12",
        "link": "https://arxiv.org/abs/2212.00001v1",
    }
    assert (second["size"], second["tuned"], second["venue"]) == ("unknown", "PEFT", "TNNLS")
    assert pd.isna(second["year"]) and second["arxiv"] == second["month"] == ""
    assert (third["model"], third["size_b"], third["size"]) == ("T5", 11.0, "10-100B")
    assert (third["tuned"], third["venue"], third["year"]) == ("mixed", "W@X", 2024)
    assert third["leaf"] == "1.5 LLM for RS Pipeline Controller"
    assert taxonomy.key(table).tolist() == ["2212.00001", "https://example.org/two", "2401.00002"]


def test_headings_may_be_markdown():
    text = LIST.replace("<b>1.1.1 Augmentation</b>", "#### 1.1.1 Augmentation")
    pd.testing.assert_frame_equal(taxonomy.parse(text), taxonomy.parse(LIST))


def test_papers_with_cells_too_many_are_read():
    papers = taxonomy.parse_papers(LIST)
    assert papers["title"].tolist() == ["New", "Slip", "Slip"]
    assert papers["venue"].tolist() == ["EMNLP", "WSDM", "WWW"]
    assert papers["month"].tolist() == ["2025-01", "2023-12", "2025-02"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("| Frozen | Arxiv 2023", "| Arxiv 2023", "10 of the list, under '1.1.1 Augmentation': 5 cells inst"),
        ("| Two | LLaMA2", "| Two | x | LLaMA2", "11 of the list, under '1.1.1 Augmentation': 7 cells"),
        ("(https://example.org/two)", "(soon)", "11 of the list, under '1.1.1 .*no address in the link"),
        ("| **Paper** | **Publication", "| **Title** | **Publication", "21 .*'1.7 .*columns are Title"),
        ("\n|:---:", "", "8 of the list, under '1.1.1 .*columns are"),
        ("|:---:|\n| AbC", "| x |\n| AbC", "9 of the list, under '1.1.1 .*no rule"),
        ("1.1.1 Augmentation", "1.8.1 Else", "8 of the list, under '1.8.1 Else': a table under a heading"),
        ("| New | EMNLP 2025 |", "| New |", "23 .*'1.7 Newest .*title, publication or link is missing"),
    ],
)
def test_a_malformed_table_is_named_by_line_and_heading(old, new, message):
    assert LIST.count(old) >= 1
    text = LIST.replace(old, new, 1)
    with pytest.raises(UserError, match=f"^line {message}"):
        taxonomy.parse(text)
        taxonomy.parse_papers(text)


def test_what_is_no_list_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no work"):
        taxonomy.parse("# Nothing\n")
    with pytest.raises(UserError, match=r"none\.md is no readable copy"):
        taxonomy.read_list(tmp_path / "none.md")
    (tmp_path / "works.csv").write_text("title,year\na,2020\n")
    with pytest.raises(UserError, match=r"works\.csv has the columns title, year"):
        taxonomy.works(tmp_path / "works.csv")
    with pytest.raises(UserError, match="no table of works"):
        taxonomy.works(tmp_path / "none.csv")


def test_months_become_half_years():
    months = pd.Series(["2023-06", "2023-07", "", "2022-12"])
    assert taxonomy.half_year(months).tolist() == ["2023 H1", "2023 H2", "", "2022 H2"]


# ---------------------------------------------------------------- what the bundled list holds


def test_the_bundled_table_is_what_parse_makes_of_the_list(table):
    pd.testing.assert_frame_equal(table, taxonomy.parse(taxonomy.read_list()))


def test_the_leaves_have_their_works(table):
    leaves = table["leaf"].value_counts(sort=False)
    assert leaves.tolist() == [23, 12, 29, 13, 35, 45, 8, 10, 7, 7]
    assert [leaf.split()[0] for leaf in leaves.index] == (
        ["1.1.1", "1.1.2", "1.2.1", "1.2.2", "1.3.1", "1.3.2", "1.3.3", "1.4.1", "1.4.2", "1.5"]
    )
    stages = table["stage"].value_counts()
    assert [int(stages[stage]) for stage in taxonomy.STAGES.values()] == [35, 42, 88, 17, 7]


def test_names_are_no_key_but_leaf_and_paper_are(table):
    assert len(table) == 189 and table["name"].nunique() == 162 and (table["name"] == "N/A").sum() == 15
    assert not table.assign(key=taxonomy.key(table)).duplicated(["leaf", "key"]).any()


def counted(table, row, column, rows, columns):
    first, second = (table[name].astype(object).fillna("none").astype(str) for name in (row, column))
    counts = pd.crosstab(first, second)
    return counts.reindex(rows, columns=columns, fill_value=0).to_numpy().tolist()


def test_works_by_year_of_publication(table):
    years = ["2020", "2021", "2022", "2023", "2024", "2025", "none"]
    assert counted(table, "stage", "year", taxonomy.STAGES.values(), years) == [
        [0, 0, 0, 26, 8, 1, 0],
        [0, 7, 8, 20, 5, 0, 2],
        [0, 1, 3, 75, 9, 0, 0],
        [1, 0, 5, 9, 2, 0, 0],
        [0, 0, 0, 6, 1, 0, 0],
    ]


def test_works_by_tuning(table):
    assert counted(table, "stage", "tuned", taxonomy.STAGES.values(), taxonomy.TUNINGS) == [
        [26, 1, 8, 0, 0],
        [18, 5, 18, 1, 0],
        [27, 23, 38, 0, 0],
        [5, 4, 6, 1, 1],
        [4, 0, 2, 0, 1],
    ]
    assert counted(table, "year", "tuned", ["2021", "2022", "2023", "2024"], taxonomy.TUNINGS[:3]) == [
        [1, 0, 7],
        [2, 2, 12],
        [59, 26, 48],
        [15, 5, 5],
    ]
    raw = table["tuning"].value_counts()
    assert (raw["Full Finetuning"], raw["Frozen"], raw["Prefix Tuning"]) == (68, 80, 2)
    lora = table[table["tuning"] == "LoRA"]["leaf"].str[:3].value_counts()
    assert lora.to_dict() == {"1.3": 16, "1.4": 3, "1.1": 1, "1.2": 1}


def test_works_by_size(table):
    sizes = [*taxonomy.SIZES, taxonomy.UNKNOWN]
    assert counted(table, "stage", "size", taxonomy.STAGES.values(), sizes) == [
        [2, 6, 2, 24, 1],
        [33, 5, 0, 2, 2],
        [30, 24, 8, 23, 3],
        [11, 2, 1, 3, 0],
        [0, 2, 0, 4, 1],
    ]
    assert counted(table, "year", "size", ["2021", "2022", "2023", "2024"], sizes) == [
        [6, 2, 0, 0, 0],
        [16, 0, 0, 0, 0],
        [44, 31, 10, 45, 6],
        [8, 6, 1, 9, 1],
    ]


def test_backbones_and_venues(table):
    backbones = table["model"].value_counts()
    wanted = {"ChatGPT": 39, "BERT-base": 26, "LLaMA": 13, "LLaMA2": 9, "T5-base": 9, "GPT-4": 8, "Vicuna": 5}
    wanted |= {"RoBERTa-large": 5, "GPT-2": 5, "T5-small": 5, "GPT2-medium": 4}
    assert {name: int(backbones[name]) for name in wanted} == wanted
    venues = table["venue"].value_counts()
    wanted = {"arXiv": 112, "RecSys": 11, "KDD": 7, "WWW": 6, "SIGIR": 6, "CIKM": 4, "WSDM": 3}
    assert {name: int(venues[name]) for name in wanted} == wanted
    assert venues["EMNLP"] + venues["EMNLP Findings"] == 6


def test_the_newest_works(newest):
    assert len(newest) == 439 and len(taxonomy.parse_papers(taxonomy.read_list())) == 439 + 31
    month = newest["month"]
    assert (month == "").sum() == 13 and month.between("2022", "2024-01").sum() == 10
    counts = month[month > "2024-01"].value_counts().sort_index()
    assert counts.tolist() == [
        42,
        50,
        24,
        22,
        33,
        12,
        23,
        15,
        18,
        15,
        22,
        12,
        27,
        18,
        31,
        10,
        12,
        13,
        10,
        4,
        3,
    ]
    # one of 2024 has the cells of a work, so that a count of third cells misses it
    assert newest["year"].value_counts().to_dict() == {2024: 284 + 1, 2025: 142, 2023: 7}


# ---------------------------------------------------------------- what a newer copy changes


def test_a_copy_changes_nothing():
    text = taxonomy.read_list()
    assert taxonomy.changes(text, text).empty
    assert taxonomy.describe(taxonomy.changes(text, text)) == "no change"


def test_changes_are_found():
    row = "| Far | Far: Away | GPT4 | Frozen | KDD 2026 | [[Link]](https://arxiv.org/abs/2601.00009) |\n"
    text = LIST.replace("| N/A | Two | LLaMA2", row + "| N/A | Two | LLaMA2").replace("TNNLS", "TNNLS 2024")
    lines = [line for line in text.splitlines() if "| AbC |" not in line]
    table = taxonomy.changes(LIST, "\n".join(lines))
    assert table.to_dict("split")["data"] == [
        ["added", "1.1.1 Augmentation", "Far: Away", "", "", ""],
        ["removed", "1.1.1 Augmentation", "AbC: A | B", "", "", ""],
        ["changed", "1.1.1 Augmentation", "Two", "year", "", "2024"],
    ]
    words = taxonomy.describe(table).splitlines()
    assert words[0] == "1 rows added, 1 removed, 1 cells changed"
    assert words[-1] == "changed  1.1.1 Augmentation | Two | year: '' -> '2024'"


def test_a_work_is_followed_by_its_paper_or_its_title_not_by_its_name():
    # "Two" stands in two leaves as "N/A": a new link of one must not touch the other
    table = taxonomy.changes(
        LIST, LIST.replace("https://example.org/two", "https://arxiv.org/abs/2402.00007")
    )
    assert set(table["change"]) == {"changed"} and set(table["leaf"]) == {"1.1.1 Augmentation"}
    assert table["column"].tolist() == ["arxiv", "month", "link"]


def test_a_work_that_got_its_place_in_the_taxonomy_has_moved():
    old = "| New | EMNLP 2025 | [[Link(https://arxiv.org/abs/2501.00003) |\n"
    row = "| N | New | GPT4 | Frozen | EMNLP 2025 | [[Link]](https://arxiv.org/abs/2501.00003) |\n"
    text = LIST.replace(old, "").replace("| N/A | Two | T5", row + "| N/A | Two | T5")
    table = taxonomy.changes(LIST, text).set_index("column")
    assert set(table["change"]) == {"changed"}
    assert table["before"]["leaf"] == "1.7 Newest Research Work List"
    assert table["after"]["leaf"] == "1.5 LLM for RS Pipeline Controller"
    assert (table["before"]["backbone"], table["after"]["backbone"]) == ("", "GPT4")


def test_the_command_line(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "rec_utils.papers.taxonomy", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    (tmp_path / "old.md").write_text(LIST)
    (tmp_path / "new.md").write_text(LIST.replace("TNNLS", "TNNLS 2024"))
    found = run("diff", tmp_path / "new.md", "--old", tmp_path / "old.md")
    assert found.returncode == 0 and found.stdout.startswith("0 rows added, 0 removed, 1 cells changed\n")
    made = run("table", tmp_path / "old.md", tmp_path / "works.csv")
    assert made.returncode == 0
    pd.testing.assert_frame_equal(taxonomy.works(tmp_path / "works.csv"), taxonomy.parse(LIST))
    (tmp_path / "bad.md").write_text(LIST.replace("| Frozen | Arxiv 2023", "| Arxiv 2023"))
    bad = run("diff", tmp_path / "bad.md")
    assert bad.returncode == 2 and bad.stderr.startswith("error: line 10 of the list") and not bad.stdout
    assert "examples:" in run("--help").stdout


# ---------------------------------------------------------------- what figures count


def test_tasks_begin_with_the_stage_that_has_no_works(table):
    tasks = taxonomy.tasks(table)
    assert tasks["stage"].unique().tolist() == [taxonomy.COLLECTION, *taxonomy.STAGES.values()]
    assert tasks["n"].tolist() == [0, 23, 12, 29, 13, 35, 45, 8, 10, 7, 7]
    assert tasks["task"].tolist()[4:6] == ["Unified Cross-domain Recommendation", "Item Scoring Task"]
    assert tasks["task"].iloc[-1] == ""


def test_half_years_count_the_works_with_an_arxiv_number(table):
    counts = taxonomy.by_half_year(table, "size")
    assert counts.to_numpy().sum() == (table["month"] != "").sum() == 176
    second = table[table["month"].between("2023-07", "2023-12")]["size"].value_counts()
    assert counts.loc["2023 H2"].to_dict() == {size: second.get(size, 0) for size in counts}
