"""Graded exercises of the tutorials.

    sheet = classroom.Sheet("T1")    # takes the exercises of `rec_utils.classroom.t1`
    sheet.check(1, log_loss)         # Exercise 1 (2 points): right
    sheet.score()

The exercises of tutorial N stand in `rec_utils/classroom/tN.py`, each as a function that takes the answer
(a value or a function) and raises `Wrong` with a hint. `tests/unit/test_tutorial_tN.py` tests them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rec_utils.errors import UserError


class Wrong(Exception):
    """An answer is not right. The message is a hint of one sentence that does not give the answer away."""


@dataclass(frozen=True)
class Exercise:
    """A graded exercise; made by `exercise`."""

    number: int
    points: int
    title: str
    grade: Callable[[Any], None]  #: takes the answer and raises `Wrong`


def exercise(number: int, points: int = 2, title: str = "") -> Callable[[Callable[[Any], None]], Exercise]:
    """Make an exercise of a function that takes the answer and raises `Wrong` if it is not right.

    Use hidden inputs, other than those that the tutorial shows, and an independent reference.
    """
    return lambda grade: Exercise(number, points, title, grade)


def close(answer: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    """True if numbers (tensor, array, list or scalar) are the expected ones up to `tolerance`.

    The tolerance is absolute below 1 and relative above. Raises `Wrong` if the answer is no number or has
    another shape, so that a check need not say this.
    """
    if answer is None:
        raise Wrong("it gives None; does the function end in `return`?")
    got, wanted = _numbers(answer), _numbers(expected)
    if got.shape != wanted.shape:
        raise Wrong(f"its shape is {tuple(got.shape)}, but should be {tuple(wanted.shape)}")
    return torch.allclose(got, wanted, rtol=tolerance, atol=tolerance)


def _numbers(value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        try:
            value = torch.from_numpy(np.array(value, dtype=np.float64))
        except (TypeError, ValueError):
            raise Wrong(f"it gives a {type(value).__name__} where numbers are asked for") from None
    return value.detach().cpu().double()


class Sheet:
    """A student's answers to the exercises of one tutorial."""

    def __init__(self, tutorial: str) -> None:
        """Take the exercises of `tutorial`, such as "T1".

        Raises:
            UserError: there is no such tutorial, or its exercises are not numbered from 1.
        """
        name = f"{__name__}.{tutorial.lower()}"
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise UserError(f"there are no exercises for tutorial {tutorial!r}") from None
        found = sorted((e for e in vars(module).values() if isinstance(e, Exercise)), key=lambda e: e.number)
        if [e.number for e in found] != list(range(1, len(found) + 1)):
            raise UserError(f"the exercises of {tutorial} are not numbered 1, 2, ...")
        self.exercises = {e.number: e for e in found}
        self._right: set[int] = set()

    def check(self, number: int, answer: Any) -> None:
        """Print whether an answer is right, with a hint if it is not; the last check counts.

        A mistake of the student never raises. An answer that is `...` or None, or that raises
        `NotImplementedError`, is not attempted yet.
        """
        if number not in self.exercises:
            raise UserError(f"there is no exercise {number}; the last is {len(self.exercises)}")
        this = self.exercises[number]
        self._right.discard(number)
        result = _judge(this, answer)
        if result == "right":
            self._right.add(number)
        print(f"Exercise {number} ({_points(this.points)}): {result}")

    @property
    def points(self) -> int:
        """Points of all right answers."""
        return sum(self.exercises[number].points for number in self._right)

    def score(self) -> None:
        """Print the points of each exercise and their sum."""
        for number, this in self.exercises.items():
            got = this.points if number in self._right else 0
            print(f"Exercise {number}, {this.title}: {got} of {_points(this.points)}")
        print(f"Together: {self.points} of {_points(sum(e.points for e in self.exercises.values()))}")


def _judge(this: Exercise, answer: Any) -> str:
    """The verdict on an answer."""
    if answer is None or answer is ...:
        return "not attempted yet"
    # an answer that draws random numbers must not change those of the cells after it
    with torch.random.fork_rng(devices=[]):
        try:
            this.grade(answer)
        except NotImplementedError:
            return "not attempted yet"
        except Wrong as hint:
            return f"not yet: {hint}"
        except Exception as error:  # whatever a student's code may raise
            return f"not yet: it raises {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return "right"


def _points(number: int) -> str:
    return f"{number} point{'' if number == 1 else 's'}"
