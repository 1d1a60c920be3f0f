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
# # T3 · Speculative decoding, from the plain loop to a draft tree
#
# A language model writes one token a pass. If somebody guesses the next tokens, one pass can check all guesses
# at once, and the text stays exactly the same. You will build this from nothing, in plain torch:
#
# 1. the plain loop, 2. the cache, 3. what a pass costs, 4. checking a draft, 5. drafts from old texts, 6. a tree of
# drafts in one pass, 7. a rule that accepts more. In the end your decoder must do the same passes as the
# library's.
#
# **Time**: 40 minutes of class, half a minute of computing. **You need**: Python, some torch, and what attention is.
# **Exercises**: 6, checked by `sheet.check`.

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke: one prompt only
N_NEW: int = 96  # tokens to write after each prompt
TREE: int = 16  # drafted tokens a pass

# %% [markdown]
# ## 1 One token a pass
#
# A language model reads tokens $x_1 \dots x_n$ and gives, after each of them, a score (*logit*) for every token of its
# vocabulary. *Greedy* decoding appends the best one and starts again:
#
# $$x_{n+1} = \arg\max_v \; \mathrm{logit}_v(x_1 \dots x_n)$$
#
# Our model is a Llama with half a million weights, trained on descriptions of films. It fits on a laptop and knows
# next to nothing: do not believe a word that it writes. For decoding it is as good as a large one. We load it, write it
# down in plain torch, check that it gives the library's logits, and let the plain loop write.

# %%
from collections import Counter, defaultdict

import torch
from transformers.utils import logging

from rec_utils import classroom, records
from rec_utils.papers import dare_lm

logging.disable_progress_bar()
NOTEBOOK = "T3_speculative_decoding"
run = records.start_notebook(NOTEBOOK, globals())
sheet = classroom.Sheet("T3")
model, tokenizer, _ = dare_lm.load()
model = model.double()  # with 64 bits no choice hangs on rounding, and every machine writes the same text
END = tokenizer.eos_token_id
texts = dare_lm.texts()
films = texts[texts["kind"] == "item"]


def draw(part, n):
    """Tokens of the prompts of n films; the model has learnt from the answers to those of part "old"."""
    chosen = films[films["part"] == part].sample(n, random_state=0)
    return tokenizer(chosen["prompt"].tolist())["input_ids"]


n_old, n_prompts = (3, 1) if PROFILE == "smoke" else (12, 4)
old_prompts, prompts = draw("old", n_old), draw("new", n_prompts)
prompt = prompts[0]
print(f"{model.num_parameters():,} weights, {len(tokenizer):,} tokens in the vocabulary")
print([tokenizer.decode(token) for token in prompt])

# %%
# The whole model, in this cell and the next. Two things in it matter today: `keys` and `values` hold what was computed of
# the tokens read so far, and `sees[i, j]` says whether token i may look at token j. Nowhere else do tokens meet.
weights = {name: weight.detach() for name, weight in model.named_parameters()}
LAYERS, HEADS, WIDTH = 3, 3, 32


def normed(x, weight):
    """Root-mean-square normalisation of [n, d]."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def rotated(x, position):
    """Queries or keys [..., n, 32] turned by angles that grow with the position [n] in the text."""
    a, b = x.chunk(2, dim=-1)
    angle = position[:, None] * 10_000.0 ** (-torch.arange(WIDTH // 2) / (WIDTH // 2))
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def attend(queries, keys, values, sees):
    """[n, heads * 32]: for each of n tokens the mean of the values that it sees, weighted by likeness."""
    score = (queries @ keys.T / WIDTH**0.5).masked_fill(~sees, -torch.inf)
    return (score.softmax(-1) @ values).transpose(0, 1).flatten(1)


# %%
class LanguageModel:
    """The bundled Llama, with keys and values of the tokens that it has read."""

    def forget(self):
        self.keys, self.values = ([torch.empty(0, WIDTH).double()] * LAYERS for _ in range(2))

    def keep(self, places):
        self.keys, self.values = ([x[places] for x in of] for of in (self.keys, self.values))

    @torch.no_grad()
    def read(self, tokens, position=None, sees=None):
        """Logits [n, V] after each of n more tokens; by default they stand, and see, one after the other."""
        past, n = len(self.keys[0]), len(tokens)
        position = past + torch.arange(n) if position is None else position
        sees = torch.ones(n, past + n).tril(past).bool() if sees is None else sees
        x = weights["model.embed_tokens.weight"][tokens]
        for layer in range(LAYERS):
            w = {name.split(".")[-2]: w for name, w in weights.items() if f"layers.{layer}." in name}
            h = normed(x, w["input_layernorm"])
            queries = rotated((h @ w["q_proj"].T).unflatten(1, (HEADS, WIDTH)).transpose(0, 1), position)
            self.keys[layer] = torch.cat([self.keys[layer], rotated(h @ w["k_proj"].T, position)])
            self.values[layer] = torch.cat([self.values[layer], h @ w["v_proj"].T])
            x = x + attend(queries, self.keys[layer], self.values[layer], sees) @ w["o_proj"].T
            h = normed(x, w["post_attention_layernorm"])
            gate = torch.nn.functional.silu(h @ w["gate_proj"].T)
            x = x + (gate * (h @ w["up_proj"].T)) @ w["down_proj"].T
        return normed(x, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T


# %%
lm = LanguageModel()
lm.forget()
with torch.no_grad():
    torch.testing.assert_close(lm.read(prompt), model(torch.tensor([prompt])).logits[0], atol=1e-5, rtol=1e-5)
print("Same logits as the transformers library's, up to 0.00001.")


def plain_loop(prompt, n_new):
    """Greedy decoding without anything: text, passes, tokens read."""
    text, passes, n_read = list(prompt), 0, 0
    while len(text) < len(prompt) + n_new and (passes == 0 or text[-1] != END):
        lm.forget()
        text.append(int(lm.read(text)[-1].argmax()))
        passes, n_read = passes + 1, n_read + len(text) - 1
    return text[len(prompt) :], passes, n_read


plain, passes, n_read = plain_loop(prompt, N_NEW)
print(f"{len(plain)} tokens in {passes} passes, {n_read:,} tokens read:")
print(tokenizer.decode(prompt + plain))

# %% [markdown]
# ## 2 The cache
#
# Each pass reads the whole text again. But a token's keys and values depend only on the tokens before it, so they
# never change. Keep them (this is the *KV cache*), and a pass need only read what is new: one token.


# %%
def cached_loop(prompt, n_new):
    """Greedy decoding with the cache: text, passes, tokens read."""
    lm.forget()
    text, unread, passes, n_read = list(prompt), list(prompt), 0, 0
    while len(text) < len(prompt) + n_new and (passes == 0 or text[-1] != END):
        best = int(lm.read(unread)[-1].argmax())
        passes, n_read = passes + 1, n_read + len(unread)
        unread = [best]
        text += unread
    return text[len(prompt) :], passes, n_read


greedy, passes, n_read = cached_loop(prompt, N_NEW)
assert greedy == plain
print(f"The same text in {passes} passes, {n_read:,} tokens read")


# %%
def positions_read(n_prompt, n_new, cached):
    """Exercise 1: how many tokens does the model read in all, to write n_new tokens after n_prompt?

    One token a pass, without (cached = False) or with the cache. Compare with the two counts above.
    """
    ### BEGIN SOLUTION
    if cached:
        return n_prompt + n_new - 1
    return n_new * n_prompt + n_new * (n_new - 1) // 2
    ### END SOLUTION


# %%
sheet.check(1, positions_read)

# %% [markdown]
# ## 3 What does a pass cost?
#
# The cache saved most of the reading, but not one pass. How much dearer is a pass over 8 tokens than one over a
# single token?
#
# A pass fetches every weight from memory once, however many tokens it reads. A large model spends most of its time on
# that: 7 billion weights of 2 bytes at 2 TB a second take 7 ms, and the multiplications for *one* token far less. So
# further tokens are nearly free, until computing takes as long as fetching. On a CPU that point comes early; in our
# small model the fixed cost of starting each operation plays the part of the memory.

# %% tags=["nbval-ignore-output"]
from statistics import median
from time import perf_counter

import pandas as pd

from rec_utils import plots


def milliseconds(work, *arguments, repeats=9):
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        work(*arguments)
        seconds.append(perf_counter() - start)
    return 1000 * median(seconds)


lm.forget()
lm.read([7] * 100)  # a text
matrix, counts = torch.rand(4096, 4096), [1, 2, 4, 8, 16, 32, 64]
ways = {
    "our model": lambda k: (lm.keep(range(100)), lm.read([7] * k)),
    "a matrix of 64 MB": lambda k: torch.rand(k, 4096) @ matrix,
}
rows = [(name, k, milliseconds(way, k)) for name, way in ways.items() for k in counts]
cost = pd.DataFrame(rows, columns=["what", "k", "ms"])
cost["price"] = cost["ms"] / cost.groupby("what")["ms"].transform("first")
caption = f"Time of a pass over k tokens, with that over one token as the unit; n = 9 passes each, medians. 8 tokens cost {cost['price'][3]:.1f} times as much as one in our model."
labels = {"xlabel": "tokens read in one pass, k", "ylabel": "time (passes over one token)"}
plots.show(plots.lines(cost, "k", "price", "what", logx=True, **labels), NOTEBOOK, "price", cost, caption)


# %%
def tokens_for_free(flops, bandwidth, weight_bytes):
    """Exercise 2: up to how many tokens k does fetching the weights take longer than computing with them?

    A weight has `weight_bytes` bytes and is fetched once a pass, at `bandwidth` bytes a second. Each token takes two
    operations with each weight, and the processor does `flops` of them a second. Return k as a float.
    """
    ### BEGIN SOLUTION
    return flops * weight_bytes / (2 * bandwidth)
    ### END SOLUTION


# %%
sheet.check(2, tokens_for_free)

# %% [markdown]
# ## 4 Check a draft
#
# Somebody hands us a *draft*: a guess $d_1 \dots d_k$ of the next tokens. Read all of them in one pass. Then we know
# the model's own choice $b_0$ after the text, $b_1$ after $d_1$, ..., $b_k$ after $d_k$. If $d_1 = b_0$, the choice
# $b_1$ was made after the right text and counts; if $d_2 = b_1$ as well, so does $b_2$, and so on. With $n$ accepted
# tokens the pass writes $b_0 \dots b_n$: one more than it accepted.
#
# | draft | the | cat | sat | down |
# | --- | --- | --- | --- | --- |
# | model's choice there | the | cat | **lay** | ... |
#
# *Question*: which tokens does this pass write? *the*, *cat* and *lay*: two accepted, and one more. Everything
# written is the model's own choice, so the text is that of greedy decoding whatever the draft was. A bad draft costs
# time, never words.


# %%
def cut(new, room):
    """The tokens up to the end token, and no more than there is room for."""
    return new[: new.index(END) + 1][:room] if END in new else new[:room]


def decode_chain(prompt, n_new, drafter):
    """Greedy decoding with drafts: text, passes. drafter(text, n_prompt, room) gives a list of tokens."""
    lm.forget()
    text, draft, passes, logits = list(prompt), [], 1, lm.read(prompt)[-1:]
    while True:
        best, n = logits.argmax(-1).tolist(), 0
        while n < len(draft) and draft[n] == best[n]:
            n += 1
        lm.keep(range(len(text) + n))  # the cache forgets what was refused
        text += cut(best[: n + 1], len(prompt) + n_new - len(text))
        room = len(prompt) + n_new - len(text) - 1  # after a draft comes one token more
        if text[-1] == END or room < 0:
            return text[len(prompt) :], passes
        draft = drafter(text, len(prompt), room)[: max(room, 0)]
        logits, passes = lm.read([text[-1], *draft]), passes + 1


drafters = {
    "the right text, 7 tokens": lambda text, n_prompt, room: greedy[len(text) - n_prompt :][:7],
    "right but for the third": lambda text, n_prompt, room: [*greedy[len(text) - n_prompt :][:2], 5, 6, 7],
    "nonsense": lambda text, n_prompt, room: [5, 6, 7, 8, 9, 10, 11],
}
for name, drafter in drafters.items():
    written, passes = decode_chain(prompt, N_NEW, drafter)
    print(f"{name:25} same text: {written == greedy}, {len(written)} tokens in {passes:2} passes")


# %%
def speed_up(a, k, price):
    """Exercise 3: how much faster is decoding with drafts of k tokens?

    Each drafted token is the right one with probability `a`, whatever happened before it. A pass without draft costs 1 and
    each drafted token adds `price`. Return the expected tokens a pass over the cost of a pass; it must also work for a = 1.
    """
    ### BEGIN SOLUTION
    # token i + 1 of a pass is written if the first i drafted ones were right
    return sum(a**i for i in range(k + 1)) / (1 + k * price)
    ### END SOLUTION


# %%
sheet.check(3, speed_up)

# %% [markdown]
# ## 5 Drafts from old texts
#
# Who guesses? A smaller model could. Cheaper: texts that were written before. In recommendation, thousands of answers
# speak about the same few things in the same words. Take the last two tokens, look up where they stood before, and
# draft what followed there.
#
# Old texts are the *pool*. A place in the prompt counts more than any number of places elsewhere: `OF_PROMPT`. What
# followed is kept as a *trie*: for every beginning $(t_1 \dots t_d)$ of a continuation, how often it was seen. A
# `Counter` of tuples is enough.
#
# The simplest draft from a trie is one branch: the most frequent token, then the most frequent one after that. The
# pool fills itself: the model answers some old prompts, each answer drafted from those before it.

# %%
BRANCH, MIN_NODES, OF_PROMPT = 12, 12, 9_999  # tokens of a continuation; beginnings that are enough; weight


class OldTexts:
    """Texts, and where each token and each pair of tokens stands in them."""

    def __init__(self):
        self.texts, self.places = [], defaultdict(list)

    def add(self, text):
        for n in (1, 2):
            for place in range(n, len(text)):
                self.places[tuple(text[place - n : place])].append((len(self.texts), place))
        self.texts.append(text)


def trie_after(text, n_prompt, pool, depth):
    """Beginnings of what followed the last two tokens, or only the last one where that is too little."""
    for n in (2, 1):
        seen, context = Counter(), text[-n:]
        found = [(pool.texts[t][i : i + depth], 1) for t, i in pool.places[tuple(context)]]
        own = (i for i in range(n, len(text)) if text[i - n : i] == context)
        found += [(text[i : i + depth], OF_PROMPT if i < n_prompt else 1) for i in own]
        for row, weight in found:
            for d in range(1, len(row) + 1):
                seen[tuple(row[:d])] += weight
        if len(seen) >= MIN_NODES:
            break
    return seen


# %%
def branch_drafter(pool, size):
    """A drafter that follows the most frequent continuation for up to `size` tokens."""

    def drafter(text, n_prompt, room):
        seen, branch = trie_after(text, n_prompt, pool, min(BRANCH, room)), ()
        while children := [path for path in seen if path and path[:-1] == branch]:
            branch = min(children, key=lambda path: (-seen[path], path))
        return list(branch[:size])

    return drafter


pool = OldTexts()
for old_prompt in old_prompts:
    written, passes = decode_chain(old_prompt, N_NEW, branch_drafter(pool, 8))
    pool.add(written)
    print(f"text {len(pool.texts):2} of the pool: {len(written)} tokens in {passes} passes")


# %%
def lookup(text, n, k):
    """Exercise 4: prompt lookup, a draft without any pool.

    Find the latest place before the end of `text` (a list of tokens) where its last n tokens stood already, and return the up
    to k tokens that followed there, as a list; [] if there is no such place. lookup([1, 2, 3, 1, 2], 2, 2) is [3, 1].
    """
    ### BEGIN SOLUTION
    for place in range(len(text) - 1, n - 1, -1):
        if text[place - n : place] == text[-n:]:
            return text[place : place + k]
    return []
    ### END SOLUTION


# %%
sheet.check(4, lookup)

# %% [markdown]
# ## 6 A tree of drafts in one pass
#
# One branch bets on one continuation. A tree bets on several: the `TREE` heaviest nodes of the trie. Checking each
# branch in a pass of its own would eat up the gain. But the attention mask decides who sees whom. Put all nodes one
# behind the other, and let each see the text, its ancestors and itself, and nothing else:
#
# $$\mathrm{sees}[i, j] = 1 \iff \text{the path to node } j \text{ is a beginning of the path to node } i$$
#
# Its position is its depth, not its place in the row. Then each node gets the logits that it would have if its branch
# stood alone.
#
# The check walks down from the root: a node counts if its parent does and the model would have written it there. The
# longest path wins, the model's choice after it is added, and the cache keeps the rows of this path alone.


# %%
import matplotlib.pyplot as plt


def heaviest(seen, size):
    """The `size` most frequent paths; with a path always comes its parent."""
    return sorted(seen, key=lambda path: (-seen[path], len(path), path))[:size]


def tree_mask(past, tree):
    """[1 + n, past + 1 + n] for the last token of the text and n nodes."""
    paths = [(), *tree]
    return torch.tensor([[True] * past + [b == a[: len(b)] for b in paths] for a in paths])


begin = prompt + greedy[:40]
tree = sorted(heaviest(trie_after(begin, len(prompt), pool, BRANCH), TREE))
sees = tree_mask(0, tree)
names = [tokenizer.decode(token) for token in [begin[-1], *(path[-1] for path in tree)]]
for path in tree:
    print("    " * len(path) + repr(tokenizer.decode(path[-1])))
plots.style()
figure, axes = plt.subplots(figsize=(7, 4.2))
axes.imshow(sees, cmap="Blues", vmin=0, vmax=1.3)
axes.set_xticks(range(len(names)), names, rotation=90)
axes.set_yticks(range(len(names)), names)
axes.grid(visible=False)
axes.set(xlabel="... may look at this one", ylabel="this token ...")
caption = f"A tree of n = {len(tree)} nodes after the last token of a text, and its mask: in {int(sees.sum())} of {sees.numel()} pairs the row may look at the column."
plots.show(figure, NOTEBOOK, "mask", pd.DataFrame(sees.int().numpy()), caption)


# %%
def sees_from_parents(parent):
    """Exercise 5: the mask of a tree whose nodes know their parents only.

    `parent` is a list: the place of each node's parent, which stands before it, or -1 at the top. Return a boolean tensor [n, n]
    that is True at [i, j] if j is i or one of its ancestors.
    """
    ### BEGIN SOLUTION
    sees = torch.eye(len(parent), dtype=torch.bool)
    for i, above in enumerate(parent):
        if above >= 0:
            sees[i] |= sees[above]
    return sees
    ### END SOLUTION


# %%
sheet.check(5, sees_from_parents)


# %%
def strict(logits, token):
    """Accept what the model would have written."""
    return int(logits.argmax()) == token


def decode_tree(prompt, n_new, pool, size, accepts=strict):
    """Decoding with a tree of drafts: text, passes."""
    lm.forget()
    text, tree, passes, logits = list(prompt), [], 1, lm.read(prompt)[-1:]
    while True:
        row = {(): 0}  # accepted paths and their rows in the logits
        for i, path in enumerate(tree, 1):
            if path[:-1] in row and accepts(logits[row[path[:-1]]], path[-1]):
                row[path] = i
        longest = max(row, key=len)
        past = len(text) - 1
        beginnings = (longest[:d] for d in range(1, len(longest) + 1))
        lm.keep([*range(len(text)), *(past + row[path] for path in beginnings)])
        text += cut([*longest, int(logits[row[longest]].argmax())], len(prompt) + n_new - len(text))
        room = len(prompt) + n_new - len(text) - 1
        if text[-1] == END or room < 0:
            return text[len(prompt) :], passes
        past = len(text) - 1
        tree = heaviest(trie_after(text, len(prompt), pool, min(BRANCH, room)), size)
        position = torch.tensor([past + len(path) for path in [(), *tree]])
        logits = lm.read([text[-1], *(path[-1] for path in tree)], position, tree_mask(past, tree))
        passes += 1


# %%
greedy_texts = [cached_loop(one, N_NEW)[0] for one in prompts]
n_tokens = sum(map(len, greedy_texts))
ways = {
    "one branch": lambda one, size: decode_chain(one, N_NEW, branch_drafter(pool, size)),
    "tree": lambda one, size: decode_tree(one, N_NEW, pool, size),
}
rows = []
for name, way in ways.items():
    for size in (1, 4, 8, 16, 32):
        written, passes = zip(*(way(one, size) for one in prompts), strict=True)
        assert list(written) == greedy_texts
        rows.append({"draft": name, "size": size, "passes": sum(passes), "per_pass": n_tokens / sum(passes)})
counted = pd.DataFrame(rows)
run.table("passes", counted)
per_pass = counted.pivot(index="draft", columns="size", values="per_pass")
print(f"{n_tokens} tokens of {len(prompts)} texts, all exactly greedy. Tokens a pass:")
print(per_pass.round(2).to_string())
caption = (
    f"Tokens that a pass writes, n = {len(prompts)} texts of together {n_tokens} tokens, all equal to the greedy ones. With 16 drafted tokens "
    f"a tree writes {per_pass.loc['tree', 16]:.1f} tokens a pass, one branch {per_pass.loc['one branch', 16]:.1f}."
)
figure = plots.lines(
    counted, "size", "per_pass", "draft", xlabel="drafted tokens a pass", ylabel="written tokens a pass"
)
plots.show(figure, NOTEBOOK, "tokens_a_pass", counted, caption)

# %% [markdown]
# ## 7 Accept more?
#
# Where the model finds two words about as likely, does it matter which one is written? DARE's *relaxed* rule accepts
# a drafted token $x$ also if it is among the $k$ most probable ones *and* its own probability is above $p$. The text
# is then no longer that of greedy decoding: one other word, and all that follows may differ.
#
# *Questions* for the table below: does a rule that changes every text always save passes? And are the changed texts
# worse? The last column is the mean of $-\log$ of a token's probability, as the model itself sees it; less is more
# probable. Greedy decoding takes the best *token* each time, which need not give the best *text*.

# %%
from rec_utils.decoding import Relaxed

rules = {"strict": strict}
for k, p in ((2, 0.3), (2, 0.1), (5, 0.02)):
    rule = Relaxed(k, p).accepts
    rules[f"relaxed, k = {k}, p = {p}"] = lambda logits, token, rule=rule: bool(
        rule(logits[None], logits[None].argmax(-1), torch.tensor([0]), torch.tensor([token]))
    )
print(f"{'rule':25} passes  tokens a pass  greedy texts  nats a token")
for name, rule in rules.items():
    results = [decode_tree(one, N_NEW, pool, TREE, rule) for one in prompts]
    total, passes, nats = sum(len(text) for text, _ in results), sum(n for _, n in results), 0.0
    for one, (text, _) in zip(prompts, results, strict=True):
        lm.forget()
        scores = lm.read(one + text)[len(one) - 1 : -1].log_softmax(-1)
        nats -= float(scores[torch.arange(len(text)), text].sum())
    same = sum(text == right for (text, _), right in zip(results, greedy_texts, strict=True))
    print(f"{name:25} {passes:6} {total / passes:14.2f} {same:7} of {len(prompts)} {nats / total:13.2f}")


# %%
def accepts_relaxed(logits, token, k, p):
    """Exercise 6: the relaxed rule for one drafted token.

    `logits` [V] are the model's scores where the draft has `token`. Return True if it is the most probable token, or if it is among the k
    most probable ones and has a probability above p.
    """
    ### BEGIN SOLUTION
    rank = 1 + int((logits > logits[token]).sum())
    return rank == 1 or (rank <= k and float(logits.softmax(-1)[token]) > p)
    ### END SOLUTION


# %%
sheet.check(6, accepts_relaxed)

# %% [markdown]
# ## Is it the same as the library's?
#
# `rec_utils.decoding` does this for any decoder-only model of the transformers library: another trie (sorted rows), another
# cache, another walk. With the same prompts and pool both must write the same tokens *and* take the same number of passes, for
# every size of tree and for both rules. (The library looks at no more than 128 places in the pool, which changes nothing here.)

# %%
from rec_utils.decoding import Pool, Strict, TreeDecoder
from rec_utils.papers.dare_study import write

library_pool = Pool(len(tokenizer), branch=BRANCH)
library_pool.extend(pool.texts)
for name, rule in {"strict": Strict(), "relaxed, k = 2, p = 0.1": Relaxed(2, 0.1)}.items():
    same_tokens = same_passes = n_runs = 0
    for size in (4, TREE):
        for one in prompts:
            theirs = TreeDecoder(library_pool, tree_size=size, verification=rule)
            text, passes = decode_tree(one, N_NEW, pool, size, rules[name])
            same_tokens += write(model, one, N_NEW, custom_generate=theirs) == text
            same_passes += theirs.counts.passes == passes
            n_runs += 1
    assert same_tokens == same_passes == n_runs
    print(f"{name}: same tokens in {same_tokens} of {n_runs} runs, same number of passes in {same_passes}")

# %% [markdown]
# ## How far to believe these numbers, and where to go from here
#
# A small model repeats itself, so its text is easy to guess. Take texts that a *large* language model wrote, in the
# same tokens, and count the passes that strict checking would need if they were the greedy text (no model is needed
# for that). The pool is all old answers. And time: passes are only half of the story.
#
# - [06_dare](../06_dare.ipynb): the paper behind this, with pools for groups of users and films, a race against
#   other ways to decode, and the question whether a recommender notices the relaxed rule.
# - [T2_knowledge_as_features](T2_knowledge_as_features.ipynb): what such texts are written for.
# - [01_kar](../01_kar.ipynb) and [02_reki](../02_reki.ipynb): one answer per user and film, or one per group.

# %%
from rec_utils.papers.dare import steps_to_write

answers = films.groupby("part")["answer"]
ids = {part: tokenizer(answers.get_group(part).tolist())["input_ids"] for part in ("old", "new")}
real_pool = Pool(len(tokenizer))
real_pool.extend([*text, END] for text in ids["old"])
real = [[*text, END] for text in ids["new"][:20]]
real_passes = sum(steps_to_write(text, real_pool, TREE) for text in real)
of_ours = per_pass.loc["tree", 16]
of_real = sum(map(len, real)) / real_passes
print(f"our model's texts:   {of_ours:.2f} tokens a pass, pool of {len(pool.texts)} texts")
print(f"a large model's:     {of_real:.2f} tokens a pass, pool of {len(real_pool):,} texts")

# %% tags=["nbval-ignore-output"]
ways = {
    "plain loop": lambda one: plain_loop(one, N_NEW),
    "with the cache": lambda one: cached_loop(one, N_NEW),
    "one branch of 8": lambda one: decode_chain(one, N_NEW, branch_drafter(pool, 8)),
    f"tree of {TREE}": lambda one: decode_tree(one, N_NEW, pool, TREE),
}
times = pd.DataFrame(
    {"ms a token": {n: milliseconds(way, prompt, repeats=3) / len(greedy) for n, way in ways.items()}}
)
times["times the cached loop"] = times.loc["with the cache", "ms a token"] / times["ms a token"]
times.round(2)

# %%
written_to = run.finish()
sheet.score()
