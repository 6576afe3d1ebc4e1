"""What a front end may send when, and what an illegal message gets: the table of a session."""

from enum import Enum
from typing import NamedTuple

from spec.vhost_user import FrontEndRequest

__all__ = ["RULES", "Phase", "Refusal", "Rule"]


class Phase(Enum):
    """How far a session is."""

    CONNECTED = "connected"
    """No features are agreed."""
    READY = "ready"
    """Features are agreed, and every ring is stopped: the device is suspended."""
    RUNNING = "running"
    """A ring is started."""


class Refusal(Enum):
    """What a message gets that is malformed, not legal now, or asks for what cannot be."""

    ACKNOWLEDGED = "a reply other than 0 if it asked for one, else the connection ends"
    EMPTY = "a reply without content"
    FAILED = "a reply that says so"
    CLOSED = "the connection ends"


class Rule(NamedTuple):
    """In which phases a message is legal, and what it gets where it is not.

    `ring_stopped` says that the ring it names must not be started.
    """

    phases: frozenset[Phase]
    refusal: Refusal = Refusal.ACKNOWLEDGED
    ring_stopped: bool = False


_ALWAYS = frozenset(Phase)
_NOT_RUNNING = frozenset({Phase.CONNECTED, Phase.READY})
_AGREED = frozenset({Phase.READY, Phase.RUNNING})
_SUSPENDED = _NOT_RUNNING
_R = FrontEndRequest

RULES: dict[FrontEndRequest, Rule] = {
    _R.GET_FEATURES: Rule(_ALWAYS, Refusal.CLOSED),
    _R.SET_FEATURES: Rule(_ALWAYS),
    _R.GET_PROTOCOL_FEATURES: Rule(_ALWAYS, Refusal.CLOSED),
    _R.SET_PROTOCOL_FEATURES: Rule(_NOT_RUNNING),
    _R.SET_OWNER: Rule(_NOT_RUNNING),
    _R.RESET_OWNER: Rule(_ALWAYS),
    _R.GET_QUEUE_NUM: Rule(_ALWAYS, Refusal.CLOSED),
    _R.SET_MEM_TABLE: Rule(_ALWAYS),
    _R.GET_MAX_MEM_SLOTS: Rule(_ALWAYS, Refusal.CLOSED),
    _R.ADD_MEM_REG: Rule(_ALWAYS),
    _R.REM_MEM_REG: Rule(_ALWAYS),
    _R.SET_LOG_BASE: Rule(_ALWAYS, Refusal.FAILED),
    _R.SET_LOG_FD: Rule(_ALWAYS),
    _R.SET_VRING_NUM: Rule(_ALWAYS, ring_stopped=True),
    _R.SET_VRING_ADDR: Rule(_ALWAYS),
    _R.SET_VRING_BASE: Rule(_ALWAYS, ring_stopped=True),
    _R.GET_VRING_BASE: Rule(_ALWAYS, Refusal.CLOSED),
    _R.SET_VRING_KICK: Rule(_AGREED),
    _R.SET_VRING_CALL: Rule(_ALWAYS),
    _R.SET_VRING_ERR: Rule(_ALWAYS),
    _R.SET_VRING_ENABLE: Rule(_AGREED),
    _R.SET_BACKEND_REQ_FD: Rule(_ALWAYS),
    _R.GET_CONFIG: Rule(_ALWAYS, Refusal.EMPTY),
    _R.SET_CONFIG: Rule(_ALWAYS),
    _R.RESET_DEVICE: Rule(_ALWAYS),
    _R.SET_STATUS: Rule(_ALWAYS),
    _R.GET_STATUS: Rule(_ALWAYS, Refusal.CLOSED),
    _R.GET_INFLIGHT_FD: Rule(_ALWAYS, Refusal.CLOSED),
    _R.SET_INFLIGHT_FD: Rule(_NOT_RUNNING),
    _R.SET_DEVICE_STATE_FD: Rule(_SUSPENDED, Refusal.FAILED),
    _R.CHECK_DEVICE_STATE: Rule(_SUSPENDED, Refusal.FAILED),
}
"""What is not here is not spoken: it is refused as ACKNOWLEDGED says.

A request of a protocol feature is legal only once that was agreed, SET_VRING_ENABLE only with protocol features.
"""
