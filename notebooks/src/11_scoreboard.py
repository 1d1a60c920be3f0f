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
# # Scoreboard: what holds, of all that was claimed?
#
# Every claim of every paper that this repository has tested, in one figure and one table. Nothing is computed here but counts: all numbers come from the records that the other
# notebooks have left in `figures/records`, so this notebook takes seconds.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke, laptop or paper: whose records are shown; smoke shows those of laptop

# %%
import pandas as pd
from IPython.display import Markdown, display

from rec_utils import formats, plots, records, scoreboard

pd.set_option("display.max_colwidth", None, "display.max_rows", None)
run = records.start_notebook("11_scoreboard", globals())
shown = "paper" if PROFILE == "paper" else "laptop"
stored = records.load(folders=[records.COMMITTED])
everything = scoreboard.claims(stored)
board = everything[everything["profile"] == shown]
own = board[~board["ours"]]
print(
    f"{len(own)} claims of {board['paper'].nunique()} papers, and {board['ours'].sum()} controls of our own"
)
print(", ".join(f"{n} {status}" for status, n in own["status"].value_counts().items()))

# %% [markdown]
# ## At a glance
#
# Each point is a claim. To the right of the grey band its number is sure to lie on the claimed side of the null, where the claim would be empty; to the left, on the other side; inside, it cannot be told
# from the null. A claim is *matched* if its number also lies in the range that fits the paper. A figure at the right edge, such as +2, counts claims that cannot be tested here.

# %% tags=["nbval-ignore-output"]
numbers = board[["paper", "claim", "ours", "status", "standing"]]
tested = own[own["standing"].notna()]
caption = (
    f"Where {len(own)} claims of papers (left) and {board['ours'].sum()} controls (right) stand, profile {shown}. Of {len(tested)} claims that were tested, {(tested['standing'] > 1).sum()} are surely on the claimed side of the null, "
    f"{(tested['standing'] < -1).sum()} surely on the other, {(tested['standing'].abs() <= 1).sum()} cannot be told from it; {(tested['status'] == 'matched').sum()} are matched."
)
plots.show(plots.standings(board), "11_scoreboard", "claims", numbers, caption)

# %% [markdown]
# ## By paper
#
# *Controls that hold* are claims of our own, most of which say that the gain comes from what the paper says it comes from.

# %%
scoreboard.summary(board).drop(columns="minutes").set_index("paper")

# %% [markdown]
# ## Every claim
#
# With its number, what it was measured on, the minutes of its notebook on the machine of the record, and the command that runs it again.

# %% tags=["nbval-ignore-output"]
columns = ["paper", "text", "status", "value", "null", "data", "minutes", "command"]
table = board.assign(
    minutes=(board["seconds"] / 60).round(1),
    text=board["text"].mask(board["ours"], "(ours) " + board["text"]),
)
Markdown(formats.markdown(table[columns]))

# %% [markdown]
# ## At the papers' sizes
#
# Claims that were also run on the papers' data, as far as these can be had and need no large language model.

# %% tags=["nbval-ignore-output"]
keys = ["paper", "notebook", "text"]
both = everything[~everything["ours"]].pivot(index=keys, columns="profile", values="value").dropna()
both.rename(columns={"laptop": "shipped data", "paper": "the paper's data"}).reset_index()

# %% [markdown]
# ## How much does a number move with the seed?
#
# Numbers of runs that differ in their seed alone. Where the standard deviation is as large as the mean, a single run, such as most published ones, says little.

# %% tags=["nbval-ignore-output"]
moved = scoreboard.spread(stored)
headline = moved[~moved["number"].str.contains("/")]
print(
    f"{len(moved)} numbers with two seeds or more; {(moved['sd'] > moved['mean'].abs()).sum()} of them move more than they are large"
)
Markdown(formats.markdown(headline.round(3)))

# %% [markdown]
# ## Explore
#
# Search the claims by words, paper and status. The widget needs a running kernel.

# %% tags=["nbval-ignore-output"]
from rec_utils.widgets import WorkExplorer

listed = board.assign(name=board["claim"], title=board["text"], link=board["notebook"] + ".ipynb")
explorer = WorkExplorer(listed[["name", "title", "value", "paper", "status", "link"]], ["paper", "status"])
display(explorer.show("history"), explorer.widget())

# %% [markdown]
# ## What to make of it
#
# *What holds* is mostly about cost (calls, tokens, latency, passes of a language model) and about mechanisms. *What is not shown* is mostly a gain in accuracy: on data that fit a laptop, intervals are as wide as the gains
# that papers report, and most points lie in the grey band. That is no refutation, and the claims that were run at the papers' sizes show where more data change the answer. *What is refuted here* are points to the left of the
# band; each notebook says why.
#
# *Controls* matter most. A text of a language model must beat the same facts without one, the texts of other users, and a simple model that nobody tuned down. Few do here.
#
# Claims were fixed before the runs, unless a notebook says otherwise. With so many of them, one in twenty would leave the band by chance.

# %%
run.finish()
print("To run a notebook again, take its command from the table above.")
