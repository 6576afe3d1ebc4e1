"""A schedule made to happen in one loop: source, handler, vCPUs and destination are tasks, its acts their turns."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import trio
import trio.testing

from guest_agent.lane import LaneGuest
from host_migrator.destination import Destination
from host_migrator.link import LoopLink
from host_migrator.machine import StreamHeader
from host_migrator.source import Source
from vdev.errors import VdevError
from vdev.events import EventStream
from vdev.memory import PAGE_SIZE, GuestMemory, PageMarks, PrivateBacking, Region
from vdev.notify import InterruptLine, IoEventfds, LoopDoorbell
from vdev.race.combination import Bound, Combination
from vdev.race.replay import (
    VCPUS,
    Actors,
    KickExits,
    Outcome,
    dirty_log_of,
    guest_settings,
    machine_shape,
    outcome_of_verdict,
    strategy_of,
)
from vdev.race.replay_gate import ActGate, FreeActors, ScheduleMisfit
from vdev.race.verdict import Act, Moment, PageView
from vdev.run.proof import prove
from vdev.run.shape import MachineShape, build_machine
from vdev.schedule import Schedule
from vdev.vcpu import LoopExits, LoopVcpu

__all__ = ["replay_in_one_loop"]

_SETTLE = 0.01


def replay_in_one_loop(
    combination: Combination, bound: Bound, acts: Sequence[Act], on_act: Callable[[Moment], None] | None = None
) -> Outcome:
    """Make `acts` happen and return what the guest says of itself at the destination; seconds are a mock clock's.

    `on_act` is told of the moment after each act; its `hints` and `broken` are empty.

    Raises UserError for acts that only the lab can make, ScheduleMisfit when they cannot be made in this order, and
    what the guest or the migration raise.
    """
    clock = trio.testing.MockClock()
    result = trio.run(_Replay(combination, bound, acts, clock, on_act).main, clock=clock)
    if isinstance(result, VdevError):
        raise result
    return result


class _Host:
    """A machine whose small guest is a task of this loop."""

    def __init__(
        self,
        shape: MachineShape,
        schedule: Schedule,
        events: EventStream,
        *,
        name: str,
        actors: Actors | None,
    ) -> None:
        self.marks = PageMarks(sum(size for _, size in shape.regions) // PAGE_SIZE)
        regions = [Region(address, PrivateBacking(size)) for address, size in shape.regions]
        self.memory = GuestMemory(regions, self.marks)
        self.machine, self.balloon = build_machine(shape, self.memory, schedule, events, LoopDoorbell, name=name)
        self._actors = actors
        kicks = KickExits(self.machine, actors) if actors is not None else None
        write = self.machine.bus.write if kicks is None else kicks.write
        ioeventfds = self.machine.ioeventfds if kicks is None else kicks.ioeventfds
        self._exits = LoopExits(self.machine.bus.read, write, IoEventfds(ioeventfds))
        self.guest: LaneGuest | None = None
        self.vcpu = LoopVcpu(self._boot, self._restore, schedule, VCPUS[0])
        self.machine.attach(self.vcpu, InterruptLine(self.vcpu.interrupt))

    def _boot(self, config: Mapping[str, Any]) -> LaneGuest:
        assert self._actors is not None
        self.guest = LaneGuest.boot(self.memory, self._exits, config, self._actors.lanes[VCPUS[0]])
        return self.guest

    def _restore(self, state: bytes) -> LaneGuest:
        self.guest = LaneGuest.restore(self.memory, self._exits, state)
        return self.guest

    @property
    def booted(self) -> LaneGuest:
        """The guest, once it was booted or restored."""
        if self.guest is None:
            raise RuntimeError("the guest was not started yet")
        return self.guest

    def serve(self, nursery: trio.Nursery) -> None:
        """Start the tasks of vCPU and queues."""
        nursery.start_soon(self.vcpu.run_guest)
        nursery.start_soon(self.machine.serve)


class _Arrival:
    """The machine that the guest moves into: a `host_migrator.machine.DestinationMachine`."""

    def __init__(self, schedule: Schedule, events: EventStream, nursery: trio.Nursery) -> None:
        self.host: _Host | None = None
        self._schedule = schedule
        self._events = events
        self._nursery = nursery

    async def make(self, header: StreamHeader) -> "_Arrival":
        """Open the host that `header` describes."""
        shape = MachineShape.from_json(header.config)
        self.host = _Host(shape, self._schedule, self._events, name="destination", actors=None)
        self.host.serve(self._nursery)
        return self

    @property
    def _open(self) -> _Host:
        if self.host is None:
            raise RuntimeError("the host was not opened yet")
        return self.host

    @property
    def memory(self) -> GuestMemory:
        """Fresh guest RAM."""
        return self._open.memory

    async def restore_devices(self, states: Sequence[tuple[str, bytes]]) -> None:
        """Load the balloon."""
        self._open.machine.restore_devices(states)

    async def load_vcpu(self, state: bytes) -> None:
        """Have the guest stand ready."""
        await self._open.vcpu.restore(state)

    async def run(self) -> None:
        """Let the guest go."""
        await self._open.machine.resume()

    async def verify(self) -> dict[str, Any]:
        """Return the guest's verdict."""
        return await prove(self._open.machine, self._schedule)

    async def discard(self) -> None:
        """End the guest."""
        if self.host is not None:
            await self.host.vcpu.end()


class _Replay:
    def __init__(
        self,
        combination: Combination,
        bound: Bound,
        acts: Sequence[Act],
        clock: trio.testing.MockClock,
        on_act: Callable[[Moment], None] | None,
    ) -> None:
        self._combination = combination
        self._bound = bound
        self._on_act = on_act
        self._actors = Actors(combination, bound, acts)
        self._gate = ActGate(acts, self._actors.looks, clock=clock, on_made=self._was_made)
        self._events = EventStream(self._gate.now)
        self._error: VdevError | None = None

    async def main(self) -> Outcome | VdevError:
        outcome: Outcome | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._start(self._gate.run)
            try:
                outcome = outcome_of_verdict(self._actors.made, await self._migrate())
            except VdevError as error:
                self._error = self._error or error
            nursery.cancel_scope.cancel()
        if outcome is None or self._error is not None:
            return self._error or ScheduleMisfit("the run was ended")
        return outcome

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task; what it raises ends the replay."""
        self._nursery.start_soon(self._guard, task)

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except VdevError as error:
            self._error = self._error or error
            self._nursery.cancel_scope.cancel()

    async def _migrate(self) -> Mapping[str, Any]:
        shape = machine_shape(self._combination, self._bound)
        host = self._host = _Host(shape, self._gate, self._events, name="source", actors=self._actors)
        host.serve(self._nursery)
        await host.machine.boot(guest_settings(host.machine, self._combination, self._bound))
        self._actors.hold()
        await host.machine.resume()
        # What the driver's start asked of the queues is done before the first act.
        await self._gate.sleep("host", _SETTLE)
        ours, theirs = LoopLink.pair(self._gate)
        elsewhere = FreeActors(self._gate, "destination")
        arrival = self._arrival = _Arrival(elsewhere, self._events, self._nursery)
        destination = Destination(theirs, arrival.make, elsewhere)
        self._source = source = Source(
            host.machine,
            ours,
            dirty_log_of(self._combination, host.marks),
            strategy_of(self._combination, host.balloon),
            self._gate,
            migration_id=UUID(int=0),
            window_size=PAGE_SIZE,
            look_for_hints=host.balloon.poll_hints,
            divided=True,
            sync_limit=self._bound.syncs,
            discards=self._combination.effect == "discard",
        )
        self._actors.begin(source, host.balloon)
        self._nursery.start_soon(_take_over, destination)
        self._start(source.serve_hints)
        self._start(self._walk_second_vcpu)
        self._start(self._watch_first_vcpu)
        await source.run()
        self._gate.conclude()
        if source.figures.verdict is None:
            raise ScheduleMisfit(f"the guest gave no verdict: {source.figures.verdict_missing}")
        return source.figures.verdict

    async def _walk_second_vcpu(self) -> None:
        lane = self._actors.lanes[VCPUS[1]]
        while lane.next is not None:
            await self._gate.turn(VCPUS[1])
            self._host.booted.act(*lane.next)
            lane.position += 1

    async def _watch_first_vcpu(self) -> None:
        await self._host.vcpu.wait_ended()
        await self._host.vcpu.verify()  # raises what ended it

    def _was_made(self, act: Act) -> None:
        self._actors.was_made(act)
        if self._on_act is not None:
            self._on_act(self._moment(act))

    def _moment(self, act: Act) -> Moment:
        handler_syncs = sum(made.actor == "handler" and made.name == "sync" for made in self._actors.made)
        return Moment(
            act,
            tuple(self._view(page) for page in range(self._bound.pages)),
            (),
            int(self._host.balloon.config["free_page_hint_cmd_id"]),
            self._host.balloon.hinting.state.name,
            self._source.migration.sync_count + handler_syncs,
        )

    def _view(self, page: int) -> PageView:
        guest = self._host.booted.guest
        there = self._arrival.host
        return PageView(
            page in self._source.migration.to_send,
            bool(self._host.marks.marks[page]),
            guest.version(page),
            0 if there is None else int.from_bytes(there.memory.read(page * PAGE_SIZE, 8), "little"),
            guest.wanted[page],
            guest.use(page),
        )


async def _take_over(destination: Destination) -> None:
    try:
        await destination.run()
    except VdevError:
        return  # The source was told why, or sees the end of the link.
