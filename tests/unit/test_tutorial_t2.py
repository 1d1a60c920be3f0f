"""The checks of tutorial T2 take right answers and tell typical mistakes apart."""

import numpy as np
import pandas as pd
import pytest
import torch

from rec_utils import classroom
from rec_utils.classroom import Wrong, t2


def prompt_rows(ratings, cap):
    kept = [
        own.sort_values("timestamp").head(min((len(own) + 1) // 2, cap))
        for _, own in ratings.groupby("user_id")
    ]
    return pd.concat(kept)


def pooled(hidden, mask):
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return mean / mean.norm(dim=1, keepdim=True)


def n_weights(m, hidden, out, shared, dedicated, sides):
    expert = (m + 1) * hidden + (hidden + 1) * out
    return (shared + sides * dedicated) * expert + sides * (m + 1) * (shared + dedicated)


def dealt_out(vectors, seed):
    result, rows = vectors.copy(), np.flatnonzero(vectors.any(1))
    result[rows] = vectors[np.random.default_rng(seed).permutation(rows)]
    return result


def leaking_users(prompts, samples):
    last, first = prompts.groupby("user_id")["place"].max(), samples.groupby("user_id")["place"].min()
    both = last.index.intersection(first.index)
    return both[last[both] >= first[both]].tolist()


def n_requests(user, item):
    return 2 * len(user), len(np.unique(user)) + len(np.unique(item))


RIGHT = dict(enumerate((prompt_rows, pooled, n_weights, dealt_out, leaking_users, n_requests), 1))


@pytest.mark.parametrize("number", RIGHT)
def test_a_right_answer_is_right(number, capsys):
    classroom.Sheet("T2").check(number, RIGHT[number])
    assert capsys.readouterr().out.endswith(": right\n")


@pytest.mark.parametrize("number", RIGHT)
def test_no_answer_is_not_attempted(number, capsys):
    def stub(*arguments):
        raise NotImplementedError

    sheet = classroom.Sheet("T2")
    sheet.check(number, stub)
    sheet.check(number, ...)
    assert capsys.readouterr().out.count("not attempted yet\n") == 2


def last_half(ratings, cap):
    return prompt_rows(ratings.assign(timestamp=-ratings["timestamp"]), cap)


def rounded_down(ratings, cap):
    return pd.concat(
        own.sort_values("timestamp").head(min(len(own) // 2, cap)) for _, own in ratings.groupby("user_id")
    )


def without_biases(m, hidden, out, shared, dedicated, sides):
    return (shared + sides * dedicated) * (m + out) * hidden + sides * m * (shared + dedicated)


def only_experts(m, hidden, out, shared, dedicated, sides):
    return (shared + sides * dedicated) * ((m + 1) * hidden + (hidden + 1) * out)


def in_place(vectors, seed):
    vectors[:] = dealt_out(vectors, seed)
    return vectors


def columns(vectors, seed):
    return vectors[:, np.random.default_rng(seed).permutation(vectors.shape[1])[::-1]] * [1, 2, 1]


def strictly_later(prompts, samples):
    pairs = prompts.merge(samples, on="user_id")
    return pairs.loc[pairs["place_x"] > pairs["place_y"], "user_id"].unique()


def everybody_together(prompts, samples):
    return prompts.loc[prompts["place"] >= samples["place"].min(), "user_id"].unique()


def last_against_last(prompts, samples):
    last, first = prompts.groupby("user_id")["place"].max(), samples.groupby("user_id")["place"].max()
    both = last.index.intersection(first.index)
    return both[last[both] >= first[both]].tolist()


WRONG = [
    (t2.prompt_rows, lambda r, cap: prompt_rows(r, 1000), "above the cap"),
    (t2.prompt_rows, lambda r, cap: prompt_rows(r.assign(timestamp=r.index), cap), "first in time"),
    (t2.prompt_rows, last_half, "know the future"),
    (t2.prompt_rows, rounded_down, "with 1 ratings gives 1"),
    (t2.prompt_rows, lambda r, cap: len(r), "rows of the table"),
    (t2.pooled, lambda h, m: (h * m[..., None]).sum(1) / m.sum(1, keepdim=True), "length 1 yet"),
    (t2.pooled, lambda h, m: pooled(h, torch.ones_like(m)), "padding"),
    (t2.pooled, lambda h, m: h[:, 0], "first token"),
    (t2.pooled, lambda h, m: h.mean(-1), "shape"),
    (t2.pooled, lambda h, m: None, "None"),
    (t2.n_weights, only_experts, "gates"),
    (t2.n_weights, without_biases, "bias"),
    (t2.n_weights, lambda m, h, o, s, d, p: n_weights(m, h, o, s, d, 1) + (p - 1) * (m + 1) * (s + d), "own"),
    (t2.n_weights, lambda m, h, o, s, d, p: p * n_weights(m, h, o, s, d, 1), "exists once"),
    (t2.n_weights, lambda m, h, o, s, d, p: m * h * o, "another number"),
    (t2.dealt_out, in_place, "copy"),
    (t2.dealt_out, lambda v, seed: v[np.random.default_rng(seed).permutation(len(v))], "who had one"),
    (t2.dealt_out, columns, "whole rows"),
    (t2.dealt_out, lambda v, seed: v, "where it was"),
    (t2.dealt_out, lambda v, seed: dealt_out(v, 3), "another seed"),
    (t2.dealt_out, lambda v, seed: dealt_out(v, None), "same seed"),
    (t2.leaking_users, strictly_later, "itself in the prompt"),
    (t2.leaking_users, lambda p, s: p.merge(s)["user_id"].unique(), "both read and predicted"),
    (t2.leaking_users, everybody_together, "earlier ratings only"),
    (t2.leaking_users, last_against_last, "misses"),
    (t2.leaking_users, lambda p, s: None, "None"),
    (t2.n_requests, lambda u, i: (len(u), n_requests(u, i)[1]), "two requests"),
    (t2.n_requests, lambda u, i: (2 * len(u), len(set(zip(u, i, strict=True)))), "pairs"),
    (t2.n_requests, lambda u, i: (2 * len(u), len(np.unique(u)) * len(np.unique(i))), "multiply"),
    (t2.n_requests, lambda u, i: len(u), "shape"),
]


@pytest.mark.parametrize(("exercise", "answer", "hint"), WRONG)
def test_a_mistake_is_told(exercise, answer, hint):
    with pytest.raises(Wrong, match=hint):
        exercise.grade(answer)
