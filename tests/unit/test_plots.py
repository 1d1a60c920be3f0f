from io import BytesIO

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rec_utils import plots
from rec_utils.errors import UserError

GAINS = pd.DataFrame(
    [
        ("facts", 0.65, 0.4, 0.9, "paper"),
        ("reasoning", -0.1, -0.45, 0.2, "paper"),
        ("title + genres", 0.36, 0.1, 0.6, "control"),
    ],
    columns=["label", "value", "low", "high", "group"],
)
BINS = pd.DataFrame(
    [
        (by, name, arm, value, value - 0.3, value + 0.2, n)
        for by, bins in {
            "popularity": {"1–5": 3120, "6–20": 811},
            "history": {"short": 1, "long": 2, "huge": 3},
        }.items()
        for arm, value in {"facts": 0.5, "both": -0.2}.items()
        for name, n in bins.items()
    ],
    columns=["by", "bin", "arm", "value", "low", "high", "n"],
)


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_OUTPUT", str(tmp_path))
    with plt.rc_context():
        yield tmp_path
    plt.close("all")


def drawn(container):
    """Points [n, 2] and interval ends [n, 2, 2] of one errorbar container."""
    line, _, (bars,) = container
    return line.get_xydata(), np.array(bars.get_segments())


def test_forest_draws_each_interval_beside_its_label():
    ax = plots.forest(GAINS, xlabel="gain (%)").axes[0]
    labels = {tick.get_text(): y for tick, y in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)}
    seen = {}
    for container in ax.containers:
        points, ends = drawn(container)
        for (x, y), bar in zip(points, ends, strict=True):
            seen[y] = (x, bar[:, 0].min(), bar[:, 0].max())
    for row in GAINS.itertuples():
        assert seen[labels[row.label]] == pytest.approx((row.value, row.low, row.high))
    assert labels["facts"] > labels["reasoning"] > labels["title + genres"], "first row on top"
    assert len({container[0].get_color() for container in ax.containers}) == 2


def test_bins_draw_a_panel_a_binning_with_the_sizes():
    fig = plots.gain_by_bin(BINS, ylabel="gain (%)")
    assert [ax.get_xlabel() for ax in fig.axes] == ["popularity", "history"]
    assert [tick.get_text() for tick in fig.axes[0].get_xticklabels()] == ["1–5\nn = 3,120", "6–20\nn = 811"]
    for ax, panel in zip(fig.axes, ["popularity", "history"], strict=True):
        for container, arm in zip(ax.containers, ["facts", "both"], strict=True):
            rows = BINS[(BINS["by"] == panel) & (BINS["arm"] == arm)]
            points, ends = drawn(container)
            assert points[:, 1] == pytest.approx(rows["value"])
            assert np.sort(ends[:, :, 1]) == pytest.approx(rows[["low", "high"]].to_numpy())
            assert np.abs(points[:, 0] - np.arange(len(rows))).max() < 0.5
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["facts", "both"]


def test_ranks_draw_each_group_from_its_largest_value():
    table = pd.DataFrame({"group": ["b", "a", "b", "b", "a"], "value": [2.0, 7.0, 9.0, 4.0, 8.0]})
    ax = plots.ranked(table, xlabel="rank", ylabel="size").axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines == {"b": [[1, 9], [2, 4], [3, 2]], "a": [[1, 8], [2, 7]]}
    assert list(lines) == ["b", "a"]


def test_lines_draw_each_group_as_a_curve_with_readable_axes():
    table = pd.DataFrame(
        {
            "policy": ["b", "b", "b", "a", "a", "a"],
            "n": [1_000, 500_000, 1_000_000] * 2,
            "tokens": [0, 100, 2_000, 7, 70, 700],
        }
    )
    fig = plots.lines(table, "n", "tokens", "policy", xlabel="behaviours", ylabel="tokens so far", logy=True)
    fig.canvas.draw()
    (ax,) = fig.axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert curves == {
        name: part[["n", "tokens"]].to_numpy().tolist() for name, part in table.groupby("policy")
    }
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["b", "a"], "in order of appearance"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("behaviours", "tokens so far")
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert "600,000" in [tick.get_text() for tick in ax.get_xticklabels()]
    shown = ax.lines[0].get_path().transformed(ax.transScale).vertices[:, 1]
    assert not np.isfinite(shown[0]) and shown[1:] == pytest.approx(np.log10([100, 2_000])), "no fall to a 0"


def test_pictures_share_one_range_of_grey():
    images = {"real": np.zeros((3, 2, 4)), "made": np.full((3, 2, 4), 2.0)}
    images["made"][1] = -1.0
    fig = plots.pictures(images, xlabel="outfit, n = 3", ylabel="guidance")
    assert [ax.get_ylabel() for ax in fig.axes[::3]] == ["real", "made"]
    assert {ax.images[0].get_clim() for ax in fig.axes} == {(-1.0, 2.0)}
    assert fig.axes[4].images[0].get_array().tolist() == [[-1.0] * 4] * 2
    assert (fig.get_supxlabel(), fig.get_supylabel()) == ("outfit, n = 3", "guidance")


def test_a_heat_map_prints_each_number_in_its_cell():
    table = pd.DataFrame(
        {"field": ["b", "a", "b", "a"], "prompt": [2, 2, 1, 1], "weight": [0.01234, 0.5, 0.25, 0.75]}
    )
    fig = plots.heat_map(table, "field", "prompt", "weight", xlabel="prompt", label="attention")
    ax, colours = fig.axes
    rows, columns = (
        [tick.get_text() for tick in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels())
    )
    assert (rows, columns) == (["b", "a"], ["2", "1"]), "in order of appearance"
    assert ax.images[0].get_array().tolist() == [[0.01234, 0.25], [0.5, 0.75]]
    printed = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in ax.texts}
    assert printed == {(0, 0): "0.0123", (0, 1): "0.25", (1, 0): "0.5", (1, 1): "0.75"}
    assert (ax.get_xlabel(), colours.get_ylabel()) == ("prompt", "attention")


def test_lines_can_have_two_logarithmic_axes():
    table = pd.DataFrame({"g": "a", "n": [50, 500, 5_000], "v": [0.5, 5, 50]})
    fig = plots.lines(table, "n", "v", "g", xlabel="n", ylabel="v", logx=True, logy=True)
    fig.canvas.draw()
    (ax,) = fig.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert {"100", "1,000"} <= {tick.get_text() for tick in ax.get_xticklabels()}
    assert not fig.legends, "one curve needs none"


def test_a_missing_column_is_named():
    with pytest.raises(UserError, match="no column 'low'; it has label, value, high, group"):
        plots.forest(GAINS.drop(columns="low"), xlabel="gain")
    with pytest.raises(UserError, match="no column 'n'"):
        plots.gain_by_bin(BINS.drop(columns="n"), ylabel="gain")
    with pytest.raises(UserError, match="no column 'tokens'"):
        plots.lines(BINS, "n", "tokens", "arm", xlabel="n", ylabel="tokens")


def test_a_figure_is_saved_small_the_same_each_time_with_its_numbers_and_caption(output):
    caption = "Gains over DIN, 95 % intervals – “both” in orange."
    files = []
    for _ in range(2):
        fig = plots.forest(GAINS, xlabel="gain (%)")
        assert plots.save(fig, "01_kar", "gain", GAINS, caption) == caption
        plt.close(fig)
        files.append((output / "01_kar" / "gain.png").read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) < 40_000
    image = Image.open(BytesIO(files[0]))
    assert image.size[0] == 7 * plots.DPI
    assert image.text == {"Description": caption}, "and neither a time nor a program's version"
    pd.testing.assert_frame_equal(pd.read_csv(output / "01_kar" / "gain.csv"), GAINS)


def test_the_small_palette_keeps_the_colours(output):
    fig = plots.gain_by_bin(BINS, ylabel="gain (%)")
    plots.save(fig, "01_kar", "bins", BINS, "c")
    plain = BytesIO()
    fig.savefig(plain, dpi=plots.DPI, facecolor="white")
    saved = np.asarray(Image.open(output / "01_kar" / "bins.png").convert("RGB"), dtype=int)
    exact = np.asarray(Image.open(plain).convert("RGB"), dtype=int)
    assert np.abs(saved - exact).mean() < 0.5 and np.abs(saved - exact).max() < 64


def test_show_displays_the_saved_file_with_its_caption_as_text(output, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    fig = plots.forest(GAINS, xlabel="gain (%)")
    plots.show(fig, "01_kar", "gain", GAINS, "A caption.")
    picture, caption = shown
    assert picture.data == (output / "01_kar" / "gain.png").read_bytes()
    assert (picture.alt, picture.width, caption.data) == ("A caption.", 700, "*A caption.*")
    assert not plt.fignum_exists(fig.number)


def test_a_figure_needs_a_caption(output):
    with pytest.raises(UserError, match="'gain' needs a caption"):
        plots.save(plt.figure(), "01_kar", "gain", GAINS, "")
    assert not list(output.iterdir())


def test_a_legend_of_long_names_stays_inside_the_figure():
    table = pd.DataFrame({"label": list("abcd"), "value": 1.0, "low": 0.5, "high": 1.5})
    figure = plots.forest(
        table.assign(group=[f"a rather long name of group {g}" for g in "abcd"]), xlabel="x"
    )
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
