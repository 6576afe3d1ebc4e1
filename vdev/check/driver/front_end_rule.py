"""What rules about front ends have in common: messages taken apart, and what a session has agreed on."""

from typing import Any

import construct

from spec.vhost_user import FRONT_END_REQUESTS, FrontEndRequest, ProtocolFeature, RequestShape
from vdev.check.driver.observation import MessageAnswered, MessageReceived
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, sees
from vdev.check.evidence import Shown
from vdev.devices.kind import Carrier

__all__ = ["VHOST_USER", "RegionRule", "SessionRule", "name_of", "payload_of", "shape_of", "show_message", "u64_of"]

VHOST_USER = (Carrier.VHOST_USER,)
"""The carrier of all of these rules."""

R = FrontEndRequest


def name_of(request: int) -> str:
    """Return what the text calls a request, its number where it does not know it."""
    return R(request).name if request in set(R) else f"request {request}"


def shape_of(request: int) -> RequestShape | None:
    """Return what a request carries, None for one that is not known."""
    return FRONT_END_REQUESTS.get(R(request)) if request in set(R) else None


def payload_of(seen: MessageReceived) -> Any:
    """Return the payload parsed, None if it has none or cannot be."""
    shape = shape_of(seen.request)
    if shape is None or shape.payload is None:
        return None
    try:
        return shape.payload.parse(seen.body)
    except construct.ConstructError:
        return None


def show_message(seen: MessageReceived) -> list[Shown]:
    """Return a message's payload as evidence."""
    return [Shown(f"{name_of(seen.request)}'s payload", seen.body)]


def u64_of(data: bytes | None) -> int:
    """Return a number of 64 bits, or of none at all."""
    return int.from_bytes(data or b"", "little")


class SessionRule(Rule):
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
            case R.GET_FEATURES:
                self.offered = u64_of(seen.body)
            case R.GET_PROTOCOL_FEATURES:
                self.offered_protocol = u64_of(seen.body)
            case R.GET_QUEUE_NUM:
                self.queue_count = u64_of(seen.body)

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Judge, and take note of what the front end says."""
        self.judge(seen)
        if seen.request == R.SET_PROTOCOL_FEATURES:
            self.protocol = u64_of(seen.body)
        elif seen.request == R.SET_FEATURES:
            self.accepted = u64_of(seen.body)

    def judge(self, seen: MessageReceived) -> None:
        """Hold a message against what was agreed before it."""

    def agreed(self, feature: ProtocolFeature) -> bool:
        """Say whether a protocol feature is agreed."""
        return bool(self.protocol >> feature & 1)


class RegionRule(SessionRule):
    """Follows the regions that are known: guest address, size, user address."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self.regions: list[tuple[int, int, int]] = []

    @sees(MessageReceived)
    def received(self, seen: MessageReceived) -> None:
        """Take note of tables and single regions."""
        payload = payload_of(seen)
        if payload is not None and seen.request == R.SET_MEM_TABLE:
            self.regions = [(each.guest_address, each.size, each.user_address) for each in payload.regions]
            self.told(seen)
        elif payload is not None and seen.request in (R.ADD_MEM_REG, R.REM_MEM_REG):
            each = payload.region
            entry = (each.guest_address, each.size, each.user_address)
            if seen.request == R.ADD_MEM_REG:
                self.regions.append(entry)
                self.told(seen)
            else:
                self.regions = [known for known in self.regions if known != entry]
        super().received(seen)

    def told(self, seen: MessageReceived) -> None:
        """Hold what is known now, after `seen`, against a statement."""
