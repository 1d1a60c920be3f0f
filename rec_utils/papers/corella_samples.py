"""What CoReLLa's two models read: CTR samples, and for some of them a prompt in tokens.

The prompt has the parts that the paper describes, in our words: it shows the ratings, asks whether the user
will like the film, wants yes or no, and ends in a cue for the answer. The ratings are a numbered list with
stars, as in ReLLa.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rec_utils.batches import Batch, CTRSamples, Samples
from rec_utils.errors import UserError
from rec_utils.field_task import FieldTask
from rec_utils.splits import NAMES

CUE = "Answer:"


# Prompts


def prompts(
    samples: CTRSamples, ratings: np.ndarray, titles: Sequence[str], history_length: int
) -> list[str]:
    """The prompt of every sample.

    Args:
        samples: N samples on T interactions.
        ratings: [T] stars of the interactions, in the order of `samples.sequence`.
        titles: [I] of the items, by row.
        history_length: the most ratings shown, the latest before the sample.
    """
    item = samples.sequence.numpy()
    last = samples.position.numpy()
    first = np.maximum(samples.first.numpy(), last - history_length)
    return [
        _prompt([(titles[item[place]], ratings[place]) for place in range(start, end)], titles[item[end]])
        for start, end in zip(first.tolist(), last.tolist(), strict=True)
    ]


def _prompt(rated: Sequence[tuple[str, float]], target: str) -> str:
    lines = [
        f"{number}. {title}, {stars:g} {'star' if stars == 1 else 'stars'}"
        for number, (title, stars) in enumerate(rated, 1)
    ]
    history = ["A viewer rated these films, the latest last:", *lines]
    return "\n".join(
        [
            *(history if lines else ["A viewer has not rated any film yet."]),
            f"Judge by these ratings and by the film itself: will the viewer like {target}?",
            "Answer yes or no only.",
            CUE,
        ]
    )


@dataclass(frozen=True)
class PromptedBatch:
    """What both models read about B samples."""

    ctr: Batch
    tokens: Tensor  #: [B, T] of the prompts, padding on the left
    mask: Tensor  #: [B, T] True where the token is real

    @property
    def label(self) -> Tensor:
        """[B]"""
        return self.ctr.label


@dataclass(frozen=True)
class PromptedSamples(Samples):
    """CTR samples with their prompts in tokens; a batch is as wide as its longest prompt."""

    ctr: CTRSamples
    tokens: Tensor  #: [N, T] int32, padding on the left
    length: Tensor  #: [N] real tokens

    @property
    def label(self) -> Tensor:
        """[N]"""
        return self.ctr.label

    def select(self, index: Tensor) -> PromptedSamples:
        """The samples at `index` (int64 positions or a boolean mask [N])."""
        return replace(self, ctr=self.ctr.select(index), tokens=self.tokens[index], length=self.length[index])

    def batch(self, index: Tensor) -> PromptedBatch:
        """The batch of the samples at `index` [B] (int64)."""
        length = self.length[index]
        tokens = self.tokens[index, -int(length.max()) :]
        left = torch.arange(-tokens.shape[1], 0, device=length.device)
        return PromptedBatch(self.ctr.batch(index), tokens.long(), left >= -length[:, None])


def with_prompts(samples: CTRSamples, ids: Sequence[Sequence[int]]) -> PromptedSamples:
    """The N samples with the token ids of their prompts."""
    length = np.array([len(row) for row in ids])
    tokens = np.zeros((len(ids), length.max()), np.int32)
    tokens[np.arange(-tokens.shape[1], 0) >= -length[:, None]] = np.concatenate(ids)
    return PromptedSamples(samples, torch.from_numpy(tokens), torch.from_numpy(length))


# What each stage sees


@dataclass(frozen=True)
class Parts:
    """The samples of each stage, and those that both models predict."""

    train: CTRSamples  #: all training samples, for stage 1
    valid_all: CTRSamples  #: all validation samples, to stop stage 1
    joint: PromptedSamples  #: of the training samples, for stage 2
    alone: PromptedSamples  #: other training samples, for stage 3
    valid: PromptedSamples  #: to stop stages 2 and 3, and to choose the share that goes to the LM
    test: PromptedSamples


def draw_parts(
    task: FieldTask,
    tokens: Callable[[Sequence[str]], list[list[int]]],
    *,
    history_length: int,
    n_joint: int,
    n_alone: int,
    n_valid: int,
    n_test: int,
    seed: int,
) -> Parts:
    """Draw the samples that the LM reads, at random, and write their prompts.

    The titles are those of the task's field, without the year.

    Args:
        task: all samples and their split.
        tokens: `LanguageModel.tokens`, the ids of each text.
        history_length: the most ratings in a prompt.
        n_joint: samples of stage 2.
        n_alone: samples of stage 3.
        n_valid: validation samples.
        n_test: test samples.
        seed: of the draws.

    Raises:
        UserError: a part of the split has not as many samples as are asked for.
    """
    rng = np.random.default_rng(seed)
    train, valid, test = (rng.permutation(np.flatnonzero(mask)) for mask in task.masks)
    for name, rows, wanted in zip(
        NAMES, (train, valid, test), (n_joint + n_alone, n_valid, n_test), strict=True
    ):
        if not 0 < wanted <= len(rows):
            raise UserError(f"{wanted} samples are asked for, but the {name} part has {len(rows)}")
    stars = np.empty(len(task.ratings))
    stars[task.samples.position] = task.ratings["rating"]
    titles = task.item_texts["Title"].tolist()

    def read(rows: np.ndarray) -> PromptedSamples:
        some = task.samples.select(torch.from_numpy(np.sort(rows)))
        return with_prompts(some, tokens(prompts(some, stars, titles, history_length)))

    return Parts(
        train=task.samples.select(torch.from_numpy(task.masks[0])),
        valid_all=task.samples.select(torch.from_numpy(task.masks[1])),
        joint=read(train[:n_joint]),
        alone=read(train[n_joint : n_joint + n_alone]),
        valid=read(valid[:n_valid]),
        test=read(test[:n_test]),
    )
