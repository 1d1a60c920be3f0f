"""One kind of progress bar, which stays out of stored notebook outputs."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def bar(shown: bool, **settings: Any) -> tqdm:
    """A tqdm bar on stderr if `shown`, unless `$TQDM_DISABLE` is set, as the batch runner does for notebooks.

    tqdm heeds that variable only where `disable` is not given.
    """
    return tqdm(**settings) if shown else tqdm(disable=True, **settings)
