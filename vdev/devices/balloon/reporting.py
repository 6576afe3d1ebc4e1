"""Free page reporting: the guest lends its free pages to the host, and may use them again once acknowledged."""

import numpy as np

from vdev.errors import DriverViolation
from vdev.events import Emitter, PagesReported
from vdev.memory import GuestMemory
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["Reporting"]

_CLAUSE = "Memory Balloon Device / Device Operation / Free Page Reporting"


class Reporting:
    """Returns reported pages to the operating system before it acknowledges them.

    Only whole pages go back. Where the guest wants its free pages to hold a pattern (`poison_val` other than 0), a
    report is only acknowledged: a page that reads as zero would not hold it.
    """

    def __init__(self, memory: GuestMemory, *, events: Emitter) -> None:
        self.reported_count = 0
        """Pages reported, all in all; a page reported twice counts twice."""
        self.returned_size = 0
        """Bytes that went back to the operating system through reports, all in all."""
        self._memory = memory
        self._events = events

    def handle(self, queue: DeviceQueue, *, poisoned: bool) -> None:
        """Take the reports that are available and acknowledge them.

        Raises DriverViolation for a buffer that the device may not write.
        """
        batch = queue.pop_batch()
        if not len(batch):
            return
        if not batch.writable.all():
            bad = int(np.argmin(batch.writable))
            raise DriverViolation(
                _CLAUSE,
                "a report in a buffer that the device may not write",
                queue=queue.number,
                descriptor=int(batch.heads[batch.segment_chain[bad]]),
                address=int(batch.addresses[bad]),
            )
        ranges = self._memory.page_ranges_inside(batch.addresses, batch.sizes)
        returned = 0 if poisoned else self._memory.give_back(ranges)
        self.reported_count += ranges.page_count
        self.returned_size += returned
        if self._events.listening:
            self._events.emit(PagesReported(ranges.page_count, returned))
        queue.push_batch(batch.heads, np.zeros(len(batch), np.int64))
