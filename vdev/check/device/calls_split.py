"""Checks of when a device tells of used buffers, in split rings: by the driver's flags, or by its event index.

Each step is a ring of its own: a barrier ends it, and then it is known whether the device has told.
"""

from spec.device import Feature
from spec.split_ring import AvailableFlag
from vdev.check.bench.bench import Bench
from vdev.check.bench.split_ring import SplitRing
from vdev.check.device.plain_requests import count_calls, one_request, split_ring
from vdev.check.registry import RingFormat, check

_SPLIT = (RingFormat.SPLIT,)
_EVENT_IDX = (Feature.EVENT_IDX,)


@check("calls.with-flags-0", covers=["split.device.used-notification-suppression.3"], formats=_SPLIT)
def with_flags_0(bench: Bench) -> None:
    """While the driver's flags are 0, used buffers are told, after flags were 1 as well."""

    def arm(ring: SplitRing) -> None:
        ring.store_available_flags(AvailableFlag.NO_INTERRUPT)
        one_request(bench, ring)
        ring.store_available_flags(0)

    for batches in ((1,), (4,)):
        count = count_calls(bench, split_ring, arm, batches)
        bench.expect(
            count > 0,
            "split.device.used-notification-suppression.3",
            expected=f"a call for {sum(batches)} used while flags are 0",
            observed="none",
        )


@check("calls.with-flags-1", covers=["split.device.used-notification-suppression.2"], formats=_SPLIT)
def with_flags_1(bench: Bench) -> None:
    """While the driver's flags are 1, used buffers are not told."""
    count = count_calls(
        bench, split_ring, lambda ring: ring.store_available_flags(AvailableFlag.NO_INTERRUPT), (1, 1, 4)
    )
    bench.expect(
        count == 0,
        "split.device.used-notification-suppression.2",
        expected="no call for 6 used while flags are 1",
        observed=f"{count}",
    )


@check("calls.used-event-without-its-feature", covers=["split.device.used-notification-suppression.1"], formats=_SPLIT)
def used_event_without_its_feature(bench: Bench) -> None:
    """Without EVENT_IDX what stands behind the available ring means nothing."""
    for event in (0, 0x7FFF, 0xFFFF):

        def arm(ring: SplitRing, event: int = event) -> None:
            ring.store_used_event(event)

        count = count_calls(bench, split_ring, arm, (1, 1))
        bench.expect(
            count > 0,
            "split.device.used-notification-suppression.1",
            expected=f"a call for 2 used while flags are 0, with {event} behind the available ring",
            observed="none",
        )


@check(
    "calls.flags-with-event-idx",
    covers=["split.device.used-notification-suppression.4"],
    formats=_SPLIT,
    features=_EVENT_IDX,
)
def flags_with_event_idx(bench: Bench) -> None:
    """With EVENT_IDX the lowest bit of the driver's flags means nothing."""

    def arm(ring: SplitRing) -> None:
        ring.store_available_flags(AvailableFlag.NO_INTERRUPT)
        ring.store_used_event(ring.next_used)

    count = count_calls(bench, split_ring, arm, (1,), features=_EVENT_IDX)
    bench.expect(
        count > 0,
        "split.device.used-notification-suppression.4",
        expected="a call at used_event, with flags 1",
        observed="none",
    )


@check(
    "calls.at-used-event",
    covers=["split.device.used-notification-suppression.5"],
    formats=_SPLIT,
    features=_EVENT_IDX,
)
def at_used_event(bench: Bench) -> None:
    """A call comes when the element at used_event is written: the next one, one later on, or one within a batch."""
    for ahead, batches in ((0, (1,)), (2, (1, 1, 1)), (1, (4,)), (3, (4,))):

        def arm(ring: SplitRing, ahead: int = ahead) -> None:
            ring.store_used_event(ring.next_used + ahead & 0xFFFF)

        count = count_calls(bench, split_ring, arm, batches, features=_EVENT_IDX)
        bench.expect(
            count > 0,
            "split.device.used-notification-suppression.5",
            expected=f"a call, with used_event {ahead} ahead and {sum(batches)} used in batches of {batches[0]}",
            observed="none",
        )


@check(
    "calls.only-at-used-event",
    covers=["split.device.used-notification-suppression.6"],
    formats=_SPLIT,
    features=_EVENT_IDX,
)
def only_at_used_event(bench: Bench) -> None:
    """No call comes before the element at used_event is written, nor for those behind it."""
    for ahead, batches in ((-1, (1, 1)), (2, (1, 1)), (4, (4,)), (0x7FFF, (1, 4))):

        def arm(ring: SplitRing, ahead: int = ahead) -> None:
            ring.store_used_event(ring.next_used + ahead & 0xFFFF)

        count = count_calls(bench, split_ring, arm, batches, features=_EVENT_IDX)
        bench.expect(
            count == 0,
            "split.device.used-notification-suppression.6",
            expected=f"no call, with used_event {ahead} ahead and {sum(batches)} used",
            observed=f"{count}",
        )
