"""Disks with one small fault each."""

import os
import random

from check_mutants import Mutant, changed, replaced

from spec.block import SECTOR_SIZE, BlockFeature, RequestStatus, RequestType
from spec.block_zones import ZoneRequestType
from spec.device import Feature, feature_mask
from vdev.check.verdict import Verdict
from vdev.devices.block import BlockDevice, BlockFile, execution, requests
from vdev.devices.block.execution import Executor

SECTORS = 4096
CONTENT = random.Random(7).randbytes(SECTORS * SECTOR_SIZE)


def disk(cls=BlockDevice, *, read_only=False, queue_count=1):
    """What makes a disk that holds no two sectors alike, anew for each driver.

    With ``read_only`` the device is told so, and its file would take a write all the same.
    """

    def make(memory):
        fd = os.memfd_create("disk", os.MFD_CLOEXEC)
        os.pwrite(fd, CONTENT, 0)
        return cls(memory, BlockFile(fd, len(CONTENT), read_only=read_only), queue_count=queue_count)

    return make


def faulty(name, kills, *changes, owner=Executor, method="run", make=None, **rest):
    """A disk in whose code something is changed."""
    return Mutant(name, "block", kills, make=make or disk(), patch=changed(owner, method, *changes), **rest)


# Devices


def offering(add=(), take=()):
    """A class of disks that offer some features more or less."""

    class Disk(BlockDevice):
        def __init__(self, memory, file, **options):
            super().__init__(memory, file, **options)
            self.offered_features |= feature_mask(*add)
            self.offered_features &= ~feature_mask(*take)

    return Disk


def with_config(**fields):
    """A class of disks whose configuration space says something else."""

    class Disk(BlockDevice):
        def _fixed_config(self):
            return super()._fixed_config() | fields

    return Disk


class DirtyPadding(BlockDevice):
    def _fill_config(self):
        super()._fill_config()
        raw = self._config._bytes
        raw[57] = 1


class StubbornCache(BlockDevice):
    def config_written(self, offset, size):
        self.config["writeback"] = 1
        self._choose_cache_mode()


class ErasingDisk(offering([BlockFeature.SECURE_ERASE])):
    """A disk that erases as it discards; it has no fault."""

    extra = 0

    def _fixed_config(self):
        limits = {"sectors": 1 << 10, "seg": 4}
        fields = {f"max_secure_erase_{name}": value for name, value in limits.items()}
        return super()._fixed_config() | fields | {"secure_erase_sector_alignment": 1}

    def negotiated(self):
        super().negotiated()
        if self.has_feature(BlockFeature.SECURE_ERASE):
            self._executor._served[RequestType.SECURE_ERASE] = self._erase

    def _erase(self, sector, data, size):
        executor = self._executor
        for first, count, flags in executor._ranges(data, size, 4, 1 << 10):
            if flags:
                raise execution._Refused("flags", RequestStatus.UNSUPP)
            self._file.write_zeroes(first << 9, count + self.extra << 9, unmap=False)
        return 0


class GreedyErasingDisk(ErasingDisk):
    extra = 1


def ageing(answer):
    """A class of disks that tell of their lifetime."""

    class Disk(offering([BlockFeature.LIFETIME])):
        def negotiated(self):
            super().negotiated()
            if self.has_feature(BlockFeature.LIFETIME):
                self._executor._served[RequestType.GET_LIFETIME] = self._get_lifetime

        def _get_lifetime(self, sector, data, size):
            data[0][:6] = answer
            return 6

    return Disk


class ShortDisk(BlockDevice):
    """It takes its last sector for one that is not there."""

    def negotiated(self):
        super().negotiated()
        self._executor._sector_count = self.capacity - 1


class ChangingName(BlockDevice):
    def handle_queue(self, number):
        serial = bytearray(self._executor._serial)
        serial[0] = ord("a") + (serial[0] + 1) % 26
        self._executor._serial = bytes(serial)
        super().handle_queue(number)


class ZoneUnawareDisk(BlockDevice):
    """It refuses requests for zones, with the wrong status."""

    def negotiated(self):
        super().negotiated()
        for kind in ZoneRequestType:
            self._executor._served[kind] = self._refuse

    def _refuse(self, *_):
        raise execution._Refused("zones")


LEGACY = offering(
    [BlockFeature.ZONED],
    [Feature.VERSION_1, Feature.RING_PACKED, Feature.IN_ORDER, Feature.RING_RESET, Feature.NOTIFICATION_DATA],
)
READ_ALONE = "served[kind](sector, data, size)"

MUTANTS = [
    # What is offered and told
    Mutant(
        "no-flush",
        "block",
        {"block-features.flush-is-offered"},
        make=disk(offering(take=[BlockFeature.FLUSH, BlockFeature.CONFIG_WCE])),
    ),
    Mutant(
        "cache-switch-without-flush",
        "block",
        {"block-features.cache-switch-comes-with-flush"},
        make=disk(offering(take=[BlockFeature.FLUSH])),
        also={"block-features.flush-is-offered"},
    ),
    Mutant(
        "zoned-without-zones",
        "block",
        {"block-features.only-zoned-disks-offer-zones"},
        make=disk(offering([BlockFeature.ZONED])),
    ),
    Mutant(
        "legacy-with-zones",
        "block",
        {"block-features.legacy-disks-have-no-zones"},
        make=disk(LEGACY),
        also={"features.version-1-is-offered", "block-features.only-zoned-disks-offer-zones"},
    ),
    Mutant("dirty-padding", "block", {"block-config.padding-is-zero"}, make=disk(DirtyPadding)),
    Mutant("no-segment", "block", {"block-config.limits-can-be-kept"}, make=disk(with_config(seg_max=0))),
    faulty(
        "writeback-without-flush",
        {"block-config.no-flush-no-writeback"},
        ('self.config["writeback"] = 0', "pass"),
        owner=BlockDevice,
        method="negotiated",
    ),
    Mutant("stubborn-cache", "block", {"block-config.writeback-is-kept"}, make=disk(StubbornCache)),
    Mutant(
        "no-queues",
        "block",
        {"block-queues.each-serves"},
        make=disk(with_config(num_queues=0), queue_count=2),
    ),
    # Reads
    Mutant("last-sector-cut-off", "block", {"block-read.first-and-last-sector"}, make=disk(ShortDisk)),
    faulty(
        "status-of-its-own",
        {"block-read.status-is-behind-the-data"},
        ("status[0] = _OK", "status[0] = 0x77 if size == 1024 else _OK"),
    ),
    faulty(
        "status-not-counted",
        {"block-read.length-counts-data-and-status"},
        (READ_ALONE + " + 1", READ_ALONE + " + (not sector or kind != 0)"),
    ),
    faulty(
        "only-the-first-segment",
        {"block-read.same-however-cut"},
        (
            "self._file.read(data, size, sector << SECTOR_SHIFT)",
            "self._file.read(data[:1], len(data[0]), sector << SECTOR_SHIFT)",
        ),
        method="_read",
    ),
    faulty(
        "all-reads-are-the-first",
        {"block-read.many-at-once"},
        (READ_ALONE, "served[kind](requests.sectors[0] if kind == 0 else sector, data, size)"),
        also={"block-write.many-at-once"},
    ),
    # Writes
    faulty(
        "last-byte-lost",
        {"block-write.is-read-again"},
        (
            "self._file.write(data, size, sector << SECTOR_SHIFT)",
            "self._file.write([b''.join(data)[:-1]], size - 1, sector << SECTOR_SHIFT)",
        ),
        method="_write",
        also={
            "block-write.many-at-once",
            "block-ranges.zeroes-are-read",
            "block-ranges.discard-keeps-to-its-range",
        },
    ),
    faulty(
        "length-of-the-data-written",
        {"block-write.length-counts-the-status"},
        ("return 0", "return -1"),
        method="_write",
    ),
    faulty(
        "all-writes-are-the-first",
        {"block-write.many-at-once"},
        (READ_ALONE, "served[kind](sector, requests.data[0] if kind == 1 else data, size)"),
    ),
    faulty(
        "read-only-unsupported",
        {"block-read-only.writes-fail"},
        ('raise _Refused("the disk is read-only")', 'raise _Refused("", RequestStatus.UNSUPP)'),
        method="_check_writable",
        make=disk(read_only=True),
    ),
    faulty(
        "read-only-writes",
        {"block-read-only.writes-store-nothing"},
        ("self._check_writable()", "self._file.write(data, size, sector << SECTOR_SHIFT); self._check_writable()"),
        method="_write",
        make=disk(read_only=True),
    ),
    # Ranges
    faulty(
        "unknown-flags",
        {"block-ranges.unknown-flags-are-unsupported"},
        ("if flags & ~_UNMAP:", "if False:"),
        method="_ranges",
    ),
    faulty(
        "discard-unmaps",
        {"block-ranges.discard-does-not-unmap"},
        ("if flags & _UNMAP:", "if False:"),
        method="_discard",
    ),
    faulty("zeroes-forgotten", {"block-ranges.zeroes-are-read"}, ("if count:", "if False:"), method="_write_zeroes"),
    faulty(
        "zeroes-too-many",
        {"block-ranges.zeroes-are-read"},
        ("count << SECTOR_SHIFT", "count + 1 << SECTOR_SHIFT"),
        method="_write_zeroes",
    ),
    faulty(
        "discards-too-many",
        {"block-ranges.discard-keeps-to-its-range"},
        ("count << SECTOR_SHIFT", "count + 1 << SECTOR_SHIFT"),
        method="_discard",
    ),
    Mutant("erases-too-many", "block", {"block-ranges.erase-keeps-to-its-range"}, make=disk(GreedyErasingDisk)),
    # Types
    faulty(
        "unknown-is-an-error",
        {"block-types.unknown-are-unsupported"},
        ("RequestStatus.UNSUPP", "RequestStatus.UNSUPP if 15 <= kind <= 26 else RequestStatus.IOERR"),
    ),
    Mutant("zones-are-an-error", "block", {"block-types.zone-requests-are-unsupported"}, make=disk(ZoneUnawareDisk)),
    Mutant("changing-name", "block", {"block-types.id-is-a-name"}, make=disk(ChangingName)),
    faulty(
        "flush-fails",
        {"block-types.flush-is-answered"},
        ("if not self._file.read_only:", "raise _Refused('no flush')\n    if not self._file.read_only:"),
        method="_flush",
    ),
    Mutant(
        "reserved-lifetime",
        "block",
        {"block-types.lifetime-has-no-reserved-value"},
        make=disk(ageing(b"\x01\0\x0c\0\x01\0")),
    ),
    # Hostile
    faulty(
        "offset-wraps",
        {"block-hostile.read-beyond-capacity"},
        ("end = sector", "sector &= (1 << 55) - 1\n    end = sector"),
        method="_read",
    ),
    faulty(
        "write-offset-wraps",
        {"block-hostile.write-beyond-capacity"},
        ("self._check_writable()", "self._check_writable(); sector &= (1 << 55) - 1"),
        method="_write",
    ),
    faulty(
        "range-behind-the-end",
        {"block-hostile.ranges-beyond-capacity"},
        ("self._check_bounds(first, count)", "first == self._sector_count or self._check_bounds(first, count)"),
        method="_ranges",
    ),
    faulty(
        "half-sectors",
        {"block-hostile.partial-sectors"},
        ("if size & _IN_SECTOR:", "if False:"),
        method="_check_data",
    ),
    Mutant(
        "short-header",
        "block",
        {"block-hostile.cut-short"},
        make=disk(),
        patch=replaced(lambda patch: patch.setattr(requests, "_refusal", lambda chain: None)),
        verdict=Verdict.CRASHED,
        also={"hostile.no-bytes-at-all", "hostile.elements-without-request", "hostile.table-within-a-table"},
    ),
    faulty(
        "wrong-direction-forgotten",
        {"block-hostile.wrong-direction"},
        ("if not fits:", "assert fits\n            if not fits:"),
        verdict=Verdict.CRASHED,
    ),
    faulty(
        "segments-not-expected",
        {"block-hostile.limits-exceeded"},
        ("if size > REQUEST_SIZE_MAX", "assert len(data) <= self._seg_max\n    if size > REQUEST_SIZE_MAX"),
        method="_check_data",
        verdict=Verdict.CRASHED,
    ),
]
