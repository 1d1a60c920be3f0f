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
# # T1. Click prediction: from logistic regression to DIN
#
# Will this user like this movie? In 45 minutes you build four models that answer, each from nothing, each to cure a weakness of the one before: logistic regression, the factorisation
# machine, a perceptron, and DIN, which reads a user's history with the candidate in mind. You score them on users that they have never seen, and say how sure the difference is. At the end
# your classes give the same numbers as those of `rec_utils`, which the paper notebooks use.
#
# You need Python and the basics of PyTorch (tensors, shapes, `backward`). There are seven exercises: write your answer, run the check below it, and it prints *right* or a hint.

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke: few users, to see that it runs; laptop: 610 users; paper: all their ratings
SEED: int = 0  # of the split, the first weights and the order of the samples
WIDTH: int = 16  # numbers in the vector of a movie

# %%
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from rec_utils import classroom, ctr, data, metrics, plots, records, splits, stats
from rec_utils.samples import check_leaks, ctr_task

run = records.start_notebook("T1_ctr_prediction", globals())
size = {"smoke": (40, 10, 1), "laptop": (None, 40, 20), "paper": (None, None, 20)}[PROFILE]
first_users, samples_per_user, EPOCHS = size
sheet = classroom.Sheet("T1")

# %% [markdown]
# ## 1. What does a prediction cost?
#
# Let $y = 1$ if the user clicked (here: liked the movie) and $0$ if not, and let $p$ be the predicted probability. The model had given what happened the probability $p$ if $y = 1$, and
# $1 - p$ if $y = 0$. Its *log loss* is the mean of minus the logarithm of that:
#
# $$\ell = -\frac1N \sum_{i=1}^{N} \bigl[\, y_i \log p_i + (1 - y_i) \log (1 - p_i) \,\bigr]$$
#
# By hand: two samples, $y = (1, 0)$, $p = (0.8, 0.5)$. The cost is $-\log 0.8 = 0.22$ and $-\log 0.5 = 0.69$, the mean 0.46. Before you look at the figure: what does it cost to say
# 0.99 and be wrong?
#
# **Exercise 1**, below the figure: write the log loss.

# %%
p = np.linspace(0.01, 0.99, 99)
costs = pd.concat(
    [
        pd.DataFrame({"p": p, "cost": -np.log(q), "what happened": y})
        for y, q in [("click", p), ("no click", 1 - p)]
    ]
)
figure = plots.lines(
    costs,
    "p",
    "cost",
    "what happened",
    xlabel="predicted probability p",
    ylabel="cost of one prediction (nats)",
)
cost = -np.log(0.01)
caption = f"What one prediction costs. To say 0.99 and be wrong costs {cost:.1f} nats, {cost / np.log(2):.1f} times as much as to say 0.5."
plots.show(figure, "T1_ctr_prediction", "log_loss", costs, caption)


# %%
def log_loss(click, probability):
    """Mean cost in nats (natural logarithm), a number, of click [N] (0. or 1.) and probability [N] (tensors)."""
    ### BEGIN SOLUTION
    of_what_happened = torch.where(click == 1, probability, 1 - probability)
    return -of_what_happened.log().mean()
    ### END SOLUTION


# %%
sheet.check(1, log_loss)

# %% [markdown]
# ## 2. Is the order right?
#
# A page shows the best movies first, so often only the order counts. Take every pair of one click and one non-click. The *AUC* is the share of pairs in which the click has the higher score;
# a tie earns half. A coin has 0.5, a perfect order 1.
#
# By hand: clicks have scores 0.8 and 0.3, non-clicks 0.5 and 0.1. Of the four pairs, (0.8, 0.5), (0.8, 0.1) and (0.3, 0.1) are right and (0.3, 0.5) is wrong: AUC = 0.75. What becomes
# of AUC and log loss if all probabilities are halved?
#
# AUC sees the order only; log loss also asks whether 0.8 means eight of ten. So we train with log loss, and report both.
#
# **Exercise 2.** Write the AUC by comparing all pairs. (In torch, `a[:, None] - b` has one row for each entry of `a` and one column for each entry of `b`.)

# %%
click, probability = np.array([1, 1, 0, 0]), np.array([0.8, 0.3, 0.5, 0.1])
for name, guess in {"as it is": probability, "halved": probability / 2}.items():
    print(f"{name:9} AUC {metrics.auc(click, guess):.2f}  log loss {metrics.logloss(click, guess):.2f}")


# %%
def auc(click, score):
    """Share of pairs in the right order, a number from 0 to 1; click [N] is 0. or 1., score [N] any numbers."""
    ### BEGIN SOLUTION
    difference = score[click == 1][:, None] - score[click == 0]
    return ((difference > 0).float() + 0.5 * (difference == 0)).mean()
    ### END SOLUTION


# %%
sheet.check(2, auc)

# %% [markdown]
# ## 3. Data, and two ways to cheat without noticing
#
# MovieLens latest-small: people rated movies with 0.5 to 5 stars. A *sample* is one rating; it is a click if it has 4 stars or more. What the model may know: the movie, its first genre, and the
# user's *history*, the 20 ratings before this one.
#
# 1. *The same user in training and test.* Then the model may learn the person by heart. We split by user: nobody is in two parts.
# 2. *A history that holds the answer.* If it includes the rating that is to be predicted, or a later one, every model looks brilliant.
#
# `check_leaks` stops the notebook if either has happened. The first half of a user's ratings is never predicted, so that every sample has a history.
#
# **Exercise 3**, below the data: cut a history out of one user's ratings.

# %%
dataset = data.load("ml-latest-small")
run.data(dataset)
limits = {"first_users": first_users, "max_samples_per_user": samples_per_user}
task = ctr_task(dataset, history_length=20, min_ratings=20, **limits)
samples = task.samples
folds = splits.user_folds(len(task.user_ids), 5, SEED)
masks = splits.fold_masks(samples.user_row.numpy(), folds, 0, 0.2, SEED)
check_leaks(task, samples, [masks])
train, valid, test = (samples.select(torch.from_numpy(np.flatnonzero(mask))) for mask in masks)
for name, part in {"training": train, "validation": valid, "test": test}.items():
    n_users, clicks = len(part.user_row.unique()), part.label.mean()
    print(f"{name}: {len(part):,} samples of {n_users} users, {clicks:.1%} clicks; no leak found")

batch = train.batch(torch.arange(3))
print(
    "item   ", tuple(batch.item.shape), "movie and genre of the candidate, as ids of one list; 0 is padding"
)
print("history", tuple(batch.history.shape), "movie, genre and stars of the ratings before, oldest first")
print("mask   ", tuple(batch.mask.shape), "True where the history is real")
titles = dataset.items.set_index("item_id")["title"].reindex(task.item_ids).to_list()
last, candidate = titles[batch.history[0, -1, 0] - 1], titles[batch.item_row[0]]
print(f"in the first sample, {last} was rated last; will the user like {candidate}?")


# %%
def history_before(rated, position, length):
    """The `length` movies just before `position`, oldest first, padded with 0 on the left: int64 [length].

    rated [T]: one user's movie ids in the order of time; rated[position] is the movie to predict.
    """
    ### BEGIN SOLUTION
    before = rated[max(0, position - length) : position]
    return F.pad(before, (length - len(before), 0))
    ### END SOLUTION


# %%
sheet.check(3, history_before)

# %% [markdown]
# ## 4. Logistic regression: everything has a weight
#
# Give each fact about a sample a number $x_f$ and a weight $w_f$, add up, and squeeze the sum into a probability:
#
# $$p = \sigma(w \cdot x), \qquad \sigma(z) = \frac{1}{1 + e^{-z}}, \qquad \frac{\partial \ell}{\partial w} = \frac1N \sum_i (p_i - y_i)\, x_i$$
#
# The gradient is worth a look: each sample pulls by how wrong it was, $p_i - y_i$, on the facts that it had. *Gradient descent* walks against it, a small step each time. Our facts for now: a 1 for every sample, the user's mean stars in
# the history (minus 3.5), and the genre, one 0 or 1 for each.
#
# **Exercise 4.** PyTorch finds the gradient for us. Take one step without its help.


# %%
def facts(part):
    """x [N, 2 + genres] of the samples of a part."""
    every = part.batch(torch.arange(len(part)))
    stars = torch.tensor(task.ratings["rating"].to_numpy())[
        (every.position[:, None] + torch.arange(-20, 0)).clamp(min=0)
    ]
    mean = (stars * every.mask).sum(1) / every.mask.sum(1).clamp(min=1)
    genre = F.one_hot(
        every.item[:, 1] - samples.item_fields[:, 1].min(), int(samples.item_fields[:, 1].unique().numel())
    )
    return torch.cat([torch.ones(len(part), 1), mean[:, None] - 3.5, genre], dim=1).float()


x, x_valid = facts(train), facts(valid)
weight = torch.zeros(x.shape[1], requires_grad=True)
for step in range(201):
    loss = F.binary_cross_entropy_with_logits(x @ weight, train.label)  # the sigmoid is inside
    loss.backward()
    with torch.no_grad():
        weight -= 1.0 * weight.grad
        weight.grad.zero_()
    if step in (0, 10, 200):
        z = (x_valid @ weight).detach()
        scores = F.binary_cross_entropy_with_logits(z, valid.label), metrics.auc(valid.label, z)
        print(
            f"step {step:3}: log loss {loss:.3f}; on validation users {scores[0]:.3f} and AUC {scores[1]:.2f}"
        )


# %%
def gradient_step(weight, x, click, rate):
    """The weights [F] after one step of gradient descent on the mean log loss of x [N, F] and click [N].

    Do not use `backward`; rate is the length of the step, a number.
    """
    ### BEGIN SOLUTION
    probability = torch.sigmoid(x @ weight)
    return weight - rate * x.T @ (probability - click) / len(x)
    ### END SOLUTION


# %%
sheet.check(4, gradient_step)

# %% [markdown]
# ## 5. Embeddings, and a machine for pairs
#
# With thousands of movies, $x$ would have thousands of zeros and a single 1. Multiplying that by a table is the same as reading one row of it, and reading is cheap: that is all an *embedding* is. With one number a row it is
# logistic regression on ids; with 16 numbers a row, movies get vectors that can be compared.
#
# Every model below sees a sample as five *fields*: movie, genre, and the mean of the movies, genres and stars of the history.
#
# Logistic regression adds. So a movie with a higher weight is ranked higher for *every* user: tastes cannot differ. What is missing is a term for a pair, such as "this movie, after a history like that". One weight for each pair would be far too many to
# learn, so the *factorisation machine* (Rendle, 2010) takes it from the vectors:
#
# $$z = b + \sum_f w_f + \sum_{i < j} \langle v_i, v_j \rangle$$
#
# The class below makes all M x M products. Rendle saw that one pass is enough. For plain numbers, $(a + b + c)^2 = a^2 + b^2 + c^2 + 2(ab + ac + bc)$: the sum of all pairs is half of *the square of the sum minus the sum of the squares*. The same holds
# in each of the k places of the vectors. Instead of $\frac{M(M-1)}{2} k$ multiplications, $(M + 1) k$ remain.
#
# **Exercise 5.** Write the fast one. **Exercise 6.** A factorisation machine has 9,000 movies and 20 genres, and vectors of width 16. How many numbers does it learn, all in all? Look at the class.

# %%
table = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
ids = torch.tensor([4, 0, 4])
print(
    "reading rows equals multiplying one-hot vectors:",
    torch.equal(table[ids], F.one_hot(ids, 6).float() @ table),
)


class Clicks(nn.Module):
    """What all models share: one table [ids, width], whose row 0 is padding, and the five fields of a sample."""

    def __init__(self, n_ids, width):
        super().__init__()
        self.embedding = nn.Embedding(n_ids, width, padding_idx=0)

    def fields(self, batch):
        """[B, 5, width]: movie, genre, and the history's mean movie, genre and stars."""
        n_real = batch.mask.sum(1).clamp(min=1)[:, None, None]
        history = self.embedding(batch.history).sum(1) / n_real  # rows of padding are zeros
        return torch.cat([self.embedding(batch.item), history], dim=1)


class LogisticRegression(Clicks):
    def __init__(self, n_ids):
        super().__init__(n_ids, width=1)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch):  # logits [B]
        return self.fields(batch).sum((1, 2)) + self.bias


# %%
class FactorisationMachine(Clicks):
    def __init__(self, n_ids, width):
        super().__init__(n_ids, width)
        self.id_weight = nn.Embedding(n_ids, 1, padding_idx=0)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch):  # logits [B]
        fields = self.fields(batch)
        products = fields @ fields.transpose(1, 2)  # [B, 5, 5]: of every field with every field
        pairs = products.triu(diagonal=1).sum((1, 2))  # above the diagonal: i < j
        return self.bias + self.id_weight(batch.item).sum((1, 2)) + pairs


for n_fields in (5, 50, 500):
    pairwise, one_pass = n_fields * (n_fields - 1) // 2 * WIDTH, (n_fields + 1) * WIDTH
    print(f"{n_fields:3} fields: {pairwise:9,} multiplications by pairs, {one_pass:6,} in one pass")


# %%
def pair_sum(fields):
    """Sum of <v_i, v_j> over all pairs i < j of fields [B, M, k], in one pass over the fields: [B]."""
    ### BEGIN SOLUTION
    square_of_sum = fields.sum(1).square()
    sum_of_squares = fields.square().sum(1)
    return 0.5 * (square_of_sum - sum_of_squares).sum(1)
    ### END SOLUTION


# %%
sheet.check(5, pair_sum)

# %%
### BEGIN SOLUTION
answer_6 = (9_000 + 20) * (16 + 1) + 1
### END SOLUTION

# %%
sheet.check(6, answer_6)


# %% [markdown]
# ## 6. A perceptron, and DIN
#
# *Perceptron.* Put the five vectors side by side and let layers find out what matters: linear, cut off below zero (ReLU), linear.
#
# *DIN.* All three models so far have averaged the history. Whoever rated fifteen thrillers and five cartoons is, for them, an average person. But for a cartoon the five should count. The deep interest network (Zhou et al., KDD 2018) gives every step $k$ of the
# history a weight that depends on the candidate $q$, and sums:
#
# $$\text{interest} = \sum_{l} a(q, k_l)\, k_l, \qquad a(q, k) = \text{perceptron}([\,q,\; k,\; q - k,\; q * k\,])$$
#
# There is no softmax: the weights need not sum to one, so a strong interest stays strong. Between its layers stands *Dice*, a soft switch: $p\,s + (1 - p)\,\alpha\, s$ with $p = \sigma(\text{standardised } s)$.
#
# **Exercise 7.** Most later models do take a softmax. Do so, and mind the padding: it gets no weight, the weights of the real steps sum to one, and a user without any history gets zeros. (`masked_fill` helps; what is the softmax of a row of $-\infty$?)


# %%
class Perceptron(Clicks):
    def __init__(self, n_ids, width):
        super().__init__(n_ids, width)
        self.layers = nn.Sequential(nn.Linear(5 * width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, batch):  # logits [B]
        return self.layers(self.fields(batch).flatten(1)).squeeze(1)


class Dice(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.standardise = nn.BatchNorm1d(width, eps=1e-8, affine=False)

    def forward(self, s):
        p = self.standardise(s).sigmoid()
        return p * s + (1 - p) * self.alpha * s


# %%
class DeepInterestNetwork(Clicks):
    def __init__(self, n_ids, width):
        super().__init__(n_ids, width)
        wide = 2 * width  # the candidate: movie and genre
        self.step = nn.Linear(3 * width, wide)  # a step: movie, genre and stars
        self.attention = nn.Sequential(
            nn.Linear(4 * wide, 32), Dice(32), nn.Linear(32, 16), Dice(16), nn.Linear(16, 1)
        )
        self.final = nn.Sequential(
            nn.Linear(2 * wide, 200), nn.ReLU(), nn.Linear(200, 80), nn.ReLU(), nn.Linear(80, 1)
        )

    def weights(self, query, keys, mask):
        """Weight [B, L] of each step of keys [B, L, wide] for query [B, wide]; 0 in padding."""
        query = query[:, None].expand_as(keys)
        pairs = torch.cat([query, keys, query - keys, query * keys], dim=2)
        weights = torch.zeros(mask.shape, dtype=keys.dtype)
        weights[mask] = self.attention(pairs[mask]).squeeze(1)  # real steps only
        return weights

    def forward(self, batch):  # logits [B]
        query = self.embedding(batch.item).flatten(1)
        keys = self.step(self.embedding(batch.history).flatten(2))
        interest = (self.weights(query, keys, batch.mask)[..., None] * keys).sum(1)
        return self.final(torch.cat([interest, query], dim=1)).squeeze(1)


# %%
def pool(scores, steps, mask):
    """Mean of steps [B, L, D], weighted by the softmax of scores [B, L] over the real steps (mask [B, L]): [B, D]."""
    ### BEGIN SOLUTION
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~mask, lowest).softmax(dim=1) * mask
    return (weights[..., None] * steps).sum(1)
    ### END SOLUTION


# %%
sheet.check(7, pool)

# %% [markdown]
# ## 7. An honest comparison
#
# One loop for all: Adam, batches of 256 samples, after each pass the log loss of the *validation* users; when that no longer falls, training stops and goes back to the pass before. The test users are not looked at until the end. To choose anything by them would be cheating number three.
#
# *Is the baseline trained as well as the rest?* The last row is logistic regression again, stopped after five passes although it still improved. Gains over such a baseline have been published: Ferrari Dacrema et al. (RecSys 2019) ran seven neural recommenders again, and six of them were often beaten by comparably simple methods.
#
# *Is a difference real?* The test has some hundred users. With others the numbers would be different, so we draw users anew, with replacement, a thousand times, and look at how far each *difference* between two models moves (both scored on the same users: a paired bootstrap). A 95 % interval that
# includes 0 says: these users cannot tell the two models apart. A second question is luck of the first weights: DIN with two more seeds.

# %%
from copy import deepcopy
from itertools import pairwise


def fit(model, seed, passes=EPOCHS):
    """Train a model in place; returns its probabilities for the test samples [N]."""
    generator = torch.Generator().manual_seed(seed)
    optimiser, best = torch.optim.Adam(model.parameters(), lr=3e-3), (np.inf, None)
    everyone = valid.batch(torch.arange(len(valid)))
    for _ in range(passes):
        model.train()
        for batch in train.batches(256, generator):
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(model(batch), batch.label).backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            loss = F.binary_cross_entropy_with_logits(model(everyone), everyone.label).item()
        if loss >= best[0]:
            break
        best = loss, deepcopy(model.state_dict())
    model.load_state_dict(best[1])
    with torch.no_grad():
        return model(test.batch(torch.arange(len(test)))).sigmoid().numpy()


# %% tags=["nbval-ignore-output"]
def make(kind, seed):
    """A model of a kind with small first weights."""
    torch.manual_seed(seed)
    model = kind(samples.n_ids) if kind is LogisticRegression else kind(samples.n_ids, WIDTH)
    with torch.no_grad():
        for table in [module for module in model.modules() if isinstance(module, nn.Embedding)]:
            table.weight.mul_(0.05)
    return model


KINDS = {"logistic regression": LogisticRegression, "factorisation machine": FactorisationMachine}
KINDS |= {"perceptron": Perceptron, "DIN": DeepInterestNetwork}
models = {name: make(kind, SEED) for name, kind in KINDS.items()}
guesses = {"the same for all": np.full(len(test), train.label.mean().item())}
guesses |= {name: fit(model, SEED) for name, model in models.items()}
guesses["logistic regression, 5 passes"] = fit(make(LogisticRegression, SEED), SEED, 5)
label, user = test.label.numpy(), test.user_row.numpy()
table = pd.DataFrame(
    {"AUC": metrics.auc(label, p), "log loss": metrics.logloss(label, p)} for p in guesses.values()
).set_axis(guesses, axis=0)
run.table("models", table.rename_axis("model"))
table.round(4)

# %% tags=["nbval-ignore-output"]
drawn = stats.draw_auc(label, guesses, user, seed=SEED)
pairs = [
    *pairwise(models),
    ("logistic regression", "DIN"),
    ("logistic regression, 5 passes", "factorisation machine"),
]
gains = [(f"{b} over {a}", drawn.interval(lambda m, a=a, b=b: m[b] - m[a])) for a, b in pairs]
forest = pd.DataFrame([{"label": name} | vars(gain) for name, gain in gains])
run.table("gains", forest)
sure = [name for name, gain in gains if gain.low > 0]
caption = f"Gain in AUC on {drawn.n} test users, with 95 % intervals over users. Surely above 0: {', '.join(sure) or 'none'}."
plots.show(
    plots.forest(forest, xlabel=f"gain in AUC, n = {drawn.n} test users"),
    "T1_ctr_prediction",
    "gains",
    forest,
    caption,
)
again = [metrics.auc(label, fit(make(DeepInterestNetwork, seed), seed)) for seed in (SEED + 1, SEED + 2)]
print("DIN with three seeds: AUC", ", ".join(f"{value:.3f}" for value in [drawn.value["DIN"], *again]))

# %%
knows_more = all(drawn.interval(lambda m, n=name: m[n] - 0.5).low > 0 for name in models)
print("Every model orders better than a coin, surely:", knows_more)

# %% tags=["nbval-ignore-output"]
din, one = models["DIN"], test.batch(torch.tensor([0]))
genres = dataset.items.set_index("item_id")["genres"].reindex(task.item_ids).str.split("|").str[0].to_list()
stars = task.ratings["rating"].to_numpy()[one.position.item() - 8 : one.position.item()]
history = (one.history[0, -8:, 0] - 1).tolist()
rated = [f"{titles[row][:32]}, {genres[row]}, {n:g} stars" for row, n in zip(history, stars, strict=True)]
new = [titles.index(title) for title in ("Aladdin (1992)", "Heat (1995)", "Alien (1979)") if title in titles]
seen = []
for row in [row for row in new if row not in history][:2]:
    keys = din.step(din.embedding(one.history).flatten(2))
    weights = din.weights(din.embedding(samples.item_fields[[row]]).flatten(1), keys, one.mask)[0, -8:]
    candidate = f"{titles[row]}\n{genres[row]}"
    seen.append(
        pd.DataFrame({"step": rated, "candidate": candidate, "weight": weights.detach(), "stars": stars})
    )
seen = pd.concat(seen)
figure = plots.heat_map(seen, "step", "candidate", "weight", xlabel="candidate", label="weight of the step")
weight = seen.groupby(seen["stars"] >= 4)["weight"].mean()
between = seen.groupby("step")["weight"].agg(lambda w: w.max() - w.min()).mean()
caption = (
    f"DIN's weights of one test user's last eight ratings, for two candidates. A step with 4 stars or more weighs {weight.get(True, 0):.2f} "
    f"on average, another {weight.get(False, 0):.2f}; from one candidate to the other a weight changes by {between:.2f} on average."
)
plots.show(figure, "T1_ctr_prediction", "attention", seen, caption)

# %% [markdown]
# ## 8. Proof: the same numbers as `rec_utils`
#
# The library computes the pairs in one pass, and DIN's first layer in a faster form that never builds $[q, k, q-k, q*k]$. If our understanding is right, equal weights must give equal logits, whatever the input. We copy the trained weights and compare.
#
# *What to read next:*
#
# - [01_kar_backbones](../01_kar_backbones.ipynb): nine models of this family, with and without knowledge from a language model.
# - [01_kar](../01_kar.ipynb): what such knowledge is, and whether it helps. [T2](T2_knowledge_as_features.ipynb) builds it in 60 lines.
# - Rendle, *Factorization machines*, ICDM 2010; Zhou et al., *Deep interest network*, KDD 2018, [1706.06978](https://arxiv.org/abs/1706.06978).

# %%
everyone = test.batch(torch.arange(len(test)))
NAMES = {"attention.0": "attention.first", "attention.1": "attention.rest.0", "attention.2": "attention.rest.2",
         "attention.3": "attention.rest.3", "attention.4": "attention.rest.5", "final.2": "final.3",
         "final.4": "final.6", "standardise.": ""}  # fmt: skip
for ours, name in {"factorisation machine": "FM", "DIN": "DIN"}.items():
    theirs, weights = ctr.build(name, samples, embed_dim=WIDTH).double().eval(), {}
    for key, value in models[ours].state_dict().items():
        old = [part for part in NAMES if part in key and name == "DIN"]
        for part in old:
            key = key.replace(part, NAMES[part])
        weights[key] = value
    weights = {key: value for key, value in weights.items() if "num_batches" not in key}
    missing = theirs.load_state_dict(weights, strict=False).missing_keys
    assert all(dict(theirs.named_parameters())[key].numel() == 0 for key in missing), missing
    with torch.no_grad():
        largest = (models[ours].double()(everyone) - theirs(everyone)).abs().max().item()
    assert largest < 1e-6, largest
    print(f"our {ours} equals rec_utils.ctr.{name}: {len(everyone.label):,} logits, no two differ by 1e-6")

# %%
sheet.score()
run.metric("points", sheet.points)
_ = run.finish()
