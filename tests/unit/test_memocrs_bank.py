"""MemoCRS' memory bank: add, merge, retrieve, delete with a budget, many users, saved and loaded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_utils.errors import UserError
from rec_utils.papers.memocrs_bank import MemoryBank, MemoryBanks, merge, opinion


def by_letters(queries, entities):
    """Likeness: letters in common."""
    return np.array([[len(set(q) & set(e)) for e in entities] for q in queries])


@pytest.mark.parametrize(
    ("attitude", "expected"),
    [
        ("likes", 1), ("Loves it: tense", 1), ("wants to see", 1), ("dislikes: slow", -1), ("hated it", -1),
        ("no opinion", 0), ("", 0), ("unlike the others", 0),
    ],
)  # fmt: skip
def test_opinions_are_read_from_the_first_words(attitude, expected):
    assert opinion(attitude) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("likes", "likes: tense", "likes: tense"),
        ("likes", "no opinion", "likes"),
        ("no opinion", "dislikes", "dislikes"),
        ("likes: old", "dislikes", "dislikes (earlier: likes: old)"),
        ("dislikes (earlier: likes)", "wants to see", "wants to see (earlier: dislikes)"),
        ("wants to see", "likes", "likes"),
    ],
)
def test_a_merged_attitude_is_the_newer_one_and_tells_of_a_change(old, new, expected):
    assert merge(old, new) == expected


def test_writing_adds_and_merges_and_forgets_what_says_nothing():
    bank = MemoryBank()
    bank.write([("Heat", "likes"), ("Up", "no opinion")], 3)
    bank.write([("Heat", "dislikes"), ("Jaws", "likes")], 8)
    kept = {name: (entry.attitude, entry.time) for name, entry in bank.entries.items()}
    assert kept == {"Heat": ("dislikes (earlier: likes)", 8), "Jaws": ("likes", 8)}
    with pytest.raises(UserError, match=r"used at time 8, so time 7 is in its past"):
        bank.write([], 7)


def test_retrieval_takes_k_a_query_and_touches_only_these():
    bank = MemoryBank()
    bank.write([("abc", "likes"), ("abd", "likes"), ("xyz", "likes"), ("q", "likes")], 1)
    found = bank.retrieve(["ab", "x"], 1, by_letters, 5)
    assert [entry.entity for entry in found] == ["abd", "xyz"], "of equals the one touched last"
    assert {name: entry.time for name, entry in bank.entries.items()} == {
        "abc": 1,
        "q": 1,
        "abd": 5,
        "xyz": 5,
    }
    assert bank.retrieve(["!"], 3, by_letters, 6) == []
    assert [e.entity for e in bank.retrieve([], 3, by_letters, 6)] == ["q", "abd", "xyz"], (
        "those touched last"
    )
    assert MemoryBank().retrieve(["ab"], 3, by_letters, 0) == [], "a cold start"


def test_what_was_not_touched_for_longest_is_deleted_first():
    bank = MemoryBank(budget=2)
    bank.write([("a", "likes"), ("b", "likes")], 1)
    bank.retrieve(["a"], 1, by_letters, 2)
    bank.write([("c", "likes")], 3)
    assert list(bank.entries) == ["a", "c"]
    with pytest.raises(UserError, match="at least 1 entry, not 0"):
        MemoryBank(budget=0)


NAMES = st.sampled_from(["ab", "bc", "cd", "de", "ea", "xy"])
WRITE = st.tuples(
    st.just("write"), st.lists(st.tuples(NAMES, st.sampled_from(["likes", "dislikes"])), max_size=4)
)
READ = st.tuples(st.just("retrieve"), st.lists(NAMES, max_size=2))


@settings(max_examples=60, deadline=None)
@given(st.lists(WRITE | READ, max_size=12), st.sampled_from([None, 1, 3]), st.integers(1, 3))
def test_any_run_of_operations_keeps_the_rules(operations, budget, k):
    bank, touched = MemoryBank(budget), {}
    for time, (kind, names) in enumerate(operations):
        if kind == "write":
            bank.write(names, time)
            touched |= {name: time for name, _ in names}
        else:
            likeness = by_letters(names, list(bank.entries)) if bank.entries else None
            found = bank.retrieve(names, k, by_letters, time)
            touched |= {entry.entity: time for entry in found}
            if names and likeness is not None:
                assert all(any(set(e.entity) & set(q) for q in names) for e in found)
                wanted = sum(min(k, int((row > 0).sum())) for row in likeness)
                assert len(found) <= wanted and (len(found) > 0) == (wanted > 0)
        times = [entry.time for entry in bank.entries.values()]
        assert times == sorted(times)
        assert all(entry.time == touched[name] for name, entry in bank.entries.items())
        # whatever is missing was not touched later than anything that is there
        lost = [time for name, time in touched.items() if name not in bank.entries]
        assert not lost if budget is None else len(bank) <= budget
        assert not lost or max(lost) <= min(times, default=max(lost))


def test_users_do_not_mix_and_survive_a_file(tmp_path):
    banks = MemoryBanks(budget=5)
    banks[3].write([("Heat", "likes")], 1)
    banks[8].write([("Amélie", "dislikes")], 2)
    banks[3].retrieve(["Heat"], 1, by_letters, 4)
    assert list(banks[3].entries) == ["Heat"] and list(banks[8].entries) == ["Amélie"]
    path = tmp_path / "deep" / "memory.json"
    banks.save(path)
    loaded = MemoryBanks.load(path)
    assert loaded == banks
    loaded[3].write([("Up", "likes")], 5)
    assert "Up" not in banks[3].entries
    with pytest.raises(UserError, match="time 3 is in its past"):
        loaded[3].write([], 3)


@pytest.mark.parametrize("content", ["", "[]", '{"budget": 1}', '{"budget": 1, "banks": {"3": {"now": 1}}}'])
def test_a_file_that_holds_something_else_is_refused(tmp_path, content):
    path = tmp_path / "memory.json"
    with pytest.raises(UserError, match="There is no memory at"):
        MemoryBanks.load(path)
    path.write_text(content)
    with pytest.raises(UserError, match="holds no memory banks"):
        MemoryBanks.load(path)
