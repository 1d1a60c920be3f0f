"""One training loop for every model, and a process pool for many trainings.

A model is any `nn.Module` whose `forward(batch)` returns logits [B] for a `Batch` of B samples, or scores
[B, n] for a batch of B lists of n, with an `Objective` of its own. The samples are in memory, so the loop
is: choose indices, gather a batch, step; nothing else runs per step. It uses the GPU if there is one; under
`accelerate launch` or `torchrun` every process takes its share of each batch, and the step is that of the
whole batch. A training that is given a file for checkpoints goes on from there after it was stopped.
"""

from __future__ import annotations

import math
import reprlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from rec_utils.batches import Samples
from rec_utils.checkpoints import Checkpoint, TrainingState
from rec_utils.errors import UserError
from rec_utils.metrics import auc, logloss
from rec_utils.progress import bar
from rec_utils.settings import cpu_count


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run."""

    lr: float = 1e-3  #: learning rate of Adam at the first step
    lr_decay: bool = False  #: lower it linearly to 0 at the end of `max_epochs`; else it is constant
    batch_size: int = 256  #: samples a step, all processes together
    eval_batch_size: int = 4096  #: validation samples that a process predicts at once
    max_epochs: int = 20
    patience: int = 3  #: training stops after so many epochs in a row without a better validation LogLoss
    weight_decay: float = 0.0  #: decoupled, as in AdamW; vectors such as biases are not decayed
    seed: int = 0  #: of shuffling and dropout
    #: learning rates in place of `lr`, by what the names of parameters begin with: {"encoder.": 5e-5}
    lr_of: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "eval_batch_size", "max_epochs", "patience"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be above 0, not {getattr(self, name)}.")


def click_scores(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """LogLoss and AUC of samples [N]; the AUC of one class alone is NaN."""
    both_classes = 0 < label.mean() < 1
    return {
        "logloss": logloss(label, probability),
        "auc": auc(label, probability) if both_classes else math.nan,
    }


@dataclass(frozen=True)
class Objective:
    """What training lowers, and what decides which epoch was the best."""

    #: (what the model returns, labels) -> mean loss over the batch
    loss: Callable[[Tensor, Tensor], Tensor]
    #: (labels, sigmoid of what the model returns) -> scores by name; the first one chooses the epoch
    scores: Callable[[np.ndarray, np.ndarray], Mapping[str, float]] = click_scores
    higher_is_better: bool = False  #: of the first score
    #: model -> scores by name, in place of `scores` on validation samples; it must not draw from torch's
    #: global generator
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None
    every: int = 1  #: epochs from one `validate` to the next; the last epoch is always validated


CLICKS = Objective(binary_cross_entropy_with_logits)


@dataclass(frozen=True)
class FitResult:
    """What a training run did; the model itself holds the weights of the best epoch."""

    #: train_loss, the validation scores (for clicks valid_logloss and valid_auc) and seconds of each epoch
    epochs: list[dict[str, float]]
    best_epoch: int  #: counted from 1
    seconds: float  #: the whole run


def fit(
    model: nn.Module,
    train: Samples,
    valid: Samples | None,
    config: TrainConfig = TrainConfig(),
    progress: bool | str = True,
    objective: Objective = CLICKS,
    after_epoch: Callable[[nn.Module], Mapping[str, float]] | None = None,
    checkpoint: Path | None = None,
) -> FitResult:
    """Train `model` in place and leave in it the weights of the best epoch on the validation samples.

    Without validation samples all epochs run, and the weights are those of the last, unless the objective
    validates the model by itself: then the best epoch is chosen among those that it looked at.

    The optimiser is Adam with fused steps. For clicks, the default `objective`, the loss is binary
    cross-entropy, and the epoch with the lowest validation LogLoss is the best. The same model, samples and
    config give the same weights, bit for bit on one thread of a CPU, and torch's global generator is
    left as it was. `progress` shows one bar on stderr; a string is its label.

    `after_epoch` is called with the model after every epoch, for what one wants to watch without choosing
    by it; the numbers that it returns join those of the epoch. It must not draw random numbers.

    Several processes make the same steps as one, up to rounding, since their gradients are weighted by the
    samples in their shares, the last and smaller batch included. They draw other dropout, and a loss that is
    no mean over samples is averaged over the shares by samples.

    With a file as `checkpoint`, every epoch is kept there. The same call, also on another number of
    processes, goes on behind the last epoch kept, or returns the result if that was the last one; the numbers
    are those of a training that was never stopped, bit for bit on one process.

    Raises `UserError` if `train` or `valid` is empty, a loss is not finite, no epoch's score is a number,
    `lr_of` names no parameter, or the checkpoint is damaged or belongs to another training.
    """
    for name, samples in (("training", train), ("validation", valid)):
        if samples is not None and len(samples) == 0:
            raise UserError(f"The {name} set is empty.")
    start = time.perf_counter()
    process = _process()
    device, rank, processes = process.device, process.process_index, process.num_processes
    file = checkpoint and Checkpoint(checkpoint, model, train, valid, config)
    train, model = train.to(device), model.to(device)
    valid = valid.to(device) if valid is not None else None
    optimizer = torch.optim.AdamW(_parameter_groups(model, config), fused=True)
    steps_an_epoch = math.ceil(len(train) / config.batch_size)
    n_steps = config.max_epochs * steps_an_epoch
    schedule = LambdaLR(optimizer, lambda step: 1 - step / n_steps) if config.lr_decay else None
    shuffle = torch.Generator().manual_seed(config.seed)
    run = TrainingState(model, optimizer, schedule, shuffle, device)
    kept = file.read() if file else None
    if kept:
        start -= kept["seconds"]
        run.restore(kept)
    # Buffers are shared once an epoch and not at every step: KAR's hold the vectors of all its texts
    trained = DistributedDataParallel(model, forward_sync_buffers=False) if processes > 1 else model
    steps_bar = bar(
        bool(progress) and rank == 0,
        total=n_steps,
        initial=steps_an_epoch * len(run.epochs),
        desc=progress if isinstance(progress, str) else "training",
        unit="step",
    )
    with steps_bar, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed + rank)  # processes drop out different units
        if kept:
            run.restore_random(kept, rank)
        elif file:  # a folder that cannot be written to is found now, not after an epoch
            file.write(run.state(0.0))
        while not run.done:
            epoch, epoch_start = len(run.epochs) + 1, time.perf_counter()
            model.train()
            loss_sum = torch.zeros((), device=device)
            for batch, n, weight in _shuffled_batches(train, config.batch_size, shuffle, rank, processes):
                optimizer.zero_grad()
                loss = objective.loss(trained(batch), batch.label)
                (loss if processes == 1 else weight * loss).backward()
                optimizer.step()
                if schedule:
                    schedule.step()
                loss_sum.add_(loss.detach(), alpha=n)  # .item() here would stall a GPU
                steps_bar.update()
            for buffer in model.buffers() if processes > 1 else ():  # each has its own running averages
                broadcast(buffer)
            train_loss = sum(gather_object([loss_sum.item()])) / len(train)
            predicted = (
                np.empty(0) if valid is None else predict_in_shares(model, valid, config.eval_batch_size)
            )
            if not (math.isfinite(train_loss) and np.isfinite(predicted).all()):
                raise UserError(
                    f"The loss is not finite in epoch {epoch} at learning rate {config.lr:g}; lower lr."
                )
            scores = {} if valid is None else objective.scores(valid.label.cpu().numpy(), predicted)
            if objective.validate and (epoch % objective.every == 0 or epoch == config.max_epochs):
                model.eval()
                with torch.no_grad():
                    scores = objective.validate(model)
            log = {
                "train_loss": train_loss,
                **{f"valid_{name}": value for name, value in scores.items()},
                "seconds": time.perf_counter() - epoch_start,
            }
            run.epochs.append(log | (after_epoch(model) if after_epoch else {}))
            steps_bar.set_postfix(epoch=epoch, **{name: f"{value:.4f}" for name, value in scores.items()})
            chosen_by = -math.inf if objective.validate else epoch
            if scores:
                chosen_by = next(iter(scores.values())) * (1 if objective.higher_is_better else -1)
            run.choose(chosen_by)
            stopped = bool(scores) and epoch - run.best_epoch >= config.patience
            run.done = stopped or epoch == config.max_epochs
            if file:
                file.write(run.state(time.perf_counter() - start))
        steps_bar.total = steps_bar.n  # an early stop is a full bar, too
    if not run.best_epoch:
        raise UserError("No epoch has a validation score that is a number: is there one class only?")
    model.load_state_dict(run.best_weights, strict=False)
    return FitResult(run.epochs, run.best_epoch, time.perf_counter() - start)


@torch.no_grad()
def predict(model: nn.Module, samples: Samples, batch_size: int = 4096) -> np.ndarray:
    """Probabilities of a positive label, float64, shaped as the labels, from the model in evaluation mode.

    They are the sigmoid of what the model returns; of a model with another loss than binary cross-entropy
    only their order means something.
    """
    if len(samples) == 0:
        return np.empty(samples.label.shape)
    samples = samples.to(next(model.parameters()).device)
    was_training = model.training
    model.eval()
    logits = torch.cat([model(batch) for batch in samples.batches(batch_size)])
    model.train(was_training)
    return logits.cpu().double().sigmoid().numpy()


def predict_in_shares(model: nn.Module, samples: Samples, batch_size: int = 4096) -> np.ndarray:
    """`predict`, but of several processes each does its part, and all get the whole."""
    state = _process()
    if state.num_processes == 1:
        return predict(model, samples, batch_size)
    order = torch.arange(len(samples), device=samples.label.device)
    share = order.tensor_split(state.num_processes)[state.process_index]
    # of few samples a process may get none; it predicts one, so that the shapes fit
    predicted = predict(model, samples.select(share if len(share) else order[:1]), batch_size)
    return np.concatenate(gather_object([predicted[: len(share)]]))


def run_jobs(
    function: Callable[..., Any],
    jobs: list[dict[str, Any]],
    workers: int | None = None,
    progress: bool | str = True,
) -> list[Any]:
    """`function(**job)` for every job, on `workers` processes (all cores by default); results in job order.

    Every job runs on one torch thread, also with one worker (which is this process), so the number of
    workers does not change a result. `function` may be a closure over large samples: it is sent to each
    worker once, not with every job. The first error stops the rest and names its job.
    """
    if not jobs:
        return []
    workers = min(workers or cpu_count(), len(jobs))
    desc = progress if isinstance(progress, str) else "jobs"
    results: list[Any] = [None] * len(jobs)
    with (
        bar(bool(progress), total=len(jobs), desc=desc, unit="job") as jobs_bar,
        tempfile.TemporaryDirectory() as folder,
    ):
        if workers == 1:
            numbered = (_run_job(function, number, job) for number, job in enumerate(jobs))
        else:
            shared = Path(folder) / "function.pkl"
            shared.write_bytes(cloudpickle.dumps(function))
            run = joblib.delayed(_run_shared_job)
            with joblib.parallel_config("loky", inner_max_num_threads=1):
                pool = joblib.Parallel(workers, batch_size=1, return_as="generator_unordered")
            numbered = pool(run(str(shared), number, job) for number, job in enumerate(jobs))
        for number, result in numbered:
            results[number] = result
            jobs_bar.update()
    return results


def _process() -> PartialState:
    """Which of the processes started together this one is, and its device."""
    return PartialState(cpu=not torch.accelerator.is_available())


def _parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups for AdamW by learning rate; matrices are decayed, vectors (biases, gains) are not."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for begin in config.lr_of:
        if not any(name.startswith(begin) for name in named):
            raise UserError(f"lr_of names {begin!r}, with which no parameter's name begins")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in named.items():
        lr = next((lr for begin, lr in config.lr_of.items() if name.startswith(begin)), config.lr)
        groups.setdefault((lr, config.weight_decay if p.ndim > 1 else 0.0), []).append(p)
    return [{"params": ps, "lr": lr, "weight_decay": decay} for (lr, decay), ps in groups.items()]


def _shuffled_batches(
    samples: Samples, batch_size: int, generator: torch.Generator, rank: int, processes: int
) -> Iterator[tuple[Any, int, float]]:
    """This process's share of every batch of one epoch; all processes draw the same order.

    Yields the share, its number of samples, and the weight of its mean loss: DDP takes the mean of the
    gradients over processes, and with these weights that is the mean over the samples of the batch. A step
    needs all processes; one without a sample in a small rest takes part with a sample of weight 0.
    """
    if processes == 1:
        for batch in samples.batches(batch_size, generator):
            yield batch, len(batch.label), 1.0
        return
    order = torch.randperm(len(samples), generator=generator).to(samples.label.device)
    for index in order.split(batch_size):
        share = index[rank::processes]
        batch = samples.batch(share if len(share) else index[:1])
        yield batch, len(share), processes * len(share) / len(index)


@lru_cache(maxsize=1)
def _load_shared(path: str) -> Callable[..., Any]:
    return cloudpickle.loads(Path(path).read_bytes())


def _run_shared_job(path: str, number: int, job: dict[str, Any]) -> tuple[int, Any]:
    return _run_job(_load_shared(path), number, job)


def _run_job(function: Callable[..., Any], number: int, job: dict[str, Any]) -> tuple[int, Any]:
    """(number, result) of one job on one torch thread; an error gets the job's name."""
    name = f"job {number + 1} ({', '.join(f'{key}={reprlib.repr(value)}' for key, value in job.items())})"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return number, function(**job)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except Exception as error:
        error.add_note(f"This happened in {name}.")
        raise
    finally:
        torch.set_num_threads(threads)
