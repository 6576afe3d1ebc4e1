"""Checks of what comes back: whose name it has, how long it says it is, and that it comes once."""

from spec.packed_ring import PackedFlag
from vdev.check.bench.bench import Bench
from vdev.check.device.plain_requests import (
    answer_all,
    barrier,
    cut_into,
    make_available,
    most_at_once,
    of_format,
    one_request,
    packed_ring,
    written_length,
    written_so_far,
)
from vdev.check.registry import BOTH, RingFormat, check

_ROUNDS = 8
"""Rounds in which a byte must change once: a right one stays as it was in all of them once in 2^64."""


@check(
    "used.names-the-buffer",
    covers=["split.device.described.used-id", "packed.device.described.used-id"],
    formats=BOTH,
)
def names_the_buffer(bench: Bench) -> None:
    """A buffer comes back under the name that it was given: its head, or its id."""
    bench.start()
    ring = bench.ring()
    for name in (ring.size - 1, 0, ring.size // 2):
        posted = ring.post(bench.traffic.plain(bench), head=name)
        ring.publish()
        ring.kick()
        used = ring.wait_used()
        bench.expect(
            used.id == name,
            of_format(bench, split="split.device.described.used-id", packed="packed.device.described.used-id"),
            expected=f"the buffer {posted.head} comes back",
            observed=f"id {used.id}",
            shown=[ring.show_used(used)],
        )


@check(
    "used.once-each",
    covers=[
        "split.device.described.used-index",
        "split.device.described.available",
        "packed.device.described.available",
    ],
    formats=BOTH,
)
def once_each(bench: Bench) -> None:
    """A batch that fills the ring, made available with one kick, is used completely, each buffer once."""
    bench.start()
    ring = bench.ring()
    for _ in range(2):
        count = most_at_once(bench, ring)
        answer_all(bench, ring, make_available(bench, ring, count))
    barrier(bench, ring)
    more = ring.used_now()
    bench.expect(
        not more,
        of_format(bench, split="split.device.described.used-index", packed="packed.device.described.available"),
        expected="nothing used beyond what was made available",
        observed=f"{len(more)} more",
        shown=[ring.show_used(one) for one in more],
    )


@check(
    "used.length-fits",
    covers=["split.device.described.used-length", "packed.device.described.used-length"],
    formats=BOTH,
)
def length_fits(bench: Bench) -> None:
    """The length that comes back is no more than there is room for, and the right one where there is only one."""
    bench.start()
    ring = bench.ring()
    for _ in range(3):
        request = bench.traffic.plain(bench)
        posted = ring.post(request)
        ring.publish()
        ring.kick()
        used = ring.wait_used()
        lengths = range(request.writable_size + 1) if request.written is None else (request.written,)
        bench.expect(
            written_length(ring, used) in lengths,
            of_format(bench, split="split.device.described.used-length", packed="packed.device.described.used-length"),
            expected=f"a length of {f'{lengths[0]} to {lengths[-1]}' if len(lengths) > 1 else lengths[0]}",
            observed=f"{used.length}",
            shown=[ring.show_used(used), *written_so_far(bench, posted)],
        )


@check(
    "used.length-was-written",
    covers=["split.device.used-ring.2", "packed.device.described.used-length"],
    formats=BOTH,
)
def length_was_written(bench: Bench) -> None:
    """Every byte that the length counts was written by the device."""
    bench.start()
    ring = bench.ring()
    unchanged: set[int] | None = None
    for number in range(_ROUNDS):
        posted = ring.post(bench.traffic.plain(bench))
        before = b""
        for segment in posted.segments:
            if segment.writable:
                filler = bytes((0x5A + 0x3B * number + at) & 0xFF for at in range(segment.size))
                bench.memory.write(segment.address, filler)
                before += filler
        ring.publish()
        ring.kick()
        used = ring.wait_used()
        length = min(written_length(ring, used), len(before))
        after = ring.written(posted)
        same = {at for at in range(length) if after[at] == before[at]}
        unchanged = same if unchanged is None else unchanged & same
        if not unchanged:
            return
    bench.expect(
        False,
        of_format(bench, split="split.device.used-ring.2", packed="packed.device.described.used-length"),
        expected=f"all {length} bytes that the length counts written",
        observed=f"{len(unchanged or ())} of them never changed in {_ROUNDS} rounds",
        shown=[ring.show_used(used), *written_so_far(bench, posted)],
    )


@check("used.write-flag", covers=["packed.device.described.write-flag"], formats=(RingFormat.PACKED,))
def write_flag(bench: Bench) -> None:
    """A used descriptor has WRITE if the device wrote into the buffer."""
    bench.start()
    ring = packed_ring(bench)
    request = bench.traffic.plain(bench)
    used = one_request(bench, ring, request)
    has_it = bool(ring.descriptor(used.position & 0x7FFF)[3] & PackedFlag.WRITE)
    expected = bool(request.writable_size if request.written is None else request.written)
    bench.expect(
        has_it == expected,
        "packed.device.described.write-flag",
        expected=f"WRITE {'set' if expected else 'not set'}, as {'something' if expected else 'nothing'} was written",
        observed=f"WRITE {'set' if has_it else 'not set'}",
        shown=[ring.show_used(used)],
    )


@check(
    "used.one-after-the-other",
    covers=["packed.device.virtqueues.2", "packed.device.described.one-for-a-list"],
    formats=(RingFormat.PACKED,),
)
def one_after_the_other(bench: Bench) -> None:
    """Used descriptors stand one behind the other, each as many places on as the buffer before it had descriptors."""
    bench.start()
    ring = packed_ring(bench)
    places = []
    for pieces in (1, 3, 2, 1):
        posted = ring.post(request := bench.traffic.plain(bench), cuts=cut_into(request, pieces))
        before = bench.control.call_count(ring.number)
        ring.publish()
        ring.kick()
        bench.control.wait_call(ring.number, before)
        places.append((posted.slots[0], posted.head))
    barrier(bench, ring)
    both = ring.used_flags(1)
    for slot, head in places:
        _, _, buffer_id, flags = ring.descriptor(slot)
        bench.expect(
            flags & both == both and buffer_id == head,
            "packed.device.virtqueues.2",
            expected=f"buffer {head} used in descriptor {slot}",
            observed=f"id {buffer_id} and flags {flags:#06x} there",
            shown=[ring.show_descriptor(slot)],
        )
