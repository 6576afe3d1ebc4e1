"""Hostile input of a driver with a packed ring."""

from spec.device import Feature
from spec.packed_ring import PackedFlag
from vdev.check.bench.bench import Bench
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.device.hostile_steps import begin
from vdev.check.device.plain_requests import packed_ring
from vdev.check.device.raw_chains import packed_table
from vdev.check.registry import RingFormat, check

_COVERS = ("hostile.device.alive", "hostile.device.memory")
_PACKED = (RingFormat.PACKED,)
_NEXT, _WRITE, _INDIRECT = int(PackedFlag.NEXT), int(PackedFlag.WRITE), int(PackedFlag.INDIRECT)


def _byte(bench: Bench) -> int:
    return bench.memory.allocate(1, data=b"\xff", what="byte").address


def _store_from_behind(ring: PackedRing, descriptors: list[tuple[int, int, int, int]]) -> None:
    """Store descriptors of (address, size, id, flags) from the next slot on, the first at last."""
    for slot, descriptor in reversed(list(enumerate(descriptors, ring.slot))):
        ring.store_descriptor(slot % ring.size, *descriptor)


@check("hostile.list-not-available", covers=_COVERS, formats=_PACKED, hostile=True)
def list_not_available(bench: Bench) -> None:
    """A list whose second descriptor was not made available: still zero, or marked as used."""
    for flags in (0, int(PackedFlag.AVAIL | PackedFlag.USED)):
        begin(bench)
        ring = packed_ring(bench)
        address = _byte(bench)
        _store_from_behind(
            ring, [(address, 1, 0, _NEXT | _WRITE | ring.available_flags(1)), (address, 1, 0, _WRITE | flags)]
        )
        bench.done(f"a list of two, the second with the flags {flags | _WRITE:#06x}")
        ring.kick()
        bench.survives()


@check("hostile.list-without-end", covers=_COVERS, formats=_PACKED, hostile=True)
def list_without_end(bench: Bench) -> None:
    """A ring full of descriptors that all go on."""
    begin(bench)
    ring = packed_ring(bench)
    address = _byte(bench)
    _store_from_behind(ring, [(address, 1, 0, _NEXT | _WRITE | ring.available_flags(1))] * ring.size)
    ring.kick()
    bench.survives()


@check("hostile.id-out-of-range", covers=_COVERS, formats=_PACKED, hostile=True)
def id_out_of_range(bench: Bench) -> None:
    """A buffer id that is not below the queue size. The text does not forbid it."""
    for beyond in (0, 0xFFFF):
        begin(bench)
        ring = packed_ring(bench)
        ring.post(bench.traffic.plain(bench), head=beyond or ring.size)
        ring.publish()
        ring.kick()
        bench.survives()


@check("hostile.id-twice", covers=_COVERS, formats=_PACKED, hostile=True)
def id_twice(bench: Bench) -> None:
    """Two buffers of one id in flight."""
    begin(bench)
    ring = packed_ring(bench)
    for _ in range(2):
        ring.post(bench.traffic.plain(bench), head=1)
    ring.publish()
    ring.kick()
    bench.survives()


@check("hostile.more-than-the-ring", covers=_COVERS, formats=_PACKED, hostile=True)
def more_than_the_ring(bench: Bench) -> None:
    """Descriptors that the device has used, marked as available again without a driver's lap."""
    begin(bench)
    ring = packed_ring(bench)
    posted = ring.post(bench.traffic.plain(bench))
    ring.publish()
    ring.kick()
    ring.wait_used()
    address, size, buffer_id, flags = ring.descriptor(posted.slots[0])
    mine = flags & ~int(PackedFlag.AVAIL | PackedFlag.USED) | ring.available_flags(0)
    for slot in range(ring.size):
        ring.store_descriptor(slot, address, size, buffer_id, mine)
    bench.done("every descriptor is marked as available in the second lap, while the first goes on")
    ring.kick()
    bench.survives()


@check("hostile.event-without-meaning", covers=_COVERS, formats=_PACKED, hostile=True)
def event_without_meaning(bench: Bench) -> None:
    """Event suppression structures that mean nothing: reserved flags, and a descriptor without EVENT_IDX."""
    for where, flags in ((0, 3), (0xFFFF, 0xFFFF), (0, 2), (0, 0xFFFC)):
        begin(bench)
        ring = packed_ring(bench)
        ring.store_driver_event(where, flags)
        bench.done(f"the driver's event suppression structure is {where:#06x}, {flags:#06x}")
        ring.post(bench.traffic.plain(bench))
        ring.publish()
        ring.kick()
        bench.survives()


@check("hostile.event-outside-the-ring", covers=_COVERS, formats=_PACKED, features=[Feature.EVENT_IDX], hostile=True)
def event_outside_the_ring(bench: Bench) -> None:
    """An event at a descriptor that the ring does not have."""
    for where in (0x7FFF, 0xFFFF):
        begin(bench, features=[Feature.EVENT_IDX])
        ring = packed_ring(bench)
        ring.store_driver_event(where, 2)
        ring.post(bench.traffic.plain(bench))
        ring.publish()
        ring.kick()
        bench.survives()


@check("hostile.table-in-a-list", covers=_COVERS, formats=_PACKED, features=[Feature.INDIRECT_DESC], hostile=True)
def table_in_a_list(bench: Bench) -> None:
    """A list of a direct descriptor and one that refers to a table."""
    begin(bench, features=[Feature.INDIRECT_DESC])
    ring = packed_ring(bench)
    address = _byte(bench)
    table = packed_table(bench, [(address, 1, 0, _WRITE)])
    available = ring.available_flags(1)
    _store_from_behind(
        ring,
        [(address, 1, 0, _NEXT | _WRITE | available), (table.address, table.size, 0, _INDIRECT | available)],
    )
    ring.kick()
    bench.survives()
