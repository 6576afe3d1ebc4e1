"""What one descriptor costs on its way through a packed ring: with construct, one by one and in batches.

    python benchmarks/bench_packed_ring.py

Prints nanoseconds per single-descriptor buffer, the best of several rounds, beside those of the split ring in the same
run; and for the device's look at the ring how much cheaper each way is than parsing with construct.
"""

import time
from collections.abc import Callable

import numpy as np

from guest_agent.virtqueue import driver_area_size, make_driver_queue
from spec.device import Feature, feature_mask
from spec.packed_ring import PACKED_DESCRIPTOR
from vdev.memory import GuestMemory
from vdev.virtqueue import QueueAddresses, make_device_queue

AREA = 0x10_0000
BATCH_SIZES = (1, 8, 64, 256, 1024)
STEPS = ("add", "pop", "push", "collect")
ROUNDS = 200
SECONDS_TO_NS = 1e9
COMMON = feature_mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.INDIRECT_DESC)
FORMATS = {
    "split": COMMON,
    "packed": COMMON | feature_mask(Feature.RING_PACKED),
    "packed in order": COMMON | feature_mask(Feature.RING_PACKED, Feature.IN_ORDER),
}


class Bench:
    """Both ends over one RAM, and the clock round each step."""

    def __init__(self, features: int, batch_size: int) -> None:
        size = max(batch_size, 2)
        self.memory = GuestMemory.private(AREA + driver_area_size(size))
        self.driver = make_driver_queue(self.memory, 0, size, AREA, features)
        self.device = make_device_queue(self.memory, 0, QueueAddresses(*self.driver.addresses), features)
        self.batch_size = batch_size
        self.addresses = np.arange(batch_size, dtype=np.uint64) % np.uint64(256) * np.uint64(4096)
        self.sizes = np.full(batch_size, 4096, np.uint64)
        self.tokens = np.arange(batch_size, dtype=np.uint64)
        self.written_sizes = np.full(batch_size, 4096, np.int64)

    def one_by_one(self) -> dict[str, float]:
        """Seconds of each step, with the calls for single buffers."""
        pairs = list(zip(self.addresses.tolist(), self.sizes.tolist(), strict=True))
        heads: list[int] = []

        def add() -> None:
            for token, pair in enumerate(pairs):
                self.driver.add((), (pair,), token)
            self.driver.publish()

        def pop() -> None:
            while (chain := self.device.pop()) is not None:
                heads.append(chain.head)

        def push() -> None:
            for head in heads:
                self.device.push(head, 4096)

        def collect() -> None:
            while self.driver.collect() is not None:
                pass

        return timed(add, pop, push, collect)

    def batched(self) -> dict[str, float]:
        """Seconds of each step, with the calls for batches."""
        heads = np.empty(0, np.int64)

        def add() -> None:
            self.driver.add_batch(self.addresses, self.sizes, writable=True, tokens=self.tokens)
            self.driver.publish()

        def pop() -> None:
            nonlocal heads
            heads = self.device.pop_batch().heads

        def push() -> None:
            self.device.push_batch(heads, self.written_sizes)

        def collect() -> None:
            self.driver.collect_batch()

        return timed(add, pop, push, collect)

    def parsed(self) -> float:
        """Seconds that construct takes to read the ring's descriptors."""
        address = self.driver.addresses.descriptor
        start = time.perf_counter()
        for at in range(address, address + 16 * self.batch_size, 16):
            PACKED_DESCRIPTOR.parse(self.memory.read(at, 16))
        return time.perf_counter() - start


def timed(*steps: Callable[[], None]) -> dict[str, float]:
    seconds = {}
    for name, step in zip(STEPS, steps, strict=True):
        start = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - start
    return seconds


def best_of(measure: Callable[[], dict[str, float]], rounds: int) -> dict[str, float]:
    results = [measure() for _ in range(rounds)]
    return {name: min(result[name] for result in results) for name in STEPS}


def main() -> None:
    print("nanoseconds per buffer of one descriptor, one by one / in a batch")
    print(f"{'buffers':>8}{'ring':>18}" + "".join(f"{name:>16}" for name in (*STEPS, "all")))
    pops: dict[int, tuple[float, float, float]] = {}
    for batch_size in BATCH_SIZES:
        rounds = max(20, ROUNDS // max(1, batch_size // 64))
        for name, features in FORMATS.items():
            bench = Bench(features, batch_size)
            figures = []
            for measure in (bench.one_by_one, bench.batched):
                best = best_of(measure, rounds)
                seconds = (*best.values(), sum(best.values()))
                figures.append([SECONDS_TO_NS * one / batch_size for one in seconds])
            columns = [f"{single:.0f} / {batch:.0f}" for single, batch in zip(*figures, strict=True)]
            print(f"{batch_size:>8}{name:>18}" + "".join(f"{column:>16}" for column in columns))
            if name == "packed":
                parsed = SECONDS_TO_NS * min(bench.parsed() for _ in range(3)) / batch_size
                pops[batch_size] = parsed, figures[0][1], figures[1][1]
    print("\nthe device's look at a packed ring: construct, one by one, in a batch (times construct's speed)")
    for batch_size, (parsed, single, batch) in pops.items():
        ways = f"{single:>10.0f} ({parsed / single:.0f}){batch:>10.0f} ({parsed / batch:.0f})"
        print(f"{batch_size:>8}{parsed:>10.0f}{ways}")


if __name__ == "__main__":
    main()
