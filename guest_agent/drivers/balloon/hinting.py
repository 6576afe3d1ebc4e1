"""Posting free pages while the host migrates the guest ("Free Page Hinting"), as Linux does it.

A new command id is posted first, then blocks of free pages, one buffer each, as long as there are any and the id stays
the same, then STOP. The blocks stay held until the device says DONE; memory pressure may take them back before.
"""

import numpy as np

from guest_agent.drivers.balloon.area import BalloonArea, HintPhase
from guest_agent.drivers.pages import PageAllocator
from guest_agent.page_database import Owner
from guest_agent.transport import Transport
from guest_agent.virtqueue.queue import DriverQueue
from spec.balloon import COMMAND_ID_SIZE, BalloonFeature, CommandId
from spec.device import feature_mask
from vdev.memory import PAGE_SIZE

__all__ = ["HINT_ORDER", "MIN_QUEUE_SIZE", "HintPoster"]

HINT_ORDER = 10
"""Blocks of 2**10 pages, 4 MiB: smaller ones are not worth a descriptor."""

MIN_QUEUE_SIZE = 2
"""An id and a STOP must fit at the same time."""

_ID_TOKEN = 1 << 63
"""Set in the token of an id buffer, whose index is the rest; other tokens are page numbers."""
_BLOCKS_PER_TURN = 64
_POISONED = feature_mask(BalloonFeature.PAGE_POISON)


class HintPoster:
    """The free page queue and what was posted to it."""

    def __init__(self, area: BalloonArea, queue: DriverQueue, registers: Transport, allocator: PageAllocator) -> None:
        self._area = area
        self._memory = area.memory
        self._queue = queue
        self._registers = registers
        self._allocator = allocator

    def begin(self) -> None:
        """Set an empty queue up: its buffers need no call."""
        self._queue.disable_calls()

    def begin_again(self) -> None:
        """Go on with an empty queue after one that is gone. An id that the device may not have seen is posted anew."""
        area = self._area
        area["hint_waiting"] = 0
        self.begin()
        lost_ids = area.take_id_buffers_back()
        if area["announced_id"] in lost_ids:
            area["announced_id"] = 0
            area["hint_phase"] = HintPhase.IDLE
        elif CommandId.STOP in lost_ids:
            self._post_id(CommandId.STOP)

    def see_command_id(self, command_id: int) -> None:
        """Take note of what free_page_hint_cmd_id reads as; DONE lets all held blocks go."""
        area = self._area
        area["current_id"] = command_id
        if command_id == CommandId.DONE:
            self.release_all()
        if command_id in (CommandId.STOP, CommandId.DONE) and area["hint_phase"] == HintPhase.IDLE:
            # Any later id is new, also one that a device whose count began again gives a second time.
            area["announced_id"] = 0

    def release_all(self) -> None:
        """Free every block that was held for the host."""
        self._allocator.free_blocks(self._allocator.blocks_of(Owner.HINTED).pages)

    def work(self) -> bool:
        """Post an id, a batch of blocks, or STOP; return whether there is more to do at once."""
        area = self._area
        self.collect()
        current_id, announced_id = area["current_id"], area["announced_id"]
        if area["hint_phase"] == HintPhase.IDLE:
            if current_id in (CommandId.STOP, CommandId.DONE, announced_id):
                return False
            if area["reporting_count"]:
                # These blocks come back when the device acknowledges them, and could not be hinted before.
                return False
            if self._queue.free_count < MIN_QUEUE_SIZE:
                return self._wait_for_room()
            self._post_id(current_id)
            area["announced_id"] = current_id
            area["hint_phase"] = HintPhase.POSTING
            return True
        if current_id == announced_id:
            # One descriptor stays free, so that STOP never has to wait for the device.
            room = self._queue.free_count - 1
            if room <= 0:
                return self._wait_for_room()
            if self._post_blocks(min(room, _BLOCKS_PER_TURN)):
                return True
        self._post_id(CommandId.STOP)
        area["hint_phase"] = HintPhase.IDLE
        return True

    def shrink(self, wanted: int) -> int:
        """Give held blocks back to the allocator, `wanted` pages or a little more; return how many pages."""
        blocks = self._allocator.blocks_of(Owner.HINTED)
        count = min(len(blocks.pages), -(-wanted >> HINT_ORDER))
        if not count:
            return 0
        heads = blocks.pages[-count:]
        if not self._area["features"] & _POISONED:
            # A page released before DONE must be initialized; with poison the allocator does it.
            for address in self._memory.addresses_of(heads).tolist():
                self._memory.bytes_view(address, PAGE_SIZE << HINT_ORDER)[:] = 0
                self._memory.mark_written(address, PAGE_SIZE << HINT_ORDER)
        self._allocator.free_blocks(heads)
        return count << HINT_ORDER

    def _post_id(self, command_id: int) -> None:
        index, address = self._area.take_id_buffer(command_id)
        self._queue.add([(address, COMMAND_ID_SIZE)], [], _ID_TOKEN | index)
        self._registers.publish(self._queue)

    def _post_blocks(self, limit: int) -> bool:
        heads = self._allocator.take_free_blocks(HINT_ORDER, limit, Owner.HINTED)
        if not len(heads):
            return False
        self._queue.add_batch(
            self._memory.addresses_of(heads),
            np.full(len(heads), PAGE_SIZE << HINT_ORDER, np.uint64),
            writable=True,
            tokens=heads.astype(np.uint64),
        )
        self._registers.publish(self._queue)
        return True

    def collect(self) -> None:
        """Take back what the device has looked at."""
        if self._area["hint_waiting"]:
            self._queue.disable_calls()
            self._area["hint_waiting"] = 0
        while len(tokens := self._queue.collect_batch().tokens):
            ids = tokens[tokens >= np.uint64(_ID_TOKEN)]
            if len(ids):
                self._area.release_id_buffers((ids - np.uint64(_ID_TOKEN)).astype(np.int64))

    def _wait_for_room(self) -> bool:
        self._area["hint_waiting"] = 1
        return self._queue.enable_calls()
