"""Checks of data in zones: where they may be written, what an append tells, and what lies behind the write pointer."""

from itertools import pairwise
from typing import TYPE_CHECKING

from spec.block import SECTOR_SIZE, RequestStatus, RequestType
from spec.block_zones import ZoneRequestType, ZoneStatus, ZoneType
from vdev.check.device.block_disk import BLOCK, name_of_status
from vdev.check.device.zones import ZONED, Zones
from vdev.check.registry import check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_UNALIGNED = (int(ZoneStatus.UNALIGNED_WP),)


@check(
    "zones.writes-go-to-the-pointer",
    covers=["block.device.operation.33", "block.device.init.17"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def writes_go_to_the_pointer(bench: "Bench") -> None:
    """A write of one granularity goes well at the write pointer, and not before or behind it."""
    zones = Zones(bench)
    with zones.empty() as (zone,):
        for _ in range(2):
            pointer = zones.of(zone.start).pointer
            answer = zones.write(pointer, zones.bytes())
            zones.expect_status(answer, (0,), "block.device.init.17", what=f"{zones.granularity} bytes at the pointer")
        pointer = zones.of(zone.start).pointer
        for place in (zone.start, pointer + zones.step):
            answer = zones.write(place, zones.bytes())
            zones.expect_status(
                answer,
                _UNALIGNED,
                "block.device.operation.33",
                what=f"a write at {place}, with the write pointer at {pointer}",
            )


@check("zones.writes-fit", covers=["block.device.operation.28"], types=BLOCK, features=ZONED, writes=True)
def writes_fit(bench: "Bench") -> None:
    """A write or an append of more than is left in the zone is refused."""
    zones = Zones(bench)
    with zones.empty() as (zone,):
        room = zone.capacity * SECTOR_SIZE
        if room > 1 << 20:
            bench.not_applicable(f"a zone of {room} bytes is not filled here")
        first = zones.write(zone.start, zones.bytes(room // zones.granularity - 1))
        zones.must(first)
        answer = zones.write(zones.of(zone.start).pointer, zones.bytes(2))
        zones.expect_invalid(answer, "block.device.operation.28", what="a write of twice what is left")
        if int(zones.disk.config["max_append_sectors"]) >= 2 * zones.step:
            answer, _ = zones.append(zone.start, zones.bytes(2))
            zones.expect_invalid(answer, "block.device.operation.28", what="an append of twice what is left")


@check(
    "zones.requests-stay-in-their-zone", covers=["block.device.operation.32"], types=BLOCK, features=ZONED, writes=True
)
def requests_stay_in_their_zone(bench: "Bench") -> None:
    """A read or write over the end of a sequential zone is refused."""
    zones = Zones(bench)
    found = zones.all()
    pair = next(
        (
            (zone, behind)
            for zone, behind in pairwise(found)
            if zone.type == behind.type == ZoneType.SEQUENTIAL_REQUIRED and zone.capacity == zones.size
        ),
        None,
    )
    if pair is None:
        bench.not_applicable("the disk has no two sequential zones side by side")
    border = pair[1].start
    answer = zones.disk.ask(RequestType.IN, border - zones.step, to_read=2 * zones.granularity)
    zones.expect_invalid(answer, "block.device.operation.32", what="a read over the end of a zone")
    with zones.empty() as (zone,):
        if zone.capacity * SECTOR_SIZE > 1 << 20 or zone.start + zones.size >= zones.disk.capacity:
            return
        zones.must(zones.write(zone.start, zones.bytes(zone.capacity // zones.step - 1)))
        answer = zones.write(zone.start + zone.capacity - zones.step, zones.bytes(2))
        zones.expect_invalid(answer, "block.device.operation.32", what="a write over the end of a zone")


@check("zones.appends-tell-where", covers=["block.device.operation.29"], types=BLOCK, features=ZONED, writes=True)
def appends_tell_where(bench: "Bench") -> None:
    """An append tells the sector that the write pointer was at, and the data are there."""
    zones = Zones(bench)
    _needs_appends(zones)
    with zones.empty() as (zone,):
        for _ in range(2):
            pointer = zones.of(zone.start).pointer
            data = zones.bytes()
            answer, place = zones.append(zone.start, data)
            zones.must(answer)
            found = zones.disk.ask(RequestType.IN, pointer, to_read=len(data))
            bench.expect(
                place == pointer and found.data == data,
                "block.device.operation.29",
                expected=f"append_sector {pointer}, and the data there",
                observed=f"append_sector {place}, and {'the' if found.data == data else 'other'} data at {pointer}",
                shown=answer.shown(),
            )


@check(
    "zones.appends-name-a-zone",
    covers=["block.device.operation.20", "block.device.operation.27"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def appends_name_a_zone(bench: "Bench") -> None:
    """An append whose sector is not the first of a zone is refused, as is one to a zone that is not sequential."""
    zones = Zones(bench)
    _needs_appends(zones)
    with zones.empty() as (zone,):
        answer, _ = zones.append(zone.start + zones.step, zones.bytes())
        zones.expect_invalid(answer, "block.device.operation.27", what="an append to the middle of a zone")
    zone = zones.first(lambda zone: zone.type == ZoneType.CONVENTIONAL, "conventional")
    with zones.disk.put_back(zone.start, zones.step):
        answer, _ = zones.append(zone.start, zones.bytes())
        zones.expect_invalid(answer, "block.device.operation.20", what="an append to a conventional zone")


@check(
    "zones.appends-have-a-limit",
    covers=["block.device.init.14", "block.device.operation.31"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def appends_have_a_limit(bench: "Bench") -> None:
    """An append of max_append_sectors goes well, one of more is refused."""
    zones = Zones(bench)
    limit = _needs_appends(zones)
    steps = limit // zones.step
    with zones.empty() as (zone,):
        if zone.capacity < 2 * limit + zones.step or limit * SECTOR_SIZE > 1 << 20:
            bench.not_applicable(f"max_append_sectors is {limit}, in zones of {zone.capacity} sectors")
        answer, _ = zones.append(zone.start, zones.bytes(steps))
        zones.expect_status(answer, (0,), "block.device.init.14", what=f"an append of {limit} sectors")
        answer, _ = zones.append(zone.start, zones.bytes(steps + 1))
        zones.expect_invalid(answer, "block.device.operation.31", what=f"an append of more than {limit} sectors")


@check("zones.appends-may-be-unknown", covers=["block.device.operation.30"], types=BLOCK, features=ZONED, writes=True)
def appends_may_be_unknown(bench: "Bench") -> None:
    """A disk whose max_append_sectors is 0 answers an append with UNSUPP."""
    zones = Zones(bench)
    if int(zones.disk.config["max_append_sectors"]):
        bench.not_applicable("max_append_sectors is not 0")
    with zones.empty() as (zone,):
        answer, _ = zones.append(zone.start, zones.bytes())
        zones.expect_status(
            answer, (int(RequestStatus.UNSUPP),), "block.device.operation.30", what="an append to a disk without them"
        )


@check(
    "zones.nothing-behind-the-pointer",
    covers=["block.device.operation.37", "block.device.operation.38"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def nothing_behind_the_pointer(bench: "Bench") -> None:
    """What was written before a reset is not read after it: there is the device's pattern, or an error."""
    zones = Zones(bench)
    with zones.empty() as (zone,):
        data = zones.bytes(2)
        zones.must(zones.write(zone.start, data))
        zones.must(zones.ask(ZoneRequestType.RESET, zone.start))
        first, second = (zones.disk.ask(RequestType.IN, zone.start, to_read=len(data)) for _ in range(2))
        bench.expect(
            not first.is_ok or first.data != data,
            "block.device.operation.37",
            expected="no data behind the write pointer",
            observed=f"status {name_of_status(first.status)}, and what was there before the reset",
            shown=first.shown(),
        )
        bench.expect(
            first.is_ok == second.is_ok and first.data == second.data,
            "block.device.operation.38",
            expected="an error, or a pattern that is the same in the next read",
            observed=f"status {name_of_status(first.status)}, then {name_of_status(second.status)} and other bytes",
            shown=[*first.shown(), *second.shown()],
        )


def _needs_appends(zones: Zones) -> int:
    limit = int(zones.disk.config["max_append_sectors"])
    if not limit:
        zones.bench.not_applicable("max_append_sectors is 0: the disk does not know appends")
    return limit
