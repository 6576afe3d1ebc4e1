"""Available buffer notifications: where the driver must send one, and where it should not."""

from dataclasses import dataclass

from spec.device import Feature
from spec.layout import struct_of
from spec.mmio import NOTIFICATION
from vdev.check.driver.observation import (
    ChainMadeAvailable,
    Kicked,
    KickWish,
    KickWished,
    QueueLeft,
    Rested,
)
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, rule, sees
from vdev.check.registry import RingFormat
from vdev.devices.kind import Carrier

__all__: list[str] = []

_SPLIT, _PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)
_SUPPRESSION = "split.driver.available-notification-suppression"
_unpack = struct_of(NOTIFICATION).unpack


@dataclass
class _Asked:
    """What the device asked of one queue, and what was made available and notified since."""

    wish: KickWish
    ahead: int
    count: int = 0
    kick_count: int = 0
    count_at_kick: int = 0
    is_pardoned: bool = False
    """Whether the kick that is judged may come from before the wish."""


class _Kicks(Rule):
    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._asked: dict[int, _Asked] = {}

    @sees(KickWished)
    def wished(self, seen: KickWished) -> None:
        """The device asks for something else."""
        self._asked[seen.number] = _Asked(seen.wish, seen.ahead)

    @sees(QueueLeft)
    def left(self, seen: QueueLeft) -> None:
        """Nobody asks for anything."""
        self._asked.pop(seen.number, None)

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Count, as the wish is counted."""
        if seen.number in self._asked:
            packed = seen.format is RingFormat.PACKED
            self._asked[seen.number].count += len(seen.chain.descriptors) if packed else 1

    @sees(Kicked)
    def kicked(self, seen: Kicked) -> None:
        """Look whether it was wanted."""
        asked = self._asked.get(seen.number)
        if asked is None:
            return
        asked.kick_count += 1
        # Over a socket one may be under way while the device says that it wants none.
        asked.is_pardoned = self.picture.carrier is Carrier.VHOST_USER and asked.kick_count == 1
        self.judge_kick(seen.number, asked)
        asked.count_at_kick = asked.count

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """Look whether one is missing."""
        for number, asked in self._asked.items():
            if asked.wish is not KickWish.NEVER and asked.count:
                self.judge_rest(number, asked, seen.is_certain)

    def judge_kick(self, number: int, asked: _Asked) -> None:
        """Hold a kick against what was asked; `asked.count_at_kick` is what there was at the one before."""

    def judge_rest(self, number: int, asked: _Asked, is_certain: bool) -> None:
        """Hold rest against what was asked."""

    def missing(self, number: int, asked: _Asked, statement: str, is_certain: bool) -> None:
        """Expect that there was a kick since the wish was fulfilled. Raises Failed or TargetHung."""
        if asked.count < asked.ahead:
            return
        observed = f"{asked.count} made available, and nothing more is done before something happens"
        expected = f"queue {number} notified: the device asked for that ({asked.wish.value})"
        # A kick that came before the entry asked for is none for it.
        was_kicked = asked.kick_count > 0 and asked.count_at_kick >= asked.ahead
        if is_certain or was_kicked:
            self.expect(was_kicked, statement, expected=expected, observed=observed)
        else:
            self.hung(f"{expected}, and {observed}, for the judge's whole patience")


@rule(
    "split.no-kick-unless-wanted",
    covers=[f"{_SUPPRESSION}.3"],
    awaits="made a buffer available while the device wanted no notification",
    formats=_SPLIT,
)
class NoKickUnlessWanted(_Kicks):
    """Without EVENT_IDX nothing is notified while the device's flags are 1."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """With this it was tried out."""
        super().available(seen)
        asked = self._asked.get(seen.number)
        if asked is not None and asked.wish is KickWish.NEVER and not self.picture.has(Feature.EVENT_IDX):
            self.is_exercised = True

    def judge_kick(self, number: int, asked: _Asked) -> None:
        """None is wanted."""
        if asked.wish is KickWish.NEVER and not self.picture.has(Feature.EVENT_IDX):
            self.expect(
                asked.count == asked.count_at_kick or asked.is_pardoned,
                f"{_SUPPRESSION}.3",
                expected=f"no notification of queue {number}: the used ring's flags are 1",
                observed=f"one for {asked.count - asked.count_at_kick} entries that were made available since",
            )


@rule(
    "split.kick-where-flags-are-0",
    covers=[f"{_SUPPRESSION}.4"],
    awaits="made a buffer available without EVENT_IDX while the device wanted to be notified",
    formats=_SPLIT,
)
class KickWhereFlagsAreZero(_Kicks):
    """Without EVENT_IDX the device is notified while its flags are 0."""

    def judge_rest(self, number: int, asked: _Asked, is_certain: bool) -> None:
        """One is wanted."""
        if asked.wish is KickWish.ALWAYS:
            self.missing(number, asked, f"{_SUPPRESSION}.4", is_certain)

    def judge_kick(self, number: int, asked: _Asked) -> None:
        """It came."""
        self.is_exercised |= asked.wish is KickWish.ALWAYS and asked.count > 0


@rule(
    "split.kick-at-event",
    covers=[f"{_SUPPRESSION}.6"],
    awaits="made the entry available at which the device wanted to be notified",
    formats=_SPLIT,
    features=[Feature.EVENT_IDX],
)
class KickAtEvent(_Kicks):
    """With EVENT_IDX the device is notified when the entry that avail_event names is made available."""

    def judge_rest(self, number: int, asked: _Asked, is_certain: bool) -> None:
        """One is wanted, if the entry is there."""
        if asked.wish in (KickWish.AT_NEXT, KickWish.AT_LATER):
            self.missing(number, asked, f"{_SUPPRESSION}.6", is_certain)

    def judge_kick(self, number: int, asked: _Asked) -> None:
        """It came."""
        is_event = asked.wish in (KickWish.AT_NEXT, KickWish.AT_LATER)
        self.is_exercised |= is_event and asked.count >= asked.ahead > asked.count_at_kick


@rule(
    "split.no-kick-before-event",
    covers=[f"{_SUPPRESSION}.7"],
    awaits="made entries available before the one at which the device wanted to be notified",
    formats=_SPLIT,
    features=[Feature.EVENT_IDX],
)
class NoKickBeforeEvent(_Kicks):
    """With EVENT_IDX nothing is notified but the entry that avail_event names."""

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """With this it was tried out."""
        super().available(seen)
        asked = self._asked.get(seen.number)
        if asked is not None and asked.wish is KickWish.AT_LATER and asked.count < asked.ahead:
            self.is_exercised = True

    def judge_kick(self, number: int, asked: _Asked) -> None:
        """Too early is before the entry; NEVER stands for one far behind."""
        if not self.picture.has(Feature.EVENT_IDX) or asked.wish not in (KickWish.AT_LATER, KickWish.NEVER):
            return
        is_early = asked.wish is KickWish.NEVER or asked.count < asked.ahead
        self.expect(
            not is_early or asked.count == asked.count_at_kick or asked.is_pardoned,
            f"{_SUPPRESSION}.7",
            expected=f"no notification of queue {number} before "
            + (f"entry {asked.ahead} from there on" if asked.ahead else "the ring has gone round"),
            observed=f"one after entry {asked.count}",
        )


@rule(
    "packed.kick-says-where",
    covers=["packed.driver.descriptor-table.3"],
    awaits="kicked a packed queue with NOTIFICATION_DATA",
    carriers=(Carrier.MMIO,),
    features=[Feature.RING_PACKED, Feature.NOTIFICATION_DATA],
)
class KickSaysWhere(Rule):
    """With NOTIFICATION_DATA a kick names the descriptor that is made available next."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._next: dict[int, int] = {}

    @sees(QueueLeft)
    def left(self, seen: QueueLeft) -> None:
        """It begins anew."""
        self._next.pop(seen.number, None)

    @sees(ChainMadeAvailable)
    def available(self, seen: ChainMadeAvailable) -> None:
        """Follow the ring."""
        if seen.format is RingFormat.PACKED:
            size = self.picture.queues[seen.number].areas.size
            self._next[seen.number] = (self._next.get(seen.number, 0) + len(seen.chain.descriptors)) % (2 * size)

    @sees(Kicked)
    def kicked(self, seen: Kicked) -> None:
        """Compare."""
        queue = self.picture.queues.get(seen.number)
        is_meant = self.picture.has(Feature.NOTIFICATION_DATA) and self.picture.has(Feature.RING_PACKED)
        if queue is None or seen.data is None or not is_meant:
            return
        number, place = _unpack(seen.data.to_bytes(4, "little"))
        lap, offset = divmod(self._next.get(seen.number, 0), queue.areas.size)
        wanted = offset | (0 if lap else 1 << 15)
        self.expect(
            place == wanted,
            "packed.driver.descriptor-table.3",
            expected=f"next_off {offset}, next_wrap {wanted >> 15} with queue {number}",
            observed=f"next_off {place & 0x7FFF}, next_wrap {place >> 15}",
        )


@rule(
    "packed.kicks",
    covers=["packed.driver.described.kick"],
    awaits="made a buffer available while the device wanted to be notified",
    formats=_PACKED,
)
class PackedKicks(_Kicks):
    """A packed queue's device is notified where its event suppression structure asks for it."""

    def judge_rest(self, number: int, asked: _Asked, is_certain: bool) -> None:
        """One is wanted, if the descriptor is there."""
        self.missing(number, asked, "packed.driver.described.kick", is_certain)

    def judge_kick(self, number: int, asked: _Asked) -> None:
        """It came."""
        self.is_exercised |= asked.wish is not KickWish.NEVER and asked.count >= asked.ahead
