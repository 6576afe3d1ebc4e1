"""A machine: guest RAM, devices on a bus or in vhost-user slots, one vCPU. What the migrator stops and starts again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from spec.device import Feature
from spec.mmio import QUEUE_INDEX_MASK, Register
from vdev.bus import MmioBus
from vdev.device import Device
from vdev.errors import SavedStateError
from vdev.events import EventStream
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters
from vdev.notify import Doorbell, IoEventfdMatch
from vdev.schedule import Schedule
from vdev.serve import Gate, serve_queue
from vdev.vcpu import Vcpu
from vdev.vhost_user.slot import Slot

__all__ = ["Machine"]


class Machine:
    """One machine. Make it, `attach` its vCPU, start `serve` in a nursery, then boot or restore.

    `devices` are on the bus, those in `slots` are served over vhost-user. `make_doorbell` makes one doorbell per queue
    that has an ioeventfd; None leaves every QueueNotify an exit.
    `description` is what another host needs to build the same machine (JSON-ready). `name` tells the
    source from the destination in events.
    """

    def __init__(
        self,
        memory: GuestMemory,
        devices: Sequence[Device],
        schedule: Schedule,
        events: EventStream,
        *,
        make_doorbell: Callable[[], Doorbell] | None,
        slots: Sequence[Slot] = (),
        description: Mapping[str, Any] | None = None,
        name: str = "host",
    ) -> None:
        self.memory = memory
        self.devices = tuple(devices)
        self.slots = tuple(slots)
        self.schedule = schedule
        self._events = events.emitter(name)
        self._registers = [MmioRegisters(device, events=self._events) for device in self.devices]
        self.bus = MmioBus(self._registers)
        self._gate = Gate()
        self._vcpu: Vcpu | None = None
        self._description = dict(description or {})
        self._doorbells: dict[tuple[Device, int], Doorbell] = {}
        if make_doorbell is not None:
            for device in self.devices:
                for number in range(len(device.queue_sizes)):
                    self._doorbells[device, number] = make_doorbell()

    @property
    def ioeventfds(self) -> dict[IoEventfdMatch, Doorbell]:
        """Which write of a QueueNotify register rings which doorbell."""
        base = dict(zip(self.devices, self.bus.addresses, strict=True))
        return {
            IoEventfdMatch(base[device] + Register.QUEUE_NOTIFY, number, _notified_bits(device)): doorbell
            for (device, number), doorbell in self._doorbells.items()
        }

    @property
    def vcpu(self) -> Vcpu:
        """The vCPU that was attached."""
        if self._vcpu is None:
            raise RuntimeError("the machine has no vCPU yet")
        return self._vcpu

    def attach(self, vcpu: Vcpu, interrupt: Callable[[], None]) -> None:
        """Give the machine its vCPU, and the devices the line that interrupts it."""
        self._vcpu = vcpu
        for device in self.devices:
            device.interrupt = interrupt

    async def serve(self) -> None:
        """Serve every queue that has a doorbell, and every slot, until cancelled."""
        async with trio.open_nursery() as nursery:
            for slot in self.slots:
                nursery.start_soon(slot.serve)
            for (device, number), doorbell in self._doorbells.items():
                nursery.start_soon(self._serve_queue, device, number, doorbell)

    async def _serve_queue(self, device: Device, number: int, doorbell: Doorbell) -> None:
        await serve_queue(device, number, doorbell, self._gate, self.schedule, events=self._events)

    async def boot(self, config: Mapping[str, Any]) -> None:
        """Boot the guest and halt it before its first operation; its devices are served meanwhile."""
        self._gate.open()
        await self.vcpu.boot(config)

    # What the migrator asks for

    def guest_config(self) -> dict[str, Any]:
        """Return what the destination needs to build this machine; the guest's own settings are in its vCPU state."""
        return dict(self._description)

    async def pause(self) -> bytes:
        """Halt the vCPU, then the devices; return the vCPU state. From now on nothing writes to guest RAM.

        A guest stops the rings of slots itself before it halts, and starts them again when it goes on.
        If it raises or is cancelled, the guest goes on.
        """
        state = await self.vcpu.pause()
        self._gate.close()
        return state

    async def resume(self) -> None:
        """Let devices and vCPU go on. A kick or an interrupt that fell into the pause is made up for."""
        self._gate.open()
        for device in self.devices:
            device.handle_all_queues()
        self.vcpu.run()

    def save_devices(self) -> list[tuple[str, bytes]]:
        """Return each device's name and state; the machine is paused."""
        on_bus = [(registers.device.name, registers.save()) for registers in self._registers]
        return on_bus + [(slot.device.name, slot.save()) for slot in self.slots]

    def restore_devices(self, states: Sequence[tuple[str, bytes]]) -> None:
        """Load what `save_devices` gave on a machine with the same devices.

        Raises SavedStateError when the devices differ.
        """
        parts = [(registers.device.name, registers.restore) for registers in self._registers]
        parts += [(slot.device.name, slot.restore) for slot in self.slots]
        ours, theirs = [name for name, _ in parts], [name for name, _ in states]
        if ours != theirs:
            raise SavedStateError(f"the stream has devices {theirs}, this machine has {ours}")
        for (_, restore), (_, state) in zip(parts, states, strict=True):
            restore(state)

    def close(self) -> None:
        """Give the doorbells and the devices up."""
        for doorbell in self._doorbells.values():
            doorbell.close()
        for device in self.devices:
            device.close()


def _notified_bits(device: Device) -> int:
    # A match is made before the driver negotiates, so what may be negotiated decides. A driver that does not negotiate
    # it and writes more than the queue's index all the same has its kick taken as one that was not needed.
    return QUEUE_INDEX_MASK if device.offered_features >> Feature.NOTIFICATION_DATA & 1 else 0xFFFF_FFFF
