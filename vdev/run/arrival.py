"""The machine that a guest moves into: a fresh host process's, opened when the stream says what it is to be."""

from collections.abc import Sequence
from typing import Any

import trio

from host_migrator.machine import StreamHeader
from vdev.events import EventStream
from vdev.memory import GuestMemory
from vdev.run.host import ProcessHost, open_host
from vdev.run.proof import prove
from vdev.run.shape import MachineShape, UnknownMachine
from vdev.schedule import Schedule
from vdev.vcpu import GuestProcess

__all__ = ["Arrival"]


class Arrival:
    """A `host_migrator.destination.DestinationMachine` whose guest is a process.

    `warm_up` starts the guest's process before there is a stream; `make` opens the host around it, in `nursery`.
    """

    def __init__(self, nursery: trio.Nursery, schedule: Schedule, events: EventStream) -> None:
        self._nursery = nursery
        self._schedule = schedule
        self._events = events
        self._guest: GuestProcess | None = None
        self._host: ProcessHost | None = None
        self._scope = trio.CancelScope()
        self._closed = trio.Event()

    async def warm_up(self) -> None:
        """Start the guest's process and wait until it is up."""
        self._guest = await GuestProcess.start()
        await self._guest.wait_up()

    async def make(self, header: StreamHeader) -> "Arrival":
        """Open the host that `header` describes. Raises UnknownMachine, or OSError where RAM cannot be had."""
        shape = MachineShape.from_json(header.config)
        if tuple(sorted(shape.regions)) != tuple(sorted(header.regions)):
            raise UnknownMachine(f"the stream's RAM {header.regions} is not its machine's {shape.regions}")
        self._host = await self._nursery.start(self._keep_open, shape)
        return self

    async def _keep_open(self, shape: MachineShape, *, task_status: trio.TaskStatus[ProcessHost]) -> None:
        guest, self._guest = self._guest, None
        try:
            with self._scope:
                async with open_host(
                    shape, self._schedule, self._events, name="destination", trace=self._events.listening, guest=guest
                ) as host:
                    task_status.started(host)
                    await trio.sleep_forever()
        finally:
            self._closed.set()

    @property
    def host(self) -> ProcessHost:
        """The host, once made."""
        if self._host is None:
            raise RuntimeError("the host was not opened yet")
        return self._host

    @property
    def memory(self) -> GuestMemory:
        """Fresh guest RAM."""
        return self.host.memory

    async def restore_devices(self, states: Sequence[tuple[str, bytes]]) -> None:
        """Load the devices."""
        self.host.machine.restore_devices(states)

    async def load_vcpu(self, state: bytes) -> None:
        """Have the guest stand ready."""
        await self.host.vcpu.restore(state)

    async def run(self) -> None:
        """Let the guest go."""
        await self.host.machine.resume()

    async def verify(self) -> dict[str, Any]:
        """Return the guest's verdict, and the memory that its RAM takes here."""
        verdict = await prove(self.host.machine, self._schedule)
        return {**verdict, "resident_bytes": self.memory.resident_size()}

    async def discard(self) -> None:
        """End the guest and close the host."""
        self._scope.cancel()
        if self._guest is not None:
            await self._guest.end()
        if self._host is not None:
            await self._closed.wait()
