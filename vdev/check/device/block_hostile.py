"""Checks of a disk with requests that no driver may send: it may refuse them in any way, and must live on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spec.block import DATA_RANGE, SECTOR_SHIFT, SECTOR_SIZE, BlockFeature, RequestType
from vdev.check.bench.request import Request
from vdev.check.device.block_disk import BLOCK, Disk, name_of_status
from vdev.check.evidence import Shown
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_OK = 0


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
        if not _expect_refused(bench, disk.request(RequestType.IN, sector, to_read=size), f"{size} bytes at {sector}"):
            return


@check(
    "block-hostile.write-beyond-capacity",
    covers=["block.device.described.beyond-capacity", "hostile.device.alive"],
    formats=BOTH,
    types=BLOCK,
    hostile=True,
    writes=True,
)
def write_beyond_capacity(bench: "Bench") -> None:
    """A write to sectors that do not exist is not answered with OK, and the first sector is as before."""
    disk = Disk(bench)
    if disk.has(BlockFeature.RO):
        bench.not_applicable("the device offers RO")
    before = disk.read(0, disk.unit_sectors)
    for sector, size in _outside(disk):
        request = disk.request(RequestType.OUT, sector, to_write=(before * (size // disk.unit))[:size])
        if not _expect_refused(bench, request, f"{size} bytes at {sector}"):
            return


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
            if not _expect_refused(bench, request, f"{kinds[feature].name} of 8 sectors at {sector}"):
                return


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
        if not _expect_refused(bench, request, f"{size} bytes", "block.device.described.partial-sector"):
            return


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
    disk = Disk(bench, *wanted, queues={0: 256})
    ring = bench.ring()
    if BlockFeature.SEG_MAX in wanted:
        seg_max = int(disk.config["seg_max"])
        size = -(-(seg_max + 1) // SECTOR_SIZE) * SECTOR_SIZE
        if seg_max + 3 <= ring.size:
            header = 16
            cuts = [header + at for at in range(1, seg_max + 1)]
            _give(bench, disk.request(RequestType.IN, 0, to_read=size), cuts=[*cuts, header + size], started=True)
    if BlockFeature.SIZE_MAX in wanted:
        size_max = int(disk.config["size_max"])
        size = (size_max // SECTOR_SIZE + 1) * SECTOR_SIZE
        if size <= min(4 << 20, disk.capacity << SECTOR_SHIFT):
            _give(bench, disk.request(RequestType.IN, 0, to_read=size), cuts=[16 + size])


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


def _give(bench: "Bench", request: Request, *, cuts: Sequence[int] | None = None, started: bool = False) -> None:
    """Give the device one request, and wait until it has done with it in whatever way; bring it up anew before."""
    if not started:
        bench.reset()
        bench.start()
    ring = bench.ring()
    ring.post(request, cuts=cuts)
    ring.publish()
    ring.kick()
    bench.survives()


def _expect_refused(
    bench: "Bench", request: Request, what: str, statement: str = "block.device.described.beyond-capacity"
) -> bool:
    """Expect that a request is not answered with OK; false if the device did not answer: it is not asked again."""
    ring = bench.ring()
    posted = ring.post(request)
    ring.publish()
    ring.kick()
    bench.survives()
    if not ring.used_now():
        return False
    status = ring.written(posted)[-1]
    bench.expect(
        status != _OK,
        statement,
        expected=f"no OK for {what}",
        observed=f"status {name_of_status(status)}",
        shown=[Shown("status", bytes([status]))],
    )
    return True
