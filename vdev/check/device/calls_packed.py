"""Checks of when a device tells of used buffers, in packed rings: by the driver's event suppression structure.

Each step is a ring of its own: a barrier ends it, and then it is known whether the device has told.
"""

from spec.device import Feature
from spec.packed_ring import EventFlag, linear, position
from vdev.check.bench.bench import Bench
from vdev.check.bench.packed_ring import PackedRing
from vdev.check.device.plain_requests import count_calls, fewest_pieces, one_request, packed_ring
from vdev.check.registry import RingFormat, check

_PACKED = (RingFormat.PACKED,)
_EVENT_IDX = (Feature.EVENT_IDX,)


@check("calls.enabled", covers=["packed.device.described.calls-enabled"], formats=_PACKED)
def enabled(bench: Bench) -> None:
    """With the event flags ENABLE, used buffers are told, after they were DISABLE as well."""

    def arm(ring: PackedRing) -> None:
        ring.store_driver_event(0, EventFlag.DISABLE)
        one_request(bench, ring)
        ring.store_driver_event(0, EventFlag.ENABLE)

    for batches in ((1,), (4,)):
        count = count_calls(bench, packed_ring, arm, batches)
        bench.expect(
            count > 0,
            "packed.device.described.calls-enabled",
            expected=f"a call for {sum(batches)} used with the event flags ENABLE",
            observed="none",
        )


@check("calls.disabled", covers=["packed.device.described.calls-disabled"], formats=_PACKED)
def disabled(bench: Bench) -> None:
    """With the event flags DISABLE, used buffers are not told."""
    count = count_calls(bench, packed_ring, lambda ring: ring.store_driver_event(0, EventFlag.DISABLE), (1, 1, 4))
    bench.expect(
        count == 0,
        "packed.device.described.calls-disabled",
        expected="no call for 6 used with the event flags DISABLE",
        observed=f"{count}",
    )


def _at(bench: Bench, ring: PackedRing, requests_ahead: int, *, laps: int = 0) -> None:
    """Ask to be told of the used descriptor of a request further on, or of that place another lap."""
    ahead = requests_ahead * fewest_pieces(bench.traffic.plain(bench))
    place = linear(ring.used_position, ring.size) + ahead + laps * ring.size
    ring.store_driver_event(position(place, ring.size), EventFlag.DESC)


@check(
    "calls.at-a-descriptor",
    covers=["packed.device.described.calls-at-descriptor"],
    formats=_PACKED,
    features=_EVENT_IDX,
)
def at_a_descriptor(bench: Bench) -> None:
    """A call comes when the descriptor that the driver named is used: the next one, a later one, one within a batch."""
    for ahead, batches in ((0, (1,)), (2, (1, 1, 1)), (1, (4,)), (3, (4,))):

        def arm(ring: PackedRing, ahead: int = ahead) -> None:
            _at(bench, ring, ahead)

        count = count_calls(bench, packed_ring, arm, batches, features=_EVENT_IDX)
        bench.expect(
            count > 0,
            "packed.device.described.calls-at-descriptor",
            expected=f"a call, with the event {ahead} requests ahead and {sum(batches)} used by {batches[0]}",
            observed="none",
        )


@check(
    "calls.only-at-a-descriptor",
    covers=["packed.device.described.calls-only-at-descriptor"],
    formats=_PACKED,
    features=_EVENT_IDX,
)
def only_at_a_descriptor(bench: Bench) -> None:
    """No call comes for other descriptors than the one that was named, nor for its place with another counter."""
    for ahead, laps, batches in ((2, 0, (1, 1)), (4, 0, (4,)), (0, 1, (1, 1))):

        def arm(ring: PackedRing, ahead: int = ahead, laps: int = laps) -> None:
            _at(bench, ring, ahead, laps=laps)

        count = count_calls(bench, packed_ring, arm, batches, features=_EVENT_IDX)
        bench.expect(
            count == 0,
            "packed.device.described.calls-only-at-descriptor",
            expected=f"no call, with the event {ahead} requests and {laps} laps ahead, and {sum(batches)} used",
            observed=f"{count}",
        )
