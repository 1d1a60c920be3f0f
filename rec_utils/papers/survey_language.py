"""What a large language model is asked in the examples of the LLM survey, and how its answers are read.

Four requests, one a test user: scores from the whole profile; scores from its first ten ratings with one
question to the viewer; scores again after the viewer's reply; and the choice of a tool. The viewer is
simulated: the reply tells of ratings of the profile that the model has not seen, never of a candidate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from rec_utils import settings
from rec_utils.knowledge.llm import Backend, ReplayBackend, generate
from rec_utils.knowledge.prompts import SYSTEM
from rec_utils.knowledge.request import Request
from rec_utils.knowledge.store import Store
from rec_utils.papers.survey_task import PROFILE, SurveyTask, genres_text

ANSWERS = settings.BUNDLED / "knowledge" / "survey_examples.jsonl"
TOOLS = ("model", "popularity", "language")
#: Ratings that the model sees before it asks; the rest of the profile is what the viewer can tell.
N_SEEN = 10
#: Films that a reply names as the best and as the lowest, at most.
N_NAMED = 3
#: What a missing or unreadable line counts as.
UNKNOWN = 0.5

_SCORE = re.compile(r"^\s*(\d+)\s*:\s*(\d+(?:\.\d+)?)\s*%?\s*$", re.MULTILINE)
_TOPIC = re.compile(r"^\s*ask:\s*([A-Za-z-]+|\d{3}0s)\s*$", re.MULTILINE)
_TOOL = re.compile(rf"^\s*tool:\s*({'|'.join(TOOLS)})\s*$", re.MULTILINE)


# What is asked


def scoring_requests(survey: SurveyTask) -> list[Request]:
    """Scores of the candidates from the whole profile, for each test user."""
    return [_request("zero_shot_scores", rated, films) for rated, films in _shown(survey, PROFILE)]


def question_requests(survey: SurveyTask) -> list[Request]:
    """Scores from the first ratings of the profile, and a question to the viewer."""
    return [_request("taste_question", rated, films) for rated, films in _shown(survey, N_SEEN)]


def reply_requests(survey: SurveyTask, topics: Sequence[str]) -> list[Request]:
    """Scores again, with the viewer's reply to the question about each of `topics`."""
    requests = []
    for (rated, films), profile, topic in zip(_shown(survey, N_SEEN), survey.profiles, topics, strict=True):
        turn = f"You asked: What do you think of {topic} films?\nThe viewer: {reply(profile[N_SEEN:], topic)}"
        requests.append(_request("scores_after_reply", rated, turn, films))
    return requests


def tool_requests(survey: SurveyTask) -> list[Request]:
    """Which tool should score the candidates of each test user?"""
    films = _films(survey.films)
    return [
        _request("tool_choice", _summary(profile), _numbered(films[rows], survey.popularity[rows]))
        for profile, rows in zip(survey.profiles, survey.candidates, strict=True)
    ]


def reply(rated: pd.DataFrame, topic: str) -> str:
    """What a viewer who gave the ratings `rated` says of a genre or of a decade such as "1980s"."""
    if topic[0].isdigit():
        about = rated[rated["year"] // 10 == int(topic[:3])]
    else:
        about = rated[[topic.lower() in genres.lower().split("|") for genres in rated["genres"]]]
    if about.empty:
        return "I cannot think of one that I have rated."
    best_first = about.sort_values("rating", ascending=False, kind="stable")
    named = [
        f"{title} {stars:g}" for title, stars in zip(best_first["title"], best_first["rating"], strict=True)
    ]
    mean = f"I have rated {len(named)} more of them, with {about['rating'].mean():.1f} stars on average"
    if len(named) <= 2 * N_NAMED:
        return f"{mean}: {'; '.join(named)}."
    return f"{mean}. The best: {'; '.join(named[:N_NAMED])}. The lowest: {'; '.join(named[-N_NAMED:])}."


# What was answered


class Answers:
    """The answers of a language model to all requests about a task, by default the shipped ones."""

    def __init__(
        self, survey: SurveyTask, backend: Backend | None = None, store: Store | None = None
    ) -> None:
        backend = backend or ReplayBackend(Store(ANSWERS, readonly=True))

        def ask(requests: list[Request]) -> list[str]:
            return [response.text for response in generate(requests, store, backend, progress=False)]

        asked = ask(question_requests(survey))
        self.zero_shot = read_scores(ask(scoring_requests(survey)))  #: [100, 10] probabilities
        self.before_reply = read_scores(asked)  #: [100, 10]
        self.topics = [read_topic(text) for text in asked]  #: [100] what was asked about
        self.after_reply = read_scores(ask(reply_requests(survey, self.topics)))  #: [100, 10]
        self.tools = [read_tool(text) for text in ask(tool_requests(survey))]  #: [100] of `TOOLS`


def read_scores(texts: Sequence[str], n: int = 10) -> np.ndarray:
    """Probabilities [len(texts), n] of the numbered films; the last line counts, `UNKNOWN` without one."""
    scores = np.full((len(texts), n), UNKNOWN)
    for row, text in zip(scores, texts, strict=True):
        for number, percent in _SCORE.findall(text):
            if 1 <= int(number) <= n:
                row[int(number) - 1] = min(float(percent), 100.0) / 100
    return scores


def read_topic(text: str, default: str = "Drama") -> str:
    """The genre or decade that is asked about, or the most frequent genre."""
    found = _TOPIC.search(text)
    return found[1] if found else default


def read_tool(text: str, default: str = TOOLS[0]) -> str:
    """The tool that is chosen, or the recommender's usual one."""
    found = _TOOL.search(text)
    return found[1] if found else default


# Words


def _request(purpose: str, *parts: str) -> Request:
    return Request(purpose, SYSTEM[purpose], "\n\n".join(parts))


def _shown(survey: SurveyTask, n_seen: int) -> Iterator[tuple[str, str]]:
    """The first ratings of the profile, and the candidates, of each test user."""
    films = _films(survey.films)
    for profile, rows in zip(survey.profiles, survey.candidates, strict=True):
        seen = profile["rating"].iloc[:n_seen]
        lines = [f"{film} | {stars:g}" for film, stars in zip(films[seen.index], seen, strict=True)]
        yield "\n".join(["Rated, first to last:", *lines]), _numbered(films[rows])


def _numbered(films: Sequence[str], counts: Sequence[int] | None = None) -> str:
    lines = [f"{number}. {film}" for number, film in enumerate(films, 1)]
    if counts is not None:
        lines = [f"{line} | {n} ratings by others" for line, n in zip(lines, counts, strict=True)]
    return "\n".join(["Films:", *lines])


def _films(films: pd.DataFrame) -> np.ndarray:
    """Film as "Title (year) | genres" of each row."""
    return (films["title"].str.strip() + " | " + genres_text(films["genres"])).to_numpy()


def _summary(rated: pd.DataFrame) -> str:
    """A profile in numbers: stars, years, and every genre with at least two films."""
    stars, years = rated["rating"], rated["year"].dropna()
    counts = stars.value_counts().sort_index(ascending=False)
    by_genre = rated.assign(genre=rated["genres"].str.split("|")).explode("genre").query("genre != ''")
    of_genre = by_genre.groupby("genre")["rating"]
    genres = (
        of_genre.agg(["size", "mean"]).query("size >= 2").sort_values("size", ascending=False, kind="stable")
    )
    lines = [
        f"The viewer gave {len(rated)} ratings, {stars.mean():.2f} stars on average.",
        "Stars: " + ", ".join(f"{level:g} x {n}" for level, n in counts.items()),
        f"Years of the films: {years.min()} to {years.max()}, median {years.median():.0f}",
        "Genres (films, mean stars): "
        + "; ".join(f"{g} {row['size']:.0f}, {row['mean']:.1f}" for g, row in genres.iterrows()),
    ]
    return "\n".join(lines)
