"""The guest RAM of one packed queue, as live views: the ring, both event suppression structures, the driver's notes."""

import numpy as np
import numpy.typing as npt

from guest_agent.virtqueue.noted_area import NotedArea, offset_of
from guest_agent.virtqueue.queue import DriverAddresses
from spec.layout import dtype_of
from spec.packed_area import NO_BATCH, PACKED_AREA_MAGIC, PACKED_NOTES, buffer_notes, packed_area
from spec.packed_ring import EVENT_SIZE, MAX_QUEUE_SIZE, PACKED_DESCRIPTOR, ring_size
from vdev.memory import GuestMemory

__all__ = ["PackedNote", "PackedQueueArea"]

_DESCRIPTOR_SIZE: int = PACKED_DESCRIPTOR.sizeof()


def _note(name: str) -> int:
    return offset_of(dtype_of(PACKED_NOTES), name) // 4


class PackedNote:
    """Where each of the driver's notes stands in `PackedQueueArea.notes`: the number of its 32-bit word."""

    FREE_ID_COUNT = _note("free_id_count")
    UNKICKED_COUNT = _note("unkicked_count")
    CALLS_ENABLED = _note("calls_enabled")
    NEXT_AVAILABLE = _note("next_available")
    PUBLISHED = _note("published")
    NEXT_USED = _note("next_used")
    FIRST_FLAGS = _note("first_flags")
    ADDED_COUNT = _note("added_count")
    BATCH_HEAD = _note("batch_head")
    BATCH_WRITTEN_SIZE = _note("batch_written_size")


class PackedQueueArea(NotedArea):
    """The area of a packed queue of `size` descriptors at the page-aligned guest-physical `address`."""

    format = "packed"
    magic = PACKED_AREA_MAGIC
    queue_size_max = MAX_QUEUE_SIZE
    queue_sizes = f"1 to {MAX_QUEUE_SIZE}"

    def __init__(self, memory: GuestMemory, address: int, size: int, indirect_capacity: int) -> None:
        super().__init__(memory, address, size, indirect_capacity)
        self.layout = layout = packed_area(size, indirect_capacity)
        self.addresses = DriverAddresses(
            size, address + layout.ring, address + layout.driver_event, address + layout.device_event
        )
        self.ring_words = self.bytes[layout.ring : layout.ring + ring_size(size)].data.cast("H")
        # Descriptors, in the ring and in indirect tables: two words each.
        self.words = self.bytes.data.cast("Q")
        self.ring_word = layout.ring // 8
        self.records = memory.view(self.addresses.descriptor, PACKED_DESCRIPTOR, size)
        self.ring_flags = self.records["flags"]
        # Both structures are read and stored in one piece, so that a position never meets the flags of another.
        self._driver_event = self.bytes[layout.driver_event : layout.driver_event + EVENT_SIZE].data.cast("I")
        self._device_event = self.bytes[layout.device_event : layout.device_event + EVENT_SIZE].data.cast("I")

        by_id = memory.view(address + layout.buffer_notes, buffer_notes(size))
        self.tokens: npt.NDArray[np.uint64] = by_id["token"]
        self.writable_sizes: npt.NDArray[np.uint64] = by_id["writable_size"]
        self.free: npt.NDArray[np.uint16] = by_id["free"]
        self.added: npt.NDArray[np.uint16] = by_id["added"]
        self.descriptor_counts: npt.NDArray[np.uint16] = by_id["descriptor_count"]
        self.token_words = self.tokens.data
        self.writable_size_words = self.writable_sizes.data
        self.free_words = self.free.data
        self.added_words = self.added.data
        self.descriptor_count_words = self.descriptor_counts.data
        self._slot_parts = [
            (layout.buffer_notes + offset_of(by_id.dtype, name), by_id.dtype[name].base.itemsize)
            for name in by_id.dtype.names or ()
            if name not in ("free", "added")
        ]
        self.free_offset = layout.buffer_notes + offset_of(by_id.dtype, "free")
        self.added_offset = layout.buffer_notes + offset_of(by_id.dtype, "added")

    @staticmethod
    def bytes_for(size: int, indirect_capacity: int) -> int:
        """Return how many bytes the area of a queue of `size` descriptors has."""
        return packed_area(size, indirect_capacity).size

    def note_empty(self) -> None:
        """Note, in an area of zeros, that all ids are free and calls are enabled."""
        self.notes[PackedNote.FREE_ID_COUNT] = self.size
        self.notes[PackedNote.CALLS_ENABLED] = 1
        self.notes[PackedNote.BATCH_HEAD] = NO_BATCH
        self.free[:] = np.arange(self.size)[::-1]  # a stack: id 0 goes first

    def mark_ring(self, place: int, count: int) -> None:
        """Tell the dirty log that `count` descriptors from `place` on were stored, round the ring's end."""
        offset = place % self.size
        before_wrap = min(count, self.size - offset)
        self.mark(self.layout.ring + _DESCRIPTOR_SIZE * offset, _DESCRIPTOR_SIZE * before_wrap)
        self.mark(self.layout.ring, _DESCRIPTOR_SIZE * (count - before_wrap))

    def store_driver_event(self, position: int, flag: int) -> None:
        """Say which calls the driver wants."""
        self._driver_event[0] = position | flag << 16
        self.mark(self.layout.driver_event, EVENT_SIZE)

    def device_event(self) -> tuple[int, int]:
        """Return the position and the flags with which the device says which kicks it wants."""
        word = self._device_event[0]
        return word & 0xFFFF, word >> 16 & 3
