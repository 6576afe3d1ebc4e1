"""Telling the host of free pages all the time, so that it can use their memory ("Free Page Reporting").

A pass takes large free blocks, reports them, and keeps them until there are no more; then all go back. So no block is
reported twice in a pass. A new pass begins when enough pages became free since the last one.
"""

import numpy as np

from guest_agent.drivers.balloon.area import REPORTS_PER_REQUEST, BalloonArea
from guest_agent.drivers.pages import PageAllocator
from guest_agent.page_database import Owner
from guest_agent.transport import Transport
from guest_agent.virtqueue.queue import DriverQueue
from vdev.memory import PAGE_SIZE

__all__ = ["FreePageReporter"]

_ORDERS = (10, 9)
_WORTHWHILE_COUNT = 1 << _ORDERS[-1]


class FreePageReporter:
    """The reporting queue, and the blocks that are held while a pass goes on."""

    def __init__(self, area: BalloonArea, queue: DriverQueue, registers: Transport, allocator: PageAllocator) -> None:
        self._area = area
        self._queue = queue
        self._registers = registers
        self._allocator = allocator

    def begin(self) -> bool:
        """Begin a pass if enough pages became free since the last; return whether one is under way.

        Not while the device asks for hints: what is held here could not be hinted.
        """
        area = self._area
        if area["report_due"]:
            return True
        free_count = self._allocator.free_page_count
        area["report_low_water"] = min(area["report_low_water"], free_count)
        if area.is_hinting or free_count < area["report_low_water"] + _WORTHWHILE_COUNT:
            return False
        area["report_due"] = 1
        return True

    def work(self) -> bool:
        """Report one request's worth of blocks, or end the pass; return whether there is more to do at once."""
        area = self._area
        if self.collect() and not area["report_due"]:
            return self._give_back()
        if not area["report_due"] or area["reporting_count"]:
            return False
        segments: list[tuple[int, int]] = []
        heads: list[int] = []
        for order in _ORDERS:
            taken = self._allocator.take_free_blocks(order, REPORTS_PER_REQUEST - len(heads), Owner.REPORTED)
            heads += taken.tolist()
            addresses = self._area.memory.addresses_of(taken).tolist()
            segments += [(address, PAGE_SIZE << order) for address in addresses]
        if not segments:
            # Now there are free pages again, which another part may wait for.
            return self._end()
        area.store("reported_heads", np.array(heads, np.int64))
        area["reporting_count"] = len(heads)
        self._queue.add([], segments, 0)
        self._registers.publish(self._queue)
        return True

    def collect(self) -> bool:
        """Take the request back if the device acknowledged it; return whether it did."""
        if not self._area["reporting_count"] or self._queue.collect() is None:
            return False
        self._area["reporting_count"] = 0
        return True

    def begin_again(self) -> None:
        """Take the request's blocks back from a queue that is gone: a later pass offers them again."""
        self._area["reporting_count"] = 0
        if not self._area["report_due"]:
            self._give_back()

    def make_way(self) -> None:
        """End the pass because the device asks for hints; the next one begins as soon as it does so no more."""
        if self._area["report_due"]:
            self._end()
            self._area["report_low_water"] = 0

    def shrink(self, wanted: int) -> int:
        """End the pass because memory is short; return how many pages became free."""
        before = self._allocator.free_page_count
        if self._area["report_due"]:
            self._end()
        return self._allocator.free_page_count - before

    def _end(self) -> bool:
        """End the pass; return whether pages became free by it."""
        self._area["report_due"] = 0
        became_free = self._give_back()
        self._area["report_low_water"] = self._allocator.free_page_count
        return became_free

    def _give_back(self) -> bool:
        """Free what the device does not hold; return whether there was anything."""
        # What it does hold must not be used before it is acknowledged.
        held = self._allocator.blocks_of(Owner.REPORTED).pages
        with_device = self._area.load("reported_heads", self._area["reporting_count"])
        self._allocator.free_blocks(held[~np.isin(held, with_device)])
        return len(held) > len(with_device)
