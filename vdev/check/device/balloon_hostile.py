"""Checks of a balloon with requests that no driver may send: it may refuse them in any way, and must live on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spec.balloon import PAGE_FRAME_SIZE, STATISTIC, BalloonFeature, BalloonQueue
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Segment
from vdev.check.bench.traffic_balloon import frames
from vdev.check.device.balloon_bench import BALLOON, Balloon
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_LARGE = 16 << 20
_COVERS = ["hostile.device.alive", "hostile.device.memory"]


def _anew(bench: "Bench", *features: BalloonFeature) -> Balloon:
    """Return the balloon of another driver: what the one before did may have ended its connection."""
    if bench.rings:
        bench.reconnect()
    return Balloon(bench, *features)


def _give(balloon: Balloon, queue: BalloonQueue, request: Request, segments: Sequence[Segment] = ()) -> None:
    """Give the device one buffer, and wait until it has done with it in whatever way."""
    ring = balloon.bench.ring(balloon.numbers[queue])
    if segments:
        ring.post(segments=segments)
    else:
        ring.post(request)
    ring.publish()
    ring.kick()
    balloon.bench.survives()


@check("balloon-hostile.pages-outside-ram", covers=_COVERS, formats=BOTH, types=BALLOON, hostile=True)
def pages_outside_ram(bench: "Bench") -> None:
    """Page numbers that are no page of RAM do no harm, neither to the device nor to the guest's pages."""
    outside = bench.memory.outside() // PAGE_FRAME_SIZE
    for queue in (BalloonQueue.INFLATE, BalloonQueue.DEFLATE):
        for number in (outside, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF):
            _give(_anew(bench), queue, Request(number.to_bytes(4, "little")))


@check("balloon-hostile.odd-requests", covers=_COVERS, formats=BOTH, types=BALLOON, hostile=True)
def odd_requests(bench: "Bench") -> None:
    """Requests that are no array of page numbers, or lie where the device is to write, do no harm."""
    for request in (Request(b"\1\0\0"), Request(bytes(4097)), Request(writable_size=8), Request(bytes(4), 4)):
        _give(_anew(bench), BalloonQueue.INFLATE, request)


@check("balloon-hostile.pages-out-of-turn", covers=_COVERS, formats=BOTH, types=BALLOON, hostile=True)
def pages_out_of_turn(bench: "Bench") -> None:
    """A page that goes in twice, stands twice in a request, or comes out and never went in, does no harm."""
    for doubled in (False, True):
        balloon = _anew(bench)
        pages = balloon.pages(2)
        if not doubled:
            balloon.inflate(pages)
        _give(balloon, BalloonQueue.INFLATE, Request(frames(pages[:1] * (1 + doubled))))
    balloon = _anew(bench)
    _give(balloon, BalloonQueue.DEFLATE, Request(frames(balloon.pages(2))))


@check("balloon-hostile.huge-requests", covers=_COVERS, formats=BOTH, types=BALLOON, hostile=True)
def huge_requests(bench: "Bench") -> None:
    """Requests of 16 MiB of page numbers, far more than there are pages, or of statistics, do no harm."""
    wanted = [BalloonQueue.INFLATE]
    features = []
    if bench.offers(BalloonFeature.STATS_VQ):
        features.append(BalloonFeature.STATS_VQ)
        wanted.append(BalloonQueue.STATISTICS)
    buffer = bench.memory.allocate(_LARGE, what="a huge request")
    for queue in wanted:
        balloon = _anew(bench, *features)
        _give(balloon, queue, Request(), [Segment(buffer.address, buffer.size, writable=False)])


@check(
    "balloon-hostile.odd-statistics",
    covers=_COVERS,
    formats=BOTH,
    types=BALLOON,
    features=[BalloonFeature.STATS_VQ],
    hostile=True,
)
def odd_statistics(bench: "Bench") -> None:
    """Statistics that are no array of entries, or not for the device to read, and a second buffer do no harm."""
    entry = STATISTIC.build({"tag": 4, "val": 1 << 20})
    for requests in ([Request(entry[:7])], [Request(entry + b"\0")], [Request(writable_size=10)], [Request(entry)] * 2):
        balloon = _anew(bench, BalloonFeature.STATS_VQ)
        for request in requests:
            _give(balloon, BalloonQueue.STATISTICS, request)


@check(
    "balloon-hostile.odd-hints",
    covers=_COVERS,
    formats=BOTH,
    types=BALLOON,
    features=[BalloonFeature.FREE_PAGE_HINT],
    hostile=True,
)
def odd_hints(bench: "Bench") -> None:
    """Ids of 3 and of 8 bytes, hints of parts of pages, and hints outside RAM, do no harm."""
    for readable in (b"\1\0\0", bytes(8)):
        _give(_anew(bench, BalloonFeature.FREE_PAGE_HINT), BalloonQueue.FREE_PAGE, Request(readable))
    for offset, size in ((0, 100), (100, PAGE_FRAME_SIZE)):
        balloon = _anew(bench, BalloonFeature.FREE_PAGE_HINT)
        page = balloon.pages(2)[0]
        _give(balloon, BalloonQueue.FREE_PAGE, Request(), [Segment(page + offset, size, writable=True)])
    balloon = _anew(bench, BalloonFeature.FREE_PAGE_HINT)
    outside = Segment(bench.memory.outside() & ~(PAGE_FRAME_SIZE - 1), PAGE_FRAME_SIZE, writable=True)
    _give(balloon, BalloonQueue.FREE_PAGE, Request(), [outside])


@check(
    "balloon-hostile.odd-reports",
    covers=_COVERS,
    formats=BOTH,
    types=BALLOON,
    features=[BalloonFeature.PAGE_REPORTING],
    hostile=True,
)
def odd_reports(bench: "Bench") -> None:
    """Reports of what the device may not write, of parts of pages, and of pages outside RAM, do no harm."""
    balloon = _anew(bench, BalloonFeature.PAGE_REPORTING)
    _give(balloon, BalloonQueue.REPORTING, Request(bytes(64)))
    balloon = _anew(bench, BalloonFeature.PAGE_REPORTING)
    page = balloon.pages(2)[0]
    _give(balloon, BalloonQueue.REPORTING, Request(), [Segment(page + 8, 16, writable=True)])
    balloon = _anew(bench, BalloonFeature.PAGE_REPORTING)
    outside = Segment(bench.memory.outside() & ~(PAGE_FRAME_SIZE - 1), 2 * PAGE_FRAME_SIZE, writable=True)
    _give(balloon, BalloonQueue.REPORTING, Request(), [outside])
