"""Tables for notebooks and README, made from cards and run records.

Command line: `update` writes README's tables, `check` tells whether they are up to date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from rec_utils import scoreboard, speed
from rec_utils.cards import Card, card_ids, load_card
from rec_utils.claims import Verdict
from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.formats import band, markdown, number, status, value, with_unit
from rec_utils.records import COMMITTED, Record, load
from rec_utils.settings import PROFILES, ROOT
from rec_utils.stats import Interval

README = ROOT / "README.md"

EXAMPLES = """examples:
  python -m rec_utils.report update
  python -m rec_utils.report check
"""

# ---------------------------------------------------------------- displays of a notebook


def card_markdown(card: Card) -> str:
    """The paper card as Markdown."""
    return (
        f"**{card.title}**  \n{card.authors}. {card.venue}. "
        f"[arXiv {card.arxiv}](https://arxiv.org/abs/{card.arxiv})\n\n"
        f"{card.summary}\n\n"
        f"*Official code:* {card.code}. *Licence:* {card.licence}."
    )


def claims_table(card: Card) -> pd.DataFrame:
    """The claims under test: what is measured, where the claim would be empty, what would match the paper."""
    return pd.DataFrame(
        {
            "claim": claim.text,
            "metric": claim.metric,
            "null": with_unit(f"{claim.null_value:g}", claim.unit),
            "match": with_unit(band(*claim.band), claim.unit),
            "from": "ours" if claim.ours else claim.source.where,
        }
        for claim in card.claims
    )


def verdict_table(verdicts: Sequence[Verdict], numbers: bool = True) -> pd.DataFrame:
    """Verdicts by claim id; without `numbers` only what a repeated run must give again."""
    rows = [
        {
            "claim": verdict.claim,
            "status": status(verdict),
            "value [95 % interval]": value(verdict),
            "null": with_unit(f"{verdict.null:g}", verdict.unit),
            "match": with_unit(band(*verdict.band), verdict.unit),
            "remark": verdict.reason or (f"weakest: {verdict.decided_by}" if verdict.decided_by else ""),
        }
        for verdict in verdicts
    ]
    table = pd.DataFrame(rows).set_index("claim")
    return table if numbers else pd.DataFrame({"status": [v.status for v in verdicts]}, index=table.index)


def paper_vs_ours(card: Card, ours: Mapping[str, float | Interval], setting: str) -> pd.DataFrame:
    """The paper's numbers beside ours; a cell nobody could read in the paper, or did not measure, is empty.

    Args:
        card: with the published numbers.
        ours: our numbers by the published entry's id. Entries without one are left out, unless the
            paper's number is known.
        setting: what ours were measured on, shown beside them since it is hardly ever the paper's.
    """
    published = {entry.id: entry for entry in card.published}
    for entry_id in ours:
        if entry_id not in published:
            raise UserError(f"card {card.id}: no published entry {entry_id!r}; it has {', '.join(published)}")
    return pd.DataFrame(
        {
            "table": entry.table,
            "cell": entry.cell,
            "unit": entry.unit,
            "paper": "" if entry.value is None else f"{entry.value:g}",
            "ours": number(ours[entry.id]) if entry.id in ours else "",
            "our setting": setting if entry.id in ours else "",
            "source of the paper's number": entry.source.where if entry.source else "",
        }
        for entry in card.published
        if entry.id in ours or entry.value is not None
    )


def cost_table(records: Iterable[Record]) -> pd.DataFrame:
    """What a run at default parameters costs, measured; below it the estimates of the cards for the rest."""
    records = [record for record in records if record.run_id == record.profile]
    rows = [
        {
            "notebook": record.notebook,
            "profile": record.profile,
            "time": f"{record.seconds:.0f} s" if record.seconds < 60 else f"{record.seconds / 60:.1f} min",
            "memory": f"{record.peak_memory_gb:.1f} GB" if record.peak_memory_gb else "",
            "device": _device(record.hardware),
        }
        for record in records
    ]
    measured = {(record.notebook, record.profile) for record in records}
    for card in map(load_card, card_ids()):
        for profile, text in card.estimates.items():
            if (card.notebook, profile) not in measured:
                time = f"estimate: {text}"
                rows.append(
                    {"notebook": card.notebook, "profile": profile, "time": time, "memory": "", "device": ""}
                )
    rows.sort(key=lambda row: (row["notebook"], PROFILES.index(row["profile"])))
    return pd.DataFrame(rows, columns=["notebook", "profile", "time", "memory", "device"])


# ---------------------------------------------------------------- over all records


def results_table(records: Iterable[Record], profile: str = "laptop", ours: bool = False) -> pd.DataFrame:
    """One row a claim, from the runs of a profile at default parameters.

    Papers' sizes are run in parts, too: of those runs the claims that they tested, with what was set.

    Args:
        records: from `records.load`.
        profile: which runs.
        ours: our own control claims instead of the papers' claims.
    """
    rows, records = [], list(records)
    default = {record.notebook: record.parameters for record in records if record.run_id == "laptop"}
    for record in records:
        whole = record.run_id == profile
        if record.profile != profile or not record.verdicts or not (whole or profile == "paper"):
            continue
        paper = load_card(record.card).name
        base = default.get(record.notebook, {})
        changed = {n: v for n, v in record.parameters.items() if n != "PROFILE" and v != base.get(n)}
        told = {n: " ".join(map(str, v)) if isinstance(v, list) else v for n, v in changed.items()}
        rows += [
            {
                "claim": verdict.text,
                "paper": paper,
                "status": status(verdict),
                "value [95 % interval]": value(verdict) or verdict.reason,
                "null": with_unit(f"{verdict.null:g}", verdict.unit),
                "settings": ", ".join(f"{name}={value}" for name, value in told.items()),
                "notebook": record.notebook,
            }
            for verdict in record.verdicts
            if verdict.ours == ours and (whole or verdict.value is not None)
        ]
    columns = ["claim", "paper", "status", "value [95 % interval]", "null", "settings", "notebook"]
    if profile == "laptop":  # always the defaults
        columns.remove("settings")
    return pd.DataFrame(rows, columns=columns)


def readme_blocks(records: list[Record], bench: Path) -> dict[str, str]:
    """The generated parts of README by the name of their markers.

    Args:
        records: of the notebooks.
        bench: folder of the records of the benchmarks.
    """
    records = [record for record in records if record.profile != "smoke"]  # which git ignores
    board = scoreboard.claims(records)
    parts = []
    if len(board):
        by_paper = scoreboard.summary(board[board["profile"] == "laptop"])
        by_paper["notebooks"] = [
            ", ".join(f"[{name}](notebooks/{name}.ipynb)" for name in names.split(", "))
            for names in by_paper["notebooks"]
        ]
        parts.append(f"**By paper, on shipped data (profile `laptop`)**\n\n{markdown(by_paper)}")
    for profile, where in (("laptop", "shipped data"), ("paper", "the papers' data")):
        for ours, heading in ((False, "Claims of the papers"), (True, "Controls of our own")):
            table = results_table(records, profile, ours)
            if profile == "laptop" or len(table):
                table["notebook"] = [f"[{name}](notebooks/{name}.ipynb)" for name in table["notebook"]]
                body = markdown(table) if len(table) else "No run has been recorded yet."
                title = f"{heading}, on {where} (profile <code>{profile}</code>): {len(table)}"
                parts.append(f"<details><summary>{title}</summary>\n\n{body}\n\n</details>")
    moved = scoreboard.headline_spread(records)
    if len(moved):
        for column in ("mean", "sd", "lowest", "highest"):
            moved[column] = moved[column].map("{:.3g}".format)
        title = f"How much the numbers of the claims move with the seed: {len(moved)}"
        parts.append(f"<details><summary>{title}</summary>\n\n{markdown(moved)}\n\n</details>")
    return {
        "results": "\n\n".join(parts),
        "cost": markdown(cost_table(records)),
        "speed": speed.block(bench),
    }


def render(readme: str, blocks: Mapping[str, str]) -> str:
    """README's text with the blocks put between their markers `<!-- name:begin -->`, `<!-- name:end -->`."""
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if readme.count(begin) != 1 or readme.count(end) != 1 or readme.index(end) < readme.index(begin):
            raise UserError(f"README.md needs the markers {begin} and {end} once each, in this order")
        head, rest = readme.split(begin)
        readme = f"{head}{begin}\n{block}\n{end}{rest.split(end)[1]}"
    return readme


def update_readme(path: Path = README, folder: Path = COMMITTED) -> bool:
    """Write the tables of the committed records into README, and the figure on speed; True if it changed.

    The records of the benchmarks stand in `bench` beside the folder of the notebooks' records.
    """
    old, bench = path.read_text(encoding="utf-8"), folder.parent / "bench"
    new = render(old, readme_blocks(load(folders=[folder]), bench))
    speed.draw(bench)
    if new != old:
        write_atomic(path, new)
    return new != old


def check_readme(path: Path = README, folder: Path = COMMITTED) -> None:
    """Raise `UserError` unless README's tables and the figure on speed are those of the committed records."""
    old, bench = path.read_text(encoding="utf-8"), folder.parent / "bench"
    current = render(old, readme_blocks(load(folders=[folder]), bench)) == old
    if not (current and speed.is_drawn(bench)):
        raise UserError(
            f"{path.name} does not show the records as they are; run: python -m rec_utils.report update"
        )


def _device(hardware: Mapping) -> str:
    return ", ".join(hardware["gpu"]) or f"{hardware['cores']} cores, {hardware['cpu']}"


# ---------------------------------------------------------------- command line


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m rec_utils.report",
        description="Tables made from the run records.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("update", help="write README's tables from the committed records")
    commands.add_parser("check", help="exit with status 2 if README's tables are out of date")
    arguments = parser.parse_args()
    if arguments.command == "update":
        print("README.md updated" if update_readme() else "README.md was up to date")
    else:
        check_readme()
        print("README.md is up to date")


if __name__ == "__main__":
    sys.exit(run_cli(main))
