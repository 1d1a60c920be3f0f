"""The search in a list of works: what it finds, that it escapes it, and that its controls search anew."""

import pandas as pd
import pytest

from rec_utils.errors import UserError
from rec_utils.widgets import HITS, WorkExplorer

EVIL = "<script>alert(1)</script> & co"


@pytest.fixture
def explorer():
    works = pd.DataFrame(
        [
            ("KAR", "Towards (open) worlds", "features", 2023, "https://arxiv.org/abs/1?a=1&b=2"),
            ("N/A", EVIL, "scoring", 2023, "javascript:alert(1)"),
            ("P5", "Language processing", "scoring", None, "http://example.org/p5"),
        ],
        columns=["name", "title", "stage", "year", "link"],
    )
    return WorkExplorer(works.astype({"year": "Int64"}), ["stage", "year"])


def test_every_word_must_occur_somewhere_in_the_row(explorer):
    assert explorer.find("WORLDS kar")["name"].tolist() == ["KAR"]
    assert explorer.find("(open) 2023")["name"].tolist() == ["KAR"]
    assert explorer.find("worlds scoring").empty
    assert len(explorer.find()) == 3


def test_filters_narrow_and_combine(explorer):
    assert explorer.choices == {"stage": ["features", "scoring"], "year": ["2023"]}
    assert explorer.find(stage="scoring")["name"].tolist() == ["N/A", "P5"]
    assert explorer.find("language", stage="scoring")["name"].tolist() == ["P5"]
    assert explorer.find(stage="scoring", year="2023")["name"].tolist() == ["N/A"]
    with pytest.raises(UserError, match="no filter 'size'; there are stage, year"):
        explorer.find(size="x")
    with pytest.raises(UserError, match="no work has stage 'x'; there are features, scoring"):
        explorer.find(stage="x")


def test_hits_are_links_and_escaped(explorer):
    page = explorer.show().data
    assert "<b>3 of 3 works</b>" in page and "None" not in page and "NA>" not in page
    assert '<a href="https://arxiv.org/abs/1?a=1&amp;b=2" target="_blank" rel="noopener">KAR</a>' in page
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in page
    assert "javascript" not in page


def test_long_lists_are_cut_and_say_so():
    works = pd.DataFrame({"name": [f"w{n}" for n in range(HITS + 5)], "title": "t", "link": ""})
    page = WorkExplorer(works, []).show().data
    assert f"<b>{HITS + 5} of {HITS + 5} works, the first {HITS}</b>" in page
    assert f"w{HITS - 1}<" in page and f"w{HITS}<" not in page


def test_controls_search_anew(explorer):
    controls, page = explorer.widget().children
    box, stage, year = controls.children
    assert page.value == explorer.show().data
    box.value = "language"
    assert page.value == explorer.show("language").data
    stage.value = "features"
    assert page.value == explorer.show("language", stage="features").data
    box.value, stage.value, year.value = "", "", "2023"
    assert page.value == explorer.show(year="2023").data


def test_a_missing_column_is_named():
    with pytest.raises(UserError, match="need a column link; there are name, title"):
        WorkExplorer(pd.DataFrame({"name": ["a"], "title": ["b"]}), [])
