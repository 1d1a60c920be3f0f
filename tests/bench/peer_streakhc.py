"""StreaKHC as its authors maintain it: `peer_streakhc.py VECTORS.npy TREE.tsv SEED`, and seconds on stdout.

With the settings of REKI's released trees: 3 points a partition, and the authors' 300 partitions.
"""

import sys
import time

import numpy as np
from ikpykit.stream import STREAMKHC

vectors, tree, seed = sys.argv[1:]
points = np.load(vectors)
start = time.perf_counter()
model = STREAMKHC(n_estimators=300, max_samples=3, max_leaf=len(points) + 1, random_state=int(seed)).fit(
    points
)
print(time.perf_counter() - start)
sys.setrecursionlimit(10 * len(points))  # it writes the tree by recursion
model.serialize_tree(tree)
