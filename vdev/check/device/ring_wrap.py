"""Checks of wrap-arounds: of a ring's places, of 16-bit indices, and of wrap counters."""

from functools import partial

from vdev.check.bench.bench import Bench
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.device.plain_requests import (
    answer_all,
    cut_into,
    is_split,
    make_available,
    most_at_once,
    of_format,
    one_request,
    packed_ring,
    split_ring,
)
from vdev.check.registry import BOTH, RingFormat, check
from vdev.devices.kind import Carrier


def _small(bench: Bench) -> dict[int, int]:
    """Return queue sizes with which a lap is short: a power of two, or not, as the format allows."""
    return {**bench.traffic.queues(bench), bench.traffic.queue: 4 if is_split(bench) else 5}


@check(
    "wrap.places",
    covers=["split.device.described.used-index", "packed.device.described.available"],
    formats=BOTH,
)
def places(bench: Bench) -> None:
    """Some laps of a short ring, in steps of every length: each buffer comes back, and in its place."""
    bench.start(queues=_small(bench))
    ring = bench.ring()
    most = most_at_once(bench, ring)
    statement = of_format(bench, split="split.device.described.used-index", packed="packed.device.described.available")
    for step in range(4 * ring.size):
        answer_all(bench, ring, make_available(bench, ring, step % most + 1), statement)


@check("wrap.index-counts-each-buffer", covers=["split.device.described.used-index"], formats=(RingFormat.SPLIT,))
def index_counts_each_buffer(bench: Bench) -> None:
    """The used index is the number of buffers used so far, and runs on past the queue size."""
    bench.start(queues=_small(bench))
    ring = split_ring(bench)
    first = ring.used_index()
    for count in range(first + 1, first + 2 * ring.size + 2):
        one_request(bench, ring)
        bench.expect(
            ring.used_index() == count,
            "split.device.described.used-index",
            expected=f"a used index of {count}",
            observed=f"{ring.used_index()}",
        )


@check(
    "wrap.index-at-65536",
    covers=["split.device.described.used-index", "split.device.described.available"],
    formats=(RingFormat.SPLIT,),
    carriers=(Carrier.VHOST_USER,),
)
def index_at_65536(bench: Bench) -> None:
    """Both indices go from 65535 to 0, one by one and in a batch across."""
    for base, batch in ((0xFFFC, 1), (0xFFFD, 4), (0xFFFE, 2)):
        bench.start(bases={bench.traffic.queue: base})
        ring = split_ring(bench)
        index = ring.used_index()
        for _ in range(4):
            answer_all(bench, ring, make_available(bench, ring, batch))
            index = (index + batch) & 0xFFFF
            bench.expect(
                ring.used_index() == index,
                "split.device.described.used-index",
                expected=f"a used index of {index}",
                observed=f"{ring.used_index()}",
            )


@check(
    "wrap.counter-in-used-flags",
    covers=["packed.device.described.used-flags"],
    formats=(RingFormat.PACKED,),
)
def counter_in_used_flags(bench: Bench) -> None:
    """AVAIL and USED of a used descriptor are 1 in the first lap, 0 in the second, 1 in the third, and so on."""
    bench.start(queues=_small(bench))
    ring = packed_ring(bench)
    for number in range(3 * ring.size):
        slot, wrap = ring.slot, ring.wrap
        posted = ring.post(bench.traffic.plain(bench))
        ring.publish()
        before = ring.descriptor(slot)
        ring.kick()
        bench.control.wait(ring.number, partial(_flags_changed, ring, slot, before[3]), f"use descriptor {slot}")
        flags = ring.descriptor(slot)[3]
        bench.expect(
            flags & ring.used_flags(1) == ring.used_flags(wrap),
            "packed.device.described.used-flags",
            expected=f"AVAIL and USED both {wrap} in descriptor {slot}, buffer {number + 1} of a ring of {ring.size}",
            observed=f"flags {flags:#06x}, available with {before[3]:#06x}",
            shown=[bench.memory.show(ring.areas.descriptor + 16 * slot, 16, f"descriptor {slot}")],
        )
        answer_all(bench, ring, [posted])


def _flags_changed(ring: PackedRing, slot: int, flags: int) -> bool:
    return bool(ring.descriptor(slot)[3] != flags)


@check(
    "wrap.counter-from-a-base",
    covers=["packed.device.described.used-flags", "packed.device.described.available"],
    formats=(RingFormat.PACKED,),
    carriers=(Carrier.VHOST_USER,),
)
def counter_from_a_base(bench: Bench) -> None:
    """A ring that starts near its end, in its first lap or its second, goes on over the end with the other counter."""
    for wrap in (1, 0):
        size = _small(bench)[bench.traffic.queue]
        bench.start(queues=_small(bench), bases={bench.traffic.queue: size - 1 | wrap << 15})
        ring = bench.ring()
        for _ in range(2 * ring.size):
            one_request(bench, ring)


@check(
    "wrap.list-over-the-end",
    covers=["packed.device.described.one-for-a-list", "split.device.described.chain"],
    formats=BOTH,
)
def list_over_the_end(bench: Bench) -> None:
    """Lists of two, three and four elements that begin at the end of a ring go on at its beginning."""
    bench.start(queues=_small(bench))
    ring = bench.ring()
    for number in range(6 * ring.size):
        request = bench.traffic.plain(bench)
        cuts = cut_into(request, 2 + number % 3)
        posted = ring.post(request, cuts=cuts)
        ring.publish()
        ring.kick()
        used = answer_all(bench, ring, [posted])[0]
        bench.expect(
            is_split(bench) or used.position & 0x7FFF == posted.slots[0],
            of_format(bench, split="split.device.described.chain", packed="packed.device.described.one-for-a-list"),
            expected=f"one used descriptor at {posted.slots[0]}, where the list began",
            observed=f"it at {used.position & 0x7FFF}",
            shown=[ring.show_used(used)],
        )
