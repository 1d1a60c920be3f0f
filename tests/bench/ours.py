"""Contenders of this project.

- "loop": `fit` and `predict`, what the project offers;
- "bare": the shortest loop over the same model and tensors, the limit of what a loop can reach;
- "plain": the bare loop over DIN with its attention as it is usually written;
- "kar": `fit` and `predict` of KAR with stored text vectors.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from rec_utils import ctr
from rec_utils.batches import CTRSamples
from rec_utils.layers import TargetAttention
from rec_utils.papers.kar import KAR, HybridExpertAdaptor
from rec_utils.training import TrainConfig, fit, predict
from tests.bench import synthetic
from tests.bench.contender import Contender, serve

TEXT_DIM = 384  # of MiniLM's vectors


class PlainAttention(TargetAttention):
    """The same attention with its first layer as it is usually written, on [q, k, q - k, q * k]."""

    def weights(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """As `TargetAttention.weights`."""
        query = query[:, None].expand_as(keys)
        hidden = self.first(torch.cat([query, keys, query - keys, query * keys], dim=2))
        real = mask.flatten().nonzero().squeeze(1)
        scores = self.rest(hidden.flatten(0, 1).index_select(0, real)).squeeze(1)
        return scores.new_zeros(mask.numel()).index_copy(0, real, scores).view_as(mask)


def samples_of(data: synthetic.Ratings) -> CTRSamples:
    """The same samples as tensors: ids of items, genres and levels stand one after another in one table."""
    items, genres = 1 + np.arange(synthetic.N_ITEMS), 1 + synthetic.N_ITEMS + data.genre
    levels = 1 + synthetic.N_ITEMS + synthetic.N_GENRES + data.level
    return CTRSamples(
        item_fields=torch.from_numpy(np.stack([items, genres], axis=1)),
        sequence=torch.from_numpy(data.item),
        rating_ids=torch.from_numpy(levels),
        first=torch.from_numpy(data.first[data.sample]),
        position=torch.from_numpy(data.sample),
        user_row=torch.from_numpy(data.user[data.sample]),
        label=torch.from_numpy(data.label).float(),
        history_length=synthetic.HISTORY,
        n_ids=1 + synthetic.N_ITEMS + synthetic.N_GENRES + synthetic.N_LEVELS,
    )


def model_of(kind: str, name: str, samples: CTRSamples) -> torch.nn.Module:
    """The model of a contender; all kinds of one model begin with the same weights."""
    if kind == "kar":
        rng = torch.Generator().manual_seed(0)
        vectors = {
            "user": torch.randn(synthetic.N_USERS, TEXT_DIM, generator=rng),
            "item": torch.randn(synthetic.N_ITEMS, TEXT_DIM, generator=rng),
        }
        adaptor = HybridExpertAdaptor(list(vectors), TEXT_DIM)
        backbone = ctr.build(name, samples, dense_dim=adaptor.out_dim, embed_dim=synthetic.DIM)
        return KAR(backbone, adaptor, vectors)
    model = ctr.build(name, samples, embed_dim=synthetic.DIM)
    if kind == "plain":
        model.attention.__class__ = PlainAttention
    return model


def build(arguments: argparse.Namespace, data: synthetic.Ratings) -> Contender:
    """The model, and the way to train it for one epoch and to predict with it."""
    samples = samples_of(data)
    model = model_of(arguments.kind, arguments.model, samples)
    if arguments.kind in ("bare", "plain"):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        shuffle = torch.Generator().manual_seed(0)

        def epoch() -> None:
            model.train()
            for index in torch.randperm(len(samples), generator=shuffle).split(arguments.batch):
                optimizer.zero_grad()
                batch = samples.batch(index)
                binary_cross_entropy_with_logits(model(batch), batch.label).backward()
                optimizer.step()

        @torch.no_grad()
        def probabilities() -> np.ndarray:
            model.eval()
            places = torch.arange(len(samples)).split(arguments.batch)
            return torch.cat([model(samples.batch(index)).sigmoid() for index in places]).numpy()
    else:
        config = TrainConfig(batch_size=arguments.batch, max_epochs=1)

        def epoch() -> None:
            fit(model, samples, None, config)

        def probabilities() -> np.ndarray:
            return predict(model, samples, arguments.batch)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Contender(epoch, probabilities, parameters, f"torch {version('torch')}")


if __name__ == "__main__":
    serve(build)
