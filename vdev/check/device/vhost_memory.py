"""Checks of guest memory over vhost-user: the table, and regions that are added and removed."""

from spec.vhost_user import SINGLE_REGION, FrontEndRequest, ProtocolFeature
from vdev.check.bench.arena import Place
from vdev.check.bench.bench import Bench
from vdev.check.bench.guarded_region import Buffer, GuardedRegion
from vdev.check.bench.ring import Ring, Segment
from vdev.check.device.left_alone import post_plain
from vdev.check.device.vhost_steps import VHOST, watched_fd
from vdev.check.registry import BOTH, check
from vdev.check.verdict import TargetHung

_F = ProtocolFeature
_S = "vhost-user.back-end."
_SLOTS = [_F.CONFIGURE_MEM_SLOTS]
_REGION_SIZE = 8 << 20


@check(
    "memory.rings-and-buffers-in-any-region",
    covers=[_S + "memory-table.1", _S + "memory-table.2", _S + "memory-table.3"],
    formats=BOTH,
    carriers=VHOST,
)
def rings_and_buffers_in_any_region(bench: Bench) -> None:
    """A ring works in each region with buffers in the others: addresses and offsets are those of their region."""
    for rings, buffers, statement in (
        (Place.LOW, Place.LOW, "memory-table.2"),
        (Place.HIGH, Place.LOW, "memory-table.1"),
        (Place.LOW, Place.HIGH, "memory-table.3"),
    ):
        bench.start(place=rings)
        _expect_exchange(bench, bench.ring(), buffers, _S + statement, f"rings {rings.value}, buffers {buffers.value}")


def _expect_exchange(bench: Bench, ring: Ring, place: Place, statement: str, where: str) -> None:
    try:
        bench.exchange(ring, statement=statement, place=place)
    except TargetHung as hung:
        bench.fail(statement, expected=f"a request carried out with {where}", observed=str(hung))


def _tell(bench: Bench, result: bool | None, statement: str, what: str) -> None:
    bench.expect(
        result is True,
        statement,
        expected=f"{what} obeyed",
        observed="it was refused" if result is False else "the connection was closed",
    )


def _exchange_in(bench: Bench, ring: Ring, region: GuardedRegion, statement: str) -> None:
    """Have a request carried out whose parts are in `region`."""
    request = bench.traffic.plain(bench)
    segments = []
    for data, is_writable in ((request.readable, False), (bytes([0xA5]) * request.writable_size, True)):
        if data:
            what = f"{'device-writable' if is_writable else 'device-readable'} buffer in the region that was added"
            buffer = bench.memory.allocate(len(data), data=data, what=what, region=region)
            segments.append(Segment(buffer.address, buffer.size, is_writable))
    posted = ring.post(segments=segments)
    ring.publish()
    ring.kick()
    try:
        used = ring.wait_used()
    except TargetHung as hung:
        bench.fail(statement, expected="a request in the region carried out", observed=str(hung))
    complaint = request.check(ring.written(posted), used.length)
    bench.expect(complaint is None, statement, expected="a right answer", observed=str(complaint))


@check("memory.another-table-replaces", covers=[_S + "memory-table.4"], formats=BOTH, carriers=VHOST)
def another_table_replaces(bench: Bench) -> None:
    """A second table brings a region more into use, and rings of before go on."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    usual = list(bench.memory.regions)
    base = ring.stop()
    assert base is not None
    region = bench.memory.add_region(_REGION_SIZE)
    statement = _S + "memory-table.4"
    _tell(bench, bench.front_end.share_memory([*usual, region]), statement, "a table with one region more")
    ring.resume(base)
    _exchange_in(bench, ring, region, statement)


@check("memory.max-slots", covers=[_S + "mem-slots.1"], carriers=VHOST, protocol_features=_SLOTS)
def max_slots(bench: Bench) -> None:
    """GET_MAX_MEM_SLOTS tells of at least one region."""
    bench.control.begin()
    count = bench.front_end.ask_fields(FrontEndRequest.GET_MAX_MEM_SLOTS).value
    bench.expect(count > 0, _S + "mem-slots.1", expected="at least one region", observed=f"{count}")


@check(
    "memory.region-added",
    covers=[_S + "mem-slots.2", _S + "mem-slots.3"],
    formats=BOTH,
    carriers=VHOST,
    protocol_features=_SLOTS,
)
def region_added(bench: Bench) -> None:
    """A region that was added can be used, and be taken away again by its addresses and its size."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    region = bench.memory.add_region(_REGION_SIZE)
    _tell(bench, bench.front_end.add_memory(region), _S + "mem-slots.2", "ADD_MEM_REG")
    _exchange_in(bench, ring, region, _S + "mem-slots.2")
    _tell(bench, bench.front_end.remove_memory(region), _S + "mem-slots.3", "REM_MEM_REG with another offset")
    _expect_exchange(bench, ring, Place.LOW, _S + "mem-slots.3", "the other regions as they were")


@check("memory.descriptor-of-removal-is-closed", covers=[_S + "mem-slots.4"], carriers=VHOST, protocol_features=_SLOTS)
def descriptor_of_removal_is_closed(bench: Bench) -> None:
    """A file descriptor that comes with REM_MEM_REG does not stay open in the back end."""
    bench.start()
    region = bench.memory.add_region(_REGION_SIZE)
    _tell(bench, bench.front_end.add_memory(region), _S + "mem-slots.2", "ADD_MEM_REG")
    fields = {"guest_address": region.guest_address, "size": region.size, "user_address": region.user_address}
    body = SINGLE_REGION.build({"region": {**fields, "mmap_offset": 0}})
    with watched_fd() as watched:
        result = bench.front_end.acknowledged(FrontEndRequest.REM_MEM_REG, body, [watched.fd])
        bench.expect(
            watched.is_dropped(bench.target.patience),
            _S + "mem-slots.4",
            expected="the file descriptor closed",
            observed=f"it is open, REM_MEM_REG was {'obeyed' if result else 'refused'}",
        )


@check(
    "memory.removed-is-not-used",
    covers=[_S + "memory.4", _S + "error.1", "hostile.device.alive", "hostile.device.memory"],
    formats=BOTH,
    carriers=VHOST,
    protocol_features=_SLOTS,
    hostile=True,
)
def removed_is_not_used(bench: Bench) -> None:
    """A buffer in a region that was taken away is not written."""
    bench.start()
    ring = bench.ring()
    bench.exchange(ring)
    region = bench.memory.add_region(_REGION_SIZE)
    _tell(bench, bench.front_end.add_memory(region), _S + "mem-slots.2", "ADD_MEM_REG")
    request = bench.traffic.plain(bench)
    readable = Segment(bench.memory.allocate(64, data=request.readable, what="a request").address, 16, False)
    buffer = bench.memory.allocate(4096, data=bytes([0xA5]) * 4096, what="a removed buffer", region=region)
    _tell(bench, bench.front_end.remove_memory(region), _S + "mem-slots.3", "REM_MEM_REG")
    size = request.writable_size or 16
    given = [readable] if request.readable else []
    ring.post(segments=[*given, Segment(buffer.address, size, bool(request.writable_size))])
    ring.publish()
    ring.kick()
    bench.survives()
    _expect_unchanged(bench, buffer)


def _expect_unchanged(bench: Bench, buffer: Buffer) -> None:
    found = bench.memory.read(buffer.address, buffer.size)
    bench.expect(
        found == bytes([0xA5]) * buffer.size,
        _S + "memory.4",
        expected="the buffer as it was, as its region was taken away",
        observed="it was written",
        shown=[bench.memory.show(buffer.address, 64, "the buffer")],
    )


@check("memory.buffers-stay-after-they-were-used", covers=[_S + "memory.3"], formats=BOTH, carriers=VHOST)
def buffers_stay_after_they_were_used(bench: Bench) -> None:
    """A buffer that was used is not written again, neither for later requests nor when its ring stops."""
    bench.start()
    ring = bench.ring()
    first = ring.post(bench.traffic.plain(bench))
    ring.publish()
    ring.kick()
    ring.wait_used()
    parts = [part for part in first.segments if part.writable]
    for part in parts:
        bench.memory.write(part.address, bytes([0x5A]) * part.size)
    for _ in range(4):
        bench.exchange(ring)
    posted = post_plain(bench, ring, 2)
    ring.kick()
    ring.wait_all(len(posted))
    ring.stop()
    for part in parts:
        bench.expect(
            bench.memory.read(part.address, part.size) == bytes([0x5A]) * part.size,
            _S + "memory.3",
            expected="the buffer as the driver left it after it was used",
            observed="it was written again",
            shown=[bench.memory.show(part.address, min(part.size, 64), "the buffer")],
        )
