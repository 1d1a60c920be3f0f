"""Contender FuxiCTR: its npz loader, its layers, its loops for training and prediction.

The package ships no ranking models, so they are put together here from its layers, with the structure
and sizes of this project's. Its loader runs in this process: by default it is a second one, which takes a
second core and more of the processor's time in all.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import OrderedDict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import (
    CrossNetV2,
    DIN_Attention,
    FactorizationMachine,
    FeatureEmbedding,
    FeatureEmbeddingDict,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel
from torch import nn

from tests.bench import synthetic
from tests.bench.contender import Contender, serve

N_COLUMNS = len(synthetic.VOCABULARY)
HIDDEN = list(synthetic.HIDDEN)


class Ranker(BaseModel):
    """A model of the library, without regularisation and checkpoints."""

    def __init__(self, features: FeatureMap, folder: str) -> None:
        super().__init__(features, model_root=folder, metrics=["logloss"], verbose=0)
        self.make()
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()
        self._max_gradient_norm = 10.0
        self._total_steps, self._stop_training, self._eval_steps = 0, False, 2**62  # no evaluation

    def forward(self, inputs: dict) -> dict:
        """Probabilities [B, 1], as the library's loop wants them."""
        return {"y_pred": self.output_activation(self.logits(self.get_inputs(inputs)))}


class DeepFM(Ranker):
    def make(self) -> None:
        self.embedding = FeatureEmbedding(self.feature_map, synthetic.DIM)
        self.fm = FactorizationMachine(self.feature_map)
        self.deep = MLP_Block(N_COLUMNS * synthetic.DIM, HIDDEN, output_dim=1)

    def logits(self, inputs: dict) -> torch.Tensor:
        fields = self.embedding(inputs)
        return self.fm(inputs, fields) + self.deep(fields.flatten(1))


class DCNv2(Ranker):
    def make(self) -> None:
        width = N_COLUMNS * synthetic.DIM
        self.embedding = FeatureEmbedding(self.feature_map, synthetic.DIM)
        self.cross = CrossNetV2(width, synthetic.CROSS_LAYERS)
        self.deep = MLP_Block(width, HIDDEN)
        self.final = MLP_Block(width + HIDDEN[-1], HIDDEN, output_dim=1)

    def logits(self, inputs: dict) -> torch.Tensor:
        values = self.embedding(inputs, flatten_emb=True)
        return self.final(torch.cat([self.deep(values), self.cross(values)], dim=1))


class DIN(Ranker):
    def make(self) -> None:
        width = 2 * synthetic.DIM
        self.embedding = FeatureEmbeddingDict(self.feature_map, synthetic.DIM)
        self.step = nn.Linear(width + synthetic.DIM, width)
        self.attention = DIN_Attention(width, list(synthetic.ATTENTION), "dice")
        self.final = MLP_Block(2 * width, HIDDEN, output_dim=1)

    def logits(self, inputs: dict) -> torch.Tensor:
        fields = self.embedding(inputs)
        item = torch.cat([fields["item"], fields["genre"]], dim=1)
        steps = torch.cat([fields["hist_item"], fields["hist_genre"], fields["hist_rating"]], dim=2)
        interest = self.attention(item, self.step(steps), inputs["hist_item"] > 0)
        return self.final(torch.cat([interest, item], dim=1))


def feature_map(model: str, folder: str) -> FeatureMap:
    """The columns as the library describes them."""
    features = OrderedDict()
    for column, size in synthetic.VOCABULARY.items():
        features[column] = {"type": "categorical", "source": "", "vocab_size": size, "padding_idx": 0}
        if column.startswith("hist_"):
            features[column] |= {"type": "sequence", "max_len": synthetic.HISTORY}
            if model != "DIN":
                features[column]["feature_encoder"] = "layers.MaskedAveragePooling()"
        if column in ("hist_item", "hist_genre"):
            features[column]["share_embedding"] = column.removeprefix("hist_")
    described = FeatureMap("synthetic", folder)
    described.features, described.labels, described.num_fields = features, ["label"], len(features)
    described.set_column_index()
    return described


def build(arguments: argparse.Namespace, data: synthetic.Ratings) -> Contender:
    """The model, and the way to train it for one epoch and to predict with it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "samples.npz")
        np.savez(path, **data.columns())
        features = feature_map(arguments.model, folder)
        options = {"batch_size": arguments.batch, "num_workers": 0}
        train, _ = RankDataLoader(features, "train", train_data=str(path), **options)
        test = RankDataLoader(features, "test", test_data=str(path), **options)
        model = {"DeepFM": DeepFM, "DCNv2": DCNv2, "DIN": DIN}[arguments.model](features, folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    software = f"fuxictr {version('fuxictr')}, torch {version('torch')}"
    return Contender(lambda: model.train_epoch(train), lambda: model.predict(test), parameters, software)


if __name__ == "__main__":
    serve(build)
