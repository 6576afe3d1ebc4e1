"""Memory statistics: the device keeps the guest's one buffer, and returns it to ask for a new one."""

import numpy as np

from spec.balloon import STATISTIC, StatisticTag
from spec.layout import dtype_of
from vdev.errors import DriverViolation
from vdev.events import Emitter, StatisticsReceived
from vdev.memory import GuestMemory
from vdev.virtqueue.chain import Chain
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["Statistics"]

_CLAUSE = "Memory Balloon Device / Device Operation / Memory Statistics"
_ENTRY = dtype_of(STATISTIC)
_MOST_ENTRIES = 1 << 16
"""There are no more tags than that."""
_KNOWN = np.array([int(tag) for tag in StatisticTag])


class Statistics:
    """What the guest last said of its memory.

    `values` is tag -> value, of the tags that this device knows; `answer_count` counts the guest's buffers.
    """

    def __init__(self, memory: GuestMemory, *, events: Emitter) -> None:
        self.values: dict[StatisticTag, int] = {}
        self.answer_count = 0
        self.kept_head: int | None = None
        """The buffer that waits for the next request."""
        self._memory = memory
        self._events = events

    def handle(self, chain: Chain, queue: DeviceQueue) -> None:
        """Read the guest's buffer and keep it.

        Raises DriverViolation for a second buffer, one that is not an array of entries, and a writable one.
        """
        if chain.writable:
            raise self._violation("statistics in a device-writable buffer", chain, queue)
        size = chain.readable_size
        if size % _ENTRY.itemsize:
            raise self._violation(f"{size} bytes are no array of {_ENTRY.itemsize}-byte entries", chain, queue)
        if size > _MOST_ENTRIES * _ENTRY.itemsize:
            raise self._violation(f"{size} bytes of statistics: more entries than there are tags", chain, queue)
        if self.kept_head is not None:
            raise self._violation("a second buffer in the statistics queue", chain, queue)
        entries = np.frombuffer(chain.read(self._memory), _ENTRY)
        known = entries[np.isin(entries["tag"], _KNOWN)]
        self.values = {
            StatisticTag(tag): value for tag, value in zip(known["tag"].tolist(), known["val"].tolist(), strict=True)
        }
        self.kept_head = chain.head
        self.answer_count += 1
        if self._events.listening:
            self._events.emit(StatisticsReceived(tuple((int(tag), value) for tag, value in self.values.items())))

    def release(self, queue: DeviceQueue) -> bool:
        """Return the kept buffer, which asks for new statistics; false if there is none."""
        if self.kept_head is None:
            return False
        queue.push(self.kept_head, 0)
        self.kept_head = None
        return True

    def forget_buffer(self) -> None:
        """The queue is gone, and the buffer with it."""
        self.kept_head = None

    def _violation(self, message: str, chain: Chain, queue: DeviceQueue) -> DriverViolation:
        return DriverViolation(_CLAUSE, message, queue=queue.number, descriptor=chain.head)
