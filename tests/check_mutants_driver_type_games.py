"""Drivers of balloons and disks that cannot live with what a device of theirs may do."""

from check_driver_mutants import changed, replaced
from check_guest_setup import BalloonGuest, DiskGuest, GuestMutant

from guest_agent.drivers.balloon.driver import BalloonDriver
from guest_agent.drivers.balloon.hinting import HintPoster
from guest_agent.drivers.balloon.inflation import Inflater
from guest_agent.drivers.balloon.refreshing import NO_REQUEST
from guest_agent.drivers.balloon.reporting import FreePageReporter
from guest_agent.drivers.block import BlockDriver
from guest_agent.drivers.block.area import BlockArea
from guest_agent.mmio import MmioDriver
from spec.block import BlockFeature
from spec.mmio import Interrupt
from vdev.errors import DeviceViolation
from vdev.memory import PAGE_SIZE

_CAPACITY = ')["capacity"]'
_ALL_PAGES = 0xFFFF_FFFF


def refuses(is_wrong):
    """A driver that does not take a device with such an offer, a mask."""

    def apply(patch):
        offered_features = MmioDriver.offered_features

        def looking(self):
            offered = offered_features(self)
            if is_wrong(offered):
                raise self.fail("no such disk")
            return offered

        patch.setattr(MmioDriver, "offered_features", looking)

    return replaced(apply)


def needs_segments(patch):
    note_limits = BlockArea.note_limits

    def noting(self, config, queue_size):
        note_limits(self, config, queue_size)
        if self["seg_max"] <= 2:
            raise DeviceViolation("none", "two segments are too few")

    patch.setattr(BlockArea, "note_limits", noting)


def has(offered, bit):
    return offered >> bit & 1


def refuses_targets(is_wrong):
    """A driver that gives up where the target that it reads is such a one; the balloon's area says where it is."""

    def apply(patch):
        see_target = Inflater.see_target

        def seeing(self, pages):
            if pages != self._area["target"] and is_wrong(self._area, pages):
                raise DeviceViolation("none", f"a target of {pages} pages")
            see_target(self, pages)

        patch.setattr(Inflater, "see_target", seeing)

    return replaced(apply)


def refuses_ids(is_wrong):
    """A driver that gives up where a new command id comes in such a moment."""

    def apply(patch):
        see_config = HintPoster.see_config

        def seeing(self, command_id, interval):
            area = self._area
            if command_id not in NO_REQUEST and command_id != area["current_id"] and is_wrong(self, command_id):
                raise DeviceViolation("none", f"another command id, {command_id}")
            see_config(self, command_id, interval)

        patch.setattr(HintPoster, "see_config", seeing)

    return replaced(apply)


def is_not_the_first(poster, command_id):
    first = vars(poster).setdefault("first_id", command_id)
    return command_id != first


def need_zeroes(area, page):
    if any(area.memory.read(int(area.memory.addresses_of(page)[0]), 64)):
        raise DeviceViolation("none", "a page does not hold zeroes")


def looks_into_the_balloon(patch):
    collect = Inflater.collect

    def collecting(self):
        area = self._area
        is_under_way = area["inflating_count"]
        freed = collect(self)
        if is_under_way and not area["inflating_count"]:
            need_zeroes(area, area.memory.pages_of(area.load("inflate_frames", 1).astype("u8") * PAGE_SIZE))
        return freed

    patch.setattr(Inflater, "collect", collecting)


def looks_into_reported_pages(patch):
    collect = FreePageReporter.collect

    def collecting(self):
        is_back = collect(self)
        if is_back:
            need_zeroes(self._area, self._area.load("reported_heads", 1))
        return is_back

    patch.setattr(FreePageReporter, "collect", collecting)


def needs_something_used(patch):
    def handle_interrupt(self):
        causes = self._registers.take_interrupt()
        if causes & Interrupt.CONFIGURATION_CHANGE:
            self._area["config_pending"] = 1
        elif not any(queue.has_used() for queue in self.queues.values()):
            self._give_up(DeviceViolation("none", "an interrupt for nothing"))

    patch.setattr(BalloonDriver, "handle_interrupt", handle_interrupt)


def balloon(name, kills, patch, *games):
    return GuestMutant(name, kills, own=BalloonGuest, patch=patch, games=games)


def disk(name, kills, patch, *games):
    return GuestMutant(name, kills, own=DiskGuest, patch=patch, games=games)


MUTANTS = [
    balloon(
        "a target beyond all pages makes the driver give up",
        {"game.balloon-sizes"},
        refuses_targets(lambda area, pages: pages == _ALL_PAGES),
        "balloon-keeps",
        "balloon-sizes",
    ),
    balloon(
        "a target that moves makes the driver give up",
        {"game.balloon-slow"},
        refuses_targets(lambda area, pages: area["inflating_count"] or area["deflating_count"]),
        "balloon-keeps",
        "balloon-slow",
    ),
    balloon(
        "a balloon that grows again makes the driver give up",
        {"game.balloon-keeps"},
        refuses_targets(lambda area, pages: pages > area["target"] > 0),
        "balloon-keeps",
    ),
    balloon(
        "an interrupt for nothing makes the driver give up",
        {"game.balloon-statistics"},
        replaced(needs_something_used),
        "balloon-statistics",
    ),
    balloon(
        "pages of the balloon hold zeroes",
        {"game.balloon-scribbles"},
        replaced(looks_into_the_balloon),
        "balloon-keeps",
        "balloon-scribbles",
    ),
    balloon(
        "reported pages hold zeroes",
        {"game.balloon-scribbles-reported"},
        replaced(looks_into_reported_pages),
        "late",
        "balloon-scribbles-reported",
    ),
    balloon(
        "a command id without STOP or DONE before it makes the driver give up",
        {"game.balloon-ids"},
        refuses_ids(lambda poster, command_id: poster._area["current_id"] not in NO_REQUEST),
        "balloon-hints-again",
        "balloon-ids",
    ),
    balloon(
        "hints are given once",
        {"game.balloon-hints-again"},
        refuses_ids(is_not_the_first),
        "balloon-hints-again",
    ),
    disk(
        "a disk that is read-only is refused",
        {"game.block-read-only"},
        refuses(lambda offered: has(offered, BlockFeature.RO)),
        "plain",
        "block-read-only",
    ),
    disk(
        "a cache must have a switch",
        {"game.block-always-caches"},
        refuses(lambda offered: has(offered, BlockFeature.FLUSH) and not has(offered, BlockFeature.CONFIG_WCE)),
        "plain",
        "block-never-caches",
        "block-always-caches",
    ),
    disk(
        "a disk must have a cache",
        {"game.block-never-caches"},
        refuses(lambda offered: not has(offered, BlockFeature.FLUSH)),
        "plain",
        "block-always-caches",
        "block-never-caches",
    ),
    disk(
        "a request must take more than two segments",
        {"game.block-small-limits"},
        replaced(needs_segments),
        "plain",
        "block-small-limits",
    ),
    disk(
        "a change that changes nothing makes the driver give up",
        {"game.config-storm"},
        changed(
            BlockDriver,
            "_look_at_device",
            ("    self._area[", "    before = self._capacity\n    self._area["),
            (_CAPACITY, f"{_CAPACITY}\n    if before == self._capacity: raise DeviceViolation('none', 'no change')"),
        ),
        "plain",
        "config-storm",
    ),
    disk(
        "configuration space is read once",
        {"game.torn-config"},
        changed(MmioDriver, "read_config", ("range(_GENERATION_TRIES)", "range(1)")),
        "plain",
        "torn-config",
    ),
]
