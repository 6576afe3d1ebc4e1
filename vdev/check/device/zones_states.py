"""Checks of zones' states: what may be opened, closed, finished and reset, and how many at a time."""

from typing import TYPE_CHECKING

from spec.block import DATA_RANGE, BlockFeature, RequestType
from spec.block_zones import ZoneRequestType, ZoneState, ZoneStatus, ZoneType
from vdev.check.device.block_disk import BLOCK
from vdev.check.device.zones import ACTIVE, OPEN, ZONED, Zone, Zones
from vdev.check.registry import check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_CHANGES = (ZoneRequestType.OPEN, ZoneRequestType.CLOSE, ZoneRequestType.FINISH, ZoneRequestType.RESET)
_RESOURCES = (int(ZoneStatus.OPEN_RESOURCE), int(ZoneStatus.ACTIVE_RESOURCE))
_MOST = 128
"""A disk that lets more zones be open is not asked how many."""


@check(
    "zones.have-the-size-that-is-told",
    covers=["block.device.init.10"],
    types=BLOCK,
    features=ZONED,
)
def have_the_size_that_is_told(bench: "Bench") -> None:
    """Each zone but the last begins zone_sectors behind the one before, and can hold no more than that."""
    zones = Zones(bench)
    found = zones.all()
    if not found:
        bench.inconclusive("no zone is reported")
    for number, zone in enumerate(found):
        bench.expect(
            zone.start == number * zones.size and zone.capacity <= zones.size,
            "block.device.init.10",
            expected=f"zone {number} at sector {number * zones.size}, of at most {zones.size}",
            observed=f"at sector {zone.start}, of {zone.capacity}",
        )


@check(
    "zones.conventional-ones-have-no-state",
    covers=["block.device.operation.19"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def conventional_ones_have_no_state(bench: "Bench") -> None:
    """A conventional zone cannot be opened, closed, finished or reset."""
    zones = Zones(bench)
    zone = zones.first(lambda zone: zone.type == ZoneType.CONVENTIONAL, "conventional")
    for kind in _CHANGES:
        zones.expect_invalid(
            zones.ask(kind, zone.start), "block.device.operation.19", what=f"{kind.name} of a conventional zone"
        )


@check("zones.full-ones-do-not-open", covers=["block.device.operation.21"], types=BLOCK, features=ZONED, writes=True)
def full_ones_do_not_open(bench: "Bench") -> None:
    """A full zone cannot be opened."""
    zones = Zones(bench)
    with zones.empty() as (zone,):
        zones.full(zone)
        answer = zones.ask(ZoneRequestType.OPEN, zone.start)
        zones.expect_invalid(answer, "block.device.operation.21", what="OPEN of a full zone")


@check("zones.full-ones-do-not-close", covers=["block.device.operation.23"], types=BLOCK, features=ZONED, writes=True)
def full_ones_do_not_close(bench: "Bench") -> None:
    """A full zone cannot be closed."""
    zones = Zones(bench)
    with zones.empty() as (zone,):
        zones.full(zone)
        answer = zones.ask(ZoneRequestType.CLOSE, zone.start)
        zones.expect_invalid(answer, "block.device.operation.23", what="CLOSE of a full zone")


@check(
    "zones.read-only-ones-stay-so",
    covers=["block.device.operation.24", "block.device.operation.25"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def read_only_ones_stay_so(bench: "Bench") -> None:
    """A read-only zone can neither be finished nor reset, and keeps its state."""
    zones = Zones(bench)
    zone = zones.first(lambda zone: zone.state == ZoneState.READ_ONLY, "read-only")
    for kind, statement in (
        (ZoneRequestType.FINISH, "block.device.operation.24"),
        (ZoneRequestType.RESET, "block.device.operation.25"),
    ):
        answer = zones.ask(kind, zone.start)
        zones.expect_invalid(answer, statement, what=f"{kind.name} of a read-only zone")
        zones.expect_state(zone, statement, what=kind.name)


@check(
    "zones.read-only-ones-are-not-written",
    covers=["block.device.operation.35"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def read_only_ones_are_not_written(bench: "Bench") -> None:
    """A read-only zone takes neither writes nor appends."""
    zones = Zones(bench)
    zone = zones.first(lambda zone: zone.state == ZoneState.READ_ONLY, "read-only")
    place = min(zone.pointer, zone.start + zones.size - zones.step)
    zones.expect_invalid(
        zones.write(place, zones.bytes()), "block.device.operation.35", what="a write to a read-only zone"
    )
    if int(zones.disk.config["max_append_sectors"]):
        answer, _ = zones.append(zone.start, zones.bytes())
        zones.expect_invalid(answer, "block.device.operation.35", what="an append to a read-only zone")


@check("zones.offline-ones-do-nothing", covers=["block.device.operation.36"], types=BLOCK, features=ZONED, writes=True)
def offline_ones_do_nothing(bench: "Bench") -> None:
    """Nothing can be done with an offline zone: it is not read, written, opened or reset."""
    zones = Zones(bench)
    zone = zones.first(lambda zone: zone.state == ZoneState.OFFLINE, "offline")
    answers = [
        zones.disk.ask(RequestType.IN, zone.start, to_read=zones.granularity),
        zones.write(zone.start, zones.bytes()),
        *(zones.ask(kind, zone.start) for kind in _CHANGES),
    ]
    for answer in answers:
        zones.expect_invalid(answer, "block.device.operation.36", what=f"{answer.request}, in an offline zone")


@check(
    "zones.no-more-open-than-told",
    covers=["block.device.init.12", "block.device.operation.22", "block.device.operation.26"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def no_more_open_than_told(bench: "Bench") -> None:
    """max_open_zones zones can be opened; the next one can neither be opened nor written, and stays empty."""
    zones = Zones(bench)
    limit = _limit(zones, "max_open_zones", OPEN)
    with zones.empty(limit + 1) as found:
        for number, zone in enumerate(found[:limit]):
            answer = zones.ask(ZoneRequestType.OPEN, zone.start)
            zones.expect_status(answer, (0,), "block.device.init.12", what=f"OPEN, with {number} of {limit} zones open")
        _expect_lack(zones, found[limit])


@check(
    "zones.no-more-active-than-told",
    covers=["block.device.init.13", "block.device.operation.22", "block.device.operation.26"],
    types=BLOCK,
    features=ZONED,
    writes=True,
)
def no_more_active_than_told(bench: "Bench") -> None:
    """max_active_zones zones can hold data and be closed; the next one can neither be opened nor written."""
    zones = Zones(bench)
    limit = _limit(zones, "max_active_zones", ACTIVE)
    with zones.empty(limit + 1) as found:
        for number, zone in enumerate(found[:limit]):
            answer = zones.write(zone.start, zones.bytes())
            zones.expect_status(answer, (0,), "block.device.init.13", what=f"a write, with {number} of {limit} active")
            zones.must(zones.ask(ZoneRequestType.CLOSE, zone.start))
        _expect_lack(zones, found[limit])


def _limit(zones: Zones, field: str, states: tuple[ZoneState, ...]) -> int:
    """Return how many more zones can get into one of some states; N/A where there is no limit, or a large one."""
    told = int(zones.disk.config[field])
    taken = sum(zone.state in states for zone in zones.all())
    if not told or told > _MOST:
        zones.bench.not_applicable(f"{field} is {told}: {'there is no limit' if not told else 'too many to try'}")
    if taken >= told:
        zones.bench.not_applicable(f"{taken} zones are in those states already, of {told}")
    return told - taken


def _expect_lack(zones: Zones, zone: Zone) -> None:
    """Expect that one more zone is neither opened nor written, explicitly or by an append, and stays as it is."""
    answer = zones.ask(ZoneRequestType.OPEN, zone.start)
    zones.expect_status(answer, _RESOURCES, "block.device.operation.22", what="OPEN of one zone more")
    zones.expect_state(zone, "block.device.operation.22", what="that")
    if zones.of(zone.start).state == ZoneState.EMPTY:
        answer = zones.write(zone.start, zones.bytes())
        zones.expect_status(answer, _RESOURCES, "block.device.operation.26", what="a write to one zone more")


@check(
    "zones.erase-resets",
    covers=["block.device.operation.41"],
    types=BLOCK,
    features=(*ZONED, BlockFeature.SECURE_ERASE),
    writes=True,
)
def erase_resets(bench: "Bench") -> None:
    """A secure erase of a zone leaves it empty, as a reset does."""
    zones = Zones(bench, BlockFeature.SECURE_ERASE)
    if int(zones.disk.config["max_secure_erase_sectors"]) < zones.size:
        bench.not_applicable("a secure erase takes less than a zone")
    with zones.empty() as (zone,):
        zones.must(zones.write(zone.start, zones.bytes()))
        data = DATA_RANGE.build({"sector": zone.start, "num_sectors": zones.size, "flags": 0})
        zones.must(zones.disk.ask(RequestType.SECURE_ERASE, to_write=data))
        now = zones.of(zone.start)
        bench.expect(
            now.state == ZoneState.EMPTY and now.pointer == zone.start,
            "block.device.operation.41",
            expected=f"the zone at sector {zone.start} empty",
            observed=f"state {now.state}, write pointer at {now.pointer}",
        )


@check(
    "zones.erases-are-of-whole-zones",
    covers=["block.device.operation.39"],
    types=BLOCK,
    features=(*ZONED, BlockFeature.SECURE_ERASE),
)
def erases_are_of_whole_zones(bench: "Bench") -> None:
    """secure_erase_sector_alignment is a multiple of zone_sectors."""
    zones = Zones(bench, BlockFeature.SECURE_ERASE)
    alignment = int(zones.disk.config["secure_erase_sector_alignment"])
    bench.expect(
        zones.size > 0 and alignment % zones.size == 0,
        "block.device.operation.39",
        expected=f"a multiple of {zones.size}",
        observed=f"secure_erase_sector_alignment {alignment}",
    )
