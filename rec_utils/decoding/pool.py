"""The retrieval pool: what followed two tokens in all texts that were stored.

The original keeps a forest of tries: for each token a trie of the 13 tokens that followed it, with
frequencies. Here a trie is built when it is asked for, from the places where the two tokens occur. An index
of those places takes 4 bytes a token and the text itself 2 or 4, where a stored trie takes one node
for each token at each of 13 depths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rec_utils.errors import UserError
from rec_utils.files import atomic_path

Tokens: TypeAlias = NDArray[np.integer]

#: Weights of what followed in the prompt and elsewhere. One prompt place outweighs any number of others, as
#: in the original, whose weight is (1 - 1e-4) count in the prompt + 1e-4 count in outputs.
OF_PROMPT, OF_OUTPUT = 9_999, 1
PLACES = 128  #: places that make a trie; of more, this many are taken at equal distances


class _Growing:
    """Tokens that grow at the end, and where each token and each pair of tokens stands."""

    def __init__(self, end: int, branch: int, dtype: np.dtype) -> None:
        self.end, self.branch = end, branch
        self.tokens = np.full(1024, end, dtype)
        self.size = 0
        self._after_one: dict[int, list[int]] = defaultdict(list)
        self._after_two: dict[tuple[int, int], list[int]] = defaultdict(list)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add tokens to the text that is being written."""
        if self.size + len(tokens) + self.branch > len(self.tokens):
            more = max(len(self.tokens), len(tokens) + self.branch)
            self.tokens = np.append(self.tokens, np.full(more, self.end, self.tokens.dtype))
        self.tokens[self.size : self.size + len(tokens)] = tokens
        before = int(self.tokens[self.size - 1]) if self.size else self.end
        for place, token in enumerate(tokens, self.size + 1):  # `place` is that of the token after
            self._after_one[token].append(place)
            self._after_two[before, token].append(place)
            before = token
        self.size += len(tokens)

    def close(self) -> None:
        """End the text: what follows it belongs to another one."""
        self.extend([self.end])

    def places(self, context: tuple[int, ...]) -> tuple[Tokens, int]:
        """[n] places of the tokens that followed `context`, the latest `PLACES`, and 1 as their weight."""
        found = self._after_one.get(context[0]) if len(context) == 1 else self._after_two.get(context)
        return np.array(found[-PLACES:] if found else [], np.int64), 1


class _Sorted:
    """Tokens that stay, and the order of their places by the two tokens before each."""

    def __init__(self, tokens: Tokens, end: int, branch: int) -> None:
        self.size = len(tokens)
        self.tokens = np.append(tokens, np.full(branch + 2, end, tokens.dtype))
        first, second = self.tokens[: self.size], self.tokens[1 : self.size + 1]
        order = np.argsort(second, kind="stable")
        order = order[np.argsort(first[order], kind="stable")]
        self._order = order.astype(np.int32 if self.size < 2**31 else np.int64)
        self._second = second[order]
        self._begin = np.searchsorted(first[order], np.arange(end + 2, dtype=tokens.dtype))

    def places(self, context: tuple[int, ...]) -> tuple[Tokens, int]:
        """[n] places of the tokens that followed `context`, and for how many places each stands."""
        low, high = self._begin[context[0]], self._begin[context[0] + 1]
        if len(context) == 2:
            bounds = np.array([context[1], context[1] + 1], self.tokens.dtype)
            low, high = low + np.searchsorted(self._second[low:high], bounds)
        count = int(high - low)
        if count <= PLACES:
            return self._order[low:high] + np.int64(len(context)), 1
        chosen = low + np.arange(PLACES) * count // PLACES  # at equal distances, so old and new texts
        return self._order[chosen] + np.int64(len(context)), count // PLACES

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.tokens, self._order, self._second, self._begin))


class Pool:
    """Texts as token ids, searched by the last two tokens.

    Texts that were added lately are in dictionaries; when they are an eighth of the pool they are merged
    into the sorted index, so that adding a text takes constant time on average.

    Args:
        vocab_size: token ids are below it.
        branch: tokens of a draft, at most.
        max_tokens: bound of the stored tokens; the oldest texts leave first.
    """

    def __init__(self, vocab_size: int, *, branch: int = 12, max_tokens: int | None = None) -> None:
        for name, value in {"vocab_size": vocab_size, "branch": branch, "max_tokens": max_tokens}.items():
            if value is not None and value < 1:
                raise UserError(f"parameter {name} must be at least 1, not {value}")
        self.vocab_size, self.branch, self.max_tokens = vocab_size, branch, max_tokens
        self._dtype = np.min_scalar_type(vocab_size)  # the id `vocab_size` ends a text
        self._settle(np.empty(0, self._dtype))

    def add(self, tokens: Sequence[int]) -> None:
        """Store a text. `UserError` when an id is not in the vocabulary."""
        self._check(np.asarray(tokens, np.int64))
        if len(tokens):
            self._recent.extend(tokens)
            self._recent.close()
            self._n_texts += 1
        if self._recent.size > max(4096, self._settled.size // 8) or self._over():
            self._settle(self._all())

    def extend(self, texts: Iterable[Sequence[int]]) -> None:
        """Store many texts at once."""
        arrays = [np.asarray(text, np.int64) for text in texts if len(text)]
        if not arrays:
            return
        self._check(np.concatenate(arrays))
        ended = [part for array in arrays for part in (array, [self.vocab_size])]
        self._settle(np.append(self._all(), np.concatenate(ended).astype(self._dtype)))

    def sources(self) -> tuple[_Sorted, _Growing]:
        """Where to look for places: the settled texts and the recent ones."""
        return self._settled, self._recent

    @property
    def n_tokens(self) -> int:
        """Stored tokens, an end of each text among them."""
        return self._settled.size + self._recent.size

    @property
    def nbytes(self) -> int:
        """Memory of the settled part in bytes."""
        return self._settled.nbytes

    def __len__(self) -> int:
        return self._n_texts

    def save(self, path: Path | str) -> None:
        """Write the texts to one file (.npz), whole or not at all."""
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            settings = np.array([self.vocab_size, self.branch, self.max_tokens or 0])
            np.savez_compressed(file, tokens=self._all(), settings=settings)

    @classmethod
    def load(cls, path: Path | str) -> Pool:
        """Read a pool. `UserError` when the file is missing or not one."""
        try:
            with np.load(path, allow_pickle=False) as file:
                tokens, (vocab_size, branch, bound) = file["tokens"], file["settings"].tolist()
        except FileNotFoundError as error:
            raise UserError(f"retrieval pool {path} does not exist") from error
        except Exception as error:  # numpy raises many kinds on a damaged archive
            raise UserError(f"{path} is not a retrieval pool, or it is damaged") from error
        pool = cls(vocab_size, branch=branch, max_tokens=bound or None)
        pool._settle(tokens)
        return pool

    def _all(self) -> Tokens:
        settled, recent = self._settled, self._recent
        return np.append(settled.tokens[: settled.size], recent.tokens[: recent.size])

    def _over(self) -> bool:
        return self.max_tokens is not None and self.n_tokens > self.max_tokens

    def _settle(self, tokens: Tokens) -> None:
        ends = np.flatnonzero(tokens == self.vocab_size)
        if self.max_tokens is not None and len(tokens) > self.max_tokens:
            # a quarter more than needed leaves at once, since each time costs a sort
            surplus = len(tokens) - self.max_tokens * 3 // 4
            gone = min(np.searchsorted(ends, surplus - 1), len(ends) - 1)
            tokens, ends = tokens[ends[gone] + 1 :], ends[gone + 1 :]
        self._n_texts = len(ends)
        self._settled = _Sorted(tokens, self.vocab_size, self.branch)
        self._recent = _Growing(self.vocab_size, self.branch, self._dtype)

    def _check(self, tokens: Tokens) -> None:
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            raise UserError(
                f"token ids must be from 0 to {self.vocab_size - 1}, not {tokens.min()} to {tokens.max()}"
            )


class OwnText:
    """The prompt and what was written after it: a further source of drafts while one text is decoded."""

    def __init__(self, prompt: Sequence[int], vocab_size: int, branch: int) -> None:
        self.end, self.branch = vocab_size, branch
        self._text = _Growing(vocab_size, branch, np.min_scalar_type(vocab_size))
        self._text.extend(prompt)
        self._n_prompt = len(prompt)

    def write(self, tokens: Sequence[int]) -> None:
        """Add what was decoded."""
        self._text.extend(tokens)

    def followers(self, pool: Pool | None, n_last: int) -> tuple[Tokens, Tokens]:
        """What followed the last `n_last` tokens before, here and in a pool.

        Returns:
            Tokens [n, branch], where the id `vocab_size` and all after it is no token, and weights [n].
        """
        text = self._text
        context = tuple(text.tokens[max(0, text.size - n_last) : text.size].tolist())
        if not context:
            return np.empty((0, text.branch), text.tokens.dtype), np.empty(0, np.int64)
        places, _ = text.places(context)
        places = places[places < text.size]  # nothing has followed the end yet
        found = [(text, places, np.where(places < self._n_prompt, OF_PROMPT, OF_OUTPUT))]
        for source in pool.sources() if pool is not None else ():
            places, weight = source.places(context)
            found.append((source, places, np.full(len(places), OF_OUTPUT * weight)))
        steps = np.arange(text.branch)
        return (
            np.concatenate([source.tokens[places[:, None] + steps] for source, places, _ in found]),
            np.concatenate([weights for *_, weights in found]),
        )
