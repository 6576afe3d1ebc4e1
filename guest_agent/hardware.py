"""The hardware of a guest process: RAM, exits, doorbells, as its host handed them down.

This is the part of the process that stands for the machine and not for the guest's software: what KVM and the VMM's
vCPU thread would do.
"""

import json
import os
import socket
from typing import Any

from guest_agent.vhost_user import VhostUserTransport
from spec.exits import EXIT, MAX_FD_COUNT, MAX_MESSAGE_SIZE, REPLY, ExitKind, ReplyKind
from spec.layout import dtype_of
from vdev.errors import VdevError
from vdev.events import Emitter
from vdev.memory import PAGE_SIZE, GuestMemory, MemfdBacking, PageMarks, Region
from vdev.memory.write_protect import register_for_kernel_log
from vdev.notify import EventfdDoorbell, IoEventfdMatch, IoEventfds

__all__ = ["Hardware", "HostGone", "ProcessExits"]

_REPLY_SIZE = dtype_of(REPLY).itemsize

_SLOT_PATIENCE = 20.0
"""Seconds: less than a host waits for its guest to halt, so that the guest is heard when its back end is not."""


class HostGone(VdevError):
    """The host closed the exit socket: there is nothing left to run on."""


class ProcessExits:
    """Exits as datagrams on a SOCK_SEQPACKET socket, each blocking for its reply, except where an ioeventfd is."""

    def __init__(self, connection: socket.socket, ioeventfds: IoEventfds) -> None:
        self._socket = connection
        self._ioeventfds = ioeventfds

    def fileno(self) -> int:
        """Return the socket's file descriptor; it becomes readable outside an exit only when the host is gone."""
        return self._socket.fileno()

    def read(self, address: int, size: int) -> int:
        """Read a register."""
        return self._exit(ExitKind.REGISTER_READ, size, address)[1]

    def write(self, address: int, size: int, value: int) -> None:
        """Write a register, or ring the doorbell that stands for it."""
        if not self._ioeventfds.ring(address, value):
            self._exit(ExitKind.REGISTER_WRITE, size, address, value)

    def tell(self, kind: ExitKind, body: bytes) -> None:
        """Send an exit that has no reply."""
        self._send(EXIT.build({"kind": kind, "size": 0, "address": 0, "value": 0}) + body)

    def halt(self, kind: ExitKind, body: bytes) -> tuple[ReplyKind, bytes]:
        """Stop until the host says what to do; return that and its body."""
        kind_of_reply, _, body_of_reply = self._exit_with_body(kind, body)
        return kind_of_reply, body_of_reply

    def _exit(self, kind: ExitKind, size: int, address: int, value: int = 0) -> tuple[ReplyKind, int]:
        self._send(EXIT.build({"kind": kind, "size": size, "address": address, "value": value}))
        reply, result, _ = self._receive()
        return reply, result

    def _exit_with_body(self, kind: ExitKind, body: bytes) -> tuple[ReplyKind, int, bytes]:
        self.tell(kind, body)
        return self._receive()

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise HostGone("the host closed the exit socket") from error

    def _receive(self) -> tuple[ReplyKind, int, bytes]:
        try:
            message = self._socket.recv(MAX_MESSAGE_SIZE)
        except ConnectionResetError as error:
            raise HostGone("the host closed the exit socket") from error
        if not message:
            raise HostGone("the host closed the exit socket")
        fields = REPLY.parse(message[:_REPLY_SIZE])
        return ReplyKind(fields.kind), int(fields.value), message[_REPLY_SIZE:]


class Hardware:
    """RAM and doorbells as the host's one datagram described them; holds their file descriptors."""

    def __init__(self, description: dict[str, Any], fds: list[int]) -> None:
        self.interrupt = EventfdDoorbell(fds[description["interrupt"]])
        self.pause = EventfdDoorbell(fds[description["pause"]])
        self.ioeventfds = {
            IoEventfdMatch(bell["address"], bell["value"], bell["mask"]): EventfdDoorbell(fds[bell["fd"]])
            for bell in description["ioeventfds"]
        }
        self.trace = None if description["trace"] is None else fds[description["trace"]]
        self._regions = [(region["address"], region["size"], fds[region["fd"]]) for region in description["regions"]]
        self._marks_fd = None if description["marks"] is None else fds[description["marks"]]
        self.gates = [socket.socket(fileno=fds[gate]) for gate in description["gates"]]
        """Where a guest that takes part in a schedule asks for its turns: one for each vCPU."""
        self._slots = [(slot["device_id"], socket.socket(fileno=fds[slot["fd"]])) for slot in description["vhost_user"]]
        self._write_protect: bool = description["write_protect"]
        self._write_protect_fds: list[int] = []

    @classmethod
    def receive(cls, connection: socket.socket) -> "Hardware":
        """Say that the process is up, and take what the host answers. Raises HostGone."""
        try:
            connection.send(EXIT.build({"kind": ExitKind.UP, "size": 0, "address": 0, "value": 0}))
            message, fds, _, _ = socket.recv_fds(connection, MAX_MESSAGE_SIZE, MAX_FD_COUNT)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise HostGone("the host closed the exit socket") from error
        if not message:
            raise HostGone("the host closed the exit socket")
        return cls(json.loads(message), fds)

    def map_ram(self) -> GuestMemory:
        """Map guest RAM and the page marks; the mappings stay.

        RAM's descriptors are closed unless there are back ends that must be given them.
        """
        regions = [Region(address, MemfdBacking(size, fd)) for address, size, fd in self._regions]
        page_count = sum(region.size for region in regions) // PAGE_SIZE
        marks = PageMarks(page_count, self._marks_fd) if self._marks_fd is not None else None
        shared_fds = () if self._slots else tuple(fd for _, _, fd in self._regions)
        for fd in (self._marks_fd, *shared_fds):
            if fd is not None:
                os.close(fd)
        return GuestMemory(regions, marks)

    def register_ram(self, memory: GuestMemory) -> str | None:
        """Register RAM for the kernel's dirty log if the host wants that; return why it cannot be had, if so."""
        if not self._write_protect:
            return "not asked for"
        try:
            for region in memory.regions:
                address = int(region.backing.data.ctypes.data)
                self._write_protect_fds.append(register_for_kernel_log(address, region.size))
        except OSError as error:
            return error.strerror or str(error)
        return None

    def connect_slots(self, memory: GuestMemory, events: Emitter) -> list[VhostUserTransport]:
        """Return the devices that back ends serve, in the host's order. Raises BackEndLost."""
        return [
            VhostUserTransport(
                memory,
                connection,
                device_id=device_id,
                patience=_SLOT_PATIENCE,
                name=f"the back end in slot {number}",
                events=events,
            )
            for number, (device_id, connection) in enumerate(self._slots)
        ]
