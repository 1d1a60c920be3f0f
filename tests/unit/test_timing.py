"""Paired timing with a clock of our own, and once with the real one."""

import time

import pytest
import torch

from rec_utils import timing
from rec_utils.errors import UserError
from rec_utils.timing import paired_ratios


class Clock:
    """Time that passes only when a job says so; every job notes its name."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(timing, "clock", lambda: self.now)

    def job(self, name, *seconds):
        """A job whose n-th call takes the n-th of `seconds`, the last one from then on."""

        def call():
            turn = self.calls.count(name)
            self.calls.append(name)
            self.now += seconds[min(turn, len(seconds) - 1)]

        return call


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_the_ratio_is_that_of_the_time_taken(clock):
    ratios = paired_ratios({"one": clock.job("one", 2.0), "three": clock.job("three", 6.0)}, 10)
    for name, expected in (("one", 1), ("three", 3)):
        ratio = ratios[name]
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx((expected, expected, expected))
        assert (ratio.n, ratio.level) == (10, 0.95)


def test_two_calls_to_warm_up_and_a_few_slow_rounds_do_not_count(clock):
    slow_start = clock.job("a", 50.0, 50.0, 1.0)
    hiccups = clock.job("b", 1.0, 1.0, 99.0, 99.0, 99.0, 3.0)
    ratios = paired_ratios({"a": slow_start, "b": hiccups}, 20)
    assert ratios["b"].value == pytest.approx(3)
    assert ratios["b"].high == pytest.approx(3)


def test_the_interval_holds_what_the_rounds_scatter(clock):
    times = [2.0, 2.0, *([2.0, 4.0] * 20)]
    wide = paired_ratios({"a": clock.job("a", 1.0), "b": clock.job("b", *times)}, 40)["b"]
    assert (wide.low, wide.high) == (2, 4)
    assert 2 < wide.value < 4
    narrow = paired_ratios({"c": clock.job("c", 1.0), "d": clock.job("d", *times)}, 40, level=0.05)["d"]
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    assert narrow.high - narrow.low < wide.high - wide.low


def test_functions_take_turns_in_changing_order(clock):
    jobs = {name: clock.job(name, 1.0) for name in "abc"}
    paired_ratios(jobs, 30, seed=1)
    rounds = [tuple(clock.calls[k : k + 3]) for k in range(0, 96, 3)]
    assert len(clock.calls) == 96
    assert all(set(played) == set("abc") for played in rounds)
    assert len(set(rounds[2:])) == 6
    first = clock.calls[:]
    clock.calls.clear()
    paired_ratios(jobs, 30, seed=1)
    assert clock.calls == first


def test_real_work_that_takes_three_times_as_long():
    ratios = paired_ratios({"one": lambda: sum(range(200_000)), "three": lambda: sum(range(600_000))}, 15)
    assert 2 < ratios["three"].value < 4
    assert (ratios["one"].value, ratios["one"].low, ratios["one"].high) == (1, 1, 1)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a GPU's work is timed by the clock")
def test_waiting_for_others_does_not_count():
    def waits():
        time.sleep(0.02)
        return sum(range(200_000))

    assert paired_ratios({"works": lambda: sum(range(200_000)), "waits": waits}, 15)["waits"].value < 2


def test_torch_has_one_thread_while_timing_and_its_own_number_afterwards():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = []
        paired_ratios({"a": lambda: seen.append(torch.get_num_threads())}, 2)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError):
            paired_ratios({"a": lambda: 1 / 0}, 2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_one_round_is_too_few():
    with pytest.raises(UserError, match="repeats must be at least 2, not 1"):
        paired_ratios({"a": print}, 1)
