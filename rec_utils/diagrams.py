"""Drawings of a field of research: its pipeline, its quadrants, and how its parts grow."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from rec_utils.plots import COLOURS, GREY, MARKERS, style

#: Width and gap of the boxes of a pipeline, in a drawing 10 wide.
_WIDTH, _GAP = 1.72, 0.31


def pipeline(table: pd.DataFrame, controller: str) -> Figure:
    """Stages of a recommender as boxes in a loop, with the number of works in each and in its tasks.

    Args:
        table: columns stage, task and n; a row a task ("" where a stage has none). Stages are drawn from left
            to right in order of appearance.
        controller: the stage that steers all others, drawn above them.
    """
    style()
    fig, ax = plt.subplots(figsize=(8.4, 3.1))
    ax.set(xlim=(0, 10), ylim=(0.15, 3.75))
    ax.axis("off")
    boxes = [part for part in table.groupby("stage", sort=False) if part[0] != controller]
    places = [0.07 + index * (_WIDTH + _GAP) for index in range(len(boxes))]
    for index, ((stage, part), left) in enumerate(zip(boxes, places, strict=True)):
        _box(ax, left, 0.75, _WIDTH, 1.75, stage, part, COLOURS[index % len(COLOURS)])
        if index:
            _arrow(ax, (left - _GAP, 1.62), (left, 1.62))
        _arrow(ax, (left + _WIDTH / 2, 2.95), (left + _WIDTH / 2, 2.5), color=GREY, style=":")
    width = places[-1] + _WIDTH - places[0]
    _box(ax, places[0], 2.95, width, 0.7, controller, table[table["stage"] == controller], "#333333")
    first, last = places[0] + _WIDTH / 2, places[-1] + _WIDTH / 2
    ax.plot([last, last, first], [0.75, 0.3, 0.3], color=GREY, linewidth=1.4)
    _arrow(ax, (first, 0.3), (first, 0.75))
    ax.text(
        (first + last) / 2, 0.33, "what users do becomes data again", ha="center", va="bottom", color=GREY
    )
    return fig


def _box(
    ax: Axes,
    left: float,
    low: float,
    width: float,
    height: float,
    stage: str,
    part: pd.DataFrame,
    colour: str,
) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (left + 0.05, low + 0.05),
            width - 0.1,
            height - 0.1,
            boxstyle="round,pad=0.05",
            facecolor="white",
            edgecolor=colour,
            linewidth=1.8,
        )
    )
    middle, n = left + width / 2, int(part["n"].sum())
    name = "\n".join(textwrap.wrap(stage, int(14 * width)))
    top = low + height - 0.12
    # a name may have a dollar sign, which is no formula
    text = {"ha": "center", "va": "top", "parse_math": False}
    ax.text(middle, top, name, weight="bold", color=colour, size=8.5, **text)
    tasks = [f"{row.n} {row.task}" for row in part.itertuples() if row.task]
    lines = [
        f"{n} works" if n else "no works listed",
        *(textwrap.fill(task, int(13 * width)) for task in tasks),
    ]
    below = low + height - 0.2 - 0.2 * (1 + name.count("\n"))
    ax.text(middle, below, "\n".join(lines), size=7.3, linespacing=1.35, **text)


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = "#333333", style: str = "-"
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=color,
            linestyle=style,
            shrinkA=0,
            shrinkB=0,
        )
    )


def quadrants(
    table: pd.DataFrame,
    column: str,
    level: str,
    *,
    names: Mapping[str, str],
    xlabel: str,
    columns: Sequence[str],
    levels: Sequence[str],
) -> Figure:
    """Works by name in four panels, sorted by a class, each with a mark of its level.

    Args:
        table: columns name, year and quadrant ("Q1" to "Q4"), and the two below.
        column: class of a work that gives its place from left to right.
        level: class of a work that gives colour and marker.
        names: quadrant -> title of its panel, in the order upper left, upper right, lower left, lower right.
        xlabel: what `column` is.
        columns: values of `column` in order.
        levels: values of `level` in order; those that no work has are left out of the legend.
    """
    style()
    # as many lines as the longest column of each row of panels needs
    depth = table.groupby(["quadrant", column]).size().groupby(level=0).max()
    order = list(names)
    rows = [max(depth.get(q, 1) for q in pair) for pair in (order[:2], order[2:])]
    fig, axes = plt.subplots(
        2, 2, figsize=(8.4, 1.5 + 0.16 * sum(rows)), sharex=True, gridspec_kw={"height_ratios": rows}
    )
    # black first: the palette of the PNG has room for few colours and would lose a rare one of its own
    colours = (COLOURS[-1], *COLOURS[1:-1])
    looks = {name: (colours[i % len(colours)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(levels)}
    for ax, (quadrant, title), n_rows in zip(axes.flat, names.items(), np.repeat(rows, 2), strict=True):
        part = table[table["quadrant"] == quadrant]
        for place, value in enumerate(columns):
            works = part[part[column] == value].sort_values(["year", "name"])
            for line, work in enumerate(works.itertuples()):
                colour, marker = looks[getattr(work, level)]
                ax.plot(place + 0.06, -line, marker, color=colour, markersize=4.5)
                said = f"{work.name} '{work.year % 100}"
                ax.text(place + 0.12, -line, said, va="center", size=7, parse_math=False)
        ax.set(
            xlim=(0, len(columns)), ylim=(0.6 - n_rows, 0.6), yticks=[], title=f"{title} (n = {len(part)})"
        )
        ax.set_xticks(np.arange(len(columns)) + 0.5, columns)
        ax.vlines(np.arange(1, len(columns)), *ax.get_ylim(), color="#E4E4E4", linewidth=0.7)
        ax.grid(visible=False)
        ax.tick_params(length=0)
        ax.spines[["top", "right"]].set_visible(True)
    for ax in axes[1]:
        ax.set_xlabel(xlabel)
    used = [name for name in levels if (table[level] == name).any()]
    handles = [
        Line2D([], [], linestyle="", marker=looks[name][1], color=looks[name][0], label=name) for name in used
    ]
    fig.legend(handles=handles, loc="outside upper left", ncols=len(used))
    return fig


def stacked(
    tables: Mapping[str, pd.DataFrame], *, xlabel: str, ylabel: str, orders: Mapping[str, Sequence[str]]
) -> Figure:
    """Counts on top of each other over time, one panel a way to divide them, two in a row.

    Args:
        tables: title of a panel -> counts, rows in time and a column a part.
        xlabel: what the rows are.
        ylabel: what is counted.
        orders: title of a panel -> its columns from the bottom up.
    """
    style()
    n_rows = (len(tables) + 1) // 2
    fig, axes = plt.subplots(n_rows, 2, figsize=(7, 0.6 + 2.4 * n_rows), sharex=True, squeeze=False)
    for ax in axes.flat[len(tables) :]:
        ax.remove()
    for ax, (title, counts) in zip(axes.flat, tables.items(), strict=False):
        base = np.zeros(len(counts))
        for index, part in enumerate(orders[title]):
            value = counts[part].to_numpy() if part in counts else np.zeros(len(counts))
            colour = GREY if part == "unknown" else COLOURS[index % len(COLOURS)]
            ax.bar(
                range(len(counts)), value, bottom=base, color=colour, label=part, edgecolor="white", width=0.8
            )
            base += value
        ax.set_xticks(range(len(counts)), counts.index, rotation=45, ha="right", rotation_mode="anchor")
        ax.grid(axis="x", visible=False)
        ax.set_title(title)
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], loc="upper left", fontsize=8)
    fig.supxlabel(xlabel, fontsize="medium")
    fig.supylabel(ylabel, fontsize="medium")
    return fig
