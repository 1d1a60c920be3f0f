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
# # T2 · A language model's knowledge as features: a KAR in 60 lines
#
# A click model knows movies by number. A language model knows what they are about. KAR asks it once about every movie
# and every viewer, turns the answers into vectors, and feeds them to the click model. You will build this from
# nothing, in plain torch:
#
# 1. a question and its stored answer, 2. from text to vector, 3. experts that adapt the vector, 4. the click model with
# dense fields, 5. the controls that keep you honest, 6. what a text must not have seen, 7. serving. In the end your
# model must give the same numbers as the library's.
#
# **Time**: 45 minutes of class, half a minute of computing. **You need**: Python, some torch, and a click model such as
# those of [T1](T1_ctr_prediction.ipynb). **Exercises**: 6, checked by `sheet.check`.

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke: few users, one pass
SEED: int = 0  # of folds, weights, shuffling and dropout
EPOCHS: int = 5  # passes over the training samples, at most
LR: float = 1e-3  # learning rate of Adam
DROPOUT: float = 0.2  # in the experts and the click model

# %% [markdown]
# ## 1 Ask once, store the answer
#
# The data: MovieLens latest-small. A user's first ratings are the *prompt history*; the language model may read
# them, and they are never predicted. Of the later ones, the first 20 are samples: will this user give 4 stars or
# more?
#
# Each request is known by a hash of its exact words and settings. The answers were written once by a large
# language model and are shipped. Nothing is asked today: a request is looked up by its hash. *Question*: what
# happens if a single letter of the request is changed?

# %%
import numpy as np
import torch

from rec_utils import classroom, data, records
from rec_utils.samples import check_leaks, ctr_task

NOTEBOOK = "T2_knowledge_as_features"
run = records.start_notebook(NOTEBOOK, globals())
sheet = classroom.Sheet("T2")
small = PROFILE == "smoke"
dataset = data.load("ml-latest-small")
run.data(dataset)
task = ctr_task(
    dataset, history_length=5, min_ratings=10, max_samples_per_user=20, first_users=60 if small else None
)
samples = task.samples
print(
    f"{len(task.user_ids)} users, {len(task.item_ids):,} movies, {len(samples):,} samples, {samples.label.mean():.0%} likes"
)

# %%
from dataclasses import replace

from rec_utils.errors import UserError
from rec_utils.knowledge import llm, movies

[fact], [taste] = [
    llm.generate([a.request]) for a in (movies.item_answers()["0110912"], movies.user_answers()[1])
]
for answer in (fact, taste):
    print(
        f"\n{answer.request.key[:12]} {answer.request.purpose}: {answer.request.prompt[:90]!r} …\n{answer.text}"
    )
try:
    llm.generate([replace(fact.request, prompt=fact.request.prompt.replace("Pulp", "Pulq"))])
except UserError as error:
    print("\nOne letter changed:", str(error).split(" (looked")[0])


# %%
def prompt_rows(ratings, cap):
    """Exercise 1: what may the language model read?

    `ratings` is a table with columns user_id, item_id and timestamp, in any order. Of a user's n ratings return the first
    (n + 1) // 2 in time, but no more than `cap`: rows of the table, with all its columns, in any order.
    """
    ### BEGIN SOLUTION
    in_time = ratings.sort_values(["user_id", "timestamp"])
    of_user = in_time.groupby("user_id")
    n_first = np.minimum((of_user["item_id"].transform("size") + 1) // 2, cap)
    return in_time[of_user.cumcount() < n_first]
    ### END SOLUTION


# %%
sheet.check(1, prompt_rows)

# %% [markdown]
# ## 2 From text to vector
#
# A *sentence encoder* is a transformer that gives a vector $h_t$ for every token. The text's vector is their
# mean, scaled to length 1:
#
# $$r = \frac{\bar h}{\lVert \bar h \rVert}, \qquad \bar h = \frac{1}{T} \sum_{t=1}^{T} h_t$$
#
# Ours is all-MiniLM-L6-v2, with 384 numbers. It is never trained here. We encode one text by hand and compare it
# with the vector that is shipped (in half precision).

# %%
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from rec_utils.knowledge.encoder import minilm_folder
from rec_utils.knowledge.vectors import centred, encode, permuted

logging.disable_progress_bar()
tokenizer, encoder = (cls.from_pretrained(minilm_folder()) for cls in (AutoTokenizer, AutoModel))
with torch.no_grad():
    tokens = tokenizer(fact.text, return_tensors="pt")
    hidden = encoder(**tokens).last_hidden_state[0]
    by_hand = normalize(hidden.mean(0), dim=0)
shipped = torch.tensor(encode([fact.text])[0])
torch.testing.assert_close(by_hand, shipped, atol=5e-4, rtol=0)
print(
    f"{hidden.shape[0]} tokens, each {hidden.shape[1]} numbers; their mean is the shipped vector up to 0.0005"
)


# %%
def pooled(hidden, mask):
    """Exercise 2: vectors of several texts at once.

    `hidden` [B, T, d] are the token vectors of B texts, padded to T tokens; `mask` [B, T] is 1 where a token is real and 0 where
    it is padding. Return [B, d]: the mean over the real tokens of each text, scaled to length 1.
    """
    ### BEGIN SOLUTION
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return mean / mean.norm(dim=1, keepdim=True)
    ### END SOLUTION


# %%
sheet.check(2, pooled)

# %% [markdown]
# All texts speak about movies, so their vectors share a direction. What tells them apart is the rest: we subtract
# the mean of all vectors and scale to length 1 again. Look at the cosine of two movies before and after.
# *Question*: which of both makes it easier for a model to tell movies apart?

# %%
import matplotlib.pyplot as plt
import pandas as pd

from rec_utils import plots

films = dataset.items.set_index("item_id").loc[task.item_ids]
raw, has_text = movies.item_vectors(films, "facts")
r_item = centred(raw)  # zeros where there is no text
r_title = centred(movies.item_vectors(films, "title_genres")[0])
r_user = centred(movies.user_vectors(pd.Series(task.user_ids), "preferences")[0])
a, b = np.random.default_rng(SEED).choice(np.flatnonzero(has_text), (2, 2000))
cosines = pd.DataFrame({"raw": (raw[a] * raw[b]).sum(1), "centred": (r_item[a] * r_item[b]).sum(1)})[a != b]
plots.style()
figure, axes = plt.subplots(figsize=(7, 2.6))
bins = np.linspace(-0.4, 0.7, 56)
axes.hist(
    [cosines["raw"], cosines["centred"]], bins, histtype="stepfilled", alpha=0.6, label=["raw", "centred"]
)
axes.legend()
axes.set(xlabel="cosine of the texts of two movies", ylabel="pairs")
caption = f"Cosines of n = {len(cosines):,} random pairs of movies: mean {cosines['raw'].mean():.2f} raw, {abs(cosines['centred'].mean()):.2f} centred."
plots.show(figure, NOTEBOOK, "cosines", cosines, caption)
pulp = films.index.get_loc(films.index[films["imdb"] == "0110912"][0])
near = np.argsort(-(r_item @ r_item[pulp]))[1:6]
print("nearest to Pulp Fiction:", "; ".join(films["title"].iloc[near]))
print(
    f"{has_text.mean():.0%} of the movies have a text, and {has_text[samples.item_row].mean():.0%} of the samples"
)

# %% [markdown]
# ## 3 Experts that adapt the vector
#
# 384 numbers made for comparing sentences are too many, and not made for us. An *expert* $E_e$ is a small
# perceptron that maps $r$ to 32 numbers. A *gate* decides for each text how much to trust each expert:
#
# $$a = \sum_e g[e]\, E_e(r), \qquad g = \mathrm{softmax}(W r + b)$$
#
# *By hand*: two experts say $[4, 0]$ and $[0, 8]$, the gate's logits are $\ln 3$ and $0$. Then $g = [0.75, 0.25]$
# and $a = [3, 2]$.
#
# Texts about movies and about viewers are two *sides*. *Shared* experts see both, *dedicated* ones only their
# side, and each side has its own gate.


# %%
from itertools import pairwise

from torch import nn


def perceptron(*sizes):
    """From each size to the next: linear, ReLU, dropout. An expert is a perceptron from m over `hidden` to `out`."""
    parts = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*parts)


class Adaptor(nn.Module):
    def __init__(self, sides, m=384, shared=1, dedicated=1, hidden=128, out=32):
        super().__init__()
        experts = lambda n: nn.ModuleList(perceptron(m, hidden, out) for _ in range(n))  # noqa: E731
        self.shared = experts(shared)
        self.dedicated = nn.ModuleDict({side: experts(dedicated) for side in sides})
        self.gates = nn.ModuleDict({side: nn.Linear(m, shared + dedicated) for side in sides})

    def forward(self, side, r):
        says = torch.stack([expert(r) for expert in [*self.shared, *self.dedicated[side]]], dim=1)
        return (self.gates[side](r).softmax(-1)[..., None] * says).sum(1)


# %%
by_hand = torch.tensor([np.log(3), 0]).softmax(0) @ torch.tensor([[4.0, 0], [0, 8]]).double()
print("By hand:", by_hand.round(decimals=6).tolist())
three = Adaptor(["item", "user"])("item", torch.tensor(r_item[:3]))
print("An adaptor makes", tuple(three.shape), "numbers of the texts of 3 movies")


# %%
def n_weights(m, hidden, out, shared, dedicated, sides):
    """Exercise 3: how many weights has an adaptor?

    An expert is two linear layers with bias, from m to `hidden` and from there to `out`. There are `shared` experts in all, and for each
    of the `sides` sides `dedicated` more and a gate, a linear layer with bias from m to the number of experts that the side sees.
    """
    ### BEGIN SOLUTION
    expert = m * hidden + hidden + hidden * out + out
    gate = (m + 1) * (shared + dedicated)
    return (shared + sides * dedicated) * expert + sides * gate
    ### END SOLUTION


# %%
sheet.check(3, n_weights)

# %% [markdown]
# ## 4 The click model, with dense fields
#
# $$\hat y = \sigma\big(R(x, [a_u ; a_i])\big)$$
#
# $R$ is any click model; $x$ are its own fields. Ours looks up embeddings of the movie, its genre and the last
# five ratings (which it averages), and puts a perceptron on top. The adapted texts stand beside them as further
# numbers, and everything but the encoder is trained together. Without vectors it is the plain click model.


# %%
class KAR(nn.Module):
    def __init__(self, vectors, n_ids=samples.n_ids, width=200, **adaptor):
        super().__init__()
        self.vectors = {side: torch.tensor(table) for side, table in vectors.items()}  # never trained
        self.adaptor = Adaptor(list(vectors), **adaptor) if vectors else None
        self.embedding = nn.Embedding(n_ids, 32, padding_idx=0)
        n_fields = 2 + 3 + len(vectors)  # of the movie, of the mean rating, texts
        self.deep = nn.Sequential(*perceptron(32 * n_fields, width, 80), nn.Linear(80, 1))

    def forward(self, batch):
        rows = {side: batch.item_row if side == "item" else batch.user_row for side in self.vectors}
        return self.click(batch, [self.adaptor(side, self.vectors[side][rows[side]]) for side in rows])

    def click(self, batch, adapted):
        real = batch.mask[..., None, None]
        mean = (self.embedding(batch.history) * real).sum(1) / real.sum(1).clamp(min=1)
        fields = [self.embedding(batch.item).flatten(1), mean.flatten(1)]
        return self.deep(torch.cat([*fields, *adapted], dim=1)).squeeze(1)


logits = KAR({"item": r_item, "user": r_user})(samples.batch(torch.arange(4)))
print("Samples in, logits out:", tuple(logits.shape))

# %% [markdown]
# ## 5 Does it help, and is it the language model?
#
# Users are cut into two halves; each half is predicted by a model that never saw its users. A model keeps the
# pass that is best for a share of the *training* users. Before you look at a number, write down what else could
# explain it:
#
# | comparison | asks |
# | --- | --- |
# | *facts* over *base* | do the texts help? This is the number that a paper shows |
# | *more weights* over *base* | or is it just a larger model? A wider perceptron with as many weights |
# | *permuted facts* over *base* | or any vector that names the movie? The right texts at the wrong movies |
# | *facts* over *title, genres* | or what was known before asking? The request, without the answer |
# | *two rates* over *base* | is the base worth beating? Two averages and a logistic regression |


# %%
def dealt_out(vectors, seed):
    """Exercise 4: the right texts at the wrong movies.

    `vectors` is a numpy array [n, m], whose rows of zeros are movies without a text. Deal the other rows out among themselves by
    `np.random.default_rng(seed)` and return a new array. Why must the rows of zeros stay where they are?
    """
    ### BEGIN SOLUTION
    rows = np.flatnonzero(vectors.any(axis=1))
    dealt = vectors.copy()
    dealt[rows] = vectors[np.random.default_rng(seed).permutation(rows)]
    return dealt
    ### END SOLUTION


# %%
sheet.check(4, dealt_out)

# %%
from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

from rec_utils import splits

user = samples.user_row.numpy()
folds = splits.user_folds(len(task.user_ids), 2, SEED)
cuts = [splits.fold_masks(user, folds, fold, 0.15, SEED) for fold in (0, 1)]


def fit_predict(build, masks):
    """Probabilities of the test samples by the best pass of a new model."""
    torch.manual_seed(SEED)
    train, valid, test = (torch.from_numpy(np.flatnonzero(mask)) for mask in masks)
    model = build()
    optimizer, best = torch.optim.Adam(model.parameters(), lr=LR, fused=True), np.inf
    for _ in range(1 if small else EPOCHS):
        model.train()
        for rows in train[torch.randperm(len(train))].split(256):
            optimizer.zero_grad()
            loss_of(model(samples.batch(rows)), samples.label[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            loss = float(loss_of(model(samples.batch(valid)), samples.label[valid]))
            if loss < best:
                best, predicted = loss, model(samples.batch(test)).sigmoid()
    return predicted.numpy()


# %%
import inspect

methods = [f for part in (Adaptor, KAR) for f in vars(part).values() if inspect.isfunction(f)]
sources = [inspect.getsource(part).splitlines() for part in (perceptron, *methods, fit_predict)]
print(f"Experts, adaptor, click model and training: {2 + sum(map(len, sources))} lines")
builds = {
    "base": lambda: KAR({}),
    "more weights": lambda: KAR({}, width=700),
    "title, genres": lambda: KAR({"item": r_title}),
    "permuted facts": lambda: KAR({"item": permuted(r_item, SEED)}),
    "facts": lambda: KAR({"item": r_item}),
    "facts + reasoning": lambda: KAR({"item": r_item, "user": r_user}),
}
size = {name: sum(p.numel() for p in build().parameters()) for name, build in builds.items()}
assert size["more weights"] >= size["facts"] == size["permuted facts"] == size["title, genres"]
for train, valid, test in cuts:
    assert not set(user[test]) & set(user[train | valid]) and not set(user[valid]) & set(user[train])
print({name: f"{n:,}" for name, n in size.items()})
print("No user is on two sides of a cut.")

# %% tags=["nbval-ignore-output"]
from rec_utils import baselines, stats
from rec_utils.metrics import auc, logloss

label = samples.label.numpy()
probability = {"two rates": baselines.like_rates(task, folds)["item and user rate"]}
for name, build in builds.items():
    probability[name] = np.empty(len(label))
    for masks in cuts:
        probability[name][masks[2]] = fit_predict(build, masks)
scores = pd.DataFrame(
    {n: {"AUC": auc(label, p), "LogLoss": logloss(label, p)} for n, p in probability.items()}
).T
run.table("scores", scores.rename_axis("arm"))
scores.sort_values("AUC", ascending=False).round(4)

# %% tags=["nbval-ignore-output"]
drawn = stats.draw_auc(label, probability, user, n_boot=100 if small else 1000, seed=SEED)
pairs = [("knowledge", "facts", "base"), ("knowledge", "facts + reasoning", "base")]
pairs += [
    ("controls", name, "base") for name in ("more weights", "permuted facts", "title, genres", "two rates")
]
pairs += [("controls", "facts", "title, genres"), ("controls", "facts", "permuted facts")]
table = drawn.gains(pairs)
table["sure"] = (table["low"] > 0) | (table["high"] < 0)
sure = table.loc[table["sure"], "label"].tolist()
caption = (
    f"Relative change of AUC, n = {len(label):,} samples of {drawn.n} users, 95 % intervals over users. "
    f"Without zero: {'; '.join(sure) or 'none'}."
)
plots.show(plots.forest(table, xlabel="relative change of AUC (%)"), NOTEBOOK, "gains", table, caption)

# %% [markdown]
# *Questions.* Which sentence may you write: "texts help", "the language model helps", or "we cannot tell with so
# few users"? What would you need to tell? Mind two traps. Only *facts* over *title, genres* speaks about the
# language model: both arms have the same weights and cover the same movies, and differ in what was asked. And
# where *permuted facts* fall below the base, *facts* over *permuted facts* shows no more than that wrong texts do
# harm.
#
# ## 6 What must a text not have seen?
#
# A text about a viewer is written from ratings. If some of these come later than a sample, the text knows the
# future. How much would that give away? No training is needed to see it: score each sample by how much more the
# movie resembles what the user liked than what not, once by the prompt history, once by *all* the ratings of the
# user, the sample among them.
#
# A text about a *movie* can leak, too, and no split helps: the language model may have read reviews, and even
# these ratings, in its training. What it knows is then no "open-world knowledge" but a memory of the test. Only
# ratings newer than the model would show.

# %%
check_leaks(task, samples, cuts)
print("Our samples: none is seen by the text about its user, or by its own history")
has = has_text[samples.item_row]
for name, rows in {"the prompt history": None, "all ratings": task.ratings}.items():
    liked, other = (centred(task.prompt_mean(r_item, liked=side, rows=rows)) for side in (True, False))
    likeness = ((liked - other)[user] * r_item[samples.item_row]).sum(1)
    print(f"a text written from {name:18}: AUC {auc(label[has], likeness[has]):.2f}, {has.sum():,} samples")


# %%
def leaking_users(prompts, samples):
    """Exercise 5: whose text knows the future?

    Both tables have columns user_id and place, the place of a rating in the user's time. `prompts` are the ratings that the language model read,
    `samples` those that are to be predicted. Return the ids of the users with a rating in the prompt that is not earlier than all their samples.
    """
    ### BEGIN SOLUTION
    last = prompts.groupby("user_id")["place"].max()
    first = samples.groupby("user_id")["place"].min()
    both = last.index.intersection(first.index)
    return both[last[both] >= first[both]].tolist()
    ### END SOLUTION


# %%
sheet.check(5, leaking_users)

# %% [markdown]
# ## 7 Serving
#
# The texts do not change from one click to the next. So neither do the vectors nor, once training is over, what
# the adaptor makes of them: compute $a_i$ and $a_u$ once, keep two small tables, and look rows up. No language
# model, no encoder, no adaptor is needed online.

# %%
model = KAR({"item": r_item, "user": r_user}).eval()
batch = samples.batch(torch.arange(min(256, len(samples))))
with torch.no_grad():
    stored = {side: model.adaptor(side, table) for side, table in model.vectors.items()}
    served = model.click(batch, [stored["item"][batch.item_row], stored["user"][batch.user_row]])
    torch.testing.assert_close(served, model(batch))
for side, table in stored.items():
    print(f"{side}: {tuple(model.vectors[side].shape)} numbers before, {tuple(table.shape)} stored")
print("The served logits are those of the whole model.")


# %%
def n_requests(user, item):
    """Exercise 6: what does it cost to ask?

    `user` and `item` are integer arrays [N]: who was shown what. Return two numbers: the requests to a language model if it is asked about the user and about
    the movie each time, and if it is asked once about every user and every movie among them.
    """
    ### BEGIN SOLUTION
    return 2 * len(user), len(np.unique(user)) + len(np.unique(item))
    ### END SOLUTION


# %%
sheet.check(6, n_requests)

# %% [markdown]
# ## Is it the same as the library's?
#
# `rec_utils.papers.kar` computes all experts in one product, takes any of a dozen click models, and is what
# [01_kar](../01_kar.ipynb) uses. With the weights of ours, it must give the same numbers: first the adaptor, with
# two shared and three dedicated experts, then the whole model.

# %%
from rec_utils import ctr
from rec_utils.papers import kar

vectors = {"item": r_item, "user": r_user}
ours = KAR(vectors, shared=2, dedicated=3).eval()
theirs = kar.HybridExpertAdaptor(["item", "user"], 384, shared=2, dedicated=3)
with torch.no_grad():
    groups = [(ours.adaptor.shared, theirs.shared)]
    groups += [(ours.adaptor.dedicated[side], theirs.dedicated[side]) for side in vectors]
    for experts, stacked in groups:
        linear = [(expert[0], expert[3]) for expert in experts]
        stacked.hidden.weight.copy_(torch.cat([first.weight for first, _ in linear]))
        stacked.hidden.bias.copy_(torch.cat([first.bias for first, _ in linear]))
        stacked.weight.copy_(torch.stack([second.weight.T for _, second in linear]))
        stacked.bias.copy_(torch.cat([second.bias for _, second in linear]))
theirs.gates.load_state_dict(ours.adaptor.gates.state_dict())
backbone = ctr.build("DNN", samples, dense_dim=theirs.out_dim, seed=SEED)
backbone.embedding.load_state_dict(ours.embedding.state_dict())
backbone.deep.load_state_dict(ours.deep.state_dict())
whole = kar.KAR(backbone, theirs, ours.vectors).eval()
with torch.no_grad():
    for side, table in ours.vectors.items():
        torch.testing.assert_close(ours.adaptor(side, table), theirs.side(side, table), atol=1e-6, rtol=1e-5)
        print(f"adaptor, side {side}: the same {len(table):,} rows of 32 numbers, up to 0.000001")
    torch.testing.assert_close(ours(batch), whole(batch), atol=1e-5, rtol=1e-5)
print(f"whole model: the same {len(batch.label)} logits, up to 0.00001")

# %% [markdown]
# ## Where to go from here
#
# - [01_kar](../01_kar.ipynb): the paper's claims on all samples, with five folds, a second data set, and more controls. Its answer rests on more than these few samples.
# - [02_reki](../02_reki.ipynb): one text for a group, when a million movies are too many to ask about; [03_liber](../03_liber.ipynb): viewers with long histories.
# - [T3_speculative_decoding](T3_speculative_decoding.ipynb): how to write such texts faster.

# %%
written_to = run.finish()
sheet.score()
