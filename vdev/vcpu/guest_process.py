"""A guest process before it is a vCPU: starting it, and describing the hardware that it gets."""

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from spec.exits import MAX_FD_COUNT, MAX_MESSAGE_SIZE, ExitKind
from vdev.memory import GuestMemory
from vdev.notify import Doorbell, EventfdDoorbell, IoEventfdMatch
from vdev.vcpu.exits import ExitViolation, parse_exit
from vdev.vcpu.vcpu import GuestDied, GuestNotResponding

__all__ = ["GuestProcess", "SharedRam", "describe_hardware", "end_process"]

_UP_PATIENCE = 60.0
"""Seconds for an interpreter to start on a busy machine."""
_END_GRACE = 2.0
"""Seconds a guest gets to end by itself before it is killed: it may be in the middle of an operation."""


@dataclass(frozen=True)
class SharedRam:
    """What a guest process needs to map: RAM whose backings have file descriptors, and the marks' memfd or None."""

    memory: GuestMemory
    marks_fd: int | None


class GuestProcess:
    """A guest process without hardware. `start` it early: what it needs to come up is then no part of a downtime."""

    def __init__(self, process: trio.Process, exits: socket.socket) -> None:
        self.process = process
        self.exits = exits

    @classmethod
    async def start(cls) -> "GuestProcess":
        """Start a process; returns before it is up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            try:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "guest_agent", "--exits", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    # A Ctrl-C at the terminal is the host's to handle: it decides what becomes of the guest.
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    async def wait_up(self, patience: float = _UP_PATIENCE) -> None:
        """Wait until the process is up and can be given its hardware.

        Raises GuestDied if it ends instead or says anything else, GuestNotResponding after `patience` seconds.
        """
        with trio.move_on_after(patience) as waiting:
            await trio.lowlevel.wait_readable(self.exits)
        if waiting.cancelled_caught:
            raise GuestNotResponding(f"the guest process {self.process.pid} did not come up within {patience:g} s")
        try:
            message = self.exits.recv(MAX_MESSAGE_SIZE + 1)
        except ConnectionResetError:
            message = b""
        if not message:
            raise GuestDied(f"the guest process {self.process.pid} did not come up")
        try:
            kind = parse_exit(message).kind
        except ExitViolation as violation:
            raise GuestDied(f"the guest process {self.process.pid} broke the protocol of exits: {violation}") from None
        if kind is not ExitKind.UP:
            raise GuestDied(
                f"the guest process {self.process.pid} broke the protocol of exits: it began with {kind.name}"
            )

    async def end(self) -> None:
        """End a process that was never given hardware."""
        with trio.CancelScope(shield=True):
            self.exits.close()
            await end_process(self.process)


async def end_process(process: trio.Process) -> None:
    """Wait for a process whose socket was closed; kill it if it does not end. Not to be cancelled."""
    with trio.move_on_after(_END_GRACE):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


def describe_hardware(
    ram: SharedRam,
    interrupt: EventfdDoorbell,
    pause: EventfdDoorbell,
    ioeventfds: Mapping[IoEventfdMatch, Doorbell],
    write_protect: bool,
    trace_fd: int | None,
    vhost_user: Sequence[tuple[int, int]] = (),
    gates: Sequence[int] = (),
) -> tuple[dict[str, Any], list[int]]:
    """Return the hardware as JSON, in which a file descriptor is its place in the list that is returned with it.

    `vhost_user` has, for each device that a back end serves, its device id and a socket connected to the back end.
    `gates` are sockets at which the vCPUs ask for their turns.
    """
    fds: list[int] = []

    def place(fd: int | None) -> int | None:
        if fd is None:
            return None
        fds.append(fd)
        return len(fds) - 1

    regions, doorbells = [], []
    for region in ram.memory.regions:
        if region.backing.fd is None:
            raise TypeError("a guest process needs RAM in a memfd")
        regions.append({"fd": place(region.backing.fd), "address": region.guest_address, "size": region.size})
    for match, doorbell in ioeventfds.items():
        if not isinstance(doorbell, EventfdDoorbell):
            raise TypeError("a guest process needs doorbells that are eventfds")
        doorbells.append({**match._asdict(), "fd": place(doorbell.fileno())})
    hardware = {
        "interrupt": place(interrupt.fileno()),
        "pause": place(pause.fileno()),
        "regions": regions,
        "marks": place(ram.marks_fd),
        "ioeventfds": doorbells,
        "write_protect": write_protect,
        "trace": place(trace_fd),
        "gates": [place(fd) for fd in gates],
        "vhost_user": [{"device_id": device_id, "fd": place(fd)} for device_id, fd in vhost_user],
    }
    if len(fds) > MAX_FD_COUNT:
        raise ValueError(f"{len(fds)} file descriptors are more than one datagram carries")
    return hardware, fds
