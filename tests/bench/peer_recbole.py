"""RecBole's DiffRec for the benchmark: `peer_recbole.py SPLIT.npz FOLDER`, one turn for every line on stdin.

Says in JSON what it is, then answers each line with the processor's seconds of one training epoch and of one
evaluation, and Recall@20. Runs in RecBole's own environment, so it needs RecBole and NumPy only.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

NAME = "split"
SETTINGS = {
    "model": "DiffRec",
    "dataset": NAME,
    # the split's three lists as RecBole's files
    "benchmark_filename": ["train", "valid", "test"],
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "load_col": {"inter": ["user_id", "item_id"]},
    # the released model for MovieLens-1M (clean)
    "noise_schedule": "linear-var",
    "noise_scale": 0.005,
    "noise_min": 0.005,
    "noise_max": 0.01,
    "steps": 40,
    "dims_dnn": [600, 200, 600],
    "embedding_size": 10,
    "reweight": True,
    "learning_rate": 1e-3,
    "train_batch_size": 400,
    "epochs": 1,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"},
    "metrics": ["Recall", "NDCG"],
    "topk": [10, 20],
    "valid_metric": "Recall@20",
    "seed": 0,
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
}


def write_split(path: str, folder: Path) -> None:
    """The three lists of the npz file as RecBole's benchmark files."""
    (folder / NAME).mkdir()
    with np.load(path) as lists:
        for part in ("train", "valid", "test"):
            np.savetxt(
                folder / NAME / f"{NAME}.{part}.inter",
                lists[f"{part}_list"],
                fmt="%d",
                delimiter="\t",
                header="user_id:token\titem_id:token",
                comments="",
            )


def main() -> None:
    """Build once, then take turns."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    split, folder = sys.argv[1:]
    write_split(split, Path(folder))
    torch.set_num_threads(1)
    sys.argv = sys.argv[:1]  # RecBole reads the command line, too
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    with np.load(split) as lists:
        n_items = 1 + max(int(lists[f"{part}_list"][:, 1].max()) for part in ("train", "valid", "test"))
    # a batch is counted in scores: 1024 users
    config = Config(config_dict=SETTINGS | {"data_path": folder, "eval_batch_size": 1024 * (n_items + 1)})
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = get_model(config["model"])(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    software = f"RecBole {version('recbole')}, torch {version('torch')}"
    print(json.dumps({"parameters": parameters, "software": software}), file=answers)
    for turn, _ in enumerate(sys.stdin):
        start = time.process_time()
        trainer._train_epoch(train, turn)
        trained = time.process_time()
        found = trainer.evaluate(test, load_best_model=False)
        done = time.process_time()
        answer = {"train": trained - start, "evaluate": done - trained, "recall20": float(found["recall@20"])}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
