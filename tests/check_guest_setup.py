"""Our own guest before the judge, in one process: with a balloon, and with a disk that it works on."""

import random

from guest_agent.drivers.block import BLOCK_DRIVER_FEATURES, BlockDriver
from guest_agent.kernel import Guest, GuestConfig
from guest_agent.mmio import MmioDriver
from guest_agent.virtqueue.queue import QueueFull
from spec.block import SECTOR_SIZE, BlockFeature
from vdev.bus import MMIO_BASE
from vdev.check.driver.in_process import judge_in_process
from vdev.check.driver.judge import Judge
from vdev.devices.kind import Carrier

RAM_SIZE = 32 << 20
_STEP = 0.05


class BalloonGuest:
    """A whole guest with a balloon, whose time goes on with each step."""

    def __init__(self, window, memory, **options):
        config = GuestConfig(
            **{"workload": "idle", "rate": 0, "warm_up": False, **options}, mmio_addresses=(MMIO_BASE,)
        )
        self.guest = Guest.boot(memory, window, config)
        self.now = 0.0

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

    DATA = 0x40_0000
    AREA = 0x10_0000

    def __init__(self, window, memory, wanted=BLOCK_DRIVER_FEATURES):
        transport = MmioDriver.probe(window, MMIO_BASE)
        self.driver = BlockDriver.start(transport, memory, self.AREA, wanted_features=wanted, queue_size=128)
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
        done = len(self.driver.collect())
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
        last = driver.capacity - 256
        sector = chance.choice((0, last, chance.randrange(last)))
        pieces = [
            (self.DATA + chance.randrange(1 << 20), SECTOR_SIZE * chance.randrange(1, 64))
            for _ in range(chance.randrange(1, 5))
        ]
        kinds = ["read", "id"]
        if has(BlockFeature.FLUSH):
            kinds.append("flush")
        if not driver.read_only:
            kinds += ["write"] + ["discard"] * has(BlockFeature.DISCARD) + ["zero"] * has(BlockFeature.WRITE_ZEROES)
        ranges = [(chance.randrange(last), chance.randrange(1, 200)) for _ in range(chance.randrange(1, 6))]
        match chance.choice(kinds):
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


GUESTS = {"balloon": BalloonGuest, "block": DiskGuest}


def judge_guest(device_type, start=None, **options):
    """Return the results by name of our own driver of a type."""
    judge = Judge(device_type, Carrier.MMIO, **options)
    judge_in_process(judge, start or GUESTS[device_type], memory_size=RAM_SIZE)
    return {case.name: case for case in judge.cases()}
