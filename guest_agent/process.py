"""A guest process: one vCPU that runs the guest between exits, until its host ends it or is gone."""

import json
import select
import signal
import socket
import time
from typing import Any

from guest_agent.hardware import HostGone, ProcessExits, map_ram, register_ram
from guest_agent.kernel import Guest, GuestConfig
from spec.exits import ExitKind, ReplyKind
from vdev.errors import VdevError
from vdev.events import SILENT, CallHandled, Emitter
from vdev.notify import EventfdDoorbell, IoEventfds
from vdev.record_pipe import PipeBroken, stream_into_pipe

__all__ = ["run"]


def run(hardware: dict[str, Any]) -> int:
    """Be the vCPU that `hardware` describes (see vdev.vcpu.process); return the process's exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = SILENT if hardware["trace"] is None else stream_into_pipe(hardware["trace"]).emitter("guest")
    doorbells = {(bell["address"], bell["value"]): EventfdDoorbell(bell["fd"]) for bell in hardware["ioeventfds"]}
    exits = ProcessExits(socket.socket(fileno=hardware["exits"]), IoEventfds(doorbells, events))
    try:
        _run_guest(hardware, exits, events)
    except (HostGone, PipeBroken):
        return 0
    except VdevError as error:
        exits.tell(ExitKind.FAULT, str(error).encode())
        return 1
    return 0


def _run_guest(hardware: dict[str, Any], exits: ProcessExits, events: Emitter) -> None:
    memory = map_ram(hardware["regions"], hardware["marks"])
    registration = register_ram(memory) if hardware["write_protect"] else {"refused": "not asked for", "fds": []}
    ready = {
        "regions": [int(region.backing.data.ctypes.data) for region in memory.regions],
        "write_protect_refused": registration["refused"],
    }
    reply, body = exits.halt(ExitKind.READY, json.dumps(ready).encode())
    if reply is ReplyKind.END:
        return
    if reply is ReplyKind.BOOT:
        guest = Guest.boot(memory, exits, GuestConfig.from_json(json.loads(body)), events)
    else:
        guest = Guest.restore(memory, exits, body, events)
    interrupt, pause = EventfdDoorbell(hardware["interrupt"]), EventfdDoorbell(hardware["pause"])
    fds = [interrupt.fileno(), pause.fileno(), exits.fileno()]
    handled_count = 0
    if not _halt(guest, exits):
        return
    while True:
        delay = guest.step(time.monotonic())
        readable, _, _ = select.select(fds, [], [], delay)
        if exits.fileno() in readable:
            return
        if interrupt.fileno() in readable:
            count = interrupt.take()
            if events.listening:
                events.emit(CallHandled("machine", handled_count + 1, handled_count + count))
            handled_count += count
            guest.handle_interrupt()
        if pause.fileno() in readable:
            pause.take()
            if not _halt(guest, exits):
                return


def _halt(guest: Guest, exits: ProcessExits) -> bool:
    """Give the vCPU state up until the host says to run; say whether to run or end."""
    while True:
        reply, _ = exits.halt(ExitKind.HALTED, guest.save())
        if reply is not ReplyKind.VERIFY:
            return reply is ReplyKind.RUN
        exits.tell(ExitKind.VERDICT, json.dumps(guest.verify_json()).encode())
