"""Mutants for the checks with hostile rings: devices that find what is wrong, and die of it."""

import re

from check_mutants import UNBROKEN, Mutant, replaced

from vdev.check.registry import RingFormat
from vdev.check.verdict import Verdict
from vdev.device import Device
from vdev.virtqueue.descriptors import DescriptorTable
from vdev.virtqueue.packed_descriptors import PackedDescriptors
from vdev.virtqueue.packed_ring import PackedRing

SPLIT, PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)


def dies_of(words):
    """A ``patch``: the device dies when it finds a violation whose message matches ``words``."""

    def apply(patch):
        needs_reset = Device.needs_reset

        def dying(self, violation):
            if re.search(words, violation.message):
                raise RuntimeError(violation.message)
            needs_reset(self, violation)

        patch.setattr(Device, "needs_reset", dying)

    return replaced(apply)


def cannot_divide_by_nothing(patch):
    """Dies of an element of no bytes among others."""
    split, packed = DescriptorTable.chain, PackedDescriptors.chain

    def seen(chain):
        sizes = [size for _, size in (*chain.readable, *chain.writable)]
        if len(sizes) > 1:
            assert all(4096 // size >= 0 for size in sizes)
        return chain

    def seen_packed(self, place, free_count):
        chain, count = packed(self, place, free_count)
        return seen(chain), count

    patch.setattr(DescriptorTable, "chain", lambda self, head: seen(split(self, head)))
    patch.setattr(PackedDescriptors, "chain", seen_packed)


def goes_down(patch):
    """Follows tables in tables as deep as they go."""
    import vdev.virtqueue.descriptors
    import vdev.virtqueue.packed_descriptors
    from vdev.virtqueue.indirect import read_indirect_table

    def read(memory, address, size, flags, **options):
        table = read_indirect_table(memory, address, size, flags, **options)
        if size == 16 and 4 in (int.from_bytes(table[12:14], "little"), int.from_bytes(table[14:], "little")):
            return read(memory, int.from_bytes(table[:8], "little"), size, flags, **options)
        return table

    for module in (vdev.virtqueue.descriptors, vdev.virtqueue.packed_descriptors):
        patch.setattr(module, "read_indirect_table", read)


def counts_laps(patch):
    """Dies of a descriptor behind the first one that seems to come from a lap that has not begun."""
    looks = PackedRing.is_available

    def is_available(self, place):
        if 0 < place < self.size:
            assert self._words[8 * place + 7] & 0x8080 != 0x8000, "no such lap"
        return looks(self, place)

    patch.setattr(PackedRing, "is_available", is_available)


def dying(name, kills, words, *, kind="entropy", also=(), formats=(RingFormat.SPLIT, RingFormat.PACKED)):
    """A device that dies of a violation."""
    patch = words if callable(words) else dies_of(words)
    return Mutant(
        f"dies-of-{name}",
        kind,
        kills,
        UNBROKEN[kind](),
        patch,
        frozenset(also),
        formats,
        verdict=Verdict.CRASHED,
        only=("hostile.*",),
    )


MUTANTS = [
    # Areas
    dying(
        "areas-outside-ram",
        {"hostile.area-outside-ram", "hostile.area-over-the-end-of-ram"},
        "area of .* not wholly",
        also={"mmio.*"},
    ),
    dying("areas-at-odd-places", {"hostile.area-not-aligned"}, "area is not a multiple"),
    # Buffers
    dying(
        "buffers-outside-ram",
        {
            "hostile.buffer-outside-ram",
            "hostile.buffer-over-the-end-of-ram",
            "hostile.buffer-wraps-at-2-64",
            "hostile.buffer-of-4-gib",
            "hostile.readable-buffer-outside-ram",
        },
        "a segment of .* not wholly",
        also={"status.*"},
    ),
    dying("readable-behind-writable", {"hostile.readable-behind-writable"}, "a readable segment behind"),
    dying("no-room", {"hostile.no-bytes-at-all"}, "without room for a byte"),
    dying("nothing-to-write", {"hostile.elements-without-request"}, "a device-readable buffer", also={"*"}),
    dying("elements-of-no-bytes", {"hostile.elements-of-no-bytes"}, replaced(cannot_divide_by_nothing)),
    # Tables
    dying("tables-that-were-not-agreed", {"hostile.indirect-without-its-feature"}, "INDIRECT_DESC was not negotiated"),
    dying("tables-outside-ram", {"hostile.table-outside-ram"}, "an indirect table of .* not wholly"),
    dying("tables-of-odd-sizes", {"hostile.table-of-odd-size", "hostile.table-of-no-size"}, "is not made of"),
    dying("long-tables", {"hostile.table-longer-than-the-queue"}, "descriptors for a queue of"),
    dying("tables-that-go-on", {"hostile.table-and-next"}, "INDIRECT and NEXT"),
    dying("tables-in-tables", {"hostile.table-within-a-table"}, replaced(goes_down)),
    # Split rings
    dying(
        "loops",
        {"hostile.chain-loops", "hostile.table-loops"},
        "the chain loops|longer than the queue",
        formats=SPLIT,
        also={"hostile.*"},
    ),
    dying(
        "next-out-of-range",
        {"hostile.next-outside-the-table", "hostile.next-outside-an-indirect-table"},
        "^next is",
        formats=SPLIT,
    ),
    dying("heads-out-of-range", {"hostile.head-outside-the-table"}, r"^head \d+ in", formats=SPLIT),
    dying("an-index-that-jumps", {"hostile.index-jumps"}, "^idx moved by", formats=SPLIT),
    dying("a-head-twice", {"hostile.head-twice"}, "^a head that the device", kind="block", formats=SPLIT),
    # Packed rings
    dying("half-a-list", {"hostile.list-not-available"}, "was not made available$", formats=PACKED),
    dying("a-list-without-end", {"hostile.list-without-end"}, "^a chain longer than", formats=PACKED),
    dying("large-ids", {"hostile.id-out-of-range"}, r"^buffer id \d+ in a queue", formats=PACKED),
    dying("an-id-twice", {"hostile.id-twice"}, "^buffer id .* not given back", kind="block", formats=PACKED),
    dying("another-lap", {"hostile.more-than-the-ring"}, replaced(counts_laps), formats=PACKED),
    dying("unknown-events", {"hostile.event-without-meaning"}, "event flags", formats=PACKED),
    dying("events-nowhere", {"hostile.event-outside-the-ring"}, "^an event at", formats=PACKED),
    dying("a-table-in-a-list", {"hostile.table-in-a-list"}, "in a chain of others", formats=PACKED),
]
