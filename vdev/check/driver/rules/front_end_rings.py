"""What a front end says of its rings ("Vhost-user Protocol")."""

from spec.vhost_user import NO_FD, PROTOCOL_FEATURES, VRING_INDEX_MASK, FrontEndRequest
from vdev.check.driver.front_end_rule import VHOST_USER, SessionRule, name_of, payload_of, show_message, u64_of
from vdev.check.driver.observation import MessageReceived
from vdev.check.driver.rule import Rule, rule, sees

__all__: list[str] = []

R = FrontEndRequest
_RING_FDS = frozenset({R.SET_VRING_KICK, R.SET_VRING_CALL, R.SET_VRING_ERR})
_RING_STATES = frozenset({R.SET_VRING_NUM, R.SET_VRING_BASE, R.GET_VRING_BASE, R.SET_VRING_ENABLE})


@rule(
    "front-end.enable-agreed",
    covers=["vhost-user.front-end.ring.1"],
    awaits="sent SET_VRING_ENABLE",
    carriers=VHOST_USER,
)
class EnableWasAgreed(SessionRule):
    """SET_VRING_ENABLE comes only where the bit for protocol features was accepted."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the bit."""
        if seen.request == R.SET_VRING_ENABLE:
            self.expect(
                bool(self.accepted >> PROTOCOL_FEATURES & 1),
                "vhost-user.front-end.ring.1",
                expected="bit 30 in SET_FEATURES before",
                observed=f"features {self.accepted:#x}",
            )


@rule("front-end.ring-exists", covers=["vhost-user.front-end.ring.2"], awaits="named a ring", carriers=VHOST_USER)
class RingExists(SessionRule):
    """No message names a ring that the device does not have."""

    def judge(self, seen: MessageReceived) -> None:
        """Look at the index."""
        payload = payload_of(seen)
        if payload is None:
            return
        if seen.request in _RING_FDS:
            index = payload.value & VRING_INDEX_MASK
        elif seen.request in _RING_STATES or seen.request == R.SET_VRING_ADDR:
            index = payload.index
        else:
            return
        self.expect(
            index < self.picture.queue_count,
            "vhost-user.front-end.ring.2",
            expected=f"a ring below {self.picture.queue_count}",
            observed=f"{name_of(seen.request)} for ring {index}",
            shown=show_message(seen),
        )


@rule(
    "front-end.base-asked-with-0",
    covers=["vhost-user.front-end.ring.4"],
    awaits="sent GET_VRING_BASE",
    carriers=VHOST_USER,
)
class BaseAskedWith0(Rule):
    """GET_VRING_BASE has 0 beside the index."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Look at the number."""
        payload = payload_of(seen) if seen.request == R.GET_VRING_BASE else None
        if payload is not None:
            self.expect(
                payload.num == 0,
                "vhost-user.front-end.ring.4",
                expected="0",
                observed=f"{payload.num}",
                shown=show_message(seen),
            )


@rule(
    "front-end.bit-8",
    covers=["vhost-user.front-end.ring.5"],
    awaits="gave a ring its descriptors",
    carriers=VHOST_USER,
)
class Bit8(Rule):
    """Bit 8 beside a ring's index is set exactly where no file descriptor comes along."""

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Compare."""
        if seen.request in _RING_FDS:
            says_none = bool(u64_of(seen.body) & NO_FD)
            self.expect(
                says_none != bool(seen.fds),
                "vhost-user.front-end.ring.5",
                expected="bit 8, or a file descriptor",
                observed=f"{name_of(seen.request)} with {len(seen.fds)}, and {u64_of(seen.body):#x}",
                shown=show_message(seen),
            )
