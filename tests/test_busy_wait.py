"""A busy wait is bounded, and given up where it does not pay."""

from itertools import pairwise

import pytest

from vdev.notify import BusyWait


class Clock:
    """Moves by one at each look."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


def looks_of(busy_wait, answer_at=None):
    """Wait for a condition that is true from its `answer_at`-th look on; return the answer and the number of looks."""
    looks = 0

    def condition():
        nonlocal looks
        looks += 1
        return answer_at is not None and looks >= answer_at

    return busy_wait.until(condition), looks


def test_what_is_there_already_is_not_waited_for():
    assert looks_of(BusyWait(10, Clock()), answer_at=1) == (True, 1)


def test_what_comes_in_time_is_seen_at_once():
    assert looks_of(BusyWait(10, Clock()), answer_at=5) == (True, 5)


def test_the_wait_ends_when_its_time_is_over():
    assert looks_of(BusyWait(10, Clock())) == (False, 10)


def test_waits_in_vain_are_left_out_ever_more_often_but_never_for_good():
    busy_wait = BusyWait(10, Clock())
    waited = [looks_of(busy_wait)[1] > 1 for _ in range(2000)]
    tries = [number for number, was_tried in enumerate(waited) if was_tried]
    gaps = [later - earlier - 1 for earlier, later in pairwise(tries)]
    assert gaps[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(gaps[9:]) == {256}


def test_a_wait_that_paid_is_tried_every_time_again():
    busy_wait = BusyWait(10, Clock())
    for _ in range(8):
        looks_of(busy_wait)
    while looks_of(busy_wait, answer_at=3) != (True, 3):
        pass
    assert [looks_of(busy_wait, answer_at=3) for _ in range(5)] == [(True, 3)] * 5


def test_what_is_there_is_seen_even_while_waits_are_left_out():
    busy_wait = BusyWait(10, Clock())
    looks_of(busy_wait)
    assert looks_of(busy_wait, answer_at=1) == (True, 1)


@pytest.mark.parametrize("seconds", [0, 1e-9])
def test_no_time_is_one_look(seconds):
    assert looks_of(BusyWait(seconds, Clock())) == (False, 1)
