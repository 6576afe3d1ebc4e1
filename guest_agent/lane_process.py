"""A guest process that takes part in a schedule: each vCPU asks its host before each act, over a socket of its own.

The first vCPU is the process's main thread, with interrupts, exits and halts as any guest has them. The second is a
thread that only writes, so that it can do so while the first is inside an exit.
"""

import json
import math
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from guest_agent.hardware import Hardware, HostGone, ProcessExits
from guest_agent.lane import Lane, LaneGuest
from spec.exits import ExitKind, GateWord, ReplyKind
from vdev.errors import VdevError
from vdev.memory import GuestMemory
from vdev.notify import EventfdDoorbell

__all__ = ["be_lane_guest"]


class _Gate:
    """One vCPU's socket to who decides the order."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._is_asking = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def ask(self) -> None:
        """Say that this vCPU is at its next act, unless that was said."""
        if not self._is_asking:
            self._is_asking = True
            self._send(bytes([GateWord.ASK]))

    def take_go(self) -> None:
        """Block until it may make it."""
        try:
            word = self._connection.recv(16)
        except ConnectionResetError as error:
            raise HostGone("the host closed the gate") from error
        if word != bytes([GateWord.GO]):
            raise HostGone("the host closed the gate")
        self._is_asking = False

    def say_made(self) -> None:
        """Say that the act is over."""
        self._send(bytes([GateWord.MADE]))

    def complain(self, why: str) -> None:
        """Say that the act is not possible."""
        self._send(bytes([GateWord.FAULT]) + why.encode())

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise HostGone("the host closed the gate") from error


@dataclass(frozen=True)
class _Lanes:
    """The guest of this process; the first vCPU's gate, None if nobody tells it what to do; the second vCPU."""

    guest: LaneGuest
    gate: _Gate | None = None
    other: threading.Thread | None = None


def be_lane_guest(hardware: Hardware, memory: GuestMemory, exits: ProcessExits, body: bytes) -> None:
    """Be the vCPUs of a small guest until the host ends them; `body` came with BOOT, or with RESTORE.

    Where there are gates the guest is booted. Then `body` is what `LaneGuest.boot` takes, and "lanes": the acts of each
    vCPU, in the order of the gates. A guest that is restored does what it likes.
    """
    _run(_boot(hardware, memory, exits, body) if hardware.gates else _restore(memory, exits, body), hardware, exits)


def _boot(hardware: Hardware, memory: GuestMemory, exits: ProcessExits, body: bytes) -> _Lanes:
    config: dict[str, Any] = json.loads(body)
    lanes = [Lane([(name, page) for name, page in lane]) for lane in config["lanes"]]
    gates = [_Gate(connection) for connection in hardware.gates]
    guest = LaneGuest.boot(memory, exits, config, lanes[0])
    other = threading.Thread(target=_walk, args=(guest, lanes[1], gates[1]), daemon=True) if len(gates) > 1 else None
    return _Lanes(guest, gates[0], other)


def _restore(memory: GuestMemory, exits: ProcessExits, state: bytes) -> _Lanes:
    return _Lanes(LaneGuest.restore(memory, exits, state))


def _run(lanes: _Lanes, hardware: Hardware, exits: ProcessExits) -> None:
    if not _halt(lanes.guest, exits):
        return
    if lanes.other is not None:
        lanes.other.start()
    act = _act_freely if lanes.gate is None else _act_when_told
    while act(lanes, hardware, exits):
        if hardware.pause.take() and not _halt(lanes.guest, exits):
            return


def _act_freely(lanes: _Lanes, hardware: Hardware, exits: ProcessExits) -> bool:
    """Do what there is to do, and wait where there is nothing; false when the host is gone."""
    delay = lanes.guest.step(time.monotonic())
    fds = [hardware.interrupt.fileno(), hardware.pause.fileno(), exits.fileno()]
    readable, _, _ = select.select(fds, [], [], None if delay == math.inf else delay)
    _see_interrupt(lanes.guest, hardware.interrupt)
    return exits.fileno() not in readable


def _act_when_told(lanes: _Lanes, hardware: Hardware, exits: ProcessExits) -> bool:
    """Make the lane's next act when the gate opens, or return for a halt; false when the host is gone."""
    guest, gate = lanes.guest, lanes.gate
    assert gate is not None
    if guest.has_more:
        gate.ask()
    readable, _, _ = select.select([gate.fileno(), hardware.pause.fileno(), exits.fileno()], [], [])
    if gate.fileno() in readable:
        gate.take_go()
        _see_interrupt(guest, hardware.interrupt)
        guest.step(time.monotonic())
        gate.say_made()
    return exits.fileno() not in readable


def _see_interrupt(guest: LaneGuest, interrupt: EventfdDoorbell) -> None:
    if interrupt.take():
        guest.handle_interrupt()


def _halt(guest: LaneGuest, exits: ProcessExits) -> bool:
    """Give the vCPU state up until the host says to run; say whether to run or end."""
    while True:
        reply, _ = exits.halt(ExitKind.HALTED, guest.save())
        if reply is ReplyKind.RUN:
            return True
        if reply is not ReplyKind.VERIFY:
            return False
        exits.tell(ExitKind.VERDICT, json.dumps(guest.verify_json()).encode())


def _walk(guest: LaneGuest, lane: Lane, gate: _Gate) -> None:
    """Be the second vCPU: make the acts of its lane, each when it may."""
    try:
        for act in lane.acts:
            gate.ask()
            gate.take_go()
            try:
                guest.act(*act)
            except VdevError as error:
                gate.complain(str(error))
                return
            gate.say_made()
    except HostGone:
        return
