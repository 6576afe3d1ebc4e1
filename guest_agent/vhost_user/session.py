"""The front end's session, without I/O: what may be asked when, what answer is awaited, and whether it can be true.

A back end may be anybody's: each reply is checked against the request that it must belong to before it is used.
"""

import os
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from guest_agent.vhost_user.errors import BackEndRefused
from spec.device import Feature
from spec.vhost_user import (
    BACK_END_REQUESTS,
    FRONT_END_REQUESTS,
    NO_FD,
    U64,
    BackEndRequest,
    FrontEndRequest,
    ProtocolFeature,
    RequestShape,
    TransferDirection,
    protocol_feature_mask,
)
from vdev.errors import BackEndViolation
from vdev.vhost_user.framing import Message, encode, parse_payload

__all__ = ["KNOWN_PROTOCOL_FEATURES", "LEGAL", "FrontEndSession", "SessionState"]

KNOWN_PROTOCOL_FEATURES = protocol_feature_mask(
    ProtocolFeature.MQ,
    ProtocolFeature.LOG_SHMFD,
    ProtocolFeature.REPLY_ACK,
    ProtocolFeature.BACKEND_REQ,
    ProtocolFeature.CONFIG,
    ProtocolFeature.BACKEND_SEND_FD,
    ProtocolFeature.INFLIGHT_SHMFD,
    ProtocolFeature.RESET_DEVICE,
    ProtocolFeature.CONFIGURE_MEM_SLOTS,
    ProtocolFeature.STATUS,
    ProtocolFeature.DEVICE_STATE,
)
"""What this front end knows how to use."""

_CLAUSE = "Front-end message types"
_COMMUNICATION = "Communication"


class SessionState(Enum):
    """How far a session has come."""

    CONNECTED = "connected"
    OWNED = "owned"
    AGREED = "agreed on features"
    """From here on there can be rings."""


_R = FrontEndRequest
_ANY_TIME = frozenset({SessionState.OWNED, SessionState.AGREED})
_AGREED = frozenset({SessionState.AGREED})

LEGAL: dict[FrontEndRequest, frozenset[SessionState]] = {
    _R.SET_OWNER: frozenset({SessionState.CONNECTED}),
    **dict.fromkeys(
        (
            _R.GET_FEATURES,
            _R.SET_FEATURES,
            _R.GET_PROTOCOL_FEATURES,
            _R.SET_PROTOCOL_FEATURES,
            _R.GET_QUEUE_NUM,
            _R.SET_BACKEND_REQ_FD,
            _R.GET_CONFIG,
            _R.SET_CONFIG,
            _R.GET_MAX_MEM_SLOTS,
            _R.RESET_DEVICE,
            _R.SET_STATUS,
            _R.GET_STATUS,
        ),
        _ANY_TIME,
    ),
    **dict.fromkeys(
        (
            _R.SET_MEM_TABLE,
            _R.ADD_MEM_REG,
            _R.SET_LOG_BASE,
            _R.SET_VRING_NUM,
            _R.SET_VRING_ADDR,
            _R.SET_VRING_BASE,
            _R.GET_VRING_BASE,
            _R.SET_VRING_KICK,
            _R.SET_VRING_CALL,
            _R.SET_VRING_ERR,
            _R.SET_VRING_ENABLE,
            _R.GET_INFLIGHT_FD,
            _R.SET_INFLIGHT_FD,
            _R.SET_DEVICE_STATE_FD,
            _R.CHECK_DEVICE_STATE,
        ),
        _AGREED,
    ),
}
"""Which requests this front end sends, and in which states."""

_AFTER: dict[FrontEndRequest, SessionState] = {
    _R.SET_OWNER: SessionState.OWNED,
    _R.SET_FEATURES: SessionState.AGREED,
    _R.RESET_DEVICE: SessionState.OWNED,
}
"""Which requests change the state, and to what."""


class _Awaited(NamedTuple):
    request: FrontEndRequest
    shape: RequestShape
    sent: Mapping[str, Any]


class FrontEndSession:
    """One connection's session. `request` builds what is sent; if `awaited` is then set, `answer` takes the reply.

    Wrong use raises RuntimeError: it is a bug here. What the back end does wrong raises BackEndViolation, after which
    the connection cannot be used.
    """

    def __init__(self) -> None:
        self.state = SessionState.CONNECTED
        self.features = 0
        self.protocol_features = 0
        self._awaited: _Awaited | None = None
        self._ring_sizes: dict[int, int] = {}

    @property
    def awaited(self) -> str | None:
        """The name of the request whose answer is awaited."""
        return self._awaited.request.name if self._awaited else None

    def has(self, *features: ProtocolFeature) -> bool:
        """Say whether all of these protocol features were negotiated."""
        return all(self.protocol_features >> feature & 1 for feature in features)

    def request(self, request: FrontEndRequest, **fields: Any) -> bytes:
        """Return the bytes of a request with these fields of its payload, and note which answer is due."""
        shape = FRONT_END_REQUESTS[request]
        if self._awaited is not None:
            raise RuntimeError(f"{request.name} while {self.awaited} is not answered")
        if self.state not in LEGAL[request]:
            raise RuntimeError(f"{request.name} while {self.state.value}")
        if shape.needs is not None and not self.has(shape.needs):
            raise RuntimeError(f"{request.name} without {shape.needs.name}")
        body = shape.payload.build(fields) if shape.payload is not None else b""
        acknowledged = shape.reply is None and self.has(ProtocolFeature.REPLY_ACK)
        if acknowledged or shape.reply is not None:
            self._awaited = _Awaited(request, shape, fields)
        if not acknowledged:
            self._note(request, fields)
        return encode(request, body, need_reply=acknowledged)

    def answer(self, message: Message) -> Any:
        """Return the payload that answers the awaited request, None for one that is only acknowledged.

        `message`'s file descriptors stay with it. Raises BackEndViolation, or BackEndRefused where the back end says
        no, and has then closed them.
        """
        try:
            return self._check(message)
        except BaseException:
            message.close()
            raise

    def _check(self, message: Message) -> Any:
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            raise BackEndViolation(_COMMUNICATION, f"it sent request {message.request}, and nothing was asked")
        name = awaited.request.name
        if not message.is_reply or message.request != awaited.request:
            what = "a reply to" if message.is_reply else "a message that is no reply,"
            raise BackEndViolation(_COMMUNICATION, f"the answer is {what} request {message.request}", request=name)
        fd_limit = 1 if awaited.request in _REPLIES_WITH_FD else 0
        if len(message.fds) > fd_limit:
            raise BackEndViolation(_COMMUNICATION, f"the answer has {len(message.fds)} file descriptors", request=name)
        if awaited.shape.reply is None:
            acknowledgement = parse_payload(message, _ACKNOWLEDGED, name, BackEndViolation, as_reply=True)
            if acknowledgement.value:
                raise BackEndRefused(_CLAUSE, f"the back end refuses {name}: it answers {acknowledgement.value:#x}")
            self._note(awaited.request, awaited.sent)
            return None
        if awaited.request is _R.GET_CONFIG and not message.body:
            # Not the text's form, but how QEMU's own library says that it has no such range.
            raise BackEndRefused(_CLAUSE, "the back end has no such configuration")
        payload = parse_payload(message, awaited.shape, name, BackEndViolation, as_reply=True)
        check = _CHECKS.get(awaited.request)
        if check is not None and (wrong := check(self, awaited.sent, payload, message)) is not None:
            raise BackEndViolation(_CLAUSE, wrong, request=name)
        return payload

    def _note(self, request: FrontEndRequest, fields: Mapping[str, Any]) -> None:
        self.state = _AFTER.get(request, self.state)
        if request is _R.SET_FEATURES:
            self.features = fields["value"]
        elif request is _R.SET_PROTOCOL_FEATURES:
            self.protocol_features = fields["value"]
        elif request is _R.SET_VRING_NUM:
            self._ring_sizes[fields["index"]] = fields["num"]

    def back_end_request(self, message: Message) -> BackEndRequest:
        """Return what a message of the back-end channel asks. Raises BackEndViolation for what it may not ask."""
        name = f"back-end request {message.request}"
        if message.request not in _SERVED:
            raise BackEndViolation("Back-end message types", "it was not negotiated", request=name)
        request = BackEndRequest(message.request)
        shape = BACK_END_REQUESTS[request]
        if message.is_reply or (shape.needs is not None and not self.has(shape.needs)):
            raise BackEndViolation("Back-end message types", "it was not negotiated", request=request.name)
        parse_payload(message, shape, request.name, BackEndViolation)
        return request

    # What an answer must be beside its layout. Each returns what is wrong.

    def _check_queue_count(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        return None if 0 < reply.value <= 0x1_0000 else f"{reply.value} queues"

    def _check_slot_count(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        return None if 0 < reply.value < 1 << 32 else f"{reply.value} memory slots"

    def _check_status(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        return None if reply.value <= 0xFF else f"the status {reply.value:#x} has more than 8 bits"

    def _check_config(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        asked, got = (sent["offset"], sent["size"]), (reply.offset, reply.size)
        if reply.size == 0:
            raise BackEndRefused(_CLAUSE, f"the back end has no configuration at {asked[0]}, {asked[1]} bytes")
        return None if asked == got else f"asked at {asked[0]} for {asked[1]} bytes, got {got[1]} at {got[0]}"

    def _check_base(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        if reply.index != sent["index"]:
            return f"asked for ring {sent['index']}, got ring {reply.index}"
        size = self._ring_sizes[reply.index]
        if not self.features >> Feature.RING_PACKED & 1:
            return None if reply.num <= 0xFFFF else f"the base {reply.num:#x} has more than 16 bits"
        available, used = reply.num & 0x7FFF, reply.num >> 16 & 0x7FFF
        return None if max(available, used) < size else f"the base {reply.num:#x} lies beyond a ring of {size}"

    def _check_inflight(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        if not message.fds:
            return "there is no file descriptor"
        if not reply.mmap_size:
            return "the area has no size"
        end, size = reply.mmap_offset + reply.mmap_size, os.fstat(message.fds[0]).st_size
        return None if end <= size else f"the area ends at {end:#x}, its file at {size:#x}"

    def _check_state_fd(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        if reply.value & 0xFF:
            verb = "save" if sent["direction"] == TransferDirection.SAVE else "load"
            raise BackEndRefused(_CLAUSE, f"the back end does not {verb} its state: it answers {reply.value:#x}")
        if bool(reply.value & NO_FD) == bool(message.fds):
            return f"it answers {reply.value:#x} with {len(message.fds)} file descriptors"
        return None

    def _check_log(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        if reply.value:
            raise BackEndRefused(_CLAUSE, f"the back end does not log its writes there: it answers {reply.value:#x}")
        return None

    def _check_state(self, sent: Mapping[str, Any], reply: Any, message: Message) -> str | None:
        if reply.value:
            raise BackEndRefused(_CLAUSE, f"the back end says that its state did not get over: {reply.value:#x}")
        return None


_ACKNOWLEDGED = RequestShape(reply=U64)
_REPLIES_WITH_FD = frozenset({_R.GET_INFLIGHT_FD, _R.SET_DEVICE_STATE_FD})
_SERVED = frozenset({BackEndRequest.CONFIG_CHANGE_MSG})

_Check = Callable[[FrontEndSession, Mapping[str, Any], Any, Message], str | None]
_CHECKS: dict[FrontEndRequest, _Check] = {
    _R.GET_QUEUE_NUM: FrontEndSession._check_queue_count,
    _R.GET_MAX_MEM_SLOTS: FrontEndSession._check_slot_count,
    _R.GET_STATUS: FrontEndSession._check_status,
    _R.GET_CONFIG: FrontEndSession._check_config,
    _R.GET_VRING_BASE: FrontEndSession._check_base,
    _R.GET_INFLIGHT_FD: FrontEndSession._check_inflight,
    _R.SET_DEVICE_STATE_FD: FrontEndSession._check_state_fd,
    _R.CHECK_DEVICE_STATE: FrontEndSession._check_state,
    _R.SET_LOG_BASE: FrontEndSession._check_log,
}
