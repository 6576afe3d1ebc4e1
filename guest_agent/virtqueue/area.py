"""The guest RAM of one split queue, as live views: the rings, and the driver's notes behind them.

Each part is seen twice: as a memoryview for one access and as a numpy array for many. Both are in this machine's
byte order, which is little-endian wherever `vdev.memory.order` can be imported.
"""

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.noted_area import NotedArea, offset_of
from guest_agent.virtqueue.queue import DriverAddresses
from spec.layout import dtype_of
from spec.split_area import AREA_MAGIC, NO_BATCH, NOTES, chain_notes, split_area
from spec.split_ring import (
    DESCRIPTOR,
    MAX_QUEUE_SIZE,
    available_ring,
    available_ring_size,
    used_ring,
    used_ring_size,
)
from vdev.memory import GuestMemory

__all__ = ["Note", "QueueArea"]


def _note(name: str) -> int:
    return offset_of(dtype_of(NOTES), name) // 4


class Note:
    """Where each of the driver's notes stands in `QueueArea.notes`: the number of its 32-bit word."""

    FREE_COUNT = _note("free_count")
    UNKICKED_COUNT = _note("unkicked_count")
    CALLS_ENABLED = _note("calls_enabled")
    NEXT_AVAILABLE = _note("next_available")
    PUBLISHED = _note("published")
    LAST_USED = _note("last_used")
    NEXT_DESCRIPTOR = _note("next_descriptor")
    OLDEST_DESCRIPTOR = _note("oldest_descriptor")
    BATCH_HEAD = _note("batch_head")
    BATCH_WRITTEN_SIZE = _note("batch_written_size")


class QueueArea(NotedArea):
    """The area of a queue of `size` descriptors at the page-aligned guest-physical `address`.

    What was stored through a view must be told with `mark` (bytes) or `mark_slots` (all that stands at the index of
    some descriptors), after the store, for the dirty log.
    """

    format = "split"
    magic = AREA_MAGIC
    queue_size_max = MAX_QUEUE_SIZE
    queue_sizes = f"a power of two up to {MAX_QUEUE_SIZE}"

    def __init__(self, memory: GuestMemory, address: int, size: int, indirect_capacity: int) -> None:
        super().__init__(memory, address, size, indirect_capacity)
        self.layout = layout = split_area(size, indirect_capacity)
        self.addresses = DriverAddresses(
            size, address + layout.descriptor, address + layout.available, address + layout.used
        )
        used_bytes = self.bytes[layout.used : layout.used + used_ring_size(size)]
        # Descriptors, in the table and in indirect ones: two words each.
        self.words = self.bytes.data.cast("Q")
        self.table_word = layout.descriptor // 8
        self.records = memory.view(self.addresses.descriptor, DESCRIPTOR, size)
        self.available = self.bytes[layout.available : layout.available + available_ring_size(size)].data.cast("H")
        self.available_view = memory.view(self.addresses.driver, available_ring(size))
        self.available_ring = self.available_view["ring"]
        self.used = used_bytes.data.cast("H")
        self.used_view = memory.view(self.addresses.device, used_ring(size))
        self.used_ring = self.used_view["ring"]

        # Where the parts behind the index stand: 16-bit words, and the used ring's elements in 32-bit words.
        self.available_ring_word = offset_of(self.available_view.dtype, "ring") // 2
        self.used_event_word = offset_of(self.available_view.dtype, "used_event") // 2
        self.avail_event_word = offset_of(self.used_view.dtype, "avail_event") // 2
        used_ring_offset = offset_of(self.used_view.dtype, "ring")
        self.used_elements = used_bytes[used_ring_offset : used_ring_offset + 8 * size].data.cast("I")

        by_slot = memory.view(address + layout.chain_notes, chain_notes(size))
        self.tokens: npt.NDArray[np.uint64] = by_slot["token"]
        self.writable_sizes: npt.NDArray[np.uint64] = by_slot["writable_size"]
        self.free: npt.NDArray[np.uint16] = by_slot["free"]
        self.links: npt.NDArray[np.uint16] = by_slot["link"]
        self.descriptor_counts: npt.NDArray[np.uint16] = by_slot["descriptor_count"]
        self.token_words = self.tokens.data
        self.writable_size_words = self.writable_sizes.data
        self.free_words = self.free.data
        self.link_words = self.links.data
        self.descriptor_count_words = self.descriptor_counts.data
        self._slot_parts = [(layout.descriptor, DESCRIPTOR.sizeof())] + [
            (layout.chain_notes + offset_of(by_slot.dtype, name), by_slot.dtype[name].base.itemsize)
            for name in by_slot.dtype.names or ()
            if name != "free"
        ]
        self.free_offset = layout.chain_notes + offset_of(by_slot.dtype, "free")

    @classmethod
    def is_queue_size(cls, size: int) -> bool:
        """Say whether a split queue can have `size` descriptors."""
        return super().is_queue_size(size) and not size & (size - 1)

    @staticmethod
    def bytes_for(size: int, indirect_capacity: int) -> int:
        """Return how many bytes the area of a queue of `size` descriptors has."""
        return split_area(size, indirect_capacity).size

    def note_empty(self) -> None:
        """Note, in an area of zeros, that all descriptors are free and calls are enabled."""
        self.notes[Note.FREE_COUNT] = self.size
        self.notes[Note.CALLS_ENABLED] = 1
        self.notes[Note.BATCH_HEAD] = NO_BATCH
        self.free[:] = np.arange(self.size)[::-1]  # a stack: descriptor 0 goes first

    def store_available_word(self, word: int, value: int) -> None:
        """Store one 16-bit word of the available ring, in one piece."""
        self.available[word] = value
        self.mark(self.layout.available + 2 * word, 2)

    def mark_available_entries(self, place: int, count: int) -> None:
        """Tell the dirty log that `count` entries of the available ring from `place` on were stored, round its end."""
        if self._memory.page_marks is None:
            return
        before_wrap = min(count, self.size - place)
        ring = self.layout.available + 2 * self.available_ring_word
        self.mark(ring + 2 * place, 2 * before_wrap)
        self.mark(ring, 2 * (count - before_wrap))
