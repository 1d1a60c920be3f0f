"""How much do REKI's groups depend on the clusterer? Ward's and average linkage, and StreaKHC, the paper's.

All cluster the same vectors of MovieLens latest-small (films; users by what they liked), and their trees are
cut at the same T. Agreement with Ward's groups is the adjusted Rand index: 1 for the same, 0 for chance.

examples:
  python -m tests.bench.clustering                      two minutes
  python -m tests.bench.clustering --record clustering  and write figures/bench/clustering.json

StreaKHC lives in an environment of its own, and is skipped without it; its licence is CC BY-NC-ND:
  python -m venv .venv-bench
  .venv-bench/bin/pip install ikpykit==0.4.0
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from sklearn.metrics import adjusted_rand_score

from rec_utils import data, machine
from rec_utils.clustering import Tree, cut, from_linkage, ward_tree
from rec_utils.errors import run_cli
from rec_utils.files import write_atomic
from rec_utils.papers import reki
from rec_utils.samples import ctr_task
from rec_utils.settings import ROOT, output_dir

BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
PEER = Path(__file__).parent / "peer_streakhc.py"
SEEDS = (0, 0, 1)  # the first twice: is it deterministic?


def points() -> dict[tuple[str, int], np.ndarray]:
    """(what is clustered, T) -> vectors, as REKI's notebook clusters them."""
    small = data.load("ml-latest-small")
    task = ctr_task(small, history_length=5, min_ratings=10, max_samples_per_user=200)
    titles = reki.title_vectors(small, task)
    likes = reki.user_vectors(task, titles, liked=True)
    return {("films", 200): reki.principal(titles), ("users", 40): likes[likes.any(axis=1)]}


def trees(vectors: np.ndarray) -> Iterator[tuple[str, float, Tree]]:
    """(clusterer, seconds, tree) of each clusterer."""
    for name, make in {
        "Ward": ward_tree,
        "average linkage": lambda v: from_linkage(hierarchy.average(v)),
    }.items():
        start = time.perf_counter()
        tree = make(vectors)
        yield name, time.perf_counter() - start, tree
    if not BENCH_PYTHON.exists():
        print(f"StreaKHC is skipped: there is no {BENCH_PYTHON.relative_to(ROOT)}", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "vectors.npy", Path(folder) / "tree.tsv"
        np.save(file, vectors)
        for run, seed in enumerate(SEEDS):
            again = " again" if seed in SEEDS[:run] else ""
            command = [BENCH_PYTHON, PEER, file, out, str(seed)]
            seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            yield f"StreaKHC, seed {seed}{again}", float(seconds), read_tree(out)


def read_tree(path: Path) -> Tree:
    """A tree as StreaKHC writes it: node, parent, point or "None", points below."""
    nodes = pd.read_csv(path, sep="\t", header=None, names=["node", "parent", "point", "size"], dtype=str)
    place = pd.Series(nodes.index, index=nodes["node"])
    parent = nodes["parent"].map(place).fillna(-1).astype(int).to_numpy()
    points = pd.to_numeric(nodes["point"], errors="coerce").dropna()
    return Tree(parent, points.sort_values().index.to_numpy())


def measure() -> list[dict[str, Any]]:
    """One row for each clusterer and kind of points."""
    rows = []
    for (kind, below), vectors in points().items():
        for name, seconds, tree in trees(vectors):
            group = cut(tree, below)
            if name == "Ward":
                ours = group
            size = np.bincount(group)
            rows.append(
                {
                    "points": kind,
                    "below": below,
                    "clusterer": name,
                    "groups": len(size),
                    "of one point": int((size == 1).sum()),
                    "median size": float(np.median(size)),
                    "agreement with Ward": round(float(adjusted_rand_score(ours, group)), 3),
                    "seconds": round(seconds, 2),
                }
            )
            print(rows[-1])
    return rows


def main() -> None:
    """Compare, print and perhaps record."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.clustering",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--record", metavar="NAME", help="write figures/bench/NAME.json")
    record = parser.parse_args().record
    content = {"benchmark": "clustering", "results": measure(), "hardware": machine.hardware()}
    if record:
        write_atomic(output_dir() / "bench" / f"{record}.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_cli(main))
