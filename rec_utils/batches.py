"""CTR samples held as tensors in memory, and batches made from them by index selection.

A sample's history is not stored: all interactions stand in one long sequence, user by user in time
order, and the last L before the sample are gathered when a batch is made. So memory does not grow
with L, and no Python runs per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch of B samples with F fields, Fi of them the item's, and a history of L steps.

    All ids index one shared embedding table; id 0 is padding.
    """

    item: Tensor  #: [B, F] ids of the user's fields, if the samples have any, then of the candidate's
    history: Tensor  #: [B, L, Fi + 1] ids of rated items' fields and of the ratings; oldest step first
    mask: Tensor  #: [B, L] True where the step is real, False where it is padding (always on the left)
    user_row: Tensor  #: [B] row of the user in per-user tables such as knowledge vectors
    item_row: Tensor  #: [B] row of the candidate in per-item tables
    position: Tensor  #: [B] place of the sample among all interactions, for tables that have one row each
    label: Tensor  #: [B] 0. or 1.


class Samples:
    """What training needs: a frozen dataclass of tensors with `label` [N, ...], `select` and `batch`."""

    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def select(self, index: Tensor) -> Self:
        """The samples at `index` (int64 positions or a boolean mask [N])."""
        raise NotImplementedError

    def batch(self, index: Tensor) -> Any:
        """The batch of the samples at `index` [B] (int64); it has their `label`."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Self:
        """The same samples on another device."""
        held = {name: value for name, value in vars(self).items() if isinstance(value, Tensor | Samples)}
        return replace(self, **{name: value.to(device) for name, value in held.items()})

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Any]:
        """All samples once: in a fresh random order drawn from `generator`, or in order without one."""
        n = len(self)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for index in order.to(self.label.device).split(batch_size):
            yield self.batch(index)


@dataclass(frozen=True)
class CTRSamples(Samples):
    """Samples of a click-through-rate task; `batch` turns a vector of sample indices into a `Batch`.

    T is the number of interactions, I of items, Fi of item fields, N of samples.
    """

    item_fields: Tensor  #: [I, Fi] ids of each item's fields in the shared embedding table
    sequence: Tensor  #: [T] item row of every interaction, user by user in time order
    rating_ids: Tensor  #: [T] id of the rating's level in the shared embedding table
    first: Tensor  #: [N] position in `sequence` where the sample's user begins
    position: Tensor  #: [N] position of the sample itself
    user_row: Tensor  #: [N]
    label: Tensor  #: [N] float
    history_length: int  #: L; 0 for samples without a history
    n_ids: int  #: size of the shared embedding table, padding included
    user_fields: Tensor | None = None  #: [U, Fu] ids of each user's fields, where users are known in training

    @property
    def n_fields(self) -> int:
        """Number of fields F of a sample: its user's and its item's."""
        return self.item_fields.shape[1] + (0 if self.user_fields is None else self.user_fields.shape[1])

    @property
    def n_step_fields(self) -> int:
        """Number of fields of a history step, the rating included; 0 without a history."""
        return self.item_fields.shape[1] + 1 if self.history_length else 0

    @property
    def field_ids(self) -> list[Tensor]:
        """The ids that occur in each kind of field: the item's, the rating, the user's."""
        of_users = () if self.user_fields is None else self.user_fields.T
        return [column.unique() for column in (*self.item_fields.T, self.rating_ids, *of_users)]

    @property
    def item_row(self) -> Tensor:
        """[N] row of every sample's candidate item."""
        return self.sequence[self.position]

    def select(self, index: Tensor) -> CTRSamples:
        """The samples at `index` (int64 positions or a boolean mask [N]); the sequence is shared."""
        return replace(
            self,
            first=self.first[index],
            position=self.position[index],
            user_row=self.user_row[index],
            label=self.label[index],
        )

    def with_history(self, length: int) -> CTRSamples:
        """The same samples with another history length L."""
        return replace(self, history_length=length)

    def steps(self, places: Tensor) -> Tensor:
        """Ids [..., Fi + 1] of item fields and rating of the history steps at `places` [...]."""
        rated = self.item_fields[self.sequence[places]]
        return torch.cat([rated, self.rating_ids[places][..., None]], dim=-1)

    def batch(self, index: Tensor) -> Batch:
        """The batch of the samples at `index` [B] (int64)."""
        position, first = self.position[index], self.first[index]
        before = torch.arange(-self.history_length, 0, device=position.device)
        places = position[:, None] + before
        mask = places >= first[:, None]
        item_row, user_row = self.sequence[position], self.user_row[index]
        item = self.item_fields[item_row]
        if self.user_fields is not None:
            item = torch.cat([self.user_fields[user_row], item], dim=1)
        return Batch(
            item=item,
            history=self.steps(places.clamp_(min=0)) * mask[..., None],
            mask=mask,
            user_row=user_row,
            item_row=item_row,
            position=position,
            label=self.label[index],
        )
