"""Plain requests through a ring, and what must hold of each answer: what all checks of rings share.

A plain request is whatever the device's type has that is harmless and may be repeated (`Traffic.plain`).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from spec.packed_ring import PackedFlag
from vdev.check.bench.bench import Bench
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Posted, Ring, Used
from vdev.check.bench.split_ring import SplitRing
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat
from vdev.devices.kind import Carrier

__all__ = [
    "answer_all",
    "barrier",
    "count_calls",
    "cut_into",
    "expect_answer",
    "fewest_pieces",
    "is_split",
    "make_available",
    "most_at_once",
    "of_format",
    "one_request",
    "packed_ring",
    "split_ring",
    "written_length",
    "written_so_far",
]

_RingType = TypeVar("_RingType", bound=Ring)


def split_ring(bench: Bench) -> SplitRing:
    """Return the ring of plain requests, in a check that is made for split rings only."""
    ring = bench.ring()
    assert isinstance(ring, SplitRing)
    return ring


def packed_ring(bench: Bench) -> PackedRing:
    """Return the ring of plain requests, in a check that is made for packed rings only."""
    ring = bench.ring()
    assert isinstance(ring, PackedRing)
    return ring


def is_split(bench: Bench) -> bool:
    """Say whether this case's rings are split ones."""
    return bench.format is RingFormat.SPLIT


def of_format(bench: Bench, *, split: str, packed: str) -> str:
    """Return the statement that says it for this case's ring format."""
    return split if is_split(bench) else packed


def barrier(bench: Bench, ring: Ring) -> None:
    """Return when the device does nothing more with the ring; over vhost-user the ring is stopped for that."""
    if bench.carrier is Carrier.VHOST_USER:
        ring.stop()


def cut_into(request: Request, pieces: int) -> list[int]:
    """Return where to cut a request so that it has so many elements, as far as it has bytes.

    Between its two parts it is cut anyway.
    """
    size, border = len(request.readable) + request.writable_size, len(request.readable)
    edge = {border} & set(range(1, size))
    inner = [at for at in range(1, size) if at not in edge][: max(pieces - 1 - len(edge), 0)]
    return sorted({*inner, *edge})


def fewest_pieces(request: Request) -> int:
    """Return how many elements a request has that is not cut at all."""
    return bool(request.readable) + bool(request.writable_size)


def most_at_once(bench: Bench, ring: Ring) -> int:
    """Return how many plain requests fit into the ring, none of them cut."""
    return ring.size // fewest_pieces(bench.traffic.plain(bench))


def make_available(bench: Bench, ring: Ring, count: int, *, indirect: bool = False) -> list[Posted]:
    """Make `count` plain requests available at once, and kick."""
    posted = [ring.post(bench.traffic.plain(bench), indirect=indirect) for _ in range(count)]
    ring.publish()
    ring.kick()
    return posted


def answer_all(bench: Bench, ring: Ring, posted: Sequence[Posted], statement: str | None = None) -> list[Used]:
    """Wait until so many were used, see that each was, once, and that each answer is right; returns them as used.

    If one is missing, `statement` is broken, or else that a buffer comes back under its name.
    """
    used = ring.wait_all(len(posted))
    by_name = {one.head: one for one in posted}
    bench.expect(
        sorted(one.id for one in used) == sorted(by_name),
        statement or of_format(bench, split="split.device.described.used-id", packed="packed.device.described.used-id"),
        expected=f"each of {sorted(by_name)} used once",
        observed=f"{[one.id for one in used]} used",
        shown=[ring.show_used(one) for one in used],
    )
    for one in used:
        expect_answer(bench, ring, by_name[one.id], one)
    return used


def one_request(bench: Bench, ring: Ring, request: Request | None = None) -> Used:
    """Have one plain request, or this one, answered, and see that the answer is right."""
    posted = ring.post(bench.traffic.plain(bench) if request is None else request)
    ring.publish()
    ring.kick()
    return answer_all(bench, ring, [posted])[0]


def expect_answer(bench: Bench, ring: Ring, posted: Posted, used: Used, statement: str | None = None) -> None:
    """See that a request came back, and its answer is what it must be; `statement` is broken if it is not."""
    bench.expect(
        used.id == posted.head,
        of_format(bench, split="split.device.described.used-id", packed="packed.device.described.used-id"),
        expected=f"the buffer {posted.head} comes back",
        observed=f"id {used.id}",
        shown=[ring.show_used(used)],
    )
    if posted.request is None:
        return
    complaint = posted.request.check(ring.written(posted), written_length(ring, used))
    bench.expect(
        complaint is None,
        statement or of_format(bench, split="split.device.framing.1", packed="packed.device.described.framing"),
        expected="the answer that the request asks for",
        observed=complaint or "it",
        shown=[ring.show_used(used), *written_so_far(bench, posted)],
    )


def written_length(ring: Ring, used: Used) -> int:
    """Return how many bytes are said to be written: in a packed ring none, unless WRITE says that there are any."""
    if isinstance(ring, PackedRing) and not ring.descriptor(used.position & 0x7FFF)[3] & PackedFlag.WRITE:
        return 0
    return used.length


def written_so_far(bench: Bench, posted: Posted) -> list[Shown]:
    """Return the device-writable elements as they stand now."""
    return [
        bench.memory.show(segment.address, segment.size, f"writable element {number}")
        for number, segment in enumerate(segment for segment in posted.segments if segment.writable)
    ]


def count_calls(
    bench: Bench,
    ring_of: Callable[[Bench], _RingType],
    arm: Callable[[_RingType], None],
    batches: Sequence[int],
    *,
    features: Sequence[int] = (),
) -> int:
    """Return how many calls a fresh ring has for some batches of requests, after `arm` said what is wanted.

    One request goes before: a device may tell of the first that it ever uses.
    """
    bench.start(features=features)
    ring = ring_of(bench)
    one_request(bench, ring)
    bench.control.wait_call(ring.number, 0)
    arm(ring)
    before = bench.control.call_count(ring.number)
    for count in batches:
        answer_all(bench, ring, make_available(bench, ring, count))
    barrier(bench, ring)
    return bench.control.call_count(ring.number) - before
