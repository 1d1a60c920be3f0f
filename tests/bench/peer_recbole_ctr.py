"""Contender RecBole: its click models, its loader and its training loop.

Each history is a field of its own with a table of its own, since its models do not share tables. Its DCNV2
has batch normalisation; the loss has no L2 term on the cross layers' weights here, as in the other
contenders.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.layers import MLPLayers
from recbole.utils import get_model, get_trainer, init_seed
from torch import nn

from tests.bench import synthetic
from tests.bench.contender import Contender, serve

NAME = "samples"
COLUMNS = list(synthetic.VOCABULARY)
NAMES = {"DeepFM": "DeepFM", "DCNv2": "DCNV2"}
SETTINGS = {
    "dataset": NAME,
    # one list for training and prediction
    "benchmark_filename": ["all", "all", "all"],
    "USER_ID_FIELD": None,
    "ITEM_ID_FIELD": None,
    "LABEL_FIELD": "label",
    "load_col": {"inter": [*COLUMNS, "label"]},
    "train_neg_sample_args": None,
    "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": None, "mode": "labeled"},
    "metrics": ["LogLoss"],
    "valid_metric": "LogLoss",
    "embedding_size": synthetic.DIM,
    "mlp_hidden_size": list(synthetic.HIDDEN),
    "dropout_prob": 0.0,
    "mixed": False,
    "structure": "parallel",
    "cross_layer_num": synthetic.CROSS_LAYERS,
    "reg_weight": 0,
    "learning_rate": 1e-3,
    "epochs": 1,
    "seed": 0,
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
}


def write_samples(data: synthetic.Ratings, folder: Path) -> None:
    """The samples as RecBole's file: tab-separated, the ids of a history separated by spaces, no padding."""
    table = {}
    for name, column in data.columns().items():
        if column.ndim == 2:
            table[f"{name}:token_seq"] = [" ".join(str(i) for i in row if i) for row in column.tolist()]
        else:
            table[f"{name}:float" if name == "label" else f"{name}:token"] = column
    (folder / NAME).mkdir()
    pd.DataFrame(table).to_csv(folder / NAME / f"{NAME}.all.inter", sep="\t", index=False)


def build(arguments: argparse.Namespace, data: synthetic.Ratings) -> Contender:
    """The model, and the way to train it for one epoch and to predict with it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_samples(data, Path(folder))
        batch = {"train_batch_size": arguments.batch, "eval_batch_size": arguments.batch}
        places = {"data_path": folder, "checkpoint_dir": folder}
        config = Config(NAMES[arguments.model], config_dict=SETTINGS | batch | places)
        init_seed(config["seed"], True)
        dataset = create_dataset(config)
        train, _, test = data_preparation(config, dataset)
        model = get_model(config["model"])(config, train.dataset)
        if arguments.model == "DCNv2":  # the others' final part
            model.predict_layer = nn.Sequential(
                MLPLayers([model.predict_layer.in_features, *synthetic.HIDDEN]),
                nn.Linear(synthetic.HIDDEN[-1], 1),
            )
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)

    @torch.no_grad()
    def predict() -> np.ndarray:
        model.eval()
        return torch.cat([trainer._neg_sample_batch_eval(part)[1] for part in test]).numpy()

    parameters = sum(parameter.numel() for parameter in model.parameters())
    software = f"RecBole {version('recbole')}, torch {version('torch')}"
    return Contender(lambda: trainer._train_epoch(train, 0), predict, parameters, software)


if __name__ == "__main__":
    serve(build)
