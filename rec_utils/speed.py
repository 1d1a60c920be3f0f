"""README's report on speed, made from the records of `make bench`: one table, one figure.

A record is a file of `figures/bench`; what is not recorded is said to be missing. Every number, goal, date
and machine comes from the records.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from rec_utils import plots, speed_figure
from rec_utils.formats import markdown
from rec_utils.speed_figure import NAMES, PEERS, TIMED


@dataclass(frozen=True)
class Row:
    """One comparison: the time of `other` over ours, or ours over that of `other`."""

    what: str
    ours: str  #: our time, with its unit
    other: str  #: what it is compared with, and its time
    ratio: str
    goal: str
    met: bool | None  #: None without goal

    def cells(self) -> dict[str, str]:
        """The row of the table."""
        verdict = {True: "met", False: "**MISSED**", None: "–"}[self.met]
        return {
            "what": self.what,
            "ours": self.ours,
            "against": self.other,
            "ratio [least, greatest]": self.ratio,
            "goal": self.goal or "–",
            "verdict": verdict,
        }


def seconds(values: Iterable[float]) -> str:
    """The median of some seconds, in a unit that suits it."""
    middle = statistics.median(values)
    return f"{1000 * middle:.3g} ms" if middle < 0.1 else f"{middle:.3g} s"


def spread(goal: Mapping[str, Any]) -> str:
    """A ratio with its least and greatest value."""
    return f"{goal['ratio']:.2f} [{goal['least']:.2f}, {goal['greatest']:.2f}]"


def bound(goal: Mapping[str, Any]) -> str:
    """The goal in signs; empty without one."""
    signs = {"≥": goal.get("at_least"), "≤": goal.get("at_most")}
    return "".join(f"{sign} {value:g}" for sign, value in signs.items() if value is not None)


# ---------------------------------------------------------------- the rows of each record


def of_training(record: Mapping[str, Any]) -> list[Row]:
    """Click models against the fastest peer and against the bare loop, DIN's attention, KAR's base."""
    rows = []
    for race in record["results"]:
        ran = race["contenders"]
        peers = [goal for goal in race["goals"] if goal["above"] in PEERS]
        for of, word in TIMED.items():
            fastest = sorted((p for p in peers if p["of"] == of), key=lambda goal: goal["ratio"])[:1]
            rest = [goal for goal in race["goals"] if goal["of"] == of and goal["above"] not in PEERS]
            for goal in fastest + rest:
                # a bound from above is one on our time over another's, all else is another's over ours
                ours, other = goal["above"], goal["below"]
                if goal["at_most"] is None:
                    ours, other = other, ours
                form = {"plain": ", attention factorised", "kar": " with KAR"}.get(goal["above"], "")
                rows.append(
                    Row(
                        f"{race['model']}{form}, batch {race['batch']}: {word}",
                        seconds(ran[ours][of]["processor"]),
                        f"{NAMES.get(other, 'the model alone')}, {seconds(ran[other][of]['processor'])}",
                        spread(goal),
                        bound(goal),
                        goal["met"],
                    )
                )
    return rows


def of_diffusion(record: Mapping[str, Any]) -> list[Row]:
    """DiffRec against RecBole's."""
    rounds = {name: contender["rounds"][1:] for name, contender in record["results"].items()}
    words = {"train": "training, an epoch", "evaluate": "evaluation"}
    return [
        Row(
            f"DiffRec: {words[goal['what']]}",
            seconds(turn[goal["what"]] for turn in rounds["ours"]),
            f"RecBole, {seconds(turn[goal['what']] for turn in rounds['recbole'])}",
            spread(goal),
            bound(goal),
            goal["met"],
        )
        for goal in record["goals"]
    ]


def of_decoding(record: Mapping[str, Any]) -> list[Row]:
    """Writing with a pool against the ways of transformers."""
    ms = record["race"]["ms a token"]
    return [
        Row(
            "writing with a pool, a token",
            f"{statistics.median(ms['ours']):.3g} ms",
            f"transformers, {goal['way']}, {statistics.median(ms[goal['way']]):.3g} ms",
            spread(goal),
            bound(goal),
            goal["met"],
        )
        for goal in record["race"]["goals"]
    ]


def of_streaming(record: Mapping[str, Any]) -> list[Row]:
    """LIBER's stream: does it stay as fast and as small?"""
    measured = {"time over yardstick": "time of an append", "memory (MB)": "memory"}
    return [
        Row(
            f"stream of {record['behaviours']:,} behaviours: {measured[judged['of']]}, second half",
            "",
            "its first half",
            f"{judged['ratio']:.2f}",
            "constant",
            judged["constant"],
        )
        for judged in record["second half over first"]
        if judged["contender"] == "partitions"
    ]


def of_raw_data(record: Mapping[str, Any]) -> list[Row]:
    """Millions of reviews in bounded memory."""
    words = {"build_books": "read and built", "core": "cut to their core"}
    return [
        Row(
            f"{record['reviews']:,} reviews {words[step['step']]}, {step['seconds']:.0f} s",
            f"{step['peak memory (GB)']:.2f} GB",
            "",
            "",
            record["goal"],
            step["within the goal"],
        )
        for step in record["results"]
    ]


def of_grid(record: Mapping[str, Any]) -> list[Row]:
    """A grid of runs on two workers."""
    took = {
        workers: [row["seconds"] for row in record["results"] if row["workers"] == workers]
        for workers in (1, 2)
    }
    what, against = f"grid of {record['runs']} runs on two workers", f"one worker, {seconds(took[1])}"
    return [Row(what, seconds(took[2]), against, f"{record['speed-up']:.2f}", "", None)]


#: The records, in the order of the table.
PARTS = {
    "training": of_training,
    "diffusion": of_diffusion,
    "decoding": of_decoding,
    "streaming": of_streaming,
    "raw_data": of_raw_data,
    "grid": of_grid,
}


# ---------------------------------------------------------------- the report


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """The records that there are, by name."""
    paths = {name: folder / f"{name}.json" for name in PARTS}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()
    }


def block(folder: Path) -> str:
    """README's text on speed from the records of a folder."""
    records = load(folder)
    rows, notes = [], []
    for name, rows_of in PARTS.items():
        record = records.get(name)
        # what an older run did not measure is as good as not recorded
        if record is None or (name == "decoding" and "race" not in record):
            notes.append(f"- {name}: not recorded; `python -m tests.bench.{name} --record {name}` does it.")
            continue
        rows += rows_of(record)
        notes.append(f"- {name}: {about(record)}")
    judged = [row.met for row in rows if row.met is not None]
    parts = []
    if rows:
        parts.append(f"{sum(judged)} of {len(judged)} goals are met.")
        parts.append(markdown(pd.DataFrame([row.cells() for row in rows])))
    points = speed_figure.points(records)
    if len(points):
        picture = "![Ratios of times, most of them in the table above](figures/bench/speed.png)"
        link = "Its numbers: [speed.csv](figures/bench/speed.csv)."
        parts += [picture, f"*{speed_figure.caption(points)}* {link}"]
    return "\n\n".join([*parts, "\n".join(notes)])


def about(record: Mapping[str, Any]) -> str:
    """When and on what a record was made, and what else is to be known."""
    hardware = record["hardware"]
    threads = f"{hardware['threads']} thread{'s' if hardware['threads'] > 1 else ''}"
    made = f"{record['finished'][:10]}, {hardware['cpu']}, {hardware['cores']} cores, {threads}"
    return "; ".join([made, *REMARKS.get(record["benchmark"], lambda _: [])(record)]) + "."


def on_training(record: Mapping[str, Any]) -> list[str]:
    """Size of the races, how the clock differs, the peers' sizes and versions, and who is skipped."""
    races = record["results"]
    clock = [goal["by the clock"] / goal["ratio"] for race in races for goal in race["goals"]]
    sizes = [
        contender["parameters"] / race["contenders"]["loop"]["parameters"]
        for race in races
        for name, contender in race["contenders"].items()
        if name in PEERS
    ]
    versions = {
        part
        for race in races
        for contender in race["contenders"].values()
        for part in contender["software"].split(", ")
    }
    skipped = [
        f"{NAMES[name]} is skipped for {race['model']}: {reason}"
        for race in races
        for name, reason in race["skipped"].items()
    ]
    return [
        f"{record['samples']:,} samples, {record['repeats']} rounds",
        f"processor's time, by the clock the ratios are {min(clock):.2f} to {max(clock):.2f} times these",
        *([f"peers have {min(sizes):.2f} to {max(sizes):.2f} times our parameters"] if sizes else []),
        ", ".join(sorted(versions)),
        *dict.fromkeys(skipped),
    ]


def on_diffusion(record: Mapping[str, Any]) -> list[str]:
    """Rounds and versions."""
    peer = record["results"].get("recbole", {"software": "without RecBole"})
    return [f"{record['repeats']} rounds", "processor's time", peer["software"]]


def on_decoding(record: Mapping[str, Any]) -> list[str]:
    """Size of the race, and whether all wrote the same."""
    race = record["race"]
    return [
        f"{race['prompts']} prompts, {race['repeats']} rounds, least and greatest over prompts",
        f"a model of {race['parameters']:,} parameters",
        f"{race['texts as generate']} of {race['prompts']} texts are those of generate",
        f"transformers {record['versions']['transformers']}",
    ]


REMARKS = {"training": on_training, "diffusion": on_diffusion, "decoding": on_decoding}


def draw(folder: Path) -> None:
    """Write the figure `speed.png` and its numbers `speed.csv` beside the records, if there are any."""
    points = speed_figure.points(load(folder))
    if len(points):
        fig = speed_figure.figure(points)
        plots.write(fig, folder, "speed", points, speed_figure.caption(points))
        plt.close(fig)


def is_drawn(folder: Path) -> bool:
    """Whether the figure shows the records as they are; without records there is nothing to draw."""
    points, path = speed_figure.points(load(folder)), folder / "speed.csv"
    return not len(points) or (path.exists() and path.read_text(encoding="utf-8") == plots.as_csv(points))
