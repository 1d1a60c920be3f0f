"""Keep the results of long jobs on disk, so that an interrupted run goes on where it stopped.

A result is found again only if everything that it depends on is the same: the function with all that it
holds (samples, vectors, settings), its arguments, the code of this package and the version of torch.

A stored result is pickled, but read by an unpickler that finds nothing except arrays, tables and this
package's dataclasses, so a file that somebody else put there cannot run code.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rec_utils.errors import UserError
from rec_utils.files import write_atomic
from rec_utils.settings import ROOT, runs_dir


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, but a call that was made before, in this process or another, returns the stored result.

    `function` must depend on nothing but what it holds, its arguments and its code, and return numbers,
    texts, arrays, tensors, tables and dataclasses of this package, nested as one likes. Results lie in
    `<runs_dir>/jobs` and are never needed again once a run has finished; a damaged one is computed anew.

    Raises:
        UserError: a stored result names something else, so it is not from here.
        TypeError: the function returns something else.
    """
    held = _digest(function)

    def call(**arguments: Any) -> Any:
        key = hashlib.sha256(held + _digest(sorted(arguments.items()))).hexdigest()
        path = runs_dir() / "jobs" / f"{key}.pkl"
        try:
            return _loads(path.read_bytes())
        except _Refused as error:
            raise UserError(
                f"{path} is no result of a job: it names {error}. Remove it, and find out who put it there"
            ) from None
        except Exception:  # there is none; or it is damaged, and then unpickling may raise anything
            pass
        result = function(**arguments)
        content = _dumps(result)
        try:
            _loads(content)
        except _Refused as error:
            raise TypeError(f"a job returned what cannot be stored: {error}") from None
        write_atomic(path, content)
        return result

    return call


class _Refused(Exception):
    """A pickle names something that no result holds."""


#: What a pickled result may name, besides dataclasses of this package.
_SAFE = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    (__name__, "_table"),
    (__name__, "_tensor"),
}


class _Unpickler(pickle.Unpickler):
    """Finds only what is harmless to call with any arguments."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SAFE:
            return super().find_class(module, name)
        if module.startswith("rec_utils.") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and is_dataclass(found):
                return found
        raise _Refused(f"{module}.{name}")


def _loads(content: bytes) -> Any:
    return _Unpickler(BytesIO(content)).load()


def _table(parquet: bytes) -> pd.DataFrame:
    return pd.read_parquet(BytesIO(parquet))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


class _Canonical(cloudpickle.Pickler):
    """Equal objects give equal bytes; plain pickle writes addresses in memory into those of a tensor."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return _tensor, (obj.detach().cpu().numpy(),)
        return super().reducer_override(obj)


class _Results(_Canonical):
    """Tables as Parquet: pickled, they name much of pandas and pyarrow that would have to be allowed."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, pd.DataFrame):
            return _table, (obj.to_parquet(),)
        return super().reducer_override(obj)


def _dumps(result: Any) -> bytes:
    buffer = BytesIO()
    _Results(buffer).dump(result)
    return buffer.getvalue()


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
