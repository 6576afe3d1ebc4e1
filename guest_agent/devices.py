"""The guest's devices: found on the bus or plugged in, each driver given its piece of RAM, found again after a move."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from guest_agent.allocator import BuddyAllocator
from guest_agent.drivers.driver import Driver, DriverOptions, Surroundings
from guest_agent.drivers.registry import DRIVERS
from guest_agent.errors import GuestCorruption
from guest_agent.exits import Exits
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import MAX_ORDER, Owner
from guest_agent.ram_layout import MAX_AREA_COUNT, AreaTransport, BootPage
from guest_agent.transport import Transport
from guest_agent.vhost_user import BackEndLost, SavedTransport, VhostUserTransport
from vdev.errors import UserError
from vdev.events import Emitter
from vdev.memory import PAGE_SIZE

__all__ = ["Devices"]


class Devices:
    """The drivers that this guest runs. Where each one's area of RAM lies is written in the boot page.

    `slots` are devices that back ends serve; a device is known by its place among them.
    """

    def __init__(
        self,
        boot: BootPage,
        exits: Exits,
        allocator: BuddyAllocator,
        statistics: Callable[[], Mapping[int, int]],
        events: Emitter,
        slots: Sequence[VhostUserTransport] = (),
    ) -> None:
        self.drivers: list[Driver] = []
        self._boot = boot
        self._memory = boot.ram.memory
        self._exits = exits
        self._allocator = allocator
        self._slots = slots
        self._surroundings = Surroundings(self._memory, allocator, statistics, boot.poison_value, events)

    def start(self, mmio_addresses: Sequence[int], options: DriverOptions, slot_options: DriverOptions) -> None:
        """Start a driver for each device found at `mmio_addresses`, then with `slot_options` for each in a slot.

        Raises UserError if there is no room for a driver's area, DeviceViolation or DeviceRefused as the drivers do.
        """
        for base in mmio_addresses:
            transport = MmioDriver.probe(self._exits, base)
            if transport is not None:
                self._start(transport, AreaTransport.MMIO, base, options)
        for number, slot in enumerate(self._slots):
            self._start(slot, AreaTransport.VHOST_USER, number, slot_options)

    def _start(
        self, transport: Transport, kind_of_transport: AreaTransport, place: int, options: DriverOptions
    ) -> None:
        device_id = transport.device_id
        if device_id not in DRIVERS:
            return
        kind = DRIVERS[device_id]
        area = self._new_area(kind_of_transport, place, device_id, kind.area_size(options))
        self.drivers.append(kind.start(transport, area, self._surroundings, options))

    def resume(self, saved_slots: Sequence[SavedTransport]) -> None:
        """Go on with each device that has an area in the boot page.

        No register is touched; back ends are told what they must know, and their rings start with `resume_slots`.
        Raises GuestCorruption if the boot page names a device that is not there or has no driver, and what
        `VhostUserTransport.restore` does.
        """
        for slot, saved in zip(self._slots, saved_slots, strict=True):
            slot.restore(saved)
        areas = self._boot.areas
        for index in range(self._boot["area_count"]):
            device_id = areas["device_id"][index]
            if device_id not in DRIVERS:
                raise GuestCorruption(f"the boot page has a driver area for device type {device_id}", 0)
            transport = self._find(areas["transport"][index], areas["place"][index])
            area = areas["area_address"][index]
            self.drivers.append(DRIVERS[device_id].resume(transport, area, self._surroundings))

    def _find(self, kind_of_transport: int, place: int) -> Transport:
        if kind_of_transport == AreaTransport.MMIO:
            return MmioDriver(self._exits, place)
        if kind_of_transport != AreaTransport.VHOST_USER or place >= len(self._slots):
            raise GuestCorruption(f"the boot page has a driver area for transport {kind_of_transport}, {place:#x}", 0)
        return self._slots[place]

    def _new_area(self, kind_of_transport: AreaTransport, place: int, device_id: int, size: int) -> int:
        order = (-(-size // PAGE_SIZE) - 1).bit_length()
        page = self._allocator.allocate(order, Owner.DRIVER) if order <= MAX_ORDER else None
        index = self._boot["area_count"]
        if page is None or index == MAX_AREA_COUNT:
            raise UserError(f"guest RAM has no {size} contiguous bytes for the driver of the device at {place:#x}")
        address = self._memory.address_of(page)
        values = {
            "place": place,
            "area_address": address,
            "device_id": device_id,
            "transport": int(kind_of_transport),
        }
        for field, value in values.items():
            self._boot.areas[field][index] = value
        self._boot.column("area_count")[0] = index + 1
        return address

    # Slots stand still while the guest is halted

    def suspend_slots(self) -> None:
        """Stop the rings of all devices in slots. A back end lost by it needs a reset when the guest goes on."""
        for slot in self._slots:
            with suppress(BackEndLost):
                slot.suspend()

    def resume_slots(self) -> None:
        """Start those rings again. A back end that is lost by it needs a reset: its driver finds that out."""
        for slot in self._slots:
            with suppress(BackEndLost):
                slot.resume()

    def save_slots(self) -> list[SavedTransport]:
        """Return what another guest process needs to go on with the devices in slots, which must be suspended."""
        return [slot.save() for slot in self._slots]

    def filenos(self) -> list[int]:
        """Return the descriptors of slots that become readable when `handle_interrupt` is worth a call."""
        return [fd for slot in self._slots for fd in slot.filenos()]

    # While the guest runs

    def handle_interrupt(self) -> None:
        """Let each driver look whether its device interrupted: they share one line."""
        for driver in self.drivers:
            driver.handle_interrupt()

    def housekeep(self, now: float) -> float:
        """Let each driver look for what no interrupt tells of, such as free pages worth telling, at `now` in seconds.

        Returns in how many seconds one of them wants to look again at the latest.
        """
        return min((driver.housekeep(now) for driver in self.drivers), default=math.inf)

    def work(self) -> bool:
        """Let each driver do one bounded piece; return whether one has more to do at once."""
        has_more = False
        for driver in self.drivers:
            has_more |= driver.work()
        return has_more
