"""Checks of order: what must be there when a buffer is seen to be used, and what must not happen afterwards.

A device that works beside the check is looked at while it works: each used buffer is copied as soon as it is seen, and
again behind a barrier. What differs was not finished, or was touched again.
"""

from collections.abc import Callable

from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Posted, Ring, Segment, Used
from vdev.check.device.plain_requests import barrier, most_at_once, of_format
from vdev.check.registry import BOTH, RingFormat, check
from vdev.devices.kind import Carrier

_ROUNDS = 16
_LOOKS = 100_000


def _soon_used(ring: Ring) -> Used:
    """Return the next used buffer as it was at the first look that found it."""
    for _ in range(_LOOKS):
        if used := ring.used_now():
            return used[0]
    return ring.wait_used()


def _watch(bench: Bench, look: Callable[[Ring, Posted, Used], None]) -> Ring:
    """Have some requests answered one after the other, and `look` as soon as each is seen; then put up the barrier."""
    bench.start()
    ring = bench.ring()
    ring.suppress_calls()
    for _ in range(min(_ROUNDS, most_at_once(bench, ring))):
        posted = ring.post(bench.traffic.plain(bench))
        ring.publish()
        ring.kick()
        look(ring, posted, _soon_used(ring))
    barrier(bench, ring)
    return ring


@check(
    "visible.element-first",
    covers=["split.device.used-ring.1", "packed.device.described.used-order"],
    formats=BOTH,
    carriers=(Carrier.VHOST_USER,),
)
def element_first(bench: Bench) -> None:
    """The used element is complete when the used index, or the descriptor's flags, show it."""
    seen: list[tuple[Used, bytes]] = []
    ring = _watch(bench, lambda ring, _, used: seen.append((used, ring.show_used(used).data)))
    for used, early in seen:
        late = ring.show_used(used)
        bench.expect(
            early == late.data,
            of_format(bench, split="split.device.used-ring.1", packed="packed.device.described.used-order"),
            expected=f"the used element at {used.position} as it stayed, {late.data.hex()}",
            observed=f"{early.hex()} when it was first seen",
            shown=[late],
        )


@check(
    "visible.data-first",
    covers=["split.device.used-ring.2", "packed.device.described.used-order"],
    formats=BOTH,
    carriers=(Carrier.VHOST_USER,),
)
def data_first(bench: Bench) -> None:
    """The bytes that the length counts are written when the buffer is seen to be used."""
    seen: list[tuple[Posted, int, bytes]] = []
    ring = _watch(bench, lambda ring, posted, used: seen.append((posted, used.length, ring.written(posted))))
    for posted, length, early in seen:
        late = ring.written(posted)
        bench.expect(
            early[:length] == late[:length],
            of_format(bench, split="split.device.used-ring.2", packed="packed.device.described.used-order"),
            expected=f"all {length} bytes written when the buffer was seen to be used",
            observed=f"{early[:length].hex()} then, {late[:length].hex()} later",
        )


@check(
    "visible.hands-off-after",
    covers=["split.device.described.done-with-it", "packed.device.described.done-with-it"],
    formats=BOTH,
)
def hands_off_after(bench: Bench) -> None:
    """A buffer that was seen to be used is the driver's: the device writes nothing more into it."""
    taken_back: list[tuple[Segment, bytes]] = []

    def take_back(_: Ring, posted: Posted, __: Used) -> None:
        for segment in posted.segments:
            if segment.writable:
                mine = bytes(0x11 + at & 0xFF for at in range(segment.size))
                bench.memory.write(segment.address, mine)
                taken_back.append((segment, mine))

    _watch(bench, take_back)
    if not taken_back:
        bench.not_applicable("no request of this type has a device-writable part")
    for segment, mine in taken_back:
        found = bench.memory.show(segment.address, segment.size, "device-writable element, after it was used")
        bench.expect(
            found.data == mine,
            of_format(
                bench, split="split.device.described.done-with-it", packed="packed.device.described.done-with-it"
            ),
            expected=f"what the driver wrote there after it was used, {mine.hex()}",
            observed=found.data.hex(),
            shown=[found],
        )


@check(
    "visible.used-descriptor-stays",
    covers=["packed.device.descriptor-table.4"],
    formats=(RingFormat.PACKED,),
)
def used_descriptor_stays(bench: Bench) -> None:
    """A descriptor that was marked used is not changed again, whatever is used after it."""
    seen: list[tuple[Used, bytes]] = []
    ring = _watch(bench, lambda ring, _, used: seen.append((used, ring.show_used(used).data)))
    for used, early in seen:
        late = ring.show_used(used)
        bench.expect(
            early == late.data,
            "packed.device.descriptor-table.4",
            expected=f"the used descriptor at {used.position} as it was when first seen, {early.hex()}",
            observed=late.data.hex(),
            shown=[late],
        )
