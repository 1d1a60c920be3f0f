"""All claims of all papers in one table and one figure, from run records alone."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rec_utils import plots, report
from rec_utils.cards import load_card
from rec_utils.claims import STATUSES
from rec_utils.records import Record

#: Beyond so many half-widths of an interval a claim is drawn at the edge: surer than sure needs no scale.
EDGE = 6.0
#: Colour and marker of each status.
LOOK = {
    "matched": (plots.COLOURS[2], "o"),
    "partly": (plots.COLOURS[4], "D"),
    "not matched": (plots.COLOURS[1], "s"),
}


def claims(records: Iterable[Record]) -> pd.DataFrame:
    """One row a claim and profile, from runs at default parameters.

    Returns:
        paper, notebook, profile, claim (its id), text, ours (whether it is our own control), status, value
        (with interval and unit), null, standing (distance of value from null in half-widths of the interval,
        positive on the claimed side; nan if not testable), data, seconds, command.
    """
    rows = []
    for record in records:
        if record.run_id != record.profile or not record.verdicts:
            continue
        paper = load_card(record.card).name
        command = f"python -m rec_utils.batch run {record.notebook}"
        shared = {
            "data": ", ".join(sorted(record.data)) or "released files",
            "seconds": record.seconds,
            "command": command if record.profile == "laptop" else f"{command} --profile {record.profile}",
        }
        rows += [
            {
                "paper": paper,
                "notebook": record.notebook,
                "profile": record.profile,
                "claim": verdict.claim,
                "text": verdict.text,
                "ours": verdict.ours,
                "status": verdict.status,
                "value": report.value(verdict) or verdict.reason,
                "null": f"{verdict.null:g} {verdict.unit}".strip(),
                "standing": np.nan if verdict.margin is None else verdict.margin + 1,
            }
            | shared
            for verdict in record.verdicts
        ]
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each paper have which status; `table` is that of `claims`, one profile of it.

    Returns:
        One row a paper in order of appearance: the statuses of the paper's own claims, "controls" (of our
        own that hold, of how many), data, minutes of all its notebooks, and its notebooks.
    """
    rows = []
    for paper, part in table.groupby("paper", sort=False):
        own, controls = part[~part["ours"]], part[part["ours"]]
        notebooks = part.drop_duplicates("notebook")
        names = sorted({name for data in part["data"] for name in data.split(", ")})
        rows.append(
            {"paper": paper, "claims": len(own)}
            | {status: int((own["status"] == status).sum()) for status in STATUSES}
            | {
                "controls that hold": f"{(controls['status'] == 'matched').sum()} of {len(controls)}",
                "data": ", ".join(names),
                "minutes": round(notebooks["seconds"].sum() / 60, 1),
                "notebooks": ", ".join(notebooks["notebook"]),
            }
        )
    return pd.DataFrame(rows)


def spread(records: Iterable[Record], profile: str = "laptop") -> pd.DataFrame:
    """How much each number moves with the seed: runs that differ in SEED, and in SWEEP, alone.

    Returns:
        notebook, number, seeds (how many), mean, sd, lowest, highest; numbers with one seed are left out.
    """
    records = list(records)
    defaults = {
        record.notebook: record.parameters for record in records if record.run_id == record.profile == profile
    }
    values: dict[tuple[str, str], dict[int, float]] = {}
    for record in records:
        base = defaults.get(record.notebook)
        if base is None or record.profile != profile or "SEED" not in record.parameters:
            continue
        free = {"SEED", "SWEEP"}
        if any(record.parameters[name] != base[name] for name in base if name not in free):
            continue
        for name, metric in record.metrics.items():
            number = getattr(metric, "value", metric)
            values.setdefault((record.notebook, name), {})[record.parameters["SEED"]] = float(number)
    rows = [
        {
            "notebook": notebook,
            "number": name,
            "seeds": len(found),
            "mean": np.mean(list(found.values())),
            "sd": np.std(list(found.values()), ddof=1),
            "lowest": min(found.values()),
            "highest": max(found.values()),
        }
        for (notebook, name), found in values.items()
        if len(found) > 1
    ]
    return pd.DataFrame(rows, columns=["notebook", "number", "seeds", "mean", "sd", "lowest", "highest"])


def figure(table: pd.DataFrame) -> Figure:
    """Every claim as a point: how far from its null, on which side, and was it matched?

    Args:
        table: of `claims`, one profile of it. A claim at 1 just excludes its null, one between -1 and 1
            cannot be told from it; how many of a paper are not testable stands at the right.
    """
    plots.style()
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
        ax.axvline(0, color=plots.GREY, linewidth=0.8)
        for status, (colour, marker) in LOOK.items():
            of = side["status"] == status
            x = side["standing"].clip(-EDGE, EDGE)[of]
            ax.plot(x, height[of], marker, color=colour, markersize=4, alpha=0.85, linestyle="", label=status)
        untested = side[side["standing"].isna()].groupby("paper").size()
        for i, paper in enumerate(papers):
            if paper in untested:
                ax.text(EDGE + 0.5, i, f"+{untested[paper]}", va="center", color=plots.GREY)
        for border in range(1, len(papers)):
            ax.axhline(border - 0.5, color="#E4E4E4", linewidth=0.7)
        ax.set_xlim(-EDGE - 0.5, EDGE + 1.6)
        ax.set_title(f"{title}, n = {len(side)}")
        ax.set_xlabel("value minus null, in half-widths of the interval")
        ax.grid(visible=False, axis="y")
    axes[0].set_yticks(range(len(papers)), papers)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return fig
