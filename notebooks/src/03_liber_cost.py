# ---
# jupyter:
#   jupytext:
#     formats: notebooks//ipynb,notebooks/src//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # LIBER: what does a history without end cost?
#
# A language model reads each partition of a user's history once. This notebook runs that stream, counts its calls
# and tokens from the lengths of real histories, and compares it with reading everything again. What the texts
# are worth to a recommender is tested in `03_liber`.

# %% tags=["nbval-ignore-output"]
from rec_utils import claims, plots, records, report

report.cost_table(records.load("03_liber_cost"))

# %% [markdown]
# ## The paper

# %%
from IPython.display import Markdown, display

card = claims.load_card("liber_cost")
Markdown(report.card_markdown(card))

# %% [markdown]
# ## Claims under test
#
# Each claim has a *null*, where it would be empty, and a range that would *match* the paper. They were fixed
# before the first run.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
report.claims_table(card)

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke, laptop or paper: data set and sizes from the card
SEED: int = 0  # of the order of the timings
COUNT: int = 50  # K, ratings in a partition
GAP_HOURS: int = 24  # the pause that may close a partition, too
LONG: int = 6  # partitions in the history that is read again for the timing

# %% [markdown]
# ## Data
#
# All ratings of all users, in the order in which they came. No label is predicted here, so nothing can leak.

# %%
import numpy as np

from rec_utils import data, stats

run, size = records.start_notebook("03_liber_cost", globals(), card), card.sizes(PROFILE)
dataset = data.load(size["dataset"])
run.data(dataset)
arrival = dataset.interactions.sort_values("timestamp", kind="stable")
lengths = arrival.groupby("user_id").size().to_numpy()
print(f"{len(arrival):,} ratings of {len(lengths):,} users, the longest history has {lengths.max():,}")
print(f"{(lengths >= COUNT).sum():,} users fill a partition of {COUNT}")

# %% tags=["nbval-ignore-output"]
drawing = pd.DataFrame({"group": "ratings", "value": lengths})
caption = (
    f"Ratings of each of the {len(lengths):,} users of {dataset.title}, largest first. Half of the users have more than {np.median(lengths):g}, a tenth "
    f"more than {np.quantile(lengths, 0.9):.0f}."
)
figure = plots.ranked(drawing, xlabel="rank of the user", ylabel="ratings")
plots.show(figure, "03_liber_cost", "lengths", drawing, caption)

# %% [markdown]
# ## Baselines first
#
# Three other ways to have a language model follow a user, all with the same request for a summary:
#
# - *once*: about the first $K$ ratings, as KAR does. Cheap, and never up to date;
# - *whole history*: about everything so far, whenever $K$ more ratings have come;
# - *every behaviour*: about everything so far, at each new rating. Always up to date.
#
# LIBER asks twice a partition: for a summary of its $K$ ratings, and for the shift from the summary before. With
# $n$ ratings and $J = \lfloor n / K \rfloor$ partitions that is $2J - 1$ calls, and $JK$ ratings are read; *whole history* reads $K + 2K + \dots + JK$.

# %% [markdown]
# ## The method: a stream that forgets
#
# All that happens when a rating comes:

# %%
import inspect

from rec_utils.papers import ubsp

print(inspect.getsource(ubsp.Stream.append))

# %% [markdown]
# The stream below takes in every rating of the data set. It is saved and loaded in the middle, which must change nothing, and
# compared with the partitions that the vectorised code of `03_liber` finds in the whole table at once.

# %%
import tempfile
from pathlib import Path

columns = arrival[["item_id", "rating", "timestamp"]].itertuples(index=False, name=None)
coming = list(zip(arrival["user_id"].tolist(), (ubsp.Behaviour(*row) for row in columns), strict=True))
conditions = {f"{COUNT} ratings": ubsp.Condition(count=COUNT)}
conditions[f"{COUNT} ratings or a pause of {GAP_HOURS} hours"] = ubsp.Condition(COUNT, 3600 * GAP_HOURS)
by_user = arrival.sort_values("user_id", kind="stable")
user_row = np.unique(by_user["user_id"], return_inverse=True)[1]
for name, condition in conditions.items():
    stream = ubsp.Stream(condition)
    closed = stream.extend(coming[: len(coming) // 2])
    with tempfile.TemporaryDirectory() as folder:
        stream.save(Path(folder) / "stream.json")
        stream = ubsp.Stream.load(Path(folder) / "stream.json")
    closed += stream.extend(coming[len(coming) // 2 :])
    table = ubsp.partition(user_row, by_user["timestamp"].to_numpy(), condition)
    same = sorted(len(p.behaviours) for p in closed) == sorted((table.end - table.start).tolist())
    print(f"{name}: {len(closed):,} partitions, the same from the whole table: {same}")

# %% [markdown]
# Do time and memory stay the same however much has come in? A recorded benchmark sends four million ratings
# through the stream, beside one that keeps whole histories to read them again.

# %% tags=["nbval-ignore-output"]
import json

from rec_utils.settings import ROOT

bench = json.loads((ROOT / "figures" / "bench" / "streaming.json").read_text())
measured = pd.DataFrame(bench["results"])
measured["behaviours"] = measured["tenth"] * bench["behaviours"] // measured["tenth"].max()
ends = measured.set_index(["contender", "tenth"])["memory (MB)"].unstack("contender").iloc[[1, -1]]
per_append = measured.pivot(index="behaviours", columns="contender", values="behaviours read an append")
caption = (
    f"Memory while {bench['behaviours'] / 1e6:g} million ratings of {bench['users']:,} users come in, K = {bench['count']}. From the second tenth of the stream to "
    f"the last it goes from {ends['partitions'].iloc[0]:.0f} to {ends['partitions'].iloc[1]:.0f} MB with partitions, and from "
    f"{ends['whole histories'].iloc[0]:.0f} to {ends['whole histories'].iloc[1]:,.0f} MB with whole histories."
)
labels = {"xlabel": "ratings so far", "ylabel": "memory (MB)"}
figure = plots.lines(measured, "behaviours", "memory (MB)", "contender", **labels)
plots.show(figure, "03_liber_cost", "memory", measured, caption)
print("behaviours that are read an append:")
per_append.round(1)

# %% [markdown]
# ## Experiment 1: calls and tokens
#
# What all users together have caused when the last rating is in, for several $K$. Tokens are those of the encoder's vocabulary; the lengths
# of requests and answers are measured on the shipped texts about partitions of 50 ratings.

# %% tags=["nbval-ignore-output"]
from rec_utils.knowledge import movies
from rec_utils.knowledge.store import Store
from rec_utils.papers import liber_cost

answers = list(Store(movies.PARTITIONS, readonly=True))
tokens = liber_cost.Tokens.measured(answers, 50)
cost = pd.concat({k: liber_cost.totals(lengths, k, tokens) for k in size["counts"]}, names=["K"])
run.table("cost", cost.reset_index().assign(users=len(lengths), ratings=lengths.sum()))
print(f"{tokens.behaviour:.1f} tokens a rating, {tokens.summary:.0f} a summary, {tokens.shift:.0f} a shift")
cost.round().astype(int)

# %%
at_k = liber_cost.totals(lengths, COUNT, tokens)
taken = at_k["tokens read"] + at_k["tokens written"]
share = 100 * taken["LIBER"] / taken["whole history"]
calls = at_k["calls"].astype(int).to_dict()
print(f"K = {COUNT}, calls: {calls}")
print(f"LIBER takes {share:.0f} % of the tokens that reading the whole history at the same moments takes")

# %% [markdown]
# ## Experiment 2: while the stream comes in
#
# Tokens read and written so far, after each of the ratings in their real order.

# %% tags=["nbval-ignore-output"]
place = arrival.groupby("user_id").cumcount().to_numpy()
curve = liber_cost.over_stream(place, COUNT, tokens)
run.table("curve", curve)


def draw_curve(curve, title, name):
    """Show one data set's curves."""
    end = curve.groupby("policy").last()["tokens"]
    caption = (
        f"Tokens of the language model while the {curve['behaviours'].max():,} ratings of {title} come in, K = {COUNT}. In the end LIBER has "
        f"taken {end['LIBER'] / 1e6:,.1f} million; the whole history at the same moments takes {end['whole history'] / end['LIBER']:.1f} times, and at "
        f"every rating {end['every behaviour'] / end['LIBER']:,.0f} times as many."
    )
    labels = {"xlabel": "ratings so far", "ylabel": "tokens so far", "logy": True}
    figure = plots.lines(curve, "behaviours", "tokens", "policy", **labels)
    plots.show(figure, "03_liber_cost", name, curve, caption)


draw_curve(curve, dataset.title, "curve")

# %% [markdown]
# ## Experiment 3: how fast does the cost grow?
#
# Tokens of one user by the length of the history. The slope in logarithms is the power with which cost grows: 1 is linear, 2 quadratic.

# %%
history = np.arange(COUNT, lengths.max() + 1, COUNT)
slope = liber_cost.growth(history, COUNT, tokens)
print(", ".join(f"{policy}: {power:.1f}" for policy, power in slope.items()))

# %% tags=["nbval-ignore-output"]
each = liber_cost.costs(history, COUNT, tokens)
growing = pd.concat(
    pd.DataFrame({"policy": policy, "ratings": history, "tokens": cost.tokens})
    for policy, cost in each.items()
)
times = each["whole history"].tokens[-1] / each["LIBER"].tokens[-1]
caption = (
    f"Tokens that one user has caused by the length of the history, K = {COUNT}; LIBER's grow with the power {slope['LIBER']:.2f}. At {history[-1]:,} ratings "
    f"reading the whole history at the same moments has taken {times:.0f} times as many tokens as LIBER."
)
labels = {"xlabel": "ratings of the user", "ylabel": "tokens so far", "logx": True, "logy": True}
figure = plots.lines(growing, "ratings", "tokens", "policy", **labels)
plots.show(figure, "03_liber_cost", "growth", growing, caption)

# %% [markdown]
# ## Experiment 4: how long does an update take?
#
# Both ways are timed in turns with a small language model of random weights, which takes the time of a trained one of its size: LIBER's two calls
# about the newest partition, and one call about the whole history. What comes after them, encoding two texts, and before, appending
# the rating, is timed as well.

# %% tags=["nbval-ignore-output"]
from rec_utils.knowledge.encoder import Encoder
from rec_utils.knowledge.online import small_model_call
from rec_utils.timing import paired_ratios

shift, summary = sorted({a.request.purpose: a for a in answers}.values(), key=lambda a: a.request.purpose)


def model_call(answer, prompt, new_tokens):
    """The small model's call that answers `prompt` instead of the prompt of `answer`, and its parameters."""
    return small_model_call([f"{answer.request.system} {prompt}"], round(new_tokens), layers=size["layers"])


whole, n_parameters = model_call(summary, "; ".join([summary.request.prompt] * LONG), tokens.summary)
one, _ = model_call(summary, summary.request.prompt, tokens.summary)
two, _ = model_call(shift, shift.request.prompt, tokens.shift)
ways = {
    "whole history": whole,
    "LIBER's two calls": lambda: (one(), two()),
    "of these, the summary": one,
    "encoding both texts": lambda: Encoder().encode([summary.text, shift.text], progress=False),
    "appending 1,000 ratings": lambda: stream.extend(coming[-1:] * 1000),
}
ratios = paired_ratios(ways, size["repeats"], seed=SEED)
update = pd.DataFrame({way: vars(ratio) for way, ratio in ratios.items()}).T
update[["value", "low", "high"]] *= 100
run.table("update", update.rename_axis("way").reset_index())
print(
    f"{n_parameters / 1e6:.0f} million parameters, a history of {50 * LONG} ratings; time in % of its reading"
)
update[["value", "low", "high"]].round(2)

# %% [markdown]
# ## Paper against ours
#
# No figure of the paper's cost study could be read, so there is nothing to set beside ours. The online test of its abstract is listed in
# `03_liber`.
#
# ## Figure: the recorded run on MovieLens-1M
#
# A million ratings of 6,040 users, from the record in `figures/records/03_liber_cost`.

# %% tags=["nbval-ignore-output"]
recorded = records.tables("03_liber_cost", "paper")
if "curve" in recorded:
    draw_curve(recorded["curve"], "MovieLens-1M", "ml1m_curve")
    display(recorded["cost"].set_index(["K", "policy"]).round().astype(int))

# %% [markdown]
# ## Verdicts
#
# Calls and tokens are exact, so their intervals have no width; that of the time is over repeated timings.

# %% tags=["nbval-ignore-output"]
evidence = {
    name: stats.Interval(value, value, value, claims.LEVEL, len(lengths))
    for name, value in {"linear-cost": slope["LIBER"], "saves-tokens": share}.items()
}
evidence["update-time"] = stats.Interval(*update.loc["LIBER's two calls", list(update)])
for name, interval in evidence.items():
    run.metric(name, interval)
verdicts = claims.check(card, evidence)
run.verdicts(verdicts)
run.finish()
report.verdict_table(verdicts)

# %%
# what a repeated run, also on another machine, must give again
exact = [verdict for verdict in verdicts if verdict.claim != "update-time"]
report.verdict_table(exact, numbers=False)

# %% [markdown]
# ## What differs, and why
#
# **In tokens the promise holds.** LIBER's work grows with the power 1.06 of the history, reading everything again with nearly 2. With
# $K = 50$ LIBER takes 29 % of the tokens on latest-small and 42 % on MovieLens-1M, where fewer histories are long. The saving shrinks with larger
# partitions: at $K = 200$ LIBER takes 47 and 67 %. Half of the users of latest-small have at most 70 ratings; for them there is little to save.
#
# **In calls it does not.** LIBER asks twice a partition, so it makes nearly twice as many calls, and writes more: the texts about shifts are
# its price.
#
# **An update is not much faster until the history is long.** With 300 ratings LIBER's two calls take most of the time that one call about everything takes,
# since writing an answer takes longer than reading a prompt, and LIBER writes two. What it saves then is room: the longest prompt has 626 tokens,
# that about the longest history of latest-small 27,000, which many models cannot read at all.
#
# **The stream forgets, as it should.** After four million ratings it holds 41 MB, as after the first tenth; whole histories hold 615 MB and
# read twelve ratings again for every one that comes.
#
# **What nobody sees.** Up to $K - 1$ newest ratings are unread at any time, and 37 % of the users of latest-small (29 % on MovieLens-1M)
# never fill a partition of 50: for them LIBER has no text.
#
# **What we do otherwise than the paper:** its cost study, its $K$ and its language model could not be read. Tokens are counted in the encoder's
# vocabulary; requests show titles and stars without genres; the time is that of a small model on one thread.
#
# ## Explore
#
# Change $K$: what do calls and tokens become on these histories? The widget needs a running kernel.

# %% tags=["nbval-ignore-output"]
from ipywidgets import HTML, IntSlider, VBox


def table(count):
    """Totals at K = `count` as HTML."""
    return liber_cost.totals(lengths, count, tokens).round().astype(int).to_html(border=0)


slider = IntSlider(value=COUNT, min=5, max=500, step=5, description="K")
page = HTML(table(COUNT))
slider.observe(lambda change: setattr(page, "value", table(change["new"])), names="value")
display(VBox([slider, page]))

# %% [markdown]
# ## Exercises
#
# 1. Ask for the shift only when two summaries are far apart. Which number must the stream keep, and how many calls are left?
# 2. Let the recommender wait for a partition at most a week. Which `Condition` does that, and what does it do to the shortest prompts?
# 3. A provider takes four times as much for a token written as for one read. Which $K$ is cheapest for *whole history*, and which for LIBER?
# 4. Where in the code would two processes that append for the same user at the same time go wrong?
#
# ## Cite
#
# Zhu et al., *LIBER: Lifelong User Behavior Modeling Based on Large Language Models*, arXiv 2411.14713, 2024. Data: Harper and
# Konstan, *The MovieLens Datasets*, ACM TiiS 2015. How to cite this project: `CITATION.cff`.
