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
# # KAR on nine backbones, with three adaptors and two encoders
#
# KAR is said to help every click model. Here it meets nine of them, and its hybrid-expert adaptor meets the two simpler
# ones that it should beat. One run of this notebook is one backbone; the tables put the recorded runs together.

# %% tags=["nbval-ignore-output"]
from rec_utils import claims, plots, records, report

report.cost_table(records.load("01_kar_backbones"))

# %% [markdown]
# ## The paper

# %%
from IPython.display import Markdown, display

card = claims.load_card("kar_backbones")
Markdown(report.card_markdown(card))

# %% [markdown]
# ## Claims under test
#
# Nulls and ranges were fixed before the first full run. The claim marked *ours* is a control.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
report.claims_table(card)

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke, laptop or paper: sizes from the card
SEED: int = 0  # of folds, initial weights, shuffling and dropout
BACKBONE: str = "DIN"  # DIN DIEN DCN DCNv2 DeepFM xDeepFM AutoInt FiBiNET FiGNN
ADAPTORS: list[str] = ["HEA", "MoE", "MLP"]  # compared in this run; the claims need HEA
ENCODERS: list[str] = ["MiniLM", "TF-IDF"]  # compared in this run; the claims need MiniLM
SHARED: int = 2  # experts that see both sides
DEDICATED: int = 2  # experts of each side alone, HEA only
LR: float = 1e-3  # learning rate of Adam at the first step; it falls to 0 at the last
EPOCHS: int = 3  # passes over the training samples
BATCH_SIZE: int = 512  # samples a step
DROPOUT: float = 0.2  # in backbone and experts

# %% [markdown]
# ## Data
#
# Samples, prompt histories and folds by user as in `01_kar`. The cell stops if a user is in two parts of a split, or if
# a sample could see itself or its future.

# %%
import numpy as np

from rec_utils import data, splits
from rec_utils.samples import RELEASED_RULES, check_leaks, ctr_task

run, size = records.start_notebook("01_kar_backbones", globals(), card), card.sizes(PROFILE)
dataset = data.load(size["dataset"])
on_ml1m = RELEASED_RULES.get(dataset.name, {})
limits = {"first_users": size["first_users"], "max_samples_per_user": size["max_samples_per_user"]}
task = ctr_task(dataset, history_length=5, min_ratings=10, **on_ml1m, **limits)
samples, ratings, users = task.samples, task.ratings, task.samples.user_row.numpy()
run.data(dataset)
folds = splits.user_folds(len(task.user_ids), size["n_folds"], SEED)
cuts = (splits.fold_masks(users, folds, fold, size["valid_share"], SEED) for fold in range(size["n_folds"]))
check_leaks(task, samples, cuts)
print(f"{dataset.title}: {len(samples):,} samples of {len(task.user_ids):,} users, no leak found")

# %% [markdown]
# ## Baselines first
#
# Two numbers and a logistic regression, without embedding or text.

# %% tags=["nbval-ignore-output"]
from rec_utils import baselines
from rec_utils.metrics import auc, logloss

label = samples.label.numpy()
simple = baselines.like_rates(task, folds)
pd.DataFrame({n: {"AUC": auc(label, p), "LogLoss": logloss(label, p)} for n, p in simple.items()}).T.round(4)

# %% [markdown]
# ## The method: three ways from a text vector to 32 numbers
#
# All three are made of the same expert, $E(r) = \mathrm{relu}(W_2\,\mathrm{relu}(W_1 r))$. *MLP* is one expert for both sides. *MoE* has
# several and one gate, $a_p = \sum_e g[e]\,E_e(r_p)$ with $g = \mathrm{softmax}(W r_p + b)$. *HEA* gives each side a gate of its own and
# experts that no other side uses. The encoder before it is a neural one (MiniLM), or words counted (TF-IDF and a truncated SVD).

# %%
from rec_utils import ctr
from rec_utils.papers import kar

settings = {
    "backbone": BACKBONE,
    "backbone_settings": {"dropout": DROPOUT} if ctr.takes_dropout(BACKBONE) else {},
}
arms = {"base": kar.arm({}, **settings)}
for encoder in ENCODERS:
    vectors = {"item": kar.item_vectors(dataset, task, encoder=encoder)}
    if dataset.name == kar.movies.USERS_OF:
        vectors["user"] = kar.user_vectors(dataset, task, encoder=encoder)
    for kind in ADAPTORS:
        adaptor = {"kind": kind, "shared": SHARED, "dedicated": DEDICATED, "dropout": DROPOUT}
        arms[f"{kind}, {encoder}"] = kar.arm(vectors, adaptor_settings=adaptor, **settings)
for name, arm in arms.items():
    parts = dict(arm.build(samples, SEED).named_children())
    print(
        f"{name:12} {sum(p.numel() for p in parts['adaptor'].parameters()) if 'adaptor' in parts else 0:9,} parameters in the adaptor"
    )

# %% [markdown]
# ## Experiment 1: adaptors and encoders
#
# Every arm has the same folds and validation users, and is scored on the same bootstrap over users.

# %% tags=["nbval-ignore-output"]
from rec_utils import stats
from rec_utils.crossfit import cross_fit
from rec_utils.training import TrainConfig

config = TrainConfig(lr=LR, lr_decay=True, max_epochs=EPOCHS, batch_size=BATCH_SIZE, seed=SEED)
split = {"n_folds": size["n_folds"], "valid_share": size["valid_share"], "config": config}
fitted = cross_fit(samples, arms, **split)
scores = fitted.scores()
run.table("scores", scores)
drawn = stats.draw_auc(label, fitted.probability | simple, users, size["n_boot"], SEED)
for name in arms:
    if name != "base":
        run.metric(f"gain {name}", drawn.gain(name, "base"))
scores.sort_values("AUC", ascending=False).round(4)

# %% tags=["nbval-ignore-output"]
pairs = [(encoder, f"{kind}, {encoder}", "base") for encoder in ENCODERS for kind in ADAPTORS]
pairs += [
    ("HEA over the others", f"HEA, {e}", f"{k}, {e}")
    for e in ENCODERS
    for k in ADAPTORS
    if k != "HEA" and "HEA" in ADAPTORS
]
table = drawn.gains(pairs)
best = table.loc[table["value"].idxmax()]
caption = (
    f"Relative change of AUC, {BACKBONE} on {dataset.title}, n = {len(label):,} samples of {drawn.n} users, 95 % intervals over users. "
    f"The largest is that of {best['label']}, {best['value']:+.2f} %."
)
plots.show(
    plots.forest(table, xlabel="relative change of AUC (%)"), "01_kar_backbones", "adaptors", table, caption
)

# %% [markdown]
# ## Experiment 2: nine backbones
#
# From the recorded runs at this profile and these settings, one a backbone and seed, each pooled over its seeds.

# %% tags=["nbval-ignore-output"]
MAIN = "HEA, MiniLM"
BEHAVIOUR, OTHERS = ("DIN", "DIEN"), ("DCN", "DCNv2", "DeepFM", "xDeepFM", "AutoInt", "FiBiNET", "FiGNN")
found = {BACKBONE: [drawn.gain(MAIN, "base")]} if MAIN in arms else {}
for record in records.siblings(run, "BACKBONE", "SEED", "ADAPTORS", "ENCODERS"):
    same = (record.parameters["BACKBONE"], record.parameters["SEED"]) == (BACKBONE, SEED)
    if f"gain {MAIN}" in record.metrics and not same:
        found.setdefault(record.parameters["BACKBONE"], []).append(record.metrics[f"gain {MAIN}"])
gains = {name: stats.over_seeds(found[name]) for name in (*BEHAVIOUR, *OTHERS) if name in found}
nine = pd.DataFrame(
    {
        "group": "behaviour" if name in BEHAVIOUR else "feature interactions",
        "label": f"{name}, seeds: {len(found[name])}",
    }
    | vars(gain)
    for name, gain in gains.items()
)
run.table("nine backbones", nine)
if gains:
    caption = (
        f"KAR over its base by backbone, {dataset.title}, relative change of AUC, 95 % intervals over users and seeds. Of {len(nine)} "
        f"backbones, {(nine['low'] > 0).sum()} gain and {(nine['high'] < 0).sum()} lose beyond their interval."
    )
    figure = plots.forest(nine, xlabel="relative change of AUC (%)")
    plots.show(figure, "01_kar_backbones", "backbones", nine, caption)

# %% [markdown]
# ## Experiment 3: are the settings fair to both sides?
#
# The settings of `01_kar` were found in pilot runs. This grid judges them by the *validation* LogLoss alone: recorded runs with
# other learning rates and epochs, the same backbone and seed.

# %% tags=["nbval-ignore-output"]
losses = {(LR, EPOCHS): scores["valid_logloss"].to_dict()}
for record in records.siblings(run, "LR", "EPOCHS", "ADAPTORS", "ENCODERS"):
    setting = record.parameters["LR"], record.parameters["EPOCHS"]
    losses.setdefault(setting, record.tables["scores"].set_index("arm")["valid_logloss"].to_dict())
grid = (
    pd.DataFrame(losses)
    .T.rename_axis(["LR", "EPOCHS"])
    .sort_index()[["base", MAIN] if MAIN in arms else ["base"]]
)
run.table("validation", grid)
for name in grid:
    print(f"{name}: lowest validation LogLoss at LR, EPOCHS = {grid[name].idxmin()}")
grid.round(4)

# %% [markdown]
# ## Paper against ours
#
# Cells that nobody could read in the paper are empty, and the data set is not the paper's.

# %% tags=["nbval-ignore-output"]
ours = {f"gain-{name.lower()}": gain for name, gain in gains.items()}
report.paper_vs_ours(card, ours, f"{dataset.title}, {size['n_folds']} folds by user")

# %% [markdown]
# ## Figure: who gains?
#
# The gain by the number of ratings that the candidate movie has.

# %% tags=["nbval-ignore-output"]
of_movie = np.bincount(ratings["item_row"])[samples.item_row]
shown = [name for name in ("HEA, MiniLM", "MLP, MiniLM", "HEA, TF-IDF") if name in arms]
by_movie = fitted.gain_by_bin(
    "ratings of the movie", of_movie, [1, 5, 15, 40, 100], shown, "base", size["n_boot"], SEED
)
first = by_movie[by_movie["arm"] == shown[0]]["value"]
caption = (
    f"Gain over {BACKBONE} by the ratings of the movie, {dataset.title}, 95 % intervals over users. {shown[0]} changes AUC by {first.iloc[0]:+.2f} % "
    f"for the movies with fewest ratings and by {first.iloc[-1]:+.2f} % for those with most."
)
plots.show(
    plots.gain_by_bin(by_movie, ylabel="relative change of AUC (%)"),
    "01_kar_backbones",
    "by_movie",
    by_movie,
    caption,
)

# %% [markdown]
# ## Verdicts
#
# Pooled over the recorded seeds of the same settings; the nine backbones from their own records.

# %% tags=["nbval-ignore-output"]
numbers = {
    f"HEA over {k}, {e}": drawn.gain(f"HEA, {e}", f"{k}, {e}")
    for e in ENCODERS
    for k in ADAPTORS
    if k != "HEA" and f"HEA, {e}" in arms
}
if {"HEA, MiniLM", "HEA, TF-IDF"} <= arms.keys():
    numbers["MiniLM over TF-IDF"] = drawn.gain("HEA, MiniLM", "HEA, TF-IDF")
for name, interval in numbers.items():
    run.metric(name, interval)
others = records.other_seeds(run)
pooled = {
    n: stats.over_seeds([i, *(r.metrics[n] for r in others if n in r.metrics)]) for n, i in numbers.items()
}
hea = {name: interval for name, interval in pooled.items() if name.startswith("HEA")}
evidence = {"adaptor-hea": hea or claims.NotTestable("this run has no other adaptor")}
evidence["encoder-over-words"] = pooled.get(
    "MiniLM over TF-IDF", claims.NotTestable("this run has one encoder")
)
missing = claims.NotTestable(f"{len(gains)} of 9 backbones are recorded at profile {PROFILE}")
evidence["gain-every-backbone"] = gains if len(gains) == 9 else missing
if len(gains) == 9:
    means = [stats.mean_of_parts([gains[name] for name in names]) for names in (OTHERS, BEHAVIOUR)]
    evidence["interaction-over-behaviour"] = stats.difference_of_parts(*means)
else:
    evidence["interaction-over-behaviour"] = missing
verdicts = claims.check(card, evidence)
run.verdicts(verdicts)
report.verdict_table(verdicts)

# %%
# what a repeated run, also on another machine, must give again
report.verdict_table(verdicts, numbers=False)

# %% [markdown]
# ## What differs, and why
#
# **KAR loses on most backbones here.** With the paper's kind of adaptor (two shared experts and two of each side) eight of nine
# backbones end below their base, seven of them beyond their interval; AutoInt alone gains. One seed a backbone: another may
# turn DCN, FiGNN and AutoInt.
#
# **The reason is the number of users, not the backbone.** The arms with knowledge reach their lowest validation loss an epoch
# before the base does: some 370 training users are too few for 320,000 weights that read one text a user. The fewer
# weights an adaptor has, the less it loses (MLP against HEA and MoE behind MiniLM), and word counts, which tell two users
# apart less sharply, lose less than a neural encoder. Notebook `01_kar_protocol` has the same comparison with 4,900 training users.
#
# **"Larger on feature interactions" holds, but reads otherwise.** Those models lose less than DIN and DIEN. The paper
# says that they gain more.
#
# **The settings do not decide it.** At none of nine learning rates and epochs has KAR the lower *validation* loss, each side
# at its best setting included. This grid was made after the settings of `01_kar` had been chosen, and by validation alone; it
# covers the learning rate and the epochs, not dropout or the number of experts.
#
# **What we do otherwise than the paper:** other data, language model and encoders (BERT and ChatGLM are 768 and 4,096 numbers
# wide; TF-IDF is a stand-in for a second one), the smallest numbers of experts that the paper tried, folds by user with validation
# users instead of a choice on the test users, a learning rate that falls to zero.

# %% [markdown]
# ## Explore
#
# Choose a test user: the prompt history, what the language model inferred, and how the base and KAR rank the movies rated
# later. The widget needs a running kernel.

# %% tags=["nbval-ignore-output"]
from rec_utils.widgets import UserExplorer

run.finish()
explorer = UserExplorer(dataset, task, {name: fitted.probability[name] for name in list(arms)[:2]})
display(explorer.show(int(task.user_ids[0])), explorer.widget())

# %% [markdown]
# ## Exercises
#
# 1. Count the parameters of HEA with 2 shared and 5 dedicated experts at 768 numbers a text, as in the paper. How many
#    does the backbone have?
# 2. Why is HEA with one shared and no dedicated expert the same as MLP? Which equation says so?
# 3. TF-IDF knows no synonyms. For which movies would you expect it to lose most? Check with the figure above.
# 4. Run `BACKBONE = "DIEN"`: what does a GRU add to five ratings?
#
# ## Cite
#
# Xi et al., *Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models*, RecSys 2024,
# arXiv 2306.10933. Data: Harper and Konstan, *The MovieLens Datasets*, ACM TiiS 2015. How to cite this project:
# `CITATION.cff`.
