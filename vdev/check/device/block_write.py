"""Checks of writes: what was stored is there, and nothing else changed. They store what they found again."""

from typing import TYPE_CHECKING

from spec.block import SECTOR_SIZE, BlockFeature, RequestStatus, RequestType
from vdev.check.device.block_disk import BLOCK, Disk, name_of_status
from vdev.check.evidence import Shown
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_HEADER = 16


@check("block-write.is-read-again", covers=["block.device.described.write"], formats=BOTH, types=BLOCK, writes=True)
def is_read_again(bench: "Bench") -> None:
    """A written block is read again, and the blocks beside it are as before, however the request was cut."""
    disk = _writable(bench)
    unit = disk.unit_sectors
    first = disk.some_sectors(3 * unit)
    with disk.put_back(first, 3 * unit) as before:
        for cuts in ((), (_HEADER,), (7, _HEADER + 100), (_HEADER + 1, _HEADER + 2, _HEADER + disk.unit - 1)):
            data = bench.random.randbytes(disk.unit)
            answer = disk.ask(RequestType.OUT, first + unit, to_write=data, cuts=cuts)
            found = disk.read(first, 3 * unit)
            wanted = before[: disk.unit] + data + before[2 * disk.unit :]
            place = next((at for at in range(len(wanted)) if found[at] != wanted[at]), None)
            bench.expect(
                answer.is_ok and place is None,
                "block.device.described.write",
                expected=f"OK, sector {first + unit} as written, and the blocks beside it as before "
                f"(the request cut at {cuts or 'nothing'})",
                observed=f"status {name_of_status(answer.status)}"
                + (
                    ""
                    if place is None
                    else f", another byte at {place % SECTOR_SIZE} of sector {first + place // SECTOR_SIZE}"
                ),
                shown=[*answer.shown(), *_around(wanted, found, place)],
            )


@check("block-write.length-counts-the-status", covers=["block.device.described.used-length"], types=BLOCK, writes=True)
def length_counts_the_status(bench: "Bench") -> None:
    """The used length of a write is 1: nothing but the status was written."""
    disk = _writable(bench)
    sector = disk.some_sectors(1)
    with disk.put_back(sector, disk.unit_sectors) as before:
        answer = disk.ask(RequestType.OUT, sector, to_write=before)
        if not answer.is_ok:
            bench.inconclusive(f"sector {sector} cannot be written: status {name_of_status(answer.status)}")
        bench.expect(
            answer.length == 1,
            "block.device.described.used-length",
            expected="used length 1",
            observed=f"used length {answer.length}",
            shown=answer.shown(),
        )


@check("block-write.many-at-once", covers=["block.device.described.order"], formats=BOTH, types=BLOCK, writes=True)
def many_at_once(bench: "Bench") -> None:
    """Writes that are under way together each store their own data, and reads together give each its own."""
    disk = _writable(bench)
    unit = disk.unit_sectors
    count = 6
    first = disk.some_sectors(count * unit)
    places = [first + number * unit for number in range(count)]
    bench.random.shuffle(places)
    with disk.put_back(first, count * unit):
        data = {place: bench.random.randbytes(disk.unit) for place in places}
        stored = disk.ask_many([disk.request(RequestType.OUT, place, to_write=data[place]) for place in places])
        bench.expect(
            all(answer.is_ok for answer in stored),
            "block.device.described.order",
            expected=f"OK for {count} writes that are under way together",
            observed=", ".join(name_of_status(answer.status) for answer in stored),
        )
        places.reverse()
        answers = disk.ask_many([disk.request(RequestType.IN, place, to_read=disk.unit) for place in places])
        for place, answer in zip(places, answers, strict=True):
            bench.expect(
                answer.is_ok and answer.data == data[place],
                "block.device.described.order",
                expected=f"OK and what was stored at sector {place}",
                observed=f"status {name_of_status(answer.status)}, "
                f"{'the same' if answer.data == data[place] else 'other'} bytes",
                shown=[*answer.shown(), Shown(f"stored at sector {place}", data[place][:SECTOR_SIZE])],
            )


@check(
    "block-read-only.writes-fail",
    covers=["block.device.operation.3"],
    formats=BOTH,
    types=BLOCK,
    features=[BlockFeature.RO],
)
def writes_fail(bench: "Bench") -> None:
    """A disk that offers RO answers a write, here of what is there anyway, with IOERR, also to a driver without RO."""
    for features in ((BlockFeature.RO,), ()):
        disk = Disk(bench, *features)
        data = disk.read(0, disk.unit_sectors)
        answer = disk.ask(RequestType.OUT, 0, to_write=data)
        bench.expect(
            answer.status == RequestStatus.IOERR,
            "block.device.operation.3",
            expected=f"IOERR for a write to a disk that offers RO, {'' if features else 'not '}negotiated",
            observed=f"status {name_of_status(answer.status)}",
            shown=answer.shown(),
        )
        bench.reset()


@check(
    "block-read-only.writes-store-nothing",
    covers=["block.device.operation.4"],
    types=BLOCK,
    features=[BlockFeature.RO],
    writes=True,
)
def writes_store_nothing(bench: "Bench") -> None:
    """A write to a disk that offers RO changes nothing."""
    disk = Disk(bench)
    sector = disk.some_sectors(1)
    before = disk.read(sector, disk.unit_sectors)
    disk.ask(RequestType.OUT, sector, to_write=bytes(byte ^ 0xFF for byte in before))
    found = disk.read(sector, disk.unit_sectors)
    if found != before:
        # Who takes this write takes that one, too.
        disk.ask(RequestType.OUT, sector, to_write=before)
    bench.expect(
        found == before,
        "block.device.operation.4",
        expected=f"sector {sector} as it was before the write",
        observed="it changed",
        shown=[Shown("before", before[:SECTOR_SIZE]), Shown("after", found[:SECTOR_SIZE])],
    )


def _writable(bench: "Bench") -> Disk:
    if bench.offers(BlockFeature.RO):
        bench.not_applicable("the device offers RO")
    return Disk(bench)


def _around(wanted: bytes, found: bytes, place: int | None) -> list[Shown]:
    if place is None:
        return []
    begin = place // SECTOR_SIZE * SECTOR_SIZE
    return [
        Shown("the sector as it should be", wanted[begin : begin + SECTOR_SIZE]),
        Shown("the sector as it is", found[begin : begin + SECTOR_SIZE]),
    ]
