"""A vCPU that is a process: exits come as datagrams on a socketpair, interrupts go as an irqfd.

The guest process polls the pause eventfd between two operations, as a vCPU thread looks at its exit request.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from spec.exits import EXIT, MAX_FD_COUNT, MAX_MESSAGE_SIZE, REPLY, ExitKind, ReplyKind
from spec.layout import dtype_of
from vdev.events import SILENT, Emitter, VcpuPaused, VcpuResumed
from vdev.memory import GuestMemory
from vdev.notify import Doorbell, EventfdDoorbell
from vdev.vcpu.vcpu import GuestDied, GuestFault

__all__ = ["GuestProcess", "ProcessVcpu", "SharedRam"]

_EXIT_SIZE = dtype_of(EXIT).itemsize
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

    async def wait_up(self) -> None:
        """Wait until the process is up and can be given its hardware. Raises GuestDied if it ends instead."""
        await trio.lowlevel.wait_readable(self.exits)
        if not self.exits.recv(MAX_MESSAGE_SIZE):
            raise GuestDied(f"the guest process {self.process.pid} did not come up")

    async def end(self) -> None:
        """End a process that was never given hardware."""
        with trio.CancelScope(shield=True):
            self.exits.close()
            await self.process.wait()


class ProcessVcpu:
    """One guest process with its hardware. Make it with `plug_in`; run `serve_exits` in a nursery while it lives.

    `read` and `write` handle a register access, by guest-physical address.
    """

    def __init__(
        self,
        process: trio.Process,
        exits: socket.socket,
        interrupt: EventfdDoorbell,
        pause: EventfdDoorbell,
        read: Callable[[int, int], int],
        write: Callable[[int, int, int], None],
        events: Emitter = SILENT,
    ) -> None:
        self.process = process
        self.interrupt = interrupt
        self.region_addresses: list[int] = []
        """Where the guest process mapped each region, once it is ready."""
        self.write_protect_refused: str | None = None
        """Why the kernel's dirty log cannot be had, once the guest is ready."""
        self._socket = trio.socket.from_stdlib_socket(exits)
        self._pause = pause
        self._read = read
        self._write = write
        self._events = events
        self._halted = trio.Event()
        self._halt_kind = ExitKind.READY
        self._halt_body = b""
        self._ended = trio.Event()
        self._verdict: dict[str, Any] = {}
        self._fault: str | None = None
        self._closed = False

    @classmethod
    def plug_in(
        cls,
        guest: GuestProcess,
        ram: SharedRam,
        *,
        read: Callable[[int, int], int],
        write: Callable[[int, int, int], None],
        ioeventfds: Mapping[tuple[int, int], Doorbell],
        write_protect: bool,
        trace_fd: int | None = None,
        events: Emitter = SILENT,
    ) -> "ProcessVcpu":
        """Give a guest process that is up its hardware: RAM, and doorbells both ways.

        `ioeventfds` maps (address of a QueueNotify register, value written) to the doorbell that is rung instead of
        an exit. `write_protect` registers RAM for the kernel's dirty log. Events of the guest are written as JSON
        lines to `trace_fd`. Raises GuestDied if the process has ended.
        """
        interrupt, pause = EventfdDoorbell(), EventfdDoorbell()
        hardware, fds = _describe_hardware(ram, interrupt, pause, ioeventfds, write_protect, trace_fd)
        try:
            socket.send_fds(guest.exits, [json.dumps(hardware).encode()], fds)
        except OSError as error:
            interrupt.close()
            pause.close()
            raise GuestDied(f"the guest process {guest.process.pid} ended before it had RAM") from error
        return cls(guest.process, guest.exits, interrupt, pause, read, write, events)

    async def serve_exits(self) -> None:
        """Handle exits until the guest is gone."""
        try:
            while True:
                try:
                    message = await self._socket.recv(MAX_MESSAGE_SIZE)
                except (ConnectionResetError, trio.ClosedResourceError):
                    break
                if not message:
                    break
                self._handle(message)
            # Its status says how it died; a process that closed its socket has nothing left to do.
            with trio.move_on_after(_END_GRACE):
                await self.process.wait()
        finally:
            self._ended.set()
            self._halted.set()

    def _handle(self, message: bytes) -> None:
        fields = EXIT.parse(message[:_EXIT_SIZE])
        body = message[_EXIT_SIZE:]
        match ExitKind(fields.kind):
            case ExitKind.REGISTER_READ:
                self._reply(ReplyKind.VALUE, self._read(fields.address, fields.size))
            case ExitKind.REGISTER_WRITE:
                self._write(fields.address, fields.size, fields.value)
                self._reply(ReplyKind.VALUE)
            case ExitKind.FAULT:
                self._fault = body.decode()
            case ExitKind.VERDICT:
                self._verdict = json.loads(body)
            case ExitKind.READY | ExitKind.HALTED as kind:
                self._halt_kind, self._halt_body = kind, body
                self._halted.set()

    def _reply(self, kind: ReplyKind, value: int = 0, body: bytes = b"") -> None:
        try:
            # The guest is blocked for exactly this one datagram, so the send never blocks.
            os.write(self._socket.fileno(), REPLY.build({"kind": kind, "value": value}) + body)
        except (BrokenPipeError, ConnectionResetError):
            return  # The guest died; serve_exits sees the end of the socket.

    async def _wait_halted(self) -> tuple[ExitKind, bytes]:
        await self._halted.wait()
        self.raise_if_gone()
        return self._halt_kind, self._halt_body

    def raise_if_gone(self) -> None:
        """Raise GuestDied, or GuestFault with the guest's own words, once the guest is gone."""
        if self._ended.is_set():
            if self._fault is not None:
                raise GuestFault(self._fault)
            raise GuestDied(f"the guest process {self.process.pid} {self._how_it_ended()}")

    def _how_it_ended(self) -> str:
        status = self.process.poll()
        if status is None:
            return "closed its exit socket"
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def _answer_halt(self, kind: ReplyKind, body: bytes = b"") -> None:
        self.raise_if_gone()
        if not self._halted.is_set():
            raise RuntimeError(f"the vCPU runs: it cannot be told {kind.name}")
        self._halted = trio.Event()
        self._reply(kind, 0, body)

    async def wait_ready(self) -> None:
        """Wait until the process has RAM mapped; fills `region_addresses` and `write_protect_refused`."""
        kind, body = await self._wait_halted()
        if kind is ExitKind.READY and not self.region_addresses:
            answer = json.loads(body)
            self.region_addresses = answer["regions"]
            self.write_protect_refused = answer["write_protect_refused"]

    async def boot(self, config: Mapping[str, Any]) -> None:
        """Start the guest from nothing."""
        await self.wait_ready()
        self._answer_halt(ReplyKind.BOOT, json.dumps(dict(config)).encode())
        await self._wait_halted()

    async def restore(self, state: bytes) -> None:
        """Start the guest from RAM and `state`."""
        await self.wait_ready()
        self._answer_halt(ReplyKind.RESTORE, body=state)
        await self._wait_halted()

    async def pause(self) -> bytes:
        """Halt between two operations and return the vCPU state."""
        if not self._halted.is_set():
            self._pause.ring()
        kind, state = await self._wait_halted()
        if kind is ExitKind.READY:
            raise RuntimeError("the guest was neither booted nor restored")
        if self._events.listening:
            self._events.emit(VcpuPaused())
        return state

    def run(self) -> None:
        """Go on."""
        if self._events.listening:
            self._events.emit(VcpuResumed())
        self._answer_halt(ReplyKind.RUN)

    async def verify(self) -> dict[str, Any]:
        """Let the halted guest check itself."""
        self._answer_halt(ReplyKind.VERIFY)
        await self._wait_halted()
        return self._verdict

    async def wait_ended(self) -> None:
        """Wait until the guest is gone."""
        await self._ended.wait()
        await self.process.wait()

    async def end(self) -> None:
        """End the guest: told so if halted, by a closed socket otherwise, by a signal if it does not listen."""
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            if self._halted.is_set() and not self._ended.is_set():
                self._reply(ReplyKind.END)
            self._socket.close()
            with trio.move_on_after(_END_GRACE):
                await self.process.wait()
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            self._ended.set()
            self._halted.set()
            self.interrupt.close()
            self._pause.close()


def _describe_hardware(
    ram: SharedRam,
    interrupt: EventfdDoorbell,
    pause: EventfdDoorbell,
    ioeventfds: Mapping[tuple[int, int], Doorbell],
    write_protect: bool,
    trace_fd: int | None,
) -> tuple[dict[str, Any], list[int]]:
    """Return the hardware as JSON, in which a file descriptor is its place in the list that is returned with it."""
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
    for (address, value), doorbell in ioeventfds.items():
        if not isinstance(doorbell, EventfdDoorbell):
            raise TypeError("a guest process needs doorbells that are eventfds")
        doorbells.append({"address": address, "value": value, "fd": place(doorbell.fileno())})
    hardware = {
        "interrupt": place(interrupt.fileno()),
        "pause": place(pause.fileno()),
        "regions": regions,
        "marks": place(ram.marks_fd),
        "ioeventfds": doorbells,
        "write_protect": write_protect,
        "trace": place(trace_fd),
    }
    if len(fds) > MAX_FD_COUNT:
        raise ValueError(f"{len(fds)} file descriptors are more than one datagram carries")
    return hardware, fds
