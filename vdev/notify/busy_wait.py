"""Looking again and again for a moment before going to sleep: to be woken costs more than most answers take."""

import time
from collections.abc import Callable

__all__ = ["BusyWait"]

_SECONDS = 200e-6
"""Longer than it takes to wake the other side and have its answer: shorter, and two that sleep never come together."""
_MOST_SKIPPED = 256


class BusyWait:
    """A bounded busy wait that is given up where it does not pay.

    It lasts at most `seconds` of `clock`. Each time that it was in vain, twice as many are left out before the next
    try, up to 256: where both ends share a core, or answers are slow, it soon costs nothing.
    """

    def __init__(self, seconds: float = _SECONDS, clock: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._clock = clock
        self._left_out_count = 0
        self._next_left_out_count = 1

    def until(self, condition: Callable[[], bool]) -> bool:
        """Look at `condition` until it is true; false if it has not become so in time. `condition` must be quick."""
        if condition():
            return True
        if self._left_out_count:
            self._left_out_count -= 1
            return False
        clock = self._clock
        deadline = clock() + self._seconds
        while clock() < deadline:
            if condition():
                self._next_left_out_count = 1
                return True
        self._left_out_count = self._next_left_out_count
        self._next_left_out_count = min(2 * self._next_left_out_count, _MOST_SKIPPED)
        return False
