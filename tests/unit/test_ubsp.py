"""UBSP: partitions of random streams, the same in any chunking and all at once; nothing of the future."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_ratings import random_dataset

from rec_utils import files
from rec_utils.errors import UserError
from rec_utils.papers.ubsp import (
    Behaviour,
    Condition,
    Partition,
    Stream,
    check_closed_before,
    of_task,
    partition,
    seen_by,
)
from rec_utils.samples import ctr_task
from rec_utils.splits import LeakError

counts, gaps = st.integers(1, 5), st.integers(1, 6)
conditions = st.one_of(
    st.builds(Condition, count=counts),
    st.builds(Condition, gap=gaps),
    st.builds(Condition, count=counts, gap=gaps),
)
#: The user of each behaviour, and the seconds since the one before it, whoever's that was.
arrivals = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=50)


def stream_of(arrived):
    """(user, behaviour) pairs in order of arrival; the item is the place in the stream."""
    times = np.cumsum([wait for _, wait in arrived], dtype=int).tolist()
    return [(user, Behaviour(n, 1 + n % 5, times[n])) for n, (user, _) in enumerate(arrived)]


histories = arrivals.map(stream_of)


def at_once(history, condition):
    """The behaviours user by user, and their `Partitions`."""
    table = sorted(history, key=lambda pair: pair[0])
    user_row = np.array([user for user, _ in table], int)
    time = np.array([behaviour.time for _, behaviour in table], int)
    return table, partition(user_row, time, condition)


def seen(table, partitions, row):
    """The behaviours in each partition that the rating at `row` sees."""
    numbers = partitions.rows[table[row][0], : partitions.closed[row]]
    spans = zip(partitions.start[numbers], partitions.end[numbers], strict=True)
    return [tuple(behaviour for _, behaviour in table[start:end]) for start, end in spans]


# The stream


@pytest.mark.parametrize(
    ("condition", "lengths"),
    [
        (Condition(count=2), [0, 2, 0, 2, 0, 2]),
        (Condition(count=1), [1, 1, 1, 1, 1, 1]),
        (Condition(gap=5), [0, 0, 0, 3, 0, 2]),
        (Condition(gap=9), [0, 0, 0, 0, 0, 5]),
        (Condition(gap=10), [0, 0, 0, 0, 0, 0]),
        (Condition(count=2, gap=5), [0, 2, 0, 1, 2, 0]),
    ],
    ids=str,
)
def test_length_of_the_partition_that_each_behaviour_closes(condition, lengths):
    stream = Stream(condition)
    closed = [stream.append(7, Behaviour(1, 3.0, time)) for time in (0, 1, 2, 10, 11, 20)]
    assert [len(part.behaviours) if part else 0 for part in closed] == lengths


@settings(deadline=None)
@given(history=histories, condition=conditions)
def test_partitions_and_cache_are_the_history_cut_where_the_condition_says(history, condition):
    stream = Stream(condition)
    closed = stream.extend(history)
    for user in range(4):
        own = [part for part in closed if part.user == user]
        pieces = [*(part.behaviours for part in own), stream.cache(user)]
        assert sum(pieces, ()) == tuple(behaviour for of, behaviour in history if of == user)
        assert [part.number for part in own] == list(range(len(own)))
        assert [part.start for part in own] == np.cumsum([0, *map(len, pieces)])[: len(own)].tolist()
        assert len(pieces[-1]) != condition.count
        for piece, following in pairwise(pieces):
            waited = following[0].time - piece[-1].time if following else 0
            assert len(piece) == condition.count or waited >= condition.gap
        for piece in pieces:
            assert len(piece) <= (condition.count or len(history))
            if condition.gap:
                assert all(after.time - before.time < condition.gap for before, after in pairwise(piece))


@settings(deadline=None)
@given(
    history=histories,
    condition=conditions,
    cuts=st.sets(st.integers(0, 50)),
    saves=st.sets(st.integers(0, 50)),
)
def test_neither_chunks_nor_saving_change_anything(tmp_path_factory, history, condition, cuts, saves):
    path = tmp_path_factory.mktemp("stream") / "state.json"
    whole, chunked = Stream(condition), Stream(condition)
    expected, found = whole.extend(history), []
    for start, end in pairwise([0, *sorted(cuts | saves), len(history)]):
        found += chunked.extend(history[start:end])
        if end in saves:
            chunked.save(path)
            chunked = Stream.load(path)
    assert found == expected
    assert chunked.condition == condition
    assert [chunked.cache(user) for user in range(5)] == [whole.cache(user) for user in range(5)]


# All ratings at once


@settings(deadline=None)
@given(history=histories, condition=conditions)
def test_a_table_has_the_partitions_of_the_stream(history, condition):
    stream, so_far, before, expected = Stream(condition), Counter(), {}, []
    for user, behaviour in history:
        before[behaviour] = so_far[user]
        if closed := stream.append(user, behaviour):
            so_far[user] += 1
            expected.append(closed)

    table, found = at_once(history, condition)
    assert found.closed.tolist() == [before[behaviour] for _, behaviour in table]
    first = [user for user, _ in table].index
    as_streamed = [
        Partition(user, number, start - first(user), tuple(behaviour for _, behaviour in table[start:end]))
        for user, number, start, end in zip(found.user_row, found.number, found.start, found.end, strict=True)
    ]
    assert as_streamed == sorted(expected, key=lambda part: (part.user, part.number))
    rows = np.full((1 + max((user for user, _ in history), default=-1), max([1, *so_far.values()])), -1)
    for row, part in enumerate(as_streamed):
        rows[part.user, part.number] = row
    np.testing.assert_array_equal(found.rows, rows)


@settings(deadline=None)
@given(past=arrivals, user=st.integers(0, 3), futures=st.tuples(arrivals, arrivals), condition=conditions)
def test_a_sample_sees_what_was_closed_before_it_whatever_comes_then(past, user, futures, condition):
    stream = Stream(condition)
    expected = [part.behaviours for part in stream.extend(stream_of(past)) if part.user == user]
    for wait, future in enumerate(futures):
        table, partitions = at_once(stream_of([*past, (user, 9 * wait), *future]), condition)
        (row,) = (row for row, (_, behaviour) in enumerate(table) if behaviour.item == len(past))
        assert seen(table, partitions, row) == expected


@settings(deadline=None)
@given(history=histories, condition=conditions, chosen=st.sets(st.integers(0, 49)))
def test_what_no_sample_sees_is_left_out_and_the_rest_stays(history, condition, chosen):
    table, partitions = at_once(history, condition)
    position = np.array([row for row in sorted(chosen) if row < len(table)], int)
    user_row = np.array([table[row][0] for row in position], int)
    kept = seen_by(partitions, user_row, position)
    check_closed_before(kept, user_row, position)
    sights = [seen(table, partitions, row) for row in position]
    assert [seen(table, kept, row) for row in position] == sights
    assert not np.delete(kept.closed, position).any()
    assert len(kept.start) == len({behaviours for sight in sights for behaviours in sight})
    assert kept.rows.shape == (len(partitions.rows), max([1, *map(len, sights)]))
    of_row = {
        (user, number): row for row, (user, number) in enumerate(zip(kept.user_row, kept.number, strict=True))
    }
    assert {place: row for place, row in np.ndenumerate(kept.rows) if row >= 0} == of_row


def test_a_sample_of_a_task_sees_the_partitions_that_its_place_allows():
    """With K ratings a partition, floor(t / K) of them are closed before the rating at place t."""
    task = ctr_task(random_dataset(n_each=17), history_length=1, max_samples_per_user=5)
    partitions, places = of_task(task, Condition(count=3)), task.ratings["place"].to_numpy()
    position = task.samples.position.numpy()
    np.testing.assert_array_equal(partitions.closed[position], places[position] // 3)
    assert set(partitions.closed[position]) == {3, 4}
    of_user, number = partitions.user_row.tolist(), partitions.number.tolist()
    assert list(zip(of_user, number, strict=True)) == [(user, n) for user in range(12) for n in range(4)]
    np.testing.assert_array_equal(places[partitions.start], 3 * partitions.number)
    np.testing.assert_array_equal(partitions.end, partitions.start + 3)


# No partition of the future, nor of another user


@settings(deadline=None)
@given(history=histories.filter(len), count=counts, data=st.data())
def test_one_partition_too_many_is_found_and_named(history, count, data):
    table, partitions = at_once(history, Condition(count=count))
    position = np.arange(len(table))
    user_row = np.array([user for user, _ in table])
    row = data.draw(st.sampled_from(position))
    wrong = replace(partitions, closed=partitions.closed + (position == row))
    with pytest.raises(LeakError, match=rf"sample {row} \(user row {table[row][0]}, rating {row}\)"):
        check_closed_before(wrong, user_row, position)
    others = np.flatnonzero(position != row)
    check_closed_before(wrong, user_row[others], position[others])


@pytest.mark.parametrize("number", [0, 1])
def test_a_partition_of_another_user_is_found(number):
    """Three users with 5 ratings each, closed in pairs; one row of user 1 points to user 0's."""
    user_row, position = np.repeat(np.arange(3), 5), np.arange(15)
    partitions = partition(user_row, np.zeros(15), Condition(count=2))
    check_closed_before(partitions, user_row, position)
    partitions.rows[1, number] = partitions.rows[0, number]
    with pytest.raises(LeakError, match=rf"sample {5 + 2 * (number + 1)} \(user row 1, "):
        check_closed_before(partitions, user_row, position)


# Mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a count, a gap or both"),
        ({"count": 0}, "count must be a whole number from 1 on, not 0"),
        ({"count": 3, "gap": -1}, "gap must be a whole number from 1 on, not -1"),
        ({"count": 2.5}, "count must be .* not 2.5"),
        ({"count": True}, "count must be .* not True"),
        ({"gap": "3"}, "gap must be .* not '3'"),
    ],
    ids=str,
)
def test_a_condition_that_means_nothing_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Condition(**settings)


def test_a_table_must_stand_user_by_user():
    with pytest.raises(UserError, match="user by user"):
        partition(np.array([0, 1, 0]), np.arange(3), Condition(count=2))


def test_time_that_runs_backwards_matters_to_a_gap_alone():
    history = [(0, Behaviour(item, 3.0, time)) for item, time in enumerate([100, 105, 98])]
    stream = Stream(Condition(gap=50))
    with pytest.raises(UserError, match="user 0: a behaviour is 7 s older"):
        stream.extend(history)
    assert len(stream.cache(0)) == 2
    with pytest.raises(UserError, match="user row 0: rating 2 is older"):
        at_once(history, Condition(count=9, gap=50))
    assert len(Stream(Condition(count=3)).extend(history)) == 1
    assert at_once(history, Condition(count=3))[1].end.tolist() == [3]
    # another user's clock says nothing
    at_once([(0, Behaviour(0, 3.0, 100)), (1, Behaviour(1, 3.0, 5))], Condition(gap=50))


SAVED = {"condition": {"count": 3, "gap": None}, "users": {"7": [1, 3, [[1, 4.5, 100]]]}}


def test_a_saved_state_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(SAVED))
    stream = Stream.load(path)
    assert stream.cache(7) == (Behaviour(1, 4.5, 100),)
    closed = stream.extend([(7, Behaviour(2, 3.0, 101)), (7, Behaviour(3, 2.0, 102))])
    assert [(part.user, part.number, part.start) for part in closed] == [(7, 1, 3)]


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        json.dumps(SAVED)[:-5],
        "[]",
        json.dumps({"users": {}}),
        json.dumps(SAVED | {"condition": {"count": 0}}),
        json.dumps(SAVED | {"condition": {"size": 3}}),
        json.dumps(SAVED | {"users": []}),
        json.dumps(SAVED | {"users": {"Ann": [0, 0, []]}}),
        json.dumps(SAVED | {"users": {"7": [0, 0]}}),
        json.dumps(SAVED | {"users": {"7": [0, 0, [[1, 4.5]]]}}),
        json.dumps(SAVED | {"users": {"7": [0, 0, [[1, 4.5, "noon"]]]}}),
    ],
)
def test_a_damaged_state_is_refused_and_its_file_named(tmp_path, damaged):
    path = tmp_path / "state.json"
    path.write_text(damaged)
    with pytest.raises(UserError, match=r"state\.json does not hold the state of a stream"):
        Stream.load(path)


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(UserError, match=r"state\.json: no saved stream"):
        Stream.load(tmp_path / "state.json")


def test_a_failed_save_leaves_the_last_one(tmp_path, monkeypatch):
    path, stream = tmp_path / "state.json", Stream(Condition(count=3))
    stream.append(7, Behaviour(1, 4.5, 100))
    stream.save(path)
    saved = path.read_text()
    stream.append(7, Behaviour(2, 4.5, 101))

    def full_disk(handle):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(UserError, match="no space left while writing"):
        stream.save(path)
    assert path.read_text() == saved
    assert list(tmp_path.iterdir()) == [path]
