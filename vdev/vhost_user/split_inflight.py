"""A split queue whose buffers in flight are noted in an area that outlives the back end."""

from collections import deque

import numpy as np
import numpy.typing as npt

from spec.inflight import INFLIGHT_VERSION
from spec.split_ring import used_ring
from vdev.errors import FrontEndViolation
from vdev.memory import GuestMemory
from vdev.vhost_user.counted_queue import ChainCounter, CountedQueue
from vdev.vhost_user.inflight import InflightRegion
from vdev.virtqueue.chain import Chain, ChainBatch
from vdev.virtqueue.descriptors import DescriptorTable
from vdev.virtqueue.queue import DeviceQueue, QueueAddresses, QueueState

__all__ = ["SplitInflightQueue"]

_COUNTER_MASK = (1 << 63) - 1
"""Counters that a back end wrote do not get there; what somebody else wrote must not overflow."""


class SplitInflightQueue(CountedQueue):
    """`inner`, with every pop and push noted in `region`; what an earlier back end left there is popped first.

    The steps are those of the text, in its order: a buffer is lost nowhere, and given back twice nowhere, wherever
    the process dies. Raises FrontEndViolation for an area that no back end wrote.
    """

    def __init__(
        self,
        inner: DeviceQueue,
        counter: ChainCounter,
        region: InflightRegion,
        memory: GuestMemory,
        addresses: QueueAddresses,
        *,
        indirect: bool,
    ) -> None:
        super().__init__(inner, counter)
        self._head = region.head
        self._inflight = region.descriptors["inflight"]
        self._next = region.descriptors["next"]
        self._counters = region.descriptors["counter"]
        self._used = memory.view(addresses.device, used_ring(addresses.size))
        self._next_counter = 1
        self._table = DescriptorTable(
            memory, addresses.descriptor, addresses.size, indirect=indirect, number=inner.number
        )
        self._left_behind: deque[int] = deque()
        if self._head["version"] == 0:
            self._head["version"], self._head["descriptor_count"] = INFLIGHT_VERSION, self.size
            self._head["used_idx"] = self._used["idx"]
        else:
            self._take_over()

    def _take_over(self) -> None:
        if self._head["version"] != INFLIGHT_VERSION or self._head["descriptor_count"] != self.size:
            raise FrontEndViolation(
                "Inflight I/O tracking",
                f"an area of version {self._head['version']} for {self._head['descriptor_count']} descriptors",
                queue=self.number,
            )
        used_idx = int(self._used["idx"])
        self._settle_last_batch((used_idx - int(self._head["used_idx"])) & 0xFFFF)
        self._head["used_idx"] = used_idx
        heads = np.flatnonzero(self._inflight)
        if not len(heads):
            return
        counters = self._counters[heads]
        ordered = heads[np.argsort(counters, kind="stable")].tolist()
        self._next_counter = (int(counters.max()) + 1) & _COUNTER_MASK
        self.inner.restore(
            QueueState(
                next_avail=(used_idx + len(ordered)) & 0xFFFF,
                next_used=used_idx,
                outstanding=tuple(ordered),
                outstanding_are_last=False,
            )
        )
        self._left_behind.extend(ordered)

    def _settle_last_batch(self, count: int) -> None:
        """The dead back end published `count` used buffers and did not come to say so here."""
        head = int(self._head["last_batch_head"])
        for _ in range(min(count, self.size)):
            if head >= self.size:
                raise FrontEndViolation(
                    "Inflight I/O tracking", f"{head} is no descriptor of {self.size}", queue=self.number
                )
            self._inflight[head] = 0
            head = int(self._next[head])

    def has_available(self) -> bool:
        """Say whether there is something to pop."""
        return bool(self._left_behind) or self.inner.has_available()

    def enable_kicks(self) -> bool:
        """As the inner queue's; true while something was left behind."""
        return self.inner.enable_kicks() or bool(self._left_behind)

    def pop(self) -> Chain | None:
        """As the inner queue's, after what was left behind."""
        if self._left_behind:
            chain = self._table.chain(self._left_behind[0])
            self._left_behind.popleft()
            return chain
        popped = self.inner.pop()
        if popped is not None:
            self._counters[popped.head] = self._next_counter
            self._next_counter += 1
            self._inflight[popped.head] = 1
        return popped

    def pop_batch(self, limit: int | None = None) -> ChainBatch:
        """As the inner queue's, after what was left behind."""
        if self._left_behind:
            wanted = len(self._left_behind) if limit is None else limit
            chains: list[Chain] = []
            while self._left_behind and len(chains) < wanted and (chain := self.pop()) is not None:
                chains.append(chain)
            return ChainBatch.of(chains)
        batch = self.inner.pop_batch(limit)
        count = len(batch)
        self._counters[batch.heads] = np.arange(self._next_counter, self._next_counter + count, dtype=np.uint64)
        self._next_counter += count
        self._inflight[batch.heads] = 1
        return batch

    def push(self, head: int, written_size: int) -> None:
        """As the inner queue's."""
        if not 0 <= head < self.size:
            raise ValueError(f"queue {self.number}: head {head} is not outstanding")
        self._next[head] = self._head["last_batch_head"]
        self._head["last_batch_head"] = head
        super().push(head, written_size)
        self._inflight[head] = 0
        self._head["used_idx"] = self._used["idx"]

    def push_batch(self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]) -> None:
        """As the inner queue's."""
        if not len(heads):
            return
        self._next[heads[0]] = self._head["last_batch_head"]
        self._next[heads[1:]] = heads[:-1]
        self._head["last_batch_head"] = heads[-1]
        super().push_batch(heads, written_sizes)
        self._inflight[heads] = 0
        self._head["used_idx"] = self._used["idx"]
