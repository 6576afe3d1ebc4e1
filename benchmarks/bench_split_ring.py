"""What one descriptor costs on its way through a split ring, one by one and in batches, at several batch sizes.

    python benchmarks/bench_split_ring.py

Prints nanoseconds per single-descriptor buffer, the best of several rounds.
"""

import time
from collections.abc import Callable

import numpy as np

from guest_agent.virtqueue import SplitDriverQueue
from spec.device import Feature, feature_mask
from vdev.memory import GuestMemory
from vdev.virtqueue import QueueAddresses, SplitDeviceQueue

AREA = 0x10_0000
BATCH_SIZES = (1, 8, 64, 256, 1024)
STEPS = ("add", "pop", "push", "collect")
ROUNDS = 200
SECONDS_TO_NS = 1e9


class Bench:
    """Both ends over one RAM, and the clock round each step."""

    def __init__(self, batch_size: int) -> None:
        features = feature_mask(Feature.VERSION_1, Feature.EVENT_IDX, Feature.INDIRECT_DESC)
        size = max(batch_size, 2)
        self.memory = GuestMemory.private(AREA + SplitDriverQueue.area_size(size))
        self.driver = SplitDriverQueue.create(self.memory, 0, size, AREA, features)
        self.device = SplitDeviceQueue(self.memory, 0, QueueAddresses(*self.driver.addresses), features)
        self.batch_size = batch_size
        self.addresses = np.arange(batch_size, dtype=np.uint64) % np.uint64(256) * np.uint64(4096)
        self.sizes = np.full(batch_size, 4096, np.uint64)
        self.tokens = np.arange(batch_size, dtype=np.uint64)

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
                self.device.push(head, 0)

        def collect() -> None:
            while self.driver.collect() is not None:
                pass

        return timed(add, pop, push, collect)

    def batched(self) -> dict[str, float]:
        """Seconds of each step, with the calls for batches."""
        heads = np.empty(0, np.int64)
        written_sizes = np.zeros(self.batch_size, np.int64)

        def add() -> None:
            self.driver.add_batch(self.addresses, self.sizes, writable=True, tokens=self.tokens)
            self.driver.publish()

        def pop() -> None:
            nonlocal heads
            heads = self.device.pop_batch().heads

        def push() -> None:
            self.device.push_batch(heads, written_sizes)

        def collect() -> None:
            self.driver.collect_batch()

        return timed(add, pop, push, collect)


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
    print(f"{'buffers':>8}" + "".join(f"{name:>16}" for name in (*STEPS, "all")))
    for batch_size in BATCH_SIZES:
        rounds = max(20, ROUNDS // max(1, batch_size // 64))
        figures = []
        for measure in (Bench(batch_size).one_by_one, Bench(batch_size).batched):
            best = best_of(measure, rounds)
            figures.append([SECONDS_TO_NS * seconds / batch_size for seconds in (*best.values(), sum(best.values()))])
        columns = [f"{single:.0f} / {batch:.0f}" for single, batch in zip(*figures, strict=True)]
        print(f"{batch_size:>8}" + "".join(f"{column:>16}" for column in columns))


if __name__ == "__main__":
    main()
