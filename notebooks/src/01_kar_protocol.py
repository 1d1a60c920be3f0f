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
# # KAR's protocol: how much of the gain is knowledge?
#
# A gain needs something to be a gain over. KAR's base model sees a user's last five ratings; KAR's text about the
# user is written from the first thirty. So the paper compares two models *and* two amounts of information. This notebook takes
# the published comparison apart, piece by piece.

# %% tags=["nbval-ignore-output"]
from rec_utils import claims, plots, records, report

report.cost_table(records.load("01_kar_protocol"))

# %% [markdown]
# ## The paper

# %%
from IPython.display import Markdown, display

card = claims.load_card("kar_protocol")
Markdown(report.card_markdown(card))

# %% [markdown]
# ## Claims under test
#
# The first two are the paper's. The others are ours: each asks for one piece of the gain. Nulls and ranges were
# fixed before the first full run.

# %%
import pandas as pd

pd.set_option("display.max_colwidth", None)
report.claims_table(card)

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke, laptop or paper (MovieLens-1M): sizes from the card
SEED: int = 0  # of validation users, initial weights, shuffling and dropout
BACKBONE: str = "DIN"  # any deep model in rec_utils.ctr.MODELS
STUDIES: list[str] = ["history", "users", "selection", "batches", "summaries"]  # experiments to run
HISTORIES: list[int] = []  # numbers of recent ratings that the backbone sees; none: those of the card
ALONE: bool = True  # also item texts and user texts alone, and another project's item texts
SHARED: int = 1  # experts that see both sides
DEDICATED: int = 0  # experts of each side alone
LR: float = 1e-3  # learning rate of Adam at the first step; it falls to 0, but for the selection study
DROPOUT: float = 0.2  # in backbone and experts

# %% [markdown]
# ## Data
#
# On MovieLens-1M (profile `paper`) samples, prompt histories and test users are those of KAR's released files: 835,189
# samples, every user's first 30 or 10 ratings kept back for the prompt, and the authors' own tenth of the users as
# test, recovered from their random seed. By default the notebook runs the same code on MovieLens latest-small and shows
# the recorded runs on MovieLens-1M beside it.
#
# The cell stops if a user is in two parts of the split, or if a sample could see itself or its future.

# %%
import numpy as np

from rec_utils import data, splits
from rec_utils.papers.released import released_split
from rec_utils.samples import RELEASED_RULES, check_leaks, ctr_task

run, size = records.start_notebook("01_kar_protocol", globals(), card), card.sizes(PROFILE)
dataset = data.load(size["dataset"])
on_ml1m = RELEASED_RULES.get(dataset.name, {})
limits = {"first_users": size["first_users"], "max_samples_per_user": size["max_samples_per_user"]}
task = ctr_task(dataset, history_length=5, min_ratings=10, **on_ml1m, **limits)
samples, ratings, users = task.samples, task.ratings, task.samples.user_row.numpy()
run.data(dataset)
if on_ml1m:
    test_users = released_split(task.user_ids)
else:
    test_users = splits.user_folds(len(task.user_ids), size["n_folds"], SEED) == 0
masks = splits.fold_masks(users, test_users.astype(int), 1, size["valid_share"], SEED)
check_leaks(task, samples, [masks])
print(f"{dataset.title}: {len(samples):,} samples of {len(task.user_ids):,} users, no leak found")
print(f"{masks[0].sum():,} to train, {masks[1].sum():,} to validate, {masks[2].sum():,} to test")

# %% [markdown]
# ## Baselines first
#
# Two numbers and a logistic regression: how much the movie is liked by training users, and how much this user has
# liked everything so far.

# %% tags=["nbval-ignore-output"]
from rec_utils import baselines
from rec_utils.metrics import auc, logloss

test = np.flatnonzero(masks[2])
label, test_user = samples.label.numpy()[test], users[test]
simple = {n: p[test] for n, p in baselines.like_rates(task, test_users.astype(int)).items()}
pd.DataFrame({n: {"AUC": auc(label, p), "LogLoss": logloss(label, p)} for n, p in simple.items()}).T.round(4)

# %% [markdown]
# ## The method, and three ways to tell a model about a user
#
# *KAR*: texts of item and user go through a frozen encoder and the hybrid-expert adaptor into the backbone (notebook
# `01_kar`). *Longer history*: the backbone sees the last 10, 30 or 60 ratings instead of 5. *Plain features*: the prompt history
# enters as means of the backbone's own embeddings, of the liked items, of the others, and of the stars given:
#
# $$ x_u = \Big[\tfrac{1}{|P^+_u|}\sum_{i \in P^+_u} E_i \,;\; \tfrac{1}{|P^-_u|}\sum_{i \in P^-_u} E_i \,;\;
# \tfrac{1}{|P_u|}\sum_{i \in P_u} E_{\mathrm{stars}(u,i)}\Big] $$

# %%
import inspect

from rec_utils import ctr
from rec_utils.papers import kar, kar_protocol

print(inspect.getsource(kar_protocol.PromptFeatures.forward))
r_item, r_user = kar.item_vectors(dataset, task), kar_protocol.user_text_vectors(dataset, task)
prompt_ids = kar_protocol.prompt_fields(task)
settings = {
    "backbone": BACKBONE,
    "backbone_settings": {"dropout": DROPOUT} if ctr.takes_dropout(BACKBONE) else {},
}
adaptor = {"adaptor_settings": {"shared": SHARED, "dedicated": DEDICATED, "dropout": DROPOUT}}
print(f"r_item {r_item.shape}, r_user {r_user.shape}, prompt histories {tuple(prompt_ids.shape)}")
covered = r_item.any(axis=1)[samples.item_row].mean()
print(f"{covered:.1%} of the samples are of a movie with a text")

# %%
from dataclasses import replace

import torch

from rec_utils import stats
from rec_utils.holdout import holdout_fit
from rec_utils.knowledge.vectors import permuted
from rec_utils.stats import draw_auc
from rec_utils.training import TrainConfig

steps = {"lr": LR, "max_epochs": size["epochs"], "batch_size": size["batch_size"]}
config = TrainConfig(lr_decay=True, seed=SEED, **steps)
split = {"valid_share": size["valid_share"], "resume": PROFILE == "paper"}
boot = {"n_boot": size["n_boot"], "seed": SEED}
histories, evidence = HISTORIES or size["histories"], {}
FIVE, LONG = histories[0], 30
both_texts = {"item": r_item, "user": r_user}


def arms_at(length: int) -> dict:
    """Base and rivals that see the last `length` ratings; all of them only for the shortest."""
    at = settings | {"history_length": length}
    arms = {"base": kar.arm({}, **at), "KAR": kar.arm(both_texts, **at, **adaptor)}
    if length <= LONG:
        arms["plain features"] = kar_protocol.prompt_arm(prompt_ids, **at)
    if length == FIVE and ALONE:
        arms |= {f"{side} texts": kar.arm({side: r}, **at, **adaptor) for side, r in both_texts.items()}
    return {f"{name}, {length}": arm for name, arm in arms.items()}


# %% [markdown]
# ## Experiment 1: what the base is allowed to see
#
# Base, KAR and plain features with a recent history of different lengths. All arms have the same split and settings,
# keep the epoch with the lowest LogLoss on the same validation users, and are scored on the same bootstrap over users.
#
# ## Experiment 2: what explains the gain
#
# The same fits as differences. What is left of KAR's gain when the base sees the same prompt history, or more
# recent ratings?

# %% tags=["nbval-ignore-output"]
if "history" in STUDIES:
    arms = {name: arm for length in histories for name, arm in arms_at(length).items()}
    if on_ml1m and ALONE:  # the same experiment with texts that another project published
        others = {"item": kar_protocol.colakg_vectors(task)}
        arms[f"CoLaKG's item texts, {FIVE}"] = kar.arm(others, history_length=FIVE, **settings, **adaptor)
    fitted = holdout_fit(samples, arms, test_users, config=config, **split)
    run.table("scores", fitted.scores())
    drawn = draw_auc(label, fitted.probability | simple, test_user, **boot)
    by = "recent ratings that the backbone sees"
    levels = pd.DataFrame(
        dict(zip(("arm", "bin"), arm.split(", "), strict=True))
        | vars(drawn.interval(lambda m, arm=arm: m[arm]))
        | {"by": by, "n": len(label), "backbone": BACKBONE, "seed": SEED}
        for arm in arms
    )
    run.table("history", levels)
    at_five = levels[levels["bin"] == str(FIVE)].set_index("arm")["value"]
    caption = (
        f"AUC of {BACKBONE} by the number of recent ratings that it sees, {dataset.title}, {drawn.n} test users, 95 % intervals. "
        f"With {FIVE}: base {at_five['base']:.4f}, KAR {at_five['KAR']:.4f}, plain features {at_five['plain features']:.4f}."
    )
    figure = plots.gain_by_bin(levels, ylabel="AUC", null=at_five["base"])
    plots.show(figure, "01_kar_protocol", "history", levels, caption)

# %% tags=["nbval-ignore-output"]
if "history" in STUDIES:
    contrasts = {
        "gain": ("the paper's comparison", f"KAR, {FIVE}", f"base, {FIVE}"),
        "facts": ("the paper's comparison", f"item texts, {FIVE}", f"base, {FIVE}"),
        "over-plain-features": ("with the same information", f"KAR, {FIVE}", f"plain features, {FIVE}"),
        "long-history": ("with the same information", f"KAR, {LONG}", f"base, {LONG}"),
        "history-over-texts": ("base with more ratings", f"base, {LONG}", f"KAR, {FIVE}"),
        "two-numbers": ("no embedding, no text", f"KAR, {FIVE}", "item and user rate"),
    }
    contrasts = {claim: c for claim, c in contrasts.items() if {*c[1:]} <= drawn.value.keys()}
    evidence |= {claim: drawn.gain(arm, over) for claim, (_, arm, over) in contrasts.items()}
    table = drawn.gains(contrasts.values()).assign(claim=list(contrasts), backbone=BACKBONE, seed=SEED)
    run.table("contrasts", table)
    caption = (
        f"Relative change of AUC, {BACKBONE}, {dataset.title}, n = {len(label):,} samples of {drawn.n} test users. KAR changes the AUC "
        f"by {table['value'][0]:+.2f} % over the paper's base, by {table['value'][2]:+.2f} % over one that sees the prompt history."
    )
    figure = plots.forest(table, xlabel="relative change of AUC (%)")
    plots.show(figure, "01_kar_protocol", "contrasts", table, caption)

# %% [markdown]
# ## Experiment 3: how many users, which movies?
#
# The adaptor learns from training users what a user text means: the gain of user texts by their number, with the same number
# of steps. Item texts should help where the embedding has little to learn from: their gain by the ratings of the movie.

# %% tags=["nbval-ignore-output"]
if "users" in STUDIES:
    kinds = {"item texts": {"item": r_item}, "KAR": both_texts}
    total = len(np.unique(users[masks[0]]))
    counts = [*size["train_users"], total]
    at = settings | {"history_length": FIVE}
    few = {f"base, {FIVE}": kar.arm({}, **at)}
    few |= {f"{name}, {FIVE}": kar.arm(sides, **at, **adaptor) for name, sides in kinds.items()}
    few |= {
        f"{name}, {n} users": kar.arm(sides, train_users=n, **settings, **adaptor)
        for n in size["train_users"]
        for name, sides in kinds.items()
    }
    swept = holdout_fit(samples, few, test_users, config=config, **split)
    few_drawn = draw_auc(label, swept.probability, test_user, **boot)
    ending = {n: f"{n} users" for n in size["train_users"]} | {total: f"{FIVE}"}
    by_users = pd.DataFrame(
        {"by": "training users", "bin": f"{n:,}", "arm": "user texts on top of item texts"}
        | vars(few_drawn.gain(f"KAR, {ending[n]}", f"item texts, {ending[n]}"))
        | {"n": len(label)}
        for n in counts
    )
    first, last = ending[counts[0]], ending[total]
    evidence["more-users"] = few_drawn.interval(
        lambda m: (
            100
            * (m[f"KAR, {last}"] / m[f"item texts, {last}"] - m[f"KAR, {first}"] / m[f"item texts, {first}"])
        )
    )

# %% tags=["nbval-ignore-output"]
if "users" in STUDIES:
    of_movie = np.bincount(ratings["item_row"])[samples.item_row[test]]
    edges = [1, 50, 200, 500, 1000] if on_ml1m else [1, 5, 15, 40]
    item_arm = f"item texts, {FIVE}"
    by_movie = swept.gain_by_bin("ratings of the movie", of_movie, edges, [item_arm], f"base, {FIVE}", **boot)
    by_movie["arm"] = "item texts over the base"
    ends = [by_movie.iloc[row][["value", "low", "high"]] for row in (0, -1)]
    ends = [stats.Interval(*end, level=0.95, n=few_drawn.n) for end in ends]
    evidence["cold-items"] = stats.difference_of_parts(*ends)
    both = pd.concat([by_users, by_movie])
    run.table("users and movies", both.assign(backbone=BACKBONE, seed=SEED))
    caption = (
        f"{BACKBONE}, {dataset.title}, 95 % intervals over {few_drawn.n} test users. User texts on top of item texts change AUC by "
        f"{by_users['value'].iloc[0]:+.2f} % with {counts[0]} training users and by {by_users['value'].iloc[-1]:+.2f} % with all {total:,}; item "
        f"texts change it by {by_movie['value'].iloc[0]:+.2f} % for the movies with fewest ratings."
    )
    figure = plots.gain_by_bin(both, ylabel="relative change of AUC (%)")
    plots.show(figure, "01_kar_protocol", "users_and_movies", both, caption)

# %% [markdown]
# ## Experiment 4: chosen on the test users
#
# The released code keeps the epoch and the settings with the best *test* AUC, at a learning rate that in effect stays
# constant. Here every setting of a grid is trained at a constant rate and scored after every epoch on validation
# and on test users; one rule then chooses by the former, one by the latter.

# %% tags=["nbval-ignore-output"]
if "selection" in STUDIES:
    grid = {
        f"{name}, lr {lr:g}, batch {batch}": kar.arm(
            sides, training={"lr": lr, "batch_size": batch}, **settings, **adaptor
        )
        for name, sides in {"base": {}, "KAR": both_texts}.items()
        for lr in size["constant_lr"]
        for batch in size["batch_sizes"]
    }
    n = size["constant_epochs"]
    constant = TrainConfig(max_epochs=n, patience=n, seed=SEED)
    tried = holdout_fit(samples, grid, test_users, config=constant, every_epoch=True, **split)
    run.table("epochs", tried.epochs.drop(columns="seconds"))
    rows, probability = [], {}
    for name in ("base", "KAR"):
        of_model = tried.epochs[tried.epochs["arm"].str.startswith(name)]
        for by in ("valid", "test"):
            row = kar_protocol.choose(of_model, by)
            probability[f"{name} by {by}"] = tried.by_epoch[row["arm"]][row["epoch"] - 1]
            rows.append({"model": name, "chosen by": by, "of": len(of_model)} | row.to_dict())
    chosen = pd.DataFrame(rows).drop(columns=["train_loss", "seconds"])
    run.table("chosen", chosen)
    display(chosen.round(4))

# %% tags=["nbval-ignore-output"]
if "selection" in STUDIES:
    if "history" in STUDIES:
        probability["base, falling rate"] = fitted.probability[f"base, {FIVE}"]
    by_drawn = draw_auc(label, probability, test_user, **boot)
    evidence["selection-level"] = by_drawn.gain("base by test", "base by valid")
    evidence["selection"] = by_drawn.interval(
        lambda m: 100 * (m["KAR by test"] / m["base by test"] - m["KAR by valid"] / m["base by valid"])
    )
    pairs = [
        ("test users instead of validation users", f"{name} by test", f"{name} by valid")
        for name in ("base", "KAR")
    ]
    pairs += [("KAR's gain", f"KAR by {by}", f"base by {by}") for by in ("valid", "test")]
    if "history" in STUDIES:
        pairs.append(("learning rate", "base, falling rate", "base by valid"))
        evidence["falling-lr"] = by_drawn.gain("base, falling rate", "base by valid")
    by_table = by_drawn.gains(pairs)
    run.table("selection", by_table.assign(backbone=BACKBONE, seed=SEED))
    caption = (
        f"The best of {len(grid) // 2} settings and {n} epochs, {BACKBONE}, {dataset.title}, {by_drawn.n} test users, 95 % intervals. The choice on "
        f"the test users changes KAR's gain by {evidence['selection'].value:+.2f} points."
    )
    figure = plots.forest(by_table, xlabel="relative change of AUC (%)")
    plots.show(figure, "01_kar_protocol", "selection", by_table, caption)

# %% [markdown]
# ## Experiment 5: statistics of the test batch
#
# Dice divides by a standard deviation. The DIN paper takes running averages at test time, the released code those of
# the test batch. Served user by user, a batch tells the model something about its users; mixed, it does not.

# %% tags=["nbval-ignore-output"]
if "batches" in STUDIES and BACKBONE == "DIN":
    kinds = {"base": kar.arm({}, **settings), "KAR": kar.arm(both_texts, **settings, **adaptor)}
    ways = kar_protocol.fit_three_ways(samples, kinds, masks, config, size["batch_sizes"][0], split["resume"])
    ways_drawn = draw_auc(label, ways, test_user, **boot)
    ways_table = ways_drawn.gains(
        (f"test batches {way}", f"{name}, {way}", f"{name}, running averages")
        for way in ("user by user", "mixed")
        for name in kinds
    )
    run.table("batches", ways_table.assign(seed=SEED))
    evidence["batch-statistics"] = ways_drawn.gain("base, user by user", "base, running averages")
    display(ways_table[["label", "value", "low", "high"]].round(3))

# %% [markdown]
# ## Experiment 6: summaries of users by a language model
#
# For MovieLens-1M another project published summaries of all users by gpt-4o-mini. They were written from ratings of a
# random fold, so all arms here train and test on ratings *outside* that fold. The summaries still know a user's later
# ratings, which the base does not; the fair rival is a base that sees the last 40 ratings of that fold as plain features.

# %% tags=["nbval-ignore-output"]
if "summaries" in STUDIES and on_ml1m:
    unread, shown = kar_protocol.summarised(task)
    outside = samples.select(unread)
    told = {"item": r_item, "user": kar_protocol.summary_vectors(task)}
    forty = kar_protocol.prompt_fields(task, shown)
    rivals = {}
    for length in (FIVE, LONG):
        at = settings | {"history_length": length}
        rivals[f"base, {length}"] = kar.arm({}, **at)
        rivals[f"same ratings, {length}"] = kar_protocol.prompt_arm(forty, **at)
        rivals[f"summaries, {length}"] = kar.arm({"user": told["user"]}, **at, **adaptor)
        rivals[f"item texts, {length}"] = kar.arm({"item": r_item}, **at, **adaptor)
        rivals[f"both texts, {length}"] = kar.arm(told, **at, **adaptor)
    for n in size["train_users"]:
        rivals[f"base, {FIVE}, {n} users"] = kar.arm({}, train_users=n, **settings)
        rivals[f"summaries, {FIVE}, {n} users"] = kar.arm(
            {"user": told["user"]}, train_users=n, **settings, **adaptor
        )
    rivals["permuted summaries"] = kar.arm({"user": permuted(told["user"], SEED)}, **settings, **adaptor)
    summed = holdout_fit(
        outside, rivals, test_users, config=replace(config, batch_size=config.batch_size // 4), **split
    )
    run.table("scores outside the fold", summed.scores())

# %% tags=["nbval-ignore-output"]
if "summaries" in STUDIES and on_ml1m:
    sum_drawn = draw_auc(summed.label, summed.probability, summed.user, **boot)
    evidence["summaries-help"] = sum_drawn.gain(f"summaries, {FIVE}", f"base, {FIVE}")
    evidence["summaries-over-plain"] = sum_drawn.gain(f"summaries, {FIVE}", f"same ratings, {FIVE}")
    pairs = [
        (f"backbone sees {length}", f"{arm}, {length}", f"base, {length}")
        for length in (FIVE, LONG)
        for arm in ("item texts", "summaries", "same ratings", "both texts")
    ]
    pairs += [
        ("training users", f"summaries, {FIVE}, {n} users", f"base, {FIVE}, {n} users")
        for n in size["train_users"]
    ]
    pairs += [
        ("control", f"summaries, {FIVE}", "permuted summaries"),
        ("control", f"summaries, {FIVE}", f"same ratings, {FIVE}"),
    ]
    sum_table = sum_drawn.gains(pairs)
    run.table("summaries", sum_table.assign(backbone=BACKBONE, seed=SEED, samples=len(summed.label)))
    caption = (
        f"Ratings outside the summaries' fold, n = {len(summed.label):,} samples of {sum_drawn.n} test users. With {FIVE} ratings, summaries change "
        f"AUC by {evidence['summaries-help'].value:+.2f} %, and by {evidence['summaries-over-plain'].value:+.2f} % over the same ratings as plain features."
    )
    figure = plots.forest(sum_table, xlabel="relative change of AUC (%)")
    plots.show(figure, "01_kar_protocol", "summaries", sum_table, caption)

# %% [markdown]
# ## Paper against ours
#
# On MovieLens-1M only, from the recorded runs; on the small data the table has the paper's side alone.

# %% tags=["nbval-ignore-output"]
recorded, ours = records.tables("01_kar_protocol", "paper"), {}
has_din = "history" in recorded and "DIN" in set(recorded["history"]["backbone"])
if has_din:
    of_din = recorded["history"].query("backbone == 'DIN' and seed == 0").set_index(["arm", "bin"])["value"]
    ours = {"din-base": of_din["base", "5"], "din-kar": of_din["KAR", "5"]}
if "contrasts" in recorded:
    for backbone, rows in recorded["contrasts"].query("claim == 'gain'").groupby("backbone"):
        gains = [stats.Interval(*row, level=0.95, n=604) for row in rows[["value", "low", "high"]].to_numpy()]
        ours[f"gain-{backbone.lower()}"] = stats.over_seeds(gains)
report.paper_vs_ours(card, ours, "MovieLens-1M, KAR's split, chosen on validation users")

# %% [markdown]
# ## Figure: the recorded runs on MovieLens-1M
#
# KAR's samples and test users, 835,189 and 604 of them. One line an arm, from the records in `figures/records/01_kar_protocol`.

# %% tags=["nbval-ignore-output"]
if has_din:
    ml1m_levels = recorded["history"].query("seed == 0 and arm != 'item texts'").copy()
    ml1m_levels["by"] = ml1m_levels["backbone"] + ": recent ratings that it sees"
    caption = (
        f"MovieLens-1M, n = {ml1m_levels['n'].iloc[0]:,} samples of 604 test users, 95 % intervals, one run a backbone. DIN with 5 ratings: base "
        f"{of_din['base', '5']:.4f}, KAR {of_din['KAR', '5']:.4f}, plain features {of_din['plain features', '5']:.4f}; base with 30: {of_din['base', '30']:.4f}."
    )
    figure = plots.gain_by_bin(ml1m_levels, ylabel="AUC", null=of_din["base", "5"])
    plots.show(figure, "01_kar_protocol", "ml1m_history", ml1m_levels, caption)
for name in ("contrasts", "selection", "batches", "summaries"):
    if name in recorded:
        shown = recorded[name]
        shown["change of AUC (%)"] = [
            f"{v:+.2f} [{lo:+.2f}, {hi:+.2f}]"
            for v, lo, hi in zip(shown["value"], shown["low"], shown["high"], strict=True)
        ]
        columns = [c for c in ("backbone", "seed", "group", "label", "change of AUC (%)") if c in shown]
        display(Markdown(f"**MovieLens-1M, recorded: {name}**"), shown[columns].set_index("label"))

# %% [markdown]
# ## Verdicts
#
# Of this run, and below them the recorded ones on MovieLens-1M. The status follows from the interval over users, pooled
# over recorded seeds: *matched* if it excludes the null on the claimed side and the value lies in the range, *partly* if only the
# former. *Fragile*: the interval ends close to the null.

# %% tags=["nbval-ignore-output"]
others = records.other_seeds(run)
for name, interval in evidence.items():
    run.metric(name, interval)
pooled = {
    name: stats.over_seeds([i, *(r.metrics[name] for r in others if name in r.metrics)])
    for name, i in evidence.items()
}
for claim in card.claims:
    if claim.id not in pooled:
        reason = (
            "needs texts about MovieLens-1M that may not be shipped"
            if "summaries" in claim.id
            else "its study was not run"
        )
        pooled[claim.id] = claims.NotTestable(reason)
verdicts = claims.check(card, pooled)
run.verdicts(verdicts)
print(f"{dataset.title}, pooled over {1 + len(others)} seeds")
display(report.verdict_table(verdicts))
for record in records.load("01_kar_protocol", "paper"):
    if record.run_id == "paper":
        print("MovieLens-1M, recorded")
        display(report.verdict_table(record.verdicts))

# %%
# what a repeated run, also on another machine, must give again
report.verdict_table(verdicts, numbers=False)

# %% [markdown]
# ## What differs, and why
#
# **The gain is there, and it is information.** On MovieLens-1M, with the authors' samples and test users, KAR raises the AUC of models
# that see five ratings by 0.9 % (DIN), 1.1 % (DCNv2) and 1.2 % (FiBiNET); published are 1.25 % for DIN and 1.49 % for FiBiNET. Yet
# nobody has published KAR's answers about users, and our user text ends where the language model's answer would begin. So the
# rated history in the prompt carries the gain. Given to the base as plain features, the same history gains twice as much, without a
# text (DIN .774, KAR .781, plain features .790), and on all three backbones it beats KAR by about one percent. A
# base that sees its last ten ratings (.785) passes KAR with five. With 30 ratings it reaches .796, the number published for KAR.
#
# **More history leaves less.** KAR's gain on DIN falls from 0.9 % with five ratings to 0.3 % with 10, 0.4 % with 30 and nothing with 60.
# Plain features beat KAR at 5, 10 and 30. The published base, .786, lies where ours sees about ten ratings.
#
# **User texts need thousands of users.** On top of item texts they cost 1.1 % of AUC with 300 training users, change nothing with 1,000 and
# gain 0.8 to 0.9 % with 3,000 and 4,900. That is why `01_kar` cannot see the gain on 600 users. Item texts add nothing
# here, neither ours nor CoLaKG's, nor for movies with few ratings: the embedding has learned what they say.
#
# **A language model's summaries do worse than what they summarise.** On ratings that they were not written from, summaries of users lower
# the AUC of a base with five ratings and change nothing with 30; the same 40 ratings as plain features raise it by 2.1 %. Permuted
# summaries do as well as the real ones. One caution: only the outside of their fold can train these arms, a fifth of the data.
#
# **Selection and learning rate are small sins on these data.** Of 15 tries the base's best on test and on validation are the same one;
# KAR's choice on the test users is worth 0.1 % to it, within its interval. A rate that falls to zero is no better than the best
# constant one. Statistics of the test batch are worth a sure 0.1 % if a batch holds few users, nothing if users are mixed; base
# and KAR win the same, so the gain stays. None of the three explains the published gain; what the base may see does.
#
# **What this does not show.** One seed on MovieLens-1M; a smaller encoder and adaptor than the paper's; no language model's answer in
# the user text there, so that a real answer might add to the history it repeats (on latest-small, where we have answers, plain
# features win, too). The grid of Experiment 4 has three settings a model; the paper's has more for KAR than for the base.
#
# **What we do otherwise than the paper:** one shared expert, a learning rate that falls to zero, an epoch chosen on validation
# users by LogLoss (in Experiment 4 by AUC, as the released code does on the test users), running averages in Dice. Learning rate
# and epochs were fixed in advance, those of `01_kar` with a larger batch.

# %% [markdown]
# ## Explore
#
# Choose a test user: the prompt history, and how the base and KAR rank the movies rated later. The widget needs a
# running kernel.

# %% tags=["nbval-ignore-output"]
from rec_utils.widgets import UserExplorer

run.finish()
if "history" in STUDIES:
    shown = {name: fitted.probability[f"{name}, {FIVE}"] for name in ("base", "KAR")}
    explorer = UserExplorer(dataset, replace(task, samples=samples.select(torch.tensor(masks[2]))), shown)
    display(explorer.show(int(explorer.user_ids[0])), explorer.widget())

# %% [markdown]
# ## Exercises
#
# 1. KAR's user text holds a profile (gender, age, occupation) besides 30 ratings. Which of the two carries the gain? Encode
#    each alone.
# 2. Give the plain features an attention of the candidate over the prompt history instead of a mean. Does KAR's text
#    still add anything?
# 3. Draw the validation users from the last tenth of the split instead of at random. Does the chosen epoch change?
# 4. Why does the base's learning curve at lr 1e-4 look better for the choice on the test users? Plot `epochs` of the record.
#
# ## Cite
#
# Xi et al., *Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models*, RecSys 2024,
# arXiv 2306.10933. Data: Harper and Konstan, *The MovieLens Datasets*, ACM TiiS 2015. How to cite this project:
# `CITATION.cff`.
