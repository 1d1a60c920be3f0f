"""The survey's map of the field as a table: which works use diffusion for what.

Lin et al., "A Survey on Diffusion Models for Recommender Systems", arXiv 2409.05033. Its authors keep a list
of the works by the survey's taxonomy, github.com/CHIANGEL/Awesome-Diffusion-for-RecSys. The bundled table
holds the facts of that list as of commit c7743b4 (17 October 2024), made by `parse`; the list itself has no
licence and is not shipped.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from rec_utils.errors import UserError
from rec_utils.settings import BUNDLED

TABLE = BUNDLED / "diffusion-survey" / "works.csv"
COLUMNS = ["title", "name", "year", "venue", "domain", "leaf", "online"]
#: The three domains, by their number in the list; each is a way to use diffusion.
DOMAINS = {
    "1": "for data engineering and encoding",
    "2": "as recommender model",
    "3": "for content presentation",
}
#: Works that this package implements: title -> module.
IMPLEMENTED = {
    "Diffusion Recommender Model": "diffrec",
    "Generate What You Prefer: Reshaping Sequential Recommendation via Guided Diffusion": "dreamrec",
    "Diffurec: A diffusion model for sequential recommendation": "diffurec",
    "Diffusion Augmentation for Sequential Recommendation": "diffuasr",
    "Diffusion Models for Generative Outfit Recommendation": "difashion",
}

_HEADING = re.compile(r"^#+ (\d)\.(\d) (.+?)\s*$")
_ENTRY = re.compile(r"^\* (?P<online>:electron: )?(?P<title>.+)\. (?P<venue>[^.]+) (?P<year>\d{4})\.")
#: The list writes some venues in several ways.
_VENUES = {"sigir": "SIGIR", "www": "WWW", "Arxiv": "arXiv", "NIPS": "NeurIPS"}


def parse(text: str) -> pd.DataFrame:
    """The works of a list in the survey's format, in its order; a work that stands there twice stays twice.

    A heading "#### 2.1 Collaborative Recommendation" opens a leaf of domain 2; below it every line
    "* Title. Venue 2024. [[Link]](...)" is a work. A mark ":electron: " before the title says that an online
    A/B test is reported. The name is what stands before the title's colon, if that is one word.

    Args:
        text: Markdown of the list.

    Returns:
        title, name ("" if the title has none), year, venue, domain ("as recommender model"), leaf
        ("2.1 Collaborative Recommendation") and online (bool).

    Raises:
        UserError: a line that begins like a work is not one, stands under no leaf, or there is none at all.
    """
    rows, leaf, domain = [], None, None
    for number, line in enumerate(text.splitlines(), 1):
        if heading := _HEADING.match(line):
            domain = DOMAINS.get(heading[1])
            leaf = f"{heading[1]}.{heading[2]} {heading[3]}"
        elif line.startswith("* "):
            entry = _ENTRY.match(line)
            if not entry or domain is None:
                raise UserError(
                    f"line {number} of the list is no work under a leaf of the taxonomy: {line[:80]!r}"
                )
            title = entry["title"].strip()
            name, colon, _ = title.partition(":")
            rows.append(
                {
                    "title": title,
                    "name": name.strip() if colon and " " not in name.strip() else "",
                    "year": int(entry["year"]),
                    "venue": _VENUES.get(entry["venue"], entry["venue"]),
                    "domain": domain,
                    "leaf": leaf,
                    "online": entry["online"] is not None,
                }
            )
    if not rows:
        raise UserError("the list holds no work")
    return pd.DataFrame(rows, columns=COLUMNS)


def works(path: Path = TABLE) -> pd.DataFrame:
    """The bundled table: the columns of `parse`, and the module that implements a work here, or "".

    Raises:
        UserError: the file is missing or has other columns.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of works: {error}") from None
    if list(table.columns) != COLUMNS:
        raise UserError(f"{path} has the columns {', '.join(table.columns)} instead of {', '.join(COLUMNS)}")
    return table.assign(module=table["title"].map(IMPLEMENTED).fillna(""))


def counts(table: pd.DataFrame, by: str = "leaf") -> pd.DataFrame:
    """Number of works of each year (columns) in each domain or leaf (rows, in the order of the list)."""
    return pd.crosstab(table[by], table["year"]).reindex(table[by].unique())
