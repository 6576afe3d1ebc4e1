"""Checks of reads: what is given, how it is counted, and what must not be given."""

from typing import TYPE_CHECKING

from spec.block import RequestType
from vdev.check.device.block_disk import BLOCK, Disk, name_of_status
from vdev.check.evidence import Shown
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_HEADER = 16


@check("block-read.first-and-last-sector", covers=["block.device.described.capacity"], formats=BOTH, types=BLOCK)
def first_and_last_sector(bench: "Bench") -> None:
    """The first sector can be read, and the last one that capacity counts."""
    disk = Disk(bench)
    for sector in (0, disk.needs_sectors(1)):
        answer = disk.ask(RequestType.IN, sector, to_read=disk.unit)
        bench.expect(
            answer.is_ok,
            "block.device.described.capacity",
            expected=f"OK for a read of {disk.unit} bytes at sector {sector} of {disk.capacity}",
            observed=f"status {name_of_status(answer.status)}",
            shown=answer.shown(),
        )


@check("block-read.status-is-behind-the-data", covers=["block.device.described.status"], formats=BOTH, types=BLOCK)
def status_is_behind_the_data(bench: "Bench") -> None:
    """The last device-writable byte becomes the status."""
    disk = Disk(bench)
    for size in (disk.unit, disk.unit * min(2, disk.capacity // disk.unit_sectors)):
        answer = disk.ask(RequestType.IN, 0, to_read=size)
        bench.expect(
            answer.status in (0, 1, 2),
            "block.device.described.status",
            expected="OK, IOERR or UNSUPP in the last device-writable byte",
            observed=f"status {name_of_status(answer.status)}",
            shown=answer.shown(),
        )


@check(
    "block-read.length-counts-data-and-status",
    covers=["block.device.described.used-length"],
    formats=BOTH,
    types=BLOCK,
)
def length_counts_data_and_status(bench: "Bench") -> None:
    """The used length of a read is that of its data and one byte more."""
    disk = Disk(bench)
    sector = disk.some_sectors(1)
    answer = disk.ask(RequestType.IN, sector, to_read=disk.unit)
    if not answer.is_ok:
        bench.inconclusive(f"sector {sector} cannot be read: status {name_of_status(answer.status)}")
    bench.expect(
        answer.length == disk.unit + 1,
        "block.device.described.used-length",
        expected=f"used length {disk.unit + 1}",
        observed=f"used length {answer.length}",
        shown=answer.shown(),
    )


@check("block-read.same-however-cut", covers=["block.device.described.read"], formats=BOTH, types=BLOCK)
def same_however_cut(bench: "Bench") -> None:
    """The same sectors read the same, however header, data and status are cut into descriptors."""
    disk = Disk(bench)
    count = min(4, disk.capacity // disk.unit_sectors) * disk.unit_sectors
    sector = disk.some_sectors(count)
    size = count * 512
    wanted = disk.read(sector, count)
    end = _HEADER + size
    for cuts in ((), (end,), (_HEADER + 1, end), (8, _HEADER + size // 2, end), (_HEADER + 7, _HEADER + 513, end - 1)):
        answer = disk.ask(RequestType.IN, sector, to_read=size, cuts=cuts)
        found = [at for at in range(size) if answer.data[at] != wanted[at]][:1]
        bench.expect(
            answer.is_ok and not found,
            "block.device.described.read",
            expected=f"OK and the same {size} bytes, with the request cut at {cuts or 'nothing'}",
            observed=f"status {name_of_status(answer.status)}"
            + (f", another byte at {found[0]}" if found else ", the same bytes"),
            shown=[*answer.shown(), Shown("the same sector, read alone", wanted[:512])],
        )


@check("block-read.many-at-once", covers=["block.device.described.order"], formats=BOTH, types=BLOCK)
def many_at_once(bench: "Bench") -> None:
    """Reads that are under way together are each answered with their own sectors."""
    disk = Disk(bench)
    count = min(5, disk.capacity // disk.unit_sectors)
    sector = disk.needs_sectors(count * disk.unit_sectors)
    places = [sector + number * disk.unit_sectors for number in range(count)]
    bench.random.shuffle(places)
    wanted = [disk.read(place, disk.unit_sectors) for place in places]
    answers = disk.ask_many([disk.request(RequestType.IN, place, to_read=disk.unit) for place in places])
    for place, answer, data in zip(places, answers, wanted, strict=True):
        bench.expect(
            answer.is_ok and answer.data == data,
            "block.device.described.order",
            expected=f"OK and what sector {place} holds",
            observed=f"status {name_of_status(answer.status)}, {'other' if answer.data != data else 'the same'} bytes",
            shown=[*answer.shown(), Shown(f"sector {place}, read alone", data[:512])],
        )
