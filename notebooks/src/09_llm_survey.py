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
# # LLM survey: where and how does a language model help a recommender?
#
# Some two hundred works put a language model into a recommender, in every place one can think of. A survey brings order into them by two questions, *where* and *how*, and draws conclusions from fifty of
# them. This notebook turns the survey's list and figure into tables, tests the conclusions on them, says which notebook of this repository stands where, and lets you search.

# %% tags=["nbval-ignore-output"]
from IPython.display import Markdown, display

from rec_utils import claims, plots, records, report

Markdown(report.markdown(report.cost_table(records.load("09_llm_survey"))))

# %% [markdown]
# ## The paper
#
# Its card stands below.
#
# ## Claims under test
#
# The survey runs no experiment; its claims are readings of its Figure 4. So what can be tested is whether the figure bears them out. Each claim has a *null*, where it would be empty, and a range that
# would *match*. The figure had been seen when these were written down; the tests and the dates had not been run. Claims marked *ours* are controls.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
card = claims.load_card("llm_survey")
display(Markdown(report.card_markdown(card)))
Markdown(report.markdown(report.claims_table(card)))

# %% [markdown]
# ## Parameters
#
# All profiles do the same, and only the last experiment draws anything at random.

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke, laptop or paper: all the same here
LIST: str | None = None  # path of a newer README.md of the list; what it changes is shown
SEED: int = 0  # of the examples' training; their test set and the stored answers stay as they are

# %% [markdown]
# ## Data
#
# Two sources. The *list* is the README that the survey's authors keep (MIT, commit bd54d40 of January 2026), parsed here: 189 works with stage, language model, tuning and publication, and 439 newer ones with a
# title only. *Figure 4* of the survey places fifty works: quadrant, size of the language model, and the best kind of baseline that the work defeats.
#
# A name is no key: three works are called TransRec, four ChatGPT, and fifteen have none. Works are joined by leaf and paper. The cell stops if the two sources were joined wrongly: if a size differs, or a name without a remark.

# %%
from pathlib import Path

from rec_utils import diagrams, exact
from rec_utils.papers import quadrants, taxonomy

run = records.start_notebook("09_llm_survey", globals(), card)
survey = quadrants.load()
run.data(survey)
works, figure = survey.works, survey.figure
listed = figure[figure["stage"] != ""]
sized = listed[listed["listed size"] != taxonomy.UNKNOWN]
assert (sized["listed size"] == sized["llm_size_class"]).all(), "a circle was matched with another work"
assert figure.loc[figure["stage"] == "", "remark"].ne("").all(), "an unmatched circle without a reason"
undated = (works["month"] == "").sum()
later = (works["month"].str[:4].replace("", "9999").astype(int) < works["year"].fillna(0)).sum()
print(
    f"list: {len(works)} rows, {works['name'].nunique()} names, {(works['name'] == 'N/A').sum()} rows without one"
)
print(f"{undated} rows without arXiv number; {later} were published in a later year than it says")
print(
    f"newest works: {survey.papers['leaf'].str.startswith('1.7').sum()}, related surveys: {survey.papers['leaf'].str.startswith('1.6').sum()}"
)
print(
    f"Figure 4: {len(figure)} circles, {len(listed)} of them in the list, {len(sized)} sizes alike; not matched:"
)
figure.loc[figure["stage"] == "", ["name", "quadrant", "remark"]]

# %% [markdown]
# ## Baselines first
#
# What would chance give? If the way of using a language model had no bearing, the ten works of quadrant 3 would be ten of the fifty at random, and 38 of those defeat an attention-based baseline.

# %%
from scipy.stats import hypergeom

n, n_attention, n_q3 = len(figure), figure["attention"].sum(), (figure["quadrant"] == "Q3").sum()
chance = hypergeom(n, n_attention, n_q3)
print(
    f"{n_attention} of {n} defeat an attention-based baseline; of {n_q3} at random {chance.mean():.1f} would"
)
print(f"five of them or fewer: {100 * chance.cdf(5):.1f} % of all draws")

# %% [markdown]
# ## The method: where?
#
# The survey cuts a recommender into six stages, from data to data. A language model can *write* features or samples, *encode* texts into vectors, *score* or generate items, *talk* with the user, or *control* the
# whole pipeline. The same work may stand in several places.

# %%
tasks = taxonomy.tasks(works)
widest = tasks.groupby("stage")["n"].sum().idxmax()
caption = (
    f"The six stages of the pipeline and the {tasks['n'].sum()} works of the list by stage and task. The largest part, {tasks.loc[tasks['stage'] == widest, 'n'].sum()}, puts the language "
    f"model into {widest}."
)
plots.show(diagrams.pipeline(tasks, "pipeline controller"), "09_llm_survey", "pipeline", tasks, caption)

# %% [markdown]
# ## The method: how?
#
# Two questions make four quadrants. Is the language model *tuned* for the task, be it a part of it (PEFT)? And does a conventional recommendation model (*CRM*) take part at inference? A CRM that only picks the candidates does
# not count. Both bring *collaborative knowledge*, what other users did, to a model that has read texts only.
#
# The table below the figure puts this repository on the map. RELIFE and the diffusion models use no language model and stand outside. MemoCRS argues for collaborative knowledge, but its expert only
# supplies candidates, which by the survey's rule makes it Q3.

# %%
order = ("Q2", "Q1", "Q3", "Q4")  # frozen left, with CRM above
level, size = "best_baseline_defeated", "llm_size_class"
circles = figure[["name", "year", "quadrant", size, level]]
share_of = {q: exact.share(part["attention"].sum(), len(part)) for q, part in figure.groupby("quadrant")}
caption = (
    "The fifty works of the survey's Figure 4, from small to large language models, with year and the best kind of baseline that each defeats. An attention-based one is defeated by "
    + ", ".join(f"{s.value:.0f} % in {q}" for q, s in share_of.items())
    + "."
)
fig = diagrams.quadrants(
    circles,
    size,
    level,
    names={q: f"{q}: {quadrants.QUADRANT_NAMES[q]}" for q in order},
    xlabel="size of the largest language model (parameters)",
    columns=taxonomy.SIZES,
    levels=quadrants.BASELINES,
)
plots.show(fig, "09_llm_survey", "quadrants", circles, caption)

# %%
here = quadrants.HERE.assign(notebook=[f"[{name}]({name}.ipynb)" for name in quadrants.HERE["notebook"]])
Markdown(report.markdown(here.sort_values(["stage", "quadrant"])))

# %% [markdown]
# ## Experiment 1: which language models, and for how long
#
# Time is that of the arXiv number, since publication lags: works of 2023 count as 2024 in proceedings. The list was closed in January 2024; the newest works, of later months, have no labels. How the field grew
# by stage, tuning, size and quadrant is drawn further below.

# %%
halves = taxonomy.by_half_year(works, "size").index
top = works["model"].value_counts().head(8)
backbones = taxonomy.by_half_year(works[works["model"].isin(top.index)], "model")[top.index].T
backbones = backbones.reindex(columns=halves, fill_value=0)
backbones["all, also undated"] = top
months = survey.papers.loc[survey.papers["leaf"].str.startswith("1.7"), ["month"]].assign(newest="works")
print("newest works by half-year:", taxonomy.by_half_year(months, "newest")["works"].to_dict())
Markdown(report.markdown(backbones.rename_axis("model").reset_index()))

# %% [markdown]
# ## Experiment 2: is collaborative knowledge needed?
#
# Does a work defeat an attention-based baseline? Odds in quadrant 3 over those elsewhere, with the exact interval, and the p value of Fisher's test. Then among large models only, where a CRM alone makes the difference, and
# where tuning alone does. Last: how many of quadrant 3's works would have to defeat such a baseline, too, until the difference could be chance?

# %% tags=["nbval-ignore-output"]
q = {name: figure["quadrant"] == name for name in quadrants.QUADRANT_NAMES}
big = figure[size] == ">100B"
pairs = {
    "Q3 over all others": (q["Q3"], ~q["Q3"]),
    "Q3 over Q2, above 100B": (q["Q3"] & big, q["Q2"] & big),
    "Q3 over Q2: a CRM alone": (q["Q3"], q["Q2"]),
    "Q3 over Q4: tuning alone": (q["Q3"], q["Q4"]),
    "up to 100B over above": (~big, big),
    "up to 100B over above, in Q2": (q["Q2"] & ~big, q["Q2"] & big),
}
odds, rows = {}, []
for name, (a, b) in pairs.items():
    odds[name], p = exact.odds_ratio(figure["attention"][a], figure["attention"][b])
    hits = (f"{figure['attention'][side].sum()} of {side.sum()}" for side in (a, b))
    rows.append((name, *hits, odds[name].value, odds[name].low, odds[name].high, p))
tests = pd.DataFrame(rows, columns=["odds of", "first", "second", "ratio", "low", "high", "p (Fisher)"])
run.table("odds", tests)
others = figure["attention"][~q["Q3"]]
p_if = {k: exact.odds_ratio([True] * k + [False] * (n_q3 - k), others)[1] for k in range(n_q3)}
enough = min(k for k, p in p_if.items() if p > 0.05)
print(f"p rises above .05 when {enough} of the {n_q3} works in quadrant 3 do so, too")
tests["p (Fisher)"] = tests["p (Fisher)"].map("{:.1g}".format)
Markdown(report.markdown(tests.round({"ratio": 2, "low": 3, "high": 2})))

# %% [markdown]
# ## Experiment 3: is bigger better?
#
# The last two rows above: smaller models defeat attention-based baselines far more often. But large ones stand in quadrants 2 and 3 only, so size and use are mixed up. The table holds the use fixed.

# %%
grid = figure.groupby(["quadrant", size])["attention"].agg(["sum", "size"])
cells = grid["sum"].astype(str) + " of " + grid["size"].astype(str)
cells.unstack().reindex(columns=list(taxonomy.SIZES)).fillna("").rename_axis(columns=None)

# %% [markdown]
# ## Experiment 4: in which order did the quadrants come?
#
# The survey's path: tuned small models with a CRM (Q1), then ChatGPT as it is (Q3), then Q2 and Q4, then back to Q1. Dates are those of the list's arXiv numbers. The three ChatGPT works of quadrant 3 that cannot be told apart are
# left out; a second count gives them the earliest months they can have.

# %% tags=["nbval-ignore-output"]
early = figure["year"] < 2023
start, p_start = exact.odds_ratio(q["Q1"][early], q["Q1"][~early])
candidates = works.loc[works["name"] == "ChatGPT", "month"].sort_values().head(3)
month = figure["month"].where(~figure["name"].str.startswith("ChatGPT-"))
earliest = month.fillna(pd.Series(candidates.to_numpy(), figure.index[month.isna()]))
steps = []
for dates, values in {"without": month.fillna(""), "with, at the earliest": earliest}.items():
    since = values.where(values >= "2022-12", "")  # ChatGPT appeared on 30 November 2022
    steps.append(
        ("Q2 and Q4 after Q3", dates, quadrants.months_later(since[q["Q2"] | q["Q4"]], since[q["Q3"]]))
    )
    steps.append(("Q1 after the others", dates, quadrants.months_later(since[q["Q1"]], since[~q["Q1"]])))
path = pd.DataFrame(
    {"step": step, "ChatGPT-1 to -3": dates} | vars(interval) for step, dates, interval in steps
)
run.table("path", path)
print(f"odds of Q1 to 2022 over 2023: {start} by {early.sum()} works to 2022, p = {p_start:.2f}")
path.drop(columns=["level", "n"]).round(1)

# %% [markdown]
# ## Experiment 5: the second axis for all works
#
# The list does not say whether a CRM takes part. A rule guesses it from the stage: what a language model writes or encodes, a CRM reads; where it scores, there is none. Figure 4 says how good the guess is, and corrects it
# where it can; two more works are corrected by hand. The rule is silent about dialogue and controllers.

# %%
agreement = quadrants.agreement(figure)
run.table("agreement", agreement)
display(agreement)
wrong = listed[
    (quadrants.crm_rule(listed) != "unknown") & ((quadrants.crm_rule(listed) == "with") != listed["crm"])
]
print("the rule is wrong about:", ", ".join(wrong["name"] + " (" + wrong["quadrant"] + ")"))
placed = works[works["quadrant"] != ""]
print(f"{len(placed)} of {len(works)} works placed: {works['crm from'].value_counts().drop('').to_dict()}")
pd.crosstab(placed["stage"], placed["quadrant"]).loc[
    lambda t: [s for s in taxonomy.STAGES.values() if s in t.index]
]

# %% [markdown]
# ## Experiment 6: one running example of each stage and quadrant
#
# All places and ways in one contest, on MovieLens latest-small: 100 viewers, of whom every arm may know the first 30 ratings, and the ten films that each rated next, to be put in order. No claim is tested by it.
#
# Two kinds of language model take part. The answers of a *large* one (Anthropic Claude) are shipped: texts as features (KAR), scores as it is, scores before and after a question to the viewer, whose reply is simulated from
# ratings 11 to 30, and the choice of the tool that scores (language model, CTR model or popularity). A *small* one, all-MiniLM-L6-v2, is a frozen encoder, or is cut to one block and tuned, alone or with a CTR model
# (ClickPrompt). What is trained here learns from the ratings of other viewers: some 30,000, or 1,500 and 800 where MiniLM is tuned.

# %%
from rec_utils.papers import survey_examples

sizes = card.sizes(PROFILE)
examples = survey_examples.run(SEED, sizes["n_boot"], first_users=sizes["first_users"])
run.data(examples.survey.dataset)
train, valid, test = examples.survey.masks(0)
of = examples.survey.samples.user_row.numpy()
assert not set(of[train | valid]) & set(of[test]), "a label of a test user is trained on"
label, asked = examples.survey.label, examples.calls["controller"] - 1
print(f"{len(set(of[train | valid]))} viewers to learn from and {len(label)} of the test")
print(f"{label.sum()} of {label.size} films liked, {label.sum(1).min()} to {label.sum(1).max()} a viewer")
print(f"the controller chooses the language model for {100 * asked:.0f} % of the viewers")

# %% tags=["nbval-ignore-output"]
table, contrasts = examples.table(), examples.contrasts()
run.table("examples", table)
run.table("examples-contrasts", contrasts)
columns = ["arm", "stage", "quadrant", "LM", "LM calls a list", "AUC", "NDCG@5", "CPU seconds"]
digits = {"LM calls a list": 2, "AUC": 3, "NDCG@5": 3, "CPU seconds": 0}
shown = table.reset_index()[columns].round(digits).astype(object).fillna("")
display(Markdown(report.markdown(shown)))
Markdown(report.markdown(contrasts.drop(columns=["level", "n"]).round(3)))

# %% tags=["nbval-ignore-output"]
order = table.drop(index=survey_examples.BASE).sort_values(["quadrant", "AUC"]).reset_index()
drawn = order[["AUC change", "AUC low", "AUC high"]].set_axis(["value", "low", "high"], axis=1)
drawn["label"] = order["arm"] + (" (" + order["quadrant"] + ")").replace(" ()", "")
better, worse = order.loc[order["AUC low"] > 0, "arm"], order.loc[order["AUC high"] < 0, "arm"]
caption = (
    f"AUC of each example less that of the CTR model ({examples.auc.value[survey_examples.BASE]:.3f}), in the order of the quadrants, with 95 % intervals over n = {examples.auc.n} viewers. "
    f"Better: {', '.join(better) or 'none'}. Worse: {', '.join(worse) or 'none'}."
)
fig = plots.forest(drawn, xlabel="difference in AUC to the CTR model")
plots.show(fig, "09_llm_survey", "examples", drawn, caption)

# %% [markdown]
# ## Paper against ours
#
# The survey's Table 1 and the list should hold the same works. The list has gone on: 14 more rows.

# %%
number = {stage: key.replace(".", "-") for key, stage in taxonomy.STAGES.items()}
ours = {f"stage-{number[stage]}": int(count) for stage, count in works["stage"].value_counts().items()}
report.paper_vs_ours(card, ours, "the list at commit bd54d40")

# %% [markdown]
# ## Figure: how the field grew

# %%
columns = {"stage": "stage", "tuning": "tuned", "size": "size", "quadrant, by rule": "quadrant"}
counts = {
    title: taxonomy.by_half_year(works, c).reindex(halves, fill_value=0) for title, c in columns.items()
}
orders = {"stage": list(taxonomy.STAGES.values()), "tuning": taxonomy.TUNINGS}
orders |= {"size": (*taxonomy.SIZES, taxonomy.UNKNOWN), "quadrant, by rule": list(quadrants.QUADRANT_NAMES)}
parts = {
    "to 2022": counts["size"].loc[:"2022 H2"].sum(),
    "from 2023 on": counts["size"].loc["2023 H1":].sum(),
}
large = [f"{part['>100B']} of {part.sum()} works {when}" for when, part in parts.items()]
dated = taxonomy.by_half_year(listed, "quadrant").loc["2023 H1":"2023 H2"]
first = [f"{row['Q1']} of {row.sum()} in {half}" for half, row in dated.iterrows()]
caption = (
    f"Works of the list by half-year, n = {counts['size'].to_numpy().sum()} with an arXiv number, {counts['quadrant, by rule'].to_numpy().sum()} with a quadrant; 2024 H1 is January alone. Models above 100B parameters: "
    f"{', '.join(large)}. The rule hides Q1 among scorers; of Figure 4's dated works Q1 has {' and '.join(first)}."
)
fig = diagrams.stacked(counts, xlabel="half-year of the arXiv number", ylabel="works", orders=orders)
names = ["divided by", "half-year", "part"]
long = pd.concat({title: table.stack() for title, table in counts.items()}, names=names)
plots.show(fig, "09_llm_survey", "trends", long.reset_index(name="works"), caption)

# %% [markdown]
# ## Verdicts
#
# There is one run and nothing random in it; intervals are exact, or Student's for months. *Matched*: the interval excludes the null on the claimed side and the value lies in the range; *partly*: only the former. All verdicts are
# about *the figure*, fifty works that the authors of the survey chose, and each of these chose its own baselines.

# %% tags=["nbval-ignore-output"]
above_mf = figure[level].isin(quadrants.BASELINES[3:]) & q["Q3"]
numbers = {
    "q3-weak": exact.share(int(above_mf.sum()), int(n_q3)),
    "knowledge-needed": odds["Q3 over all others"],
    "bigger": odds["up to 100B over above"],
    "path-start": start,
    "path-q3-first": steps[0][2],
    "path-back": steps[1][2],
    "control-same-size": odds["Q3 over Q2, above 100B"],
    "control-each/CRM": odds["Q3 over Q2: a CRM alone"],
    "control-each/tuning": odds["Q3 over Q4: tuning alone"],
    "control-bigger": odds["up to 100B over above, in Q2"],
    "control-rule": quadrants.rule_share(figure),
}
for name, interval in numbers.items():
    run.metric(name, interval)
each = {name.split("/")[1]: numbers.pop(name) for name in list(numbers) if name.startswith("control-each/")}
verdicts = claims.check(card, numbers | {"control-each": each})
run.verdicts(verdicts)
run.finish()
report.verdict_table(verdicts)

# %%
# what a repeated run, also on another machine, must give again
report.verdict_table(verdicts, numbers=False)

# %% [markdown]
# ## What differs, and why
#
# **Quadrant 3 is different, in the figure.** None of its ten works defeats an attention-based baseline, of the forty others 38 do. It holds among models above 100B alone (0 of 8 against 6 of 6), and either a CRM or tuning is
# enough. Eight of the ten would have to do better before chance could explain it.
#
# **But the figure cannot say why.** It is a selection by the survey's authors, not a sample, and each work chose its baselines: a preliminary study of what ChatGPT can do as it is may well have others than a new model that is to be the best.
# Only one work can be compared with itself: ReLLa, frozen MF, tuned attention-based. So *matched* means that the figure bears the claim, not that the field does.
#
# **Bigger is not better, but size is not the reason.** Up to 100B parameters 32 of 36 works defeat an attention-based baseline, above 6 of 14; the interval ends at 2. Eight of these fourteen are quadrant 3's. In quadrant 2, where the use is the same, it
# is 3 of 4 against 6 of 6, the other way round and no evidence. No model above 100B is tuned. The claim says the first one again.
#
# **Of the path only the end can be seen.** Five of the twelve works to 2022 are in Q1, later 8 of 38: a factor of 2.6 that may be chance. Q3 did not come before Q2 and Q4: -0.3 months [-2.8, +2.3], and +0.3 with the earliest dates for the
# three works that cannot be dated. Nearly all came between March and August 2023. The return to Q1 is there, 3.2 months after the others [0.5, 5.9], from few works.
#
# **Hard samples** are not in the survey's data; [05_corella](05_corella.ipynb) tests the claim on ratings.
#
# **The examples: today's large model wins where the survey saw the weakest.** Asked as it is, without collaborative knowledge, it orders the films best: AUC .742, +.099 [+.075, +.124] over the CTR model and +.085 [+.053, +.114] over the
# like rate, the plain baseline that is hardest to beat here. That goes against the survey's reading of quadrant 3, which is of 2023, but the models have grown, and the CTR model has 434 viewers to learn from. The
# large model may also have read MovieLens, or what was written about the films after the ratings. As features its texts change nothing (+.007 [-.007, +.021]).
#
# *The tuned MiniLM fails.* Alone it is near chance (.519), with a CTR model below that model alone. More rows and longer prompts did not help: on validation viewers three settings gave .51, .48 and .45, against .54 to .61 on
# their own training rows, so it learns who likes much, not who likes what. The CTR model alone had .62 there with the same 800 rows, with the LM .59. One block and 1,500 rows say nothing about
# quadrants 1 and 4 in general.
#
# *The question does not pay:* -.016 [-.040, +.003] in AUC, and -.032 [-.060, -.004] in NDCG@5. The scores before and after it were written by different writers of the same model, so that the reply and the writer cannot be
# told apart. *Nor does the controller:* it gives up the language model for 15 % of the viewers and loses .013 [.003, .025], at .85 more calls a list.
#
# The test set is not a random one: viewers were drawn among those who liked three to seven of the ten films. A writer read 25 viewers at a time and so saw how others rated some of the films. The best arm of a quadrant is chosen by
# the test. Three settings had been tried with test scores in view: the most samples a viewer, the CTR model's kind, and the learning rate of the tuned LM. One seed was run; intervals are over viewers.
#
# **What we do otherwise.** The figure was read from the PDF of arXiv version 5; version 6 was not read. The CRM axis of the list is a guess that is right for 88 % [74, 96] of the works that Figure 4 shows; all five errors are tuned scorers with a CRM,
# so the last panel above has too much Q4 and too little Q1. List and figure differ about the tuning of one work besides ReLLa: TransRec of 2022 is fully tuned in the list, frozen in the figure. The survey's counts of tasks and scenarios
# are in its Table 1 only and are not repeated.
#
# ## Explore
#
# Search all 189 works; each name leads to its paper. The widget needs a running kernel. With `LIST`, a newer copy of the list, the cell below also says what it changes; so does
# `python -m rec_utils.papers.taxonomy diff README.md`.

# %% tags=["nbval-ignore-output"]
from rec_utils.widgets import WorkExplorer

if LIST is not None:
    print(taxonomy.describe(taxonomy.changes(taxonomy.read_list(), taxonomy.read_list(Path(LIST)))))
shown = works[["name", "title", "stage", "tuned", "size", "model", "year", "quadrant", "link"]]
explorer = WorkExplorer(shown, ["stage", "tuned", "size", "year", "quadrant"])
display(explorer.show("cold-start"), explorer.widget())

# %% [markdown]
# ## Exercises
#
# 1. Fetch today's README of the list and run the diff. Which stage grows, and which of the newest works have been given a place in the taxonomy?
# 2. The rule calls every tuned scorer one without a CRM. Read the abstracts of ten of these rows and add your corrections to `crm_corrections.csv`. Does the share of Q1 in 2023 H2 change?
# 3. ReLLa stands in quadrants 3 and 4, frozen and tuned. Which other works report both, so that tuning could be compared within a work instead of between works?
# 4. Replace *attention-based or not* by the rank of the baseline (Random to attention-based) and test with Kendall's tau. Which claim changes its verdict?
#
# ## Cite
#
# Lin et al., *How Can Recommender Systems Benefit from Large Language Models: A Survey*, ACM Transactions on Information Systems 2024, doi 10.1145/3678004, arXiv 2306.05817. The list: GitHub CHIANGEL/Awesome-LLM-for-RecSys, MIT,
# © 2023 Jianghao Lin; the counts are those of its commit bd54d40. How to cite this project: `CITATION.cff`.
