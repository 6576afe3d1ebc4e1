"""What a front end agrees on, and whether its messages are what they are called ("Vhost-user Protocol")."""

from spec.vhost_user import PROTOCOL_FEATURES, VERSION, VERSION_MASK, Flag, FrontEndRequest, ProtocolFeature
from vdev.check.driver.front_end_rule import (
    VHOST_USER,
    SessionRule,
    name_of,
    payload_of,
    shape_of,
    show_message,
    u64_of,
)
from vdev.check.driver.observation import MessageReceived
from vdev.check.driver.rule import Rule, rule, sees

__all__: list[str] = []

R = FrontEndRequest
_OFFER_SUFFICES = frozenset({R.GET_QUEUE_NUM})
"""What may be asked of a back end that offers the feature, before anything is agreed."""


@rule("front-end.header", covers=["vhost-user.front-end.header.1"], awaits="sent a message", carriers=VHOST_USER)
class Header(Rule):
    """A request's flags have version 1, and do not call it a reply."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Look at the flags."""
        self.expect(
            seen.flags & VERSION_MASK == VERSION and not seen.flags & Flag.REPLY,
            "vhost-user.front-end.header.1",
            expected="version 1, and no reply",
            observed=f"{name_of(seen.request)} with flags {seen.flags:#x}",
        )


@rule(
    "front-end.no-early-acknowledgement",
    covers=["vhost-user.front-end.header.2"],
    awaits="sent a message",
    carriers=VHOST_USER,
)
class NoEarlyAcknowledgement(SessionRule):
    """No acknowledgement is asked for before REPLY_ACK is agreed."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the flag."""
        self.expect(
            not seen.flags & Flag.NEED_REPLY or self.agreed(ProtocolFeature.REPLY_ACK),
            "vhost-user.front-end.header.2",
            expected="no NEED_REPLY before REPLY_ACK is agreed",
            observed=f"{name_of(seen.request)} with it",
        )


@rule("front-end.payloads", covers=["vhost-user.front-end.payload.1"], awaits="sent a message", carriers=VHOST_USER)
class Payloads(Rule):
    """A request's payload and file descriptors are those that its number says."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Look both up."""
        shape = shape_of(seen.request)
        if shape is None:
            return
        size_is_right = not seen.body
        if shape.payload is not None:
            payload = payload_of(seen)
            surplus = None if payload is None else len(seen.body) - len(shape.payload.build(payload))
            size_is_right = surplus is not None and surplus in (0, shape.padding_size)
        self.expect(
            size_is_right,
            "vhost-user.front-end.payload.1",
            expected=f"the payload of {name_of(seen.request)}",
            observed=f"{len(seen.body)} bytes",
            shown=show_message(seen),
        )
        self.expect(
            len(seen.fds) in shape.fd_counts,
            "vhost-user.front-end.payload.1",
            expected=f"{shape.fd_counts.start} to {shape.fd_counts.stop - 1} file descriptors",
            observed=f"{len(seen.fds)} with {name_of(seen.request)}",
        )


@rule(
    "front-end.features-offered",
    covers=["vhost-user.front-end.features.1"],
    awaits="sent SET_FEATURES",
    carriers=VHOST_USER,
)
class FeaturesWereOffered(SessionRule):
    """SET_FEATURES has no bit that GET_FEATURES did not have."""

    def judge(self, seen: MessageReceived) -> None:
        """Compare."""
        if seen.request == R.SET_FEATURES:
            self.expect(
                not u64_of(seen.body) & ~self.offered,
                "vhost-user.front-end.features.1",
                expected=f"no more than {self.offered:#x}",
                observed=f"{u64_of(seen.body):#x}",
                shown=show_message(seen),
            )


@rule(
    "front-end.protocol-features-exist",
    covers=["vhost-user.front-end.protocol-features.1"],
    awaits="asked for protocol features",
    carriers=VHOST_USER,
)
class ProtocolFeaturesExist(SessionRule):
    """Protocol features are asked for and set only where their bit was offered."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the bit."""
        if seen.request in (R.GET_PROTOCOL_FEATURES, R.SET_PROTOCOL_FEATURES):
            self.expect(
                bool(self.offered >> PROTOCOL_FEATURES & 1),
                "vhost-user.front-end.protocol-features.1",
                expected="the bit for protocol features seen in GET_FEATURES before",
                observed=f"{name_of(seen.request)} without that",
            )


@rule(
    "front-end.protocol-features-offered",
    covers=["vhost-user.front-end.protocol-features.2"],
    awaits="sent SET_PROTOCOL_FEATURES",
    carriers=VHOST_USER,
)
class ProtocolFeaturesWereOffered(SessionRule):
    """SET_PROTOCOL_FEATURES has no bit that was not offered."""

    def judge(self, seen: MessageReceived) -> None:
        """Compare."""
        if seen.request == R.SET_PROTOCOL_FEATURES:
            self.expect(
                not u64_of(seen.body) & ~self.offered_protocol,
                "vhost-user.front-end.protocol-features.2",
                expected=f"no more than {self.offered_protocol:#x}",
                observed=f"{u64_of(seen.body):#x}",
                shown=show_message(seen),
            )


@rule(
    "front-end.requests-agreed",
    covers=["vhost-user.front-end.protocol-features.3"],
    awaits="sent a request that belongs to a protocol feature",
    carriers=VHOST_USER,
)
class RequestsWereAgreed(SessionRule):
    """A request that belongs to a protocol feature comes only where that is agreed."""

    def judge(self, seen: MessageReceived) -> None:
        """Look its feature up."""
        shape = shape_of(seen.request)
        if shape is None or shape.needs is None:
            return
        may = self.protocol | (self.offered_protocol if seen.request in _OFFER_SUFFICES else 0)
        self.expect(
            bool(may >> shape.needs & 1),
            "vhost-user.front-end.protocol-features.3",
            expected=f"{shape.needs.name} agreed before {name_of(seen.request)}",
            observed=f"protocol features {self.protocol:#x}",
        )


@rule(
    "front-end.in-band-with-both",
    covers=["vhost-user.front-end.protocol-features.4"],
    awaits="sent SET_PROTOCOL_FEATURES",
    carriers=VHOST_USER,
)
class InBandWithBoth(SessionRule):
    """INBAND_NOTIFICATIONS is not agreed without REPLY_ACK and BACKEND_REQ."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the three bits."""
        if seen.request == R.SET_PROTOCOL_FEATURES:
            mask = u64_of(seen.body)
            has = [mask >> each & 1 for each in (ProtocolFeature.REPLY_ACK, ProtocolFeature.BACKEND_REQ)]
            self.expect(
                not mask >> ProtocolFeature.INBAND_NOTIFICATIONS & 1 or all(has),
                "vhost-user.front-end.protocol-features.4",
                expected="INBAND_NOTIFICATIONS with REPLY_ACK and BACKEND_REQ",
                observed=f"{mask:#x}",
                shown=show_message(seen),
            )


@rule(
    "front-end.state-while-stopped",
    covers=["vhost-user.front-end.state.1"],
    awaits="transferred a device's state",
    carriers=VHOST_USER,
)
class StateWhileStopped(Rule):
    """A device's state is transferred while no ring is started."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Look at the rings."""
        if seen.request in (R.SET_DEVICE_STATE_FD, R.CHECK_DEVICE_STATE):
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
    carriers=VHOST_USER,
)
class NoPostCopyWithSlots(SessionRule):
    """Post-copy is not begun where CONFIGURE_MEM_SLOTS is agreed."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the request."""
        if self.agreed(ProtocolFeature.CONFIGURE_MEM_SLOTS):
            self.expect(
                seen.request not in (R.POSTCOPY_ADVISE, R.POSTCOPY_LISTEN),
                "vhost-user.front-end.post-copy.1",
                expected="no post-copy",
                observed=name_of(seen.request),
            )
