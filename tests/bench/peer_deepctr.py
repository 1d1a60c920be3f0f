"""Contender DeepCTR-Torch: its models with their own `fit` and `predict`.

It adds L2 terms over whole tables to the loss at every step; the other contenders have none, so they are
switched off here, which makes it faster. Histories are turned round, since its DIN wants padding last. Its
DIN attends in the space of the embeddings, without a layer before it, and averages the rating, which the
candidate lacks.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
from deepctr_torch.layers import DNN
from deepctr_torch.models import DCN, DIN, DeepFM
from deepctr_torch.models.basemodel import BaseModel
from torch import nn

from tests.bench import synthetic
from tests.bench.contender import Contender, serve

HIDDEN = list(synthetic.HIDDEN)


def make_model(name: str) -> BaseModel:
    """The library's model of that name, at the benchmark's sizes."""
    target = [SparseFeat(c, synthetic.VOCABULARY[c], embedding_dim=synthetic.DIM) for c in ("item", "genre")]
    histories = [
        VarLenSparseFeat(
            SparseFeat(
                column, synthetic.VOCABULARY[column], embedding_dim=synthetic.DIM, embedding_name=shared
            ),
            maxlen=synthetic.HISTORY,
            length_name="length",
        )
        for column, shared in (("hist_item", "item"), ("hist_genre", "genre"), ("hist_rating", "hist_rating"))
    ]
    fields = target + histories
    if name == "DIN":
        return DIN(
            fields,
            ["item", "genre"],
            dnn_hidden_units=HIDDEN,
            att_hidden_size=synthetic.ATTENTION,
            l2_reg_embedding=0,
        )
    options = {"dnn_hidden_units": HIDDEN, "l2_reg_linear": 0, "l2_reg_embedding": 0}
    if name == "DeepFM":
        return DeepFM(target, fields, **options)
    cross = {"cross_num": synthetic.CROSS_LAYERS, "cross_parameterization": "matrix", "l2_reg_cross": 0}
    model = DCN([], fields, **options, **cross)
    # the others' final part
    model.dnn_linear = nn.Sequential(
        DNN(model.dnn_linear.in_features, HIDDEN), nn.Linear(HIDDEN[-1], 1, bias=False)
    )
    return model


def inputs_of(data: synthetic.Ratings) -> dict[str, np.ndarray]:
    """Columns as the library wants them: latest step first, padding last, and the number of real steps."""
    columns = data.columns()
    del columns["label"]
    columns["length"] = (columns["hist_item"] > 0).sum(1)
    return {name: column[:, ::-1] if column.ndim == 2 else column for name, column in columns.items()}


def build(arguments: argparse.Namespace, data: synthetic.Ratings) -> Contender:
    """The model, and the way to train it for one epoch and to predict with it."""
    inputs, label = inputs_of(data), data.label
    model = make_model(arguments.model)
    model.compile(torch.optim.Adam(model.parameters(), lr=1e-3), "binary_crossentropy")

    def epoch() -> None:
        model.fit(inputs, label, batch_size=arguments.batch, verbose=0)

    def predict() -> np.ndarray:
        return model.predict(inputs, arguments.batch)[:, 0]

    parameters = sum(parameter.numel() for parameter in model.parameters())
    software = f"DeepCTR-Torch {version('deepctr-torch')}, torch {version('torch')}"
    return Contender(epoch, predict, parameters, software)


if __name__ == "__main__":
    serve(build)
