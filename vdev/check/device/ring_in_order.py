"""Checks of IN_ORDER: buffers come back in the order in which they were made available.

An element that names a later buffer speaks for all before it, and the places of those stay empty. So a device that
goes out of order is seen by what it writes into places that were passed over.
"""

from collections.abc import Sequence

from spec.device import Feature
from spec.packed_ring import PackedFlag
from vdev.check.bench.arena import FILL
from vdev.check.bench.bench import Bench
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.bench.ring import Posted, Ring, Used
from vdev.check.bench.split_ring import SplitRing
from vdev.check.device.plain_requests import barrier, most_at_once, of_format
from vdev.check.evidence import Shown
from vdev.check.registry import BOTH, check

_IN_ORDER = (Feature.IN_ORDER,)
_EMPTY = 0xEE
_BOTH_BITS = int(PackedFlag.AVAIL | PackedFlag.USED)
_LARGE = 8192
"""Bytes that a device may not fill at once, so that a buffer which it passed over shows."""


def _use_all(bench: Bench, count: int, size: int | None) -> tuple[Ring, list[Posted], list[Used]]:
    """Have some requests used, up to the barrier; the used ring of a split ring is full of marks before."""
    bench.start(features=_IN_ORDER)
    ring = bench.ring()
    if isinstance(ring, SplitRing):
        bench.memory.write(ring.areas.device + 4, bytes([_EMPTY]) * 8 * ring.size)
    posted = [ring.post(bench.traffic.plain(bench, size)) for _ in range(min(count, most_at_once(bench, ring)))]
    ring.publish()
    ring.kick()
    used = ring.wait_all(len(posted))
    barrier(bench, ring)
    return ring, posted, used


@check("in-order.oldest-first", covers=["reserved.device.5"], formats=BOTH, features=_IN_ORDER)
def oldest_first(bench: Bench) -> None:
    """Nothing is used behind a younger buffer: places that an element passed over stay as they were."""
    for count in (2, 7, 64):
        ring, posted, used = _use_all(bench, count, None)
        at, first = 0, used[0].position
        for one in used:
            passed_over = posted[at + 1 : at + one.buffers]
            for place, buffer in enumerate(passed_over, first + at + 1):
                shown = _written_place(ring, place % ring.size, buffer)
                bench.expect(
                    shown is None,
                    "reserved.device.5",
                    expected=f"nothing for buffer {buffer.head} behind the element that names {one.id}",
                    observed="an element in its place",
                    shown=[ring.show_used(one), *([] if shown is None else [shown])],
                )
            at += one.buffers


def _written_place(ring: Ring, place: int, buffer: Posted) -> Shown | None:
    """Return the element in the place of a buffer that was passed over, if the device wrote one."""
    if isinstance(ring, SplitRing):
        shown = ring.show_used(Used(0, 0, place))
        return None if shown.data == bytes([_EMPTY]) * 8 else shown
    assert isinstance(ring, PackedRing)
    slot = buffer.slots[0]
    return None if ring.descriptor(slot)[3] & _BOTH_BITS != ring.used_flags(1) else ring.show_descriptor(slot)


@check(
    "in-order.one-for-several",
    covers=["split.device.described.in-order-batch", "packed.device.described.in-order-batch"],
    formats=BOTH,
    features=_IN_ORDER,
)
def one_for_several(bench: Bench) -> None:
    """A buffer that an element passed over was used completely."""
    for size in (None, _LARGE):
        ring, posted, used = _use_all(bench, 7, size)
        at = 0
        for one in used:
            _expect_complete(bench, ring, one, posted[at : at + one.buffers - 1])
            at += one.buffers


def _expect_complete(bench: Bench, ring: Ring, used: Used, passed_over: Sequence[Posted]) -> None:
    for buffer in passed_over:
        written = ring.written(buffer)
        complaint = buffer.request.check(written, len(written)) if buffer.request is not None else None
        if written and written[-16:] == bytes([FILL]) * len(written[-16:]):
            complaint = complaint or "its last bytes were not written"
        bench.expect(
            complaint is None,
            of_format(
                bench, split="split.device.described.in-order-batch", packed="packed.device.described.in-order-batch"
            ),
            expected=f"buffer {buffer.head} used completely, as the element that names {used.id} passes over it",
            observed=complaint or "it was",
            shown=[ring.show_used(used)],
        )
