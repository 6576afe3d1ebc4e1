"""A schedule of turns that a list of acts decides: each actor waits before its act until those before it were made.

The actors are the real tasks, and the real processes behind them: none of them knows of the list. They ask for turns as
ever, and the gate looks at each one's state to see which act its next turn would be.
"""

import heapq
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import trio
import trio.testing

from vdev.errors import VdevError
from vdev.race.verdict import Act

__all__ = ["ActGate", "FreeActors", "Intention", "Next", "ScheduleMisfit", "Turn"]

_MOST_GRANTS = 100
"""Turns that one act may take: some are spent on an interrupt first."""
_MOST_WAKES = 10_000
"""Sleepers that wake while one act is waited for; more, and nobody will ever make it."""


class ScheduleMisfit(VdevError):
    """The acts cannot be made in this order. The message is one line, and names the act that was waited for."""


class Turn(Enum):
    """What a turn is that is no act of the schedule."""

    FREE = "free"
    """Nobody else sees what it does: whenever the actor likes."""
    HELD = "held"
    """The actor has nothing to do, or waits for another: not now."""


class Next(NamedTuple):
    """An actor's next turn is `act`. `mark` differs once that act was made: two equal acts may follow each other."""

    act: Act
    mark: Hashable


Intention = Next | Turn


class ActGate:
    """A `vdev.schedule.Schedule`. Start `run` in a nursery beside the actors.

    `looks` has, for each name under which turns are asked for, a function that tells what the next turn would be; a
    name without one is free. `on_made` is called after each act, when nothing moves.

    With a mock `clock` (rate 0, no autojump) nobody sleeps long: time moves on before each act, so that all are where
    they can act. Without, time is real, an act is waited for `patience` seconds, and `slow` names those whose act lasts
    on when all tasks here have come to rest: it is over when they ask for another turn, or when `report` says so.
    """

    def __init__(
        self,
        acts: Sequence[Act],
        looks: Mapping[str, Callable[[], Intention]],
        *,
        clock: trio.testing.MockClock | None = None,
        patience: float = 30.0,
        slow: frozenset[str] = frozenset(),
        on_made: Callable[[Act], None] | None = None,
    ) -> None:
        self.made_count = 0
        self._acts = tuple(acts)
        self._looks = looks
        self._clock = clock
        self._patience = patience
        self._slow = slow
        self._on_made = on_made
        self._parked: dict[str, trio.Event] = {}
        self._sleepers: list[tuple[float, int, trio.Event]] = []
        self._numbers = itertools.count()
        self._granted: tuple[str, Next] | None = None
        self._is_over = True
        self._is_open = False
        self._has_begun = True
        self._grant_count = 0
        self._wake_count = 0
        self._changed = trio.Event()

    # What actors ask

    @property
    def due(self) -> Act | None:
        """The act that is to be made next, or is being made; None when all were."""
        return self._acts[self.made_count] if self.made_count < len(self._acts) else None

    def now(self) -> float:
        """Seconds of Trio's clock."""
        return trio.current_time()

    async def turn(self, actor: str) -> None:
        """Park until `actor` may act; it acts until its next await, or as long as it is slow."""
        if self._is_open:
            await trio.lowlevel.checkpoint()
            return
        if actor in self._parked:
            raise ValueError(f"two tasks wait for a turn as {actor!r}")
        event = self._parked[actor] = trio.Event()
        self.report(actor)
        try:
            await event.wait()
        finally:
            if self._parked.get(actor) is event:
                del self._parked[actor]

    async def sleep(self, actor: str, seconds: float) -> None:
        """Park until `seconds` have passed. What follows is no act: who means to make one asks for a turn."""
        if self._clock is None or self._is_open:
            await trio.sleep(max(seconds, 0.0) if self._clock is None else 0.0)
        else:
            event = trio.Event()
            entry = (self.now() + max(seconds, 0.0), next(self._numbers), event)
            heapq.heappush(self._sleepers, entry)
            try:
                await event.wait()
            finally:
                self._sleepers = [other for other in self._sleepers if other is not entry]
                heapq.heapify(self._sleepers)

    def hold(self) -> None:
        """Make no act, and wait for none, before `begin`; free turns are granted meanwhile."""
        self._has_begun = False

    def begin(self) -> None:
        """From now on acts are made, and waited for."""
        self._has_begun = True
        self._changed.set()

    def report(self, actor: str) -> None:
        """Say that the act of a slow actor is over; nothing happens if it has none under way."""
        if self._granted is not None and self._granted[0] == actor:
            self._is_over = True
        self._changed.set()

    def conclude(self) -> None:
        """Whoever was to act is through with all: an act that is under way was made."""
        if self._granted is not None:
            self._settle({})

    # Who may act

    async def run(self) -> None:
        """Grant turns until cancelled. Raises ScheduleMisfit when the next act is not to be had.

        After that nobody is held up any more: what cannot be cancelled has to come to its end.
        """
        try:
            await self._grant_turns()
        finally:
            self._is_open = True
            for event in (*self._parked.values(), *(event for _, _, event in self._sleepers)):
                event.set()

    async def _grant_turns(self) -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            self._changed = trio.Event()
            intentions = {actor: self._intention(actor) for actor in sorted(self._parked)}
            if free := [actor for actor, intention in intentions.items() if intention is Turn.FREE]:
                self._parked.pop(free[0]).set()
            elif self._wake_sleeper():
                continue
            elif not self._is_over:
                await self._wait_for(f"'{self.due}' was begun and not finished")
            elif self._granted is not None:
                self._settle(intentions)
            elif not self._has_begun:
                await self._wait_for("nothing has begun")
            elif self.due is None:
                await self._wait_for("all acts were made, and there is no end")
            else:
                await self._grant_due(self.due, intentions)

    def _intention(self, actor: str) -> Intention:
        look = self._looks.get(actor)
        intention = Turn.FREE if look is None else look()
        return Turn.FREE if isinstance(intention, Next) and self.due is None else intention

    def _settle(self, intentions: Mapping[str, Intention]) -> None:
        """See whether the turn that was granted was spent on its act."""
        assert self._granted is not None
        actor, granted = self._granted
        self._granted = None
        if intentions.get(actor) == granted:
            return  # It will be granted again: the turn went to an interrupt, or to the link.
        self.made_count += 1
        self._grant_count = self._wake_count = 0
        if self._on_made is not None:
            self._on_made(granted.act)

    async def _grant_due(self, due: Act, intentions: Mapping[str, Intention]) -> None:
        wanted = {actor: each for actor, each in intentions.items() if isinstance(each, Next)}
        for actor, intention in wanted.items():
            if intention.act == due:
                self._grant_count += 1
                if self._grant_count > _MOST_GRANTS:
                    raise self._misfit(f"it had {_MOST_GRANTS} turns and was not made")
                self._granted, self._is_over = (actor, intention), actor not in self._slow
                self._parked.pop(actor).set()
                return
        others = ", ".join(f"'{intention.act}'" for intention in wanted.values())
        await self._wait_for(f"nobody is at it, but at {others}" if others else "nobody is at any act")

    def _wake_sleeper(self) -> bool:
        """Under a mock clock: let the time pass that somebody sleeps; false when nobody does who will ever wake."""
        if self._clock is None or not self._sleepers or self._sleepers[0][0] == float("inf"):
            return False
        self._wake_count += 1
        if self._wake_count > _MOST_WAKES:
            raise self._misfit("whoever could make it only sleeps, again and again")
        deadline, _, event = heapq.heappop(self._sleepers)
        self._clock.jump(max(deadline - self.now(), 0.0))
        event.set()
        return True

    async def _wait_for(self, complaint: str) -> None:
        """Wait for what others do. Raises ScheduleMisfit, with `complaint`, when that is no use."""
        if self._clock is not None:
            raise self._misfit(complaint)
        with trio.move_on_after(self._patience if self._has_begun else float("inf")) as waiting:
            await self._changed.wait()
        if waiting.cancelled_caught:
            raise self._misfit(f"{complaint} within {self._patience:g} s")

    def _misfit(self, complaint: str) -> ScheduleMisfit:
        if self.due is None:
            return ScheduleMisfit(f"the schedule does not end: {complaint}")
        place = f"act {self.made_count + 1} of {len(self._acts)}"
        return ScheduleMisfit(f"the schedule does not fit at {place}, '{self.due}': {complaint}")


class FreeActors:
    """A `Schedule` of actors that make no acts, and whose names may be those of others: `place` tells them apart."""

    def __init__(self, gate: ActGate, place: str) -> None:
        self._gate = gate
        self._place = place

    def now(self) -> float:
        """Seconds of Trio's clock."""
        return self._gate.now()

    async def turn(self, actor: str) -> None:
        """Park until nobody else acts."""
        await self._gate.turn(f"{self._place}/{actor}")

    async def sleep(self, actor: str, seconds: float) -> None:
        """Park until `seconds` have passed."""
        await self._gate.sleep(f"{self._place}/{actor}", seconds)
