"""What became of a device that was given something that it may refuse: seen behind barriers, not by waiting."""

from collections.abc import Iterable
from enum import Enum

from spec.device import DeviceStatus
from spec.vhost_user import ProtocolFeature
from vdev.check.bench.control import DeviceControl
from vdev.check.bench.front_end import FrontEnd
from vdev.check.bench.ring import Ring
from vdev.check.bench.vhost_control import VhostControl
from vdev.check.target import ConnectionClosed

__all__ = ["Fate", "fate_over_mmio", "fate_over_vhost"]

_SIGN_SECONDS = 1.0
"""For a back end to do something that shows, or to take the kick at least."""


class Fate(Enum):
    """What a device did; all of them are survival."""

    USED = "it used a buffer"
    NEEDS_RESET = "it set DEVICE_NEEDS_RESET"
    ERROR = "it signalled the error descriptor"
    CLOSED = "it closed the connection"
    QUIET = "it did nothing that shows, and answered"


def fate_over_mmio(control: DeviceControl, rings: Iterable[Ring]) -> Fate:
    """Say what there is to see: all was done when the last register access returned."""
    if control.status() & DeviceStatus.DEVICE_NEEDS_RESET:
        return Fate.NEEDS_RESET
    return Fate.USED if any(ring.has_used() for ring in rings) else Fate.QUIET


def fate_over_vhost(control: VhostControl, front_end: FrontEnd, rings: Iterable[Ring], patience: float) -> Fate:
    """Wait until something shows, or the kick was taken; then stop every ring, and look again.

    GET_VRING_BASE is the barrier: a back end that has answered it does no more with a ring. Raises TargetHung if it
    does not answer.
    """
    ours = list(rings)

    def sign() -> Fate | None:
        if any(ring.has_used() for ring in ours):
            return Fate.USED
        if any(front_end.errors(ring.number) for ring in ours):
            return Fate.ERROR
        return Fate.CLOSED if front_end.is_closed() else None

    def has_moved() -> bool:
        return sign() is not None or all(front_end.ring_events(ring.number).is_kick_taken() for ring in ours)

    try:
        if ours:
            control.wait_any(ours[0].number, has_moved, min(patience, _SIGN_SECONDS))
        needs_reset = False
        if front_end.has(ProtocolFeature.STATUS):
            needs_reset = bool(front_end.get_status() & DeviceStatus.DEVICE_NEEDS_RESET)
        for number in control.running():
            control.stop_queue(number)
        if front_end.has(ProtocolFeature.STATUS):
            needs_reset = needs_reset or bool(front_end.get_status() & DeviceStatus.DEVICE_NEEDS_RESET)
    except ConnectionClosed:
        return sign() or Fate.CLOSED
    if needs_reset:
        return Fate.NEEDS_RESET
    return sign() or Fate.QUIET
