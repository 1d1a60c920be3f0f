"""MemoCRS' extraction without a language model: entities by their mention, attitudes by a classifier.

The classifier reads what the seeker says around a film, and learns from the forms of the training dialogues;
the forms of other dialogues are only what its answers, and those of a language model, are scored against.
It is a multinomial naive Bayes model: the weights are ratios of counts, so they are the same everywhere.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import f1_score
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline

from rec_utils.dialogues import Dialogues, joined
from rec_utils.errors import UserError
from rec_utils.papers.memocrs_bank import opinion
from rec_utils.papers.memocrs_genres import ANY_GENRE, WORDS

#: Words before and after a film that are read, and words of an answer to a suggestion.
_NEAR, _ANSWER = 10, 25
_NEGATED = r"(?:n['’]t|\bnot|\bno|\bnever|\bhate|\bdislike|\bnon)\b(?:\W+\w+){0,3}\W+$"


class RulesExtractor:
    """Entities and attitudes of sessions, learnt from training dialogues with forms.

    Raises:
        UserError: the training dialogues have no forms.
    """

    def __init__(self, train: Dialogues) -> None:
        said = _about_films(train)
        known = film_attitudes(train)
        labelled = said.merge(known, on=["session_id", "movie_id"])
        if labelled.empty:
            raise UserError(f"{train.name} has no forms to learn attitudes from.")
        words = CountVectorizer(
            token_pattern=r"\S+", ngram_range=(1, 2), min_df=5, binary=True, lowercase=False
        )
        self._model: Pipeline = make_pipeline(words, MultinomialNB(alpha=0.3))
        self._model.fit(labelled["said"], labelled["attitude"])

    def extract(self, dialogues: Dialogues) -> pd.DataFrame:
        """All entities: session_id, entity, attitude; films by title, then genres, session by session."""
        films = _about_films(dialogues)
        films["attitude"] = self._model.predict(films["said"])
        films["entity"] = films["movie_id"].map(dialogues.titles)
        both = pd.concat([films, _genres(dialogues)])
        both = both.drop_duplicates(["session_id", "entity"], keep="last")
        both = both.sort_values("session_id", kind="stable", ignore_index=True)
        return both[["session_id", "entity", "attitude"]]


def film_attitudes(dialogues: Dialogues) -> pd.DataFrame:
    """The seekers' forms as attitudes: session_id, movie_id, attitude."""
    forms = dialogues.forms[dialogues.forms["by_seeker"]]
    liked, seen = forms["liked"], forms["seen"]
    attitude = np.select(
        [liked == 0, liked == 2, seen == 1], ["dislikes", "no opinion", "likes"], "wants to see"
    )
    return forms[["session_id", "movie_id"]].assign(attitude=attitude)


def extraction_scores(found: pd.DataFrame, dialogues: Dialogues) -> dict[str, float]:
    """How well extracted attitudes to films agree with the seekers' forms.

    Args:
        found: session_id, entity and attitude; entities that are no title of the catalog are left out, and
            films without an opinion count as not extracted.
        dialogues: the sessions that were asked about.

    Returns:
        `precision`, `recall` and `f1` of the triples (session, film, likes or dislikes), where wanting to see
        counts as liking; `f1_likes` and `f1_dislikes` of each alone, and `f1_macro`, their mean, which the
        many likes do not rule; `pairs`, the number in the forms.
    """
    keys = ["session_id", "entity"]
    true = film_attitudes(dialogues)
    true["entity"] = true["movie_id"].map(dialogues.titles)
    both = pd.concat(
        [
            true.assign(source="true"),
            found[found["entity"].isin(dialogues.movies["title"])].assign(source="ours"),
        ]
    ).drop_duplicates([*keys, "source"], keep="last")
    both["opinion"] = both["attitude"].map(opinion)
    both = (
        both.pivot(index=keys, columns="source", values="opinion").reindex(columns=["true", "ours"]).fillna(0)
    )
    right = int(((both["true"] == both["ours"]) & (both["true"] != 0)).sum())
    n_true, n_ours = int((both["true"] != 0).sum()), int((both["ours"] != 0).sum())
    likes, dislikes = f1_score(both["true"], both["ours"], labels=[1, -1], average=None, zero_division=0)
    return {
        "precision": right / max(n_ours, 1),
        "recall": right / max(n_true, 1),
        "f1": 2 * right / max(n_ours + n_true, 1),
        "f1_likes": float(likes),
        "f1_dislikes": float(dislikes),
        "f1_macro": float(likes + dislikes) / 2,
        "pairs": n_true,
    }


def _about_films(dialogues: Dialogues) -> pd.DataFrame:
    """What the seeker says about each film named: session_id, movie_id, said; in the order of first mention.

    Of a seeker's own mention the words near it, of a recommender's the seeker's answer. A word stands there
    alone and with who named the film, "s:" or "r:".
    """
    turns = dialogues.turns[["session_id", "turn", "by_seeker", "text"]]
    block = (
        (turns[["session_id", "by_seeker"]] != turns[["session_id", "by_seeker"]].shift()).any(axis=1)
    ).cumsum()
    blocks = turns[["session_id"]].assign(block=block).drop_duplicates("block").set_index("block")
    blocks["text"] = joined(turns["text"].str.casefold(), block)
    answered = blocks["session_id"] == blocks["session_id"].shift(-1)
    blocks["answer"] = blocks["text"].shift(-1).where(answered, "")
    keys = ["session_id", "turn"]
    named = dialogues.mentions.merge(turns[keys].assign(block=block), on=keys)
    own, answer = named["block"].map(blocks["text"]), named["block"].map(blocks["answer"])
    text = own.where(named["by_seeker"], answer)
    film = "@" + named["movie_id"].astype(str)
    tokens = text.str.findall(r"[a-z']+|@\d+|[!?]")
    said = [
        _near(*row)
        for row in zip(tokens, film, named["by_seeker"].map({True: "s:", False: "r:"}), strict=True)
    ]
    named = named.assign(said=said)
    pair = named.groupby(["session_id", "movie_id"], sort=False).ngroup()
    order = pair.sort_values(kind="stable").index
    films = named.loc[order, ["session_id", "movie_id"]].drop_duplicates(ignore_index=True)
    return films.assign(said=joined(named.loc[order, "said"], pair[order]))


def _near(words: list[str], film: str, role: str) -> str:
    """The words near a film, or the first ones, alone and with `role`; FILM for it, OTHER for others."""
    if film in words:
        at = words.index(film)
        words = words[max(at - _NEAR, 0) : at + _NEAR + 1]
    else:
        words = words[:_ANSWER]
    words = ["FILM" if word == film else "OTHER" if word[0] == "@" else word for word in words]
    return " ".join([role, *words, *(role + word for word in words)])


def _genres(dialogues: Dialogues) -> pd.DataFrame:
    """Genres in the seeker's words: session_id, entity, attitude; disliked after a near negation."""
    spoken = dialogues.turns[dialogues.turns["by_seeker"]].set_index("session_id")["text"].str.casefold()
    spoken = spoken[spoken.str.contains(ANY_GENRE, regex=True)]
    found = []
    for genre, words in WORDS.items():
        before = spoken.str.extract(rf"^(.*?)\b(?:{words})\b")[0].dropna()
        negated = before.str.contains(_NEGATED, regex=True)
        attitude = negated.map({True: "dislikes", False: "likes"})
        found.append(
            pd.DataFrame({"session_id": before.index, "entity": genre, "attitude": attitude.to_numpy()})
        )
    return pd.concat(found, ignore_index=True)
