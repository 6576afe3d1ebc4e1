"""Checks of what a device asks of kicks, and what it does with and without them."""

from spec.device import Feature
from spec.packed_ring import EventFlag
from vdev.check.bench.bench import Bench
from vdev.check.bench.ring import Ring
from vdev.check.device.plain_requests import (
    answer_all,
    barrier,
    most_at_once,
    of_format,
    one_request,
    packed_ring,
    split_ring,
)
from vdev.check.registry import BOTH, RingFormat, check

_ROUNDS = 24


@check("kicks.flags-0-or-1", covers=["split.device.available-notification-suppression.1"], formats=(RingFormat.SPLIT,))
def flags_0_or_1(bench: Bench) -> None:
    """Without EVENT_IDX the used ring's flags are 0 or 1 at all times."""
    bench.start()
    ring = split_ring(bench)
    for _ in range(_ROUNDS):
        flags = ring.used_flags()
        bench.expect(
            flags in (0, 1),
            "split.device.available-notification-suppression.1",
            expected="flags 0 or 1 in the used ring",
            observed=f"{flags:#06x}",
        )
        one_request(bench, ring)


@check(
    "kicks.flags-0-with-event-idx",
    covers=["split.device.available-notification-suppression.3"],
    formats=(RingFormat.SPLIT,),
    features=[Feature.EVENT_IDX],
)
def flags_0_with_event_idx(bench: Bench) -> None:
    """With EVENT_IDX the used ring's flags are 0 at all times."""
    bench.start(features=[Feature.EVENT_IDX])
    ring = split_ring(bench)
    for _ in range(_ROUNDS):
        flags = ring.used_flags()
        bench.expect(
            flags == 0,
            "split.device.available-notification-suppression.3",
            expected="flags 0 in the used ring",
            observed=f"{flags:#06x}",
        )
        one_request(bench, ring)


@check("kicks.device-event", covers=["packed.device.described.device-event"], formats=(RingFormat.PACKED,))
def device_event(bench: Bench) -> None:
    """The device's event suppression structure says what it may say, with EVENT_IDX and without."""
    for features in ((), (Feature.EVENT_IDX,)):
        if features and not bench.offered >> Feature.EVENT_IDX & 1:
            continue
        bench.start(features=features)
        ring = packed_ring(bench)
        allowed = [EventFlag.ENABLE, EventFlag.DISABLE, *([EventFlag.DESC] if features else [])]
        for _ in range(_ROUNDS):
            where, flags = ring.device_event()
            bench.expect(
                flags in allowed and (flags != EventFlag.DESC or where & 0x7FFF < ring.size),
                "packed.device.described.device-event",
                expected=f"event flags of {', '.join(map(str, map(int, allowed)))} and an offset below {ring.size}",
                observed=f"flags {flags:#06x}, offset {where & 0x7FFF}",
            )
            one_request(bench, ring)


def _only_wanted_kicks(bench: Bench, features: tuple[int, ...]) -> None:
    """Make buffers available, and kick only where the device wants it."""
    bench.start(features=features)
    ring = bench.ring()
    most = most_at_once(bench, ring)
    kick_count = 0
    for number in range(_ROUNDS):
        posted = [ring.post(bench.traffic.plain(bench)) for _ in range(number % min(most, 5) + 1)]
        ring.publish()
        if ring.kicks_wanted():
            ring.kick()
            kick_count += 1
        answer_all(bench, ring, posted)
    bench.done(f"{_ROUNDS} batches, {kick_count} of them kicked because the device wanted it")


@check(
    "kicks.only-where-wanted",
    covers=["split.device.described.wanted-kick", "packed.device.described.wanted-kick"],
    formats=BOTH,
)
def only_where_wanted(bench: Bench) -> None:
    """All buffers are used though a kick is sent only where the device asks for one."""
    _only_wanted_kicks(bench, ())


@check(
    "kicks.only-where-wanted-with-event-idx",
    covers=[
        "split.device.described.wanted-kick",
        "split.device.available-notification-suppression.4",
        "packed.device.described.wanted-kick",
    ],
    formats=BOTH,
    features=[Feature.EVENT_IDX],
)
def only_where_wanted_with_event_idx(bench: Bench) -> None:
    """All buffers are used though a kick is sent only at the place that the device named for it."""
    _only_wanted_kicks(bench, (Feature.EVENT_IDX,))


@check(
    "kicks.spurious",
    covers=["split.device.available-notification-suppression.5", "packed.device.described.spurious"],
    formats=BOTH,
)
def spurious(bench: Bench) -> None:
    """Kicks with nothing in the ring, before the first buffer, between and after, do no harm."""
    bench.start()
    ring = bench.ring()
    for _ in range(4):
        for _ in range(32):
            ring.kick()
        one_request(bench, ring)
        for _ in range(3):
            ring.kick()
    barrier(bench, ring)
    _expect_no_more(bench, ring)


def _expect_no_more(bench: Bench, ring: Ring) -> None:
    more = ring.used_now()
    bench.expect(
        not more,
        of_format(
            bench,
            split="split.device.available-notification-suppression.5",
            packed="packed.device.described.spurious",
        ),
        expected="nothing used by kicks with nothing new in the ring",
        observed=f"{len(more)} used",
        shown=[ring.show_used(one) for one in more],
    )
