"""Time and order as inputs: who acts next, and what time it is.

Actors call `await schedule.turn(name)` before each act that others can see, and `schedule.sleep` instead of
`trio.sleep`. `FreeSchedule` lets Trio and the operating system decide. `SeededSchedule` lets exactly one actor act at
a time, chosen by a seeded generator, under a mock clock that only moves when nobody can act: the same seed gives the
same run.
"""

import heapq
import random
from typing import Protocol

import trio
import trio.testing

from vdev.errors import VdevError

__all__ = ["FreeSchedule", "NobodyCanAct", "Schedule", "SeededSchedule"]


class NobodyCanAct(VdevError):
    """Every actor of a seeded run waits for another and no time-out is due: a deadlock in the code under test."""


class Schedule(Protocol):
    """What actors ask for time and order."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    async def turn(self, actor: str) -> None:
        """Return when `actor` may act; it acts until its next await."""
        ...

    async def sleep(self, actor: str, seconds: float) -> None:
        """Return when `seconds` have passed and `actor` may act."""
        ...


class FreeSchedule:
    """Real time, Trio's own order."""

    def now(self) -> float:
        """Seconds of Trio's clock."""
        return trio.current_time()

    async def turn(self, actor: str) -> None:
        """Let other tasks run."""
        await trio.lowlevel.checkpoint()

    async def sleep(self, actor: str, seconds: float) -> None:
        """Sleep for `seconds` of real time."""
        await trio.sleep(max(seconds, 0.0))


class SeededSchedule:
    """One actor at a time, in an order that the seed decides.

    `clock` is the `trio.testing.MockClock` (rate 0, no autojump) that the loop runs on. Start `run` in a nursery
    beside the actors. Actor names must be unique among the tasks that wait at the same time.
    """

    def __init__(self, seed: int, clock: trio.testing.MockClock) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self._parked: dict[str, trio.Event] = {}
        self._sleepers: list[tuple[float, str, trio.Event]] = []
        self.turn_count = 0

    def now(self) -> float:
        """Seconds of the mock clock."""
        return self._clock.current_time()

    async def turn(self, actor: str) -> None:
        """Park until the generator picks `actor`."""
        if actor in self._parked:
            raise ValueError(f"two tasks wait for a turn as {actor!r}")
        event = self._parked[actor] = trio.Event()
        try:
            await event.wait()
        finally:
            if self._parked.get(actor) is event:
                del self._parked[actor]

    async def sleep(self, actor: str, seconds: float) -> None:
        """Park until the mock clock has moved by `seconds`, then until the generator picks `actor`."""
        event = trio.Event()
        entry = (self.now() + max(seconds, 0.0), actor, event)
        heapq.heappush(self._sleepers, entry)
        try:
            await event.wait()
        except trio.Cancelled:
            self._sleepers = [other for other in self._sleepers if other is not entry]
            heapq.heapify(self._sleepers)
            raise
        await self.turn(actor)

    async def run(self) -> None:
        """Pick turns until cancelled.

        Raises NobodyCanAct when every task of the loop waits and no sleeper is left.
        """
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if self._parked:
                actor = self._random.choice(sorted(self._parked))
                self.turn_count += 1
                self._parked.pop(actor).set()
            elif self._sleepers:
                self._wake_earliest()
            else:
                raise NobodyCanAct("every actor waits for another, and nobody sleeps")

    def _wake_earliest(self) -> None:
        deadline = self._sleepers[0][0]
        if deadline > self.now():
            self._clock.jump(deadline - self.now())
        while self._sleepers and self._sleepers[0][0] <= deadline:
            heapq.heappop(self._sleepers)[2].set()
