"""Checks of message framing: the same request in every layout that a driver may choose."""

from collections.abc import Iterable
from itertools import pairwise

from vdev.check.bench.bench import Bench
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Segment
from vdev.check.device.plain_requests import expect_answer, of_format, split_ring
from vdev.check.registry import BOTH, RingFormat, check

_FRAMING = ("split.device.framing.1", "packed.device.described.framing")
_MOST_CUTS = 24
"""Places at which a part is cut; of a longer one, so many spread over it."""
_LARGE = 8192
"""Bytes of a payload that a device may leave a part of unwritten: then its order shows."""


def _places(size: int) -> list[int]:
    """Return where a part of `size` bytes is cut: after each byte, or after the outer ones and some others."""
    if size <= _MOST_CUTS:
        return list(range(1, size))
    return sorted({1, 2, size - 2, size - 1, *(size * step // _MOST_CUTS for step in range(1, _MOST_CUTS))})


def _answer_each(bench: Bench, layouts: Iterable[tuple[Request, list[int]]]) -> None:
    """Have each request answered, cut as it says."""
    ring = bench.ring()
    for request, cuts in layouts:
        posted = ring.post(request, cuts=cuts)
        bench.done(f"a request in {len(posted.segments)} elements, cut at {cuts}")
        ring.publish()
        ring.kick()
        expect_answer(bench, ring, posted, ring.wait_used())
        ring.release(posted)


@check("framing.readable-part-cut-anywhere", covers=_FRAMING, formats=BOTH)
def readable_part_cut_anywhere(bench: Bench) -> None:
    """The device-readable part may be in two elements, whatever byte the second begins with."""
    bench.start()
    size = len(bench.traffic.plain(bench).readable)
    if size < 2:
        bench.not_applicable("no request of this type has a device-readable part that could be cut")
    _answer_each(bench, ((bench.traffic.plain(bench), [cut]) for cut in _places(size)))


@check("framing.writable-part-cut-anywhere", covers=_FRAMING, formats=BOTH)
def writable_part_cut_anywhere(bench: Bench) -> None:
    """The device-writable part may be in two elements, whatever byte the second begins with."""
    bench.start()
    request = bench.traffic.plain(bench)
    if request.writable_size < 2:
        bench.not_applicable("no request of this type has a device-writable part that could be cut")
    border = len(request.readable)
    _answer_each(bench, ((bench.traffic.plain(bench), [border + cut]) for cut in _places(request.writable_size)))


@check("framing.an-element-for-each-byte", covers=_FRAMING, formats=BOTH)
def an_element_for_each_byte(bench: Bench) -> None:
    """Each byte of either part may be an element of its own, as far as the queue has descriptors."""
    bench.start()
    request = bench.traffic.plain(bench)
    border, size = len(request.readable), len(request.readable) + request.writable_size
    most = bench.ring().size - 1
    from_the_front = [at for at in range(1, size) if at != border][: most - 1]
    from_the_back = [at for at in range(size - 1, 0, -1) if at != border][: most - 1]
    _answer_each(bench, ((bench.traffic.plain(bench), cuts) for cuts in (from_the_front, from_the_back[::-1])))


@check("framing.across-pages", covers=_FRAMING, formats=BOTH)
def across_pages(bench: Bench) -> None:
    """An element may begin anywhere in a page and go on in the next."""
    bench.start()
    ring = bench.ring()
    for offset in (4095, 4093, 1):
        posted = ring.post(bench.traffic.plain(bench), offset_in_page=offset)
        bench.done(f"a request whose elements begin at byte {offset} of a page")
        ring.publish()
        ring.kick()
        expect_answer(bench, ring, posted, ring.wait_used())


@check("framing.large", covers=_FRAMING, formats=BOTH)
def large(bench: Bench) -> None:
    """A payload of 64 KiB may be one element, or many with ends anywhere."""
    bench.start()
    for pieces in (1, 2, 15):
        request = bench.traffic.plain(bench, 1 << 16)
        border = len(request.readable)
        cuts = [border + request.writable_size * cut // pieces + 3 * cut for cut in range(1, pieces)]
        _answer_each(bench, [(request, [cut for cut in cuts if cut < border + request.writable_size])])


@check(
    "framing.elements-in-their-order",
    covers=["split.device.framing.1", "packed.device.scatter-gather.1"],
    formats=BOTH,
)
def elements_in_their_order(bench: Bench) -> None:
    """The elements of a buffer count in the order of the chain, wherever in memory they are."""
    bench.start()
    ring = bench.ring()
    statement = of_format(bench, split="split.device.framing.1", packed="packed.device.scatter-gather.1")
    for size in (None, _LARGE):
        request = bench.traffic.plain(bench, size)
        posted = ring.post(request, segments=_backwards(bench, request))
        ring.publish()
        ring.kick()
        expect_answer(bench, ring, posted, ring.wait_used(), statement)


def _backwards(bench: Bench, request: Request) -> list[Segment]:
    """Return the request in elements of which each lies before the one that it follows, four at most for each part."""
    parts = []
    for data, size, writable in (
        (request.readable, len(request.readable), False),
        (b"", request.writable_size, True),
    ):
        if not size:
            continue
        area = bench.memory.allocate(size, what=f"device-{'writable' if writable else 'readable'} part, backwards")
        if writable:
            bench.memory.fill(area)
        limits = [size * piece // min(4, size) for piece in range(min(4, size) + 1)]
        end = area.address + size
        for begin, limit in pairwise(limits):
            end -= limit - begin
            if not writable:
                bench.memory.write(end, data[begin:limit])
            parts.append(Segment(end, limit - begin, writable))
    return parts


@check("framing.descriptors-anywhere", covers=["split.device.described.chain"], formats=(RingFormat.SPLIT,))
def descriptors_anywhere(bench: Bench) -> None:
    """A chain may go through the table in any order, back and forth."""
    bench.start()
    ring = split_ring(bench)
    # Heads taken from the middle, the end and the beginning leave a chain no straight way.
    for head in (ring.size // 2, ring.size - 1, 0, ring.size // 2 - 1):
        request = bench.traffic.plain(bench)
        size = len(request.readable) + request.writable_size
        posted = ring.post(request, cuts=[size // 3, 2 * size // 3], head=head)
        ring.publish()
        ring.kick()
        expect_answer(bench, ring, posted, ring.wait_used(), "split.device.described.chain")
