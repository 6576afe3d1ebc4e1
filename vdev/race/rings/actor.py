"""One side of a race, as a graph of points: what it does next, and where it stands after each value that it may read.

The code of a side is deterministic: where it is follows from the values that its loads returned. So a side needs no
thread, and nothing has to be taken back: to learn what it does after one more value its program is run again, alone,
with all the values so far, up to its next load. Each point is found out once and used by all interleavings.

Where a program says that its state is so and so and nothing else (`mark`), points that are reached with equal states
are one, whatever was read before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b

from vdev.errors import VdevError
from vdev.race.rings.programs import Wrong

__all__ = ["Actor", "Execution", "Kind", "Point"]

_LOAD_LIMIT = 4_000
"""Loads of one execution, a few times what 64 buffers need: code that does more does not come to an end."""


class Kind(IntEnum):
    """What an actor does at a point."""

    LOAD = 0
    STORE = 1
    FENCE = 2
    NOTIFY = 3
    SLEEP = 4
    END = 5
    BROKEN = 6


@dataclass(slots=True)
class Point:
    """Where an actor stands: what it does next, and the point after it (for a load, by the value read).

    `offset` and `size` are those of an access, `value` is what is stored. Before a sleep and at the end, `taken` and
    `given` are the buffers that were taken from the other side, and given to it. A broken property has its name and
    a `message`. `log` has the values of all loads before.
    """

    kind: Kind
    offset: int = 0
    size: int = 0
    value: int = 0
    taken: int = 0
    given: int = 0
    broken: str = ""
    message: str = ""
    log: tuple[int, ...] = ()
    next: int = -1
    after: dict[int, int] = field(default_factory=dict)


class _Paused(BaseException):
    """The value that comes next is not known. No code under test may catch it."""


class Execution:
    """One run of a program: it is told the values of `log`, and stopped at the load behind them.

    `items` are what it did after the last of these values: points, and digests of marked states.
    """

    def __init__(self, log: tuple[int, ...], own_state: Callable[[], bytes]) -> None:
        self._log = log
        self._own_state = own_state
        self._position = 0
        self.items: list[Point | bytes] = []

    def run(self, program: Callable[[], tuple[int, int] | None]) -> None:
        """Run until the log is used up. `program` returns how many buffers it took and gave."""
        try:
            counts = program()
        except _Paused:
            return
        except Wrong as wrong:
            self._tell(Point(Kind.BROKEN, broken=wrong.broken, message=str(wrong)))
        except VdevError as error:
            self._tell(Point(Kind.BROKEN, broken="violation", message=str(error)))
        else:
            taken, given = counts or (0, 0)
            self._tell(Point(Kind.END, taken=taken, given=given))

    def _tell(self, point: Point) -> None:
        if self._position == len(self._log):
            point.log = self._log
            self.items.append(point)

    def _value(self, point: Point) -> int:
        if self._position == len(self._log):
            if self._position >= _LOAD_LIMIT:
                raise Wrong("endless", f"{_LOAD_LIMIT} loads, and no end")
            self._tell(point)
            raise _Paused
        self._position += 1
        return self._log[self._position - 1]

    # What the memory tells

    def load(self, offset: int, size: int) -> int:
        """Return what a load of `size` bytes sees."""
        return self._value(Point(Kind.LOAD, offset, size))

    def store(self, offset: int, size: int, value: int) -> None:
        """Store `size` bytes."""
        self._tell(Point(Kind.STORE, offset, size, value))

    def fence(self) -> None:
        """Order all earlier stores before all later loads."""
        self._tell(Point(Kind.FENCE))

    # What the program tells

    def notify(self) -> None:
        """Kick, or call."""
        self._tell(Point(Kind.NOTIFY))

    def sleep(self, taken: int, given: int) -> None:
        """Wait for a notification."""
        self._value(Point(Kind.SLEEP, taken=taken, given=given))

    def mark(self, *state: object) -> None:
        """Here the state is `state` and the own bytes or fields, and nothing else."""
        if self._position == len(self._log):
            self.items.append(blake2b(self._own_state() + repr(state).encode(), digest_size=16).digest())


class Actor:
    """All points of one side that were found so far, by number. `execute` runs its program along a log."""

    def __init__(self, name: str, execute: Callable[[tuple[int, ...]], Execution]) -> None:
        self.name = name
        self._execute = execute
        self.points: list[Point] = []
        self.execution_count = 0
        self._known: dict[bytes, int] = {}
        self.first = self._extend(())

    def after(self, number: int, value: int) -> int:
        """Return the point after a load of `value`, or a sleep, at point `number`."""
        point = self.points[number]
        known = point.after.get(value)
        if known is None:
            known = point.after[value] = self._extend((*point.log, value))
        return known

    def _extend(self, log: tuple[int, ...]) -> int:
        self.execution_count += 1
        first = before = -1
        digests: list[bytes] = []
        for item in self._execute(log).items:
            if isinstance(item, bytes):
                digests.append(item)
                number = self._known.get(item, -1)
                if number < 0:
                    continue
            else:
                number = len(self.points)
                self.points.append(item)
            for digest in digests:
                self._known[digest] = number
            digests.clear()
            if first < 0:
                first = number
            if before >= 0:
                self.points[before].next = number
            if isinstance(item, bytes):
                break
            before = number
        return first
