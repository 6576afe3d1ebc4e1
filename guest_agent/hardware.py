"""The hardware of a guest process: RAM, exits, doorbells, as its host handed them down.

This is the part of the process that stands for the machine and not for the guest's software: what KVM and the VMM's
vCPU thread would do.
"""

import os
import socket
from typing import Any

from spec.exits import EXIT, MAX_MESSAGE_SIZE, REPLY, ExitKind, ReplyKind
from spec.layout import dtype_of
from vdev.errors import VdevError
from vdev.memory import GuestMemory, MemfdBacking, PageMarks, Region
from vdev.memory.write_protect import register_for_kernel_log
from vdev.notify import IoEventfds

__all__ = ["HostGone", "ProcessExits", "map_ram", "register_ram"]

_REPLY_SIZE = dtype_of(REPLY).itemsize


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


def map_ram(regions: list[dict[str, int]], marks_fd: int | None) -> GuestMemory:
    """Map the regions (`fd`, guest-physical `address`, `size`) and the page marks, and close their descriptors."""
    mapped = [Region(region["address"], MemfdBacking(region["size"], region["fd"])) for region in regions]
    page_count = sum(region.size for region in mapped) >> 12
    marks = PageMarks(page_count, marks_fd) if marks_fd is not None else None
    if marks_fd is not None:
        os.close(marks_fd)
    return GuestMemory(mapped, marks)


def register_ram(memory: GuestMemory) -> dict[str, Any]:
    """Register RAM for the kernel's dirty log.

    Returns why the kernel refused, if it did, and the descriptor that keeps the registration alive.
    """
    try:
        fds = [register_for_kernel_log(region.backing.data.ctypes.data, region.size) for region in memory.regions]
    except OSError as error:
        return {"refused": str(error), "fds": []}
    return {"refused": None, "fds": fds}
