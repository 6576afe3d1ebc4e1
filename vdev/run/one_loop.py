"""A migration in one loop: host, guest, migrator and destination as tasks under a mock clock, in a seeded order.

The same options give the same run, event for event: nothing here looks at real time, a random source that is not
seeded, or a thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import trio
import trio.testing

from guest_agent.kernel import Guest, GuestConfig
from host_migrator.destination import Destination
from host_migrator.dirty_log import CooperativeDirtyLog
from host_migrator.errors import MigrationFailed
from host_migrator.link import LoopLink
from host_migrator.machine import StreamHeader
from host_migrator.rounds import Limits
from host_migrator.source import Source
from vdev.devices.balloon import BalloonDevice
from vdev.errors import UserError, VdevError
from vdev.events import EventStream
from vdev.machine import Machine
from vdev.memory import GuestMemory, PageMarks, PrivateBacking, Region
from vdev.notify import InterruptLine, IoEventfds, LoopDoorbell
from vdev.run.options import MigrateOptions
from vdev.run.outcome import (
    add_figures,
    add_verdict,
    inflate,
    make_strategy,
    new_report,
    outcome_of,
    progress_of,
    take_verdict,
)
from vdev.run.proof import prove
from vdev.run.report import Progress, Report
from vdev.run.shape import MachineShape, build_machine, guest_config
from vdev.schedule import Schedule, SeededSchedule
from vdev.vcpu import LoopExits, LoopVcpu

__all__ = ["LoopHost", "migrate", "open_loop_host"]

_BANDWIDTH = float(1 << 30)
"""Bytes per second of the link between source and destination, in the mock clock's time."""

_HEAD_RUN = 0.3
"""Seconds that the guest works before it is moved."""


@dataclass(frozen=True)
class LoopHost:
    """A machine whose guest is a task of this loop."""

    machine: Machine
    balloon: BalloonDevice
    vcpu: LoopVcpu
    memory: GuestMemory
    marks: PageMarks


def open_loop_host(
    shape: MachineShape, schedule: Schedule, events: EventStream, nursery: trio.Nursery, *, name: str
) -> LoopHost:
    """Return a host whose guest, queues and interrupt line are served in `nursery`; neither booted nor restored."""
    marks = PageMarks(sum(size for _, size in shape.regions) >> 12)
    memory = GuestMemory([Region(address, PrivateBacking(size)) for address, size in shape.regions], marks)
    machine, balloon = build_machine(shape, memory, schedule, events, LoopDoorbell, name=name)
    actor = "guest" if name == "source" else f"{name}/guest"
    guest_events = events.emitter(actor)
    exits = LoopExits(machine.bus.read, machine.bus.write, IoEventfds(machine.ioeventfds, guest_events))

    def boot(config: Mapping[str, Any]) -> Guest:
        return Guest.boot(memory, exits, GuestConfig.from_json(config), guest_events)

    def restore(state: bytes) -> Guest:
        return Guest.restore(memory, exits, state, guest_events)

    vcpu = LoopVcpu(boot, restore, schedule, actor, guest_events)
    machine.attach(vcpu, InterruptLine(vcpu.interrupt, events.emitter(f"{name}/balloon")))
    nursery.start_soon(vcpu.run_guest)
    nursery.start_soon(machine.serve)
    return LoopHost(machine, balloon, vcpu, memory, marks)


class LoopArrival:
    """A destination machine in the same loop."""

    def __init__(self, nursery: trio.Nursery, schedule: Schedule, events: EventStream) -> None:
        self._nursery = nursery
        self._schedule = schedule
        self._events = events
        self._host: LoopHost | None = None

    async def make(self, header: StreamHeader) -> "LoopArrival":
        """Open the host that `header` describes."""
        shape = MachineShape.from_json(header.config)
        self._host = open_loop_host(shape, self._schedule, self._events, self._nursery, name="destination")
        return self

    @property
    def host(self) -> LoopHost:
        """The host, once made."""
        if self._host is None:
            raise RuntimeError("the host was not opened yet")
        return self._host

    @property
    def memory(self) -> GuestMemory:
        """Fresh guest RAM."""
        return self.host.memory

    async def restore_devices(self, states: Sequence[tuple[str, bytes]]) -> None:
        """Load the devices."""
        self.host.machine.restore_devices(states)

    async def load_vcpu(self, state: bytes) -> None:
        """Have the guest stand ready."""
        await self.host.vcpu.restore(state)

    async def run(self) -> None:
        """Let the guest go."""
        await self.host.machine.resume()

    async def verify(self) -> dict[str, Any]:
        """Return the guest's verdict."""
        verdict = await prove(self.host.machine, self._schedule)
        return {**verdict, "resident_bytes": self.memory.resident_size()}

    async def discard(self) -> None:
        """End the guest."""
        if self._host is not None:
            await self._host.vcpu.end()


def migrate(
    options: MigrateOptions,
    *,
    events: EventStream,
    on_progress: Callable[[Progress], None],
    cut_link_after: int | None = None,
) -> Report:
    """Run a whole migration in one loop of its own and report; seconds are the mock clock's.

    Events go to `events` stamped by the mock clock. The link breaks after `cut_link_after` bytes, if given. Raises
    UserError when the guest cannot be started as asked.
    """
    clock = trio.testing.MockClock()
    result = trio.run(_Run(options, clock, events, on_progress, cut_link_after).main, clock=clock)
    if isinstance(result, UserError):
        raise result
    return result


class _Run:
    def __init__(
        self,
        options: MigrateOptions,
        clock: trio.testing.MockClock,
        events: EventStream,
        on_progress: Callable[[Progress], None],
        cut_link_after: int | None,
    ) -> None:
        self._options = options
        self._cut_link_after = cut_link_after
        self._schedule = SeededSchedule(options.seed, clock)
        self._events = EventStream(self._schedule.now)
        if events.listening:
            self._events.subscribe(events.forward)
        self._on_progress = on_progress
        self._report = new_report(options, "cooperative")

    async def main(self) -> Report | UserError:
        shape = MachineShape.of_options(self._options)
        refusal: UserError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._schedule.run)
            host = open_loop_host(shape, self._schedule, self._events, nursery, name="source")
            try:
                await self._boot(host, shape)
                await self._move(host, nursery)
            except UserError as error:
                refusal = error
            except VdevError as error:
                self._report.outcome, self._report.error = outcome_of(error), str(error)
            nursery.cancel_scope.cancel()
        return refusal or self._report

    async def _boot(self, host: LoopHost, shape: MachineShape) -> None:
        await host.machine.boot(guest_config(self._options, shape, host.machine))
        await host.machine.resume()
        await self._schedule.sleep("host", _HEAD_RUN)
        await inflate(host.balloon, self._options.inflate_size, self._schedule)

    async def _move(self, host: LoopHost, nursery: trio.Nursery) -> None:
        ours, theirs = LoopLink.pair(self._schedule, bandwidth=_BANDWIDTH)
        if self._cut_link_after is not None:
            ours.cut_after(self._cut_link_after)
        arrival = LoopArrival(nursery, self._schedule, self._events)
        destination = Destination(
            theirs, arrival.make, self._schedule, events=self._events.emitter("destination/loader")
        )
        source = Source(
            host.machine,
            ours,
            CooperativeDirtyLog(host.marks),
            make_strategy(self._options.strategy, host.balloon),
            self._schedule,
            limits=Limits(self._options.max_bandwidth, self._options.downtime_limit),
            migration_id=UUID(int=self._options.seed),
            events=self._events.emitter("migrator"),
            look_for_hints=host.balloon.poll_hints,
            divided=self._options.has_ioeventfd,
        )
        nursery.start_soon(_take_over, destination)
        nursery.start_soon(self._show, source)
        nursery.start_soon(source.serve_hints)
        try:
            await source.run()
        except MigrationFailed:
            verdict = await prove(host.machine, self._schedule, stayed=True)
            add_verdict(self._report, verdict, at="source")
            raise
        finally:
            add_figures(self._report, source.figures, host.balloon)
        take_verdict(self._report, source.figures)

    async def _show(self, source: Source) -> None:
        began = self._schedule.now()
        while True:
            elapsed = self._schedule.now() - began
            self._on_progress(progress_of(source.phase, source.figures, source.remaining_count, elapsed))
            await self._schedule.sleep("display", 0.1)


async def _take_over(destination: Destination) -> None:
    try:
        await destination.run()
    except VdevError:
        return  # The source was told why, or sees the end of the link.
