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
# # T4. Re-ranking a list, and measuring it honestly
#
# A first ranker scores movies one by one. A *re-ranker* then looks at the whole list: ten comedies in a row, and nobody needs the tenth. In 45 minutes you write the two usual measures of an order, build a self-attention re-ranker (PRM) from nothing,
# and meet a log in which it wins by the usual measure and loses clicks. You find out why, and how to compare two rankers so that you may believe the result. At the end your class gives the same numbers as `rec_utils.rerank.PRM`.
#
# You need Python and the basics of PyTorch; [T1](T1_ctr_prediction.ipynb) helps. There are seven exercises: write your answer, run the check below it, and it prints *right* or a hint.

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke: few lists, to see that it runs; laptop: 10 lists a user; paper: 20
SEED: int = 0  # of the split, the first weights and the draws
WIDTH: int = 8  # numbers in the vector of a movie

# %%
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from rec_utils import classroom, data, metrics, plots, records, rerank, splits, stats
from rec_utils.click_world import World, click_world
from rec_utils.ctr_model import Inputs
from rec_utils.rerank_lists import ListBatch

run = records.start_notebook("T4_reranking", globals())
lists_per_user, EPOCHS = {"smoke": (2, 2), "laptop": (10, 12), "paper": (20, 12)}[PROFILE]
sheet = classroom.Sheet("T4")

# %% [markdown]
# ## 1. How good is an order?
#
# Two measures. Both look down the list, and a hit is worth more the higher it stands. With labels $y_r$ at place $r$:
#
# - *DCG@k* adds up gains, each divided by a discount; *NDCG@k* divides that by the DCG of the best possible order, so that it lies between 0 and 1:
# $$\text{DCG@}k = \sum_{r=1}^{k} \frac{2^{y_r} - 1}{\log_2(r + 1)}, \qquad \text{NDCG@}k = \frac{\text{DCG@}k}{\text{best DCG@}k}$$
# - *Average precision* (for labels 0 and 1) stops at each hit, asks which share of the places so far are hits, and averages these shares. MAP is its mean over lists.
#
# By hand: hits at places 1 and 3 of four. DCG = 1 + 1/2 = 1.5; the best order has 1 + 0.63 = 1.63; NDCG = 0.92. Average precision: (1/1 + 2/3) / 2 = 0.83. Which of the two suffers more if the first hit slips from place 1 to 2?
#
# **Exercise 1.** Write NDCG@k. **Exercise 2.** Write the average precision of the whole list.

# %%
orders = {"hits at 1 and 3": [1, 0, 1, 0], "hits at 2 and 3": [0, 1, 1, 0], "hits at 3 and 4": [0, 0, 1, 1]}
shown = np.array(list(orders.values()))
score = -np.arange(4) * np.ones(shown.shape)  # the order as it stands
values = zip(
    metrics.ndcg_at_k(shown, score, 4), metrics.map_at_k(shown, score, 4, divide_by="positives"), strict=True
)
for name, (gain, precision) in zip(orders, values, strict=True):
    print(f"{name}: NDCG@4 {gain:.2f}, average precision {precision:.2f}")


# %%
def ndcg(label, score, k):
    """NDCG@k, a number, of one list: label [n] (0., 1., 2. ...) and score [n], tensors. 0 if no label is above 0."""
    ### BEGIN SOLUTION
    discount = torch.arange(2, k + 2).log2()
    gain = 2 ** label[score.argsort(descending=True)][:k] - 1
    best = 2 ** label.sort(descending=True).values[:k] - 1
    ideal = (best / discount).sum()
    return (gain / discount).sum() / ideal if ideal > 0 else torch.tensor(0.0)
    ### END SOLUTION


# %%
sheet.check(1, ndcg)


# %%
def average_precision(label, score):
    """Average precision, a number, of one list with at least one hit: label [n] (0. or 1.), score [n], tensors."""
    ### BEGIN SOLUTION
    hit = label[score.argsort(descending=True)]
    precision = hit.cumsum(0) / torch.arange(1, len(hit) + 1)
    return (precision * hit).sum() / hit.sum()
    ### END SOLUTION


# %%
sheet.check(2, average_precision)

# %% [markdown]
# ## 2. A log whose truth is known
#
# Real logs tell what was clicked, not what would have been clicked in another order. So we take a world made for the purpose: real tastes (a factorisation of MovieLens ratings), and made-up showings and clicks. A user looks at place $r$ with probability $e_r$, and if so clicks with probability $a$, the *attraction*:
#
# $$P(\text{click at place } r) = e_r \cdot a$$
#
# The attraction of a movie is lower if better movies of the same genre stand in the list. It does not depend on the place. Users are split: nobody who trains is tested. Look at the figure: is a movie at place 1 better than one at place 10?
#
# **Exercise 3**, below the figure: estimate the attraction of one movie from its showings, if $e$ is known. (How many looks stand behind one click at a place where every second user looks?)

# %%
dataset = data.load("ml-latest-small")
run.data(dataset)
world = click_world(dataset, World(lists_per_user=lists_per_user))
log, n = world.log, world.log.length
items = torch.from_numpy(log.item_fields[log.item_row])  # [T, n, 2] movie and genre, as ids of one list
clicks = torch.from_numpy(log.clicked).float()  # [T, n] in the order shown
folds = splits.user_folds(len(log.user_ids), 5, SEED)
masks = splits.fold_masks(log.user_row, folds, 0, 0.2, SEED)
splits.check_user_split(log.user_row, masks)
train, valid, test = (torch.from_numpy(mask) for mask in masks)
for name, part in {"training": train, "validation": valid, "test": test}.items():
    print(
        f"{name}: {part.sum():,} lists of {n} movies, {clicks[part].mean():.0%} of them clicked; no user is in two parts"
    )
places = np.arange(1, n + 1)
rates = {"clicks": log.clicked.mean(0), "attraction (the truth)": world.attraction.mean(0)}
table = pd.concat(
    [pd.DataFrame({"place": places, "share": rate, "what": name}) for name, rate in rates.items()]
)
figure = plots.lines(
    table, "place", "share", "what", xlabel="place in the list", ylabel="share of the movies shown"
)
clicked, truth = ([rate[0], rate[-1]] for rate in rates.values())
caption = f"From place 1 to place {n} the click rate falls from {clicked[0]:.2f} to {clicked[1]:.2f}; the attraction of what stands there, {truth[0]:.2f} and {truth[1]:.2f}, hardly changes (n = {len(clicks):,} lists)."
plots.show(figure, "T4_reranking", "places", table, caption)


# %%
def attraction(clicked, place, examination):
    """Estimate of one movie's attraction, a number, that does not depend on where it was shown.

    clicked [T] (0. or 1.) and place [T] (from 0) of its T showings; examination [n] is e_r of each place.
    """
    ### BEGIN SOLUTION
    return (clicked / examination[place]).mean()
    ### END SOLUTION


# %%
sheet.check(3, attraction)

# %% [markdown]
# ## 3. What a list knows and an item does not
#
# A *point-wise* ranker gives each candidate a score of its own: two layers over the vectors of movie and genre. It cannot know that there are three more comedies. In a re-ranker, candidates look at each other by *self-attention*. Each has a query $q_j$ (what do I look for?), a key $k_j$ (what am I?) and a value $v_j$ (what do I tell?):
#
# $$\text{context}_j = \sum_{i} \text{softmax}_i\!\left(\frac{q_j \cdot k_i}{\sqrt d}\right) v_i$$
#
# PRM (Pei et al., RecSys 2019) adds a learned vector $p_j$ for the place at which candidate $j$ came in, $x_j = \text{embedding}_j + p_j$, and scores $[\text{context}_j ; x_j]$ by a perceptron.
#
# **Exercise 4.** Write attention for lists of different lengths, filled up with padding. **Exercise 5.** Attention is a sum over the list: without $p_j$, nothing in it knows who came first. Shuffle the candidates and the scores are shuffled alike; the model is *blind to the order*. Write a test for that.


# %%
def attend(query, key, value, real):
    """Attention of query, key, value [B, n, d]; real [B, n] is False for padding, which gets no weight: [B, n, d]."""
    ### BEGIN SOLUTION
    scores = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
    return scores.masked_fill(~real[:, None], -torch.inf).softmax(dim=2) @ value
    ### END SOLUTION


# %%
sheet.check(4, attend)


# %%
class PointWise(nn.Module):
    """Scores [B, n] of candidates [B, n, fields], each by itself."""

    def __init__(self, n_ids, fields):
        super().__init__()
        self.embedding = nn.Embedding(n_ids, WIDTH, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.final = self.perceptron(fields * WIDTH)

    @staticmethod
    def perceptron(width):
        return nn.Sequential(nn.Linear(width, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU(), nn.Linear(20, 1))

    def forward(self, items):
        return self.final(self.embedding(items).flatten(2)).squeeze(2)


# %%
class SelfAttention(nn.Module):
    """Each of two heads attends with its own half of the numbers: [B, n, d] -> [B, n, d]."""

    def __init__(self, d, heads=2):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))

    def forward(self, x):
        q, k, v = (
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(dim=3)  # [B, heads, n, n]
        return self.out((weights @ v).transpose(1, 2).flatten(2))


# %%
class ReRanker(PointWise):
    """PRM; with places=False it is blind to the order, much like SetRank (Pang et al., SIGIR 2020)."""

    def __init__(self, n_ids, fields, n, places=True):
        super().__init__(n_ids, fields)
        d = fields * WIDTH
        self.attention, self.final = SelfAttention(d), self.perceptron(2 * d)
        self.position = nn.Parameter(0.1 * torch.randn(n, d)) if places else None

    def forward(self, items):
        x = self.embedding(items).flatten(2)
        if self.position is not None:
            x = x + self.position
        return self.final(torch.cat([self.attention(x), x], dim=2)).squeeze(2)


# %%
def fit(model, seen, kept, seed=SEED, rate=3e-3):
    """Train a model in place on lists (items, target), keeping the pass with the lowest loss on other lists."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    best, best_pass, weights = np.inf, 0, None
    for number in range(EPOCHS):
        for index in torch.randperm(len(seen[0]), generator=generator).split(128):
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(model(seen[0][index]), seen[1][index]).backward()
            optimiser.step()
        with torch.no_grad():
            loss = F.binary_cross_entropy_with_logits(model(kept[0]), kept[1]).item()
        if loss < best:
            best, best_pass = loss, number
            weights = {key: value.clone() for key, value in model.state_dict().items()}
        elif number - best_pass == 2:  # two passes without a better one
            break
    model.load_state_dict(weights)


# %% [markdown]
# First a game with one rule, to see what each kind *can* learn: candidates have a genre and nothing else, and the user clicks those whose genre stands alone in the list. No candidate is good or bad by itself. Then the shuffle, which needs no training.


# %%
def deal(n_lists, seed):
    """Lists of six genres out of five, of which at least one stands alone; and where it does."""
    genre = torch.randint(1, 6, (n_lists, 6), generator=torch.Generator().manual_seed(seed))
    alone = (genre[:, :, None] == genre[:, None]).sum(2) == 1
    return genre[alone.any(1)][..., None], alone[alone.any(1)].float()


torch.manual_seed(SEED)
players = {"point-wise": PointWise(6, 1), "attention": ReRanker(6, 1, 6, places=False)}
unseen = deal(1000, 3)
for name, model in players.items():
    fit(model, deal(3000, 1), deal(500, 2), rate=1e-2)
    with torch.no_grad():
        found = metrics.ndcg_at_k(unseen[1], model(unseen[0]), 6).mean()
    print(f"{name}: learns the rule (NDCG@6 above 0.9): {found > 0.9}")
players["attention and places"] = ReRanker(6, 1, 6)
order = torch.randperm(6, generator=torch.Generator().manual_seed(SEED))
for name, model in players.items():
    with torch.no_grad():
        alike = torch.allclose(model(unseen[0])[:, order], model(unseen[0][:, order]), atol=1e-4)
    print(f"{name}: shuffled candidates get the same scores, shuffled: {alike}")


# %%
def is_blind(model, x):
    """True if permuting the candidates of x [B, n, d] permutes the scores model(x) [B, n] in the same way."""
    ### BEGIN SOLUTION
    orders = [torch.randperm(x.shape[1]) for _ in range(10)]
    return all(torch.allclose(model(x)[:, order], model(x[:, order]), atol=1e-5) for order in orders)
    ### END SOLUTION


# %%
sheet.check(5, is_blind)

# %% [markdown]
# ## 4. Three re-rankers, two measures
#
# Now the log. Every arm is trained on clicks, and the order that it gives to the lists of unseen users is measured twice:
#
# - *NDCG@5 of the logged clicks*, which is what one can compute from a log, and what most papers report;
# - *expected clicks among the first five, the truth*: $\sum_{r \le 5} e_r\, a$ of what the re-ranker puts there. Only a made-up world can tell.
#
# The last arm is PRM trained as in exercise 3: the target is $\text{click} / e_r$ in place of the click. Each arm is trained three times, with other first weights and another order of the lists, and its three results are averaged: one fit may be lucky. Before you look: which arm will win by which measure?

# %% tags=["nbval-ignore-output"]
corrected = clicks / torch.from_numpy(world.examination).float()
arms = {"point-wise": (lambda: PointWise(log.n_ids, 2), clicks)}
arms["attention, no places"] = (lambda: ReRanker(log.n_ids, 2, n, places=False)), clicks
arms["PRM"] = (lambda: ReRanker(log.n_ids, 2, n)), clicks
arms["PRM, corrected clicks"] = arms["PRM"][0], corrected
tested, attractions = log.clicked[masks[2]], world.attraction[masks[2]]
scores = {"order as shown": [np.tile(-places, (len(tested), 1))], "the truth": [attractions]}
scores["at random"] = [np.random.default_rng(SEED).random(tested.shape)]
for name, (make, target) in arms.items():
    scores[name] = []
    for seed in range(SEED, SEED + 3):
        torch.manual_seed(seed)
        model = make()
        fit(model, (items[train], target[train]), (items[valid], target[valid]), seed)
        with torch.no_grad():
            scores[name].append(model(items[test]).numpy())
logged, true = {}, {}  # of every list, the mean over the three fits
for name, fits in scores.items():
    logged[name] = np.mean([metrics.ndcg_at_k(tested, score, 5) for score in fits], axis=0)
    true[name] = np.mean(
        [metrics.expected_clicks_at_k(attractions, score, 5, world.examination) for score in fits], axis=0
    )
means = pd.DataFrame(logged).mean(), pd.DataFrame(true).mean()
table = pd.DataFrame(dict(zip(("NDCG@5 of logged clicks", "expected clicks@5"), means, strict=True)))
run.table("arms", table.rename_axis("arm"))
table.round(3)

# %% [markdown]
# ## 5. How sure is a difference?
#
# The test lists are a sample. The *paired bootstrap* draws as many lists as there are, with replacement, many times over, and takes the mean difference of the two arms on each draw, both on the same lists. Its 2.5 % and 97.5 % quantiles are a 95 % interval. *Paired* matters: some lists are hard for every arm, and that cancels.
#
# Draw *what*? Lists of one user resemble each other, so strictly the user is the unit. `rec_utils.stats` draws users.
#
# **Exercise 6**, below the figure: write the interval, given the draws.

# %% tags=["nbval-ignore-output"]
user, rows = log.user_row[masks[2]], []
for measure, of in {"NDCG@5 of logged clicks": logged, "expected clicks@5 (truth)": true}.items():
    drawn = stats.draw_mean(of, user, seed=SEED)
    for name in ("order as shown", "attention, no places", "PRM", "PRM, corrected clicks"):
        rows.append({"label": name, "group": measure} | vars(drawn.gain(name, "point-wise")))
gains = pd.DataFrame(rows)
run.table("gains", gains)
by_clicks, by_truth = (part.set_index("label") for _, part in gains.groupby("group", sort=False))
prm, corrected_prm = (
    [part.loc[arm, "value"] for part in (by_clicks, by_truth)] for arm in ("PRM", "PRM, corrected clicks")
)
caption = (
    f"Gain over the point-wise ranker, 95 % intervals over {drawn.n} test users. PRM: {prm[0]:+.1f} % by the logged clicks, {prm[1]:+.1f} % "
    f"in truth; trained on corrected clicks: {corrected_prm[0]:+.1f} % and {corrected_prm[1]:+.1f} %."
)
xlabel = f"gain over the point-wise ranker (%), n = {drawn.n} users"
plots.show(plots.forest(gains, xlabel=xlabel), "T4_reranking", "gains", gains, caption)
lists = stats.draw_mean(logged, np.arange(len(user)), seed=SEED).gain("PRM", "point-wise")
ends = by_clicks.loc["PRM", ["low", "high"]]
print(f"PRM by the logged clicks: drawn by user {ends['low']:+.1f} to {ends['high']:+.1f} %,", end=" ")
print(f"by list {lists.low:+.1f} to {lists.high:+.1f} %")

# %% [markdown]
# Whoever knows the place at which a candidate was shown can predict its click better, but not because the candidate is better: at the top more people look. PRM learns just that from $p_j$, leaves at the top what stood at the top, and the logged clicks, made in that very order, applaud. It is no flaw of attention: compare the same class trained on corrected clicks. And does seeing the whole list pay here? Rivals of one genre do take clicks from each other in this world; read off the figure how much of that attention without places has learnt from a few thousand lists. (The intervals hold the luck of the users, not all of that of the fits.)

# %%
for measure, of in {"logged clicks": logged, "truth": true}.items():
    gain = 100 * (of["order as shown"].mean() / of["at random"].mean() - 1)
    print(f"{measure}: the order as shown is {gain:+.0f} % better than a random one")
print(
    "By the logged clicks PRM is surely better than the point-wise ranker:", by_clicks.loc["PRM", "low"] > 0
)
print("By the clicks that its order would get it is surely worse:", by_truth.loc["PRM", "high"] < 0)
over = drawn.gain("PRM, corrected clicks", "PRM")
print("With corrected clicks it surely gets more of them than without:", over.low > 0)


# %%
def interval(a, b, draws):
    """95 % interval [2] (low, high) of the mean of b - a over lists, by the bootstrap.

    a, b [T]: a measure of two arms on the same T lists; draws [R, T]: the lists of each of R draws.
    """
    ### BEGIN SOLUTION
    means = (b - a)[draws].mean(dim=1)
    return means.quantile(torch.tensor([0.025, 0.975]))
    ### END SOLUTION


# %%
sheet.check(6, interval)

# %% [markdown]
# ## 6. Two more traps
#
# *A split that knows the future.* Real ratings now, and the simplest model: how often does this user like movies, how often is this movie liked (4 stars or more)? Split the ratings at random, and the model is tested on ratings between those that it has learnt from. Split them at a point in time, as life does, and it has to live with new users.
#
# *Choosing by the test.* Take thirty rankers that are equally good: the truth, blurred by thirty different noises. Choose the one that is best on a hundred test lists, and report its score there.
#
# **Exercise 7.** Write the split by time.

# %%
ratings = dataset.interactions
liked, time = (ratings["rating"] >= 4).to_numpy(), ratings["timestamp"].to_numpy()
at_random = np.random.default_rng(SEED).random(len(liked)) >= 0.8
later = splits.by_time(time, (0.7, 0.1, 0.2))[2]
for name, held in {"at random": at_random, "by time": later}.items():
    likes = pd.Series(liked[~held])
    score = 0
    for column in ("user_id", "item_id"):  # ten mean ratings added, against small counts
        count = likes.groupby(ratings[column].to_numpy()[~held]).agg(["sum", "count"])
        rate = (count["sum"] + 10 * likes.mean()) / (count["count"] + 10)
        score = score + ratings[column][held].map(rate).fillna(likes.mean()).to_numpy()
    known = ratings["user_id"][held].isin(ratings["user_id"][~held]).mean()
    print(
        f"split {name:9}: AUC {metrics.auc(liked[held], score):.2f}; {known:.0%} of the test ratings are of users seen in training"
    )

# %%
# thirty rankers: the users' true preferences, each time with other noise
rng = np.random.default_rng(SEED)
noisy = world.preference[masks[2]] + 0.7 * rng.normal(size=(30, *tested.shape))
values = np.array([metrics.ndcg_at_k(tested, score, 5) for score in noisy])  # [30, lists]
leads = []
for _ in range(200):  # choose on a hundred lists, then look at all others
    few = np.isin(np.arange(len(tested)), rng.choice(len(tested), min(100, len(tested) // 2), replace=False))
    best = values[:, few].mean(1).argmax()
    leads.append([values[best, part].mean() - values[:, part].mean() for part in (few, ~few)])
chosen, fresh = np.mean(leads, axis=0)
print(
    f"the best of thirty leads by {chosen:.3f} NDCG@5 on the lists that chose it, by {round(fresh, 3) + 0:.3f} on others"
)


# %%
def is_test(time, share):
    """Mask [N] of the test: all rows that are not earlier than the first of the latest `share` of the rows.

    time [N]: integers in any order, a numpy array. Rows of one time stay together.
    """
    ### BEGIN SOLUTION
    first = np.sort(time)[round((1 - share) * len(time))]
    return time >= first
    ### END SOLUTION


# %%
sheet.check(7, is_test)

# %% [markdown]
# ## 7. Proof: the same numbers as `rec_utils`
#
# `rec_utils.rerank.PRM` uses PyTorch's own `MultiheadAttention`, which keeps the matrices of queries, keys and values in one. We copy our trained weights into it and compare the scores of all test lists.
#
# *What to read next:*
#
# - [01_kar_rerank](../01_kar_rerank.ipynb): four re-rankers with and without knowledge from a language model.
# - [07_relife](../07_relife.ipynb): re-ranking that reads how users reacted to whole lists, on real logs and on the world of this tutorial.
# - Pei et al., *Personalized re-ranking for recommendation*, RecSys 2019, [1904.06813](https://arxiv.org/abs/1904.06813); Joachims et al., *Unbiased learning-to-rank with biased feedback*, WSDM 2017, [1608.04468](https://arxiv.org/abs/1608.04468).

# %%
torch.manual_seed(SEED)
ours = arms["PRM"][0]()
fit(ours, (items[train], clicks[train]), (items[valid], clicks[valid]))
theirs = rerank.PRM(
    Inputs(n_fields=2, n_step_fields=0, n_ids=log.n_ids, dense_dim=0, embed_dim=WIDTH), n, width=50
).eval()
weights = {
    key: value for key, value in ours.state_dict().items() if key.startswith(("embedding", "position"))
}
for kind in ("weight", "bias"):
    parts = [getattr(part, kind) for part in (ours.attention.query, ours.attention.key, ours.attention.value)]
    weights[f"attention.in_proj_{kind}"] = torch.cat(parts)
    weights[f"attention.out_proj.{kind}"] = getattr(ours.attention.out, kind)
    for here, there in ((0, 0), (2, 3), (4, 6)):  # theirs has a dropout after each layer
        weights[f"final.{there}.{kind}"] = getattr(ours.final[here], kind)
theirs.load_state_dict(weights)  # raises if a weight is missing or too many
batch = ListBatch(item=items[test], history=None, mask=None, user_row=None, item_row=None, label=clicks[test])
with torch.no_grad():
    largest = (ours.double()(items[test]) - theirs.double()(batch)).abs().max().item()
assert largest < 1e-9, largest
print(f"our PRM equals rec_utils.rerank.PRM: {test.sum() * n:,} scores, no two differ by 1e-9")

# %%
sheet.score()
run.metric("points", sheet.points)
_ = run.finish()
