"""The guest's devices: found on the bus, each driver given its piece of RAM, both found again after a move."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from guest_agent.allocator import BuddyAllocator
from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES, BalloonDriver
from guest_agent.errors import GuestCorruption
from guest_agent.exits import Exits
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import MAX_ORDER, Owner
from guest_agent.ram_layout import MAX_AREA_COUNT, BootPage
from spec.balloon import QueueNumbering
from spec.device import DeviceId, Feature, feature_mask, is_device_type_feature
from vdev.errors import UserError
from vdev.events import Emitter
from vdev.memory import PAGE_SIZE

__all__ = ["DRIVERS", "DeviceOptions", "Devices"]

DRIVERS: dict[int, type[BalloonDriver]] = {DeviceId.BALLOON: BalloonDriver}
"""Which driver drives which device type. A device of another type is left alone, as any system leaves it."""


@dataclass(frozen=True)
class DeviceOptions:
    """What drivers are started with.

    `wanted_features` masks the bits that belong to the device type, `ring_features` the others; VERSION_1 is always
    wanted.
    """

    wanted_features: int
    ring_features: int
    queue_size: int
    numbering: QueueNumbering


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
        self.drivers: list[BalloonDriver] = []
        self._boot = boot
        self._memory = boot.ram.memory
        self._exits = exits
        self._allocator = allocator
        self._statistics = statistics
        self._events = events

    def start(self, mmio_addresses: Sequence[int], options: DeviceOptions) -> None:
        """Start a driver for each device found at `mmio_addresses`.

        Raises UserError if there is no room for a driver's area, DeviceViolation or DeviceRefused as the drivers do.
        """
        for base in mmio_addresses:
            registers = MmioDriver.probe(self._exits, base)
            device_id = registers.device_id if registers is not None else DeviceId.NONE
            if registers is None or device_id not in DRIVERS:
                continue
            driver = DRIVERS[device_id]
            area = self._new_area(base, device_id, driver.area_size(options.queue_size))
            self.drivers.append(
                driver.start(
                    registers,
                    self._memory,
                    self._allocator,
                    area,
                    statistics=self._statistics,
                    wanted_features=_mask(BALLOON_DRIVER_FEATURES, options),
                    queue_size=options.queue_size,
                    numbering=options.numbering,
                    poison_value=self._boot.poison_value,
                    events=self._events,
                )
            )

    def resume(self) -> None:
        """Go on with each device that has an area in the boot page; no register is touched.

        Raises GuestCorruption if the boot page names a device type that has no driver.
        """
        areas = self._boot.areas
        for index in range(self._boot["area_count"]):
            device_id = areas["device_id"][index]
            if device_id not in DRIVERS:
                raise GuestCorruption(f"the boot page has a driver area for device type {device_id}", 0)
            registers = MmioDriver(self._exits, areas["mmio_address"][index])
            area = areas["area_address"][index]
            self.drivers.append(
                DRIVERS[device_id].resume(
                    registers,
                    self._memory,
                    self._allocator,
                    area,
                    statistics=self._statistics,
                    events=self._events,
                )
            )

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

    def report_free_pages(self) -> None:
        """Let each driver see whether there are free pages worth telling."""
        for driver in self.drivers:
            driver.report_free_pages()

    def work(self) -> bool:
        """Let each driver do one bounded piece; return whether one has more to do at once."""
        has_more = False
        for driver in self.drivers:
            has_more |= driver.work()
        return has_more


def _mask(known: int, options: DeviceOptions) -> int:
    wanted = feature_mask(Feature.VERSION_1)
    for bit in range(known.bit_length()):
        allowed = options.wanted_features if is_device_type_feature(bit) else options.ring_features
        wanted |= known & allowed & 1 << bit
    return wanted
