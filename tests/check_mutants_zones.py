"""Disks of zones with one small fault each."""

from check_mutants import Mutant, changed
from zoned_disk import FIELDS, ZONE_SECTORS, ZonedDisk, zoned

from spec.block_zones import ZoneModel, ZoneType
from vdev.device import Device


def faulty(name, kills, method, *changes, also=frozenset(), **attributes):
    """A disk of zones in whose code something is changed."""
    return Mutant(name, "block", kills, make=zoned(**attributes), patch=changed(ZonedDisk, method, *changes), also=also)


def telling(name, kills, also=frozenset(), **fields):
    """A disk of zones that tells something else of them."""
    return Mutant(name, "block", kills, make=zoned(zone_fields=FIELDS | fields), also=also)


class DirtyPadding(ZonedDisk):
    def negotiated(self):
        super().negotiated()
        self._config._bytes[-1] = 1


class ShownToAll(ZonedDisk):
    """It shows its zones to drivers that know nothing of them."""

    def negotiated(self):
        super().negotiated()
        for field, value in self.zone_fields.items():
            self.config[field] = value


class AnyDriver(ZonedDisk):
    """It is host-managed, and takes drivers that know nothing of zones."""

    def write_status(self, value):
        Device.write_status(self, value)


OFFLINE = {"zones.offline-ones-do-nothing"}
REFUSED = "raise Refused(INVALID)"

MUTANTS = [
    # What is told
    Mutant(
        "unknown-model",
        "block",
        {"block-zoned.model-is-known"},
        make=zoned(model=5, sequential=ZoneType.SEQUENTIAL_PREFERRED),
    ),
    telling("no-granularity", {"block-zoned.zones-have-a-size"}, write_granularity=0),
    telling(
        "other-size",
        {"zones.have-the-size-that-is-told"},
        zone_sectors=ZONE_SECTORS * 2,
        also={"zones.erases-are-of-whole-zones"},
    ),
    telling("too-much-to-append", {"block-zoned.appends-keep-the-limits"}, max_append_sectors=1 << 30),
    telling("one-open-zone-less", {"zones.no-more-open-than-told"}, max_open_zones=1),
    telling("one-active-zone-more", {"zones.no-more-active-than-told"}, max_active_zones=4),
    Mutant("dirty-padding", "block", {"block-zoned.padding-is-zero"}, make=zoned(DirtyPadding)),
    Mutant(
        "shown-to-all",
        "block",
        {"block-zoned.unaware-driver-sees-no-zones"},
        make=zoned(ShownToAll, model=ZoneModel.HOST_AWARE, sequential=ZoneType.SEQUENTIAL_PREFERRED),
        also={"config.readable-before-features-ok"},
    ),
    Mutant(
        "any-driver",
        "block",
        {"block-zoned.host-managed-needs-zoned"},
        make=zoned(AnyDriver, sequential=ZoneType.SEQUENTIAL_PREFERRED),
    ),
    Mutant(
        "erases-half-a-zone",
        "block",
        {"zones.erases-are-of-whole-zones"},
        make=zoned(erase_alignment=ZONE_SECTORS // 2),
    ),
    # States
    faulty("conventional-opens", {"zones.conventional-ones-have-no-state"}, "sequential", (REFUSED, "pass")),
    faulty("full-opens", {"zones.full-ones-do-not-open"}, "open", (REFUSED, "pass"), also=OFFLINE),
    faulty("full-closes", {"zones.full-ones-do-not-close"}, "close_zone", (REFUSED, 'return b""'), also=OFFLINE),
    faulty(
        "read-only-is-finished",
        {"zones.read-only-ones-stay-so"},
        "finish",
        ("(ZoneState.READ_ONLY, ZoneState.OFFLINE)", "(ZoneState.OFFLINE,)"),
    ),
    faulty(
        "read-only-is-reset",
        {"zones.read-only-ones-stay-so"},
        "reset_zone",
        ("(ZoneState.READ_ONLY, ZoneState.OFFLINE)", "(ZoneState.OFFLINE,)"),
    ),
    faulty(
        "read-only-is-written",
        {"zones.read-only-ones-are-not-written"},
        "check_writable",
        ("(ZoneState.READ_ONLY, ZoneState.OFFLINE)", "(ZoneState.OFFLINE,)"),
    ),
    faulty(
        "offline-is-read",
        {"zones.offline-ones-do-nothing"},
        "read",
        ("if zone.state is ZoneState.OFFLINE:", "if False:"),
    ),
    faulty(
        "open-without-resources",
        {"zones.no-more-open-than-told", "zones.no-more-active-than-told"},
        "open",
        ("self.take_resources(zone)", "pass"),
    ),
    faulty(
        "written-without-resources",
        {"zones.no-more-open-than-told", "zones.no-more-active-than-told"},
        "advance",
        ("self.take_resources(zone)", "pass"),
    ),
    faulty("erase-keeps-the-pointer", {"zones.erase-resets"}, "erase", ("self.reset_zone(asked.sector)", 'b""')),
    # Data
    faulty(
        "written-anywhere",
        {"zones.writes-go-to-the-pointer"},
        "write",
        ("raise Refused(ZoneStatus.UNALIGNED_WP)", "pass"),
    ),
    faulty(
        "wrong-status-off-the-pointer",
        {"zones.writes-go-to-the-pointer"},
        "write",
        ("ZoneStatus.UNALIGNED_WP", "INVALID"),
    ),
    faulty("written-too-far", {"zones.writes-fit"}, "append", (REFUSED, "raise Refused(RequestStatus.IOERR)")),
    faulty(
        "read-over-the-end",
        {"zones.requests-stay-in-their-zone"},
        "read",
        ("sector + count > zone.start + ZONE_SECTORS", "False"),
    ),
    faulty(
        "append-tells-the-zone",
        {"zones.appends-tell-where"},
        "append",
        ('"append_sector": place', '"append_sector": sector'),
    ),
    faulty(
        "append-to-the-middle",
        {"zones.appends-name-a-zone"},
        "check_append",
        ("if sector != zone.start:", "if False:"),
    ),
    faulty(
        "append-to-conventional",
        {"zones.appends-name-a-zone"},
        "check_append",
        ("if zone.type is not ZoneType.SEQUENTIAL_REQUIRED:", "if False:"),
    ),
    faulty(
        "appends-without-limit",
        {"zones.appends-have-a-limit"},
        "check_append",
        ("if count > most:", "if False:"),
        zone_fields=FIELDS | {"max_append_sectors": 4},
    ),
    faulty(
        "unknown-append-is-invalid",
        {"zones.appends-may-be-unknown"},
        "append",
        ("RequestStatus.UNSUPP", "INVALID"),
        zone_fields=FIELDS | {"max_append_sectors": 0},
    ),
    faulty(
        "old-data-after-a-reset",
        {"zones.nothing-behind-the-pointer"},
        "sector",
        ("place >= zone.pointer", "False"),
    ),
    faulty(
        "no-pattern",
        {"zones.nothing-behind-the-pointer"},
        "sector",
        ("PATTERN * SECTOR_SIZE", "random.randbytes(SECTOR_SIZE)"),
    ),
]
