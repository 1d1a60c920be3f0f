"""How language models are used: is the model tuned, and does a conventional recommender help at inference?

The survey's section 4 makes four quadrants of these two questions and places fifty works in them (Figure 4);
it calls a conventional recommendation model CRM:

                 CRM at inference    no CRM
    tuned              Q1              Q4
    frozen             Q2              Q3

A CRM that only supplies candidates counts as none. The list of works says nothing about CRMs. So the second
axis of its other rows comes from a rule about stages, `crm_rule`, and from corrections by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from rec_utils.exact import share
from rec_utils.files import sha256
from rec_utils.papers import taxonomy
from rec_utils.stats import Interval, difference_of_parts, mean_interval

#: Quadrant by (tuned, CRM at inference).
QUADRANTS = {(True, True): "Q1", (False, True): "Q2", (False, False): "Q3", (True, False): "Q4"}
QUADRANT_NAMES = {
    "Q1": "tuned LLM, with CRM",
    "Q2": "frozen LLM, with CRM",
    "Q3": "frozen LLM, no CRM",
    "Q4": "tuned LLM, no CRM",
}
#: The best baselines that works defeat, from the weakest kind up; no work of the figure stops at an MLP.
BASELINES = ("Random", "Popularity", "MF", "MLP", "attention-based")

#: Notebooks of this repository on the survey's map: method, notebook, stage, quadrant, and why.
HERE = pd.DataFrame(
    [
        ("KAR", "01_kar", "feature engineering", "Q2", "Figure 4"),
        ("REKI", "02_reki", "feature engineering", "Q2", "ours: texts about groups, read by a CRM"),
        ("LIBER", "03_liber", "feature engineering", "Q2", "ours: texts about histories, read by a CRM"),
        ("ClickPrompt", "04_clickprompt", "scoring or ranking", "Q1", "Figure 4"),
        ("CoReLLa", "05_corella", "scoring or ranking", "Q1", "ours: both are trained and both answer"),
        ("DARE", "06_dare", "feature engineering", "Q2", "ours: makes such texts cheaper to write"),
        ("MemoCRS", "08_memocrs", "user interaction", "Q3", "ours: its expert only supplies candidates"),
    ],
    columns=["method", "notebook", "stage", "quadrant", "placed by"],
)


@dataclass(frozen=True)
class Survey:
    """All that is bundled about the survey; `Run.data` takes it for its name and hashes."""

    works: pd.DataFrame  #: see `annotate`
    papers: pd.DataFrame  #: see `taxonomy.parse_papers`
    figure: pd.DataFrame  #: see `figure4`
    name: str = "llm-survey"

    @cached_property
    def hashes(self) -> dict[str, str]:
        """sha256 of each file."""
        return {path.name: sha256(path) for path in sorted(taxonomy.FOLDER.iterdir())}


def load() -> Survey:
    """The bundled list and figure."""
    works, figure = taxonomy.works(), figure4()
    papers = taxonomy.parse_papers(taxonomy.read_list())
    return Survey(annotate(works, figure), papers, match(figure, works))


def figure4() -> pd.DataFrame:
    """The fifty circles of Figure 4; a name may stand there twice, so (name, quadrant) is the key.

    Returns:
        name, year, quadrant, llm_size_class, best_baseline_defeated; leaf and paper of the list's row (""
        where it has none) and a remark about it; tuned, crm and attention: is that baseline attention-based?
    """
    circles = pd.read_csv(taxonomy.FOLDER / "figure4_quadrants.csv")
    rows = pd.read_csv(taxonomy.FOLDER / "figure4_matches.csv", keep_default_na=False, dtype=str)
    figure = circles.merge(rows, on=["name", "quadrant"], how="left", validate="one_to_one")
    return figure.assign(
        tuned=figure["quadrant"].isin(["Q1", "Q4"]),
        crm=figure["quadrant"].isin(["Q1", "Q2"]),
        attention=figure["best_baseline_defeated"] == "attention-based",
    )


def match(figure: pd.DataFrame, works: pd.DataFrame) -> pd.DataFrame:
    """`figure4` with stage, month, `listed size` and `listed tuning` of the list's row, "" without one."""
    listed = works.assign(paper=taxonomy.key(works))[["leaf", "paper", "stage", "month", "size", "tuned"]]
    listed = listed.rename(columns={"size": "listed size", "tuned": "listed tuning"})
    return figure.merge(listed, on=["leaf", "paper"], how="left", validate="many_to_one").fillna("")


def crm_rule(works: pd.DataFrame) -> pd.Series:
    """Whether a work uses a CRM at inference, guessed from its stage alone: "with", "without" or "unknown".

    What a language model writes or encodes is read by a CRM (1.1, 1.2). Where it scores (1.3), there is none:
    so for frozen models, and for tuned ones by our extension. Stages 1.4 and 1.5 have both kinds.
    """
    stage = works["stage"]
    feature = stage.isin(["feature engineering", "feature encoder"])
    answer = np.select([feature, stage == "scoring or ranking"], ["with", "without"], "unknown")
    return pd.Series(answer, works.index)


def annotate(works: pd.DataFrame, figure: pd.DataFrame) -> pd.DataFrame:
    """`works` with crm ("with", "without", "unknown"), `crm from` and quadrant ("" where an axis is unknown).

    Figure 4 decides where it has the work, then the corrections by hand, then `crm_rule`.
    """
    corrected = pd.read_csv(taxonomy.FOLDER / "crm_corrections.csv", dtype=str)
    shown = figure[figure["paper"] != ""].drop_duplicates(["leaf", "paper"])  # ReLLa's two circles agree
    known = pd.concat(
        [
            shown[["leaf", "paper"]].assign(crm=np.where(shown["crm"], "with", "without"), source="Figure 4"),
            corrected[["leaf", "paper", "crm"]].assign(source="by hand"),
        ]
    )
    keys = works[["leaf"]].assign(paper=taxonomy.key(works))
    found = keys.merge(known, how="left", validate="one_to_one").set_axis(works.index)
    crm = found["crm"].fillna(crm_rule(works))
    source = found["source"].fillna("rule").where(crm != "unknown", "")
    tuned = works["tuned"].map({"frozen": False, "PEFT": True, "full": True})
    quadrant = [
        QUADRANTS.get((t, {"with": True, "without": False}.get(c)), "")
        for t, c in zip(tuned, crm, strict=True)
    ]
    return works.assign(crm=crm, quadrant=quadrant, **{"crm from": source})


def agreement(figure: pd.DataFrame) -> pd.DataFrame:
    """How often `crm_rule` and the list agree with Figure 4, over the circles that have a row in the list.

    Args:
        figure: from `match`.

    Returns:
        axis, works (which), agree, n: the CRM axis by stage and in all, then tuning and size class as listed.
    """
    listed = figure[figure["stage"] != ""]
    rule = crm_rule(listed)
    answered = listed[rule != "unknown"]
    right = (rule == "with") == listed["crm"]
    rows = []
    scoring = answered["stage"] == "scoring or ranking"
    for works, part in {
        "1.1 and 1.2": answered[~scoring],
        "1.3, frozen": answered[scoring & ~answered["tuned"]],
        "1.3, tuned (our extension)": answered[scoring & answered["tuned"]],
        "all that the rule answers": answered,
    }.items():
        rows.append(("CRM at inference", works, int(right[part.index].sum()), len(part)))
    tuned = listed[listed["listed tuning"].isin(["frozen", "PEFT", "full"])]
    same = (tuned["listed tuning"] != "frozen") == tuned["tuned"]
    rows.append(("tuning", "all listed with a strategy", int(same.sum()), len(tuned)))
    sized = listed[listed["listed size"] != taxonomy.UNKNOWN]
    same = sized["listed size"] == sized["llm_size_class"]
    rows.append(("size class", "all listed with a size", int(same.sum()), len(sized)))
    return pd.DataFrame(rows, columns=["axis", "works", "agree", "n"])


def rule_share(figure: pd.DataFrame) -> Interval:
    """Percent of the circles that `crm_rule` answers rightly."""
    row = agreement(figure).set_index("works").loc["all that the rule answers"]
    return share(int(row["agree"]), int(row["n"]))


def months_later(later: pd.Series, earlier: pd.Series) -> Interval:
    """Difference of the mean arXiv months ("2023-05") of two groups of works, in months; "" is left out.

    The interval is that of two independent means (Student t for each).
    """
    a, b = (_number(months[months != ""]) for months in (later, earlier))
    return difference_of_parts(mean_interval(a), mean_interval(b))


def _number(month: pd.Series) -> np.ndarray:
    return 12 * month.str[:4].astype(int).to_numpy() + month.str[5:].astype(int).to_numpy()
