"""The phases of a migration as a table, and the decision when to stop the guest. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from vdev.memory import PAGE_SIZE

__all__ = ["PHASES", "Decision", "Limits", "Phase", "RateMeter", "decide", "expected_downtime"]


_TELLING_SECONDS = 0.1


class Phase(StrEnum):
    """What the source is doing."""

    NEW = "new"
    SET_UP = "set-up"
    BULK = "bulk"
    ROUNDS = "rounds"
    STOP_AND_COPY = "stop-and-copy"
    HAND_OVER = "hand-over"
    COMPLETED = "completed"
    FAILED = "failed"


PHASES: Mapping[Phase, frozenset[Phase]] = {
    Phase.NEW: frozenset({Phase.SET_UP}),
    Phase.SET_UP: frozenset({Phase.BULK, Phase.FAILED}),
    Phase.BULK: frozenset({Phase.ROUNDS, Phase.STOP_AND_COPY, Phase.FAILED}),
    Phase.ROUNDS: frozenset({Phase.STOP_AND_COPY, Phase.FAILED}),
    Phase.STOP_AND_COPY: frozenset({Phase.HAND_OVER, Phase.FAILED}),
    Phase.HAND_OVER: frozenset({Phase.COMPLETED, Phase.FAILED}),
    Phase.COMPLETED: frozenset(),
    Phase.FAILED: frozenset(),
}
"""Phase -> the phases that may follow."""


@dataclass(frozen=True)
class Limits:
    """What a migration may take.

    `bandwidth` is bytes per second while the guest runs, None for all the link gives; while the guest is stopped there
    is no limit, as in QEMU, for then nobody gains by waiting. `downtime` is seconds. After `max_rounds` passes (the
    bulk stage is the first) the guest is stopped whatever is left: one that writes faster than the link carries would
    otherwise never move. The downtime is then longer than its limit, and the figures say `converged` false.
    """

    bandwidth: float | None = None
    downtime: float = 0.3
    max_rounds: int = 30

    def __post_init__(self) -> None:
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise ValueError(f"a bandwidth limit of {self.bandwidth} bytes per second")
        if self.downtime < 0 or self.max_rounds < 1:
            raise ValueError(f"a downtime limit of {self.downtime} s, {self.max_rounds} rounds")


class Decision(StrEnum):
    """What follows after a pass and its sync."""

    ANOTHER_ROUND = "another round"
    STOP = "stop: the rest fits the downtime limit"
    STOP_UNCONVERGED = "stop: out of rounds"


class RateMeter:
    """Bytes per second that the link carries, from the last pass that was long enough to tell."""

    def __init__(self) -> None:
        self.bytes_per_second = 0.0
        self._size = 0
        self._seconds = 0.0

    def add(self, size: int, seconds: float) -> None:
        """Take note of a part of a pass in which the link had work."""
        self._size += size
        self._seconds += seconds

    def end_pass(self, size: int, seconds: float) -> None:
        """Judge the pass. Less than 100 ms of work says little, and counts only while nothing better is known.

        `size` and `seconds` are the whole pass's, for a pass in which the link never had work.
        """
        measured = (self._size, self._seconds) if self._seconds > 0 else (size, seconds)
        if measured[1] >= _TELLING_SECONDS or (not self.bytes_per_second and measured[1] > 0):
            self.bytes_per_second = measured[0] / measured[1]
        self._size, self._seconds = 0, 0.0


def expected_downtime(remaining_count: int, bytes_per_second: float) -> float:
    """Return the seconds that the remaining pages would take: remaining bytes over measured bandwidth."""
    if not remaining_count:
        return 0.0
    return remaining_count * PAGE_SIZE / bytes_per_second if bytes_per_second > 0 else float("inf")


def decide(limits: Limits, remaining_count: int, bytes_per_second: float, round_count: int) -> Decision:
    """Say what follows after `round_count` passes, with `remaining_count` pages to send.

    >>> decide(Limits(), remaining_count=100, bytes_per_second=1e9, round_count=1).name
    'STOP'
    """
    if expected_downtime(remaining_count, bytes_per_second) <= limits.downtime:
        return Decision.STOP
    return Decision.ANOTHER_ROUND if round_count < limits.max_rounds else Decision.STOP_UNCONVERGED
