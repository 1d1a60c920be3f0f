"""What REKI's authors released: trees, groups and one answer of a language model about each group.

Xi et al., arXiv 2408.10520; GitHub YunjiaXi/REKI, commit ad33532. MovieLens-1M is complete; of
Amazon-Books only the answers and the groups are used here. All ids are the internal ids of KAR's
preprocessing, 1 to P without gaps (`rec_utils.papers.released`); here they are rows, id - 1. Groups are
numbered 1 to G in the files and 0 to G - 1 here.

Three sides: items, and users grouped twice, by what they like ("user+") and by what they do not ("user-").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rec_utils import data
from rec_utils.clustering import Tree, cut
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.knowledge import vectors
from rec_utils.knowledge.encoder import Encoder
from rec_utils.knowledge.vectors import centred
from rec_utils.papers.reki import Grouping, shared_items
from rec_utils.papers.released import released_items, released_users
from rec_utils.samples import CTRTask
from rec_utils.settings import check_choice

#: Folder of each side in the released files.
SIDES = {"item": "item", "user+": "user/positive", "user-": "user/negative"}
DATASETS = {"ml-1m": "MovieLens-1M", "amz": "Amazon-Books"}

#: A node of fewer points is a group; recovered from the released groups.
BELOW = {
    "ml-1m": {"item": 80, "user+": 100, "user-": 100},
    "amz": {"item": 80, "user+": 150, "user-": 150},
}
#: Which ratings enter the list of a group of users, see `reading`.
LIST_RULES = ("released", "first n only", "all")

_TITLES = re.compile(r"consisting of (.*?),?\s*please describe", re.DOTALL)
#: What `audit` looks for in prompts and answers, in any case of letters.
_BOOK_FACTORS = r"\bauthor|\bwriting style|\bliterary"
_MOVIES, _BOOKS = r"\b(?:movie|film)s?\b", r"\bbooks?\b"
_DECLINES = r"\bsorry\b|\bapolog|\bas an ai\b|\bunable to\b|\bplease provide\b|\bwithout a specific set\b"
SHORT_ANSWER = 400  #: characters


@dataclass(frozen=True)
class Groups:
    """One side of a data set: P points in G groups, and what the language model was asked and said."""

    dataset: str  #: "ml-1m" or "amz"
    side: str  #: a key of `SIDES`
    of_point: np.ndarray  #: [P] group of each point
    answers: pd.DataFrame  #: [G] prompt, answer, prompt_tokens, completion_tokens

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of points in each group [G]."""
        return np.bincount(self.of_point, minlength=len(self.answers))

    @cached_property
    def titles(self) -> list[list[str]]:
        """The titles in each group's prompt; in MovieLens every title ends in its year."""
        return [
            re.split(r"(?<=\(\d{4}\)), ", text) if text else []
            for text in map(_listed, self.answers["prompt"])
        ]

    @cached_property
    def empty(self) -> np.ndarray:
        """Groups [G] whose prompt names no title at all, so that the answer is about nothing."""
        return np.array([not _listed(prompt) for prompt in self.answers["prompt"]])


def read_groups(dataset: str, side: str, files: Mapping[str, Path] | None = None) -> Groups:
    """The released groups and answers of one side.

    Raises:
        UserError: the files are not here, or ids or groups have gaps.
    """
    check_choice("data set", dataset, list(DATASETS))
    check_choice("side", side, list(SIDES))
    folder, files = f"{dataset}/{SIDES[side]}", files or released_files()
    of_point = _rows(
        json.loads(_text(files, f"{folder}/result/id2group.json")), f"{folder}/result/id2group.json"
    )
    lines = map(json.loads, _text(files, f"{folder}/knowledge.json").splitlines())
    answers = pd.DataFrame(
        {
            "group": int(line["prompt"]) - 1,
            "prompt": line["prompt_txt"],
            "answer": line["choices"][0]["message"]["content"],
            "prompt_tokens": line["usage"]["prompt_tokens"],
            "completion_tokens": line["usage"]["completion_tokens"],
        }
        for line in lines
    )
    answers = answers.set_index("group").sort_index()
    if not np.array_equal(answers.index, np.arange(of_point.max() + 1)):
        raise UserError(f"{folder}: {of_point.max() + 1} groups, but the answers are about others")
    return Groups(dataset, side, of_point, answers)


def read_tree(side: str, files: Mapping[str, Path] | None = None) -> Tree:
    """The released tree of one side of MovieLens-1M; the points are those of `Groups.of_point`."""
    name = f"ml-1m/{SIDES[side]}/result/tree.tsv"
    rows = [line.split("\t") for line in _text(files or released_files(), name).splitlines()]
    node = pd.Series(np.arange(len(rows)), index=[row[0] for row in rows])
    parent = np.array([-1 if row[1] == "None" else node[row[1]] for row in rows])
    leaf = {str(row[2]): number for number, row in enumerate(rows) if row[2] != "None"}
    return Tree(parent, _rows(leaf, name, start=0))


def read_lists(
    side: str, dataset: Dataset, task: CTRTask, files: Mapping[str, Path] | None = None
) -> list[np.ndarray]:
    """Items that stand for each group of users of MovieLens-1M, as rows of a task, ascending."""
    listed = json.loads(_text(files or released_files(), f"ml-1m/{SIDES[side]}/item_grouplist.json"))
    row = np.searchsorted(task.item_ids, released_items(dataset))
    return [np.sort(row[np.array(listed[str(group + 1)], int) - 1]) for group in range(len(listed))]


def released_files() -> Mapping[str, Path]:
    """The released files by their path in the released folder; `UserError` if they are not here."""
    return data.files("reki")


def check_cut(tree: Tree, groups: Groups) -> None:
    """Raise unless the tree, cut at the size of its side, gives every released group, point for point.

    Raises:
        UserError: names the first point that the cut puts into another company.
    """
    ours = cut(tree, BELOW[groups.dataset][groups.side])
    _, first, group = np.unique(groups.of_point, return_index=True, return_inverse=True)
    theirs = np.argsort(np.argsort(first))[group]  # numbered by their first point, as `cut` does
    if len(ours) != len(theirs):
        raise UserError(f"{groups.side}: the tree has {len(ours)} points, the groups {len(theirs)}")
    if (ours != theirs).any():
        point = np.flatnonzero(ours != theirs)[0] + 1
        raise UserError(f"{groups.side}: the cut does not give the released group of point {point}")


def titles_in_own_group(groups: Groups, dataset: Dataset) -> pd.DataFrame:
    """How many titles of each item prompt belong to a movie of that very group: columns titles, own [G].

    The titles are the only trace of the internal item ids, so this checks `released_items`.
    """
    row = {raw: row for row, raw in enumerate(released_items(dataset))}
    raw_id = {}
    for raw, title in dataset.items.set_index("item_id")["title"].items():
        raw_id[title] = raw_id[_article_first(title)] = raw
    own = [
        sum(groups.of_point[row[raw_id[title]]] == group for title in titles if raw_id.get(title) in row)
        for group, titles in enumerate(groups.titles)
    ]
    return pd.DataFrame({"titles": [len(titles) for titles in groups.titles], "own": own})


def grouping(groups: Groups, dataset: Dataset, task: CTRTask) -> Grouping:
    """The released groups over the rows of a task; lists of users' groups come from the task's prompts."""
    raw = released_items(dataset) if groups.side == "item" else released_users(len(groups.of_point))
    internal = pd.Series(np.arange(len(raw)), index=raw)
    of_row = groups.of_point[internal.loc[task.item_ids if groups.side == "item" else task.user_ids]]
    if groups.side == "item":
        return Grouping(of_row, [np.flatnonzero(of_row == group) for group in range(len(groups.answers))])
    read = task.prompts
    read = read[(read["rating"] >= task.like_from) == (groups.side == "user+")]
    return Grouping(of_row, shared_items(of_row, read["user_row"].to_numpy(), read["item_row"].to_numpy()))


def reading(task: CTRTask, test_users: np.ndarray, rule: str) -> CTRTask:
    """The same task as it looks to who builds groups: `prompts` are the ratings that may enter.

    Args:
        task: samples and ratings.
        test_users: [U].
        rule: "released": all ratings of a training user and the prompt history of a test user; "first n
            only": the prompt history of everyone; "all": also what is to be predicted, a leak.
    """
    check_choice("list rule", rule, LIST_RULES)
    prompt = task.ratings["in_prompt"]
    if rule == "all":
        prompt = True
    elif rule == "released":
        prompt = prompt | ~test_users[task.ratings["user_row"]]
    return replace(task, ratings=task.ratings.assign(in_prompt=prompt))


def text_vectors(groups: Groups, encoder: Encoder) -> np.ndarray:
    """Vectors [G, m] of the answers, centred; zeros where the prompt named no title."""
    table = vectors.encode(groups.answers["answer"].tolist(), encoder)
    table[groups.empty] = 0
    return centred(table)


def agreement(lists: Sequence[np.ndarray], released: Sequence[np.ndarray]) -> dict[str, float]:
    """How many lists of items have the released size, and the Jaccard index of all (group, item) together."""
    shared = sum(len(np.intersect1d(*pair)) for pair in zip(lists, released, strict=True))
    sizes, theirs = (np.array([len(items) for items in side]) for side in (lists, released))
    return {
        "groups": len(lists),
        "same size": int((sizes == theirs).sum()),
        "Jaccard": shared / (sizes.sum() + theirs.sum() - shared),
    }


def audit(groups: Sequence[Groups]) -> pd.DataFrame:
    """One row a side and data set: sizes of the groups, empty prompts, tokens, faults of the answers."""
    return pd.DataFrame(map(_audit_row, groups))


def _audit_row(groups: Groups) -> dict[str, object]:
    answers = groups.answers
    said = answers["answer"].str
    movies, books = (said.contains(words, case=False) for words in (_MOVIES, _BOOKS))
    return {
        "data set": DATASETS[groups.dataset],
        "side": groups.side,
        "points": len(groups.of_point),
        "T": BELOW[groups.dataset][groups.side],
        "groups": len(answers),
        "size min": int(groups.sizes.min()),
        "size median": float(np.median(groups.sizes)),
        "size mean": round(float(groups.sizes.mean()), 1),
        "size max": int(groups.sizes.max()),
        "groups of one": int((groups.sizes == 1).sum()),
        "prompts without a title": int(groups.empty.sum()),
        "points in their groups": int(groups.sizes[groups.empty].sum()),
        "prompt tokens": int(answers["prompt_tokens"].sum()),
        "answer tokens": int(answers["completion_tokens"].sum()),
        "mean answer characters": round(float(said.len().mean())),
        "asked for book factors": int(answers["prompt"].str.contains(_BOOK_FACTORS, case=False).sum()),
        "speak of movies and books": int((movies & books).sum()),
        "decline or ask for titles": int(said.contains(_DECLINES, case=False).sum()),
        f"under {SHORT_ANSWER} characters": int((said.len() < SHORT_ANSWER).sum()),
    }


def cost(groups: Sequence[Groups]) -> pd.DataFrame:
    """Calls of the language model per data set: one a group against one a user and one an item (KAR)."""
    rows = []
    for name in dict.fromkeys(side.dataset for side in groups):
        own = [side for side in groups if side.dataset == name]
        calls = sum(len(side.answers) for side in own)
        individual = sum(len(side.of_point) for side in own if side.side != "user-")
        rows.append(
            {
                "data set": DATASETS[name],
                "calls, collective": calls,
                "with a title": calls - int(sum(side.empty.sum() for side in own)),
                "calls, individual": individual,
                "share (%)": round(100 * calls / individual, 1),
                "tokens, collective": int(
                    sum(side.answers[["prompt_tokens", "completion_tokens"]].to_numpy().sum() for side in own)
                ),
            }
        )
    return pd.DataFrame(rows)


def _listed(prompt: str) -> str:
    found = _TITLES.search(prompt)
    if found is None:
        raise UserError(f"a group's prompt has another form: {prompt[:60]!r}")
    return found[1].strip(" ,")


def _article_first(title: str) -> str:
    """ "Net, The (1995)" -> "The Net (1995)", as in most of the prompts."""
    return re.sub(r"^(.*), (The|A|An) (\(\d{4}\))$", r"\2 \1 \3", title)


def _rows(by_id: Mapping[str, int], name: str, start: int = 1) -> np.ndarray:
    """Values [P] of a dict by ids "1" to "P", less `start`, the number that they count from."""
    try:
        return np.array([by_id[str(number)] for number in range(1, len(by_id) + 1)]) - start
    except KeyError as missing:
        raise UserError(f"{name}: id {missing} is missing between 1 and {len(by_id)}") from None


def _text(files: Mapping[str, Path], name: str) -> str:
    if name not in files:
        raise UserError(f"the released files lack {name}")
    return files[name].read_text(encoding="utf-8")
