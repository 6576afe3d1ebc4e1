"""What the block device takes for a 4 KiB random read at a queue depth of 32, against a bare loop of preadv(2).

    python benchmarks/bench_block_device.py

The file is in the page cache. Only the device's side is timed, from the kick to the call, with the driver's requests
placed and collected in between; both figures are medians over the same offsets in the same process.
"""

import os
import tempfile
import time
from statistics import median

import numpy as np

from guest_agent.drivers.block import BLOCK_DRIVER_FEATURES, BlockDriver
from guest_agent.mmio import MmioDriver
from spec.device import Feature, feature_mask
from spec.mmio import Register
from vdev.devices.block import BlockDevice, BlockFile
from vdev.memory import GuestMemory, MemfdBacking, Region
from vdev.mmio import MmioRegisters

DEPTH = 32
SIZE = 4096
FILE_SIZE = 64 << 20
ROUNDS = 400
AREA = 0x10_0000
DATA = 0x40_0000
TO_US = 1e6
PACKED = BLOCK_DRIVER_FEATURES & ~feature_mask(Feature.IN_ORDER)
RINGS = {"split ring": PACKED & ~feature_mask(Feature.RING_PACKED), "packed ring": PACKED}


class QuietExits:
    """Register accesses, but no kicks: the benchmark says when the device works."""

    def __init__(self, registers: MmioRegisters) -> None:
        self._registers = registers

    def read(self, address: int, size: int) -> int:
        return self._registers.read(address, size)

    def write(self, address: int, size: int, value: int) -> None:
        if address != Register.QUEUE_NOTIFY:
            self._registers.write(address, size, value)


def seconds_of_device(
    path: str, sectors: np.ndarray, segment_count: int = 1, features: int = RINGS["split ring"]
) -> tuple[list[float], list[float]]:
    """Seconds of each round on the device's and on the driver's side."""
    memory = GuestMemory([Region(0, MemfdBacking(8 << 20))])
    device = BlockDevice(memory, BlockFile.open(path))
    driver = BlockDriver.start(MmioDriver(QuietExits(MmioRegisters(device)), 0), memory, AREA, wanted_features=features)
    device_times, driver_times = [], []
    piece = SIZE // segment_count
    buffers = [[(DATA + SIZE * n + piece * part, piece) for part in range(segment_count)] for n in range(DEPTH)]
    for batch in sectors.tolist():
        start = time.perf_counter()
        for token, sector in enumerate(batch):
            driver.submit_read(sector, buffers[token], token)
        driver.publish()
        placed = time.perf_counter()
        device.queue_notify(0)
        served = time.perf_counter()
        done = driver.collect()
        end = time.perf_counter()
        assert len(done) == DEPTH
        device_times.append(served - placed)
        driver_times.append(end - start - (served - placed))
    device.close()
    return device_times, driver_times


def seconds_of_bare_loop(path: str, sectors: np.ndarray) -> list[float]:
    memory = MemfdBacking(8 << 20)
    views = [[memory.data.data[SIZE * n : SIZE * (n + 1)]] for n in range(DEPTH)]
    fd = os.open(path, os.O_RDONLY)
    times = []
    for batch in (sectors * 512).tolist():
        start = time.perf_counter()
        for n, offset in enumerate(batch):
            os.preadv(fd, views[n], offset)
        times.append(time.perf_counter() - start)
    os.close(fd)
    return times


def per_request(times: list[float]) -> float:
    return TO_US * median(times) / DEPTH


def main() -> None:
    random = np.random.default_rng(1)
    sectors = random.integers(0, FILE_SIZE // SIZE, (ROUNDS, DEPTH)) * (SIZE // 512)
    with tempfile.NamedTemporaryFile() as file:
        file.write(random.bytes(FILE_SIZE))
        file.flush()
        bare = per_request(seconds_of_bare_loop(file.name, sectors))
        print(f"microseconds for a read of 4 KiB, {DEPTH} at a time, from the page cache")
        print(f"{'bare preadv loop':<36}{bare:>8.2f}")
        for ring, features in RINGS.items():
            for segment_count in (1, 4):
                times = seconds_of_device(file.name, sectors, segment_count, features)
                device, driver = map(per_request, times)
                name = f"device, {ring}, {segment_count} segment{'s' * (segment_count > 1)} each"
                print(f"{name:<36}{device:>8.2f}{device / bare:>8.1f} times{driver:>10.2f} in the driver")


if __name__ == "__main__":
    main()
