"""The guest RAM of one split queue, as live views: the rings, and the driver's notes behind them.

Each part is seen twice: as a memoryview for one access and as a numpy array for many. Both are in this machine's
byte order, which is little-endian wherever `vdev.memory.order` can be imported.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.queue import DriverAddresses, NoQueueHere
from spec.layout import dtype_of
from spec.split_area import AREA_MAGIC, NOTES, chain_notes, split_area
from spec.split_ring import (
    DESCRIPTOR,
    MAX_QUEUE_SIZE,
    available_ring,
    available_ring_size,
    descriptor_table_size,
    used_ring,
    used_ring_size,
)
from vdev.memory import PAGE_SIZE, GuestMemory
from vdev.memory.pages import PAGE_SHIFT

__all__ = ["Note", "QueueArea"]

_PAGE_SHIFT = np.int64(PAGE_SHIFT)
_NOTES_SIZE: int = NOTES.sizeof()


def offset_of(dtype: np.dtype[Any], name: str) -> int:
    """Return the byte offset of a field."""
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


def _note(name: str) -> int:
    return offset_of(dtype_of(NOTES), name) // 4


class Note:
    """Where each of the driver's notes stands in `QueueArea.notes`: the number of its 32-bit word."""

    MAGIC = _note("magic")
    SIZE = _note("size")
    FEATURES_LOW = _note("features")
    FEATURES_HIGH = FEATURES_LOW + 1
    INDIRECT_CAPACITY = _note("indirect_capacity")
    FREE_COUNT = _note("free_count")
    UNKICKED_COUNT = _note("unkicked_count")
    CALLS_ENABLED = _note("calls_enabled")
    NEXT_AVAILABLE = _note("next_available")
    PUBLISHED = _note("published")
    LAST_USED = _note("last_used")


class QueueArea:
    """The area of a queue of `size` descriptors at the page-aligned guest-physical `address`.

    What was stored through a view must be told with `mark` (bytes) or `mark_slots` (all that stands at the index of
    some descriptors), after the store, for the dirty log.
    """

    def __init__(self, memory: GuestMemory, address: int, size: int, indirect_capacity: int) -> None:
        if not is_queue_size(size):
            raise ValueError(f"{size} is no queue size: a power of two up to {MAX_QUEUE_SIZE} is")
        if address % PAGE_SIZE:
            raise ValueError(f"the area at {address:#x} does not begin a page")
        self.layout = layout = split_area(size, indirect_capacity)
        self.size = size
        self.indirect_capacity = indirect_capacity
        self.address = address
        self.bytes = memory.bytes_view(address, layout.size)
        self._memory = memory
        self._first_page = memory.page_of(address)

        self.addresses = DriverAddresses(
            size, address + layout.descriptor, address + layout.available, address + layout.used
        )
        table_end = layout.descriptor + descriptor_table_size(size)
        used_bytes = self.bytes[layout.used : layout.used + used_ring_size(size)]
        self.table = self.bytes[layout.descriptor : table_end].data
        self.records = memory.view(self.addresses.descriptor, DESCRIPTOR, size)
        self.available = self.bytes[layout.available : layout.available + available_ring_size(size)].data.cast("H")
        self.available_view = memory.view(self.addresses.driver, available_ring(size))
        self.available_ring = self.available_view["ring"]
        self.used_bytes = used_bytes.data
        self.used = used_bytes.data.cast("H")
        self.used_view = memory.view(self.addresses.device, used_ring(size))
        self.used_ring = self.used_view["ring"]
        self.notes = self.bytes[:_NOTES_SIZE].data.cast("I")
        self.indirect_tables = self.bytes[layout.indirect :].data

        # Where the parts behind the index stand: 16-bit words, and the used ring in bytes.
        self.available_ring_word = offset_of(self.available_view.dtype, "ring") // 2
        self.used_event_word = offset_of(self.available_view.dtype, "used_event") // 2
        self.avail_event_word = offset_of(self.used_view.dtype, "avail_event") // 2
        self.used_ring_offset = offset_of(self.used_view.dtype, "ring")

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
    def create(cls, memory: GuestMemory, address: int, size: int, features: int, indirect_capacity: int) -> "QueueArea":
        """Clear the area and note that all descriptors are free."""
        area = cls(memory, address, size, indirect_capacity)
        area.bytes[:] = 0
        area.notes[Note.SIZE] = size
        area.notes[Note.FEATURES_LOW] = features & 0xFFFF_FFFF
        area.notes[Note.FEATURES_HIGH] = features >> 32 & 0xFFFF_FFFF
        area.notes[Note.INDIRECT_CAPACITY] = indirect_capacity
        area.notes[Note.FREE_COUNT] = size
        area.notes[Note.CALLS_ENABLED] = 1
        area.free[:] = np.arange(size)[::-1]  # a stack: descriptor 0 goes first
        area.notes[Note.MAGIC] = AREA_MAGIC
        area.mark(0, area.layout.size)
        return area

    @classmethod
    def find(cls, memory: GuestMemory, address: int) -> "QueueArea":
        """Return the area that `create` made at `address`, perhaps in another process or on another machine.

        Raises NoQueueHere.
        """
        if address % PAGE_SIZE or not memory.contains(address, _NOTES_SIZE):
            raise NoQueueHere(f"{address:#x} does not begin a page of RAM")
        notes = memory.bytes_view(address, _NOTES_SIZE).data.cast("I")
        size, indirect_capacity = notes[Note.SIZE], notes[Note.INDIRECT_CAPACITY]
        if (
            notes[Note.MAGIC] != AREA_MAGIC
            or not is_queue_size(size)
            or indirect_capacity > MAX_QUEUE_SIZE
            or not memory.contains(address, split_area(size, indirect_capacity).size)
        ):
            raise NoQueueHere(f"no queue was made at {address:#x}")
        return cls(memory, address, size, indirect_capacity)

    @property
    def features(self) -> int:
        """The mask of negotiated bits that the queue was made with."""
        return int(self.notes[Note.FEATURES_LOW] | self.notes[Note.FEATURES_HIGH] << 32)

    def mark(self, offset: int, size: int) -> None:
        """Tell the dirty log that `size` bytes from `offset` on were stored."""
        if self._memory.page_marks is not None:
            self._memory.mark_written(self.address + offset, size)

    def store_available_word(self, word: int, value: int) -> None:
        """Store one 16-bit word of the available ring, in one piece."""
        self.available[word] = value
        self.mark(self.layout.available + 2 * word, 2)

    def mark_available_entries(self, place: int, count: int) -> None:
        """Tell the dirty log that `count` entries of the available ring from `place` on were stored, round its end."""
        before_wrap = min(count, self.size - place)
        ring = self.layout.available + 2 * self.available_ring_word
        self.mark(ring + 2 * place, 2 * before_wrap)
        self.mark(ring, 2 * (count - before_wrap))

    def mark_notes(self) -> None:
        """Tell the dirty log that a word of `notes` was stored."""
        self.mark(0, _NOTES_SIZE)

    def mark_slots(self, slots: npt.ArrayLike) -> None:
        """Tell the dirty log that everything at the index of these descriptors was stored, but for `free`."""
        marks = self._memory.page_marks
        if marks is None:
            return
        indices = np.atleast_1d(np.asarray(slots, np.int64))
        offsets = np.concatenate([offset + indices * item_size for offset, item_size in self._slot_parts])
        marks.mark_pages(self._first_page + (offsets >> _PAGE_SHIFT))


def is_queue_size(size: int) -> bool:
    """Say whether a split queue can have `size` descriptors."""
    return 0 < size <= MAX_QUEUE_SIZE and not size & (size - 1)
