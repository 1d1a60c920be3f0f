"""Exercises of tutorial T2, knowledge of a language model as features."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from rec_utils.classroom import Wrong, close, exercise
from rec_utils.papers.kar import HybridExpertAdaptor
from rec_utils.samples import prompt_lengths


@exercise(1, title="what the language model may read")
def prompt_rows(answer: Callable[[pd.DataFrame, int], pd.DataFrame]) -> None:
    """The first half of each user's ratings in time, a bounded number."""
    rng = np.random.default_rng(1)
    counts = {3: 1, 5: 7, 8: 40, 9: 6}
    user = np.repeat(list(counts), list(counts.values()))
    table = pd.DataFrame(
        {"user_id": user, "item_id": np.arange(len(user)), "timestamp": rng.permutation(len(user))}
    )
    table = table.sample(frac=1, random_state=1).reset_index(drop=True)
    for cap in (30, 5):
        in_time = table.sort_values(["user_id", "timestamp"])
        place = in_time.groupby("user_id").cumcount()
        n_first = in_time["user_id"].map({u: prompt_lengths(np.array(n), cap=cap) for u, n in counts.items()})
        right = set(in_time.loc[place < n_first, "item_id"])
        got = answer(table.copy(), cap)
        if not isinstance(got, pd.DataFrame) or "item_id" not in got:
            raise Wrong("return rows of the table, with all its columns")
        if set(got["item_id"]) == right and len(got) == len(right):
            continue
        if (sizes := got["user_id"].value_counts()).max() > cap:
            raise Wrong(
                f"user {sizes.idxmax()} gives {sizes.max()} ratings to the prompt, above the cap of {cap}"
            )
        if set(got["item_id"]) == set(
            table[table.groupby("user_id").cumcount() < n_first.sort_index()]["item_id"]
        ):
            raise Wrong("it takes the first rows of the table; which ratings came first in time?")
        for u, n in counts.items():
            wanted = int(prompt_lengths(np.array(n), cap=cap))
            if (have := int((got["user_id"] == u).sum())) != wanted:
                raise Wrong(f"a user with {n} ratings gives {wanted} of them at a cap of {cap}, not {have}")
        raise Wrong(
            "some of these ratings are later than others that are left out: the text would know the future"
        )


@exercise(2, title="a vector of a text")
def pooled(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Mean over real tokens, scaled to length 1."""
    draws = torch.Generator().manual_seed(2)
    hidden = torch.randn(5, 7, 4, generator=draws) + 1
    length = torch.tensor([7, 3, 1, 5, 2])
    mask = (torch.arange(7) < length[:, None]).long()
    means = torch.stack([one[:n].mean(0) for one, n in zip(hidden, length, strict=True)])
    got = answer(hidden.clone(), mask.clone())
    if close(got, normalize(means, dim=1)):
        return
    if close(got, means):
        raise Wrong("these are the means; they are not of length 1 yet")
    if close(got, normalize(hidden.mean(1), dim=1)) or close(got, hidden.mean(1)):
        raise Wrong("padding takes part in the mean")
    if close(got, normalize(hidden[:, 0], dim=1)) or close(got, hidden[:, 0]):
        raise Wrong("this is the first token alone")
    if close(got, normalize(means, dim=0)):
        raise Wrong("each text has length 1, not each of the numbers over all texts")
    raise Wrong("multiply by the mask, sum over the tokens, divide by their number, then by the length")


@exercise(3, title="weights of an adaptor")
def n_weights(answer: Callable[..., int]) -> None:
    """Parameters of the hybrid-expert adaptor."""
    for m, hidden, out, shared, dedicated, sides in (
        (6, 5, 4, 1, 0, 1),
        (6, 5, 4, 2, 3, 2),
        (384, 128, 32, 1, 1, 3),
    ):
        names = [f"user{i}" for i in range(sides)]
        model = HybridExpertAdaptor(names, m, shared=shared, dedicated=dedicated, hidden=hidden, out=out)
        right = sum(p.numel() for p in model.parameters())
        gates = sides * (m + 1) * (shared + dedicated)
        expert = m * hidden + hidden + hidden * out + out
        got = answer(m, hidden, out, shared, dedicated, sides)
        if close(got, right):
            continue
        if close(got, right - gates):
            raise Wrong("the gates have weights, too")
        if close(got, gates + (shared * sides + dedicated * sides) * expert):
            raise Wrong("a shared expert exists once, whatever the number of sides")
        if close(got, gates + (shared + dedicated) * expert):
            raise Wrong("each side has dedicated experts of its own")
        biases = (shared + dedicated * sides) * (hidden + out)
        if close(got, right - biases) or close(got, right - biases - sides * (shared + dedicated)):
            raise Wrong("every linear layer has a bias")
        raise Wrong(
            f"it is another number for m = {m}, {shared} shared, {dedicated} dedicated experts, {sides} sides"
        )


@exercise(4, points=3, title="the right texts at the wrong movies")
def dealt_out(answer: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Rows with a text dealt out among each other; rows without one stay."""
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(60, 3)).astype(np.float32)
    vectors[rng.permutation(60)[:20]] = 0
    has_text, given = vectors.any(axis=1), vectors.copy()
    got = answer(given, 0)
    if not np.array_equal(given, vectors):
        raise Wrong("it changes the table that it was given; make a copy first")
    close(got, vectors)  # numbers, and of this shape
    got = np.asarray(got)
    if np.array_equal(got, vectors):
        raise Wrong("every vector is where it was")
    if not np.array_equal(got.any(axis=1), has_text):
        raise Wrong(
            "a movie without a text gets one, or one with a text loses it: this tells the model who had one"
        )
    if sorted(map(tuple, got)) != sorted(map(tuple, vectors)):
        raise Wrong("the vectors are not the same ones any more; deal out whole rows, each once")
    if (moved := (got != vectors).any(axis=1).sum()) < 30:
        raise Wrong(f"only {moved} of {has_text.sum()} vectors have moved")
    if not np.array_equal(answer(vectors.copy(), 0), got):
        raise Wrong("the same seed must give the same table")
    if np.array_equal(answer(vectors.copy(), 1), got):
        raise Wrong("another seed gives the same table")


@exercise(5, points=3, title="a leak")
def leaking_users(answer: Callable[[pd.DataFrame, pd.DataFrame], Iterable[int]]) -> None:
    """Users with a sample that is not later than all ratings in the prompt."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        prompts = pd.DataFrame(
            {"user_id": rng.integers(8, size=20), "place": rng.integers(0, 9, 20)}
        ).drop_duplicates()
        samples = pd.DataFrame(
            {"user_id": rng.integers(9, size=20), "place": rng.integers(6, 12, 20)}
        ).drop_duplicates()
        pairs = prompts.merge(samples, on="user_id", suffixes=("_prompt", "_sample"))
        right = set(pairs.loc[pairs["place_prompt"] >= pairs["place_sample"], "user_id"])
        got = answer(prompts.copy(), samples.copy())
        if got is None:
            raise Wrong("it gives None; does the function end in `return`?")
        got = {int(user) for user in got}
        if got == right:
            continue
        if got == set(pairs.loc[pairs["place_prompt"] == pairs["place_sample"], "user_id"]):
            raise Wrong("it finds ratings that are both read and predicted; a text may also know later ones")
        if got == set(pairs.loc[pairs["place_prompt"] > pairs["place_sample"], "user_id"]):
            raise Wrong("a rating that is itself in the prompt leaks, too")
        if got - right:
            raise Wrong("it names a user whose text was written from earlier ratings only")
        raise Wrong("it misses a user: one rating in the prompt that is no earlier than one sample is enough")


@exercise(6, title="how often to ask")
def n_requests(answer: Callable[[np.ndarray, np.ndarray], tuple[int, int]]) -> None:
    """Requests to the language model, asked each time and asked once."""
    rng = np.random.default_rng(6)
    for size in (50, 400, 1):
        user, item = rng.integers(12, size=size), rng.integers(30, size=size)
        each, once = 2 * size, len(set(user.tolist())) + len(set(item.tolist()))
        got = answer(user, item)
        if close(got, [each, once]):
            continue
        if close(got[0], size):
            raise Wrong("each time there are two requests, one about the user and one about the movie")
        if close(got[1], len(set(zip(user.tolist(), item.tolist(), strict=True)))):
            raise Wrong("a text about a user serves all movies; pairs need not be asked about")
        if close(got[1], len(set(user.tolist())) * len(set(item.tolist()))):
            raise Wrong("users and movies are asked about separately: add, do not multiply")
        raise Wrong("first the requests for all samples, then those for the users and movies among them")
