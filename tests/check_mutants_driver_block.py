"""Faults of a block driver: what its requests consist of, and what the device allows."""

from check_driver_mutants import changed, replaced
from check_guest_setup import DiskGuest, GuestMutant

from guest_agent.drivers.block import BLOCK_DRIVER_FEATURES, BlockDriver, driver
from guest_agent.drivers.block.area import BlockArea
from guest_agent.drivers.block.request_queue import RequestQueue
from spec.block import BlockFeature
from spec.device import feature_mask

_WRITES = "ring.add((header, *segments), (status,), slot)"
_READS = "ring.add((header,), (*segments, status), slot)"
_FLUSH = "[Part(0, (), 0)]"
_ERASING = BLOCK_DRIVER_FEATURES | feature_mask(BlockFeature.SECURE_ERASE)
_LIMITS = ("block-small-limits",)


def that(**attributes):
    return type("Own", (DiskGuest,), attributes)


def more_data(kind):
    """A request of this kind has three more bytes than it should."""
    more = f"*(((header[0], 3),) if kind is RequestType.{kind} else ())"
    return changed(RequestQueue, "submit", (_WRITES, f"ring.add((header, *segments, {more}), (status,), slot)"))


def no_limit(limit):
    return changed(
        BlockArea,
        "note_limits",
        (
            'min(limit(feature, f"{prefix}_seg", 1)',
            f'min((4 if name == "{limit}" else limit(feature, f"{{prefix}}_seg", 1))',
        ),
    )


def erase(patch):
    """A driver that erases where it should discard, with as many ranges as it likes."""
    patch.setattr(driver, "BLOCK_DRIVER_FEATURES", _ERASING)
    read_fields = driver._config_fields
    erasing_fields = ("max_secure_erase_sectors", "max_secure_erase_seg")
    patch.setattr(driver, "_config_fields", lambda features: (*read_fields(features), *erasing_fields))

    def submit(self, ranges, token, queue=0):
        self._area["discard_ranges_max"] = 4
        self._submit_ranges(driver.RequestType.SECURE_ERASE, ranges, 0, "discard", token, queue)

    patch.setattr(BlockDriver, "submit_discard", submit)


GAVE_UP = {"game.*"}

MUTANTS = [
    GuestMutant(
        "a disk's being read-only is not accepted",
        {"block.takes-read-only"},
        own=that(wanted=BLOCK_DRIVER_FEATURES & ~feature_mask(BlockFeature.RO)),
        games=("block-read-only",),
    ),
    GuestMutant(
        "no room for the status",
        {"block.framing"},
        patch=changed(RequestQueue, "submit", (_WRITES, "ring.add((header, *segments), (), slot)")),
        also=GAVE_UP,
    ),
    GuestMutant(
        "what is read is for the device to read",
        {"block.direction"},
        patch=changed(RequestQueue, "submit", (_READS, _WRITES)),
        also={*GAVE_UP, "block.id-size"},
    ),
    GuestMutant(
        "flushes where there are none",
        {"block.types"},
        own=that(always=("flush",)),
        patch=changed(BlockDriver, "submit_flush", ("    self._need(BlockFeature.FLUSH)\n", "")),
        games=("block-never-caches",),
    ),
    GuestMutant(
        "writes to a disk that is read-only",
        {"block.read-only"},
        own=that(always=("write",)),
        patch=changed(BlockDriver, "submit_write", ("    self._need_writable()\n", "")),
        games=("block-read-only",),
    ),
    GuestMutant(
        "a flush names a sector",
        {"block.flush-sector"},
        patch=changed(BlockDriver, "submit_flush", (_FLUSH, "[Part(1, (), 0)]")),
    ),
    GuestMutant(
        "a flush with data",
        {"block.flush-data"},
        patch=changed(BlockDriver, "submit_flush", (_FLUSH, "[Part(0, (), 16)]")),
    ),
    GuestMutant("a write of a part of a sector", {"block.whole-sectors"}, patch=more_data("OUT")),
    GuestMutant("a discard of a part of a range", {"block.whole-ranges"}, patch=more_data("DISCARD")),
    GuestMutant(
        "an id of 24 bytes",
        {"block.id-size"},
        patch=changed(BlockDriver, "submit_get_id", ("ID_SIZE", "24")),
        also=GAVE_UP,
    ),
    GuestMutant(
        "a discard that unmaps",
        {"block.discard-without-unmap"},
        patch=changed(BlockDriver, "submit_discard", ('ranges, 0, "discard"', 'ranges, 1, "discard"')),
    ),
    GuestMutant(
        "capacity is looked at once",
        {"block.looks-at-capacity"},
        patch=replaced(lambda patch: patch.setattr(BlockDriver, "_look_at_device", lambda self: None)),
        games=("block-resizes",),
    ),
    GuestMutant(
        "reads beyond the end",
        {"block.inside-capacity"},
        own=that(always=("read",), too_far=("read",)),
        games=("plain", "late"),
        patch=replaced(lambda patch: patch.setattr(BlockDriver, "_check_bounds", lambda self, sector, count: None)),
    ),
    GuestMutant(
        "discards beyond the end",
        {"block.ranges-inside"},
        own=that(always=("discard",), too_far=("discard",)),
        games=("plain", "late"),
        patch=replaced(lambda patch: patch.setattr(BlockDriver, "_check_bounds", lambda self, sector, count: None)),
    ),
    GuestMutant(
        "any number of segments",
        {"block.seg-max"},
        patch=changed(BlockArea, "note_limits", ('limit(BlockFeature.SEG_MAX, "seg_max", 1)', "32")),
        games=_LIMITS,
    ),
    GuestMutant(
        "segments of any length",
        {"block.size-max"},
        patch=changed(
            BlockArea, "note_limits", ('limit(BlockFeature.SIZE_MAX, "size_max", _SIZE_LIMIT)', "_SIZE_LIMIT")
        ),
        games=_LIMITS,
    ),
    GuestMutant("any number of ranges to discard", {"block.discard-ranges"}, patch=no_limit("discard"), games=_LIMITS),
    GuestMutant(
        "any number of ranges to erase",
        {"block.erase-ranges"},
        own=that(wanted=_ERASING),
        patch=replaced(erase),
        games=_LIMITS,
    ),
    GuestMutant("any number of ranges to zero", {"block.zeroes-ranges"}, patch=no_limit("zeroes"), games=_LIMITS),
    GuestMutant(
        "ranges of any length",
        {"block.range-sectors"},
        patch=changed(BlockArea, "note_limits", ('limit(feature, f"{prefix}_sectors", _NO_LIMIT)', "_NO_LIMIT")),
        games=_LIMITS,
    ),
    GuestMutant(
        "the cache mode is looked at too early",
        {"block.writeback-after-features"},
        patch=changed(
            BlockDriver,
            "start",
            ("    transport.acknowledge_device()", "    transport.acknowledge_device(); transport.read_config(CONFIG)"),
        ),
        also={"config.*", "init.*"},
    ),
    GuestMutant(
        "a change of the capacity makes the driver give up",
        {"game.block-resizes"},
        patch=changed(
            BlockDriver,
            "_look_at_device",
            ("    self._area[", "    raise DeviceViolation('none', 'it changes')\n    self._area["),
        ),
        games=("block-resizes",),
        also={"block.looks-at-capacity"},
    ),
    GuestMutant(
        "an error makes the driver give up",
        {"game.block-errors"},
        patch=changed(RequestQueue, "collect", ("if status not in _STATUSES or", "if status or")),
        games=("block-errors",),
    ),
]
