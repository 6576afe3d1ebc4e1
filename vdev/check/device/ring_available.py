"""Checks of what a device takes: what was made available, all of it, and nothing that was not."""

from spec.packed_ring import PackedFlag
from spec.split_ring import DescriptorFlag
from vdev.check.bench.bench import Bench
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.bench.ring import Ring
from vdev.check.device.plain_requests import (
    answer_all,
    barrier,
    most_at_once,
    one_request,
    packed_ring,
    split_ring,
)
from vdev.check.registry import BOTH, RingFormat, check

_ROOM = 64


def _expect_nothing(bench: Bench, ring: Ring, statement: str, address: int, why: str) -> None:
    """Put up the barrier, and see that nothing was used and the room at `address` is as it was."""
    before = b"\x77" * _ROOM
    barrier(bench, ring)
    used = ring.used_now()
    bench.expect(
        not used,
        statement,
        expected=f"nothing used: {why}",
        observed=f"{len(used)} used",
        shown=[ring.show_used(one) for one in used],
    )
    found = bench.memory.show(address, _ROOM, "the room that it names")
    bench.expect(
        found.data == before, statement, expected=f"the room not written: {why}", observed="other bytes", shown=[found]
    )


def _room(bench: Bench) -> int:
    room = bench.memory.allocate(_ROOM, what="room that was not made available")
    bench.memory.write(room.address, b"\x77" * _ROOM)
    return room.address


@check("available.not-before-the-index", covers=["split.device.described.available"], formats=(RingFormat.SPLIT,))
def not_before_the_index(bench: Bench) -> None:
    """An entry of the available ring that the index does not include yet is not taken, whatever is kicked."""
    bench.start()
    ring = split_ring(bench)
    one_request(bench, ring)
    address = _room(bench)
    head = ring.size - 1
    ring.store_descriptor(head, address, _ROOM, DescriptorFlag.WRITE, 0)
    ring.store_available(ring.available_index % ring.size, head)
    bench.done(f"entry {ring.available_index % ring.size} of the available ring names {head}; the index stays")
    ring.kick()
    _expect_nothing(bench, ring, "split.device.described.available", address, "the index did not move")


@check("available.not-before-the-flag", covers=["packed.device.descriptor-table.3"], formats=(RingFormat.PACKED,))
def not_before_the_flag(bench: Bench) -> None:
    """A descriptor that is written, but whose AVAIL did not change, is not taken, in the first lap and the second."""
    for lap in (0, 1):
        bench.start()
        ring = packed_ring(bench)
        if lap:
            _go_to_next_lap(bench, ring)
        address = _room(bench)
        # In the first lap a fresh descriptor has AVAIL 0, in the second a used one has AVAIL 1.
        stale = PackedFlag.AVAIL if lap else PackedFlag.USED
        ring.store_descriptor(ring.slot, address, _ROOM, 0, PackedFlag.WRITE | stale)
        bench.done(f"descriptor {ring.slot} is written with AVAIL as it was, {lap}")
        ring.kick()
        _expect_nothing(bench, ring, "packed.device.descriptor-table.3", address, "AVAIL did not change")


def _go_to_next_lap(bench: Bench, ring: PackedRing) -> None:
    wrap = ring.wrap
    while ring.wrap == wrap:
        one_request(bench, ring)


@check(
    "available.one-kick-for-many",
    covers=["split.device.described.available", "packed.device.described.available"],
    formats=BOTH,
)
def one_kick_for_many(bench: Bench) -> None:
    """Buffers that were made available one after the other, and a single kick at last: all are used."""
    bench.start()
    ring = bench.ring()
    for _ in range(3):
        posted = []
        for _ in range(most_at_once(bench, ring)):
            posted.append(ring.post(bench.traffic.plain(bench)))
            ring.publish()
        ring.kick()
        answer_all(bench, ring, posted)


@check(
    "available.more-while-at-work",
    covers=["split.device.described.available", "packed.device.described.available"],
    formats=BOTH,
)
def more_while_at_work(bench: Bench) -> None:
    """What is made available while earlier buffers are at work is used as well."""
    bench.start()
    ring = bench.ring()
    posted = []
    for _ in range(most_at_once(bench, ring)):
        posted.append(ring.post(bench.traffic.plain(bench)))
        ring.publish()
        ring.kick()
    answer_all(bench, ring, posted)
