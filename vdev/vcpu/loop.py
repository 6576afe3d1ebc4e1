"""A vCPU that is a task of the host's own loop: the guest acts in its turns, a register access is a plain call."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import trio

from vdev.errors import VdevError
from vdev.events import SILENT, CallHandled, Emitter, VcpuPaused, VcpuResumed
from vdev.notify import IoEventfds, LoopDoorbell
from vdev.schedule import Schedule
from vdev.vcpu.vcpu import GuestDied, GuestFault

__all__ = ["GuestCore", "LoopExits", "LoopVcpu"]


class GuestCore(Protocol):
    """The guest as this vCPU needs it; `guest_agent.kernel.Guest` is one."""

    def step(self, now: float) -> float:
        """Do one piece of work at `now` seconds; return the seconds until the next is due, 0 for at once."""
        ...

    def handle_interrupt(self) -> None:
        """Look why the host interrupted."""
        ...

    def save(self) -> bytes:
        """Return the vCPU state."""
        ...

    def verify_json(self) -> dict[str, Any]:
        """Check all that the guest relies on."""
        ...


class LoopExits:
    """Exits that are plain calls into the host, except where an ioeventfd is."""

    def __init__(
        self, read: Callable[[int, int], int], write: Callable[[int, int, int], object], ioeventfds: IoEventfds
    ) -> None:
        self.read = read
        self._write = write
        self._ioeventfds = ioeventfds

    def write(self, address: int, size: int, value: int) -> None:
        """Write a register, or ring the doorbell that stands for it."""
        if not self._ioeventfds.ring(address, value):
            self._write(address, size, value)


class LoopVcpu:
    """Runs a guest in turns of `schedule`, under the name `actor`. Start `run_guest` in a nursery."""

    def __init__(
        self,
        boot: Callable[[Mapping[str, Any]], GuestCore],
        restore: Callable[[bytes], GuestCore],
        schedule: Schedule,
        actor: str = "guest",
        events: Emitter = SILENT,
    ) -> None:
        self.interrupt = LoopDoorbell()
        self._boot = boot
        self._restore = restore
        self._schedule = schedule
        self._actor = actor
        self._events = events
        self._guest: GuestCore | None = None
        self._running = trio.Event()
        self._halted = trio.Event()
        self._halted.set()
        self._pause_requested = False
        self._attention = trio.Event()
        self._interrupt_count = 0
        self._ended = trio.Event()
        self._fault: str | None = None

    async def run_guest(self) -> None:
        """Act in the guest's turns until ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_interrupt)
            nursery.start_soon(self._act)
            await self._ended.wait()
            nursery.cancel_scope.cancel()

    async def _watch_interrupt(self) -> None:
        while True:
            self._interrupt_count += await self.interrupt.wait_rung()
            self._attention.set()

    async def _act(self) -> None:
        try:
            await self._take_turns()
        except VdevError as error:
            self._fault = str(error)
            self._ended.set()
            self._halted.set()

    async def _take_turns(self) -> None:
        handled_count = 0
        while True:
            await self._running.wait()
            await self._schedule.turn(self._actor)
            if self._pause_requested:
                self._halt()
                continue
            self._attention = trio.Event()
            if self._interrupt_count > handled_count:
                if self._events.listening:
                    self._events.emit(CallHandled("machine", handled_count + 1, self._interrupt_count))
                handled_count = self._interrupt_count
                self._running_guest.handle_interrupt()
                continue
            delay = self._running_guest.step(self._schedule.now())
            if delay > 0:
                await self._sleep(delay)

    async def _sleep(self, delay: float) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cut_sleep, nursery.cancel_scope)
            await self._schedule.sleep(self._actor, delay)
            nursery.cancel_scope.cancel()

    async def _cut_sleep(self, scope: trio.CancelScope) -> None:
        await self._attention.wait()
        scope.cancel()

    def _halt(self) -> None:
        self._pause_requested = False
        self._running = trio.Event()
        self._halted.set()

    @property
    def _running_guest(self) -> GuestCore:
        if self._fault is not None:
            raise GuestFault(self._fault)
        if self._ended.is_set() or self._guest is None:
            raise GuestDied("the guest has ended" if self._ended.is_set() else "no guest was booted")
        return self._guest

    async def boot(self, config: Mapping[str, Any]) -> None:
        """Start the guest from nothing."""
        await self._schedule.turn(self._actor)
        self._guest = self._boot(config)

    async def restore(self, state: bytes) -> None:
        """Start the guest from RAM and `state`."""
        await self._schedule.turn(self._actor)
        self._guest = self._restore(state)

    async def pause(self) -> bytes:
        """Halt in the guest's next turn and return the vCPU state."""
        if not self._halted.is_set():
            self._pause_requested = True
            self._attention.set()
            met = False
            try:
                await self._halted.wait()
                met = True
            finally:
                if not met:
                    self._withdraw_pause()
        state = self._running_guest.save()
        if self._events.listening:
            self._events.emit(VcpuPaused())
        return state

    def _withdraw_pause(self) -> None:
        if self._pause_requested:
            self._pause_requested = False
        else:
            self._go_on()

    def run(self) -> None:
        """Go on."""
        if self._events.listening:
            self._events.emit(VcpuResumed())
        self._go_on()

    def _go_on(self) -> None:
        self._halted = trio.Event()
        self._running.set()

    async def verify(self) -> dict[str, Any]:
        """Let the halted guest check itself."""
        return self._running_guest.verify_json()

    async def wait_ended(self) -> None:
        """Wait until the guest is gone."""
        await self._ended.wait()

    async def end(self) -> None:
        """End the guest."""
        self._ended.set()
        self._halted.set()
