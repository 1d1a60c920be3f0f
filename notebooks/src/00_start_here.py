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
# Large language models are said to make recommender systems better. This repository checks such claims: one
# notebook a paper, real ratings, real language-model texts, on a laptop, without GPU, API key or internet. A claim
# that does not hold is shown as failed, with the reason.
#
# | you are | begin here | then |
# | --- | --- | --- |
# | an *explorer*: what holds? | [11_scoreboard](11_scoreboard.ipynb): all claims in one figure | the notebook of the claim that surprises you |
# | a *batch user*: my settings, my data | a terminal: `python -m rec_utils.batch list`, then `run 01_kar -p SEED=1..4` | `--help` shows sweeps, resuming, papers' sizes |
# | a *teacher* or *student* | [T1](tutorials/T1_ctr_prediction.ipynb), click prediction from nothing, with exercises | T2 to T6; `make class` makes copies without answers |
#
# Below, this notebook checks your set-up, lists the papers, explains how to read a verdict and makes a short trial run.
# It takes about a minute on two cores.

# %% [markdown]
# ## Parameters

# %% tags=["parameters"]
PROFILE: str = "laptop"  # smoke leaves out the trial run at the end

# %% [markdown]
# ## Is everything here?
#
# Installed packages are compared with the pins in `environment.yml`, bundled files with their hashes. What is
# missing is named, with the command that puts it right.

# %%
from data_prep import catalog
from rec_utils import bootstrap, records

run = records.start_notebook("00_start_here", globals())
problems = bootstrap.check_environment()
print("\n".join(problems) or "Packages: all as pinned.")
files = catalog.check_bundled(catalog.load().values())
print(f"Bundled files: all {len(files)} are whole.")

# %% [markdown]
# ## The papers
#
# | | paper | idea |
# | --- | --- | --- |
# | [01](01_kar.ipynb) | KAR, [2306.10933](https://arxiv.org/abs/2306.10933) | a language model's knowledge as extra features |
# | [02](02_reki.ipynb) | REKI, [2408.10520](https://arxiv.org/abs/2408.10520) | the same knowledge, one call per group |
# | [03](03_liber.ipynb) | LIBER, [2411.14713](https://arxiv.org/abs/2411.14713) | lifelong behaviour in partitions |
# | [04](04_clickprompt.ipynb) | ClickPrompt, [2310.09234](https://arxiv.org/abs/2310.09234) | the click model prompts a masked language model |
# | [05](05_corella.ipynb) | CoReLLa, [2403.16378](https://arxiv.org/abs/2403.16378) | click model and language model share the samples |
# | [06](06_dare.ipynb) | DARE, [2408.05676](https://arxiv.org/abs/2408.05676) | knowledge generated faster by speculative decoding |
# | [07](07_relife.ipynb) | RELIFE, [2410.20778](https://arxiv.org/abs/2410.20778) | re-ranking with list-level feedback |
# | [08](08_memocrs.ipynb) | MemoCRS, [2407.04960](https://arxiv.org/abs/2407.04960) | memory for conversational recommendation |
# | [09](09_llm_survey.ipynb) | survey of language models, [2306.05817](https://arxiv.org/abs/2306.05817) | where and how they are used |
# | [10](10_diffusion_survey.ipynb) | survey of diffusion models, [2409.05033](https://arxiv.org/abs/2409.05033) | the survey as running code |

# %%
from rec_utils.plans import notebook_names
from rec_utils.settings import NOTEBOOKS

print("In this version:", ", ".join(name for name in notebook_names(NOTEBOOKS) if name != "00_start_here"))

# %% [markdown]
# ## How to read a verdict
#
# A claim names a *null*, where it would be empty, the side of the null on which it puts a number, and the *range*
# that would match the paper. The run gives the number with a 95 % interval over users. Four invented results of one
# real claim show what follows:

# %%
from rec_utils import claims, report
from rec_utils.stats import Interval

card = claims.load_card("kar")
gain = card.claim("gain")
print(
    f"{gain.text} Null {gain.null_value:g} {gain.unit}, range {gain.band[0]:g} to {gain.band[1]:g} {gain.unit}."
)
results = {
    "as large as published, and sure": Interval(1.2, 0.9, 1.5, 0.95, 600),
    "sure, but smaller": Interval(0.3, 0.1, 0.5, 0.95, 600),
    "too noisy to tell": Interval(0.8, -0.3, 1.9, 0.95, 600),
    "nobody could measure it": claims.NotTestable("it needs the users of that service"),
}
for name, result in results.items():
    verdict = claims.judge(gain, result)
    print(f"{name:32} {report.value(verdict):24} {verdict.status}")

# %% [markdown]
# ## A trial run
#
# The batch runner runs the KAR notebook in its smallest form, in a process of its own. The numbers mean nothing at
# this size; that they appear means that everything works. Every run ends in such a table.

# %% tags=["nbval-ignore-output"]
import os
import subprocess
import sys
import tempfile

if PROFILE != "smoke":
    command = [sys.executable, "-m", "rec_utils.batch", "run", "01_kar", "--profile", "smoke", "--report"]
    with tempfile.TemporaryDirectory() as folder:
        places = {"REC_OUTPUT": f"{folder}/figures", "REC_RUNS": f"{folder}/runs"}
        trial = subprocess.run(command, env=os.environ | places, capture_output=True, text=True)
    print(trial.stdout if trial.returncode == 0 else trial.stderr)

# %%
if PROFILE != "smoke":
    print(
        "The trial run worked." if trial.returncode == 0 else "The trial run failed: its error stands above."
    )
run.finish()
print("Go on with 01_kar.")
