"""All claims of all papers in one table, from run records alone; `plots.standings` draws it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from rec_utils import formats
from rec_utils.cards import load_card
from rec_utils.claims import STATUSES
from rec_utils.records import Record


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
                "value": formats.value(verdict) or verdict.reason,
                "null": formats.with_unit(f"{verdict.null:g}", verdict.unit),
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


def headline_spread(records: Iterable[Record], profile: str = "laptop") -> pd.DataFrame:
    """The rows of `spread` for the numbers that claims were tested by, called by the id of their claim."""
    records = list(records)
    keys = ["notebook", "number"]
    board = claims(records).rename(columns={"claim": "number"})
    tested = board.loc[board["profile"] == profile, keys] if len(board) else pd.DataFrame(columns=keys)
    return spread(records, profile).merge(tested, on=keys)
