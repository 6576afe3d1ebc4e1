"""What the two ways of making a schedule happen have in common: the actors' looks, the lanes, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import trio

from guest_agent.lane import Lane
from guest_agent.small_guest import GuestShape
from host_migrator.dirty_log import CooperativeDirtyLog, DeferredClearLog, DirtyLog
from host_migrator.migration import Step
from host_migrator.source import Source
from host_migrator.strategies import Refresh, Strategy, make_strategy, refresh_of
from spec.balloon import BalloonFeature, BalloonQueue
from spec.device import feature_mask
from vdev.devices.balloon import BalloonDevice
from vdev.errors import UserError
from vdev.machine import Machine
from vdev.memory import PageMarks
from vdev.notify import Doorbell, IoEventfdMatch
from vdev.race.combination import Bound, Combination
from vdev.race.replay_gate import Intention, Next, Turn
from vdev.race.verdict import Act
from vdev.run.options import EXIT_STRATEGIES
from vdev.run.shape import MachineShape
from vdev.virtqueue.queue import DeviceQueue

__all__ = [
    "STATUS_LOST",
    "VCPUS",
    "Actors",
    "KickExits",
    "Outcome",
    "StalePage",
    "dirty_log_of",
    "guest_settings",
    "machine_shape",
    "outcome_of_verdict",
    "strategy_of",
]

STATUS_LOST = 7
"""The exit status that says: the loss was made to happen, and the guest itself reports it."""

VCPUS = ("vcpu 0", "vcpu 1")
HINT_QUEUE = int(BalloonQueue.FREE_PAGE)


@dataclass(frozen=True)
class StalePage:
    """A page that the guest relies on, the version it found at the destination, and the one it had written last."""

    page: int
    found: int
    wanted: int


@dataclass(frozen=True)
class Outcome:
    """How a replay ended: the acts that were made, and what the guest said of itself at the destination.

    `verdict` is all of what it said.
    """

    made: tuple[Act, ...]
    stale: tuple[StalePage, ...]
    verdict: Mapping[str, Any]

    @property
    def lost(self) -> tuple[int, ...]:
        """The pages that were lost."""
        return tuple(page.page for page in self.stale)

    @property
    def status(self) -> int:
        """The exit status of a command that made this happen."""
        return STATUS_LOST if self.stale else 0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {"made": [str(act) for act in self.made], "lost": list(self.lost), "verdict": dict(self.verdict)}


def outcome_of_verdict(made: Sequence[Act], verdict: Mapping[str, Any]) -> Outcome:
    """Return the outcome of a run whose guest gave `verdict`."""
    return Outcome(tuple(made), tuple(StalePage(*each) for each in verdict["stale"]), dict(verdict))


class Actors:
    """Looks at the real tasks and says which act of the lab each would make next.

    Nothing is an act before `begin`. Whoever makes the acts of the vCPUs' `lanes` moves those on. Pages of RAM from the
    bound's on are the driver's: no act takes or sends them.
    """

    def __init__(self, combination: Combination, bound: Bound, acts: Sequence[Act]) -> None:
        if any(act.name == "cancel" for act in acts):
            raise UserError("a schedule in which the migration is called off is not replayed by tasks or processes")
        self.combination = combination
        self.bound = bound
        self.acts = tuple(acts)
        self.made: list[Act] = []
        self.lanes = {vcpu: Lane([(act.name, act.page) for act in acts if act.actor == vcpu]) for vcpu in VCPUS}
        self._is_held = False
        self._exit: trio.Event | None = None
        self._source: Source | None = None
        self._balloon: BalloonDevice | None = None

    def hold(self) -> None:
        """The guest is booted: until `begin`, nothing of its lanes is done."""
        self._is_held = True

    def begin(self, source: Source, balloon: BalloonDevice) -> None:
        """From now on turns are acts."""
        self._source = source
        self._balloon = balloon

    @property
    def has_begun(self) -> bool:
        """Whether turns are acts."""
        return self._source is not None

    @property
    def looks(self) -> dict[str, Callable[[], Intention]]:
        """Return name of a task -> its look, as ActGate takes them; the tasks are those of Source and Machine."""
        return {
            "migrator": self._look_at_migrator,
            "hint handler": self._look_at_pieces,
            f"balloon/queue {HINT_QUEUE}": self._look_at_queue,
            **{vcpu: partial(self._look_at_vcpu, vcpu) for vcpu in VCPUS},
        }

    def enter_exit(self) -> trio.Event:
        """The first vCPU kicked and stays in the exit; returns what is set when the handler is through."""
        self._exit = trio.Event()
        return self._exit

    def was_made(self, act: Act) -> None:
        """Take note of an act; an exit ends when nothing is left to do for the handler."""
        self.made.append(act)
        is_through = self._source is None or self._source.hints.next_step is None
        if act.actor == "handler" and is_through:
            self.end_exit()

    def end_exit(self) -> None:
        """Let the first vCPU out of the exit that it may be in."""
        if self._exit is not None:
            self._exit.set()
            self._exit = None

    def _look_at_vcpu(self, vcpu: str) -> Intention:
        if not self.has_begun:
            return Turn.HELD if self._is_held else Turn.FREE
        if vcpu == VCPUS[0] and self._exit is not None:
            return Turn.HELD
        lane = self.lanes[vcpu]
        return Turn.FREE if lane.next is None else Next(Act(vcpu, *lane.next), lane.position)

    def _look_at_migrator(self) -> Intention:
        if self._source is None:
            return Turn.FREE
        migration = self._source.migration
        step, page = migration.next_step, None
        if step is Step.NOTHING:
            return Turn.FREE
        if step is Step.TAKE:
            page = migration.next_page()
        elif step is Step.SEND:
            page = int(migration.in_flight[0])
        if page is not None and page >= self.bound.pages:
            # The driver's pages are the last of a pass: while one of the data is still to be taken they wait.
            return Turn.HELD if step is Step.TAKE and self._next_is_take() else Turn.FREE
        return Next(Act("migrator", step.value, page), (migration.stage, migration.sync_count))

    def _next_is_take(self) -> bool:
        rest = self.acts[len(self.made) :]
        return next((act.name for act in rest if act.actor == "migrator"), None) == Step.TAKE

    def _look_at_pieces(self) -> Intention:
        if self._source is None:
            return Turn.FREE
        hints = self._source.hints
        if hints.next_step is not None:
            return Next(Act("handler", hints.next_step.value), len(hints.steps))
        if self._queue_has_some():
            return self._pop()
        return Turn.HELD if self._source.migration.strategy.polled else Turn.FREE

    def _look_at_queue(self) -> Intention:
        if self._source is None or self._source.migration.strategy.polled:
            return Turn.FREE  # Where the handler runs from a timer, a kick comes to nothing.
        return self._pop() if self._queue_has_some() else Turn.FREE

    def _pop(self) -> Intention:
        assert self._source is not None
        return Next(Act("handler", "handle" if self._source.migration.strategy.locked else "pop"), None)

    def _queue_has_some(self) -> bool:
        queue = self.hint_queue()
        return queue is not None and queue.has_available()

    def hint_queue(self) -> DeviceQueue | None:
        """Return the queue of hints, None while it is not watched."""
        return None if self._balloon is None else self._balloon.hint_queue()


class KickExits:
    """How the first vCPU's kicks reach the machine: by doorbells, or, where the strategy wants it, the queue of hints
    by an exit that the handler ends. `on_exit` is told of it, for the vCPU's act is over then.
    """

    def __init__(self, machine: Machine, actors: Actors, on_exit: Callable[[], None] | None = None) -> None:
        self._on_exit = on_exit
        self._machine = machine
        self._actors = actors
        self._held = {
            (match.address, match.value): (match.mask, doorbell)
            for match, doorbell in machine.ioeventfds.items()
            if actors.combination.strategy in EXIT_STRATEGIES and match.value == HINT_QUEUE
        }

    @property
    def ioeventfds(self) -> dict[IoEventfdMatch, Doorbell]:
        """The doorbells that the guest is given."""
        return {
            match: doorbell
            for match, doorbell in self._machine.ioeventfds.items()
            if (match.address, match.value) not in self._held
        }

    def write(self, address: int, size: int, value: int) -> trio.Event | None:
        """Handle a register write; the event is set when the handler is through with a kick."""
        for (held_address, number), (mask, doorbell) in self._held.items():
            if address == held_address and value & mask == number and self._actors.has_begun:
                doorbell.ring()
                if self._on_exit is not None:
                    self._on_exit()
                return self._actors.enter_exit()
        self._machine.bus.write(address, size, value)
        return None


def guest_shape(combination: Combination, bound: Bound) -> GuestShape:
    """Return the guest that the lab has for a combination."""
    return GuestShape(
        pages=bound.pages,
        hints=bound.hints,
        answer=combination.answer,
        holds=combination.holds,
        collects=combination.collects,
        start_buffer=combination.start_buffer,
        refresh=refresh_of(combination.strategy).value,
    )


def machine_shape(combination: Combination, bound: Bound) -> MachineShape:
    """Return the machine that has room for that guest, and a balloon that is used for hints only."""
    return MachineShape(
        ((0, guest_shape(combination, bound).memory_size),),
        features=feature_mask(BalloonFeature.FREE_PAGE_HINT),
        hint_answer=combination.answer,
        refresh_interval=refresh_of(combination.strategy) is Refresh.INTERVAL,
    )


def guest_settings(machine: Machine, combination: Combination, bound: Bound) -> dict[str, Any]:
    """Return what a LaneGuest is booted with (JSON-ready)."""
    return {"base": machine.bus.addresses[0], "shape": asdict(guest_shape(combination, bound))}


def strategy_of(combination: Combination, balloon: BalloonDevice) -> Strategy:
    """Return the strategy of a combination."""
    return make_strategy(combination.strategy, balloon.hinting, advance=combination.advance)


def dirty_log_of(combination: Combination, marks: PageMarks) -> DirtyLog:
    """Return the dirty log of a combination."""
    return DeferredClearLog(marks) if combination.dirty_log == "deferred-clear" else CooperativeDirtyLog(marks)
