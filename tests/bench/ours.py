"""Contenders of this project: `fit` ("loop"), a bare loop over the same model ("bare"), KAR ("kar")."""

from __future__ import annotations

import argparse
from importlib.metadata import version

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from rec_utils import ctr
from rec_utils.batches import CTRSamples
from rec_utils.papers.kar import KAR, HybridExpertAdaptor
from rec_utils.training import TrainConfig, fit, predict
from tests.bench import synthetic
from tests.bench.contender import N_CHECKED, Contender, serve

TEXT_DIM = 384  # of MiniLM's vectors


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


def build(arguments: argparse.Namespace, data: synthetic.Ratings) -> Contender:
    """The model and the way to train it for one epoch."""
    samples = samples_of(data)
    checked = samples.select(torch.arange(N_CHECKED))
    if arguments.kind == "kar":
        rng = torch.Generator().manual_seed(0)
        vectors = {
            "user": torch.randn(synthetic.N_USERS, TEXT_DIM, generator=rng),
            "item": torch.randn(synthetic.N_ITEMS, TEXT_DIM, generator=rng),
        }
        adaptor = HybridExpertAdaptor(list(vectors), TEXT_DIM)
        backbone = ctr.build(arguments.model, samples, dense_dim=adaptor.out_dim, embed_dim=synthetic.DIM)
        model = KAR(backbone, adaptor, vectors)
    else:
        model = ctr.build(arguments.model, samples, embed_dim=synthetic.DIM)

    if arguments.kind == "bare":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        shuffle = torch.Generator().manual_seed(0)

        def epoch() -> None:
            model.train()
            for index in torch.randperm(len(samples), generator=shuffle).split(arguments.batch):
                optimizer.zero_grad()
                batch = samples.batch(index)
                binary_cross_entropy_with_logits(model(batch), batch.label).backward()
                optimizer.step()
    else:
        config = TrainConfig(batch_size=arguments.batch, max_epochs=1)

        def epoch() -> None:
            fit(model, samples, checked, config)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Contender(epoch, lambda: predict(model, checked), parameters, f"torch {version('torch')}")


if __name__ == "__main__":
    serve(build)
