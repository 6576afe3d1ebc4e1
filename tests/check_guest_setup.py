"""Our own guest before the judge, in one process: with a balloon, and with a disk that it works on."""

import contextlib
import random
from dataclasses import dataclass
from typing import ClassVar

from check_driver_mutants import DriverMutant

from guest_agent.drivers.block import BLOCK_DRIVER_FEATURES, BlockDriver
from guest_agent.kernel import Guest, GuestConfig
from guest_agent.mmio import MmioDriver
from guest_agent.virtqueue.queue import QueueFull
from spec.block import SECTOR_SIZE, BlockFeature
from vdev.bus import MMIO_BASE
from vdev.check.driver.in_process import judge_in_process
from vdev.check.driver.judge import Judge
from vdev.devices.kind import Carrier
from vdev.errors import DeviceViolation

RAM_SIZE = 32 << 20
_STEP = 0.05


class BalloonGuest:
    """A whole guest with a balloon, whose time goes on with each step."""

    device_type = "balloon"
    options: ClassVar = {}

    def __init__(self, window, memory):
        options = {"workload": "idle", "rate": 0, "warm_up": False, "mmio_addresses": (MMIO_BASE,), **self.options}
        config = GuestConfig(**options)
        self.guest = Guest.boot(memory, window, config)
        self.now = 0.0

    @classmethod
    def start(cls, window, memory):
        """Return the guest; None if it finds no device."""
        guest = cls(window, memory)
        return guest if guest.guest.drivers else None

    @property
    def driver(self):
        return self.guest.drivers[0]

    @property
    def gave_up(self):
        return self.driver.gave_up

    def handle_interrupt(self):
        self.guest.handle_interrupt()

    def step(self):
        self.now += _STEP
        return self.guest.step(self.now) == 0


class DiskGuest:
    """A driver of a disk and somebody who reads, writes, flushes, discards and zeroes; it rests between bursts."""

    device_type = "block"
    data, area = 0x40_0000, 0x10_0000
    wanted = BLOCK_DRIVER_FEATURES
    always = ()
    """What it does whether or not the disk can do it."""
    too_far = ()
    """What it does beyond the disk's end."""

    @classmethod
    def start(cls, window, memory):
        """Return the driver; None if it finds no device."""
        transport = MmioDriver.probe(window, MMIO_BASE)
        return None if transport is None else cls(transport, memory)

    def __init__(self, transport, memory):
        self.driver = BlockDriver.start(transport, memory, self.area, wanted_features=self.wanted, queue_size=128)
        self.random = random.Random(1)
        self.out = 0
        self.rested = False

    @property
    def gave_up(self):
        return self.driver.gave_up

    def handle_interrupt(self):
        self.driver.handle_interrupt()

    def step(self):
        self.driver.work()
        if self.driver.gave_up is not None:
            return False
        try:
            done = len(self.driver.collect())
        except DeviceViolation:
            return False  # it has given the device up
        self.out -= done
        if not self.out:
            self.rested = not self.rested
            if self.rested:
                return False
            for _ in range(self.random.randrange(1, 9)):
                try:
                    self.submit()
                except QueueFull:
                    break
                self.out += 1
            self.driver.publish()
            return True
        return bool(done)

    def submit(self):
        driver, chance = self.driver, self.random
        has = lambda bit: driver.features >> bit & 1  # noqa: E731
        sizes = [SECTOR_SIZE * chance.randrange(1, 64) for _ in range(chance.randrange(1, 5))]
        pieces = [(self.data + chance.randrange(1 << 20), size) for size in sizes]
        kinds = ["read", "id"]
        if has(BlockFeature.FLUSH):
            kinds.append("flush")
        if not driver.read_only:
            kinds += ["write"] + ["discard"] * has(BlockFeature.DISCARD) + ["zero"] * has(BlockFeature.WRITE_ZEROES)
        kind = chance.choice((*kinds, *self.always))
        last = driver.capacity - (1 if kind in self.too_far else 256)
        sector = chance.choice((0, last, chance.randrange(last)))
        ranges = [(sector, chance.randrange(2, 200)) for _ in range(chance.randrange(1, 6))]
        match kind:
            case "read":
                driver.submit_read(sector, pieces, 1)
            case "write":
                driver.submit_write(sector, pieces, 2)
            case "flush":
                driver.submit_flush(3)
            case "id":
                driver.submit_get_id(4)
            case "discard":
                driver.submit_discard(ranges, 5)
            case "zero":
                driver.submit_write_zeroes(ranges, 6, unmap=chance.random() < 0.5)


def judge_guest(device_type, own=None, **options):
    """Return the results by name of our own driver of a type."""
    own = own or {"balloon": BalloonGuest, "block": DiskGuest}[device_type]
    judge = Judge(device_type, Carrier.MMIO, **options)
    judge_in_process(judge, own.start, memory_size=RAM_SIZE)
    return {case.name: case for case in judge.cases()}


@dataclass(frozen=True)
class GuestMutant(DriverMutant):
    """A mutant of one of these guests."""

    own: type = DiskGuest

    def judged(self):
        only = [f"*[{game}/{each}]" for game in self.games for each in self.formats]
        with self.patch() if self.patch is not None else contextlib.nullcontext():
            return judge_guest(self.own.device_type, self.own, only=only, offered=self.offered)
