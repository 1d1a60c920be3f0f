"""The files that the authors of DiffRec and DiffuRec released, as tasks; none of them may be shipped.

`python -m data_prep build diffrec --from DIR` takes them from a folder. The same tasks are made from other
ratings by `implicit.implicit_task` and `sequences.sequence_task`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.implicit import ImplicitTask
from rec_utils.sequences import SequenceTask
from rec_utils.settings import check_choice

#: MovieLens-1M: likes alone, or with other ratings in train and validation.
SPLITS = ("clean", "noisy")
SEQUENCES = {"beauty": "amazon_beauty_sequences.json.gz", "toys": "toys_sequences.json.gz"}


def released_split(kind: str = "clean", files: Mapping[str, Path] | None = None) -> ImplicitTask:
    """DiffRec's split of MovieLens-1M, with the LightGCN vectors of its items.

    Raises:
        UserError: the files are not here (the message says how to get them), or are not such files.
    """
    name = f"ml-1m_{check_choice('split', kind, SPLITS)}.npz"
    path = (files or data.files("diffrec"))[name]
    try:
        with np.load(path) as content:
            parts = [content[f"{part}_list"].astype(np.int64) for part in ("train", "valid", "test")]
            vectors = content["item_emb"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} does not hold DiffRec's lists and item vectors: {error}") from None
    n_users = 1 + max(int(part[:, 0].max()) for part in parts)
    return ImplicitTask(f"ml-1m {kind}", n_users, len(vectors), *parts, item_vectors=vectors)


def released_sequences(name: str = "beauty", files: Mapping[str, Path] | None = None) -> SequenceTask:
    """DiffuRec's sequences of Amazon Beauty or Toys; test is the last item of each user.

    Raises:
        UserError: the files are not here (the message says how to get them), or are not such files.
    """
    path = (files or data.files("diffrec"))[SEQUENCES[check_choice("sequences", name, list(SEQUENCES))]]
    try:
        users = json.loads(gzip.decompress(path.read_bytes()))
        sequences = [np.array(items, dtype=np.int64) for items in users.values()]
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise UserError(f"{path} does not hold a sequence of items a user: {error}") from None
    return SequenceTask.of(name, sequences)
