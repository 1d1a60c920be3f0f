"""Contender torch-rechub: its models, its `DataGenerator` and its `CTRTrainer`, as its examples use them.

Its perceptrons have batch normalisation, its DeepFM's first order is a linear layer on the embeddings,
and its DIN attends to each history field on its own (the rating, which the candidate lacks, is averaged).
"""

from __future__ import annotations

import argparse
from importlib.metadata import version

import numpy as np
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.basic.layers import MLP
from torch_rechub.models.ranking import DIN, DCNv2, DeepFM
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator

from tests.bench import synthetic
from tests.bench.contender import Contender, serve


def make_model(name: str) -> torch.nn.Module:
    """The library's model of that name, at the benchmark's sizes."""
    pooling = "concat" if name == "DIN" else "mean"

    def history(column: str, shared_with: str | None, pooling: str = pooling) -> SequenceFeature:
        return SequenceFeature(
            column, synthetic.VOCABULARY[column], synthetic.DIM, pooling, shared_with, padding_idx=0
        )

    target = [SparseFeature(c, synthetic.VOCABULARY[c], synthetic.DIM) for c in ("item", "genre")]
    histories = [history("hist_item", "item"), history("hist_genre", "genre")]
    rating = [history("hist_rating", None, "mean")]
    perceptron = {"dims": list(synthetic.HIDDEN)}
    if name == "DIN":
        return DIN(rating, histories, target, perceptron, {"dims": list(synthetic.ATTENTION)})
    fields = target + histories + rating
    if name == "DeepFM":
        return DeepFM(fields, fields, perceptron)
    model = DCNv2(fields, synthetic.CROSS_LAYERS, perceptron, use_low_rank_mixture=False)
    model.linear = MLP(model.linear.fc.in_features, **perceptron)  # the others' final part
    return model


def build(arguments: argparse.Namespace, data: synthetic.Ratings) -> Contender:
    """The model, and the way to train it for one epoch and to predict with it."""
    columns = data.columns()
    label = columns.pop("label").astype(np.float32)
    # the library makes loaders of three parts; the test part is not shuffled
    train, _, test = DataGenerator(columns, label).generate_dataloader(
        columns, label, columns, label, batch_size=arguments.batch
    )
    model = make_model(arguments.model)
    trainer = CTRTrainer(model, optimizer_params={"lr": 1e-3})

    def predict() -> np.ndarray:
        return np.array(trainer.predict(model, test))

    parameters = sum(parameter.numel() for parameter in model.parameters())
    software = f"torch-rechub {version('torch-rechub')}, torch {version('torch')}"
    return Contender(lambda: trainer.train_one_epoch(train), predict, parameters, software)


if __name__ == "__main__":
    serve(build)
