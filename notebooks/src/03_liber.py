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
# # LIBER: can a language model follow a history that never ends?
#
# KAR asks a language model once about a viewer's first ratings. But histories grow, and asking again about all of
# one is dear. LIBER cuts the stream into partitions, has each read once, when it is closed, and lets attention choose among
# what was said. This notebook tests on real ratings what these texts are worth:
# beside KAR, beside a search in the same ratings, and beside partitions without any text.
# What it costs, and whether the stream keeps its promise, is measured in `03_liber_cost`.

# %% tags=["nbval-ignore-output"]
from rec_utils import claims, plots, records, report

report.cost_table(records.load("03_liber"))

# %% [markdown]
# ## The paper

# %%
from IPython.display import Markdown, display

card = claims.load_card("liber")
Markdown(report.card_markdown(card))

# %% [markdown]
# ## Claims under test
#
# Each claim has a *null*, where it would be empty, and a range that would *match* the paper. They were fixed
# before the first run. The paper's tables could not be read, so what is tested is said in its abstract and in
# reviews of it; claims marked *ours* are controls and ablations.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
report.claims_table(card)

# %% [markdown]
# ## Parameters
#
# The settings of the training are those of `01_kar`; nothing was tuned here.

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke, laptop or paper: sizes from the card
SEED: int = 0  # of folds, initial weights, shuffling, dropout and dealt texts
SWEEP: bool = False  # also train the arms of experiment 3; otherwise they are drawn from records
WRITER: str = ""  # a Hugging Face model that writes the texts; empty: the shipped ones
BACKBONE: str = "DIN"  # any deep model in rec_utils.ctr.MODELS
HISTORY: int = 5  # recent ratings that the backbone sees
SHARED: int = 1  # experts of the adaptor
LR: float = 1e-3  # learning rate of Adam at the first step; it falls to 0 at the last
EPOCHS: int = 3  # passes over the training samples
BATCH_SIZE: int = 512  # samples a step
DROPOUT: float = 0.2  # in the backbone and in the experts

# %% [markdown]
# ## Data
#
# Users with at least 60 ratings. As in `01_kar`, the first 30 ratings are the *prompt history* and every later one is a
# sample, up to 320 a user. Partitions hold $K$ ratings, counted from the first. A sample may see a partition only if it was closed
# before the sample came. An off-by-one here is a leak, so the cell below checks every sample, and then shows that the check
# refuses partitions that are seen one rating too early.

# %%
from dataclasses import replace

import numpy as np

from rec_utils import data, splits
from rec_utils.errors import UserError
from rec_utils.papers import ubsp
from rec_utils.samples import RELEASED_RULES, check_leaks, ctr_task

run, size = records.start_notebook("03_liber", globals(), card), card.sizes(PROFILE)
dataset = data.load(size["dataset"])
limits = {name: size[name] for name in ("max_samples_per_user", "first_users")}
limits["order"] = RELEASED_RULES.get(dataset.name, {}).get("order", "timestamp")
task = ctr_task(dataset, history_length=HISTORY, min_ratings=60, **limits)
samples, label = task.samples, task.samples.label.numpy()
users, position = samples.user_row.numpy(), samples.position.numpy()
run.data(dataset)
folds = splits.user_folds(len(task.user_ids), size["n_folds"], SEED)
parts = [splits.fold_masks(users, folds, k, size["valid_share"], SEED) for k in range(size["n_folds"])]
check_leaks(task, samples, parts)
partitions = ubsp.of_task(task, ubsp.Condition(count=size["count"]))
try:
    early = replace(partitions, closed=np.append(partitions.closed[1:], 0))
    ubsp.check_closed_before(early, users, position)
except UserError as error:
    print(f"One rating too early is refused: {error}")
print(
    f"{len(task.user_ids):,} users, {len(samples):,} samples, {len(partitions.number):,} partitions, no leak found"
)

# %% [markdown]
# ## Baselines first
#
# Two numbers and a logistic regression: how much the movie is liked, and how much this user has liked everything so
# far. No embedding, no partitions, no text.

# %% tags=["nbval-ignore-output"]
from rec_utils import baselines
from rec_utils.metrics import auc, logloss

simple = baselines.like_rates(task, folds)
simple_scores = pd.DataFrame(
    {n: {"AUC": auc(label, p), "LogLoss": logloss(label, p)} for n, p in simple.items()}
).T
simple_scores.round(4)

# %% [markdown]
# ## The method, stages 1 and 2: streaming partitions and interest learning
#
# *UBSP*. A new rating goes into a short-term cache. When the cache holds $K$ ratings it is closed: it becomes partition
# $P_j$, and the cache starts anew. What is kept of a user is one cache and two numbers, however long the history. The stream
# itself is tried in `03_liber_cost`; below is all that happens when a rating comes.
#
# *UIL* is a cascade of two requests a partition: a summary $s_j$ of the interests in it, then the shift $d_j$ from $s_{j-1}$ to
# $s_j$. Below are the second summary and the first shift of one user, as shipped; a language model wrote them from
# exactly these requests.

# %%
import inspect

from rec_utils.papers import liber

print(inspect.getsource(ubsp.Stream.append))
n_closed = partitions.closed[position]
print(
    f"{(n_closed == 0).mean():.0%} of the samples see no partition, {(n_closed > 1).mean():.0%} two or more"
)
interests = []
if WRITER:
    interests = liber.written(dataset, task, partitions, WRITER)
elif size["texts"]:
    interests = liber.learn(liber.behaviours(task, partitions), liber.titles(dataset), liber.stored, {})
if interests:
    second = next(interest for interest in interests if interest.shift)
    print(
        f"{second.summary.request.prompt[:300]} …\n\ns_2: {second.summary.text}\n\nd_2: {second.shift.text}"
    )
n_shifts = sum(interest.shift is not None for interest in interests)
print(f"\n{len(interests):,} summaries, {n_shifts:,} shifts")

# %% [markdown]
# ## The method, stage 3: interest fusion
#
# *UIF*. A frozen encoder makes $e_j$ of the summary and $f_j$ of the shift. With the vector $r_i$ of the candidate's title and genres,
#
# $$ h_j = [W_s e_j \,;\, W_d f_j], \qquad w_j = \mathrm{softmax}_j\big( \sqrt{d}\, \cos(W_q r_i, h_j) \big), \qquad u = \sum_{j \text{ closed}} w_j h_j . $$
#
# KAR's adaptor maps $u$ to 32 numbers, which the backbone takes as extra fields. A sample that sees no closed partition gets a learned vector in
# place of $u$. The form of the attention is our choice; the paper's could not be read.

# %%
import torch

from rec_utils import ctr
from rec_utils.papers import kar, reki, sim

of_backbone = {
    "backbone": BACKBONE,
    "backbone_settings": {"dropout": DROPOUT} if ctr.takes_dropout(BACKBONE) else {},
}
adaptor = {"adaptor_settings": {"shared": SHARED, "dedicated": 0, "dropout": DROPOUT}}
settings = of_backbone | adaptor
r_title = reki.title_vectors(dataset, task).astype(np.float32)
plain = liber.plain_tables(task, partitions, r_title)
texts = liber.text_vectors(interests) if interests else plain
model = liber.arm(texts, partitions, r_title, **settings).build(samples, SEED)
batch = samples.batch(torch.from_numpy(np.flatnonzero(n_closed >= 2)[:4]))
h, mask = model.fusion.steps(batch)
print(f"e {texts[next(iter(texts))].shape}, h {tuple(h.shape)}, u {tuple(model.fusion(batch).shape)}")
print(f"closed partitions that the four samples see: {mask.sum(1).tolist()}")
print(f"sums of their weights: {model.fusion.weights(batch, h, mask).sum(1).tolist()}")
print(f"fusion {sum(p.numel() for p in model.fusion.parameters()):,} parameters")

# %% [markdown]
# ## Experiment 1: are the texts worth it?
#
# The arms differ in what they know of the older history; all see the last ratings.
#
# - *LIBER*: the fused texts. *KAR*: one text about the first 30 ratings.
# - *plain partitions*: in the same fusion, the mean vectors of title and genres of what was liked and what was not in each
#   partition. *Texts of others*: each partition gets the texts of another user's partition.
# - *SIM*, a model made for long histories: from the same partitions it takes the ratings most like the candidate, by first genre
#   (the latest) or by vector, into the backbone's history.

# %% tags=["nbval-ignore-output"]
from rec_utils import stats
from rec_utils.crossfit import cross_fit
from rec_utils.training import TrainConfig

upto = liber.last_end(task, partitions)
arms = {"base": kar.arm({}, **of_backbone)}
arms["plain partitions"] = liber.arm(plain, partitions, r_title, **settings)
for name, vectors in {"SIM by category": None, "SIM by vector": r_title}.items():
    arms[name] = sim.arm(sim.search(task, size["retrieved"], upto, vectors), **of_backbone)
if interests:
    arms["LIBER"] = liber.arm(texts, partitions, r_title, **settings)
    dealt = liber.dealt(texts, partitions, SEED)
    arms["texts of others"] = liber.arm(dealt, partitions, r_title, **settings)
if dataset.name == "ml-latest-small":
    first_text = kar.user_vectors(dataset, task)
    arms["KAR's user text"] = kar.arm({"user": first_text}, **settings)
config = TrainConfig(lr=LR, lr_decay=True, max_epochs=EPOCHS, batch_size=BATCH_SIZE, seed=SEED)
split = {"n_folds": size["n_folds"], "valid_share": size["valid_share"], "config": config}
fitted = cross_fit(samples, arms, **split)
scores = pd.concat([simple_scores, fitted.scores()])
run.table("scores", scores.rename_axis("arm"))
scores.sort_values("AUC", ascending=False).round(4)

# %% tags=["nbval-ignore-output"]
boot = {"n_boot": size["n_boot"], "seed": SEED}
drawn = stats.draw_auc(label, fitted.probability | simple, users, **boot)
SIM = scores.loc[["SIM by category", "SIM by vector"], "valid_logloss"].idxmin()
main = "LIBER" if interests else "plain partitions"
pairs = [("over the base", name, "base") for name in arms if name != "base"]
pairs += [
    (f"{main} over", main, name) for name in ("KAR's user text", "plain partitions", "texts of others", SIM)
]
pairs += [(f"{main} over", main, "item and user rate")]
table = drawn.gains(p for p in pairs if {*p[1:]} <= drawn.value.keys() and p[1] != p[2])
run.table("gains", table.assign(samples=len(label), backbone=BACKBONE))
gain = table.set_index("label")
one, best = gain.loc[f"{main} over base"], gain[gain["group"] == "over the base"]["value"].idxmax()
caption = (
    f"Relative change of AUC in {dataset.title}, {BACKBONE}, n = {len(label):,} samples of {drawn.n:,} users, 95 % intervals over "
    f"users. {one.name}: {one['value']:+.2f} % [{one['low']:+.2f}, {one['high']:+.2f}]. The best over the base is "
    f"{best.removesuffix(' over base')}, {gain['value'][best]:+.2f} %."
)
plots.show(plots.forest(table, xlabel="relative change of AUC (%)"), "03_liber", "gains", table, caption)

# %% [markdown]
# ## Experiment 2: if the users are known
#
# A deployed recommender has seen its users before. Here every user's samples are cut in time: the first 70 % train, the next 10 %
# validate, the last 20 % test. The adaptor may now learn what it should make of each user.

# %% tags=["nbval-ignore-output"]
from rec_utils.crossfit import fit_arm
from rec_utils.training import run_jobs

known = splits.within_users(users, position, (0.7, 0.1, 0.2))
names = ["base", *dict.fromkeys((main, "plain partitions", "texts of others", "KAR's user text", SIM))]
jobs = [{"name": name} for name in names if name in arms]
predicted = run_jobs(lambda name: fit_arm(samples, arms[name], known, config)[0], jobs, progress="fits")
of_known = {job["name"]: p for job, p in zip(jobs, predicted, strict=True)}
known_drawn = stats.draw_auc(label[known[2]], of_known, users[known[2]], **boot)
pairs = [("over the base", name, "base") for name in of_known if name != "base"]
if interests:
    pairs += [("LIBER over", "LIBER", "texts of others"), ("LIBER over", "LIBER", SIM)]
known_table = known_drawn.gains(pairs)
run.table("known users", known_table.assign(samples=int(known[2].sum())))
first = known_table.iloc[list(of_known).index(main) - 1]
caption = (
    f"Relative change of AUC on the last fifth of each user's samples in {dataset.title}, n = {known[2].sum():,} samples of {known_drawn.n:,} users, 95 % "
    f"intervals over users. {first['label']}: {first['value']:+.2f} % [{first['low']:+.2f}, {first['high']:+.2f}]."
)
figure = plots.forest(known_table, xlabel="relative change of AUC (%)")
plots.show(figure, "03_liber", "known_users", known_table, caption)

# %% [markdown]
# ## Experiment 3: which part of LIBER does it, and where?
#
# *Ablation*: the mean or self-attention in place of attention with the candidate; only the first partition, as from a language model that is asked
# once, or only the last; one kind of text alone. *Partition size*: texts exist for one $K$, so other sizes are compared without texts, by their
# mean vectors; *or a pause* also closes a partition after a day without ratings. *Backbones*: DIEN reads the recent history with two GRUs,
# DCNv2 crosses fields and sees its mean. All of this is trained with `SWEEP = True` only and drawn here from recorded runs, pooled over seeds.

# %% tags=["nbval-ignore-output"]
grid, contrasts = {}, []
if SWEEP:
    variants = {"mean fusion": {"fusion": "mean"}, "self-attention": {"fusion": "self"}}
    variants |= {f"the {seen} partition only": {"seen": seen} for seen in ("first", "last")}
    grid |= {n: liber.arm(texts, partitions, r_title, **v, **settings) for n, v in variants.items()}
    if interests:
        for kind, name in {"summary": "summaries only", "shift": "shifts only"}.items():
            grid[name] = liber.arm({kind: texts[kind]}, partitions, r_title, **settings)
    contrasts += [("ablation", main, name) for name in grid]
    if interests:
        of_items = {"item_vectors": kar.item_vectors(dataset, task)}
        grid["with item texts"] = liber.arm(texts, partitions, r_title, **of_items, **settings)
        contrasts.append(("ablation", "with item texts", main))
    conditions = {f"{k} ratings": {"count": k} for k in sorted({*size["counts"], size["count"]})}
    if task.order == "timestamp":  # the times must be exact
        pause = {"gap": 3600 * size["gap_hours"]}
        conditions[f"{size['count']} ratings or a pause"] = {"count": size["count"]} | pause
    for name, condition in conditions.items():
        made = ubsp.of_task(task, ubsp.Condition(**condition))
        grid[name] = liber.arm(liber.plain_tables(task, made, r_title), made, r_title, **settings)
        contrasts.append(("partition size", name, "base"))
    for backbone in size["backbones"]:
        other = {"backbone": backbone, "backbone_settings": {"dropout": DROPOUT}}
        grid[backbone] = kar.arm({}, **other)
        grid[f"{backbone} + {main}"] = liber.arm(texts, partitions, r_title, **other, **adaptor)
        contrasts.append(("backbone", f"{backbone} + {main}", backbone))

# %% tags=["nbval-ignore-output"]
if grid:
    swept = cross_fit(samples, grid, **split)
    swept_drawn = stats.draw_auc(label, fitted.probability | swept.probability, users, **boot)
    rows = [
        {"study": study, "arm": name, "over": over} | vars(swept_drawn.gain(name, over))
        for study, name, over in contrasts
    ]
    own = pd.DataFrame(rows)
    run.table("sweep", own)
others = records.siblings(run, "SEED", "SWEEP")
sweeps = {r.run_id: r.tables["sweep"] for r in others if "sweep" in r.tables}
if grid:
    sweeps[run.run_id] = own
sweep = pd.DataFrame(columns=["study", "arm", "over", "value", "low", "high"])
if sweeps:
    sweep = stats.pool_rows(pd.concat(sweeps.values()), ["study", "arm", "over"])


# %% tags=["nbval-ignore-output"]
if sweeps:
    table = sweep.assign(label=sweep["arm"] + " over " + sweep["over"], group=sweep["study"])
    low, high = (table.loc[k] for k in (table["value"].idxmin(), table["value"].idxmax()))
    sure = ((table["low"] > 0) | (table["high"] < 0)).sum()
    caption = (
        f"Relative change of AUC in {dataset.title}, n = {len(label):,} samples of {drawn.n:,} users, {len(sweeps)} seeds pooled, 95 % intervals over "
        f"users and seeds. From {low['value']:+.2f} % ({low['label']}) to {high['value']:+.2f} % ({high['label']}); {sure} of "
        f"{len(table)} intervals exclude no change."
    )
    figure = plots.forest(table, xlabel="relative change of AUC (%)")
    plots.show(figure, "03_liber", "parts", table, caption)

# %% [markdown]
# ## Paper against ours
#
# Nothing but the online test could be read.

# %% tags=["nbval-ignore-output"]
report.paper_vs_ours(card, {}, f"{dataset.title}, {size['n_folds']} folds by user")

# %% [markdown]
# ## Figure: does a longer history help?
#
# The more partitions are closed, the more LIBER knows. Samples without any are the check: there its arm sees what the base sees.

# %% tags=["nbval-ignore-output"]
shown = list(dict.fromkeys(name for name in (main, "plain partitions", SIM) if name in arms))
by_bin = fitted.gain_by_bin("closed partitions", n_closed, [0, 1, 2, 3, 4, 5, 6], shown, "base", **boot)
of_main = by_bin[by_bin["arm"] == main]
caption = (
    f"Gain over the base by the number of partitions that a sample sees (K = {size['count']}), 95 % intervals over users. {main} changes AUC by "
    f"{of_main['value'].iloc[0]:+.2f} % before any partition is closed and by {of_main['value'].iloc[-1]:+.2f} % with most of them."
)
figure = plots.gain_by_bin(by_bin, ylabel="relative change of AUC (%)")
plots.show(figure, "03_liber", "gain_by_partitions", by_bin, caption)

# %% [markdown]
# ## Where does the attention look?
#
# Mean weights $w_j$ of the trained model on the users of one test fold, by how many partitions ago $P_j$ was closed. Were they equal, the attention would
# be a mean.

# %% tags=["nbval-ignore-output"]
tables = []


def catch(model, test):
    """Keep the mean weights of the trained model."""
    tables.append(liber.weights_by_age(model, test, most=6))
    return {}


fit_arm(samples, liber.arm(texts, partitions, r_title, **settings), parts[0], config, catch)
attention = tables[-1]
run.table("attention", attention)
times = (attention["weight"] * attention["closed"]).agg(["min", "max"])
print(
    f"between {times['min']:.2f} and {times['max']:.2f} times equal weights; partitions ago (1 = the newest):"
)
attention.pivot(index=["closed", "n"], columns="age", values="weight").round(3).astype(object).fillna("")

# %% [markdown]
# ## Figure: the recorded run on MovieLens-1M
#
# Nobody wrote texts about the partitions of MovieLens-1M, so what is tested there is partition and fusion, with ten times the users.

# %% tags=["nbval-ignore-output"]
recorded = records.tables("03_liber", "paper")
if "gains" in recorded:
    ml1m = recorded["gains"]
    drawing = ml1m[ml1m["label"] != "plain partitions over item and user rate"]
    if "sweep" in recorded:
        of_sweep = recorded["sweep"].rename(columns={"study": "group"})
        of_sweep["label"] = of_sweep["arm"] + " over " + of_sweep["over"]
        of_sweep = of_sweep[of_sweep["arm"] != f"{size['count']} ratings"]  # the first row again
        drawing = pd.concat([drawing, of_sweep])
    gain_1m = ml1m.set_index("label")["value"]
    caption = (
        f"MovieLens-1M, n = {ml1m['samples'].iloc[0]:,} samples of {ml1m['n'].iloc[0]:,} users, 95 % intervals, one seed. Plain partitions change AUC by "
        f"{gain_1m['plain partitions over base']:+.2f} %, a search in them by {gain_1m[gain_1m.index.str.match('SIM .* over base')].max():+.2f} %."
    )
    figure = plots.forest(drawing, xlabel="relative change of AUC (%)")
    plots.show(figure, "03_liber", "ml1m_gains", drawing, caption)

# %% [markdown]
# ## Verdicts
#
# The numbers of this run are pooled with those of recorded runs with other seeds, and the status follows from the
# pooled interval: *matched* if it excludes the null on the claimed side and the value lies in the range, *partly* if only the
# former. *Fragile*: the interval ends close to the null.

# %% tags=["nbval-ignore-output"]
pairs = {
    "liber-helps": ("LIBER", "base"),
    "control-kar": ("LIBER", "KAR's user text"),
    "control-sim": ("LIBER", SIM),
    "control-plain": ("LIBER", "plain partitions"),
    "control-dealt": ("LIBER", "texts of others"),
    "control-two-numbers": ("LIBER", "item and user rate"),
}
numbers = {name: drawn.gain(*pair) for name, pair in pairs.items() if {*pair} <= drawn.value.keys()}
if interests:
    numbers["known-users"] = known_drawn.gain("LIBER", "base")
of_sweep = {
    "helps-dien": ("DIEN + LIBER", "DIEN"),
    "helps-dcnv2": ("DCNv2 + LIBER", "DCNv2"),
    "ablation-partitions": ("LIBER", "the first partition only"),
    "ablation-shift": ("LIBER", "summaries only"),
    "ablation-fusion": ("LIBER", "mean fusion"),
}
columns, of_pair = ["value", "low", "high", "level", "n"], sweep.set_index(["arm", "over"])
pooled = {
    n: stats.Interval(*of_pair.loc[pair, columns]) for n, pair in of_sweep.items() if pair in of_pair.index
}

# %% tags=["nbval-ignore-output"]
from rec_utils.verdicts import conclude

if "gains" in recorded:
    for name, over in {"ml1m-mechanism": "base", "ml1m-sim": "SIM by (category|vector)"}.items():
        row = ml1m[ml1m["label"].str.fullmatch(f"plain partitions over {over}")].iloc[0]
        pooled[name] = stats.Interval(*row[columns])
missing = f"no texts or no recorded run at profile {PROFILE}"
verdicts, n_seeds = conclude(run, card, numbers, missing, "SWEEP", pooled=pooled)
print(f"Pooled over {n_seeds} seeds; in %.")
report.verdict_table(verdicts)

# %%
# what a repeated run, also on another machine, must give again
report.verdict_table(verdicts, numbers=False)

# %% [markdown]
# ## What differs, and why
#
# **On new users the texts cost.** Over three seeds LIBER lowers the AUC by 1.8 % on DIN and 2.1 % on DIEN, and perhaps by 0.9 % on DCNv2; KAR's one text costs
# as much. Texts of other users cost hardly more than the right ones. With some 240 training users the adaptor learns to tell users apart, and what it
# learned about one is no use for the next. `01_kar_protocol` found that texts about users need about 3,000 training users.
#
# **On known users it is a mark of the user.** There LIBER gains 0.7 %, within its interval nothing, and KAR's one text a sure 1.3 %. But texts
# of other users and partitions without texts gain as well, if less. What a user is told apart by need not be true: an id embedding would do. That one text which stays the
# same marks a user better than texts which change with each partition would explain why KAR's is ahead.
#
# **Less is more here.** The last partition alone beats all of them by 1.2 %; the mean is no worse than attention, and the shifts add nothing to the
# summaries. Whatever lets the model tell users apart less, loses less.
#
# **A search needs no texts.** SIM by vector, which takes 20 ratings like the candidate from the same partitions, leaves AUC where it was, 1.8 % above
# LIBER. Two numbers and a logistic regression beat every neural arm, as in `01_kar`.
#
# **With ten times the users partition and fusion work, without a text.** On MovieLens-1M mean vectors of partitions gain 0.85 % on DIN, 1.05 % on DCNv2, and
# 1.2 % with partitions of 20. The first partition alone is 0.6 % worse, the last alone 0.1 %; here, too, the mean beats attention with the candidate, by 0.2 %.
# But a search in the same ratings gains 3.5 %. Texts would have to tell a good deal more than mean vectors do to reach it, and nobody has shown that they do.
#
# **The attention had to be helped.** In a first run, which was not recorded, plain products $q \cdot h_j / \sqrt{d}$ left the weights equal before and after training, since text vectors
# have length 1. Scaled as above the weights differ. That run's test AUC, less low than the one shown, had been seen; we keep the form that is attention.
#
# **What we do otherwise than the paper**, as far as it could be read: data, language model, encoder and $K$ are ours; titles and stars without
# genres in the requests; at most 6 partitions a user; no profile, which latest-small lacks; the attention's form; one shared expert; no tuning. Its
# music service has long histories of many millions of users, which no public data set has.
#
# ## Explore
#
# Choose a user: what the language model said of one partition after the other. The widget needs a running kernel.

# %% tags=["nbval-ignore-output"]
from rec_utils.widgets import TimelineExplorer

run.finish()
if interests:
    rows = [(i.user, i.number + 1, i.summary.text, i.shift.text if i.shift else "") for i in interests]
    explorer = TimelineExplorer(pd.DataFrame(rows, columns=["user_id", "partition", "summary", "shift"]))
    display(explorer.show(rows[0][0]), explorer.widget())

# %% [markdown]
# ## Exercises
#
# 1. Write a `Condition` that closes a partition when the share of liked ratings changes. What must `Stream` keep for it?
# 2. Let a sample see the partition that is still open (`closed + 1`). Which check stops you, and how much AUC would it give?
# 3. Ask for the shift from the *first* summary instead of the one before. What happens to the number of calls?
# 4. Give the fusion the age of each partition. Does the attention now prefer the newest?
#
# ## Cite
#
# Zhu et al., *LIBER: Lifelong User Behavior Modeling Based on Large Language Models*, arXiv 2411.14713, 2024. Search baseline: Pi et al.,
# *Search-based User Interest Modeling with Lifelong Sequential Behavior Data for Click-Through Rate Prediction*, CIKM 2020, arXiv
# 2006.05639. Data: Harper and Konstan, *The MovieLens Datasets*, ACM TiiS 2015. How to cite this project: `CITATION.cff`.
