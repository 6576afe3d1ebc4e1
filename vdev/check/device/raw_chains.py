"""Chains that no driver would make: a check stores each descriptor itself, in either format."""

from collections.abc import Sequence
from itertools import pairwise

from spec.layout import struct_of
from spec.packed_ring import PACKED_DESCRIPTOR, PackedFlag
from spec.split_ring import DESCRIPTOR, DescriptorFlag
from vdev.check.bench.arena import Buffer
from vdev.check.bench.bench import Bench
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Ring, Segment, Used
from vdev.check.bench.split_ring import SplitRing
from vdev.check.device.plain_requests import barrier
from vdev.check.verdict import TargetHung

__all__ = [
    "Entry",
    "available_bits",
    "expect_raw_answer",
    "make_head_available",
    "offer",
    "packed_table",
    "segments_of",
    "split_table",
    "wait_raw",
    "write_flag",
]

Entry = tuple[int, int, int, int]
"""A descriptor in its order in memory: address, size, and flags and next (split), or id and flags (packed)."""

_split = struct_of(DESCRIPTOR)
_packed = struct_of(PACKED_DESCRIPTOR)
_BOTH = int(PackedFlag.AVAIL | PackedFlag.USED)


def segments_of(bench: Bench, request: Request, *, pieces: int = 1) -> list[Segment]:
    """Return the request in memory, each of its parts in so many elements, or as many as it has bytes."""
    segments = []
    for data, size, writable in ((request.readable, len(request.readable), False), (b"", request.writable_size, True)):
        count = min(pieces, size)
        limits = [size * piece // count for piece in range(count + 1)] if count else []
        for begin, limit in pairwise(limits):
            what = f"device-{'writable' if writable else 'readable'} element"
            buffer = bench.memory.allocate(limit - begin, data=data[begin:limit] or None, what=what)
            if writable:
                bench.memory.fill(buffer)
            segments.append(Segment(buffer.address, buffer.size, writable))
    return segments


def split_table(bench: Bench, entries: Sequence[Entry]) -> Buffer:
    """Store an indirect table of (address, size, flags, next)."""
    return bench.memory.allocate(
        _split.size * len(entries),
        align=16,
        data=b"".join(_split.pack(*entry) for entry in entries),
        what="indirect table",
    )


def packed_table(bench: Bench, entries: Sequence[Entry]) -> Buffer:
    """Store an indirect table of (address, size, id, flags)."""
    return bench.memory.allocate(
        _packed.size * len(entries),
        align=16,
        data=b"".join(_packed.pack(*entry) for entry in entries),
        what="indirect table",
    )


def make_head_available(ring: Ring, address: int, size: int, flags: int, *, following: int = 0) -> None:
    """Make a descriptor available: number 0 of a split ring, the next one of a packed ring, which has the id 0."""
    if isinstance(ring, SplitRing):
        ring.store_descriptor(0, address, size, flags, following)
        offer(ring, 0)
    else:
        assert isinstance(ring, PackedRing)
        ring.store_descriptor(ring.slot, address, size, 0, flags | available_bits(ring))


def offer(ring: SplitRing, *heads: int) -> None:
    """Store heads into the available ring behind what was published, and move the index."""
    index = ring.available_index
    for place, head in enumerate(heads):
        ring.store_available((index + place) % ring.size, head)
    ring.store_available_index((index + len(heads)) & 0xFFFF)


def available_bits(ring: PackedRing) -> int:
    """Return the flags that make the next descriptor available."""
    return ring.available_flags(ring.wrap)


def wait_raw(bench: Bench, ring: Ring) -> Used:
    """Kick, and return the next used element for what was made available behind the ring's back."""
    ring.kick()
    if not isinstance(ring, PackedRing):
        return ring.wait_used()
    where = ring.used_position
    slot, bits = where & 0x7FFF, ring.used_flags(where >> 15)
    bench.control.wait(
        ring.number, lambda: ring.descriptor(slot)[3] & _BOTH == bits, f"use a buffer of queue {ring.number}"
    )
    _, length, buffer_id, flags = ring.descriptor(slot)
    return Used(buffer_id, length if flags & PackedFlag.WRITE else 0, where)


def expect_raw_answer(bench: Bench, ring: Ring, request: Request, segments: Sequence[Segment], statement: str) -> None:
    """Kick, and see that the request in `segments` is answered as it must be; `statement` is broken if it is not."""
    try:
        used = wait_raw(bench, ring)
    except TargetHung as hung:
        barrier(bench, ring)  # One that answers this is not hung: it does not know such a chain.
        bench.fail(statement, expected="the request used", observed=str(hung), shown=ring.show_areas()[:1])
    written = b"".join(bench.memory.read(part.address, part.size) for part in segments if part.writable)
    complaint = request.check(written, used.length)
    bench.expect(
        complaint is None,
        statement,
        expected="the answer that the request asks for",
        observed=complaint or "it",
        shown=[ring.show_used(used)],
    )


def write_flag(segment: Segment) -> int:
    """Return WRITE for a writable element; it is the same bit in both formats."""
    return int(DescriptorFlag.WRITE) if segment.writable else 0
