"""Cost of LIBER: closed forms against a stream that is played through call by call, measured tokens."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_utils import data
from rec_utils.errors import UserError
from rec_utils.knowledge.encoder import token_counts
from rec_utils.knowledge.prompts import interest_shift, interest_summary
from rec_utils.knowledge.request import Response
from rec_utils.papers.liber_cost import Tokens, growth, over_stream, totals
from rec_utils.papers.ubsp import Behaviour, Condition, Stream

TOKENS = Tokens(behaviour=7, summary_prompt=100, summary=90, shift_prompt=80, shift=50)
POLICIES = ["LIBER", "whole history", "every behaviour", "once"]


def places(users):
    """Place of each behaviour in its user's history."""
    return pd.Series(users).groupby(users).cumcount().to_numpy()


def played(users, count, tokens):
    """The calls of each policy as (prompt, answer) in tokens, after every behaviour of a stream."""
    stream, seen = Stream(Condition(count=count)), dict.fromkeys(users, 0)
    calls, states = {policy: [] for policy in POLICIES}, []

    def summarise(policy, n):
        calls[policy].append((tokens.summary_prompt + n * tokens.behaviour, tokens.summary))

    for user in users:
        seen[user] += 1
        partition = stream.append(user, Behaviour(0, 5.0, 0))
        if partition:
            summarise("LIBER", len(partition.behaviours))
            summarise("whole history", seen[user])
            if partition.number > 0:
                calls["LIBER"].append((tokens.shift_prompt + 2 * tokens.summary, tokens.shift))
            else:
                summarise("once", count)
        if seen[user] >= count:
            summarise("every behaviour", seen[user])
        states.append({policy: list(made) for policy, made in calls.items()})
    return states


streams = st.lists(st.integers(0, 4), min_size=1, max_size=80)
some_tokens = st.builds(Tokens, *[st.integers(0, 500)] * 5)


@settings(deadline=None)
@given(streams, st.integers(1, 9), some_tokens)
def test_costs_are_those_of_a_stream_played_through(users, count, tokens):
    states = played(users, count, tokens)
    curves = over_stream(places(users), count, tokens, points=len(users)).set_index("policy")
    table = totals(np.bincount(users), count, tokens)
    assert curves.index.unique().tolist() == table.index.tolist() == POLICIES
    for policy in POLICIES:
        curve = curves.loc[[policy]]
        assert curve["behaviours"].tolist() == list(range(1, len(users) + 1))
        assert curve["calls"].tolist() == [len(state[policy]) for state in states]
        assert curve["tokens"].tolist() == [sum(map(sum, state[policy])) for state in states]
        read, written = np.array(states[-1][policy]).reshape(-1, 2).T
        assert table.loc[policy].tolist() == [len(read), read.sum(), written.sum(), read.max(initial=0)]


@pytest.mark.parametrize("count", [20, 50, 100, 200])
def test_the_calls_of_liber_are_twice_the_partitions_less_the_users_with_one(count):
    lengths = data.load("ml-latest-small").interactions["user_id"].value_counts().to_numpy()
    partitions, with_one = (lengths // count).sum(), (lengths >= count).sum()
    calls = totals(lengths, count, TOKENS)["calls"]
    assert calls["LIBER"] == 2 * partitions - with_one
    assert (calls["whole history"], calls["once"]) == (partitions, with_one)


def test_a_curve_is_told_at_a_few_moments_up_to_the_last():
    users = np.random.default_rng(0).integers(5, size=3000)
    curves, every = (over_stream(places(users), 10, TOKENS, points=points) for points in (40, 3000))
    for policy, curve in curves.groupby("policy"):
        assert (curve["behaviours"].iloc[[0, -1]] == [1, 3000]).all() and len(curve) == 40
        exact = every[every["policy"] == policy].set_index("behaviours").loc[curve["behaviours"]]
        np.testing.assert_array_equal(curve["tokens"], exact["tokens"])
    last = curves.groupby("policy", sort=False)["tokens"].last()
    table = totals(np.bincount(users), 10, TOKENS)
    assert last.tolist() == (table["tokens read"] + table["tokens written"]).tolist()


def test_tokens_grow_linearly_under_liber_and_with_the_square_when_histories_are_read_again():
    long = growth(50 * np.array([1000, 2000, 4000]), 50, TOKENS)
    assert long.round(2).to_dict() == {"LIBER": 1, "whole history": 2, "every behaviour": 2, "once": 0}
    free = replace(TOKENS, shift_prompt=0, summary=0, shift=0)
    assert growth(np.array([50, 100, 350]), 50, free)["LIBER"] == pytest.approx(1), "from the first on"


@pytest.mark.parametrize("lengths", [[100], [100, 100], [49, 100]])
def test_growth_needs_two_lengths_that_hold_a_partition(lengths):
    with pytest.raises(UserError, match="two lengths or more, from 50 on"):
        growth(np.array(lengths), 50, TOKENS)


def test_a_partition_needs_a_size():
    with pytest.raises(UserError, match="count must be a whole number"):
        totals(np.array([3]), 0, TOKENS)


# Measured tokens


def stored(n_users=3, n_each=3, count=4):
    """Summaries and shifts of partitions of films, with titles and answers of many lengths."""
    rng = np.random.default_rng(0)

    def text(n):
        return " ".join(rng.choice(["war", "love", "heist", "noir"], n))

    answers = []
    for _ in range(n_users):
        summaries = []
        for _ in range(n_each):
            films = [(f"{text(rng.integers(1, 6))} (1999)", 4.5) for _ in range(count)]
            summaries.append(Response(interest_summary(films), text(rng.integers(20, 40)), "m"))
        shifts = [interest_shift(before.text, now.text) for before, now in pairwise(summaries)]
        answers += [*summaries, *(Response(shift, text(rng.integers(9, 19)), "m") for shift in shifts)]
    return answers


def test_measured_tokens_give_back_what_was_read_and_written():
    answers = stored()
    table = totals(np.full(3, 12), 4, Tokens.measured(answers, 4)).loc["LIBER"]
    assert table["calls"] == len(answers)
    prompts = [f"{a.request.system}\n{a.request.prompt}" for a in answers]
    assert table["tokens read"] == pytest.approx(token_counts(prompts).sum())
    assert table["tokens written"] == pytest.approx(token_counts([a.text for a in answers]).sum())


def test_measured_parts_are_those_of_the_requests():
    summary = Response(interest_summary([("Heat (1995)", 4.5)] * 4), "crime and cities", "m")
    shift = Response(interest_shift(summary.text, summary.text), "none", "m")
    parts = [summary.request.system, f"{shift.request.system} Before: Now:", "Heat (1995) 4.5;" * 4]
    system, asked, rated = token_counts(parts)
    tokens = Tokens.measured(iter([summary, shift]), 4)
    assert tokens == Tokens((rated - 1) / 4, system, 3, asked, 1), "no semicolon after the last film"


@pytest.mark.parametrize("answers", [[], stored(n_each=1)])
def test_tokens_of_shifts_are_not_made_up(answers):
    with pytest.raises(UserError, match="there is no summary or no shift"):
        Tokens.measured(answers, 4)
