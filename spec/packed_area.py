"""Where this project's driver keeps a packed virtqueue in guest RAM: the ring, both event suppression structures, and
its own notes around them. See `spec.split_area`, which does the same for a split one.
"""

from dataclasses import dataclass
from functools import cache

from construct import Array, Int16ul, Int32ul, Int64ul, Struct

from spec.packed_ring import EVENT_SIZE, PACKED_DESCRIPTOR, ring_size
from spec.split_area import NO_BATCH, cache_line_aligned

__all__ = ["NO_BATCH", "PACKED_AREA_MAGIC", "PACKED_NOTES", "PackedArea", "buffer_notes", "packed_area"]

PACKED_AREA_MAGIC = 0x51505056
"""Reads "VPPQ" in memory."""

PACKED_NOTES = "packed_queue_notes" / Struct(
    "magic" / Int32ul,
    "size" / Int32ul,
    "features" / Int64ul,
    "indirect_capacity" / Int32ul,
    "free_id_count" / Int32ul,
    "unkicked_count" / Int32ul,
    "calls_enabled" / Int32ul,
    "next_available" / Int32ul,
    "published" / Int32ul,
    "next_used" / Int32ul,
    "first_flags" / Int32ul,
    "batch_head" / Int32ul,
    "batch_written_size" / Int32ul,
    "added_count" / Int32ul,
    "reserved" / Int32ul,
)
"""The driver's notes about the queue. `next_available` is where the next buffer goes, `published` what the device has
been shown, `next_used` where it uses next: places that count on through both values of the wrap counter
(`spec.packed_ring.linear`). `first_flags` is what `publish` has to store at `published` when something was added.
`unkicked_count` is the number of descriptors published since the device's wish was last asked for, at most the size.

`added_count` is the number of buffers that were added and not yet published.

`batch_head` and `batch_written_size` are those of `spec.split_area`, for IN_ORDER.
"""


@cache
def buffer_notes(queue_size: int) -> Struct:
    """Return the layout of the notes about buffers, for a queue of `queue_size`.

    The first `free_id_count` entries of `free` are the free buffer ids, a stack (not used with IN_ORDER: there a buffer
    has the offset of its first descriptor as its id). The first `added_count` entries of `added` are the ids that the
    device was not shown. The others stand at a buffer's id; 0 descriptors mean that no buffer has it.
    """
    return "buffer_notes" / Struct(
        "token" / Array(queue_size, Int64ul),
        "writable_size" / Array(queue_size, Int64ul),
        "free" / Array(queue_size, Int16ul),
        "added" / Array(queue_size, Int16ul),
        "descriptor_count" / Array(queue_size, Int16ul),
    )


@dataclass(frozen=True, slots=True)
class PackedArea:
    """Offsets from the area's start, and its size, bytes. The notes stand first, the indirect tables last: one table
    of `indirect_table_size` for each buffer id.
    """

    ring: int
    driver_event: int
    device_event: int
    buffer_notes: int
    indirect: int
    indirect_table_size: int
    size: int


@cache
def packed_area(queue_size: int, indirect_capacity: int = 0) -> PackedArea:
    """Return the parts of the area of a queue of `queue_size` with indirect tables of `indirect_capacity` entries."""
    table_size = PACKED_DESCRIPTOR.sizeof() * indirect_capacity
    ring = cache_line_aligned(PACKED_NOTES.sizeof())
    driver_event = cache_line_aligned(ring + ring_size(queue_size))
    device_event = cache_line_aligned(driver_event + EVENT_SIZE)
    buffers = cache_line_aligned(device_event + EVENT_SIZE)
    indirect = cache_line_aligned(buffers + buffer_notes(queue_size).sizeof())
    end = indirect + table_size * queue_size
    return PackedArea(ring, driver_event, device_event, buffers, indirect, table_size, end)
