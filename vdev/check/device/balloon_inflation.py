"""Checks of the balloon itself: pages that go in and come out, and what the device does to them and to others."""

from typing import TYPE_CHECKING

from spec.balloon import BalloonFeature, BalloonQueue
from vdev.check.bench.request import Request
from vdev.check.bench.traffic_balloon import frames
from vdev.check.device.balloon_bench import BALLOON, Balloon
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_COUNTS = (1, 3, 256, 7)
"""Pages of one request. Linux sends up to 256."""
_OURS = b"this page is the driver's own. "


@check(
    "balloon.pages-go-in-and-out",
    covers=[
        "balloon.device.described.queues",
        "balloon.device.described.inflate",
        "balloon.device.described.deflate",
        "balloon.device.described.nothing-written",
    ],
    formats=BOTH,
    types=BALLOON,
)
def pages_go_in_and_out(bench: "Bench") -> None:
    """Inflate and deflate requests of odd and even counts are given back with nothing written, twice over."""
    balloon = Balloon(bench)
    pages = balloon.pages(sum(_COUNTS))
    for _ in range(2):
        for queue in (BalloonQueue.INFLATE, BalloonQueue.DEFLATE):
            at = 0
            for count in _COUNTS:
                used = balloon.send(queue, frames(pages[at : at + count]))
                balloon.expect_nothing_written(used, f"{queue.name} of {count} pages")
                at += count


@check(
    "balloon.pages-come-out-in-any-order",
    covers=["balloon.device.described.deflate", "balloon.device.described.nothing-written"],
    formats=BOTH,
    types=BALLOON,
)
def pages_come_out_in_any_order(bench: "Bench") -> None:
    """Pages come out of the balloon in another order, and in other requests, than they went in."""
    balloon = Balloon(bench)
    pages = balloon.pages(40)
    balloon.inflate(pages)
    bench.random.shuffle(pages)
    for begin, end in ((0, 1), (1, 18), (18, 40)):
        used = balloon.deflate(pages[begin:end])
        balloon.expect_nothing_written(used, f"a deflate request of {end - begin} pages")


@check(
    "balloon.requests-may-be-cut",
    covers=["balloon.device.described.inflate", "balloon.device.described.nothing-written"],
    formats=BOTH,
    types=BALLOON,
)
def requests_may_be_cut(bench: "Bench") -> None:
    """A request is read the same when a page number is cut in two by a border of descriptors."""
    balloon = Balloon(bench)
    pages = balloon.pages(9)
    ring = bench.ring(balloon.numbers[BalloonQueue.INFLATE])
    for queue in (BalloonQueue.INFLATE, BalloonQueue.DEFLATE):
        ring = bench.ring(balloon.numbers[queue])
        ring.post(Request(frames(pages)), cuts=[2, 4, 13, 35])
        ring.publish()
        ring.kick()
        balloon.expect_nothing_written(ring.wait_used(), f"{queue.name} of 9 pages in five segments")


@check("balloon.other-pages-stay", covers=["balloon.device.described.other-pages"], formats=BOTH, types=BALLOON)
def other_pages_stay(bench: "Bench") -> None:
    """Pages beside those in the balloon keep their content."""
    balloon = Balloon(bench)
    pages = balloon.pages(12, _OURS)
    inside = pages[1::2]
    balloon.inflate(inside)
    balloon.has_done_with()
    balloon.expect_content(
        pages[::2], _OURS, "balloon.device.described.other-pages", when="it was never in the balloon"
    )


@check("balloon.deflated-pages-stay", covers=["balloon.device.described.after-deflate"], formats=BOTH, types=BALLOON)
def deflated_pages_stay(bench: "Bench") -> None:
    """A page keeps what the driver stores in it after it came out of the balloon, while others go in and out."""
    balloon = Balloon(bench)
    pages = balloon.pages(12)
    balloon.inflate(pages)
    balloon.deflate(pages[:4])
    for page in pages[:4]:
        balloon.fill(page, _OURS)
    balloon.deflate(pages[4:])
    balloon.inflate(pages[4:8])
    balloon.has_done_with()
    balloon.expect_content(pages[:4], _OURS, "balloon.device.described.after-deflate", when="after it was deflated")


@check(
    "balloon.told-host-gives-pages-back",
    covers=["balloon.device.described.after-deflate"],
    formats=BOTH,
    types=BALLOON,
    features=[BalloonFeature.MUST_TELL_HOST],
)
def told_host_gives_pages_back(bench: "Bench") -> None:
    """With MUST_TELL_HOST, a page is the driver's as soon as its deflate request was given back."""
    balloon = Balloon(bench, BalloonFeature.MUST_TELL_HOST)
    pages = balloon.pages(8)
    for _ in range(3):
        balloon.inflate(pages)
        balloon.deflate(pages)
        for page in pages:
            balloon.fill(page, _OURS)
        balloon.expect_content(pages, _OURS, "balloon.device.described.after-deflate", when="after it was deflated")
    balloon.has_done_with()
    balloon.expect_content(pages, _OURS, "balloon.device.described.after-deflate", when="after it was deflated")
