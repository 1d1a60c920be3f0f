"""Keep the results of long jobs on disk, so that an interrupted run goes on where it stopped.

A result is found again only if everything that it depends on is the same: the function with all that it
holds (samples, vectors, settings), its arguments, the code of this package and the version of torch.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from torch import Tensor

from rec_utils.files import write_atomic
from rec_utils.settings import ROOT, runs_dir


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, but a call that was made before, in this process or another, returns the stored result.

    `function` must depend on nothing but what it holds, its arguments and its code, and return what pickle
    can store. Results lie in `<runs_dir>/jobs` and are never needed again once a run has finished; a damaged
    one is computed anew.
    """
    held = _digest(function)

    def call(**arguments: Any) -> Any:
        key = hashlib.sha256(held + _digest(sorted(arguments.items()))).hexdigest()
        path = runs_dir() / "jobs" / f"{key}.pkl"
        try:
            return pickle.loads(path.read_bytes())
        except (OSError, pickle.UnpicklingError, EOFError):
            result = function(**arguments)
            write_atomic(path, pickle.dumps(result))
            return result

    return call


class _Canonical(cloudpickle.Pickler):
    """Equal objects give equal bytes; plain pickle writes addresses in memory into those of a tensor."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return torch.from_numpy, (obj.detach().cpu().numpy(),)
        return super().reducer_override(obj)


def _digest(obj: Any) -> bytes:
    buffer = BytesIO()
    _Canonical(buffer).dump(obj)
    return hashlib.sha256(_code() + buffer.getvalue()).digest()


@cache
def _code() -> bytes:
    """Hash of all modules of this package and of torch's version."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted((ROOT / "rec_utils").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + Path(path).read_bytes())
    return digest.digest()
