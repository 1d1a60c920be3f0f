"""The requests of this project, word for word, and KAR's factorisation prompts for live generation.

Both prompts of a pair list the same factors, so that what a user likes and what an item offers can be
compared factor by factor (factorisation prompting, KAR, arXiv 2306.10933).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rec_utils.errors import UserError
from rec_utils.knowledge.request import Request

MOVIE_FACTORS = (
    "genre",
    "director/actors",
    "time period/country",
    "character",
    "plot/theme",
    "mood/tone",
    "critical acclaim/award",
    "production quality",
    "soundtrack",
)
BOOK_FACTORS = (
    "genre",
    "author",
    "writing style",
    "theme",
    "setting",
    "length and complexity",
    "time period",
    "literary quality",
    "critical acclaim",
)

_KAR_SYSTEM = (
    "You know the items of a recommender system well. Answer from your own knowledge and invent nothing."
)

_SCORING = (
    "You predict what a viewer likes. You see films that the viewer has rated, in time order, with genres and"
    " 0.5 to 5 stars, and ten numbered films that the viewer rated later. From the ratings and from your own"
    " knowledge of all these films, estimate for each numbered film the probability in percent that this"
    " viewer gave it 4 stars or more. Tell the films apart: use the range that your knowledge allows and"
    " avoid equal numbers. Answer with ten lines only, each 'number: probability', such as '3: 64',"
    " from 1 to 10."
)

#: System text of each purpose. Stored answers of these purposes do not repeat it, and their keys depend
#: on it: a change here orphans them, and opening the store says so.
SYSTEM = {
    "item_facts": (
        "From your own knowledge of films, describe the movie in 60 to 85 words of flowing English prose."
        " Cover, where you know it and not always in the same order: director and leading cast; country"
        " or industry, time and place of the story; premise, themes and kind of main character; mood,"
        " tone, pacing, visual style or music where it stands out; standing (awards, critical reputation,"
        " box office, cult status, franchise or source), who tends to like it and one or two films close"
        " to it. Be factual and specific, invent nothing; if you do not know the film, say that it is"
        " little known and what title, year and genres suggest."
    ),
    "user_preferences": (
        "Reason about this viewer's preferences from the films they rated first, in time order, 0.5 to 5"
        " stars, in 70 to 100 words of English prose, using your own knowledge of the films. Cover what"
        " they like and what they dislike on the factors genre; directors and actors; time period and"
        " country; kind of characters; plot and themes; mood and tone; critical standing; production"
        " quality and visual style; music; give reasons from the history, contrasts between high and low"
        " marks, how generous they rate, and what they would probably enjoy or reject next. Be specific;"
        " do not list the history back; do not guess age, gender or job."
    ),
    "kar_item": _KAR_SYSTEM,
    "kar_user": _KAR_SYSTEM,
    "group_traits": (
        "You see a random sample of the items in one group that a recommender system made. From your own"
        " knowledge of these items, say in 100 to 170 words of flowing English prose what they have in"
        " common on the factors asked for: what most of them share, and where the group is mixed, which"
        " kinds it falls into. Be specific; name a few typical items as examples but do not list the"
        " titles back; skip a factor on which nothing can be said; invent nothing, and do not guess who"
        " made the group or why."
    ),
    "interest_summary": (
        "You see one period of a viewer's history: films in the order they were rated, each with 0.5 to 5"
        " stars. Describe in 65 to 90 words of English prose what interests the viewer showed in this"
        " period, using your own knowledge of the films. Consider the factors genre; directors and actors;"
        " time period and country; characters; plot and themes; mood and tone; critical acclaim; production"
        " quality; music; and say where high and low marks part. Be specific; name a few telling films but"
        " do not list the history back; say nothing of other periods; do not guess age, gender or job."
    ),
    "interest_shift": (
        "You see how a viewer's interests were described in one period and in the next. Say in 35 to 55"
        " words of English prose what changed: which preferences are new or stronger, which faded or turned"
        " round, and what stayed, on whichever factors it shows (genre; directors and actors; time period and"
        " country; characters; plot and themes; mood and tone; critical acclaim; production quality; music)."
        " Use only what the two descriptions say, and be specific; if little changed, say so."
    ),
    "dialogue_memory": (
        "You keep the memory of a film recommender. Read a finished dialogue between a seeker and a"
        " recommender and note what it shows of the seeker's preferences: for films, genres, people, topics."
        ' Answer with a JSON list only, each element {"entity": "...", "attitude": "..."}. Write film titles'
        " exactly as in the dialogue, with the year where it stands there. An attitude has at most 10 words"
        ' and begins with "likes", "dislikes", "wants to see" or "no opinion"; a reason or condition may'
        " follow. List every film of the dialogue once, with what the seeker says of it or how they take it"
        " when it is suggested, then genres, people and topics if the seeker shows an attitude to them. Skip"
        " chit-chat and what only the recommender likes."
    ),
    "dialogue_ranking": (
        "You are the recommender in a dialogue about films. You see what is remembered of the seeker from"
        " earlier dialogues, guidelines, candidates that other people's dialogues suggest, best first, and"
        " the dialogue so far. Name the 10 films that the recommender is most likely to name in the next"
        " turn, most likely first. Take films from the candidates or others that you know, as they fit the"
        " seeker and the dialogue; leave out films that the dialogue has named. Answer with a JSON list of"
        ' titles only, each with its year, such as ["Heat (1995)", "Up (2009)"].'
    ),
    "zero_shot_scores": _SCORING,
    "taste_question": (
        _SCORING
        + " Then ask this viewer one question: which kind of film should they tell you about, so that"
        " their answer helps you most with the numbered films? Add it as an eleventh line, 'ask: ' and one"
        " genre as it is spelled in the lists or one decade, such as 'ask: Horror' or 'ask: 1970s'."
    ),
    "scores_after_reply": _SCORING + " Take into account what the viewer answered to your question.",
    "tool_choice": (
        "You control a film recommender and choose the tool that scores ten films for one viewer. 'model': a"
        " neural click model, trained on the ratings of some 500 other viewers; it knows films by number and"
        " first genre only, reads this viewer's ratings, and has little to go by for films that few others"
        " rated. 'popularity': the number of ratings by other viewers, the same order for everybody."
        " 'language': a language model, which reads this viewer's ratings and judges by what it knows of the"
        " films and how they are regarded. You see a summary of the viewer's ratings and the ten films."
        " Choose the tool that will rank the films best for this viewer. Answer with one line only, 'tool: '"
        " and its name, such as 'tool: model'."
    ),
}


def _history(history: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    rows = [(title.strip(), stars) for title, stars in history]
    if not rows:
        raise UserError("a user prompt needs at least one rated item; the history is empty")
    return rows


def item_facts(title: str, genres: str) -> Request:
    """Ask for the facts about one movie; `title` ends in the year, `genres` are joined by "|" or empty."""
    shown = genres or "(no genres listed)"  # as MovieLens says it
    return Request("item_facts", SYSTEM["item_facts"], f"{title.strip()}\nGenres: {shown}")


def user_preferences(history: Sequence[tuple[str, float]]) -> Request:
    """Ask for a viewer's preferences, from (title with year, stars) in time order."""
    shown = "; ".join(f"{title} {stars:g}" for title, stars in _history(history))
    return Request("user_preferences", SYSTEM["user_preferences"], shown)


def kar_item(title: str, factors: Sequence[str] = MOVIE_FACTORS, kind: str = "movie") -> Request:
    """KAR's item prompt, in our words: introduce the item factor by factor.

    `kind` is the noun, such as "movie" or "book"; a book's title comes with its brand in KAR's data.
    """
    listed = ", ".join(factors)
    prompt = f'Introduce the {kind} "{title.strip()}" and describe its {listed}; add what else matters.'
    return Request("kar_item", SYSTEM["kar_item"], prompt)


def kar_user(
    history: Sequence[tuple[str, float]],
    profile: str = "",
    factors: Sequence[str] = MOVIE_FACTORS,
    kind: str = "movie",
) -> Request:
    """KAR's user prompt, in our words: profile, first n items with stars, then the same factors.

    `profile` is a sentence such as `ml1m_profile` gives; data without profiles leave it empty. The
    history ends before the last ";", which is where KAR cuts the prompt to build the user's text.
    """
    shown = "; ".join(f'"{title}", {stars:g} stars' for title, stars in _history(history))
    opening = f"{profile.strip()} " if profile.strip() else ""
    prompt = (
        f"{opening}The user's rated {kind}s in order: {shown}; analyse the user's preferences (consider"
        f" factors like {', '.join(factors)}). Explain each with what the rated {kind}s show."
    )
    return Request("kar_user", SYSTEM["kar_user"], prompt)


def group_traits(
    titles: Sequence[str], factors: Sequence[str] = MOVIE_FACTORS, kind: str = "movie"
) -> Request:
    """REKI's prompt for a group, in our words: some of its titles, what do they have in common?

    REKI's released prompts ask about movies with a list of factors for books; here the two must match.
    """
    if not titles:
        raise UserError(f"a group prompt needs at least one {kind}; the group is empty")
    shown = "; ".join(f'"{title.strip()}"' for title in titles)
    prompt = (
        f"A group of {kind}s: {shown}. Describe the characteristics that these {kind}s have in common"
        f" (consider factors like {', '.join(factors)})."
    )
    return Request("group_traits", SYSTEM["group_traits"], prompt)


def interest_summary(history: Sequence[tuple[str, float]], profile: str = "") -> Request:
    """LIBER's first prompt: the interests in one partition, from (title with year, stars) in time order.

    `profile` is a sentence such as `ml1m_profile` gives; data without profiles leave it empty.
    """
    shown = "; ".join(f"{title} {stars:g}" for title, stars in _history(history))
    return Request("interest_summary", SYSTEM["interest_summary"], f"{profile.strip()} {shown}".strip())


def interest_shift(previous: str, current: str) -> Request:
    """LIBER's second prompt: what changed between the summaries of two neighbouring partitions."""
    for name, summary in {"previous": previous, "current": current}.items():
        if not summary.strip():
            raise UserError(f"a shift needs two summaries; the {name} one is empty")
    prompt = f"Before: {previous.strip()}\nNow: {current.strip()}"
    return Request("interest_shift", SYSTEM["interest_shift"], prompt)


def ml1m_profile(gender: str, age_band: str, occupation: str) -> str:
    """KAR's profile sentence for MovieLens-1M, e.g. `("female", "25-34", "writer")`."""
    return f"The user is {gender}, aged {age_band}, occupation {occupation}."


def knowledge_text(request: Request, answer: str) -> str:
    """KAR's text of a user for the encoder: the prompt before its last ";", then ". ", then the answer.

    Our own `user_preferences` prompt is nothing but the history, so the whole prompt is taken.
    Source: KAR's released code, knowledge_encoding.
    """
    shown = request.prompt if request.purpose == "user_preferences" else request.prompt.rpartition(";")[0]
    return f"{shown}. {answer}"


def dialogue_memory(dialogue: str) -> Request:
    """MemoCRS' extraction, in our words: which entities does a finished dialogue show an attitude to?"""
    if not dialogue.strip():
        raise UserError("an extraction needs a dialogue; it is empty")
    return Request("dialogue_memory", SYSTEM["dialogue_memory"], dialogue.strip())


def dialogue_ranking(
    dialogue: str,
    memory: str = "",
    guidelines: str = "",
    candidates: Sequence[str] = (),
    history: str = "",
) -> Request:
    """MemoCRS' final prompt, in our words; a part that is empty is left out.

    `memory` and `guidelines` are lines of text, `candidates` are titles, best first, `history` are earlier
    dialogues in place of a memory, and `dialogue` ends before the turn to be predicted; it may be empty.
    """
    parts = {
        "Earlier dialogues": history,
        "Remembered of the seeker": memory,
        "Guidelines": guidelines,
        "Candidates": "; ".join(candidates),
        "Dialogue so far": dialogue or "(nothing was said yet)",
    }
    shown = "\n\n".join(f"{name}:\n{text.strip()}" for name, text in parts.items() if text.strip())
    return Request("dialogue_ranking", SYSTEM["dialogue_ranking"], shown)
