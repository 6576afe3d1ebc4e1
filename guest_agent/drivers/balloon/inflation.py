"""Giving pages to the host and taking them back ("Device Operation"): one request of each kind under way at most."""

import numpy as np

from guest_agent.drivers.balloon.area import FRAMES_PER_REQUEST, BalloonArea
from guest_agent.drivers.pages import PageAllocator, Pages
from guest_agent.page_database import Owner
from guest_agent.transport import Transport
from guest_agent.virtqueue.queue import DriverQueue
from spec.balloon import CONFIG, PAGE_FRAME_SIZE, BalloonFeature

__all__ = ["Inflater"]

_KEPT_FREE_COUNT = 256
"""Pages that inflation leaves free, so that the guest can still act."""


class Inflater:
    """The inflate and deflate queues, and the pages that the balloon holds."""

    def __init__(
        self,
        area: BalloonArea,
        inflate_queue: DriverQueue,
        deflate_queue: DriverQueue,
        registers: Transport,
        allocator: PageAllocator,
    ) -> None:
        self._area = area
        self._inflate_queue = inflate_queue
        self._deflate_queue = deflate_queue
        self._registers = registers
        self._allocator = allocator

    def see_target(self, pages: int) -> None:
        """Take note of num_pages. Only a new number sets the balloon to work: not what memory pressure took out."""
        if pages != self._area["target"]:
            self._area["target"] = pages
            self._area["balance_due"] = 1

    def work(self) -> bool:
        """Post one request towards the target; return whether there is more to do at once.

        When the guest has no page to give, a later call tries again.
        """
        area = self._area
        self.collect()
        if not area["balance_due"] or area["inflating_count"] or area["deflating_count"]:
            return False
        missing = area["target"] - area["actual"]
        if missing > 0:
            return self._inflate(min(missing, FRAMES_PER_REQUEST))
        if missing < 0:
            return self._deflate(min(-missing, FRAMES_PER_REQUEST), free_at_once=False)
        area["balance_due"] = 0
        return False

    def shrink(self, wanted: int) -> int:
        """Take pages out of the balloon because the guest is out of memory; return how many became free.

        The device is told first where it must be: what it has not acknowledged when the kick returns becomes free
        later.
        """
        if not self._area["features"] >> BalloonFeature.DEFLATE_ON_OOM & 1:
            return 0
        tell_first = bool(self._area["features"] >> BalloonFeature.MUST_TELL_HOST & 1)
        freed = 0
        while freed < wanted:
            freed += self.collect()
            if self._area["inflating_count"] or self._area["deflating_count"]:
                break
            count = min(wanted - freed, FRAMES_PER_REQUEST)
            if not self._deflate(count, free_at_once=not tell_first):
                break
            self._area["balance_due"] = 0
            if not tell_first:
                freed += self._area["deflating_count"]
        return freed + self.collect()

    def begin_again(self) -> None:
        """Post the request that an empty queue should hold: whether the device heeded it before cannot be known."""
        area = self._area
        for queue, count, buffer in (
            (self._inflate_queue, area["inflating_count"], "inflate_frames"),
            (self._deflate_queue, area["deflating_count"], "deflate_frames"),
        ):
            if count and queue.free_count == queue.size:
                self._send(queue, buffer, count)

    def _inflate(self, limit: int) -> bool:
        limit = min(limit, self._allocator.free_page_count - _KEPT_FREE_COUNT)
        if limit <= 0:
            return False
        pages = self._allocator.allocate_pages(limit, Owner.BALLOON)
        if not len(pages):
            return False
        self._area["inflating_count"] = len(pages)
        self._post(self._inflate_queue, "inflate_frames", pages)
        return True

    def _deflate(self, limit: int, *, free_at_once: bool) -> bool:
        pages = self._allocator.blocks_of(Owner.BALLOON).pages[:limit]
        if not len(pages):
            return False
        self._area["deflating_count"] = len(pages)
        self._area["deflating_is_free"] = int(free_at_once)
        self._post(self._deflate_queue, "deflate_frames", pages)
        if free_at_once:
            self._allocator.free_pages(pages)
        return True

    def _post(self, queue: DriverQueue, buffer: str, pages: Pages) -> None:
        frames = (self._area.memory.addresses_of(pages) // np.uint64(PAGE_FRAME_SIZE)).astype(np.int64)
        self._area.store(buffer, frames)
        self._send(queue, buffer, len(frames))

    def _send(self, queue: DriverQueue, buffer: str, count: int) -> None:
        queue.add([(self._area.buffer_address(buffer), 4 * count)], [], 0)
        self._registers.publish(queue)

    def collect(self) -> int:
        """Take acknowledged requests back; return how many pages became free by it."""
        area, freed = self._area, 0
        changed = False
        if area["inflating_count"] and self._inflate_queue.collect() is not None:
            area["actual"] += area["inflating_count"]
            area["inflating_count"] = 0
            changed = True
        if area["deflating_count"] and self._deflate_queue.collect() is not None:
            count = area["deflating_count"]
            if not area["deflating_is_free"]:
                frames = area.load("deflate_frames", count).astype(np.uint64)
                self._allocator.free_pages(area.memory.pages_of(frames * np.uint64(PAGE_FRAME_SIZE)))
                freed = count
            area["actual"] -= count
            area["deflating_count"] = 0
            changed = True
        if changed:
            self._registers.write_config(CONFIG, "actual", area["actual"])
        return freed
