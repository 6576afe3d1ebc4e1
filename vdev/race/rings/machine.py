"""Driver, device and the memory between them: which moves are possible, and what each does.

The memory is that of x86-TSO: each side has a queue of stores that only it sees; the oldest may reach memory at any
time. A load looks there first. A fence, a notification and going to sleep wait until the queue is empty: a
notification is a system call or an exit, which is no weaker than a locked instruction. Under sequential consistency
each store reaches memory at once.
"""

from collections.abc import Iterable
from typing import NamedTuple

from vdev.race.rings.actor import Actor, Kind, Point
from vdev.race.rings.ends import make_actors
from vdev.race.rings.layout import Layout
from vdev.race.rings.scenario import RingScenario
from vdev.race.rings.verdict import RingStep

__all__ = ["Machine", "Move", "State"]

Stores = tuple[tuple[int, int, int], ...]
"""Offset, size and value of each store that waits, the oldest first."""


class State(NamedTuple):
    """Where both actors stand, and memory, store buffers (numbers of what `Machine` has seen), and notifications.

    Bit 0 of `pending` is a kick, bit 1 a call.
    """

    driver: int
    device: int
    image: int
    driver_stores: int
    device_stores: int
    pending: int


class Move(NamedTuple):
    """One step of one actor (0 is the driver), or of its store buffer."""

    actor: int
    is_flush: bool


_ACT = Move(0, False), Move(1, False)
_FLUSH = Move(0, True), Move(1, True)
_END_KINDS = frozenset((Kind.END, Kind.BROKEN))


class Machine:
    """Two actors over one memory of a `model` of MODELS, which is `image` at the start; `layout` names its bytes."""

    def __init__(self, layout: Layout, image: bytes, actors: tuple[Actor, Actor], model: str = "tso") -> None:
        self.buffered = model == "tso"
        self.layout = layout
        self.actors = actors
        self._images = [image]
        self._image_numbers = {image: 0}
        self._stores: list[Stores] = [()]
        self._store_numbers: dict[Stores, int] = {(): 0}
        driver, device = self.actors
        self.start = State(driver.first, device.first, 0, 0, 0, 0)

    @classmethod
    def of(cls, scenario: RingScenario, model: str = "tso") -> "Machine":
        """Return the machine of a scenario."""
        return cls(*make_actors(scenario), model)

    @property
    def execution_count(self) -> int:
        """How often a program was run to learn what it does."""
        return sum(actor.execution_count for actor in self.actors)

    def moves(self, state: State) -> list[tuple[Move, State]]:
        """Return each possible move, and where it leads."""
        found: list[tuple[Move, State]] = []
        for actor in (0, 1):
            stores = state[3 + actor]
            if stores:
                found.append((_FLUSH[actor], self._flush(state, actor)))
            point = self.actors[actor].points[state[actor]]
            after = self._act(state, actor, point, stores)
            if after is not None:
                found.append((_ACT[actor], after))
        return found

    def settled(self, state: State) -> State:
        """Return the state after all moves that no other move can tell from their being done later.

        These are a store into the store buffer, and a fence that has nothing to wait for.
        """
        for actor in (0, 1):
            points = self.actors[actor].points
            number, stores = state[actor], state[3 + actor]
            before = number
            while True:
                point = points[number]
                if point.kind is Kind.STORE and self.buffered:
                    stores = self._number_of((*self._stores[stores], (point.offset, point.size, point.value)))
                elif point.kind is not Kind.FENCE or stores:
                    break
                number = point.next
            if number != before:
                state = self._with(state, actor, number, stores, state.image, state.pending)
        return state

    def settling(self, state: State) -> Move | None:
        """Return the next of the moves that `settled` does, None where there is none."""
        for actor in (0, 1):
            kind = self.actors[actor].points[state[actor]].kind
            if (kind is Kind.STORE and self.buffered) or (kind is Kind.FENCE and not state[3 + actor]):
                return _ACT[actor]
        return None

    def _act(self, state: State, actor: int, point: Point, stores: int) -> State | None:
        kind = point.kind
        if kind is Kind.LOAD:
            value = self._loaded(state.image, stores, point.offset, point.size)
            number = self.actors[actor].after(state[actor], value)
            return self._with(state, actor, number, stores, state.image, state.pending)
        if kind is Kind.STORE:
            store = point.offset, point.size, point.value
            if self.buffered:
                stores = self._number_of((*self._stores[stores], store))
                return self._with(state, actor, point.next, stores, state.image, state.pending)
            image = self._stored(state.image, store)
            return self._with(state, actor, point.next, stores, image, state.pending)
        if stores or kind in _END_KINDS:
            return None
        if kind is Kind.SLEEP:
            bit = 2 - actor  # the driver waits for calls
            if not state.pending & bit:
                return None
            number = self.actors[actor].after(state[actor], 0)
            return self._with(state, actor, number, stores, state.image, state.pending & ~bit)
        pending = state.pending | 1 + actor if kind is Kind.NOTIFY else state.pending
        return self._with(state, actor, point.next, stores, state.image, pending)

    def _flush(self, state: State, actor: int) -> State:
        oldest, *rest = self._stores[state[3 + actor]]
        stores = self._number_of(tuple(rest))
        return self._with(state, actor, state[actor], stores, self._stored(state.image, oldest), state.pending)

    @staticmethod
    def _with(state: State, actor: int, number: int, stores: int, image: int, pending: int) -> State:
        if actor:
            return State(state.driver, number, image, state.driver_stores, stores, pending)
        return State(number, state.device, image, stores, state.device_stores, pending)

    def _number_of(self, stores: Stores) -> int:
        number = self._store_numbers.setdefault(stores, len(self._stores))
        if number == len(self._stores):
            self._stores.append(stores)
        return number

    def _stored(self, image: int, store: tuple[int, int, int]) -> int:
        offset, size, value = store
        before = self._images[image]
        after = before[:offset] + value.to_bytes(size, "little") + before[offset + size :]
        number = self._image_numbers.setdefault(after, len(self._images))
        if number == len(self._images):
            self._images.append(after)
        return number

    def _loaded(self, image: int, stores: int, offset: int, size: int) -> int:
        raw = self._images[image]
        for at, length, value in self._stores[stores]:
            if at < offset + size and offset < at + length:
                raw = raw[:at] + value.to_bytes(length, "little") + raw[at + length :]
        return int.from_bytes(raw[offset : offset + size], "little")

    # What people read

    def steps(self, state: State) -> list[tuple[RingStep, State]]:
        """Return each possible move in words, and where it leads."""
        return [(RingStep(*self._words(state, move)), after) for move, after in self.moves(state)]

    def told(self, moves: Iterable[Move], *, settle: bool = False) -> list[RingStep]:
        """Return `moves` from the start on in words; with `settle`, they are those between settled states."""
        told: list[RingStep] = []
        state = self.start
        for move in (*moves, None):
            while settle and (settling := self.settling(state)) is not None:
                told.append(RingStep(*self._words(state, settling)))
                state = dict(self.moves(state))[settling]
            if move is not None:
                told.append(RingStep(*self._words(state, move)))
                state = dict(self.moves(state))[move]
        return told

    def _words(self, state: State, move: Move) -> tuple[str, str]:
        actor = self.actors[move.actor]
        if move.is_flush:
            name, value = self.layout.describe(*self._stores[state[3 + move.actor]][0])
            return actor.name, f"flushes {name} = {value}"
        point = actor.points[state[move.actor]]
        if point.kind is Kind.LOAD:
            loaded = self._loaded(state.image, state[3 + move.actor], point.offset, point.size)
            name, value = self.layout.describe(point.offset, point.size, loaded)
            return actor.name, f"loads {name}: {value}"
        if point.kind is Kind.STORE:
            name, value = self.layout.describe(point.offset, point.size, point.value)
            return actor.name, f"stores {name} = {value}{' (in its store buffer)' if self.buffered else ''}"
        if point.kind is Kind.NOTIFY:
            return actor.name, "calls" if move.actor else "kicks"
        return actor.name, "fences" if point.kind is Kind.FENCE else "wakes"

    def broken(self, state: State, *, at_rest: bool) -> tuple[str, str] | None:
        """Return the property that does not hold, and how; `at_rest` says that no move is possible."""
        driver, device = (self.actors[actor].points[state[actor]] for actor in (0, 1))
        for point in (driver, device):
            if point.kind is Kind.BROKEN:
                return point.broken, point.message
        return self._broken_at_rest(driver, device) if at_rest else None

    def _broken_at_rest(self, driver: Point, device: Point) -> tuple[str, str] | None:
        unseen, uncollected = driver.given - device.taken, device.given - driver.taken
        if driver.kind is Kind.END and not unseen:
            return None
        if uncollected:
            return "lost call", f"the driver sleeps with {_buffers(uncollected)} used and not collected"
        if unseen:
            return "lost kick", f"the device sleeps with {_buffers(unseen)} available and not seen"
        return "stuck", "both sleep, and nothing is under way"


def _buffers(count: int) -> str:
    return "1 buffer" if count == 1 else f"{count} buffers"
