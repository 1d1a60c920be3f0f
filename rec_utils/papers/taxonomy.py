"""The survey's list of works as a table: where language models enter a recommender, and how.

Lin et al., "How Can Recommender Systems Benefit from Large Language Models: A Survey", ACM TOIS,
arXiv 2306.05817. Its authors keep a list by the survey's taxonomy, github.com/CHIANGEL/Awesome-LLM-for-RecSys
(MIT). Its copy of commit bd54d40 (17 January 2026) and the table that `parse` makes of it are bundled.

    python -m rec_utils.papers.taxonomy diff NEW.md     what a newer copy of the list changes

A name is no key: 162 names stand for 189 rows, 15 of them "N/A". A row is known by its leaf and its paper.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rec_utils.errors import UserError, run_cli
from rec_utils.files import write_atomic
from rec_utils.settings import BUNDLED

FOLDER = BUNDLED / "llm-survey"
LIST = FOLDER / "awesome-llm-for-recsys.md"
TABLE = FOLDER / "works.csv"

#: The first stage of the pipeline, of which the list has no works, and the others by their number in it.
COLLECTION = "user data collection"
STAGES = {
    "1.1": "feature engineering",
    "1.2": "feature encoder",
    "1.3": "scoring or ranking",
    "1.4": "user interaction",
    "1.5": "pipeline controller",
}
#: Classes of the largest language model of a work, as in the survey's Figure 4, and what has no known size.
SIZES = ("<1B", "1-10B", "10-100B", ">100B")
UNKNOWN = "unknown"
#: How the language model is trained. PEFT holds whatever trains a part of it, such as its last layer.
TUNINGS = ("frozen", "PEFT", "full", "mixed", UNKNOWN)
#: The columns of a work.
COLUMNS = [
    *("stage", "leaf", "name", "title", "backbone", "model", "size_b", "size", "tuning", "tuned"),
    *("venue", "year", "arxiv", "month", "link"),
]
#: Those of a paper of which the list gives no more.
PAPER_COLUMNS = ["leaf", "title", "venue", "year", "arxiv", "month", "link"]

_PAPER_LISTS = {"1.6", "1.7"}  # related surveys, newest works
_WORK_HEADER = ["Name", "Paper", "LLM Backbone (Largest)", "LLM Tuning Strategy", "Publication", "Link"]
_PAPER_HEADER = ["Paper", "Publication", "Link"]
_HEADING = re.compile(r"(?:<b>|^#+\s+)(?P<number>\d+(?:\.\d+)*)\.?\s+(?P<name>[^<]+)|^#+\s")
_URL = re.compile(r"https?://[^\s()\[\]]+")
_ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{5})", re.IGNORECASE)
_SIZE = re.compile(r"\((?:about )?([\d.]+) ?([MB])\)")
#: Models that their owners call large without a number; counted as the largest class, as the survey does.
_CLOSED = re.compile(r"ChatGPT|gpt-?[34]|davinci", re.IGNORECASE)
_SMALL = {"BERT-mini"}  # 11 million parameters, but the list says none
_FULL = re.compile(r"full finetun|\bfft\b|\bfinetune\b|finetuning api", re.IGNORECASE)
_PART = re.compile(r"LoRA|ad(?:ap|a)ter|prefix|prompt|option|layer|parameter-eff", re.IGNORECASE)
#: Slips and spellings of the list.
_MODELS = {
    "GPT4": "GPT-4",
    "GPT3": "GPT-3",
    "GPT2": "GPT-2",
    "GhatGLM": "ChatGLM",
    "FLAN-5-XXL": "FLAN-T5-XXL",
}
_VENUES = {"Arxiv": "arXiv", "Arixv": "arXiv", "Avrxi": "arXiv", "Preprint": "preprint", "NIPS": "NeurIPS"}


def parse(text: str) -> pd.DataFrame:
    """The works under the headings 1.1 to 1.5 of the list, in its order; one row a work and leaf.

    Args:
        text: Markdown of the list.

    Returns:
        The columns of `COLUMNS`: stage (of `STAGES`), leaf ("1.3.1 Item Scoring Task"), name ("N/A" where the
        work has none), title, backbone (as written), model (the first backbone without its size), size_b
        (billions of parameters of the largest backbone, NaN where not given), size (of `SIZES`, or unknown),
        tuning (as written), tuned (of `TUNINGS`), venue, year (of publication, may be missing), arxiv ("" if
        the link is another), month ("2023-05", that of the arXiv number) and link.

    Raises:
        UserError: there is no work, or a table is malformed; the message names line and heading.
    """
    rows = []
    for where, leaf, cells in _rows(text):
        if leaf[:3] in STAGES:
            name, title, backbone, tuning, publication, link = cells
            stage = STAGES[leaf[:3]]
            about = {"stage": stage, "leaf": leaf, "name": name, "title": title}
            rows.append(about | _model(backbone) | _tuning(tuning) | _published(publication, link, where))
    if not rows:
        raise UserError("the list holds no work: no table under a heading 1.1 to 1.5")
    return pd.DataFrame(rows, columns=COLUMNS).astype({"year": "Int64"})


def parse_papers(text: str) -> pd.DataFrame:
    """The related surveys (heading 1.6) and the newest works (1.7), which the list does not describe further.

    Returns:
        The columns of `PAPER_COLUMNS`, as in `parse`.
    """
    rows = []
    for where, leaf, cells in _rows(text):
        if leaf[:3] in _PAPER_LISTS:
            # a few rows have cells too many, empty ones or those of a work: link and publication come last
            filled = [cell for cell in cells if cell]
            if len(filled) < 3:
                raise UserError(
                    f"{where}: title, publication or link is missing in {' | '.join(cells)[:80]!r}"
                )
            rows.append({"leaf": leaf, "title": filled[0]} | _published(filled[-2], filled[-1], where))
    return pd.DataFrame(rows, columns=PAPER_COLUMNS).astype({"year": "Int64"})


def works(path: Path = TABLE) -> pd.DataFrame:
    """The bundled table, or another one that `parse` made, with its columns and types.

    Raises:
        UserError: the file is missing or has other columns.
    """
    numbers = {"year": "Int64", "size_b": "float64"}
    text = dict.fromkeys(set(COLUMNS) - set(numbers), str)
    try:
        header = list(pd.read_csv(path, nrows=0).columns)
        if header != COLUMNS:
            raise UserError(f"{path} has the columns {', '.join(header)} instead of {', '.join(COLUMNS)}")
        empty = dict.fromkeys(numbers, "")
        return pd.read_csv(path, keep_default_na=False, na_values=empty, dtype=text | numbers)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of works: {error}") from None


def read_list(path: Path = LIST) -> str:
    """The text of a copy of the list; `UserError` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no readable copy of the list: {error}") from None


def key(table: pd.DataFrame) -> pd.Series:
    """What a row's paper is known by: its arXiv number, else its link."""
    return table["arxiv"].where(table["arxiv"] != "", table["link"])


def half_year(month: pd.Series) -> pd.Series:
    """ "2023-05" becomes "2023 H1"; "" stays."""
    half = month.str[:4] + " H" + (month.str[5:] > "06").astype(int).add(1).astype(str)
    return half.where(month != "", "")


def tasks(table: pd.DataFrame) -> pd.DataFrame:
    """Number of works of each task, for `diagrams.pipeline`: stage, task ("" if it is the whole stage) and n.

    The pipeline begins with collecting data, for which the list has no heading.
    """
    count = table.groupby(["stage", "leaf"], sort=False).size().reset_index(name="n")
    task = count["leaf"].str.split(" ", n=1).str[1].where(count["leaf"].str.match(r"\d\.\d\."), "")
    count = count[["stage"]].assign(task=task, n=count["n"])
    return pd.concat([pd.DataFrame({"stage": [COLLECTION], "task": "", "n": 0}), count], ignore_index=True)


def by_half_year(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Number of works of each half-year of their arXiv numbers (rows) and value of `column`, if not ""."""
    dated = table[(table["month"] != "") & (table[column] != "")]
    return pd.crosstab(half_year(dated["month"]).rename("half-year"), dated[column])


# ---------------------------------------------------------------- rows and cells


def _rows(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """("line 36, under '1.1.1 ...'", leaf, cells) of each row of the tables that are read."""
    leaf, header, rule = "", None, False
    for number, line in enumerate(text.splitlines(), 1):
        if heading := _HEADING.search(line):
            leaf = f"{heading['number']} {heading['name'].strip()}" if heading["number"] else ""
        if not line.lstrip().startswith("|"):
            header = None
            continue
        if not re.match(r"1\.\d", leaf):
            continue
        where = f"line {number} of the list, under {leaf!r}"
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if header is None:
            header, rule = _header(cells, leaf, where), True
        elif rule:
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                raise UserError(f"{where}: the line below a table's head is no rule such as |:---:|")
            rule = False
        elif leaf[:3] in STAGES and len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells instead of {len(header)}: {line.strip()[:80]!r}")
        else:
            yield where, leaf, cells


def _header(cells: list[str], leaf: str, where: str) -> list[str]:
    """The names of a table's columns, if they are those of its place in the list."""
    if leaf[:3] not in STAGES.keys() | _PAPER_LISTS:
        raise UserError(f"{where}: a table under a heading that this parser does not know")
    wanted = _WORK_HEADER if leaf[:3] in STAGES else _PAPER_HEADER
    if (found := [cell.strip("* ") for cell in cells]) != wanted:
        raise UserError(f"{where}: the columns are {', '.join(found)} instead of {', '.join(wanted)}")
    return wanted


def _model(backbone: str) -> dict:
    """Cells about the language model; where there are two, the larger one gives the size."""
    first = re.split(r"\s*(?:&|/ )\s*", _SIZE.sub("", backbone))[0].strip()
    sizes = [float(number) / (1000 if unit == "M" else 1) for number, unit in _SIZE.findall(backbone)]
    size = max(sizes, default=float("nan"))
    if _CLOSED.search(backbone) or size >= 100:
        label = ">100B"
    elif sizes:
        label = "<1B" if size < 1 else "1-10B" if size < 10 else "10-100B"
    else:
        label = "<1B" if first in _SMALL else UNKNOWN
    return {"backbone": backbone, "model": _MODELS.get(first, first), "size_b": size, "size": label}


def _tuning(tuning: str) -> dict:
    """The strategy and its class; full finetuning with a prompt learned beside it is full."""
    frozen, full = "frozen" in tuning.lower(), bool(_FULL.search(tuning))
    part = bool(_PART.search(tuning))
    if frozen:
        label = "mixed" if full or part else "frozen"
    else:
        label = "full" if full else "PEFT" if part else UNKNOWN
    return {"tuning": tuning, "tuned": label}


def _published(publication: str, link: str, where: str) -> dict:
    """Cells about a publication."""
    if not (url := _URL.search(link)):
        raise UserError(f"{where}: no address in the link {link[:80]!r}")
    year = re.search(r"(?:19|20)\d\d(?!\d)", publication)
    venue = " ".join(publication.replace(year[0], " ").split()) if year else publication
    number = _ARXIV.search(url[0])
    arxiv = number[1] if number else ""
    return {
        "venue": _VENUES.get(venue, venue),
        "year": int(year[0]) if year else pd.NA,
        "arxiv": arxiv,
        "month": f"20{arxiv[:2]}-{arxiv[2:4]}" if arxiv else "",
        "link": url[0],
    }


# ---------------------------------------------------------------- what a newer list changes


def changes(old: str, new: str) -> pd.DataFrame:
    """What a newer copy of the list adds, removes and changes, in works, related surveys and newest works.

    A row of one copy is that of the other with the same leaf and paper; of the rest, with the same leaf and
    title; then with the same paper, and the same title, anywhere: such a work has moved.

    Args:
        old: Markdown of the older copy.
        new: Markdown of the newer copy.

    Returns:
        change ("added", "removed" or "changed"), leaf, title (of the newer copy, if it is there), column,
        before and after: one row an added or removed row of the list (column ""), and one a changed cell.
    """
    before, after = _all_rows(old), _all_rows(new)
    pairs = []
    left, right = before, after
    for keys in (["leaf", "key"], ["leaf", "title"], ["key"], ["title"]):
        # rows of one key pair up in their order
        a, b = (side.assign(nth=side.groupby(keys).cumcount()) for side in (left, right))
        found = a.reset_index().merge(b.reset_index(), on=[*keys, "nth"], suffixes=("_a", "_b"))
        pairs.append(found[["index_a", "index_b"]])
        left, right = left.drop(found["index_a"]), right.drop(found["index_b"])
    pair = pd.concat(pairs).sort_values("index_b")
    columns = [column for column in COLUMNS if column not in ("stage", "model", "size_b", "size", "tuned")]
    a, b = (side[columns].astype(str) for side in (before.loc[pair["index_a"]], after.loc[pair["index_b"]]))
    rows, cells = (a.to_numpy() != b.to_numpy()).nonzero()
    changed = pd.DataFrame(
        {
            "change": "changed",
            "leaf": b["leaf"].to_numpy()[rows],
            "title": b["title"].to_numpy()[rows],
            "column": pd.Index(columns)[cells],
            "before": a.to_numpy()[rows, cells],
            "after": b.to_numpy()[rows, cells],
        }
    )
    whole = [
        side[["leaf", "title"]].assign(change=change, column="", before="", after="")
        for change, side in (("added", right), ("removed", left))
    ]
    return pd.concat([*whole, changed], ignore_index=True)[list(changed.columns)]


def _all_rows(text: str) -> pd.DataFrame:
    rows = pd.concat([parse(text).astype(object), parse_papers(text).astype(object)], ignore_index=True)
    return rows.fillna("").assign(key=key)


def describe(table: pd.DataFrame) -> str:
    """`changes` in words: how many of each kind, then one line each."""
    if table.empty:
        return "no change"
    counts = table["change"].value_counts()
    rows = [f"{counts.get('added', 0)} rows added, {counts.get('removed', 0)} removed"]
    rows[0] += f", {counts.get('changed', 0)} cells changed"
    for row in table.itertuples():
        line = f"{row.change:<8} {row.leaf} | {row.title}"
        rows.append(line + (f" | {row.column}: {row.before!r} -> {row.after!r}" if row.column else ""))
    return "\n".join(rows)


# ---------------------------------------------------------------- command line

EXAMPLES = """\
examples:
  curl -LO https://raw.githubusercontent.com/CHIANGEL/Awesome-LLM-for-RecSys/main/README.md
  python -m rec_utils.papers.taxonomy diff README.md                  what it changes against the bundled list
  python -m rec_utils.papers.taxonomy diff README.md --old OLDER.md   or against another copy
  python -m rec_utils.papers.taxonomy table README.md works.csv       its works as a table
"""


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m rec_utils.papers.taxonomy",
        description="Read a copy of the survey's list of works, github.com/CHIANGEL/Awesome-LLM-for-RecSys.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("diff", help="what a newer copy of the list adds, removes and changes")
    command.add_argument("new", type=Path, help="README.md of the list")
    command.add_argument("--old", type=Path, default=LIST, help="an older copy (default: the bundled one)")
    command = commands.add_parser("table", help="write the works of a copy as a table")
    command.add_argument("list", type=Path, help="README.md of the list")
    command.add_argument("table", type=Path, help="CSV file to write")
    arguments = parser.parse_args()
    if arguments.command == "diff":
        print(describe(changes(read_list(arguments.old), read_list(arguments.new))))
    else:
        table = parse(read_list(arguments.list))
        write_atomic(arguments.table, table.to_csv(index=False, lineterminator="\n"))
        print(f"{len(table)} works in {arguments.table}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
