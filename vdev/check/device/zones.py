"""A zoned disk in the hands of a check: its zones, what state they are in, and requests for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spec.block import SECTOR_SIZE, BlockFeature, RequestStatus, RequestType
from spec.block_zones import (
    APPEND_ANSWER,
    ZONE_DESCRIPTOR,
    ZONE_REPORT,
    ZoneRequestType,
    ZoneState,
    ZoneStatus,
    ZoneType,
)
from vdev.check.device.block_disk import Answer, Disk, name_of_status
from vdev.check.verdict import Failed, Inconclusive, Judgement

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["ACTIVE", "OPEN", "ZONED", "Zone", "Zones"]

ZONED = (BlockFeature.ZONED,)
"""The features of all checks of zones."""

OPEN = (ZoneState.IMPLICITLY_OPEN, ZoneState.EXPLICITLY_OPEN)
ACTIVE = (*OPEN, ZoneState.CLOSED)

_APPEND_ANSWER_SIZE = APPEND_ANSWER.sizeof()
_REPORTED_AT_ONCE = 64
_MOST_REPORTED = 4096
_INVALID = int(ZoneStatus.INVALID_CMD)


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone as it was reported. Everything is in sectors; `pointer` is the one that is written next."""

    start: int
    capacity: int
    pointer: int
    type: int
    state: int


class Zones:
    """A disk that was started with ZONED. The check is N/A if it has no zones."""

    def __init__(self, bench: "Bench", *features: BlockFeature) -> None:
        self.bench = bench
        self.disk = Disk(bench, *ZONED, *features)
        if not int(self.disk.config["model"]):
            bench.not_applicable("the zone model is that of a disk without zones")
        self.granularity = max(SECTOR_SIZE, int(self.disk.config["write_granularity"]))
        self.step = self.granularity // SECTOR_SIZE
        """Sectors of the smallest write."""
        self.size = int(self.disk.config["zone_sectors"])

    # Zones

    def report(self, sector: int = 0, count: int = _REPORTED_AT_ONCE) -> list[Zone]:
        """Return at most `count` zones from the one on that holds `sector`; INCONCLUSIVE if the disk does not tell."""
        room = ZONE_REPORT.sizeof() + count * ZONE_DESCRIPTOR.sizeof()
        answer = self.disk.ask(ZoneRequestType.REPORT, sector, to_read=room)
        if not answer.is_ok:
            self.bench.inconclusive(f"zones are not reported: status {name_of_status(answer.status)}")
        told = ZONE_REPORT.parse(answer.data)
        places = range(ZONE_REPORT.sizeof(), room, ZONE_DESCRIPTOR.sizeof())
        zones = [ZONE_DESCRIPTOR.parse(answer.data[at:]) for at in places[: told.nr_zones]]
        return [Zone(zone.z_start, zone.z_cap, zone.z_wp, zone.z_type, zone.z_state) for zone in zones]

    def all(self) -> list[Zone]:
        """Return the zones of the disk, not more than a few thousand."""
        zones: list[Zone] = []
        sector = 0
        while sector < self.disk.capacity and len(zones) < _MOST_REPORTED:
            more = self.report(sector)
            if not more:
                break
            zones += more
            sector = more[-1].start + max(1, self.size)
        return zones

    def of(self, start: int) -> Zone:
        """Return a zone as it is now."""
        found = self.report(start, 1)
        if not found:
            self.bench.inconclusive(f"the zone at sector {start} is not reported")
        return found[0]

    def first(self, is_wanted: Callable[[Zone], bool], what: str) -> Zone:
        """Return the first zone that is wanted; the check is N/A if there is none."""
        zone = next(filter(is_wanted, self.all()), None)
        if zone is None:
            self.bench.not_applicable(f"the disk has no {what} zone")
        return zone

    @contextmanager
    def empty(self, count: int = 1) -> Iterator[list[Zone]]:
        """Yield empty zones that require sequential writes, and empty them again in the end; N/A if there are fewer."""
        found = [
            zone
            for zone in self.all()
            if zone.type == ZoneType.SEQUENTIAL_REQUIRED and zone.state == ZoneState.EMPTY and zone.capacity > self.step
        ][:count]
        if len(found) < count:
            self.bench.not_applicable(f"the disk has {len(found)} empty sequential zones, not {count}")
        try:
            yield found
        except (Failed, Inconclusive):
            with suppress(Judgement):
                self._empty(found)
            raise
        self._empty(found)

    def _empty(self, zones: list[Zone]) -> None:
        for zone in zones:
            if self.of(zone.start).state != ZoneState.EMPTY:
                self.ask(ZoneRequestType.RESET, zone.start)

    # Requests

    def ask(self, kind: ZoneRequestType, sector: int) -> Answer:
        """Have something done to a zone."""
        return self.disk.ask(kind, sector)

    def append(self, sector: int, data: bytes) -> tuple[Answer, int]:
        """Append `data`; return the answer, and the sector at which they are said to stand."""
        answer = self.disk.ask(ZoneRequestType.APPEND, sector, to_write=data, to_read=_APPEND_ANSWER_SIZE)
        return answer, int(APPEND_ANSWER.parse(answer.data).append_sector)

    def write(self, sector: int, data: bytes) -> Answer:
        """Write `data`."""
        return self.disk.ask(RequestType.OUT, sector, to_write=data)

    def bytes(self, steps: int = 1) -> bytes:
        """Return random data for so many of the smallest writes."""
        return self.bench.random.randbytes(steps * self.granularity)

    def must(self, answer: Answer) -> None:
        """End the check as INCONCLUSIVE unless a request was answered with OK: what it prepares is not there."""
        if not answer.is_ok:
            self.bench.inconclusive(f"{answer.request} was answered with status {name_of_status(answer.status)}")

    def full(self, zone: Zone) -> None:
        """Finish a zone."""
        self.must(self.ask(ZoneRequestType.FINISH, zone.start))

    # What is expected

    def expect_status(self, answer: Answer, wanted: tuple[int, ...], statement: str, *, what: str) -> None:
        """Expect one of some statuses."""
        self.bench.expect(
            answer.status in wanted,
            statement,
            expected=f"{' or '.join(map(_name, wanted))} for {what}",
            observed=f"status {_name(answer.status)}",
            shown=answer.shown(),
        )

    def expect_invalid(self, answer: Answer, statement: str, *, what: str) -> None:
        """Expect ZONE_INVALID_CMD."""
        self.expect_status(answer, (_INVALID,), statement, what=what)

    def expect_state(self, zone: Zone, statement: str, *, what: str) -> None:
        """Expect a zone to be in the state in which it was reported."""
        now = self.of(zone.start)
        self.bench.expect(
            now.state == zone.state,
            statement,
            expected=f"the zone at sector {zone.start} in state {zone.state} after {what}",
            observed=f"state {now.state}",
        )


def _name(status: int) -> str:
    for names in (RequestStatus, ZoneStatus):
        if status in set(names):
            return f"{names(status).name} ({status})"
    return f"{status:#04x}"
