"""The same seed gives the same numbers: in two runs, two processes, and whatever surrounds them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from rec_utils import compare, data, settings
from rec_utils.settings import ROOT

#: A notebook that trains models, shows their metrics in a table and draws figures, in seconds.
NOTEBOOK = "T4_reranking"

PIPES = {"stdout": subprocess.PIPE, "text": True}

#: What must not matter. The second has no UTF-8, not even by Python's own remedies.
USUAL = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8", "WORKERS": "1", "REVERSED": ""}
OTHER = {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "WORKERS": "2", "REVERSED": "1"}
OTHER |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

#: Prints a hash of each kind of numbers; files are listed in another order where REVERSED is set.
NUMBERS = """
import hashlib, json, os
from pathlib import Path

if os.environ.get("REVERSED"):
    for name in ("glob", "rglob", "iterdir"):
        def listed(self, *args, plain=getattr(Path, name), **kw):
            return iter(list(plain(self, *args, **kw))[::-1])
        setattr(Path, name, listed)

import numpy as np
import torch
from rec_utils import cards, data, notebooks, plans, records, resume, scoreboard, settings, stats
from rec_utils.holdout import holdout_fit
from rec_utils.implicit import implicit_task
from rec_utils.knowledge import movies
from rec_utils.papers import kar
from rec_utils.rerank_lists import rerank_lists
from rec_utils.samples import ctr_task
from rec_utils.splits import user_folds
from rec_utils.training import TrainConfig

dataset = data.load("ml-latest-small")
task = ctr_task(dataset, history_length=5)
few = task.samples.select(torch.arange(0, len(task.samples), 40))
arms = {"LR": kar.arm({}, backbone="LR"), "DIN": kar.arm({}, backbone_settings={"dropout": 0.3})}
config = TrainConfig(max_epochs=2, batch_size=64, seed=3)
tested = user_folds(len(task.user_ids), 5, 3) == 1
fitted = holdout_fit(few, arms, tested, valid_share=0.2, config=config, workers=int(os.environ["WORKERS"]))
a, b = fitted.probability.values()
implicit = implicit_task(dataset)
lists = rerank_lists(task)
found = {
    "tables": [dataset.items.to_csv(), dataset.interactions.to_csv(), sorted(dataset.hashes.items())],
    "samples": [part.numpy().tobytes() for part in (few.item_row, few.label, few.user_row)],
    "lists": [part.numpy().tobytes() for part in (lists.item_row, lists.label)],
    "rows": [implicit.matrix("test").indices.tobytes()],
    "predictions": [a.tobytes(), b.tobytes()],
    "fits": [fitted.fits.drop(columns="seconds").to_csv()],
    "bootstrap": [stats.paired_bootstrap_auc(fitted.label, a, b, fitted.user, 50)],
    "knowledge": [[answer.text for answer in movies.item_answers().values()][:500]],
    "records": [scoreboard.spread(records.load(folders=[records.COMMITTED])).to_csv(), cards.card_ids()],
    "code": [plans.code_hash(), resume._code(), notebooks.twin_names(settings.NOTEBOOKS)],
}
print(json.dumps({name: hashlib.sha256(repr(parts).encode()).hexdigest() for name, parts in found.items()}))
"""


def test_a_notebook_run_twice_gives_the_same_record_and_figures(tmp_path):
    # both at a time, as two processes of one user
    runs = {}
    for name, seed in (("first", "0"), ("second", "4711")):
        place = {"REC_RUNS": str(tmp_path / name / "runs"), "REC_OUTPUT": str(tmp_path / name / "output")}
        runs[name] = subprocess.Popen(
            [sys.executable, "-m", "rec_utils.batch", "run", NOTEBOOK, "--profile", "smoke"],
            env=os.environ | place | {"PYTHONHASHSEED": seed},
            cwd=ROOT if name == "first" else tmp_path,
            **PIPES,
        )
    for name, run in runs.items():
        out, _ = run.communicate(timeout=300)
        assert run.returncode == 0, f"{name}: {out}"
    first, second = (tmp_path / name / "output" for name in runs)
    record = Path("records") / NOTEBOOK / "smoke.json"
    content = json.loads((first / record).read_text(encoding="utf-8"))
    assert content["tables"] and content["metrics"], "there is something to compare"
    assert compare.differences(first / record, second / record) == []
    figures = sorted(
        path.relative_to(first) for path in first.rglob("*.*") if path.suffix in (".png", ".csv")
    )
    assert figures and figures == sorted(
        path.relative_to(second) for path in second.rglob("*.*") if path.suffix in (".png", ".csv")
    )
    for figure in figures:
        assert (first / figure).read_bytes() == (second / figure).read_bytes(), figure


def test_nothing_that_surrounds_a_process_changes_a_number(tmp_path):
    """Hash seed, workers, working folder, locale, time zone and the order of files in a folder."""
    data.load("ml-latest-small")  # so that no process builds it
    here = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    here |= {"REC_DATA": str(settings.data_dir().resolve()), "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", NUMBERS], cwd=cwd, env=here | there, **PIPES)
        for cwd, there in ((ROOT, USUAL), (tmp_path, OTHER))
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    usual, other = map(json.loads, said)
    assert other == usual
    assert len(set(usual.values())) == len(usual)
