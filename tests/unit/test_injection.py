"""Titles, prompts, answers and parameters of any kind stay text: in HTML, Markdown, figures and commands."""

import ast
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import mistune
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from papermill.translators import PythonTranslator
from tiny_ratings import random_dataset

from rec_utils import diagrams, display, formats, plots, records, report
from rec_utils.cards import card_ids, load_card
from rec_utils.errors import UserError, run_cli
from rec_utils.knowledge import movies
from rec_utils.knowledge.request import Request, Response
from rec_utils.parameters import Parameter, parse_values
from rec_utils.plans import Run
from rec_utils.rerank_lists import rerank_lists
from rec_utils.samples import ctr_task
from rec_utils.widgets import (
    DecodingExplorer,
    GuidanceExplorer,
    ListExplorer,
    TimelineExplorer,
    UserExplorer,
    WorkExplorer,
)

PIECES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></tr></table><h1>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)",
    "<!--",
    "-->",
    "<![CDATA[",
    "<?php",
    "&lt;b&gt;",
    "&#60;b>",
    "[click](javascript:alert(1))",
    "[click](<javascript:alert(1)>)",
    "![pixel](https://example.org/x.png)",
    "[x]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "javascript:alert(1)",
    "data:text/html,<b>",
    "$\\href{javascript:alert(1)}{x}$",
    "$x^2$ for $5",
    "`code`",
    "```\n",
    "~~~",
    "| a | b |",
    "\\|",
    "\\",
    "\n\n# heading\n\n",
    "\n---\n",
    "\r\n<b>",
    "\x1b[31mred\x1b[2J",
    "\0",
    "\u202e",
    "\ufeff",
    "=HYPERLINK(1)",
    "Amélie",
    " ",
]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), min_size=1, max_size=4).map("".join)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


class Seen(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.other = set(), set(), "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {(tag, *each) for each in attrs}

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.other.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
PLAIN = {("table", "border", "0"), ("table", "class", "dataframe"), ("tr", "style", "text-align: right;")}


def assert_inert(page, tags, attributes=()):
    seen = Seen(page)
    assert seen.tags <= tags, page
    assert not seen.other, page
    assert seen.attributes <= PLAIN | set(attributes), page
    return seen


# HTML


@pytest.fixture(scope="module")
def world():
    tiny = random_dataset(n_users=3, n_items=30, n_each=25, name=movies.USERS_OF)
    task = ctr_task(tiny, history_length=2)
    return tiny, task, rerank_lists(task)


@MANY
@given(title=HOSTILE, arm=HOSTILE, answer=HOSTILE)
def test_explorers_of_users_and_lists_show_text_only(world, title, arm, answer):
    tiny, task, lists = world
    with pytest.MonkeyPatch.context() as patch:
        texts = {10: Response(Request("user_preferences", "", ""), answer, "nobody")}
        patch.setattr(movies, "user_answers", lambda: texts)
        user = UserExplorer(
            tiny, task, {"base": np.zeros(len(task.samples)), arm: np.zeros(len(task.samples))}
        )
        score = np.zeros(lists.label.shape)
        chosen = ListExplorer(tiny, task, lists, {"base": score, arm: score})
        user.titles = chosen.titles = np.full(len(task.item_ids), title, object)
        assert_inert(user.show(10).data, TABLE | {"b", "p", "br"})
        assert_inert(chosen.show(0).data, TABLE | {"b"})


@MANY
@given(text=HOSTILE, other=HOSTILE)
def test_other_explorers_show_text_only(text, other):
    timeline = pd.DataFrame({"user_id": [1], text: [other], "x": [text]})
    assert_inert(TimelineExplorer(timeline).show(1).data, TABLE | {"b"})
    spans = {("span", "style", "color:#999"), ("span", "style", "background:#cde8d0;color:#000")}
    decoded = DecodingExplorer([text], lambda _: [[other, text], [other]]).show(0).data
    assert_inert(decoded, {"b", "p", "span"}, spans)
    pictures = GuidanceExplorer(lambda number, **_: np.zeros((1, 2, 2)), 1, {text: 1.0}).show(0).data
    image = Seen(pictures)
    assert image.tags == {"img", "p"} and {name for _, name, _ in image.attributes} == {"alt", "src"}


@MANY
@given(text=HOSTILE, link=HOSTILE | st.sampled_from(["https://a.org/'\"><b>", "javascript:alert(1)"]))
def test_works_show_text_and_links_to_the_web_only(text, link):
    works = pd.DataFrame({"name": [text], "title": [link], "link": [link], f"no {text}": [text]})
    seen = Seen(WorkExplorer(works, [f"no {text}"]).show().data)
    assert seen.tags <= TABLE | {"b", "a"} and not seen.other
    anchors = {(name, value) for tag, name, value in seen.attributes if tag == "a"}
    assert {name for name, _ in anchors} <= {"href", "target", "rel"}
    assert all(value.startswith(("https://", "http://")) for name, value in anchors if name == "href")
    assert {each for each in seen.attributes if each[0] != "a"} <= PLAIN


@MANY
@given(text=HOSTILE)
def test_a_notebook_shows_a_table_as_text(text):
    shown = pd.DataFrame({text: [text, "b"]}, index=[text, "c"]).rename_axis(text)._repr_html_()
    assert Seen(shown).tags <= TABLE | {"div", "style", "p"}
    assert "onerror" not in {name for _, name, _ in Seen(shown).attributes}


# Markdown

RENDERERS = {
    "markdown-it": MarkdownIt("commonmark", {"html": True}).enable("table").render,
    "mistune": mistune.create_markdown(escape=False, plugins=["table"]),
}


@pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS)
@MANY
@given(text=HOSTILE, other=HOSTILE)
def test_a_table_in_markdown_holds_no_html_picture_or_script(render, text, other):
    page = render(formats.markdown(pd.DataFrame({"a": [text, other], other: ["x", text + other]})))
    seen = Seen(page)
    assert seen.tags <= TABLE | {"em", "strong", "code", "a", "br", "p"}, page
    assert not seen.other, page
    for tag, name, value in seen.attributes:
        assert (tag, name) in {("a", "href"), ("a", "title"), ("th", "style"), ("td", "style")}, page
        assert name != "href" or value.startswith(("https://", "http://")), page


@pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS)
def test_what_a_table_may_hold_it_shows(render):
    table = pd.DataFrame(
        {"a b": ["[01_kar](notebooks/01_kar.ipynb)", "x < y & a | b, [+0.1, 2] (n)", "a <b"]}
    )
    page = render(formats.markdown(table))
    assert '<a href="notebooks/01_kar.ipynb">01_kar</a>' in page
    assert "x < y & a | b, [+0.1, 2] (n)" in Seen(page).text and "a <b" in Seen(page).text


@pytest.mark.parametrize("card", card_ids())
def test_the_text_of_the_cards_is_shown_as_it_is(card):
    shown = report.card_markdown(load_card(card))
    assert Seen(RENDERERS["markdown-it"](shown)).tags <= {"p", "strong", "em", "a", "br", "code"}
    text = "".join(map(str, report.claims_table(load_card(card)).to_numpy().ravel()))
    assert formats.inert(text) == text


@MANY
@given(text=HOSTILE)
def test_a_caption_holds_no_html(text):
    with pytest.MonkeyPatch.context() as patch:
        shown = []
        patch.setattr("IPython.display.display", shown.append)
        patch.setattr(plots, "save", lambda *_: None)
        patch.setattr("pathlib.Path.read_bytes", lambda _: b"\x89PNG\r\n\x1a\n")
        plots.show(plt.figure(), "a", "b", pd.DataFrame(), text)
    picture, caption = shown
    assert picture.alt == text
    tags = Seen(RENDERERS["markdown-it"](caption.data)).tags
    assert not tags & {"script", "img", "h1", "table", "b"}


# Figures


def test_names_in_drawings_are_no_formulas():
    name = r"$\frac{Ca$h and $5"
    table = pd.DataFrame([(name, name, 2), ("boss", "", 1)], columns=["stage", "task", "n"])
    works = pd.DataFrame({"name": [name], "year": [2024], "quadrant": ["Q1"], "where": ["a"], "level": ["b"]})
    titles = {f"Q{number}": f"{number}" for number in range(1, 5)}
    order = {"names": titles, "xlabel": "x", "columns": ["a"], "levels": ["b"]}
    with plt.rc_context():
        for fig in (
            diagrams.pipeline(table, "boss"),
            diagrams.quadrants(works, "where", "level", **order),
        ):
            fig.canvas.draw()
            plt.close(fig)


@MANY
@given(text=HOSTILE)
def test_a_message_of_a_run_does_not_steer_the_terminal(text):
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("rec_utils.display.tqdm.write", lambda line, file: said.append(line))
        display.Display._say(text)
    said += display.format_table([("a", text)], ("run", "detail")).split("\n")
    assert len(said) == 4 and not any(
        "\x00" <= char < " " or "\x7f" <= char < "\xa0" for char in "".join(said)
    )


def test_an_error_does_not_steer_the_terminal(capsys):
    def fail() -> None:
        raise UserError("no file \x1b]0;title\x07\x1b[2J.csv")

    def missing() -> None:
        Path("\x1b[2J/missing").read_text()

    for main in (fail, missing):
        assert run_cli(main) == 2
        said = capsys.readouterr().err
        assert said.endswith("\n") and said[:-1].isprintable() and "?[2J" in said


# Parameters

CODE = [
    "__import__('os').system('x')",
    "1;import os",
    "{}.__class__",
    "!!python/object/apply:os.system ['x']",
    "${HOME}",
    "$(x)",
    "`x`",
    "..",
    "../x",
    "/etc/passwd",
    "a\0b",
    "lambda: 1",
    "1_0",
    "0x10",
    "9" * 5000,
    "0..__import__('os')",
    "nan",
    "1e999",
]


@pytest.mark.parametrize("text", CODE)
@pytest.mark.parametrize("kind", ["int", "float", "bool", "str", "list[int]", "list[str]", "float | None"])
def test_a_value_on_the_command_line_is_data_or_refused(kind, text):
    parameter = Parameter("X", kind, None, "")
    try:
        values = parse_values(parameter, text)
    except UserError as error:
        assert str(error).startswith("parameter X: ")
        return
    plain = (int, float, bool, str, type(None))
    assert all(isinstance(value, plain) for value in values), "code became something else than data"
    if kind == "str":
        assert [str(value) for value in values] == [text.strip()]


@MANY
@given(st.dictionaries(st.just("X"), HOSTILE | st.lists(HOSTILE, max_size=2) | st.none() | st.integers()))
def test_papermill_writes_a_value_as_a_literal(values):
    statements = ast.parse(PythonTranslator.codify(values, "Parameters")).body
    assert {each.targets[0].id: ast.literal_eval(each.value) for each in statements} == values


@MANY
@given(value=HOSTILE | st.sampled_from([*CODE, "../../x", "..", ".", "/x", "a" * 4000]))
def test_no_value_leads_a_run_out_of_its_folder(value):
    name = records.run_id("laptop", {"PROFILE": "laptop", "X": value}, {"PROFILE": "laptop", "X": "default"})
    for folder in (name, Run("01_kar", "laptop", name, {}).folder, f"{name}.json"):
        assert PurePosixPath(folder).name == folder and folder not in (".", "..")
        assert folder.isprintable() and len(folder.encode()) < 200


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "a\0", "", "a b", "a\n"])
def test_a_record_is_of_a_plain_name(name):
    with pytest.raises(UserError, match="must be a plain name"):
        records.start(name, "smoke", {}, {})
