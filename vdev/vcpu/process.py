"""A vCPU that is a process: exits come as datagrams on a socketpair, interrupts go as an irqfd.

The guest process polls the pause eventfd between two operations, as a vCPU thread looks at its exit request. What it
sends is checked against the table in `vdev.vcpu.exits`; a process that breaks it is killed.
"""

import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from spec.exits import MAX_MESSAGE_SIZE, REPLY, ExitKind, ReplyKind
from vdev.events import SILENT, Emitter, VcpuPaused, VcpuResumed
from vdev.notify import Doorbell, EventfdDoorbell, IoEventfdMatch
from vdev.vcpu.exits import EXPECTED, Exit, ExitViolation, Running, parse_exit, parse_ready, parse_verdict
from vdev.vcpu.guest_process import GuestProcess, SharedRam, describe_hardware, end_process
from vdev.vcpu.vcpu import GuestDied, GuestFault, GuestNotResponding

__all__ = ["ProcessVcpu"]

_STATUS_GRACE = 2.0
"""Seconds from the end of the exit socket to the process's status, which says how it died."""
_HALT_PATIENCE = 30.0
"""Seconds; an operation of the guest takes milliseconds."""
_WORK_PATIENCE = 600.0
"""Seconds to boot, restore or verify: the time grows with guest RAM."""

_HALTED = (Running.READY, Running.HALTED)


class ProcessVcpu:
    """One guest process with its hardware. Make it with `plug_in`; run `serve_exits` in a nursery while it lives.

    `read` and `write` handle a register access, by guest-physical address; a write whose handling takes longer gives an
    event, and the vCPU stays in its exit until that is set. Waiting for the guest raises
    GuestNotResponding after `halt_patience` seconds, and `work_patience` for what takes longer the more RAM there is.
    """

    def __init__(
        self,
        guest: GuestProcess,
        interrupt: EventfdDoorbell,
        pause: EventfdDoorbell,
        region_count: int,
        read: Callable[[int, int], int],
        write: Callable[[int, int, int], trio.Event | None],
        events: Emitter = SILENT,
        *,
        halt_patience: float = _HALT_PATIENCE,
        work_patience: float = _WORK_PATIENCE,
    ) -> None:
        self.process = guest.process
        self.interrupt = interrupt
        self.region_addresses: list[int] = []
        """Where the guest process mapped each region, once it is ready."""
        self.write_protect_refused: str | None = None
        """Why the kernel's dirty log cannot be had, once the guest is ready."""
        self._socket = trio.socket.from_stdlib_socket(guest.exits)
        self._pause = pause
        self._region_count = region_count
        self._read = read
        self._write = write
        self._events = events
        self._halt_patience = halt_patience
        self._work_patience = work_patience
        self._state = Running.COMING_UP
        self._pause_withdrawn = False
        self._halted = trio.Event()
        self._vcpu_state = b""
        self._verdict: dict[str, Any] = {}
        self._ended = trio.Event()
        self._fault: str | None = None
        self._violation: str | None = None
        self._closed = False

    @classmethod
    def plug_in(
        cls,
        guest: GuestProcess,
        ram: SharedRam,
        *,
        read: Callable[[int, int], int],
        write: Callable[[int, int, int], trio.Event | None],
        ioeventfds: Mapping[IoEventfdMatch, Doorbell],
        write_protect: bool,
        trace_fd: int | None = None,
        vhost_user: Sequence[tuple[int, int]] = (),
        gates: Sequence[int] = (),
        events: Emitter = SILENT,
    ) -> "ProcessVcpu":
        """Give a guest process that is up its hardware: RAM, and doorbells both ways.

        `ioeventfds` maps a write of a QueueNotify register to the doorbell that is rung instead of an exit.
        `write_protect` registers RAM for the kernel's dirty log. Events of the guest are written as JSON lines to
        `trace_fd`. `vhost_user` has the device id and a connected socket for each device that a back end serves; the
        descriptors stay the caller's. `gates` are sockets at which the vCPUs ask for their turns. Raises GuestDied if
        the process has ended.
        """
        interrupt, pause = EventfdDoorbell(), EventfdDoorbell()
        hardware, fds = describe_hardware(ram, interrupt, pause, ioeventfds, write_protect, trace_fd, vhost_user, gates)
        try:
            socket.send_fds(guest.exits, [json.dumps(hardware).encode()], fds)
        except OSError as error:
            interrupt.close()
            pause.close()
            raise GuestDied(f"the guest process {guest.process.pid} ended before it had RAM") from error
        return cls(guest, interrupt, pause, len(ram.memory.regions), read, write, events)

    # What the guest says

    async def serve_exits(self) -> None:
        """Handle exits until the guest is gone. A guest that breaks the protocol of exits is killed."""
        try:
            while True:
                try:
                    message = await self._socket.recv(MAX_MESSAGE_SIZE + 1)
                except (ConnectionResetError, trio.ClosedResourceError):
                    break
                if not message:
                    break
                try:
                    await self._handle(parse_exit(message))
                except ExitViolation as violation:
                    self.condemn(f"broke the protocol of exits: {violation}")
                    break
            with trio.move_on_after(_STATUS_GRACE):
                await self.process.wait()
        finally:
            self._ended.set()
            self._halted.set()

    def condemn(self, why: str) -> None:
        """Kill the guest process for something that no vCPU does; `why` is the rest of "the guest process ...".

        From now on every call raises GuestDied with these words, once `serve_exits` sees the end.
        """
        self._violation = self._violation or why
        if self.process.returncode is None:
            self.process.kill()

    async def _handle(self, guest_exit: Exit) -> None:
        kind = guest_exit.kind
        if kind not in EXPECTED[self._state]:
            raise ExitViolation(f"it sent {kind.name} while it was {self._state.value}")
        match kind:
            case ExitKind.REGISTER_READ:
                self._reply(ReplyKind.VALUE, self._read(guest_exit.address, guest_exit.size))
            case ExitKind.REGISTER_WRITE:
                pending = self._write(guest_exit.address, guest_exit.size, guest_exit.value)
                if pending is not None:
                    await pending.wait()
                self._reply(ReplyKind.VALUE)
            case ExitKind.FAULT:
                self._fault = " ".join(guest_exit.body.decode(errors="replace").split())
            case ExitKind.VERDICT:
                self._verdict = parse_verdict(guest_exit.body)
            case ExitKind.READY:
                self.region_addresses, self.write_protect_refused = parse_ready(guest_exit.body, self._region_count)
            case ExitKind.HALTED:
                self._vcpu_state = guest_exit.body
        self._state = EXPECTED[self._state][kind] or self._state
        if self._state in _HALTED:
            self._halted.set()
            if self._pause_withdrawn:
                self._go_on()

    def _reply(self, kind: ReplyKind, value: int = 0, body: bytes = b"") -> None:
        try:
            # The guest is blocked for exactly this one datagram, so the send never blocks.
            os.write(self._socket.fileno(), REPLY.build({"kind": kind, "value": value}) + body)
        except BlockingIOError:
            raise ExitViolation("it sends exits and does not read the replies") from None
        except (BrokenPipeError, ConnectionResetError):
            return  # The guest died; serve_exits sees the end of the socket.

    # What the host says

    async def _wait_halted(self, what: str, patience: float) -> None:
        with trio.move_on_after(patience):
            await self._halted.wait()
        self.raise_if_gone()
        if not self._halted.is_set():
            raise GuestNotResponding(f"the guest process {self.process.pid} did not {what} within {patience:g} s")

    def raise_if_gone(self) -> None:
        """Raise GuestDied, or GuestFault with the guest's own words, once the guest is gone."""
        if self._ended.is_set():
            if self._fault is not None and self._violation is None:
                raise GuestFault(self._fault)
            raise GuestDied(f"the guest process {self.process.pid} {self._how_it_ended()}")

    def _how_it_ended(self) -> str:
        if self._violation is not None:
            return f"{self._violation}; it was killed"
        status = self.process.poll()
        if status is None:
            return "closed its exit socket"
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def _answer_halt(self, kind: ReplyKind, after: Running, body: bytes = b"") -> None:
        self.raise_if_gone()
        if self._state not in _HALTED:
            raise RuntimeError(f"the vCPU is {self._state.value}: it cannot be told {kind.name}")
        self._halted = trio.Event()
        self._state = after
        self._reply(kind, 0, body)

    async def wait_ready(self) -> None:
        """Wait until the process has RAM mapped; fills `region_addresses` and `write_protect_refused`."""
        await self._wait_halted("map its RAM", self._work_patience)

    async def boot(self, config: Mapping[str, Any]) -> None:
        """Start the guest from nothing."""
        await self.wait_ready()
        self._answer_halt(ReplyKind.BOOT, Running.STARTING, json.dumps(dict(config)).encode())
        await self._wait_halted("boot", self._work_patience)

    async def restore(self, state: bytes) -> None:
        """Start the guest from RAM and `state`."""
        await self.wait_ready()
        self._answer_halt(ReplyKind.RESTORE, Running.STARTING, state)
        await self._wait_halted("restore its state", self._work_patience)

    async def pause(self) -> bytes:
        """Halt between two operations and return the vCPU state.

        If this is cancelled or raises GuestNotResponding, the guest goes on, at once when it halts after all.
        """
        self.raise_if_gone()
        if self._state is Running.READY:
            raise RuntimeError("the guest was neither booted nor restored")
        if self._state is Running.RUNNING:
            # One ring for one halt: a second one would halt the guest again, unasked.
            self._state = Running.PAUSING
            self._pause.ring()
        self._pause_withdrawn = False
        met = False
        try:
            await self._wait_halted("halt", self._halt_patience)
            met = True
        finally:
            if not met:
                self._withdraw_pause()
        if self._events.listening:
            self._events.emit(VcpuPaused())
        return self._vcpu_state

    def _withdraw_pause(self) -> None:
        if self._ended.is_set():
            return
        if self._state is Running.HALTED:
            self._go_on()
        else:
            self._pause_withdrawn = True

    def _go_on(self) -> None:
        self._pause_withdrawn = False
        self._answer_halt(ReplyKind.RUN, Running.RUNNING)

    def run(self) -> None:
        """Go on."""
        if self._events.listening:
            self._events.emit(VcpuResumed())
        self._answer_halt(ReplyKind.RUN, Running.RUNNING)

    async def verify(self) -> dict[str, Any]:
        """Let the halted guest check itself."""
        self._answer_halt(ReplyKind.VERIFY, Running.VERIFYING)
        await self._wait_halted("verify itself", self._work_patience)
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
            if self._state in _HALTED and not self._ended.is_set():
                self._reply(ReplyKind.END)
            self._socket.close()
            await end_process(self.process)
            self._ended.set()
            self._halted.set()
            self.interrupt.close()
            self._pause.close()
