"""The data of the survey's experiments by name: released splits and sequences, or made from ratings."""

from __future__ import annotations

from rec_utils import data
from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.implicit import ImplicitTask, implicit_task
from rec_utils.papers.diffusion.released import SEQUENCES, SPLITS, released_sequences, released_split
from rec_utils.sequences import SequenceTask, sequence_task

RELEASED_ROWS = {f"diffrec-{split}": split for split in SPLITS}


def ratings(name: str) -> Dataset | None:
    """The data set that rows or sequences of that name are made from; None for released ones."""
    return None if name in RELEASED_ROWS or name in SEQUENCES else data.load(name)


def rows(name: str, *, first_users: int | None = None, seed: int = 0) -> ImplicitTask:
    """DiffRec's split "diffrec-clean" or "diffrec-noisy" as it is, or the likes of a data set.

    See `implicit_task` for the latter.

    Raises:
        UserError: the data are unknown or not here.
    """
    if name in RELEASED_ROWS:
        return released_split(RELEASED_ROWS[name])
    return implicit_task(data.load(name), first_users=first_users, seed=seed)


def check_leaks(task: ImplicitTask) -> None:
    """Raise if a user has one item in two parts, which would be read and asked for.

    Raises:
        UserError: naming the user and the item.
    """
    known = task.matrix("train")
    for part in ("validation", "test"):
        user, item = (known * task.matrix(part)).nonzero()
        if len(user):
            raise UserError(f"{task.name}: user {user[0]} has item {item[0]} in {part} and before it")
        known = known + task.matrix(part)


def sequences(
    name: str, *, first_users: int | None = None, max_length: int | None = None, seed: int = 0
) -> SequenceTask:
    """DiffuRec's "beauty" or "toys" as they are, or likes of a data set in time, see `sequence_task`.

    Raises:
        UserError: the data are unknown or not here.
    """
    if name in SEQUENCES:
        return released_sequences(name)
    return sequence_task(data.load(name), first_users=first_users, max_length=max_length, seed=seed)
