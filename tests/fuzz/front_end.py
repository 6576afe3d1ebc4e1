"""A vhost-user front end whose back end answers what it likes: BackEndViolation or BackEndRefused, and nothing else."""

import os
from typing import Any

from guest_agent.vhost_user.errors import BackEndRefused
from guest_agent.vhost_user.session import FrontEndSession
from spec.vhost_user import FrontEndRequest
from vdev.errors import BackEndViolation
from vdev.vhost_user.framing import Message

__all__ = ["ASKED", "fuzz_front_end"]

_R = FrontEndRequest
_ALL_PROTOCOL_FEATURES = (1 << 20) - 1

ASKED: tuple[tuple[FrontEndRequest, dict[str, Any]], ...] = (
    (_R.SET_OWNER, {}),
    (_R.GET_FEATURES, {}),
    (_R.SET_FEATURES, {"value": 1 << 32 | 1 << 30}),
    (_R.SET_FEATURES, {"value": 1 << 34 | 1 << 32 | 1 << 30}),
    (_R.GET_PROTOCOL_FEATURES, {}),
    (_R.SET_PROTOCOL_FEATURES, {"value": _ALL_PROTOCOL_FEATURES}),
    (_R.GET_QUEUE_NUM, {}),
    (_R.GET_MAX_MEM_SLOTS, {}),
    (_R.SET_VRING_NUM, {"index": 1, "num": 8}),
    (_R.GET_VRING_BASE, {"index": 1, "num": 0}),
    (_R.GET_CONFIG, {"offset": 0, "size": 4, "flags": 0, "payload": bytes(4)}),
    (_R.GET_STATUS, {}),
    (_R.GET_INFLIGHT_FD, {"mmap_size": 0, "mmap_offset": 0, "queue_count": 1, "queue_size": 8}),
    (_R.SET_DEVICE_STATE_FD, {"direction": 0, "phase": 0}),
    (_R.CHECK_DEVICE_STATE, {}),
    (_R.SET_STATUS, {"value": 15}),
    (_R.RESET_DEVICE, {}),
)
"""What may be asked."""


def fuzz_front_end(data: bytes) -> None:
    """Ask, and answer from `data`: which request, then the reply's request, flags, descriptors, payload size, payload.

    The reply's request is told as the difference from what was asked.
    """
    session = FrontEndSession()
    session.request(_R.SET_OWNER)
    session.request(_R.SET_PROTOCOL_FEATURES, value=_ALL_PROTOCOL_FEATURES)
    while len(data) >= 5:
        asked, difference, flags, fd_count, size = data[:5]
        body, data = data[5 : 5 + size], data[5 + size :]
        try:
            request, fields = ASKED[asked % len(ASKED)]
            if session.awaited is None and not _ask(session, request, fields):
                continue
            if session.awaited is None:
                continue
            answer = (FrontEndRequest[session.awaited] + difference) & 0xFF
            message = Message(answer, flags, body, [os.open("/dev/null", os.O_RDONLY) for _ in range(fd_count & 3)])
            session.answer(message)
            message.close()
        except BackEndRefused:
            continue
        except BackEndViolation:
            return


def _ask(session: FrontEndSession, request: FrontEndRequest, fields: dict[str, Any]) -> bool:
    try:
        session.request(request, **fields)
    except RuntimeError:
        return False  # not legal now, which the front end is to know by itself
    return True
