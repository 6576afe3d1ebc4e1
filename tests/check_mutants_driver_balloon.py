"""Faults of a balloon driver."""

import numpy as np
from check_driver_mutants import changed, replaced
from check_guest_setup import BalloonGuest, GuestMutant

from guest_agent.allocator.poison import Poison
from guest_agent.drivers.balloon.driver import BalloonDriver
from guest_agent.drivers.balloon.hinting import HintPoster
from guest_agent.drivers.balloon.inflation import Inflater
from guest_agent.drivers.balloon.reporting import FreePageReporter
from guest_agent.drivers.balloon.statistics import StatisticsAnswerer
from guest_agent.page_database import Owner
from spec.balloon import BalloonFeature
from spec.device import feature_mask

_ALL = feature_mask(*BalloonFeature)
_POISON = 0x5A5A_5A5A


def that(**options):
    return type("Own", (BalloonGuest,), {"options": options})


def mutant(name, kills, patch, *, own=BalloonGuest, **more):
    return GuestMutant(name, kills, own=own, patch=patch, **more)


_SLOW = {"games": ("balloon-slow",)}
_SIZES = {"games": ("balloon-keeps",)}
_IDS = {"games": ("balloon-ids",)}
_HINTS = {"games": ("balloon-hints-again",)}
_STATISTICS = {"games": ("balloon-statistics",)}
_REPORTS = {"games": ("balloon-scribbles-reported",)}
_FALLS = {"also": {"game.*"}}
"""The device needs a reset, or what it waits for does not come."""

_WORK = 'if not area["balance_due"] or area["inflating_count"] or area["deflating_count"]:'
_USE = "self._area.memory.write(int(self._area.memory.addresses_of(pages)[0]), b'in use')"
_STORE = "size = self._area.store_statistics(dict(self._source()))"
_ADD = 'self._queue.add([(self._area.buffer_address("statistics"), size)], [], 0)'
_ADD_WRITABLE = 'self._queue.add([], [(self._area.buffer_address("statistics"), size)], 0)'


def other_statistics_each_time(patch):
    count = 0
    add = StatisticsAnswerer.add_buffer

    def add_buffer(self):
        nonlocal count
        count += 1
        tags = dict(self._source())
        self._source = lambda: dict(list(tags.items())[count % 2 :])
        add(self)
        self._source = lambda: tags

    patch.setattr(StatisticsAnswerer, "add_buffer", add_buffer)


def uses_pages_of_the_balloon(patch):
    work = Inflater.work

    def working(self):
        area = self._area
        if not area["inflating_count"] and not area["deflating_count"]:
            pages = self._allocator.blocks_of(Owner.BALLOON).pages[::8]
            for address in area.memory.addresses_of(pages).tolist():
                area.memory.write(address, bytes([area.memory.read(address, 1)[0] ^ 0xFF]))
        return work(self)

    patch.setattr(Inflater, "work", working)


def fills(part):
    """Freed pages get the pattern into this part of each page."""

    def fill(self, blocks):
        for page, order in zip(blocks.pages.tolist(), blocks.orders.tolist(), strict=True):
            with self._ram.storing(page, 1 << order) as live:
                live.view(np.uint32)[..., part] = self._pattern

    def apply(patch):
        patch.setattr(Poison, "fill", fill)
        patch.setattr(Poison, "check", lambda self, blocks: None)

    return replaced(apply)


MUTANTS = [
    mutant(
        "the device is not told first",
        {"balloon.must-tell-host"},
        None,
        own=that(wanted_features=_ALL & ~feature_mask(BalloonFeature.MUST_TELL_HOST)),
    ),
    mutant(
        "a page is named twice",
        {"balloon.page-numbers"},
        changed(Inflater, "_post", ("    self._area.store(", "    frames[-1] = frames[0]\n    self._area.store(")),
        **_SIZES,
        **_FALLS,
    ),
    mutant(
        "pages are asked back while they go in",
        {"balloon.no-deflate-before-inflate"},
        changed(
            Inflater,
            "work",
            (_WORK, 'if not area["balance_due"] or area["deflating_count"]:'),
            (
                'missing = area["target"] - area["actual"]',
                'missing = area["target"] - area["actual"] - area["inflating_count"]',
            ),
        ),
        **_SLOW,
        also={"game.*", "balloon.*"},
    ),
    mutant(
        "one page is always taken back",
        {"balloon.deflation-is-wanted"},
        changed(
            Inflater,
            "work",
            ('    area["balance_due"] = 0\n    return False', "    return self._deflate(1, free_at_once=False)"),
        ),
        **_SIZES,
        **_FALLS,
    ),
    mutant(
        "no page is given",
        {"balloon.gives-pages"},
        changed(Inflater, "work", ("if missing > 0:", "if missing > 1 << 40:")),
        **_SIZES,
        **_FALLS,
    ),
    mutant(
        "actual is one page off",
        {"balloon.actual"},
        changed(Inflater, "collect", ('"actual", area["actual"])', '"actual", area["actual"] + 1)')),
        **_SIZES,
        **_FALLS,
    ),
    mutant(
        "a page is used while it goes in",
        {"balloon.inflating-pages"},
        changed(
            Inflater,
            "_inflate",
            (
                'self._post(self._inflate_queue, "inflate_frames", pages)',
                f'self._post(self._inflate_queue, "inflate_frames", pages); {_USE}',
            ),
        ),
        **_SLOW,
    ),
    mutant(
        "a page is used before it has come back",
        {"balloon.deflating-pages"},
        changed(
            Inflater,
            "_deflate",
            (
                'self._post(self._deflate_queue, "deflate_frames", pages)',
                f'self._post(self._deflate_queue, "deflate_frames", pages); {_USE}',
            ),
        ),
        **_SLOW,
    ),
    mutant("pages of the balloon are in use", {"balloon.told-of-use"}, replaced(uses_pages_of_the_balloon), **_SIZES),
    mutant(
        "a reported page is in use",
        {"balloon.reported-pages-in-use"},
        changed(
            FreePageReporter,
            "work",
            (
                "    self._registers.publish(self._queue)\n    return True",
                "    self._registers.publish(self._queue)\n"
                "    self._area.memory.write(segments[0][0], b'in use')\n    return True",
            ),
        ),
        **_REPORTS,
    ),
    mutant(
        "a report for the device to read",
        {"balloon.reported-pages"},
        changed(FreePageReporter, "work", ("self._queue.add([], segments, 0)", "self._queue.add(segments, [], 0)")),
        **_REPORTS,
        **_FALLS,
    ),
    mutant(
        "the pattern is not told",
        {"balloon.poison-value"},
        changed(BalloonDriver, "start", ('registers.write_config(CONFIG, "poison_val", poison_value)', "pass")),
        own=that(poison_value=_POISON),
        also={"balloon.*-hold-the-pattern"},
    ),
    mutant(
        "another pattern is told later",
        {"balloon.poison-value-stays"},
        changed(
            BalloonDriver,
            "_look_at_device",
            (
                "    check_needs_no_reset(self._registers)\n",
                "    check_needs_no_reset(self._registers)\n"
                "    self._registers.write_config(CONFIG, 'poison_val', 1)\n",
            ),
        ),
        own=that(poison_value=_POISON),
        also={"balloon.*-hold-the-pattern", "balloon.deflated-pages-are-filled"},
    ),
    mutant(
        "pages that come back are not filled",
        {"balloon.deflated-pages-are-filled"},
        fills(slice(0, 0)),
        own=that(poison_value=_POISON, wanted_features=_ALL & ~feature_mask(BalloonFeature.PAGE_REPORTING)),
        games=("balloon-scribbles", "balloon-keeps"),
    ),
    mutant(
        "pages that come back are filled by half",
        {"balloon.deflated-pages-hold-the-pattern"},
        fills(slice(0, 512)),
        own=that(poison_value=_POISON, wanted_features=_ALL & ~feature_mask(BalloonFeature.PAGE_REPORTING)),
        games=("balloon-scribbles", "balloon-keeps"),
    ),
    mutant(
        "a reported page does not hold the pattern",
        {"balloon.reported-pages-hold-the-pattern"},
        changed(
            FreePageReporter,
            "work",
            (
                "    self._queue.add([], segments, 0)",
                "    self._area.memory.write(segments[0][0], b'spot')\n    self._queue.add([], segments, 0)",
            ),
        ),
        own=that(poison_value=_POISON),
        games=("late", "one-kept"),
    ),
    mutant(
        "a hint of half a page",
        {"balloon.hinted-pages"},
        changed(HintPoster, "_add_blocks", ("PAGE_SIZE << self._behaviour.order, np", "PAGE_SIZE // 2, np")),
        **_HINTS,
        **_FALLS,
    ),
    mutant(
        "a command id of eight bytes",
        {"balloon.id-size"},
        changed(HintPoster, "_add_id", ("(address, COMMAND_ID_SIZE)", "(address, 8)")),
        **_HINTS,
        **_FALLS,
    ),
    mutant(
        "a command id that nobody gave",
        {"balloon.hints-begin-with-the-id"},
        changed(HintPoster, "_announce", ('self._add_id(area["current_id"])', 'self._add_id(area["current_id"] + 77)')),
        **_HINTS,
        also={"game.*", "balloon.hints"},
    ),
    mutant(
        "a command id twice",
        {"balloon.id-once"},
        changed(
            HintPoster,
            "_announce",
            (
                'self._add_id(area["current_id"])',
                'self._add_id(area["current_id"]); self._add_id(area["current_id"])',
            ),
        ),
        **_HINTS,
        **_FALLS,
    ),
    mutant(
        "no hints",
        {"balloon.hints"},
        replaced(lambda patch: patch.setattr(HintPoster, "_is_answer_due", lambda self: False)),
        **_HINTS,
        **_FALLS,
    ),
    mutant(
        "hints without an end",
        {"balloon.hints-end"},
        changed(HintPoster, "_end", ("    self._add_id(CommandId.STOP)\n", "")),
        **_HINTS,
        **_FALLS,
    ),
    mutant(
        "hints go on after STOP",
        {"balloon.hints-stop"},
        changed(
            HintPoster,
            "_answer_piece",
            ('if area["current_id"] != area["announced_id"] or area["answer_over"]:', 'if area["answer_over"]:'),
        ),
        own=that(
            wanted_features=feature_mask(BalloonFeature.MUST_TELL_HOST, BalloonFeature.FREE_PAGE_HINT),
            queue_size=8,
            hint_order=3,
            hint_batch=2,
        ),
        **_IDS,
        **_FALLS,
    ),
    mutant(
        "DONE in the place of a command id",
        {"balloon.hints-stop"},
        changed(HintPoster, "_announce", ('self._add_id(area["current_id"])', "self._add_id(CommandId.DONE)")),
        **_HINTS,
        also={"game.*", "balloon.hints"},
    ),
    mutant(
        "DONE frees nothing",
        {"balloon.done-frees"},
        replaced(lambda patch: patch.setattr(HintPoster, "_release", lambda self: None)),
        own=that(hint_order=3, hint_batch=4),
        **_IDS,
        also={"game.*", "balloon.hints"},
    ),
    mutant(
        "statistics for the device to write",
        {"balloon.statistics-buffer"},
        changed(
            StatisticsAnswerer,
            "add_buffer",
            (_ADD, _ADD_WRITABLE),
        ),
        **_STATISTICS,
        also={"game.*", "balloon.*statistics*"},
    ),
    mutant(
        "two buffers of statistics",
        {"balloon.one-statistics-buffer"},
        changed(StatisticsAnswerer, "add_buffer", (_ADD, f"{_ADD}; {_ADD}")),
        **_STATISTICS,
        **_FALLS,
    ),
    mutant(
        "no statistics at first",
        {"balloon.first-statistics"},
        changed(BalloonDriver, "start", ("driver._statistics.add_buffer()", "pass")),
        **_STATISTICS,
        **_FALLS,
    ),
    mutant(
        "statistics once and no more",
        {"balloon.next-statistics"},
        changed(StatisticsAnswerer, "work", ("if self.collect():", "if self.collect() and False:")),
        **_STATISTICS,
        **_FALLS,
    ),
    mutant(
        "statistics without an entry",
        {"balloon.statistics-are-filled"},
        changed(
            StatisticsAnswerer,
            "add_buffer",
            (_ADD, "self._queue.add([(self._area.buffer_address('statistics'), 5)], [], 0)"),
        ),
        **_STATISTICS,
        also={"game.*", "balloon.statistics-size"},
    ),
    mutant(
        "statistics of two bytes too many",
        {"balloon.statistics-size"},
        changed(StatisticsAnswerer, "add_buffer", (_ADD, _ADD.replace(", size)", ", size + 2)"))),
        **_STATISTICS,
        **_FALLS,
    ),
    mutant(
        "other statistics each time",
        {"balloon.same-statistics"},
        replaced(other_statistics_each_time),
        **_STATISTICS,
    ),
]
