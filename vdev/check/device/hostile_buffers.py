"""Hostile input: buffers that are not where, or what, the driver says, in rings of either format.

Whatever is meant by them, a device may refuse, ask for a reset, close, stop, or use them with nothing written.
"""

from spec.device import Feature
from spec.split_ring import DescriptorFlag
from vdev.check.bench.arena import Place
from vdev.check.bench.bench import Bench
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Segment
from vdev.check.device.hostile_steps import begin
from vdev.check.device.raw_chains import make_head_available
from vdev.check.registry import BOTH, check

_COVERS = ("hostile.device.alive", "hostile.device.memory")
_NEXT, _WRITE, _INDIRECT = int(DescriptorFlag.NEXT), int(DescriptorFlag.WRITE), int(DescriptorFlag.INDIRECT)
_SIZE = 64


def offer_chain(bench: Bench, *segments: Segment) -> None:
    """Make one chain of these elements available, kick, and see what becomes of the device."""
    ring = bench.ring()
    ring.post(segments=segments)
    ring.publish()
    ring.kick()
    bench.survives()


def _with_room(bench: Bench, address: int, size: int) -> list[Segment]:
    """Return a plain request's elements, the last of which is at `address` instead."""
    request: Request = bench.traffic.plain(bench)
    segments = []
    if request.readable:
        header = bench.memory.allocate(len(request.readable), data=request.readable, what="readable part")
        segments.append(Segment(header.address, header.size, False))
    return [*segments, Segment(address, size, bool(request.writable_size) or not segments)]


@check("hostile.buffer-outside-ram", covers=_COVERS, formats=BOTH, hostile=True)
def buffer_outside_ram(bench: Bench) -> None:
    """A buffer at an address where there is no RAM."""
    begin(bench)
    offer_chain(bench, *_with_room(bench, bench.memory.outside(), _SIZE))


@check("hostile.buffer-over-the-end-of-ram", covers=_COVERS, formats=BOTH, hostile=True)
def buffer_over_the_end_of_ram(bench: Bench) -> None:
    """A buffer that begins in RAM and ends behind it."""
    begin(bench)
    last = bench.memory.allocate(16, what="last bytes of RAM", place=Place.LAST)
    offer_chain(bench, *_with_room(bench, last.address, _SIZE))


@check("hostile.buffer-wraps-at-2-64", covers=_COVERS, formats=BOTH, hostile=True)
def buffer_wraps_at_2_64(bench: Bench) -> None:
    """A buffer whose end is beyond the largest address, and so seems to lie before its beginning."""
    begin(bench)
    offer_chain(bench, *_with_room(bench, (1 << 64) - 16, _SIZE))


@check("hostile.buffer-of-4-gib", covers=_COVERS, formats=BOTH, hostile=True)
def buffer_of_4_gib(bench: Bench) -> None:
    """A buffer that begins in RAM and has the largest size that a descriptor can name."""
    begin(bench)
    room = bench.memory.allocate(_SIZE, what="beginning of a buffer of 4 GiB")
    offer_chain(bench, *_with_room(bench, room.address, 0xFFFF_FFFF))


@check("hostile.readable-buffer-outside-ram", covers=_COVERS, formats=BOTH, hostile=True)
def readable_buffer_outside_ram(bench: Bench) -> None:
    """A device-readable buffer at an address where there is no RAM."""
    begin(bench)
    room = bench.memory.allocate(_SIZE, what="writable part")
    offer_chain(bench, Segment(bench.memory.outside(), _SIZE, False), Segment(room.address, room.size, True))


@check("hostile.readable-behind-writable", covers=_COVERS, formats=BOTH, hostile=True)
def readable_behind_writable(bench: Bench) -> None:
    """A chain with a device-readable element behind a device-writable one."""
    begin(bench)
    room = bench.memory.allocate(_SIZE, what="writable part")
    data = bench.memory.allocate(_SIZE, data=bytes(_SIZE), what="readable part")
    bench.memory.hold(data)
    offer_chain(bench, Segment(room.address, room.size, True), Segment(data.address, data.size, False))


@check("hostile.no-bytes-at-all", covers=_COVERS, formats=BOTH, hostile=True)
def no_bytes_at_all(bench: Bench) -> None:
    """A chain whose only element has no bytes."""
    for writable in (True, False):
        begin(bench)
        place = bench.memory.allocate(_SIZE, what="element of no bytes")
        offer_chain(bench, Segment(place.address, 0, writable))


@check("hostile.elements-of-no-bytes", covers=_COVERS, formats=BOTH, hostile=True)
def elements_of_no_bytes(bench: Bench) -> None:
    """A request with elements of no bytes before, between and behind its own. The text does not say what they mean."""
    begin(bench)
    ring = bench.ring()
    request = bench.traffic.plain(bench)
    border, size = len(request.readable), len(request.readable) + request.writable_size
    ring.post(request, cuts=[0, 0, border, border, size, size])
    ring.publish()
    ring.kick()
    bench.survives()


@check("hostile.elements-without-request", covers=_COVERS, formats=BOTH, hostile=True)
def elements_without_request(bench: Bench) -> None:
    """Chains that are no request of any type: a byte to read, a byte to write, and a whole queue of bytes."""
    for count, writable in ((1, False), (1, True), (bench.traffic.queues(bench)[bench.traffic.queue], False)):
        begin(bench)
        place = bench.memory.allocate(1, data=b"\xff", what="byte")
        offer_chain(bench, *[Segment(place.address, 1, writable)] * min(count, bench.ring().size))


@check("hostile.indirect-without-its-feature", covers=_COVERS, formats=BOTH, hostile=True)
def indirect_without_its_feature(bench: Bench) -> None:
    """A descriptor that refers to a table, though INDIRECT_DESC was not negotiated."""
    begin(bench)
    table = bench.memory.allocate(32, align=16, data=bytes(32), what="indirect table")
    _offer_head(bench, table.address, table.size, _INDIRECT)


def _offer_head(bench: Bench, address: int, size: int, flags: int) -> None:
    ring = bench.ring()
    make_head_available(ring, address, size, flags, following=1)
    ring.kick()
    bench.survives()


_TABLE = (Feature.INDIRECT_DESC,)


@check("hostile.table-outside-ram", covers=_COVERS, formats=BOTH, features=_TABLE, hostile=True)
def table_outside_ram(bench: Bench) -> None:
    """An indirect table at an address where there is no RAM."""
    begin(bench, features=_TABLE)
    _offer_head(bench, bench.memory.outside(), 32, _INDIRECT)


@check("hostile.table-of-odd-size", covers=_COVERS, formats=BOTH, features=_TABLE, hostile=True)
def table_of_odd_size(bench: Bench) -> None:
    """Indirect tables of sizes that are no number of descriptors: 1 byte, 15, 17 and 31."""
    for size in (1, 15, 17, 31):
        begin(bench, features=_TABLE)
        table = bench.memory.allocate(size, align=16, data=bytes(size), what="indirect table")
        _offer_head(bench, table.address, size, _INDIRECT)


@check("hostile.table-of-no-size", covers=_COVERS, formats=BOTH, features=_TABLE, hostile=True)
def table_of_no_size(bench: Bench) -> None:
    """An indirect table of no bytes."""
    begin(bench, features=_TABLE)
    table = bench.memory.allocate(16, align=16, data=bytes(16), what="place of an indirect table of no bytes")
    _offer_head(bench, table.address, 0, _INDIRECT)


@check("hostile.table-longer-than-the-queue", covers=_COVERS, formats=BOTH, features=_TABLE, hostile=True)
def table_longer_than_the_queue(bench: Bench) -> None:
    """An indirect table of one entry more than the queue has descriptors, all of them used."""
    begin(bench, features=_TABLE)
    ring = bench.ring()
    place = bench.memory.allocate(1, data=b"\x00", what="byte")
    ring.post(segments=[Segment(place.address, 1, False)] * (ring.size + 1), indirect=True)
    ring.publish()
    ring.kick()
    bench.survives()


@check("hostile.table-and-next", covers=_COVERS, formats=BOTH, features=_TABLE, hostile=True)
def table_and_next(bench: Bench) -> None:
    """INDIRECT and NEXT in one descriptor."""
    begin(bench, features=_TABLE)
    table = bench.memory.allocate(32, align=16, data=bytes(32), what="indirect table")
    _offer_head(bench, table.address, table.size, _INDIRECT | _NEXT)


@check("hostile.table-within-a-table", covers=_COVERS, formats=BOTH, features=_TABLE, hostile=True)
def table_within_a_table(bench: Bench) -> None:
    """A table whose entry refers to the table itself."""
    begin(bench, features=_TABLE)
    table = bench.memory.allocate(16, align=16, what="indirect table")
    flags_at = 12 if bench.format is BOTH[0] else 14
    entry = bytearray(table.address.to_bytes(8, "little") + (16).to_bytes(4, "little") + bytes(4))
    entry[flags_at] = _INDIRECT
    bench.memory.write(table.address, entry)
    _offer_head(bench, table.address, table.size, _INDIRECT)
