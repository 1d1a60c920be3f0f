"""Drawings of a field: every count and every name is where it belongs."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from rec_utils import diagrams


@pytest.fixture(autouse=True)
def closed():
    with plt.rc_context():
        yield
    plt.close("all")


def test_a_pipeline_shows_every_count_in_the_box_of_its_stage():
    table = pd.DataFrame(
        [
            ("data", "", 0),
            ("features", "Rows", 2),
            ("features", "Columns", 3),
            ("scores", "", 4),
            ("boss", "", 7),
        ],
        columns=["stage", "task", "n"],
    )
    ax = diagrams.pipeline(table, "boss").axes[0]
    said = {text.get_text(): text.get_position()[0] for text in ax.texts}
    assert said["data"] == said["no works listed"] < said["features"] == said["5 works\n2 Rows\n3 Columns"]
    assert said["features"] < said["scores"] == said["4 works"]
    assert said["boss"] == said["7 works"] == pytest.approx((said["data"] + said["scores"]) / 2)


def test_quadrants_put_each_work_into_its_panel_and_column_with_its_mark():
    table = pd.DataFrame(
        [
            ("A", 2021, "Q1", "small", "weak"),
            ("B", 2022, "Q3", "big", "strong"),
            ("C", 2020, "Q3", "big", "weak"),
        ],
        columns=["name", "year", "quadrant", "size", "level"],
    )
    names = {q: f"panel {q}" for q in ("Q2", "Q1", "Q3", "Q4")}
    fig = diagrams.quadrants(
        table,
        "size",
        "level",
        names=names,
        xlabel="size",
        columns=("small", "big"),
        levels=("weak", "none", "strong"),
    )
    panels = {ax.get_title(loc="left"): ax for ax in fig.axes}
    assert list(panels) == ["panel Q2 (n = 0)", "panel Q1 (n = 1)", "panel Q3 (n = 2)", "panel Q4 (n = 0)"]
    first, third = panels["panel Q1 (n = 1)"], panels["panel Q3 (n = 2)"]
    assert [text.get_text() for text in first.texts] == ["A '21"]
    # the earlier work stands above, both in the second column
    assert [(text.get_text(), int(text.get_position()[0])) for text in third.texts] == [
        ("C '20", 1),
        ("B '22", 1),
    ]
    key = fig.legends[0]
    legend = {t.get_text(): h for t, h in zip(key.get_texts(), key.legend_handles, strict=True)}
    assert list(legend) == ["weak", "strong"]
    shown = {text.get_text(): line.get_marker() for text, line in zip(third.texts, third.lines, strict=True)}
    assert shown == {"C '20": legend["weak"].get_marker(), "B '22": legend["strong"].get_marker()}


def test_stacked_counts_stand_on_each_other():
    counts = pd.DataFrame({"b": [1, 2], "a": [3, 4]}, index=["2022", "2023"])
    tables, orders = {"one": counts, "two": counts[["a"]]}, {"one": ("a", "b"), "two": ("unknown", "a")}
    fig = diagrams.stacked(tables, xlabel="year", ylabel="works", orders=orders)
    one, two = fig.axes
    bars = {c.get_label(): [(bar.get_y(), bar.get_height()) for bar in c] for c in one.containers}
    assert bars == {"a": [(0, 3), (0, 4)], "b": [(3, 1), (4, 2)]}
    assert [tick.get_text() for tick in one.get_xticklabels()] == ["2022", "2023"]
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["b", "a"]  # as they stand
    assert [bar.get_height() for container in two.containers for bar in container] == [0, 0, 3, 4]
    fig = diagrams.stacked(
        {**tables, "three": counts}, xlabel="year", ylabel="works", orders={**orders, "three": ("b",)}
    )
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["one", "two", "three"]
