"""One training loop for every click model, and a process pool for many trainings.

A model is any `nn.Module` whose `forward(batch)` returns logits [B] for a `Batch` of B samples. The
samples are in memory, so the loop is: choose indices, gather a batch, step; nothing else runs per step.
On a GPU, or under `accelerate launch` with several processes, the same loop runs through accelerate.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from rec_utils.batches import CTRSamples
from rec_utils.errors import UserError
from rec_utils.metrics import auc, logloss


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run."""

    lr: float = 1e-3  #: learning rate of Adam, constant
    batch_size: int = 256  #: samples a step, over all processes together
    max_epochs: int = 20
    patience: int = 3  #: epochs without a better validation LogLoss before training stops
    weight_decay: float = 0.0  #: decoupled (AdamW); biases and other vectors are not decayed
    seed: int = 0  #: of shuffling and dropout


@dataclass(frozen=True)
class FitResult:
    """What a training run did; the model itself holds the weights of the best epoch."""

    epochs: list[dict[str, float]]  #: of each epoch: train_loss, valid_logloss, valid_auc, seconds
    best_epoch: int  #: counted from 1
    seconds: float  #: whole run, validation included


def fit(
    model: nn.Module,
    train: CTRSamples,
    valid: CTRSamples,
    config: TrainConfig = TrainConfig(),
    progress: bool | str = True,
) -> FitResult:
    """Train `model` in place and leave the weights of the epoch with the lowest validation LogLoss in it.

    The same model, samples and config give the same weights, bit for bit on one thread of one CPU; the
    caller's random state is neither used nor changed. `progress` shows a bar on stderr, a string names it.
    If `valid` holds one class only, its AUC is NaN; LogLoss still chooses the epoch.

    Raises `UserError` if `train` or `valid` is empty, or a loss is not finite.
    """
    for name, samples in (("training", train), ("validation", valid)):
        if len(samples) == 0:
            raise UserError(f"The {name} set is empty.")
    start = time.perf_counter()
    optimizer = torch.optim.AdamW(_decay_groups(model, config.weight_decay), lr=config.lr, fused=True)
    shuffle = torch.Generator().manual_seed(config.seed)
    epochs: list[dict[str, float]] = []
    best, best_epoch, best_weights = math.inf, 0, {}
    bar = tqdm(
        total=config.max_epochs * math.ceil(len(train) / config.batch_size),
        desc=progress if isinstance(progress, str) else "training",
        unit="step",
        disable=not progress,
    )
    with bar, torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for epoch in range(1, config.max_epochs + 1):
            epoch_start = time.perf_counter()
            model.train()
            total = torch.zeros(())
            for batch in train.batches(config.batch_size, shuffle):
                optimizer.zero_grad()
                loss = binary_cross_entropy_with_logits(model(batch), batch.label)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(batch.label)
                bar.update()
            train_loss = total.item() / len(train)
            probability = predict(model, valid)
            if not (math.isfinite(train_loss) and np.isfinite(probability).all()):
                raise UserError(
                    f"The loss of epoch {epoch} is not finite at learning rate {config.lr:g}; lower it."
                )
            label = valid.label.cpu().numpy()
            valid_logloss = logloss(label, probability)
            epochs.append(
                {
                    "train_loss": train_loss,
                    "valid_logloss": valid_logloss,
                    "valid_auc": auc(label, probability) if 0 < label.mean() < 1 else math.nan,
                    "seconds": time.perf_counter() - epoch_start,
                }
            )
            if valid_logloss < best:
                best, best_epoch = valid_logloss, epoch
                best_weights = {name: value.clone() for name, value in model.state_dict().items()}
            elif epoch - best_epoch >= config.patience:
                break
        model.load_state_dict(best_weights)
    return FitResult(epochs, best_epoch, time.perf_counter() - start)


@torch.no_grad()
def predict(model: nn.Module, samples: CTRSamples, batch_size: int = 4096) -> np.ndarray:
    """Probabilities of a positive label [N], float64, from the model in evaluation mode."""
    if len(samples) == 0:
        return np.empty(0)
    training = model.training
    model.eval()
    logits = torch.cat([model(batch) for batch in samples.batches(batch_size)])
    model.train(training)
    return torch.sigmoid(logits.double()).cpu().numpy()


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups for AdamW: matrices are decayed, vectors (biases, gains) are not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
