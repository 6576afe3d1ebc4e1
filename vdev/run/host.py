"""A host process: a machine whose guest is a process beside it, with RAM in a memfd."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from vdev.devices.balloon import BalloonDevice
from vdev.events import EventStream
from vdev.machine import Machine
from vdev.memory import GuestMemory, MemfdBacking, PageMarks, Region
from vdev.notify import Doorbell, EventfdDoorbell, InterruptLine, IoEventfdMatch
from vdev.record_pipe import forward_records
from vdev.run.shape import MachineShape, build_machine
from vdev.schedule import Schedule
from vdev.vcpu import GuestProcess, ProcessVcpu, SharedRam

__all__ = ["Kicks", "ProcessHost", "open_host"]


class Kicks(Protocol):
    """How a guest's register writes reach a machine, if not as the machine has it."""

    @property
    def ioeventfds(self) -> Mapping[IoEventfdMatch, Doorbell]:
        """The doorbells that the guest is given."""
        ...

    def write(self, address: int, size: int, value: int) -> trio.Event | None:
        """Handle an exit; the vCPU stays in it until the event is set, if there is one."""
        ...


@dataclass(frozen=True)
class ProcessHost:
    """A machine with its parts. `marks` takes what the host's devices write and, if shared, what the guest writes."""

    machine: Machine
    balloon: BalloonDevice
    vcpu: ProcessVcpu
    memory: GuestMemory
    marks: PageMarks


@asynccontextmanager
async def open_host(
    shape: MachineShape,
    schedule: Schedule,
    events: EventStream,
    *,
    name: str,
    trace: bool,
    kernel_log: bool = False,
    guest: GuestProcess | None = None,
    kicks: Callable[[Machine], Kicks] | None = None,
    gates: Sequence[int] = (),
) -> AsyncIterator[ProcessHost]:
    """Open a host whose guest is neither booted nor restored; end the guest at the end.

    `guest` is a process that is up already; without it one is started.

    `trace` forwards the guest's events into `events`. `kernel_log` registers RAM for the kernel's dirty log; otherwise
    the guest marks what it writes. With `kicks` a register write goes another way than the machine's own; `gates` are
    sockets at which the guest's vCPUs ask for their turns, and stay the caller's.
    """
    backings = [MemfdBacking(size) for _, size in shape.regions]
    page_count = sum(size for _, size in shape.regions) >> 12
    shared_marks, marks_fd = PageMarks.create_shared(page_count)
    regions = [Region(address, backing) for (address, _), backing in zip(shape.regions, backings, strict=True)]
    memory = GuestMemory(regions, shared_marks)
    machine, balloon = build_machine(shape, memory, schedule, events, EventfdDoorbell, name=name)
    trace_pipe = os.pipe() if trace else None
    try:
        async with trio.open_nursery() as nursery:
            if guest is None:
                guest = await _start_guest()
            ways = None if kicks is None else kicks(machine)
            vcpu = ProcessVcpu.plug_in(
                guest,
                SharedRam(memory, None if kernel_log else marks_fd),
                read=machine.bus.read,
                write=machine.bus.write if ways is None else ways.write,
                ioeventfds=machine.ioeventfds if ways is None else ways.ioeventfds,
                write_protect=kernel_log,
                trace_fd=trace_pipe[1] if trace_pipe else None,
                vhost_user=[(slot.device.device_id, slot.guest_end.fileno()) for slot in machine.slots],
                gates=gates,
                events=events.emitter(f"{name}/vcpu"),
            )
            for slot in machine.slots:
                slot.guest_end.close()
            try:
                if trace_pipe:
                    os.close(trace_pipe[1])
                    prefix = "" if name == "source" else f"{name}/"
                    nursery.start_soon(lambda: forward_records(trace_pipe[0], events, prefix=prefix))
                machine.attach(vcpu, InterruptLine(vcpu.interrupt, events.emitter(f"{name}/balloon")))
                nursery.start_soon(vcpu.serve_exits)
                nursery.start_soon(machine.serve)
                yield ProcessHost(machine, balloon, vcpu, memory, shared_marks)
            finally:
                await vcpu.end()
                nursery.cancel_scope.cancel()
    finally:
        machine.close()
        os.close(marks_fd)
        for backing in backings:
            backing.close()


async def _start_guest() -> GuestProcess:
    guest = await GuestProcess.start()
    try:
        await guest.wait_up()
    except BaseException:
        await guest.end()
        raise
    return guest
