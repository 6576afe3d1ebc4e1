"""A guest process: one vCPU that runs the guest between exits, until its host ends it or is gone."""

import json
import select
import signal
import socket
import time

from guest_agent.hardware import Hardware, HostGone, ProcessExits
from guest_agent.kernel import Guest, GuestConfig
from guest_agent.lane import is_lane_state
from guest_agent.lane_process import be_lane_guest
from spec.exits import ExitKind, ReplyKind
from vdev.errors import VdevError
from vdev.events import SILENT, CallHandled, Emitter
from vdev.notify import IoEventfds
from vdev.record_pipe import PipeBroken, stream_into_pipe

__all__ = ["run"]


def run(connection: socket.socket) -> int:
    """Be the vCPU behind `connection` (see spec.exits); return the process's exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        hardware = Hardware.receive(connection)
    except HostGone:
        return 0
    events = SILENT if hardware.trace is None else stream_into_pipe(hardware.trace).emitter("guest")
    exits = ProcessExits(connection, IoEventfds(hardware.ioeventfds, events))
    try:
        _run_guest(hardware, exits, events)
    except (HostGone, PipeBroken):
        return 0
    except VdevError as error:
        exits.tell(ExitKind.FAULT, str(error).encode())
        return 1
    return 0


def _run_guest(hardware: Hardware, exits: ProcessExits, events: Emitter) -> None:
    memory = hardware.map_ram()
    refused = hardware.register_ram(memory)
    ready = {
        "regions": [int(region.backing.data.ctypes.data) for region in memory.regions],
        "write_protect_refused": refused,
    }
    reply, body = exits.halt(ExitKind.READY, json.dumps(ready).encode())
    if reply is ReplyKind.END:
        return
    if hardware.gates or is_lane_state(body):
        be_lane_guest(hardware, memory, exits, body)
        return
    slots = hardware.connect_slots(memory, events)
    if reply is ReplyKind.BOOT:
        guest = Guest.boot(memory, exits, GuestConfig.from_json(json.loads(body)), events, slots)
    else:
        guest = Guest.restore(memory, exits, body, events, slots)
    interrupt, pause = hardware.interrupt, hardware.pause
    fds = [interrupt.fileno(), pause.fileno(), exits.fileno()]
    handled_count = 0
    if not _halt(guest, exits):
        return
    while True:
        delay = guest.step(time.monotonic())
        slot_fds = guest.filenos()
        readable, _, _ = select.select([*fds, *slot_fds], [], [], delay)
        if exits.fileno() in readable:
            return
        if interrupt.fileno() in readable:
            count = interrupt.take()
            if events.listening:
                events.emit(CallHandled("machine", handled_count + 1, handled_count + count))
            handled_count += count
        if interrupt.fileno() in readable or any(fd in readable for fd in slot_fds):
            guest.handle_interrupt()
        if pause.fileno() in readable:
            pause.take()
            if not _halt(guest, exits):
                return


def _halt(guest: Guest, exits: ProcessExits) -> bool:
    """Give the vCPU state up until the host says to run; say whether to run or end."""
    guest.suspend_devices()
    while True:
        reply, _ = exits.halt(ExitKind.HALTED, guest.save())
        if reply is ReplyKind.RUN:
            guest.resume_devices()
            return True
        if reply is not ReplyKind.VERIFY:
            return False
        exits.tell(ExitKind.VERDICT, json.dumps(guest.verify_json()).encode())
