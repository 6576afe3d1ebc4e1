"""What a front end sends ("Vhost-user Protocol"): message by message."""

from itertools import pairwise
from typing import Any

import construct

from spec.vhost_user import (
    FRONT_END_REQUESTS,
    LOG_PAGE_SIZE,
    NO_FD,
    PROTOCOL_FEATURES,
    VERSION,
    VERSION_MASK,
    VRING_INDEX_MASK,
    Flag,
    FrontEndRequest,
    ProtocolFeature,
    RequestShape,
)
from vdev.check.driver.observation import MessageAnswered, MessageReceived
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, rule, sees
from vdev.check.evidence import Shown
from vdev.devices.kind import Carrier

__all__: list[str] = []

_VHOST_USER = (Carrier.VHOST_USER,)
_R = FrontEndRequest
_RING_FDS = frozenset({_R.SET_VRING_KICK, _R.SET_VRING_CALL, _R.SET_VRING_ERR})
_RING_STATES = frozenset({_R.SET_VRING_NUM, _R.SET_VRING_BASE, _R.GET_VRING_BASE, _R.SET_VRING_ENABLE})
_OFFER_SUFFICES = frozenset({_R.GET_QUEUE_NUM})
"""What may be asked of a back end that offers the feature, before anything is agreed."""


def _name(request: int) -> str:
    return _R(request).name if request in set(_R) else f"request {request}"


def _shape(request: int) -> RequestShape | None:
    return FRONT_END_REQUESTS.get(_R(request)) if request in set(_R) else None


def _payload(seen: MessageReceived) -> Any:
    """Return the payload parsed, None if it has none or cannot be."""
    shape = _shape(seen.request)
    if shape is None or shape.payload is None:
        return None
    try:
        return shape.payload.parse(seen.body)
    except construct.ConstructError:
        return None


def _show(seen: MessageReceived) -> list[Shown]:
    return [Shown(f"{_name(seen.request)}'s payload", seen.body)]


def _u64(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "little")


@rule("front-end.header", covers=["vhost-user.front-end.header.1"], awaits="sent a message", carriers=_VHOST_USER)
class Header(Rule):
    """A request's flags have version 1, and do not call it a reply."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Look at the flags."""
        self.expect(
            seen.flags & VERSION_MASK == VERSION and not seen.flags & Flag.REPLY,
            "vhost-user.front-end.header.1",
            expected="version 1, and no reply",
            observed=f"{_name(seen.request)} with flags {seen.flags:#x}",
        )


class _Session(Rule):
    """Follows what is offered and agreed."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self.offered = 0
        self.accepted = 0
        self.offered_protocol = 0
        self.protocol = 0
        self.queue_count = 0

    @sees(MessageAnswered)
    def answered(self, seen: MessageAnswered) -> None:
        """Take note of offers, and of what is agreed."""
        match seen.request:
            case _R.GET_FEATURES:
                self.offered = _u64(seen.body)
            case _R.GET_PROTOCOL_FEATURES:
                self.offered_protocol = _u64(seen.body)
            case _R.GET_QUEUE_NUM:
                self.queue_count = _u64(seen.body)

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Judge, and take note of what the front end says."""
        self.judge(seen)
        if seen.request == _R.SET_PROTOCOL_FEATURES:
            self.protocol = _u64(seen.body)
        elif seen.request == _R.SET_FEATURES:
            self.accepted = _u64(seen.body)

    def judge(self, seen: MessageReceived) -> None:
        """Hold a message against what was agreed before it."""

    def agreed(self, feature: ProtocolFeature) -> bool:
        """Say whether a protocol feature is agreed."""
        return bool(self.protocol >> feature & 1)


@rule(
    "front-end.no-early-acknowledgement",
    covers=["vhost-user.front-end.header.2"],
    awaits="sent a message",
    carriers=_VHOST_USER,
)
class NoEarlyAcknowledgement(_Session):
    """No acknowledgement is asked for before REPLY_ACK is agreed."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the flag."""
        self.expect(
            not seen.flags & Flag.NEED_REPLY or self.agreed(ProtocolFeature.REPLY_ACK),
            "vhost-user.front-end.header.2",
            expected="no NEED_REPLY before REPLY_ACK is agreed",
            observed=f"{_name(seen.request)} with it",
        )


@rule("front-end.payloads", covers=["vhost-user.front-end.payload.1"], awaits="sent a message", carriers=_VHOST_USER)
class Payloads(Rule):
    """A request's payload and file descriptors are those that its number says."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Look both up."""
        shape = _shape(seen.request)
        if shape is None:
            return
        size_is_right = not seen.body
        if shape.payload is not None:
            payload = _payload(seen)
            surplus = None if payload is None else len(seen.body) - len(shape.payload.build(payload))
            size_is_right = surplus is not None and surplus in (0, shape.padding_size)
        self.expect(
            size_is_right,
            "vhost-user.front-end.payload.1",
            expected=f"the payload of {_name(seen.request)}",
            observed=f"{len(seen.body)} bytes",
            shown=_show(seen),
        )
        self.expect(
            len(seen.fds) in shape.fd_counts,
            "vhost-user.front-end.payload.1",
            expected=f"{shape.fd_counts.start} to {shape.fd_counts.stop - 1} file descriptors",
            observed=f"{len(seen.fds)} with {_name(seen.request)}",
        )


@rule(
    "front-end.features-offered",
    covers=["vhost-user.front-end.features.1"],
    awaits="sent SET_FEATURES",
    carriers=_VHOST_USER,
)
class FeaturesWereOffered(_Session):
    """SET_FEATURES has no bit that GET_FEATURES did not have."""

    def judge(self, seen: MessageReceived) -> None:
        """Compare."""
        if seen.request == _R.SET_FEATURES:
            self.expect(
                not _u64(seen.body) & ~self.offered,
                "vhost-user.front-end.features.1",
                expected=f"no more than {self.offered:#x}",
                observed=f"{_u64(seen.body):#x}",
                shown=_show(seen),
            )


@rule(
    "front-end.protocol-features-exist",
    covers=["vhost-user.front-end.protocol-features.1"],
    awaits="asked for protocol features",
    carriers=_VHOST_USER,
)
class ProtocolFeaturesExist(_Session):
    """Protocol features are asked for and set only where their bit was offered."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the bit."""
        if seen.request in (_R.GET_PROTOCOL_FEATURES, _R.SET_PROTOCOL_FEATURES):
            self.expect(
                bool(self.offered >> PROTOCOL_FEATURES & 1),
                "vhost-user.front-end.protocol-features.1",
                expected="the bit for protocol features seen in GET_FEATURES before",
                observed=f"{_name(seen.request)} without that",
            )


@rule(
    "front-end.protocol-features-offered",
    covers=["vhost-user.front-end.protocol-features.2"],
    awaits="sent SET_PROTOCOL_FEATURES",
    carriers=_VHOST_USER,
)
class ProtocolFeaturesWereOffered(_Session):
    """SET_PROTOCOL_FEATURES has no bit that was not offered."""

    def judge(self, seen: MessageReceived) -> None:
        """Compare."""
        if seen.request == _R.SET_PROTOCOL_FEATURES:
            self.expect(
                not _u64(seen.body) & ~self.offered_protocol,
                "vhost-user.front-end.protocol-features.2",
                expected=f"no more than {self.offered_protocol:#x}",
                observed=f"{_u64(seen.body):#x}",
                shown=_show(seen),
            )


@rule(
    "front-end.requests-agreed",
    covers=["vhost-user.front-end.protocol-features.3"],
    awaits="sent a request that belongs to a protocol feature",
    carriers=_VHOST_USER,
)
class RequestsWereAgreed(_Session):
    """A request that belongs to a protocol feature comes only where that is agreed."""

    def judge(self, seen: MessageReceived) -> None:
        """Look its feature up."""
        shape = _shape(seen.request)
        if shape is None or shape.needs is None:
            return
        may = self.protocol | (self.offered_protocol if seen.request in _OFFER_SUFFICES else 0)
        self.expect(
            bool(may >> shape.needs & 1),
            "vhost-user.front-end.protocol-features.3",
            expected=f"{shape.needs.name} agreed before {_name(seen.request)}",
            observed=f"protocol features {self.protocol:#x}",
        )


@rule(
    "front-end.in-band-with-both",
    covers=["vhost-user.front-end.protocol-features.4"],
    awaits="sent SET_PROTOCOL_FEATURES",
    carriers=_VHOST_USER,
)
class InBandWithBoth(_Session):
    """INBAND_NOTIFICATIONS is not agreed without REPLY_ACK and BACKEND_REQ."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the three bits."""
        if seen.request == _R.SET_PROTOCOL_FEATURES:
            mask = _u64(seen.body)
            has = [mask >> each & 1 for each in (ProtocolFeature.REPLY_ACK, ProtocolFeature.BACKEND_REQ)]
            self.expect(
                not mask >> ProtocolFeature.INBAND_NOTIFICATIONS & 1 or all(has),
                "vhost-user.front-end.protocol-features.4",
                expected="INBAND_NOTIFICATIONS with REPLY_ACK and BACKEND_REQ",
                observed=f"{mask:#x}",
                shown=_show(seen),
            )


class _Regions(_Session):
    """Follows the regions that are known: guest address, size, user address."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self.regions: list[tuple[int, int, int]] = []

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Take note of tables and single regions."""
        payload = _payload(seen)
        if payload is not None and seen.request == _R.SET_MEM_TABLE:
            self.regions = [(each.guest_address, each.size, each.user_address) for each in payload.regions]
            self.told(seen)
        elif payload is not None and seen.request in (_R.ADD_MEM_REG, _R.REM_MEM_REG):
            each = payload.region
            entry = (each.guest_address, each.size, each.user_address)
            if seen.request == _R.ADD_MEM_REG:
                self.regions.append(entry)
                self.told(seen)
            else:
                self.regions = [known for known in self.regions if known != entry]
        super().received(seen)

    def told(self, seen: MessageReceived) -> None:
        """Hold what is known now, after `seen`, against a statement."""


@rule(
    "front-end.descriptor-for-each-region",
    covers=["vhost-user.front-end.memory-table.1"],
    awaits="sent a memory table",
    carriers=_VHOST_USER,
)
class DescriptorForEachRegion(_Regions):
    """A memory table brings one file descriptor for each region."""

    def judge(self, seen: MessageReceived) -> None:
        """Count both."""
        if seen.request == _R.SET_MEM_TABLE:
            self.expect(
                len(seen.fds) == len(self.regions),
                "vhost-user.front-end.memory-table.1",
                expected=f"{len(self.regions)} file descriptors",
                observed=f"{len(seen.fds)}",
                shown=_show(seen),
            )


@rule(
    "front-end.regions-apart",
    covers=["vhost-user.front-end.memory-table.2"],
    awaits="told of its memory",
    carriers=_VHOST_USER,
)
class RegionsApart(_Regions):
    """Regions overlap neither in guest addresses nor in user addresses."""

    def told(self, seen: MessageReceived) -> None:
        """Compare each with the next."""
        for name, at in (("guest", 0), ("user", 2)):
            spans = sorted((region[at], region[at] + region[1]) for region in self.regions)
            clash = [(one, other) for one, other in pairwise(spans) if one[1] > other[0]]
            self.expect(
                not clash,
                "vhost-user.front-end.memory-table.2",
                expected=f"regions apart in {name} addresses",
                observed=f"{clash[0][0][0]:#x} to {clash[0][0][1]:#x}, and {clash[0][1][0]:#x}" if clash else "",
                shown=_show(seen),
            )


@rule(
    "front-end.no-descriptor-to-remove",
    covers=["vhost-user.front-end.mem-slots.1"],
    awaits="sent REM_MEM_REG",
    carriers=_VHOST_USER,
)
class NoDescriptorToRemove(Rule):
    """REM_MEM_REG brings no file descriptor."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Count."""
        if seen.request == _R.REM_MEM_REG:
            self.expect(
                not seen.fds,
                "vhost-user.front-end.mem-slots.1",
                expected="no file descriptor",
                observed=f"{len(seen.fds)}",
            )


@rule(
    "front-end.enable-agreed",
    covers=["vhost-user.front-end.ring.1"],
    awaits="sent SET_VRING_ENABLE",
    carriers=_VHOST_USER,
)
class EnableWasAgreed(_Session):
    """SET_VRING_ENABLE comes only where the bit for protocol features was accepted."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the bit."""
        if seen.request == _R.SET_VRING_ENABLE:
            self.expect(
                bool(self.accepted >> PROTOCOL_FEATURES & 1),
                "vhost-user.front-end.ring.1",
                expected="bit 30 in SET_FEATURES before",
                observed=f"features {self.accepted:#x}",
            )


@rule("front-end.ring-exists", covers=["vhost-user.front-end.ring.2"], awaits="named a ring", carriers=_VHOST_USER)
class RingExists(_Session):
    """No message names a ring that the device does not have."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the index."""
        payload = _payload(seen)
        if payload is None:
            return
        if seen.request in _RING_FDS:
            index = payload.value & VRING_INDEX_MASK
        elif seen.request in _RING_STATES or seen.request == _R.SET_VRING_ADDR:
            index = payload.index
        else:
            return
        self.expect(
            index < self.picture.queue_count,
            "vhost-user.front-end.ring.2",
            expected=f"a ring below {self.picture.queue_count}",
            observed=f"{_name(seen.request)} for ring {index}",
            shown=_show(seen),
        )


@rule(
    "front-end.base-asked-with-0",
    covers=["vhost-user.front-end.ring.4"],
    awaits="sent GET_VRING_BASE",
    carriers=_VHOST_USER,
)
class BaseAskedWith0(Rule):
    """GET_VRING_BASE has 0 beside the index."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Look at the number."""
        payload = _payload(seen) if seen.request == _R.GET_VRING_BASE else None
        if payload is not None:
            self.expect(
                payload.num == 0,
                "vhost-user.front-end.ring.4",
                expected="0",
                observed=f"{payload.num}",
                shown=_show(seen),
            )


@rule(
    "front-end.bit-8",
    covers=["vhost-user.front-end.ring.5"],
    awaits="gave a ring its descriptors",
    carriers=_VHOST_USER,
)
class Bit8(Rule):
    """Bit 8 beside a ring's index is set exactly where no file descriptor comes along."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Compare."""
        if seen.request in _RING_FDS:
            says_none = bool(_u64(seen.body) & NO_FD)
            self.expect(
                says_none != bool(seen.fds),
                "vhost-user.front-end.ring.5",
                expected="bit 8, or a file descriptor",
                observed=f"{_name(seen.request)} with {len(seen.fds)}, and {_u64(seen.body):#x}",
                shown=_show(seen),
            )


@rule(
    "front-end.rings-in-memory",
    covers=["vhost-user.front-end.ring.6"],
    awaits="said where a ring is",
    carriers=_VHOST_USER,
)
class RingsInMemory(_Regions):
    """A ring's user addresses are in a region that the back end knows."""

    def judge(self, seen: MessageReceived) -> None:
        """Look each one up."""
        payload = _payload(seen) if seen.request == _R.SET_VRING_ADDR else None
        if payload is None:
            return
        for name in ("descriptor", "available", "used"):
            address = payload[name]
            self.expect(
                any(user <= address < user + size for _, size, user in self.regions),
                "vhost-user.front-end.ring.6",
                expected=f"the {name} area in a region that was told",
                observed=f"{address:#x}",
                shown=_show(seen),
            )


@rule("front-end.log-large-enough", covers=["vhost-user.front-end.log.1"], awaits="gave a log", carriers=_VHOST_USER)
class LogLargeEnough(_Regions):
    """The log has a bit for each page of the regions that are known."""

    def judge(self, seen: MessageReceived) -> None:
        """Compare it with the highest address."""
        payload = _payload(seen) if seen.request == _R.SET_LOG_BASE else None
        if payload is None or not self.regions:
            return
        highest = max(guest + size for guest, size, _ in self.regions)
        needed = -(-highest // (8 * LOG_PAGE_SIZE))
        self.expect(
            payload.size >= needed,
            "vhost-user.front-end.log.1",
            expected=f"at least {needed} bytes, for addresses up to {highest:#x}",
            observed=f"{payload.size}",
            shown=_show(seen),
        )


@rule(
    "front-end.state-while-stopped",
    covers=["vhost-user.front-end.state.1"],
    awaits="transferred a device's state",
    carriers=_VHOST_USER,
)
class StateWhileStopped(Rule):
    """A device's state is transferred while no ring is started."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Look at the rings."""
        if seen.request in (_R.SET_DEVICE_STATE_FD, _R.CHECK_DEVICE_STATE):
            running = sorted(self.picture.queues)
            self.expect(
                not running,
                "vhost-user.front-end.state.1",
                expected="every ring stopped",
                observed=f"rings {', '.join(map(str, running))} are not",
            )


@rule(
    "front-end.no-post-copy-with-slots",
    covers=["vhost-user.front-end.post-copy.1"],
    awaits="agreed to CONFIGURE_MEM_SLOTS",
    carriers=_VHOST_USER,
)
class NoPostCopyWithSlots(_Session):
    """Post-copy is not begun where CONFIGURE_MEM_SLOTS is agreed."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the request."""
        if self.agreed(ProtocolFeature.CONFIGURE_MEM_SLOTS):
            self.expect(
                seen.request not in (_R.POSTCOPY_ADVISE, _R.POSTCOPY_LISTEN),
                "vhost-user.front-end.post-copy.1",
                expected="no post-copy",
                observed=_name(seen.request),
            )
