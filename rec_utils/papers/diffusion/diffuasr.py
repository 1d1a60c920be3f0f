"""DiffuASR: made-up items before a user's first one, so that a short history becomes longer.

Liu et al., "Diffusion Augmentation for Sequential Recommendation", CIKM 2023, arXiv 2309.12858. A diffusion
model learns from sequences of more than M + 2 items to generate the first M of them, given the rest. x_0 are
the M embeddings, a "picture" of M channels in which an embedding of d = s^2 values is an s x s square; the
denoiser is a small U-Net (SU-Net), which predicts the noise. The guide is the sum of the embeddings of the
rest. Sampling takes a few DDIM steps; a generated embedding is rounded to the item of the highest cosine.

Any next-item model is then trained on the longer sequences, without a loss on the made-up items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec_utils.batches import Samples
from rec_utils.errors import UserError
from rec_utils.papers.diffusion.process import Process, ddim, standard_normal
from rec_utils.papers.diffusion.schedules import scaled_linear
from rec_utils.papers.diffusion.unet import UNet
from rec_utils.sequences import SequenceTask, Windows, gather
from rec_utils.settings import check_choice
from rec_utils.training import FitResult, Objective, TrainConfig, fit

#: Ways to make up items, the method and its controls.
WAYS = ("diffusion", "popular", "own")


@dataclass(frozen=True)
class StartBatch:
    """The first M items of B sequences, and the items that follow, padded on the right."""

    first: Tensor  #: [B, M]
    rest: Tensor  #: [B, L]
    label: Tensor  #: [B] user rows


@dataclass(frozen=True)
class Starts(Samples):
    """The users whose training items are more than M + 2."""

    sequence: Tensor  #: [T] items, user by user
    start: Tensor  #: [N] where each user begins
    length: Tensor  #: [N] number of training items
    n_first: int  #: M
    n_rest: int  #: L, the most items of the rest that guide
    label: Tensor  #: [N] user rows

    @classmethod
    def of(cls, task: SequenceTask, n_first: int = 10, n_rest: int = 50) -> Starts:
        """The samples of a task.

        Raises:
            UserError: no user has more than M + 2 training items.
        """
        users = np.flatnonzero(task.lengths() > n_first + 2)
        if not len(users):
            raise UserError(f"{task.name}: no user has more than {n_first + 2} training items to learn from")
        start, length = (torch.from_numpy(part[users]) for part in (task.start, task.lengths()))
        return cls(torch.from_numpy(task.items), start, length, n_first, n_rest, torch.from_numpy(users))

    def select(self, index: Tensor) -> Starts:
        """The samples at `index` (int64 positions or a boolean mask [N])."""
        return replace(self, start=self.start[index], length=self.length[index], label=self.label[index])

    def batch(self, index: Tensor) -> StartBatch:
        """The batch of the samples at `index` [B]."""
        start, m = self.start[index], self.n_first
        first = gather(self.sequence, start, torch.full_like(start, m), m)
        length = (self.length[index] - m).clamp(max=self.n_rest)
        rest = gather(self.sequence, start + m, length, self.n_rest)
        return StartBatch(first, rest, self.label[index])


class DiffuASR(nn.Module):
    """The generator of M items, with classifier-free guidance ("cf" in the authors' code).

    noise = f(x_t, t, guide) + s (f(x_t, t, guide) - f(x_t, t, null)), in training, too, and without ever
    dropping the guide at random: so the null vector is learned through the difference alone.

    Args:
        n_items: I; items count from 1.
        n_first: M.
        dim: d, a square of a power of 2.
        steps: T, see `schedules.scaled_linear`.
        guidance: s; 0 for the conditional model alone.
        width: channels of the U-Net's first level. With 8, as in the authors' code, each channel is a group
            of the group norm, which takes what time and guide add to a channel away again; they enter in
            deeper levels only.
        vectors: [I, d] embeddings of a trained next-item model, scaled to variance 1 and kept fixed. Without
            them the embeddings start as N(0, 1) and are trained along, and drift to what is easy to denoise.
            Both are options of the authors' code.
    """

    def __init__(
        self,
        n_items: int,
        *,
        n_first: int = 10,
        dim: int = 64,
        steps: int = 1000,
        guidance: float = 1.0,
        width: int = 8,
        vectors: Tensor | None = None,
    ) -> None:
        super().__init__()
        side = round(dim**0.5)
        if side * side != dim or side & (side - 1):
            raise UserError(f"dim must be the square of a power of 2, such as 64, not {dim}")
        self.side, self.n_first, self.guidance = side, n_first, guidance
        self.process = Process(scaled_linear(steps))
        self.items = nn.Embedding(n_items + 1, dim, padding_idx=0)
        if vectors is not None:
            if vectors.shape != (n_items, dim):
                raise UserError(f"vectors must be [{n_items}, {dim}], not {list(vectors.shape)}")
            self.items.weight.data[1:] = vectors / vectors.std()
            self.items.weight.requires_grad_(False)
        self.null = nn.Parameter(torch.randn(dim))
        levels = (1, 2, 2, 2)[: side.bit_length()]  # down to one pixel at most
        self.net = UNet(n_first, n_first, width=width, levels=levels, guide_dim=dim)

    def guide(self, rest: Tensor) -> Tensor:
        """The sum [B, d] of the embeddings of items [B, L]; 0 is padding."""
        return self.items(rest).sum(1)

    def predict(self, x: Tensor, t: Tensor, guide: Tensor) -> Tensor:
        """Noise [B, M, s, s] in x_t [B, M, s, s] at steps t [B], given the guide [B, d]."""
        given = self.net(x, t, guide)
        if self.guidance == 0:
            return given
        return given + self.guidance * (given - self.net(x, t, self.null.expand_as(guide)))

    def forward(self, batch: StartBatch) -> Tensor:
        """Squared error [B] of the noise, at steps in pairs t and T - 1 - t."""
        x0 = self.items(batch.first).unflatten(2, (self.side, self.side))
        half = torch.randint(len(self.process), (-(-len(x0) // 2),), device=x0.device)
        t = torch.cat([half, len(self.process) - 1 - half])[: len(x0)]
        noise = torch.randn_like(x0)
        predicted = self.predict(self.process.q_sample(x0, t, noise), t, self.guide(batch.rest))
        return (noise - predicted).square().flatten(1).mean(1)

    @torch.no_grad()
    def generate(self, rest: Tensor, *, generator: torch.Generator, steps: int = 5) -> Tensor:
        """Items [B, M] to stand before the items `rest` [B, L], by DDIM in so many steps.

        Args:
            rest: what the user really chose, 0 in padding.
            generator: draws x_T.
            steps: of DDIM.
        """
        guide = self.guide(rest)
        shape = torch.Size((len(rest), self.n_first, self.side, self.side))

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.process.x0_of(self.predict(x, t, guide), x, t)

        x = ddim(self.process, denoise, standard_normal(shape, generator, guide.device), steps=steps)
        unit = F.normalize(self.items.weight[1:])
        return (F.normalize(x.flatten(2), dim=2) @ unit.T).argmax(2) + 1


def train(
    task: SequenceTask,
    *,
    n_first: int = 10,
    seed: int = 0,
    training: Mapping[str, Any] = MappingProxyType({}),
    progress: bool | str = False,
    **settings: Any,
) -> tuple[DiffuASR, FitResult]:
    """A generator of the first items of a task, trained on its longer sequences.

    Args:
        task: the sequences.
        n_first: M.
        seed: of initial weights, shuffling and noise.
        training: fields of `TrainConfig` that differ; the batches are of 512.
        progress: see `training.fit`.
        settings: of `DiffuASR`.

    Raises:
        UserError: see `Starts.of`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = DiffuASR(task.n_items, n_first=n_first, **settings)
    config = TrainConfig(**({"batch_size": 512} | dict(training) | {"seed": seed}))
    objective = Objective(lambda loss, _: loss.mean())
    log = fit(model, Starts.of(task, n_first), None, config, progress, objective)
    return model.cpu().eval(), log


def made_up(
    task: SequenceTask,
    way: str,
    *,
    model: DiffuASR | None = None,
    n_first: int = 10,
    n_rest: int = 50,
    seed: int = 0,
    batch_size: int = 1024,
) -> np.ndarray:
    """Items [U, M] to stand before every user's sequence, by the training items alone.

    Args:
        task: the sequences.
        way: "diffusion" by `model`; or a control: "popular" draws items by their popularity, "own" repeats
            the user's own training items, drawn with replacement.
        model: a trained generator, in evaluation mode.
        n_first: M of the controls.
        n_rest: the most training items that guide, the first ones.
        seed: of all draws.
        batch_size: users at once.

    Raises:
        UserError: the way is unknown, or "diffusion" has no model.
    """
    check_choice("way", way, WAYS)
    rng = np.random.default_rng(seed)
    start, lengths = task.start[:-1], task.lengths()
    if way == "own":
        place = start[:, None] + (rng.random((task.n_users, n_first)) * lengths[:, None]).astype(np.int64)
        return task.items[place]
    if way == "popular":
        user = np.repeat(np.arange(task.n_users), np.diff(task.start))
        training = task.items[np.arange(len(user)) < (start + lengths)[user]]
        return rng.choice(training, (task.n_users, n_first))
    if model is None:
        raise UserError("way 'diffusion' needs a model")
    generator = torch.Generator().manual_seed(seed)
    sequence = torch.from_numpy(task.items)
    found = []
    for users in torch.arange(task.n_users).split(batch_size):
        length = torch.from_numpy(lengths)[users].clamp(max=n_rest)
        rest = gather(sequence, torch.from_numpy(start)[users], length, n_rest)
        found.append(model.generate(rest, generator=generator))
    return torch.cat(found).numpy()


def augmented(
    task: SequenceTask, first: np.ndarray, only: np.ndarray | None = None
) -> tuple[SequenceTask, Tensor]:
    """The task with items `first` [U, M] before the sequences, and which of all items are real.

    Validation and test are the same items as before; the made-up ones only lengthen the histories.

    Args:
        task: the sequences.
        first: what to put before them.
        only: [U] True for the users whose sequence is lengthened; None for all.

    Returns:
        The longer task, and for each of its items whether it is real [T], for `Windows.counted`.
    """
    only = np.ones(task.n_users, bool) if only is None else only
    added = np.where(only, first.shape[1], 0)
    start = task.start + np.concatenate([[0], np.cumsum(added)])
    user = np.repeat(np.arange(task.n_users), np.diff(task.start))
    real = np.zeros(start[-1], bool)
    real[np.arange(len(user)) + np.cumsum(added)[user]] = True
    items = np.empty(len(real), np.int64)
    items[real], items[~real] = task.items, first[only].ravel()
    return replace(task, items=items, start=start), torch.from_numpy(real)


def windows(task: SequenceTask, real: Tensor, length: int) -> Windows:
    """`SequenceTask.windows` of an augmented task, in which made-up items are read but are no targets."""
    found = replace(task.windows(length), counted=real)
    # a window of made-up targets alone teaches nothing
    index = torch.arange(len(found))
    return found.select(index[(found.batch(index).label > 0).any(1)])
