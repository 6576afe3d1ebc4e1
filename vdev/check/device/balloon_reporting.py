"""Checks of free page reporting, with and without a pattern in free pages."""

from typing import TYPE_CHECKING

from spec.balloon import PAGE_FRAME_SIZE, BalloonFeature, BalloonQueue
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Segment
from vdev.check.device.balloon_bench import BALLOON, Balloon
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_REPORTING = [BalloonFeature.PAGE_REPORTING]
_POISONED = [BalloonFeature.PAGE_REPORTING, BalloonFeature.PAGE_POISON]
_POISON = b"\xaa\xaa\xaa\xaa"
_OURS = b"this page is the driver's again. "
_MOST_SEGMENTS = 32
"""Segments of one report of Linux."""


@check(
    "balloon-reports.are-acknowledged",
    covers=["balloon.device.described.reports-acknowledged", "balloon.device.described.nothing-written"],
    formats=BOTH,
    types=BALLOON,
    features=_REPORTING,
)
def are_acknowledged(bench: "Bench") -> None:
    """Reports of one page, of many, and of blocks of several pages are given back with nothing written."""
    balloon = Balloon(bench, *_REPORTING)
    pages = balloon.pages(_MOST_SEGMENTS)
    for count in (1, 5, _MOST_SEGMENTS):
        used = balloon.send(BalloonQueue.REPORTING, writable=pages[:count])
        balloon.expect_nothing_written(used, f"a report of {count} pages")
    block = Segment(pages[0], len(pages) * PAGE_FRAME_SIZE, writable=True)
    used = balloon.send_segments(BalloonQueue.REPORTING, Request(), [block])
    balloon.expect_nothing_written(used, "a report of one large block")


@check(
    "balloon-reports.other-pages-stay",
    covers=["balloon.device.described.other-pages"],
    formats=BOTH,
    types=BALLOON,
    features=_REPORTING,
)
def other_pages_stay(bench: "Bench") -> None:
    """Pages beside the reported ones, and the parts of pages round a report, keep their content."""
    balloon = Balloon(bench, *_REPORTING)
    pages = balloon.pages(9, _OURS)
    balloon.send(BalloonQueue.REPORTING, writable=pages[1::2])
    middle = pages[4] + PAGE_FRAME_SIZE // 2
    balloon.send_segments(BalloonQueue.REPORTING, Request(), [Segment(middle, PAGE_FRAME_SIZE, writable=True)])
    balloon.has_done_with()
    # Of page 4 the first half, and of page 5, which was reported whole, nothing is the driver's.
    whole = [page for page in pages[::2] if page != pages[4]]
    balloon.expect_content(whole, _OURS, "balloon.device.described.other-pages", when="as it was not reported")
    half = bench.memory.read(pages[4], PAGE_FRAME_SIZE // 2)
    bench.expect(
        half == (_OURS * PAGE_FRAME_SIZE)[: len(half)],
        "balloon.device.described.other-pages",
        expected="the first half of a page, of which only the second was reported, as it was",
        observed="it changed",
    )


@check(
    "balloon-reports.end-with-the-answer",
    covers=["balloon.device.described.reports-end"],
    formats=BOTH,
    types=BALLOON,
    features=_REPORTING,
)
def end_with_the_answer(bench: "Bench") -> None:
    """A page keeps what the driver stores in it after its report was acknowledged, while others are reported."""
    balloon = Balloon(bench, *_REPORTING)
    pages = balloon.pages(12)
    balloon.send(BalloonQueue.REPORTING, writable=pages[:6])
    for page in pages[:6]:
        balloon.fill(page, _OURS)
    balloon.send(BalloonQueue.REPORTING, writable=pages[6:])
    balloon.has_done_with()
    balloon.expect_content(
        pages[:6], _OURS, "balloon.device.described.reports-end", when="after its report was acknowledged"
    )


@check(
    "balloon-reports.poison-stays",
    covers=["balloon.device.reporting.2"],
    formats=BOTH,
    types=BALLOON,
    features=_POISONED,
)
def poison_stays(bench: "Bench") -> None:
    """With PAGE_POISON, reported pages hold poison_val or nothing else: as they were, and also zero if it is 0."""
    for poison in (_POISON, bytes(4)):
        balloon = Balloon(bench, *_POISONED, drive=False)
        balloon.write_field("poison_val", int.from_bytes(poison, "little"))
        balloon.drive()
        pages = balloon.pages(6, poison)
        balloon.send(BalloonQueue.REPORTING, writable=pages[:1])
        balloon.send(BalloonQueue.REPORTING, writable=pages[1:])
        balloon.has_done_with()
        balloon.expect_content(
            pages,
            poison,
            "balloon.device.reporting.2",
            when=f"full of poison_val, {poison.hex()}, when it was reported",
        )
