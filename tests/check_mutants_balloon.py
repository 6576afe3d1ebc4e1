"""Balloons with one small fault each."""

import numpy as np
from check_mutants import Mutant, changed, replaced
from race_rings_mutants import put

from spec.balloon import BalloonFeature, BalloonQueue
from vdev.check.verdict import Verdict
from vdev.devices.balloon import BalloonDevice, Hinting
from vdev.devices.balloon.inflation import Inflation
from vdev.devices.balloon.reporting import Reporting
from vdev.devices.balloon.statistics import Statistics
from vdev.memory.pages import PageRanges

RETURNED = "returned = self._memory.give_back(PageRanges.of_pages(np.sort(pages)))"
PUSHED = "queue.push(chain.head, 0)"
BATCH_PUSHED = "np.zeros(len(heads), np.int64)"
EVER = "balloon.told-host-gives-pages-back"


def faulty(name, kills, owner, method, *changes, **rest):
    """A balloon in whose code something is changed."""
    return Mutant(name, "balloon", kills, patch=changed(owner, method, *changes), **rest)


def dying(name, kills, owner, method, condition, assertion, also=frozenset()):
    """A balloon that dies where it should find a violation."""
    change = (condition, f"assert {assertion}\n    {condition}")
    return faulty(name, kills, owner, method, change, verdict=Verdict.CRASHED, also=also)


class ForgetfulActual(BalloonDevice):
    def config_written(self, offset, size):
        self.config["actual"] &= ~np.uint32(1)


class OtherPoison(BalloonDevice):
    def started(self):
        self.config["poison_val"] ^= np.uint32(1)


class OtherTarget(BalloonDevice):
    def set_target(self, pages):
        super().set_target(pages & ~1)


class LateTheft(BalloonDevice):
    """With MUST_TELL_HOST, it gives pages back to the operating system again when others go in."""

    def handle_queue(self, number):
        super().handle_queue(number)
        if self.has_feature(BalloonFeature.MUST_TELL_HOST) and self._roles[number] is BalloonQueue.INFLATE:
            self.ever = getattr(self, "ever", self.inflation.inflated) | self.inflation.inflated
            self.memory.give_back(PageRanges.of_pages(np.flatnonzero(self.ever)))


class DoneAtFirst(BalloonDevice):
    def reset(self):
        super().reset()
        self.config["free_page_hint_cmd_id"] = 1


class SilentStop(BalloonDevice):
    def show_command_id(self, shown_id, is_news):
        if shown_id:
            super().show_command_id(shown_id, is_news)


class NeverDone(BalloonDevice):
    def show_command_id(self, shown_id, is_news):
        super().show_command_id(0 if shown_id == 1 else shown_id, is_news)


def takes_pages_when_done(patch):
    """Have hinting give hinted pages back to the operating system once it is done with them."""
    put(patch, Hinting, "_take_pages", ("ranges = self._memory", "ranges = self.seen = self._memory"))
    put(
        patch,
        Hinting,
        "_take_id",
        ("before = self.state", "before = self.state\n    if before == 3:\n        self._memory.give_back(self.seen)"),
    )


MUTANTS = [
    # Pages
    faulty(
        "deflate-tells-a-length",
        {
            "balloon.pages-go-in-and-out",
            "balloon.pages-come-out-in-any-order",
            "balloon.requests-may-be-cut",
        },
        Inflation,
        "deflate",
        (PUSHED, "queue.push(chain.head, 4)"),
    ),
    faulty(
        "large-requests-tell-a-length",
        {"balloon.pages-go-in-and-out"},
        Inflation,
        "inflate",
        (PUSHED, "queue.push(chain.head, int(len(pages) > 100))"),
    ),
    faulty(
        "only-in-order",
        {"balloon.pages-come-out-in-any-order"},
        Inflation,
        "deflate",
        (PUSHED, "queue.push(chain.head, int((np.diff(pages) < 0).any()))"),
    ),
    faulty(
        "only-uncut",
        {"balloon.requests-may-be-cut"},
        Inflation,
        "deflate",
        (PUSHED, "queue.push(chain.head, len(chain.readable) - 1)"),
    ),
    faulty(
        "takes-the-next-page",
        {"balloon.other-pages-stay"},
        Inflation,
        "inflate",
        (RETURNED, "returned = self._memory.give_back(PageRanges.of_pages(np.union1d(pages, pages + 1)))"),
    ),
    faulty(
        "takes-pages-again",
        {"balloon.deflated-pages-stay"},
        Inflation,
        "inflate",
        (
            RETURNED,
            "self.ever = np.union1d(getattr(self, 'ever', pages), pages)\n"
            "    returned = self._memory.give_back(PageRanges.of_pages(self.ever))",
        ),
        also={EVER},
    ),
    Mutant("late-theft", "balloon", {EVER}, make=LateTheft),
    # Configuration
    Mutant("forgetful-actual", "balloon", {"balloon-config.actual-is-kept"}, make=ForgetfulActual),
    Mutant("other-poison", "balloon", {"balloon-config.poison-is-kept"}, make=OtherPoison),
    Mutant("other-target", "balloon", {"balloon-config.target-is-told"}, make=OtherTarget),
    # Statistics
    faulty(
        "unknown-tags-refused",
        {"balloon-statistics.odd-buffers-are-taken"},
        Statistics,
        "handle",
        (
            "known = entries",
            "if not np.isin(entries['tag'], _KNOWN).all():\n        "
            "raise self._violation('a tag', chain, queue)\n    known = entries",
        ),
        also={"balloon-statistics.values-are-understood"},
    ),
    faulty(
        "values-by-place",
        {"balloon-statistics.values-are-understood"},
        Statistics,
        "handle",
        ('zip(known["tag"].tolist(),', 'zip(sorted(known["tag"].tolist()),'),
    ),
    faulty(
        "buffer-given-back",
        {"balloon-statistics.buffer-is-kept"},
        Statistics,
        "handle",
        ("self.answer_count += 1", "self.answer_count += 1; self.release(queue)"),
    ),
    # Hints
    faulty(
        "hints-with-a-length",
        {"balloon-hints.all-come-back"},
        Hinting,
        "handle",
        (BATCH_PUSHED, "np.ones(len(heads), np.int64)"),
    ),
    faulty(
        "refused-pages-taken",
        {"balloon-hints.unasked-pages-stay"},
        Hinting,
        "_take_pages",
        (
            "self.refused_count += len(chosen)",
            "self.refused_count += len(chosen); "
            "self._memory.give_back(self._memory.page_ranges_inside(addresses, sizes))",
        ),
    ),
    Mutant(
        "done-at-first",
        "balloon",
        {"balloon-hints.stop-at-first"},
        make=DoneAtFirst,
        also={"config.readable-before-features-ok"},
    ),
    faulty(
        "no-hint-counts",
        {"balloon-hints.right-id-counts"},
        Hinting,
        "_take_id",
        ("command_id == self.command_id", "command_id == self.command_id + 1"),
    ),
    faulty(
        "any-id-counts",
        {"balloon-hints.stale-id-is-ignored"},
        Hinting,
        "_take_id",
        ("command_id == self.command_id", "command_id >= 2"),
    ),
    Mutant("silent-stop", "balloon", {"balloon-hints.stop-is-shown"}, make=SilentStop),
    faulty(
        "one-id",
        {"balloon-hints.id-is-not-used-twice"},
        Hinting,
        "request",
        ("FIRST_COMMAND_ID if self.command_id == 0xFFFF_FFFF else self.command_id + 1", "FIRST_COMMAND_ID"),
    ),
    Mutant("never-done", "balloon", {"balloon-hints.done-is-shown"}, make=NeverDone),
    Mutant(
        "takes-pages-when-done",
        "balloon",
        {"balloon-hints.done-is-shown"},
        patch=replaced(takes_pages_when_done),
    ),
    # Reports
    faulty(
        "reports-with-a-length",
        {"balloon-reports.are-acknowledged"},
        Reporting,
        "handle",
        ("np.zeros(len(batch), np.int64)", "np.ones(len(batch), np.int64)"),
    ),
    faulty(
        "rounds-outwards",
        {"balloon-reports.other-pages-stay"},
        Reporting,
        "handle",
        (
            "(batch.addresses, batch.sizes)",
            "(batch.addresses & ~np.uint64(4095), (batch.sizes + (batch.addresses & np.uint64(4095)) + np.uint64(4095))"
            " & ~np.uint64(4095))",
        ),
    ),
    faulty(
        "takes-reports-again",
        {"balloon-reports.end-with-the-answer"},
        Reporting,
        "handle",
        (
            "self.reported_count += ranges.page_count",
            "self.reported_count += ranges.page_count\n"
            "    self._memory.give_back(getattr(self, 'before', ranges)) if not poisoned else None\n"
            "    self.before = ranges",
        ),
    ),
    faulty(
        "takes-poisoned-pages",
        {"balloon-reports.poison-stays"},
        Reporting,
        "handle",
        ("0 if poisoned else ", ""),
    ),
    # Hostile
    dying(
        "outside-not-expected",
        {"balloon-hostile.pages-outside-ram"},
        Inflation,
        "_pages_of",
        "if not inside.all():",
        "inside.all()",
        also={"hostile.elements-without-request", "hostile.table-within-a-table"},
    ),
    dying(
        "odd-size-not-expected",
        {"balloon-hostile.odd-requests"},
        Inflation,
        "_pages_of",
        "if size % _FRAME.itemsize:",
        "size % 4 == 0",
        also={"hostile.elements-without-request"},
    ),
    dying(
        "out-of-turn-not-expected",
        {"balloon-hostile.pages-out-of-turn"},
        Inflation,
        "_check",
        "if not good.all():",
        "good.all()",
        also={"hostile.head-twice"},
    ),
    dying(
        "huge-not-expected",
        {"balloon-hostile.huge-requests"},
        Inflation,
        "_pages_of",
        "if size // _FRAME.itemsize > self._memory.page_count:",
        "size // 4 <= self._memory.page_count",
    ),
    dying(
        "second-buffer-not-expected",
        {"balloon-hostile.odd-statistics"},
        Statistics,
        "handle",
        "if self.kept_head is not None:",
        "self.kept_head is None",
    ),
    dying(
        "parts-of-pages-not-expected",
        {"balloon-hostile.odd-hints"},
        Hinting,
        "_check_pages",
        "if len(bad):",
        "not len(bad)",
    ),
    dying(
        "readable-reports-not-expected",
        {"balloon-hostile.odd-reports"},
        Reporting,
        "handle",
        "if not batch.writable.all():",
        "batch.writable.all()",
    ),
]
