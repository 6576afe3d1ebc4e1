"""Checks of what a device must leave alone: tables, the driver's half of a ring, and memory that is not writable."""

from spec.device import Feature
from spec.packed_ring import EVENT_SIZE, PACKED_DESCRIPTOR, ring_size
from spec.split_ring import USED_ELEMENT, DescriptorFlag, available_ring_size, descriptor_table_size
from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Ring, Segment
from vdev.check.device.plain_requests import (
    answer_all,
    barrier,
    make_available,
    most_at_once,
    of_format,
    one_request,
    packed_ring,
    split_ring,
)
from vdev.check.registry import BOTH, RingFormat, check

_DESCRIPTOR_SIZE: int = PACKED_DESCRIPTOR.sizeof()
_USED_SIZE: int = USED_ELEMENT.sizeof()
_ROOM = 48
"""Bytes on each side of a writable element that are looked at; fewer than the canaries that every buffer has, too."""


@check(
    "untouched.readable-buffers",
    covers=["split.device.descriptor-table.1", "packed.device.descriptor-table.1"],
    formats=BOTH,
)
def readable_buffers(bench: Bench) -> None:
    """What the device may only read is as it was, after the request."""
    bench.start()
    ring = bench.ring()
    request = bench.traffic.plain(bench)
    if not request.readable:
        bench.not_applicable("no request of this type has a device-readable part")
    posted = ring.post(request, cuts=[1, len(request.readable) // 2])
    before = [(part, bench.memory.read(part.address, part.size)) for part in posted.segments if not part.writable]
    ring.publish()
    ring.kick()
    answer_all(bench, ring, [posted])
    barrier(bench, ring)
    for part, data in before:
        found = bench.memory.show(part.address, part.size, "device-readable element, afterwards")
        bench.expect(
            found.data == data,
            of_format(bench, split="split.device.descriptor-table.1", packed="packed.device.descriptor-table.1"),
            expected=f"the device-readable element as it was, {data.hex()}",
            observed=found.data.hex(),
            shown=[found],
        )


def _expect_same(bench: Bench, statement: str, address: int, before: bytes, name: str) -> None:
    found = bench.memory.show(address, len(before), f"{name}, afterwards")
    at = next((at for at, (is_now, was) in enumerate(zip(found.data, before, strict=True)) if is_now != was), None)
    bench.expect(
        at is None,
        statement,
        expected=f"the {name} as the driver wrote it",
        observed=f"byte {at} is {found.data[at or 0]:#04x}, it was {before[at or 0]:#04x}",
        shown=[found],
    )


def _a_few_rounds(bench: Bench, ring: Ring) -> None:
    for count in (1, most_at_once(bench, ring)):
        answer_all(bench, ring, make_available(bench, ring, count))


@check("untouched.descriptor-table", covers=["split.device.descriptor-table.4"], formats=(RingFormat.SPLIT,))
def descriptor_table(bench: Bench) -> None:
    """The device writes into no entry of the descriptor table."""
    bench.start()
    ring = split_ring(bench)
    posted = ring.post(bench.traffic.plain(bench))
    for index in set(range(ring.size)) - set(posted.slots):
        # What earlier chains may have left there; nothing refers to it.
        ring.store_descriptor(index, bench.memory.guard(), 1, DescriptorFlag.NEXT, ring.size - 1 - index)
    ring.publish()
    table = ring.areas.descriptor
    before = bench.memory.read(table, descriptor_table_size(ring.size))
    ring.kick()
    answer_all(bench, ring, [posted])
    barrier(bench, ring)
    _expect_same(bench, "split.device.descriptor-table.4", table, before, "descriptor table")


@check(
    "untouched.indirect-table",
    covers=["split.device.descriptor-table.4", "packed.device.described.indirect"],
    formats=BOTH,
    features=[Feature.INDIRECT_DESC],
)
def indirect_table(bench: Bench) -> None:
    """The device writes into no entry of an indirect table."""
    bench.start(features=[Feature.INDIRECT_DESC])
    ring = bench.ring()
    posted = ring.post(bench.traffic.plain(bench), indirect=True)
    table = posted.table
    assert table is not None
    before = bench.memory.read(table.address, table.size)
    ring.publish()
    ring.kick()
    answer_all(bench, ring, [posted])
    barrier(bench, ring)
    _expect_same(
        bench,
        of_format(bench, split="split.device.descriptor-table.4", packed="packed.device.described.indirect"),
        table.address,
        before,
        "indirect table",
    )


@check(
    "untouched.available-ring",
    covers=["split.device.described.available-ring-is-read-only"],
    formats=(RingFormat.SPLIT,),
)
def available_ring(bench: Bench) -> None:
    """The device writes nothing into the available ring, nor into the field behind it."""
    bench.start()
    ring = split_ring(bench)
    ring.store_used_event(0x5A5A)
    posted = ring.post(bench.traffic.plain(bench))
    ring.publish()
    before = bench.memory.read(ring.areas.driver, available_ring_size(ring.size))
    ring.kick()
    answer_all(bench, ring, [posted])
    barrier(bench, ring)
    statement = "split.device.described.available-ring-is-read-only"
    _expect_same(bench, statement, ring.areas.driver, before, "available ring")


@check(
    "untouched.driver-event",
    covers=["packed.device.described.driver-event-is-read-only"],
    formats=(RingFormat.PACKED,),
)
def driver_event(bench: Bench) -> None:
    """The device writes nothing into the driver's event suppression structure."""
    bench.start()
    ring = packed_ring(bench)
    ring.suppress_calls()
    before = bench.memory.read(ring.areas.driver, EVENT_SIZE)
    _a_few_rounds(bench, ring)
    barrier(bench, ring)
    statement = "packed.device.described.driver-event-is-read-only"
    _expect_same(bench, statement, ring.areas.driver, before, "driver's event suppression structure")


@check("untouched.other-used-elements", covers=["split.device.described.used-index"], formats=(RingFormat.SPLIT,))
def other_used_elements(bench: Bench) -> None:
    """Only the places of the used ring that were used are written."""
    bench.start()
    ring = split_ring(bench)
    elements = ring.areas.device + 4
    bench.memory.write(elements, b"\xee" * (_USED_SIZE * ring.size))
    used = one_request(bench, ring)
    barrier(bench, ring)
    rest = b"\xee" * (_USED_SIZE * (ring.size - used.position - 1))
    behind = elements + _USED_SIZE * (used.position + 1)
    _expect_same(bench, "split.device.described.used-index", behind, rest, "rest of the used ring")


@check(
    "untouched.passed-over-descriptors",
    covers=["packed.device.described.one-for-a-list"],
    formats=(RingFormat.PACKED,),
)
def passed_over_descriptors(bench: Bench) -> None:
    """A list gets one used descriptor; its other places stay as the driver wrote them."""
    bench.start()
    ring = packed_ring(bench)
    request = bench.traffic.plain(bench)
    size = len(request.readable) + request.writable_size
    posted = ring.post(request, cuts=[size // 3, 2 * size // 3])
    ring.publish()
    before = bench.memory.read(ring.areas.descriptor, ring_size(ring.size))
    ring.kick()
    answer_all(bench, ring, [posted])
    barrier(bench, ring)
    statement = "packed.device.described.one-for-a-list"
    behind = _DESCRIPTOR_SIZE * (posted.slots[0] + 1)
    _expect_same(bench, statement, ring.areas.descriptor + behind, before[behind:], "rest of the descriptor ring")


@check("untouched.round-the-buffer", covers=["hostile.device.memory"], formats=BOTH)
def round_the_buffer(bench: Bench) -> None:
    """The device writes nothing before the beginning and behind the end of a writable element."""
    bench.start()
    ring = bench.ring()
    request = bench.traffic.plain(bench)
    segments = []
    edges = []
    if request.readable:
        data = bench.memory.allocate(len(request.readable), data=request.readable, what="readable part")
        segments.append(Segment(data.address, data.size, False))
    if request.writable_size:
        what = "room round the writable part"
        area = bench.memory.allocate(request.writable_size + 2 * _ROOM, data=None, what=what)
        bench.memory.write(area.address, b"\xc3" * area.size)
        segments.append(Segment(area.address + _ROOM, request.writable_size, True))
        edges = [area.address, area.address + area.size - _ROOM]
    ring.post(request, segments=segments)
    ring.publish()
    ring.kick()
    ring.wait_used()
    barrier(bench, ring)
    for edge in edges:
        _expect_same(bench, "hostile.device.memory", edge, b"\xc3" * _ROOM, "memory beside the writable element")
