"""The table of works: how a list is read, and what the bundled table holds."""

import pandas as pd
import pytest

from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.papers.diffusion import taxonomy

LIST = """# A list
:electron: means a test.

### 1. Diffusion for Data Engineering & Encoding

#### 1.1 Data Augmentation

* AbC: Growing Data. A sequel. Arxiv 2023. [[Link]](https://example.org)
* Diffusion: 2 Ways. www 2024.
[[Link]](https://example.org)

#### 3.2 Ad Creative Generation

* :electron: Two words: Pictures. Fashion@RecSys 2024. [[Link]](x)
"""


def test_a_list_becomes_a_table():
    table = taxonomy.parse(LIST)
    assert table["title"].tolist() == [
        "AbC: Growing Data. A sequel",
        "Diffusion: 2 Ways",
        "Two words: Pictures",
    ]
    assert table["name"].tolist() == ["AbC", "Diffusion", ""]
    assert table["year"].tolist() == [2023, 2024, 2024]
    assert table["venue"].tolist() == ["arXiv", "WWW", "Fashion@RecSys"]
    assert table["leaf"].tolist() == ["1.1 Data Augmentation"] * 2 + ["3.2 Ad Creative Generation"]
    assert table["domain"].tolist() == [taxonomy.DOMAINS[n] for n in "113"]
    assert table["online"].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LIST.replace("www 2024.", "www."), "line 9 of the list"),
        (LIST.replace("#### 1.1", "#### x"), "line 8 of the list"),
        ("# Nothing\n", "no work"),
    ],
)
def test_what_is_no_list_is_an_error(text, message):
    with pytest.raises(UserError, match=message):
        taxonomy.parse(text)


def test_the_bundled_table_has_the_surveys_works():
    table = taxonomy.works()
    assert taxonomy.counts(table).sum(axis=1).tolist() == [18, 9, 8, 13, 4, 1, 3, 3]
    assert table.groupby("domain").size().to_dict() == dict(
        zip(taxonomy.DOMAINS.values(), (27, 25, 7), strict=True)
    )
    assert table["title"].nunique() == 58  # one stands there twice
    assert table["year"].value_counts().to_dict() == {2024: 44, 2023: 14, 2022: 1}
    assert table["online"].sum() == 5
    assert sorted(filter(None, table["module"])) == sorted(taxonomy.IMPLEMENTED.values())


def test_the_bundled_table_is_what_parse_makes_of_the_list():
    try:
        path = data.files("diffusion-list")["awesome-diffusion-for-recsys.md"]
    except UserError as error:
        pytest.skip(str(error))
    expected = taxonomy.parse(path.read_text(encoding="utf-8"))
    pd.testing.assert_frame_equal(taxonomy.works().drop(columns="module"), expected, check_dtype=False)


def test_another_table_is_an_error(tmp_path):
    (tmp_path / "works.csv").write_text("title,year\na,2020\n")
    with pytest.raises(UserError, match=r"works\.csv has the columns title, year"):
        taxonomy.works(tmp_path / "works.csv")
    with pytest.raises(UserError, match="no table of works"):
        taxonomy.works(tmp_path / "none.csv")
