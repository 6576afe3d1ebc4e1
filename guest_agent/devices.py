"""The guest's devices: found on the bus, each driver given its piece of RAM, both found again after a move."""

from collections.abc import Callable, Mapping, Sequence

from guest_agent.allocator import BuddyAllocator
from guest_agent.drivers.driver import Driver, DriverOptions, Surroundings
from guest_agent.drivers.registry import DRIVERS
from guest_agent.errors import GuestCorruption
from guest_agent.exits import Exits
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import MAX_ORDER, Owner
from guest_agent.ram_layout import MAX_AREA_COUNT, BootPage
from spec.device import DeviceId
from vdev.errors import UserError
from vdev.events import Emitter
from vdev.memory import PAGE_SIZE

__all__ = ["Devices"]


class Devices:
    """The drivers that this guest runs. Where each one's area of RAM lies is written in the boot page."""

    def __init__(
        self,
        boot: BootPage,
        exits: Exits,
        allocator: BuddyAllocator,
        statistics: Callable[[], Mapping[int, int]],
        events: Emitter,
    ) -> None:
        self.drivers: list[Driver] = []
        self._boot = boot
        self._memory = boot.ram.memory
        self._exits = exits
        self._allocator = allocator
        self._surroundings = Surroundings(self._memory, allocator, statistics, boot.poison_value, events)

    def start(self, mmio_addresses: Sequence[int], options: DriverOptions) -> None:
        """Start a driver for each device found at `mmio_addresses`.

        Raises UserError if there is no room for a driver's area, DeviceViolation or DeviceRefused as the drivers do.
        """
        for base in mmio_addresses:
            transport = MmioDriver.probe(self._exits, base)
            device_id = transport.device_id if transport is not None else DeviceId.NONE
            if transport is None or device_id not in DRIVERS:
                continue
            kind = DRIVERS[device_id]
            area = self._new_area(base, device_id, kind.area_size(options))
            self.drivers.append(kind.start(transport, area, self._surroundings, options))

    def resume(self) -> None:
        """Go on with each device that has an area in the boot page; no register is touched.

        Raises GuestCorruption if the boot page names a device type that has no driver.
        """
        areas = self._boot.areas
        for index in range(self._boot["area_count"]):
            device_id = areas["device_id"][index]
            if device_id not in DRIVERS:
                raise GuestCorruption(f"the boot page has a driver area for device type {device_id}", 0)
            transport = MmioDriver(self._exits, areas["mmio_address"][index])
            area = areas["area_address"][index]
            self.drivers.append(DRIVERS[device_id].resume(transport, area, self._surroundings))

    def _new_area(self, base: int, device_id: int, size: int) -> int:
        order = (-(-size // PAGE_SIZE) - 1).bit_length()
        page = self._allocator.allocate(order, Owner.DRIVER) if order <= MAX_ORDER else None
        index = self._boot["area_count"]
        if page is None or index == MAX_AREA_COUNT:
            raise UserError(f"guest RAM has no {size} contiguous bytes for the driver of the device at {base:#x}")
        address = self._memory.address_of(page)
        values = {"mmio_address": base, "area_address": address, "device_id": device_id}
        for field, value in values.items():
            self._boot.areas[field][index] = value
        self._boot.column("area_count")[0] = index + 1
        return address

    # While the guest runs

    def handle_interrupt(self) -> None:
        """Let each driver look whether its device interrupted: they share one line."""
        for driver in self.drivers:
            driver.handle_interrupt()

    def housekeep(self) -> None:
        """Let each driver look for what no interrupt tells of, such as free pages worth telling."""
        for driver in self.drivers:
            driver.housekeep()

    def work(self) -> bool:
        """Let each driver do one bounded piece; return whether one has more to do at once."""
        has_more = False
        for driver in self.drivers:
            has_more |= driver.work()
        return has_more
