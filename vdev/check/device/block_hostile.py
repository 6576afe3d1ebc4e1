"""Checks of a disk with requests that no driver may send: it may refuse them in any way, and must live on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spec.block import DATA_RANGE, SECTOR_SHIFT, SECTOR_SIZE, BlockFeature, RequestType
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Posted
from vdev.check.device.block_disk import BLOCK, Disk, name_of_status
from vdev.check.evidence import Shown
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_OK = 0
_HEADER = 16
_LARGE_QUEUE = 256
_LARGEST = 4 << 20
"""Bytes of the largest request that is made here."""


@check(
    "block-hostile.read-beyond-capacity",
    covers=["block.device.described.beyond-capacity", "hostile.device.alive", "hostile.device.memory"],
    formats=BOTH,
    types=BLOCK,
    hostile=True,
)
def read_beyond_capacity(bench: "Bench") -> None:
    """A read of sectors that do not exist, also of such whose byte offset is beyond 2^64, is not answered with OK."""
    disk = Disk(bench)
    for sector, size in _outside(disk):
        _expect_refused(bench, disk.request(RequestType.IN, sector, to_read=size), f"{size} bytes at {sector}")


@check(
    "block-hostile.write-beyond-capacity",
    covers=["block.device.described.beyond-capacity", "hostile.device.alive"],
    formats=BOTH,
    types=BLOCK,
    hostile=True,
    writes=True,
)
def write_beyond_capacity(bench: "Bench") -> None:
    """A write to sectors that do not exist, here of what the first one holds, is not answered with OK."""
    disk = Disk(bench)
    if disk.has(BlockFeature.RO):
        bench.not_applicable("the device offers RO")
    before = disk.read(0, disk.unit_sectors)
    for sector, size in _outside(disk):
        request = disk.request(RequestType.OUT, sector, to_write=(before * (size // disk.unit))[:size])
        _expect_refused(bench, request, f"{size} bytes at {sector}")


@check(
    "block-hostile.ranges-beyond-capacity",
    covers=["block.device.described.beyond-capacity", "hostile.device.alive"],
    types=BLOCK,
    hostile=True,
    writes=True,
)
def ranges_beyond_capacity(bench: "Bench") -> None:
    """A discard or write zeroes of sectors that do not exist is not answered with OK."""
    kinds = {
        BlockFeature.DISCARD: RequestType.DISCARD,
        BlockFeature.WRITE_ZEROES: RequestType.WRITE_ZEROES,
        BlockFeature.SECURE_ERASE: RequestType.SECURE_ERASE,
    }
    offered = [feature for feature in kinds if bench.offers(feature)]
    if not offered:
        bench.not_applicable("none of DISCARD, WRITE_ZEROES and SECURE_ERASE is offered")
    disk = Disk(bench, *offered)
    for feature in offered:
        # No range here has an existing sector: one that is taken by mistake loses nothing, unless offsets wrap.
        for sector in (disk.capacity, 1 << 63, (1 << 64) - 8):
            data = DATA_RANGE.build({"sector": sector, "num_sectors": 8, "flags": 0})
            request = disk.request(kinds[feature], to_write=data)
            _expect_refused(bench, request, f"{kinds[feature].name} of 8 sectors at {sector}", features=offered)


@check(
    "block-hostile.partial-sectors",
    covers=["block.device.described.partial-sector", "hostile.device.alive", "hostile.device.memory"],
    formats=BOTH,
    types=BLOCK,
    hostile=True,
)
def partial_sectors(bench: "Bench") -> None:
    """A read of something else than whole sectors is not answered with OK."""
    disk = Disk(bench)
    for size in (1, SECTOR_SIZE - 1, SECTOR_SIZE + 1):
        request = disk.request(RequestType.IN, 0, to_read=size)
        _expect_refused(bench, request, f"{size} bytes", "block.device.described.partial-sector")


@check(
    "block-hostile.cut-short",
    covers=["hostile.device.alive", "hostile.device.memory"],
    formats=BOTH,
    types=BLOCK,
    hostile=True,
)
def cut_short(bench: "Bench") -> None:
    """Requests with half a header, or without room for a status, do no harm."""
    whole = b"\0" * 16
    for readable, writable_size in ((whole[:8], 1), (whole[:15], SECTOR_SIZE + 1), (whole, 0), (b"", 1), (b"", 600)):
        _give(bench, Request(readable, writable_size))


@check(
    "block-hostile.wrong-direction",
    covers=["hostile.device.alive", "hostile.device.memory"],
    formats=BOTH,
    types=BLOCK,
    hostile=True,
)
def wrong_direction(bench: "Bench") -> None:
    """A read whose data the device may not write, and a flush and a name with data to read, do no harm."""
    disk_types = (RequestType.IN, RequestType.FLUSH, RequestType.GET_ID)
    for kind in disk_types:
        header = int(kind).to_bytes(4, "little") + bytes(12)
        _give(bench, Request(header + bytes(SECTOR_SIZE), 1))


@check(
    "block-hostile.limits-exceeded",
    covers=["hostile.device.alive", "hostile.device.memory"],
    formats=BOTH,
    types=BLOCK,
    hostile=True,
)
def limits_exceeded(bench: "Bench") -> None:
    """Reads of more segments than seg_max, and of larger ones than size_max, do no harm."""
    wanted = [feature for feature in (BlockFeature.SIZE_MAX, BlockFeature.SEG_MAX) if bench.offers(feature)]
    if not wanted:
        bench.not_applicable("neither SIZE_MAX nor SEG_MAX is offered")
    disk = Disk(bench, *wanted, queues={0: _LARGE_QUEUE})
    queue_size = bench.ring().size
    if BlockFeature.SEG_MAX in wanted:
        # One byte a segment, but for the last one: whole sectors all the same.
        count = int(disk.config["seg_max"]) + 1
        size = -(-count // SECTOR_SIZE) * SECTOR_SIZE
        cuts = [*range(_HEADER, _HEADER + count), _HEADER + size]
        if len(cuts) + 1 <= queue_size:
            request = disk.request(RequestType.IN, 0, to_read=size)
            _give(bench, request, cuts=cuts, features=wanted, queue_size=_LARGE_QUEUE)
    if BlockFeature.SIZE_MAX in wanted:
        size = (int(disk.config["size_max"]) // SECTOR_SIZE + 1) * SECTOR_SIZE
        if size <= min(_LARGEST, disk.capacity << SECTOR_SHIFT):
            _give(bench, disk.request(RequestType.IN, 0, to_read=size), cuts=[_HEADER + size], features=wanted)


def _outside(disk: Disk) -> Sequence[tuple[int, int]]:
    """Return (sector, bytes) that do not lie on the disk, none of which would wrap round to its first sectors alone."""
    unit = disk.unit
    last = disk.needs_sectors(1)
    return (
        (disk.capacity, unit),
        (last, 2 * unit),
        (1 << 55, unit),  # times 512 it is 2^64
        ((1 << 55) + last, unit),
        ((1 << 64) - disk.unit_sectors, 2 * unit),
        ((1 << 64) - 1, unit),
    )


def _start_anew(bench: "Bench", features: Sequence[int] = (), queue_size: int | None = None) -> None:
    """Bring the device up for another driver: what the one before did may have ended its connection."""
    if bench.rings:
        bench.reconnect()
    bench.start(features=features, queues=None if queue_size is None else {0: queue_size})


def _give(
    bench: "Bench",
    request: Request,
    *,
    cuts: Sequence[int] | None = None,
    features: Sequence[int] = (),
    queue_size: int | None = None,
) -> Posted:
    """Give a device that was just brought up one request, and wait until it has done with it in whatever way."""
    _start_anew(bench, features, queue_size)
    ring = bench.ring()
    posted = ring.post(request, cuts=cuts)
    ring.publish()
    ring.kick()
    bench.survives()
    return posted


def _expect_refused(
    bench: "Bench",
    request: Request,
    what: str,
    statement: str = "block.device.described.beyond-capacity",
    features: Sequence[int] = (),
) -> None:
    """Expect that a request, if it is answered at all, is not answered with OK."""
    posted = _give(bench, request, features=features)
    ring = bench.ring()
    if not ring.used_now():
        return
    status = ring.written(posted)[-1]
    bench.expect(
        status != _OK,
        statement,
        expected=f"no OK for {what}",
        observed=f"status {name_of_status(status)}",
        shown=[Shown("status", bytes([status]))],
    )
