"""Where this project's driver keeps a split virtqueue in guest RAM: the three rings, and its own notes around them.

The text says nothing of the notes; only the same driver reads them, also after a migration. The first of them stand
in front, where they are found without knowing the queue's size.
"""

from dataclasses import dataclass
from functools import cache

from construct import Array, Int16ul, Int32ul, Int64ul, Struct

from spec.split_ring import DESCRIPTOR, available_ring_size, descriptor_table_size, used_ring_size

__all__ = [
    "AREA_MAGIC",
    "CACHE_LINE_SIZE",
    "NOTES",
    "NO_BATCH",
    "SplitArea",
    "cache_line_aligned",
    "chain_notes",
    "split_area",
]

AREA_MAGIC = 0x51565056
"""Reads "VPVQ" in memory."""

NO_BATCH = 0xFFFF_FFFF

CACHE_LINE_SIZE = 64
"""Bytes; what device and driver store to does not share a line."""

NOTES = "split_queue_notes" / Struct(
    "magic" / Int32ul,
    "size" / Int32ul,
    "features" / Int64ul,
    "indirect_capacity" / Int32ul,
    "free_count" / Int32ul,
    "unkicked_count" / Int32ul,
    "calls_enabled" / Int32ul,
    "next_available" / Int32ul,
    "published" / Int32ul,
    "last_used" / Int32ul,
    "next_descriptor" / Int32ul,
    "oldest_descriptor" / Int32ul,
    "batch_head" / Int32ul,
    "batch_written_size" / Int32ul,
    "reserved" / Int32ul,
)
"""The driver's notes about the queue. `next_available` is where the next chain goes, `published` what the device has
been shown, `last_used` the next used entry to collect (all 16-bit free-running); `unkicked_count` is the number
of chains published since the device's wish was last asked for.

The rest matters with IN_ORDER only, where chains take descriptors in ring order: the next one begins at
`next_descriptor`, the oldest that was not collected at `oldest_descriptor`. While the chains of a batch are collected
for which the device wrote one used entry, `batch_head` is the head in it, else NO_BATCH, and `batch_written_size` what
it says was written into that last one."""


@cache
def chain_notes(queue_size: int) -> Struct:
    """Return the layout of the notes about descriptors, for a queue of `queue_size`.

    The first `free_count` entries of `free` are the free descriptors, a stack. Of a chain, `token`, `writable_size`
    and `descriptor_count` stand at its head's index; 0 descriptors means that no chain begins there. `link` names
    each descriptor's successor in its chain.
    """
    return "chain_notes" / Struct(
        "token" / Array(queue_size, Int64ul),
        "writable_size" / Array(queue_size, Int64ul),
        "free" / Array(queue_size, Int16ul),
        "link" / Array(queue_size, Int16ul),
        "descriptor_count" / Array(queue_size, Int16ul),
    )


@dataclass(frozen=True, slots=True)
class SplitArea:
    """Offsets from the area's start, and its size, bytes. The notes stand first, the indirect tables last: one table
    of `indirect_table_size` for each descriptor of the queue.
    """

    descriptor: int
    available: int
    used: int
    chain_notes: int
    indirect: int
    indirect_table_size: int
    size: int


@cache
def split_area(queue_size: int, indirect_capacity: int = 0) -> SplitArea:
    """Return the parts of the area of a queue of `queue_size` with indirect tables of `indirect_capacity` entries."""
    table_size = DESCRIPTOR.sizeof() * indirect_capacity
    descriptor = cache_line_aligned(NOTES.sizeof())
    available = cache_line_aligned(descriptor + descriptor_table_size(queue_size))
    used = cache_line_aligned(available + available_ring_size(queue_size))
    chains = cache_line_aligned(used + used_ring_size(queue_size))
    indirect = cache_line_aligned(chains + chain_notes(queue_size).sizeof())
    return SplitArea(descriptor, available, used, chains, indirect, table_size, indirect + table_size * queue_size)


def cache_line_aligned(offset: int) -> int:
    """Return the next place that begins a cache line."""
    return -(-offset // CACHE_LINE_SIZE) * CACHE_LINE_SIZE
