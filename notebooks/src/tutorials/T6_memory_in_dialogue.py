# ---
# jupyter:
#   jupytext:
#     formats: notebooks/tutorials//ipynb,notebooks/src/tutorials//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Memory in dialogue
#
# People come back to a recommender and say again what they have said before. What should it remember, and does remembering help? We build the memory of MemoCRS (Xi et al., CIKM 2024) from nothing, for real
# dialogues about films.
#
# **You will be able to** turn dialogues into entities and attitudes; keep a memory that adds, merges, retrieves and forgets; recall through what other people's dialogues name together; rank films with and without
# memory, by rules and by a language model's stored answers; measure this with HR@k and NDCG@k; and catch a memory that knows the answer. **Time:** about 40 minutes of class; the notebook itself runs in about 20 seconds.
# **You need** Python's dictionaries, a little pandas and matrices in PyTorch.
#
# Exercises have an answer cell and a check below it. Points are added up at the end.

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke takes the first sessions only, laptop is what is shown here
SEED: int = 0  # of the bootstrap
K: int = 3  # entries retrieved for each film that the dialogue has named
WEIGHT: float = 0.1  # of what is remembered, beside what the dialogue itself has named; set once, not tuned

# %%
import numpy as np
import pandas as pd
import torch

from rec_utils import classroom, dialogues, plots, records, stats

run = records.start_notebook("T6_memory_in_dialogue", globals())
sheet, NAME = classroom.Sheet("T6"), "T6_memory_in_dialogue"
redial = dialogues.load("redial")
run.data(redial)
train, test = redial.split("train"), redial.split("test")
if PROFILE == "smoke":
    test = test.select(test.sessions["session_id"].head(300))
for name, part in {"to learn from": train, "to be tested on": test}.items():
    print(f"{name}: {len(part.sessions):,} dialogues of {part.sessions['seeker'].nunique()} seekers")

# %% [markdown]
# ## 1 What is to be predicted?
#
# In ReDial, a *seeker* says what they like and a *recommender* names films; films are marked. Many seekers came back. Whenever the recommender is about to speak, we ask: **which film will it name?** Only films count
# that nobody has named in this dialogue before. What a model may read is what was said before that turn, and the seeker's *earlier* dialogues.

# %%
targets = dialogues.recommendations(test)  # session_id, turn, movie_id, seeker, warm, repeat
turns = targets[["session_id", "turn", "seeker"]].drop_duplicates(["session_id", "turn"], ignore_index=True)
turns = turns.reset_index(names="context")
targets = targets.merge(turns[["context", "session_id", "turn"]], on=["session_id", "turn"])
before = turns.merge(test.mentions, on="session_id", suffixes=("", "_named"))
before = before[before["turn_named"] < before["turn"]].drop_duplicates(["context", "movie_id"], keep="last")

lengths = test.turns.groupby("session_id").size()
shown = lengths.index[(lengths < 14) & lengths.index.isin(targets["session_id"])][:1]
print(dialogues.transcripts(test, pd.DataFrame({"session_id": shown, "turn": 10_000}), 200)[0])
print(
    "\nto be predicted:", *test.titles[targets.loc[targets["session_id"] == shown[0], "movie_id"]], sep="\n- "
)
print(f"\n{len(turns):,} turns, {len(targets):,} films to find, {targets['repeat'].mean():.0%} of them")
print("named in an earlier dialogue of the same seeker: repeats")


# %%
# Exercise 1. Which films of a dialogue are to be predicted?
def to_find(mentions):
    """List of the films to be predicted, in order.

    mentions: list of (who, film) in the order of the dialogue, who is "seeker" or "recommender". A film is to be
    predicted where it is named for the first time in the dialogue, if it is the recommender who names it.
    """
    ### BEGIN SOLUTION
    found, named = [], set()
    for who, film in mentions:
        if who == "recommender" and film not in named:
            found.append(film)
        named.add(film)
    return found
    ### END SOLUTION


# %%
sheet.check(1, to_find)

# %% [markdown]
# ## 2 From words to entities and attitudes
#
# Most of a dialogue is chat. MemoCRS keeps pairs: an **entity** (here a film) and the seeker's **attitude** to it. Its extractor is a language model; ours is a list of words. For a film that the seeker names we read what they
# say with it, for a film that the recommender names we read the answer.
#
# Is it any good? After the dialogue, seekers filled in a form: did I like this film? The form is the truth to compare with, never an input. And the trap to avoid: *calling everything liked*. What does F1 say of that, likes and dislikes apart?

# %%
LIKES = r"\b(?:lov|lik|enjoy|great|good|awesome|amazing|favou?rite|best|funny|excellent|perfect|classic|yes|yeah)\w*"
DISLIKES = (
    r"n['’]t (?:\w+ ){0,2}(?:like|enjoy|care|love|into)|\b(?:not|never|no) (?:\w+ ){0,2}(?:like|fan|good|great|my)"
    r"|\b(?:hate|dislike|boring|bad|terrible|awful|worst|stupid|disappoint)\w*"
)
WANTS = r"(?:have|has|had)n['’]t|\bnever (?:seen|heard)|not seen|\b(?:check|watch|see) (?:it|that|them)\b|\bi['’]?ll\b"


def extract(part):
    """session_id, entity, attitude of each film of each session; the last mention of a film counts."""
    said = part.turns.assign(text=part.turns["text"].str.casefold())
    change = (said[["session_id", "by_seeker"]] != said[["session_id", "by_seeker"]].shift()).any(axis=1)
    said["block"] = change.cumsum()  # what one person says before the other speaks
    block = said.groupby("block").agg(session_id=("session_id", "first"), text=("text", " ".join))
    answered = block["session_id"] == block["session_id"].shift(-1)
    block["answer"] = block["text"].shift(-1).where(answered, "")
    film = part.mentions.merge(said[["session_id", "turn", "block"]], on=["session_id", "turn"])
    own, answer = film["block"].map(block["text"]), film["block"].map(block["answer"])
    words = own.where(film["by_seeker"], answer)
    no, yes, wish = (words.str.contains(cue) for cue in (DISLIKES, LIKES, WANTS))
    attitude = np.select(
        [no, wish & ~yes, yes | film["by_seeker"]], ["dislikes", "wants to see", "likes"], "no opinion"
    )
    film = film.assign(entity=film["movie_id"].map(part.titles), attitude=attitude)
    return film.drop_duplicates(["session_id", "entity"], keep="last")[["session_id", "entity", "attitude"]]


# %%
from rec_utils.papers.memocrs_attitudes import extraction_scores

extracted = extract(test)
both = {"our words": extracted, "everything liked": extracted.assign(attitude="likes")}
quality = pd.DataFrame({name: extraction_scores(pairs, test) for name, pairs in both.items()}).T
run.table("extraction", quality.rename_axis("extractor"))
quality[["f1", "f1_likes", "f1_dislikes", "pairs"]].round(2)

# %% [markdown]
# ## 3 A bank that grows
#
# Every seeker has a bank, a dictionary from entity to attitude. After each *finished* dialogue its pairs are written:
#
# - **add** what is new, unless no opinion was said;
# - **merge** what is there: the newer attitude stands, unless only the older holds an opinion; where the two disagree, the older is kept in brackets;
# - at a turn, **retrieve** for each film named so far the $k$ entries most like it; before any film is named, the $k$ touched last;
# - **delete** what was touched longest ago, when there is a budget. Touched means written or retrieved.
#
# A Python dictionary keeps its order. So if each touched entry moves to the end, no clock is needed.


# %%
def opinion(attitude):
    return 1 if attitude.startswith(("likes", "wants")) else -1 if attitude.startswith("dislikes") else 0


class Bank:
    """The memory of one seeker: entity -> attitude; what was touched last stands last."""

    def __init__(self):
        self.entries = {}

    def write(self, pairs):
        for entity, new in pairs:
            old = self.entries.pop(entity, "")
            if opinion(new) == 0:
                new = old  # nothing was said, so what stood there stays
            elif opinion(new) * opinion(old) < 0:
                new = f"{new} (earlier: {old.split(' (')[0]})"
            if new:
                self.entries[entity] = new


bank = Bank()
for said in (
    [("Alien", "likes"), ("Titanic", "dislikes")],
    [("Alien", "no opinion"), ("Heat", "wants to see")],
    [("Titanic", "likes"), ("Up", "no opinion")],
):
    bank.write(said)
    print(bank.entries)

# %%
# Exercise 2. In a first dialogue somebody "wants to see" Up. In the second they say "likes", in the third "dislikes", in the
# fourth "no opinion". Which attitude does the bank hold then? Answer by hand, with a text.
### BEGIN SOLUTION
attitude_to_up = "dislikes (earlier: likes)"
### END SOLUTION

# %%
sheet.check(2, attitude_to_up)


# %%
# Exercise 3. Forgetting, which the class above does not do.
def forget(last_touched, budget):
    """Set of the entities that are kept when the bank may hold `budget` entries.

    last_touched: dictionary entity -> time of the last operation on it, in any order, all times different.
    """
    ### BEGIN SOLUTION
    return set(sorted(last_touched, key=last_touched.get)[-budget:])
    ### END SOLUTION


# %%
sheet.check(3, forget)

# %% [markdown]
# ## 4 Recall through other people, session by session
#
# A dialogue is about *The Terminator*, the bank holds *Alien*. Are they alike? Nobody says so here, but other people's dialogues name both. With $n_{ij}$ dialogues that name $i$ and $j$, the likeness is a cosine, shrunk so that
# two rare films that met once do not count as twins:
#
# $$s_{ij} = \frac{n_{ij}}{\sqrt{(n_i + 20)(n_j + 20)}}.$$
#
# The same counts make an **expert**: film $j$ scores $\sum_i n_{ij} / (n_i + 20)$ over the films $i$ that the dialogue has named, and a little for being popular. The expert knows everybody and nobody.
#
# Then comes time. A dialogue is written into its seeker's bank **after** its last turn: at any turn, the bank knows earlier dialogues only. (A switch `leak` in the code breaks this rule. We shall need it.)

# %%
films = redial.movies["title"]
N, row = len(films), pd.Series(range(len(films)), index=redial.movies["movie_id"])
at_title = dict(zip(films[::-1], range(N - 1, -1, -1), strict=True))  # of equal titles the first

named = train.mentions.drop_duplicates(["session_id", "movie_id"])
named = pd.DataFrame({"session_id": named["session_id"], "film": row.loc[named["movie_id"]].to_numpy()})
pairs = torch.tensor(named.merge(named, on="session_id")[["film_x", "film_y"]].to_numpy()).T
together = torch.zeros(N, N).index_put_((pairs[0], pairs[1]), torch.ones(pairs.shape[1]), accumulate=True)
n_dialogues = together.diagonal().clone()
together.fill_diagonal_(0)


def likeness(queries, entities):
    """How alike films are [Q, E], by their titles; a film and itself count 1 more."""
    q, e = (torch.tensor([at_title[title] for title in titles]) for titles in (queries, entities))
    shrunk = (n_dialogues.double() + 20).sqrt()
    return together[q][:, e] / shrunk[q][:, None] / shrunk[e] + (q[:, None] == e)


for film in ("The Terminator (1984)", "Frozen (2013)", "Get Out (2017)"):
    best = likeness([film], films).squeeze(0).topk(4).indices[1:]
    print(f"{film}: {', '.join(films[best.tolist()])}")


# %%
# Exercise 4. Another likeness, Jaccard's: of the dialogues that name i or j, the share that name both.
def jaccard(chosen):
    """[M, M] likeness of M films, 0 on the diagonal and for films that no dialogue names.

    chosen: [S, M] of 0. and 1., whether a dialogue names a film. Use a matrix product, no loop.
    """
    ### BEGIN SOLUTION
    both = chosen.T @ chosen
    alone = chosen.sum(0)
    either = alone[:, None] + alone - both
    return (both / either.clamp(min=1)).fill_diagonal_(0)
    ### END SOLUTION


# %%
sheet.check(4, jaccard)


# %%
def retrieve(bank, queries, k):
    """The k entries most like each query, as a list of entities in the bank's order; they are touched."""
    names = list(bank.entries)
    if queries and names:
        alike = likeness(queries, names).flip(1)  # of equals, the one touched last comes first
        order = alike.mul(1e9).round().argsort(dim=1, descending=True, stable=True)[:, :k]
        places = (len(names) - 1 - order)[alike.gather(1, order) > 0].unique().tolist()
        names = [names[place] for place in places]
    found = names if queries else names[-k:]
    for name in found:
        bank.entries[name] = bank.entries.pop(name)
    return found


def live(part, turns, before, extracted, leak=False):
    """What is retrieved at every turn: context, entity, attitude, held (entries in the bank at that time)."""
    banks = {seeker: Bank() for seeker in part.sessions["seeker"]}
    said = {s: list(zip(g["entity"], g["attitude"], strict=True)) for s, g in extracted.groupby("session_id")}
    queries = before["movie_id"].map(redial.titles).groupby(before["context"]).agg(list).to_dict()
    of_session, found = turns.groupby("session_id")["context"].agg(list).to_dict(), []
    for session, seeker in part.sessions[["session_id", "seeker"]].itertuples(index=False):
        bank, pairs = banks[seeker], said.get(session, [])
        bank.write(pairs if leak else [])
        for context in of_session.get(session, []):
            names = retrieve(bank, queries.get(context, []), K)
            found += [(context, name, bank.entries[name], len(bank.entries)) for name in names]
        bank.write([] if leak else pairs)
    return pd.DataFrame(found, columns=["context", "entity", "attitude", "held"])


# %% tags=["nbval-ignore-output"]
recalled = live(test, turns, before, extracted)
sizes = turns.merge(test.sessions[["session_id", "n_earlier"]], on="session_id").set_index("context")
sizes["films in the bank"] = recalled.groupby("context")["held"].first()
sizes["retrieved for a turn"] = recalled.groupby("context").size()
counts = ["films in the bank", "retrieved for a turn"]
# an empty answer says nothing of the bank, so its size then is taken from the turns with one
came_back = sizes[sizes["n_earlier"].between(1, 50)].fillna({counts[1]: 0})
by_age = came_back.groupby("n_earlier")[counts].mean()
grown = by_age.reset_index().melt("n_earlier", var_name="what", value_name="entries")
figure = plots.lines(
    grown,
    "n_earlier",
    "entries",
    "what",
    xlabel="earlier dialogues of the seeker",
    ylabel="entries, mean over turns",
)
caption = (
    f"The bank grows with every dialogue, to {by_age[counts[0]].iloc[-1]:.0f} films after {by_age.index[-1]}; what a turn reads of it stays near "
    f"{by_age[counts[1]].mean():.0f} (n = {len(came_back):,} turns of seekers who came back)."
)
plots.show(figure, NAME, "bank", grown, caption)

# %% [markdown]
# ## 5 Ranking with and without memory
#
# All films that the dialogue has not named are ranked. What is remembered as liked can enter in two ways, each with a small weight: **say it again** adds to the remembered film itself, **its neighbours** lets the expert read the
# remembered film as if the dialogue had named it.
#
# From the *rank* of the film that was really named (1 is best) follow **HR@k**, 1 if the rank is at most k, else 0; and **NDCG@k**, which also asks how high.


# %%
def where(table):
    """Contexts [n] and films [n] of a table with context and movie_id."""
    return torch.tensor(table["context"].to_numpy()), torch.tensor(row.loc[table["movie_id"]].to_numpy())


def ask_expert(scores, context, film, weight=1.0):
    """Add to the scores [C, N] what the expert says of films that are read at contexts."""
    for some in torch.arange(len(film)).split(2000):
        share = together[film[some]] / (n_dialogues[film[some]] + 20)[:, None]
        scores.index_add_(0, context[some], weight * share)
    return scores


def ranks(scores):
    """Rank [n] of each film to be found among those that its dialogue has not named; equals count against it."""
    context, film = where(targets)
    own, scores = scores[context, film], scores.index_put(where(before), torch.tensor(-torch.inf))
    parts = torch.arange(len(film)).split(500)
    return torch.cat([(scores[context[p]] >= own[p][:, None]).sum(1) for p in parts])


# %%
# Exercise 5. NDCG@k where one film is right: 1 / log2(rank + 1) up to rank k, else 0.
def ndcg(rank, k):
    """NDCG@k [n] of ranks [n], whole numbers from 1 (a tensor)."""
    ### BEGIN SOLUTION
    return torch.where(rank <= k, 1 / torch.log2(rank + 1.0), 0.0)
    ### END SOLUTION


# %%
sheet.check(5, ndcg)

# %%
popular = (0.01 * n_dialogues / n_dialogues.max()).repeat(len(turns), 1)
without = ask_expert(popular.clone(), *where(before))
ARMS = {"say it again": (True, False), "its neighbours": (False, True), "both": (True, True)}


def with_memory(recalled, again, neighbours):
    """Ranks [n] when what was recalled as liked is used in these ways."""
    liked, scores = recalled[recalled["attitude"].map(opinion) > 0], without.clone()
    ids = redial.movies["movie_id"].to_numpy()[liked["entity"].map(at_title)]
    context, film = where(liked.assign(movie_id=ids))
    if neighbours:
        ask_expert(scores, context, film, WEIGHT)
    if again:
        scores[context, film] += WEIGHT
    return ranks(scores)


found = {"popularity": ranks(popular), "no memory": ranks(without)}
found |= {arm: with_memory(recalled, *ways) for arm, ways in ARMS.items()}

# %% tags=["nbval-ignore-output"]
groups = {
    "all": targets["seeker"] > 0,
    "repeats": targets["repeat"],
    "new films": ~targets["repeat"] & targets["warm"],
}
hits = pd.DataFrame({name: (rank <= 10).float() for name, rank in found.items()})
drawn = {
    g: stats.draw_mean(dict(hits[m].items()), targets.loc[m, "seeker"], seed=SEED) for g, m in groups.items()
}
table = pd.DataFrame({g: d.value for g, d in drawn.items()})
run.table("HR@10", table.rename_axis("arm"))
gains = pd.concat(
    d.gains((g, arm, "no memory") for arm in ARMS).assign(label=[f"{arm}, {g}" for arm in ARMS])
    for g, d in drawn.items()
)
figure = plots.forest(gains, xlabel="change of HR@10 over no memory (%)")
over_all = drawn["all"].gain("say it again", "no memory")
caption = (
    f"Relative change of HR@10 by memory, 95 % intervals over {drawn['all'].n} seekers, n = {len(targets):,} films to find. "
    f"Saying it again: {over_all.value:+.1f} % [{over_all.low:+.1f}, {over_all.high:+.1f}] over all."
)
plots.show(figure, NAME, "gains", gains, caption)
table.round(3)

# %% [markdown]
# ## 6 The leak that pays
#
# Suppose the bank is written when a dialogue *begins*. No exception is raised, and the numbers are wonderful: the films that are to be found stand in the memory. An evaluation must look for this, not hope.

# %%
leaky = with_memory(live(test, turns, before, extracted, leak=True), *ARMS["both"]) <= 10
honest = found["both"] <= 10
print(f"HR@10 rises by more than half: {bool(leaky.float().mean() > 1.5 * honest.float().mean())}")


# %%
# Exercise 6. Find the leaks.
def leaks(retrieved, learnt):
    """List of the (session, entity) of `retrieved` that the memory could not know yet, in their order.

    retrieved: list of (session, entity): in this session the memory gave this entity. learnt: dictionary entity ->
    list of the sessions, numbered in time, that named it. An entity may be given if an earlier session named it.
    """
    ### BEGIN SOLUTION
    return [
        (now, entity) for now, entity in retrieved if not any(then < now for then in learnt.get(entity, []))
    ]
    ### END SOLUTION


# %%
sheet.check(6, leaks)

# %% [markdown]
# ## 7 A language model reads the memory
#
# In MemoCRS a language model ranks: it reads the dialogue, the expert's candidates, guidelines and the memory, and lists films. Answers to such prompts are stored in this repository, with and without the memory in the prompt, for
# some turns of the busiest seekers. We look them up by their dialogue, find the titles in the catalog and take ranks as before. Turns before the first word are left out, since their prompts look alike.

# %%
from rec_utils.knowledge.store import Store
from rec_utils.papers.memocrs_language import RANKING_WORDS
from rec_utils.papers.memocrs_requests import asked_turns
from rec_utils.settings import ROOT

store = Store(ROOT / "data_prep/bundled/knowledge/dialogue_ranking.jsonl", readonly=True)
answers = {}
for answer in store:
    prompt, dialogue = answer.request.prompt.split("Dialogue so far:\n")
    answers[dialogue, "is remembered" in prompt] = answer.text
asked = asked_turns(redial.split("test"))
asked["dialogue"] = [text.strip() for text in dialogues.transcripts(redial, asked, RANKING_WORDS)]
asked = asked[asked["dialogue"] != ""].merge(turns, on=["session_id", "turn"])
example = next(answer.request.prompt for answer in store if "Remembered" in answer.request.prompt)
print(
    example[: example.index("Guidelines")],
    f"...\n{len(asked)} turns, answered by {', '.join(store.models())}",
    sep="",
)


# %% tags=["nbval-ignore-output"]
from rec_utils.papers.memocrs_language import read_titles
from rec_utils.papers.memocrs_study import metrics

at_name = {name.casefold(): place for name, place in at_title.items()}
said = before.groupby("context")["movie_id"].agg(lambda ids: set(row.loc[ids])).to_dict()
place = {}
for context, dialogue in asked[["context", "dialogue"]].itertuples(index=False):
    for memory in (True, False):
        listed = [at_name.get(name.casefold(), name) for name in read_titles(answers[dialogue, memory])]
        listed = [film for film in dict.fromkeys(listed) if film not in said.get(context, ())]
        place |= {(context, memory, film): number for number, film in enumerate(listed, 1)}
wanted = targets[targets["context"].isin(asked["context"])]
pairs = list(zip(wanted["context"], row.loc[wanted["movie_id"]], strict=True))
rank = {
    f"language model, {name}": np.array([place.get((context, memory, film), 1000) for context, film in pairs])
    for name, memory in {"memory": True, "no memory": False}.items()
}
rank |= {f"rules, {name}": found[name].numpy()[wanted.index] for name in ("both", "no memory", "popularity")}
scores = pd.DataFrame({name: metrics(each, (10,)).mean() for name, each in rank.items()}).T
run.table("language model", scores.rename_axis("ranking"))
models = stats.draw_mean({name: each <= 10 for name, each in rank.items()}, wanted["seeker"], seed=SEED)
gain = models.gain(*list(rank)[:2])
print(
    f"{len(wanted)} films to find. What memory adds: {gain.value:+.0f} % [{gain.low:+.0f}, {gain.high:+.0f}] of HR@10"
)
scores.round(3)

# %%
for draws, arm, over, of in (
    (drawn["all"], "no memory", "popularity", "all films"),
    (drawn["repeats"], "say it again", "no memory", "repeats"),
    (drawn["new films"], "say it again", "no memory", "films that are new to the seeker"),
    (models, "language model, no memory", "rules, no memory", "the turns with answers"),
    (models, "language model, memory", "language model, no memory", "the turns with answers"),
):
    gain = draws.gain(arm, over)
    verdict = (
        "more than" if gain.low > 0 else "less than" if gain.high < 0 else "not more, as far as shown, than"
    )
    print(f"{of}: {arm} finds {verdict} {over}")

# %% [markdown]
# **What to take home.** Memory finds what was named before: repeats gain by a quarter, films that are new to the seeker lose by a tenth, and over all little is left. Whether that is good is not a question of the metric alone: does
# somebody who comes back want the same film again? Recall through other people changes little either way. The language model ranks far better than our
# rules (it knows films, and may know from elsewhere which go together), but that the memory helps it is not shown.
#
# ## 8 Proof: this is the library's memory
#
# The notebook on MemoCRS uses `rec_utils`. With the same dialogues, pairs and likeness, does its memory give the same entries at each turn, its expert the same ranks, its metric the same values?

# %%
from dataclasses import replace

from scipy import sparse

from rec_utils.papers.memocrs_contexts import contexts
from rec_utils.papers.memocrs_contexts import ranks as library_ranks
from rec_utils.papers.memocrs_experts import Neighbours
from rec_utils.papers.memocrs_genres import GENRES
from rec_utils.papers.memocrs_recall import EntitySpace, recall

library = contexts(test)
library = replace(library, wanted=np.zeros_like(library.wanted))  # ours has films only, no genres
cosine = Neighbours.fit(train, cosine=True).weights
space = EntitySpace(redial.movies, sparse.csr_array((N, len(GENRES))), cosine)
theirs = recall(test, library, extracted, space, K).table
ours = recalled.rename(columns={"context": "row"})[["row", "entity", "attitude"]]
some = at_title["The Terminator (1984)"]
gap = likeness([films[some]], films).squeeze(0) - torch.tensor(
    space.similarity([films[some]], list(films))
).squeeze(0)
same_rank = found["no memory"].numpy() == library_ranks(Neighbours.fit(train).scores(library.named), library)
equal = {
    f"memory, {len(ours):,} entries at {len(turns):,} turns": ours.equals(theirs),
    "likeness within 1e-6": bool(gap.abs().max() < 1e-6),
    f"expert, ranks of {len(targets):,} films, all but a few ties": same_rank.mean() > 0.999,
}
for name, is_equal in equal.items():
    print(f"{name}: {'equal' if is_equal else 'DIFFERENT'}")
assert all(equal.values())

# %% [markdown]
# ## Where to go on
#
# - [The notebook on MemoCRS](../08_memocrs.ipynb): all of it, with genres, learnt guidelines, sizes of memory, tokens saved, and claims with their verdicts.
# - `rec_utils/papers/memocrs_bank.py` and `memocrs_recall.py`: the memory with a clock, a budget and files.
# - Xi et al., *MemoCRS: Memory-enhanced Sequential Conversational Recommender Systems with Large Language Models*, CIKM 2024, [2407.04960](https://arxiv.org/abs/2407.04960). Its prompts are not public: the
#   mechanism is a reconstruction. Data: Li et al., *Towards Deep Conversational Recommendations*, NeurIPS 2018 (ReDial, CC BY 4.0).
#
# ## Your score

# %%
sheet.score()
_ = run.finish()
