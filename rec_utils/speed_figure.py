"""The figure of the report on speed: the numbers drawn, and the drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rec_utils import plots

#: What is timed of a click model, as a record calls it, and in words.
TIMED = {"train": "training", "predict": "inference"}
PEERS = {
    "fuxictr": "FuxiCTR",
    "recbole": "RecBole",
    "deepctr": "DeepCTR-Torch",
    "rechub": "torch-rechub",
}
NAMES = PEERS | {"bare": "bare loop", "plain": "usual form of attention"}
#: Panel -> label of its axis, and the ticks that it may have.
AXES = {
    "others": ("time of others / ours (log)", (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30)),
    "bare": ("our loop / bare loop (log)", (0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5)),
}


def points(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The numbers of the figure: panel, label, contender, value, low, high, goal, n (rounds or prompts)."""
    found = []

    def add(panel: str, label: str, contender: str, goal: Mapping[str, Any], n: int) -> None:
        bounds = (goal.get("at_least"), goal.get("at_most"))
        found.append(
            {
                "panel": panel,
                "label": label,
                "contender": contender,
                "value": goal["ratio"],
                "low": goal["least"],
                "high": goal["greatest"],
                "goal": next((value for value in bounds if value is not None), None),
                "n": n,
            }
        )

    for race in records.get("training", {"results": []})["results"]:
        for goal in race["goals"]:
            label = f"{race['model']} {race['batch']}, {TIMED[goal['of']]}"
            n = records["training"]["repeats"]
            if goal["above"] == "loop":
                add("bare", label, NAMES["bare"], goal, n)
            elif goal["above"] != "kar":
                add("others", label, NAMES[goal["above"]], goal, n)
    if "diffusion" in records:
        for goal in records["diffusion"]["goals"]:
            words = {"train": "training", "evaluate": "evaluation"}
            label = f"DiffRec, {words[goal['what']]}"
            add("others", label, NAMES["recbole"], goal, records["diffusion"]["repeats"])
    for goal in records.get("decoding", {}).get("race", {"goals": []})["goals"]:
        n = records["decoding"]["race"]["prompts"]
        add("others", f"decoding, {goal['way']}", "transformers", goal, n)
    return pd.DataFrame(found)


def caption(points: pd.DataFrame) -> str:
    """What the figure shows, in words."""
    n = " or ".join(str(n) for n in sorted(points["n"].unique()))
    text = "Time of others over ours, median, least and greatest; right of 1 ours is faster."
    if (points["panel"] == "bare").any():
        text += " Beside it our loop over the bare one, the limit."
    return f"{text} n = {n} rounds (decoding: prompts). A grey bar is the goal."


def figure(points: pd.DataFrame) -> Figure:
    """Ratios with their ranges, one line a comparison; others on the left, the bare loop on the right."""
    plots.style()
    labels = list(dict.fromkeys(points["label"]))[::-1]
    contenders = list(dict.fromkeys(points["contender"]))
    panels = [panel for panel in AXES if (points["panel"] == panel).any()]
    fig, axes = plt.subplots(
        1,
        len(panels),
        sharey=True,
        squeeze=False,
        figsize=(9, 1.7 + 0.34 * len(labels)),
        width_ratios=[2.4, 1][: len(panels)],
    )
    legend = {}
    for ax, panel in zip(axes[0], panels, strict=True):
        xlabel, ticks = AXES[panel]
        for (label, contender), rows in points[points["panel"] == panel].groupby(["label", "contender"]):
            place, index = labels.index(label), contenders.index(contender)
            beside = list(points.loc[(points["panel"] == panel) & (points["label"] == label), "contender"])
            legend[contender] = ax.errorbar(
                rows["value"],
                # those of one line stand one above the other, so that none hides another
                [place + 0.13 * ((len(beside) - 1) / 2 - beside.index(contender))],
                xerr=[rows["value"] - rows["low"], rows["high"] - rows["value"]],
                fmt=plots.MARKERS[index % len(plots.MARKERS)],
                color=plots.COLOURS[index % len(plots.COLOURS)],
                markersize=4.5,
            )
            bar = {"color": "#CFCFCF", "linewidth": 4, "solid_capstyle": "butt"}
            for goal in rows["goal"].dropna():
                (legend["goal"],) = ax.plot([goal, goal], [place - 0.4, place + 0.4], **bar, zorder=1)
        ax.axvline(1, color=plots.GREY, linewidth=1, linestyle="--", zorder=1)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ax.set_xticks([tick for tick in ticks if low <= tick <= high])
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(xlabel)
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(-0.6, len(labels) - 0.4)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    names = [name for name in [*contenders, "goal"] if name in legend]
    fig.legend([legend[name] for name in names], names, loc="outside upper left", ncols=4)
    return fig
