"""One look for all figures, and every figure saved with the numbers that it draws.

axes = plots.forest(table, null=0, xlabel="AUC gain over DIN (%)")
plots.show(axes.figure, "01_kar", "gain", table, "Gain of each arm over DIN, 95 % intervals over users.")
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

from rec_utils import formats
from rec_utils.errors import UserError
from rec_utils.files import write_atomic
from rec_utils.settings import output_dir

#: Okabe and Ito's colours, told apart with any kind of colour vision; yellow is left out as too light.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#767676"

#: Beyond so many half-widths of an interval a claim is drawn at the edge: surer than sure needs no scale.
_EDGE = 6.0
#: Colour and marker of each status.
_LOOK = {
    "matched": (COLOURS[2], "o"),
    "partly": (COLOURS[4], "D"),
    "not matched": (COLOURS[1], "s"),
}

#: Dots an inch: twice what a figure of 7 inches takes on a screen 700 pixels wide, so it stays sharp.
DPI = 200

_STYLE = {
    "figure.figsize": (7, 3.5),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
}


def style() -> None:
    """Use the project's look for every figure made from here on."""
    plt.rcParams.update(_STYLE)


def forest(table: pd.DataFrame, *, xlabel: str, null: float = 0.0) -> Figure:
    """Intervals below each other, with a line at the null: which differences are sure?

    Args:
        table: columns label, value, low, high and optionally group; drawn from top to bottom. Rows of one
            group share a colour and a marker.
        xlabel: what is measured, with its unit.
        null: where there is no difference.
    """
    _need(table, "label", "value", "low", "high")
    style()
    fig, ax = plt.subplots(figsize=(7, 1.1 + 0.3 * len(table)))
    place = np.arange(len(table))[::-1]
    groups = table["group"] if "group" in table else pd.Series("", index=table.index)
    for index, group in enumerate(groups.unique()):
        rows = (groups == group).to_numpy()
        _intervals(ax, table[rows], place[rows], index, label=str(group), horizontal=True)
    ax.axvline(null, color=GREY, linewidth=1, linestyle="--", zorder=1)
    ax.set_yticks(place, table["label"])
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    _legend(fig, ax)
    return fig


def gain_by_bin(table: pd.DataFrame, *, ylabel: str, null: float = 0.0) -> Figure:
    """A gain over bins of users or items: one panel a binning, one line an arm, intervals, and bin sizes.

    Args:
        table: columns by (what is binned, the panel's x label), bin, arm, value, low, high and n (size of the
            bin, the same for all arms); panels, bins and arms are drawn in order of appearance.
        ylabel: what is measured, with its unit.
        null: where there is no gain.
    """
    _need(table, "by", "bin", "arm", "value", "low", "high", "n")
    style()
    panels, arms = table["by"].unique(), table["arm"].unique()
    size = (7, 3.5) if len(panels) == 1 else (4.8 * len(panels), 3.6)
    fig, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=size)
    fig.get_layout_engine().set(wspace=0.05)
    for ax, panel in zip(axes[0], panels, strict=True):
        part = table[table["by"] == panel]
        sizes = part.drop_duplicates("bin").set_index("bin")["n"]
        for index, arm in enumerate(arms):
            rows = part[part["arm"] == arm]
            # side by side, so that intervals do not hide each other
            place = sizes.index.get_indexer(rows["bin"]) + 0.09 * (index - (len(arms) - 1) / 2)
            ax.plot(place, rows["value"], color=COLOURS[index % len(COLOURS)], alpha=0.55, zorder=2)
            _intervals(ax, rows, place, index, label=str(arm), horizontal=False)
        ax.axhline(null, color=GREY, linewidth=1, linestyle="--", zorder=1)
        ax.set_xticks(range(len(sizes)), [f"{name}\nn = {n:,}" for name, n in sizes.items()])
        ax.set_xlim(-0.6, len(sizes) - 0.4)  # also centres the points of a single bin
        ax.grid(axis="x", visible=False)
        ax.set_xlabel(panel)
    axes[0, 0].set_ylabel(ylabel)
    _legend(fig, axes[0, 0])
    return fig


def ranked(table: pd.DataFrame, *, xlabel: str, ylabel: str) -> Figure:
    """Values of each group from the largest to the smallest: how unequal are they?

    Args:
        table: columns group and value; groups are drawn in order of appearance.
        xlabel: what is ranked.
        ylabel: what is measured, with its unit.
    """
    _need(table, "group", "value")
    style()
    fig, ax = plt.subplots(figsize=(7, 3.2))
    for index, (group, part) in enumerate(table.groupby("group", sort=False)):
        values = np.sort(part["value"])[::-1]
        look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        ax.plot(np.arange(1, len(values) + 1), values, label=str(group), markersize=3, **look)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    _legend(fig, ax)
    return fig


def lines(
    table: pd.DataFrame,
    x: str,
    y: str,
    group: str,
    *,
    xlabel: str,
    ylabel: str,
    logx: bool = False,
    logy: bool = False,
) -> Figure:
    """Curves of many points, one a group: how fast does each grow?

    Args:
        table: points in the order in which they are joined; groups are drawn in order of appearance.
        x: column along the axis.
        y: column of what is measured. On a logarithmic axis the curve begins where it leaves 0.
        group: column of the curves' names.
        xlabel: label of the axis, with its unit.
        ylabel: what is measured, with its unit.
        logx: a logarithmic axis.
        logy: likewise.
    """
    _need(table, x, y, group)
    style()
    fig, ax = plt.subplots()
    if logx:
        ax.set_xscale("log", nonpositive="mask")
    if logy:
        ax.set_yscale("log", nonpositive="mask")
    for index, (name, part) in enumerate(table.groupby(group, sort=False)):
        # markers tell the curves apart without colour: of long ones a few, each curve's at places of its own
        look = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        markers = (0.02 * (index + 1), 0.12) if len(part) > 20 else 1
        ax.plot(part[x], part[y], label=str(name), markevery=markers, **look)
    ax.xaxis.set_major_formatter("{x:,.10g}")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    _legend(fig, ax)
    return fig


def heat_map(table: pd.DataFrame, row: str, column: str, value: str, *, xlabel: str, label: str) -> Figure:
    """A number for each pair of two names, as a colour and in print: which pairs stand out?

    Args:
        table: one line a pair; rows and columns are drawn in order of appearance.
        row: column of the rows' names.
        column: column of the columns' names.
        value: column of what is measured.
        xlabel: what the columns are.
        label: what is measured, with its unit.
    """
    _need(table, row, column, value)
    style()
    grid = table.pivot(index=row, columns=column, values=value)
    grid = grid.loc[table[row].unique(), table[column].unique()]
    fig, ax = plt.subplots(figsize=(7, 1.4 + 0.4 * len(grid)))
    image = ax.imshow(grid, cmap="cividis", aspect="auto")
    for (y, x), number in np.ndenumerate(grid.to_numpy()):
        light = image.norm(number) > 0.5
        ax.text(x, y, f"{number:.3g}", ha="center", va="center", color="black" if light else "white")
    ax.set_xticks(range(grid.shape[1]), grid.columns)
    ax.set_yticks(range(grid.shape[0]), grid.index)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set_xlabel(xlabel)
    fig.colorbar(image, label=label)
    return fig


def pictures(images: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str) -> Figure:
    """Small grey pictures, one row a name: what does each of several ways make of the same?

    Args:
        images: name -> [n, height, width], bright for large values; all rows have the same n and range.
        xlabel: what a column is, with n.
        ylabel: what a row is.
    """
    style()
    n = min(map(len, images.values()))
    everything = np.concatenate([np.ravel(of_row) for of_row in images.values()])
    fig, axes = plt.subplots(
        len(images), n, squeeze=False, figsize=(1.8 + 0.55 * n, 0.6 + 0.58 * len(images))
    )
    for row, (name, of_row) in zip(axes, images.items(), strict=True):
        for ax, image in zip(row, of_row, strict=True):
            ax.imshow(image, cmap="gray", vmin=everything.min(), vmax=everything.max())
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(visible=False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    fig.supxlabel(xlabel, fontsize="medium")
    fig.supylabel(ylabel, fontsize="medium")
    return fig


def standings(table: pd.DataFrame) -> Figure:
    """Every claim as a point: how far from its null, on which side, and was it matched?

    Args:
        table: columns paper, claim, ours (whether it is our own control), status and standing (value minus
            null in half-widths of the interval, positive on the claimed side; nan if not testable). A claim
            at 1 just excludes its null, one between -1 and 1 cannot be told from it. How many claims of a
            paper are not testable stands at the right.
    """
    style()
    papers = table["paper"].unique()
    fig, axes = plt.subplots(1, 2, sharey=True, figsize=(9, 1.2 + 0.55 * len(papers)))
    for ax, ours, title in zip(
        axes, (False, True), ("claims of the papers", "controls of our own"), strict=True
    ):
        side = table[table["ours"] == ours]
        # claims of one paper stand one above the other, so that none hides another
        place = side.groupby("paper").cumcount() / side.groupby("paper")["claim"].transform("size")
        height = pd.Index(papers).get_indexer(side["paper"]) + 0.8 * (place - 0.4)
        ax.axvspan(-1, 1, color="#EEEEEE", zorder=0)
        ax.axvline(0, color=GREY, linewidth=0.8)
        for status, (colour, marker) in _LOOK.items():
            of = side["status"] == status
            x = side["standing"].clip(-_EDGE, _EDGE)[of]
            ax.plot(x, height[of], marker, color=colour, markersize=4, alpha=0.85, linestyle="", label=status)
        untested = side[side["standing"].isna()].groupby("paper").size()
        for i, paper in enumerate(papers):
            if paper in untested:
                ax.text(_EDGE + 0.5, i, f"+{untested[paper]}", va="center", color=GREY)
        for border in range(1, len(papers)):
            ax.axhline(border - 0.5, color="#E4E4E4", linewidth=0.7)
        ax.set_xlim(-_EDGE - 0.5, _EDGE + 1.6)
        ax.set_title(f"{title}, n = {len(side)}")
        ax.set_xlabel("value minus null, in half-widths of the interval")
        ax.grid(visible=False, axis="y")
    axes[0].set_yticks(range(len(papers)), papers)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return fig


def save(fig: Figure, notebook: str, name: str, data: pd.DataFrame, caption: str) -> str:
    """`write` to `<output_dir>/<notebook>`, such as "01_kar"; return the caption."""
    return write(fig, output_dir() / notebook, name, data, caption)


def write(fig: Figure, folder: Path, name: str, data: pd.DataFrame, caption: str) -> str:
    """Write `<name>.png` and `.csv` to a folder; return the caption.

    The PNG is the same byte for byte whenever the figure is, and carries the caption as its description.

    Args:
        fig: the figure.
        folder: where to.
        name: of the figure, without suffix.
        data: the numbers drawn.
        caption: what the figure shows, in words: the text of those who cannot see it.
    """
    if not caption:
        raise UserError(f"figure {name!r} needs a caption")
    write_atomic(folder / f"{name}.png", _png(fig, caption))
    write_atomic(folder / f"{name}.csv", as_csv(data))
    return caption


def as_csv(data: pd.DataFrame) -> str:
    """The numbers of a figure as they are written beside it."""
    return data.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def show(fig: Figure, notebook: str, name: str, data: pd.DataFrame, caption: str) -> None:
    """`save`, then display in the notebook the very file, with the caption as its alternative text."""
    from IPython.display import Image as Display
    from IPython.display import Markdown, display

    save(fig, notebook, name, data, caption)
    plt.close(fig)  # else the inline backend shows it a second time
    path = output_dir() / notebook / f"{name}.png"
    display(Display(path.read_bytes(), alt=caption, width=round(fig.get_figwidth() * 100)))
    display(Markdown(f"*{formats.inert(caption)}*"))


def _png(fig: Figure, caption: str) -> bytes:
    """PNG bytes in a palette of 64 colours: a third of the size and no difference to the eye."""
    raw, small = BytesIO(), BytesIO()
    fig.savefig(raw, format="png", dpi=DPI, facecolor="white")
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Description", caption)
    image = Image.open(raw).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True, pnginfo=text, dpi=(DPI, DPI))
    return small.getvalue()


def _intervals(
    ax: Axes, rows: pd.DataFrame, place: np.ndarray, index: int, label: str, horizontal: bool
) -> None:
    """Points with intervals in the colour and marker of `index`."""
    value = rows["value"].to_numpy()
    error = np.abs(rows[["low", "high"]].to_numpy().T - value)
    x, y, bars = (value, place, {"xerr": error}) if horizontal else (place, value, {"yerr": error})
    ax.errorbar(
        x,
        y,
        **bars,
        fmt=MARKERS[index % len(MARKERS)],
        color=COLOURS[index % len(COLOURS)],
        capsize=2.5,
        label=label,
        zorder=3,
    )


def _legend(fig: Figure, ax: Axes) -> None:
    """One legend above all panels, where it hides nothing; none for a single entry."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        inches = 0.6 + 0.09 * max(map(len, labels))  # an entry's handle and text
        ncols = max(1, min(len(labels), 4, int(fig.get_figwidth() / inches)))
        fig.legend(handles, labels, loc="outside upper left", ncols=ncols)


def _need(table: pd.DataFrame, *columns: str) -> None:
    if missing := [column for column in columns if column not in table]:
        raise UserError(
            f"the table to draw has no column {missing[0]!r}; it has {', '.join(map(str, table))}"
        )
