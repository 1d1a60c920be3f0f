"""What the experiments on MemoCRS count: ranks by arm and group of targets, sweeps, costs and leak checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from rec_utils.dialogues import Dialogues, first_sessions, transcripts
from rec_utils.knowledge.encoder import token_counts
from rec_utils.papers.memocrs import ARMS, Assistant, GeneralMemory
from rec_utils.papers.memocrs_bank import Entry
from rec_utils.papers.memocrs_contexts import Contexts, ranks
from rec_utils.papers.memocrs_experts import Expert, Popularity
from rec_utils.papers.memocrs_language import remembered
from rec_utils.papers.memocrs_recall import recall
from rec_utils.papers.memocrs_refine import Evidence
from rec_utils.splits import LeakError
from rec_utils.stats import Draws, draw_mean

CUTS = (1, 10, 50)

#: Group of targets -> which of them; a repeat was named in an earlier session of the seeker.
GROUPS: Mapping[str, Callable[[Contexts], np.ndarray]] = MappingProxyType(
    {
        "all": lambda turns: np.ones(len(turns.target), dtype=bool),
        "warm": lambda turns: turns.warm,
        "cold": lambda turns: ~turns.warm,
        "warm, repeats": lambda turns: turns.warm & turns.repeat,
        "warm, no repeats": lambda turns: turns.warm & ~turns.repeat,
    }
)


def metrics(rank: np.ndarray, cuts: Sequence[int] = CUTS) -> pd.DataFrame:
    """HR@k, NDCG@k and MRR@k of every target [N] from its rank, which is 1 for the best.

    A list has one relevant movie, so they are 1, 1 / log2(rank + 1) and 1 / rank up to rank k, else 0.
    """
    values = {"HR": np.ones(len(rank)), "NDCG": 1 / np.log2(rank + 1), "MRR": 1 / rank}
    return pd.DataFrame(
        {f"{name}@{k}": np.where(rank <= k, v, 0) for name, v in values.items() for k in cuts}
    )


def arm_ranks(
    dialogues: Dialogues, known: Evidence, assistant: Assistant, arms: Iterable[str] = tuple(ARMS)
) -> dict[str, np.ndarray]:
    """Ranks [N] of the targets in each arm."""
    return {arm: ranks(assistant.rank(dialogues, known, arm), known.contexts) for arm in arms}


def expert_ranks(turns: Contexts, experts: Mapping[str, Expert]) -> dict[str, np.ndarray]:
    """Ranks [N] of the targets by popularity, and by each expert from the dialogue alone."""
    popular = Popularity(next(iter(experts.values())).popularity)
    return {
        name: ranks(each.scores(turns.named), turns)
        for name, each in {"popularity": popular, **experts}.items()
    }


def table(
    found: Mapping[str, np.ndarray], turns: Contexts, cuts: Sequence[int] = CUTS, *, by_seeker: bool = False
) -> pd.DataFrame:
    """Mean metrics of every arm's ranks in every group of targets.

    With `by_seeker` they are means of the seekers' means, so that a few busy seekers do not decide.

    Returns:
        Columns arm, group, targets, seekers and the metrics.
    """
    rows = []
    for arm, rank in found.items():
        values = metrics(rank, cuts)
        for group, members in GROUPS.items():
            chosen, seeker = values[members(turns)], turns.seeker[members(turns)]
            mean = chosen.groupby(seeker).mean().mean() if by_seeker else chosen.mean()
            counts = {"targets": len(chosen), "seekers": len(np.unique(seeker))}
            rows.append({"arm": arm, "group": group} | counts | mean.to_dict())
    return pd.DataFrame(rows)


def draws(
    found: Mapping[str, np.ndarray],
    turns: Contexts,
    metric: str = "HR@10",
    group: str = "all",
    n_boot: int = 1000,
    seed: int = 0,
) -> Draws:
    """One metric of every arm in a group, on a bootstrap over seekers; see `stats.Draws`."""
    chosen = GROUPS[group](turns)
    cuts = (int(metric.partition("@")[2]),)
    values = {arm: metrics(rank[chosen], cuts)[metric] for arm, rank in found.items()}
    return draw_mean(values, turns.seeker[chosen], n_boot, seed)


def ablations(general: GeneralMemory, known: Evidence) -> dict[str, np.ndarray]:
    """Ranks [N] of the rules with both memories, and without each part of them."""
    guidelines = general.guidelines("both memories")
    scores = {
        "both memories": guidelines.scores(known),
        "without user memory": general.guidelines("general memory").scores(known),
        "without collaborative knowledge": general.guidelines("user memory").scores(known),
        "without guidelines": guidelines.unlearnt().scores(known),
    }
    return {name: ranks(each, known.contexts) for name, each in scores.items()}


def sweep(
    general: GeneralMemory,
    dialogues: Dialogues,
    known: Evidence,
    *,
    budgets: Sequence[int | None] = (5, 10, 20, 50, None),
    ks: Sequence[int] = (1, 3, 5, 10),
    arm: str = "both memories",
    metric: str = "HR@10",
) -> pd.DataFrame:
    """The rules with other budgets of the bank (at k = 3) and other numbers of entries retrieved (no budget).

    Returns:
        Columns swept (budget or k) and value (NaN for no budget); means over turns of warm seekers of the
        entries held, those retrieved and the words they take; and the metric for warm seekers.
    """
    pairs, turns, guidelines = general.extractor.extract(dialogues), known.contexts, general.guidelines(arm)
    warm = np.isin(np.arange(len(turns)), turns.context[turns.warm])
    rows = []
    for swept, value, k, budget in [
        *(("budget", each, 3, each) for each in budgets),
        *(("k", each, each, None) for each in ks),
    ]:
        given = replace(known, recalled=recall(dialogues, turns, pairs, general.space, k, budget))
        rank = ranks(guidelines.scores(given), turns)
        retrieved = np.bincount(given.recalled.table["row"], minlength=len(turns))
        rows.append(
            {
                "swept": swept,
                "value": value,
                "held": given.recalled.held[warm].mean(),
                "retrieved": retrieved[warm].mean(),
                "words": np.array([len(text.split()) for text in remembered(given)])[warm].mean(),
                metric: metrics(rank[turns.warm], (int(metric.partition("@")[2]),))[metric].mean(),
            }
        )
    return pd.DataFrame(rows)


def prompt_tokens(dialogues: Dialogues, known: Evidence) -> pd.DataFrame:
    """Tokens that a prompt needs for the past of the seeker, at every context [C].

    Tokens are those of all-MiniLM-L6-v2, see `token_counts`.

    Returns:
        Columns n_earlier (sessions before), memory (what was retrieved) and history (all earlier dialogues).
    """
    sessions = dialogues.sessions
    whole = transcripts(dialogues, sessions.assign(turn=np.iinfo(np.int16).max), max_words=10**6)
    tokens = sessions.assign(tokens=token_counts(whole))
    tokens["history"] = tokens.groupby("seeker")["tokens"].cumsum() - tokens["tokens"]
    turns = known.contexts.table.merge(tokens[["session_id", "n_earlier", "history"]], on="session_id")
    return turns[["n_earlier"]].assign(memory=token_counts(remembered(known)), history=turns["history"])


def follow(
    dialogues: Dialogues, known: Evidence, found: Mapping[str, np.ndarray], session: int
) -> pd.DataFrame:
    """One dialogue turn by turn: what was said, retrieved and recommended, and where each arm ranked it.

    Returns:
        Columns turn, speaker, text, retrieved (lines), recommended (titles not named before), and their ranks
        in each arm of `found`; from retrieved on empty where nothing is recommended.
    """
    turns, contexts = dialogues.turns, known.contexts
    said = turns[["turn"]].assign(
        speaker=turns["by_seeker"].map({True: "seeker", False: "recommender"}), text=dialogues.texts()
    )[turns["session_id"] == session]
    rows = contexts.table.assign(retrieved=remembered(known))
    rows = rows[rows["session_id"] == session].reset_index(names="row")
    titles = dialogues.movies["title"].to_numpy()
    targets = pd.DataFrame({"row": contexts.context, "recommended": titles[contexts.target], **found})
    lists = targets[targets["row"].isin(rows["row"])].groupby("row").agg(list)
    asked = rows[["row", "turn", "retrieved"]].merge(lists, left_on="row", right_index=True)
    return said.merge(asked.drop(columns="row"), on="turn", how="left")


def memory_before(general: GeneralMemory, dialogues: Dialogues, session: int) -> list[Entry]:
    """What the bank of a session's seeker holds when it begins, the entry touched last at the end."""
    sessions = dialogues.sessions
    seeker = sessions.loc[sessions["session_id"] == session, "seeker"].iloc[0]
    earlier = (sessions["seeker"] == seeker) & (sessions["session_id"] < session)
    known = general.evidence(dialogues.select(sessions.loc[earlier, "session_id"]))
    return list(known.recalled.banks[seeker].entries.values())


def check_leaks(dialogues: Dialogues, known: Evidence, extracted: pd.DataFrame) -> None:
    """Raise `LeakError` if anything known at a turn is from that turn, from later, or of another seeker.

    Args:
        dialogues: those of `known`.
        known: at every turn that is predicted.
        extracted: session_id and entity; what filled the memories.
    """
    turns = known.contexts
    if (turns.named[turns.context, turns.target] > 0).any():
        raise LeakError("a movie to be predicted is among those named before")
    first_turns = dialogues.mentions.groupby(["session_id", "movie_id"])["turn"].min()
    for films, first, who, when in (
        (turns.named, first_turns, "session_id", "turn"),
        (known.history, first_sessions(dialogues), "seeker", "session_id"),
    ):
        row, column = films.nonzero()
        movies = dialogues.movies["movie_id"].to_numpy()[column]
        first = first.reindex(pd.MultiIndex.from_arrays([turns.table[who].to_numpy()[row], movies]))
        # a film that was never named has no first time, and fails the comparison
        if len(wrong := np.flatnonzero(~(first.to_numpy() < turns.table[when].to_numpy()[row]))):
            raise LeakError(
                f"at context {row[wrong[0]]} movie {movies[wrong[0]]} is known before it was named"
            )
    pairs = extracted.merge(dialogues.sessions[["session_id", "seeker"]], on="session_id")
    learnt = pairs.groupby(["seeker", "entity"])["session_id"].min().rename("first").reset_index()
    given = known.recalled.table.merge(turns.table.reset_index(names="row"), on="row")
    given = given.merge(learnt, on=["seeker", "entity"], how="left")
    if len(wrong := given[~(given["first"] < given["session_id"])]):
        row = wrong.iloc[0]
        raise LeakError(
            f"in session {row['session_id']} seeker {row['seeker']} is remembered for {row['entity']!r}, "
            "of which no earlier session of theirs tells"
        )
