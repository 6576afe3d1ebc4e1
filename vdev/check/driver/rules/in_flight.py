"""What a driver must leave alone: descriptors, tables and entries that the device has."""

from spec.device import Feature
from vdev.check.driver.observation import (
    ChainMadeAvailable,
    DriverEventSeen,
    EntryChanged,
    EntryKept,
    QueueLeft,
    RingIndexMoved,
)
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, rule, sees
from vdev.check.evidence import Shown
from vdev.check.registry import RingFormat

__all__: list[str] = []

_SPLIT, _PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)
_OUT = "left a buffer with the device while the judge looked"


def _pair(seen: EntryChanged) -> list[Shown]:
    return [
        Shown(f"{seen.what}, as it was made available", seen.before, seen.address),
        Shown(f"{seen.what}, now", seen.after, seen.address),
    ]


class _LeftAlone(Rule):
    @sees(EntryKept)
    def kept(self, _: EntryKept) -> None:
        """All is as it was."""
        self.is_exercised = True

    @sees(EntryChanged)
    def changed(self, seen: EntryChanged) -> None:
        """Something is not."""
        self.expect(
            False,
            "cleanup.driver.1",
            expected=f"{seen.what} of queue {seen.number} left alone until it is used",
            observed="it was changed",
            shown=_pair(seen),
        )


@rule(
    "split.left-alone",
    covers=["cleanup.driver.1", "split.driver.updating-idx.1"],
    awaits=_OUT,
    formats=_SPLIT,
)
class SplitLeftAlone(_LeftAlone):
    """What the available index shows is whole, and stays as it is while the device has it."""


@rule(
    "packed.left-alone",
    covers=[
        "cleanup.driver.1",
        "packed.driver.descriptor-table.1",
        "packed.driver.descriptor-table.2",
        "packed.driver.updating-flags.1",
    ],
    awaits=_OUT,
    formats=_PACKED,
)
class PackedLeftAlone(_LeftAlone):
    """What a descriptor's flags make available is whole, and stays as it is while the device has it."""


@rule("ring.alive-to-the-end", covers=["cleanup.driver.2"], awaits="stopped a queue that had buffers out")
class AliveToTheEnd(Rule):
    """Buffers are not taken away from the device before it is reset or its queue is stopped."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._changed: set[int] = set()

    @sees(EntryChanged)
    def changed(self, seen: EntryChanged) -> None:
        """Remember it: whether it was for removal is seen later."""
        self._changed.add(seen.number)

    @sees(QueueLeft)
    def left(self, seen: QueueLeft) -> None:
        """Look how the queue was left."""
        queue = self.picture.queues.get(seen.number)
        if queue is not None and queue.in_flight_count:
            self.expect(
                seen.number not in self._changed,
                "cleanup.driver.2",
                expected="the device's buffers as they were, until it is reset",
                observed="some were altered before",
            )
        self._changed.discard(seen.number)


@rule(
    "split.index-goes-on",
    covers=["split.driver.available-ring.1"],
    awaits="moved an available index",
    formats=_SPLIT,
)
class IndexGoesOn(Rule):
    """The available index only goes on, and never past what the queue has room for."""

    @sees(RingIndexMoved)
    def moved(self, seen: RingIndexMoved) -> None:
        """Look how far."""
        step = (seen.after - seen.before) & 0xFFFF
        room = self.picture.queues[seen.number].areas.size - seen.in_flight_count
        self.expect(
            step <= room,
            "split.driver.available-ring.1",
            expected=f"at most {room} entries on from {seen.before}",
            observed=f"{seen.after}",
            shown=[Shown("available index", seen.after.to_bytes(2, "little"))],
        )


@rule("ring.head-not-in-flight", covers=["cleanup.driver.1"], awaits="made a buffer available while others were out")
class HeadNotInFlight(Rule):
    """A buffer is not described by descriptors, or named by an id, that the device still has."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Compare with all that is out."""
        if not seen.in_flight:
            return
        is_packed = seen.format is RingFormat.PACKED
        taken = {other.head for other in seen.in_flight}
        own = {seen.chain.head}
        if not is_packed:
            taken = {each.place for other in seen.in_flight for each in other.descriptors}
            own = {each.place for each in seen.chain.descriptors}
        clash = own & taken
        self.expect(
            not clash,
            "cleanup.driver.1",
            expected="ids and descriptors that the device has given back",
            observed=f"{'id' if is_packed else 'descriptor'} {min(clash, default=0)}, which it has",
            shown=seen.chain.show(),
        )


@rule(
    "split.flags-are-0-or-1",
    covers=["split.driver.used-notification-suppression.1"],
    awaits="had a split queue without EVENT_IDX",
    formats=_SPLIT,
)
class FlagsOr1(Rule):
    """Without EVENT_IDX the available ring's flags are 0 or 1."""

    @sees(DriverEventSeen)
    def seen(self, seen: DriverEventSeen) -> None:
        """Look at the flags."""
        if not self.picture.has(Feature.EVENT_IDX):
            self.expect(
                seen.flags in (0, 1),
                "split.driver.used-notification-suppression.1",
                expected="flags of 0 or 1",
                observed=f"{seen.flags:#x}",
                shown=[Shown("the available ring's flags", seen.flags.to_bytes(2, "little"), seen.address)],
            )


@rule(
    "split.flags-are-0",
    covers=["split.driver.used-notification-suppression.3"],
    awaits="had a split queue with EVENT_IDX",
    formats=_SPLIT,
    features=[Feature.EVENT_IDX],
)
class FlagsZero(Rule):
    """With EVENT_IDX the available ring's flags are 0."""

    @sees(DriverEventSeen)
    def seen(self, seen: DriverEventSeen) -> None:
        """Look at the flags."""
        if self.picture.has(Feature.EVENT_IDX):
            self.expect(
                seen.flags == 0,
                "split.driver.used-notification-suppression.3",
                expected="flags of 0",
                observed=f"{seen.flags:#x}",
                shown=[Shown("the available ring's flags", seen.flags.to_bytes(2, "little"), seen.address)],
            )
