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
# # Start here
#
# Large language models are said to make recommender systems better. This repository checks such claims:
# one notebook a paper, real ratings, real language-model texts, on a laptop, without GPU, API key or
# internet. A claim that does not hold is shown as failed, with the reason.
#
# This notebook checks your set-up, lists the papers, explains how to read a verdict, and runs one paper's
# notebook in its smallest form. **Cost:** about one minute on two cores.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke, laptop or paper; here it only decides whether the trial run is made

# %% [markdown]
# ## Is everything here?
#
# The check compares what is installed with the pins in `environment.yml`, and every bundled file with its
# hash. Anything missing is named, with the command that puts it right.

# %%
from data_prep.catalog import verify
from rec_utils import bootstrap
from rec_utils.settings import PROFILES, check_choice

check_choice("PROFILE", PROFILE, PROFILES)
problems = bootstrap.check_environment() + verify()
for problem in problems:
    print("-", problem)
print("All packages and bundled files are as they should be." if not problems else "Run: make setup")
