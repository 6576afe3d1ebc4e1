"""A device's queue that counts what is given back through it."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from vdev.virtqueue.chain import Chain, ChainBatch
from vdev.virtqueue.queue import DeviceQueue, QueueState

__all__ = ["ChainCounter", "CountedQueue"]


class ChainCounter(Protocol):
    """Who wants to know how many chains were given back."""

    chain_count: int


class CountedQueue:
    """`inner`, and in `counter` how many chains were pushed. What needs no look is the inner queue's own method."""

    def __init__(self, inner: DeviceQueue, counter: ChainCounter) -> None:
        self.inner = inner
        self.number = inner.number
        self.size = inner.size
        self._counter = counter
        self.should_call = inner.should_call
        self.disable_kicks = inner.disable_kicks
        self.ring_base = inner.ring_base
        self.start_from = inner.start_from

    def has_available(self) -> bool:
        """As the inner queue's."""
        return self.inner.has_available()

    def enable_kicks(self) -> bool:
        """As the inner queue's."""
        return self.inner.enable_kicks()

    def pop(self) -> Chain | None:
        """As the inner queue's."""
        return self.inner.pop()

    def pop_batch(self, limit: int | None = None) -> ChainBatch:
        """As the inner queue's."""
        return self.inner.pop_batch(limit)

    def push(self, head: int, written_size: int) -> None:
        """As the inner queue's, counted."""
        self.inner.push(head, written_size)
        self._counter.chain_count += 1

    def push_batch(self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]) -> None:
        """As the inner queue's, counted."""
        self.inner.push_batch(heads, written_sizes)
        self._counter.chain_count += len(heads)

    def save(self) -> QueueState:
        """As the inner queue's."""
        return self.inner.save()

    def restore(self, state: QueueState) -> None:
        """As the inner queue's."""
        self.inner.restore(state)
