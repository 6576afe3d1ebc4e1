"""A vhost-user session from the front end's side, without rings and memory: messages, answers, and features."""

import socket
from collections.abc import Sequence
from typing import Any

from spec.vhost_user import (
    FRONT_END_REQUESTS,
    PROTOCOL_FEATURES,
    U64,
    BackEndRequest,
    FrontEndRequest,
    ProtocolFeature,
    protocol_feature_mask,
)
from vdev.check.bench.control import Refused
from vdev.check.bench.message_socket import MessageSocket
from vdev.check.target import ConnectionClosed
from vdev.check.verdict import Failed, NotApplicable
from vdev.errors import BackEndViolation
from vdev.events import Emitter
from vdev.vhost_user.framing import Message, parse_payload

__all__ = ["Conversation"]

_R = FrontEndRequest
_F = ProtocolFeature
_USED = protocol_feature_mask(
    _F.MQ,
    _F.LOG_SHMFD,
    _F.REPLY_ACK,
    _F.MTU,
    _F.BACKEND_REQ,
    _F.CONFIG,
    _F.BACKEND_SEND_FD,
    _F.INFLIGHT_SHMFD,
    _F.RESET_DEVICE,
    _F.CONFIGURE_MEM_SLOTS,
    _F.STATUS,
    _F.DEVICE_STATE,
)
"""Protocol features that a bench agrees to where a check does not choose."""


class Conversation:
    """Takes over `sock`, a connection to a back end. `close` it at the end.

    Calls that wait raise TargetHung after `patience` seconds, ConnectionClosed, and Failed for an answer that is none.
    """

    def __init__(self, sock: socket.socket, patience: float, events: Emitter) -> None:
        self._events = events
        self._patience = patience
        self._socket = MessageSocket(sock, FrontEndRequest, patience, events)
        self._offered: int | None = None
        self._offered_protocol: int | None = None
        self.channel: MessageSocket | None = None
        """The back end's own requests (`waiting`, `receive`); None before `open_channel`."""
        self.features = 0
        """The mask of the last SET_FEATURES."""
        self.protocol_features: int | None = None
        """The mask of those that are agreed, None before that was negotiated."""

    def close(self) -> None:
        """Close the connection and the channel, and file descriptors that came and that nobody took."""
        self._socket.close()
        if self.channel is not None:
            self.channel.close()

    # Any message

    def send(
        self,
        request: int,
        body: bytes = b"",
        fds: Sequence[int] = (),
        *,
        need_reply: bool = False,
        flags: int | None = None,
    ) -> None:
        """Send a message; `flags` are the header's as they are, instead of those that are right."""
        self._socket.send(request, body, fds, need_reply=need_reply, flags=flags)

    def send_bytes(self, raw: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes as they are."""
        self._socket.send_bytes(raw, fds)

    def receive(self, *, after: str = "") -> Message:
        """Return the next message, whose file descriptors are the caller's; `after` says what it should answer."""
        return self._socket.receive(after=after)

    def waiting(self) -> list[Message]:
        """Return the messages that have come, without waiting."""
        return self._socket.waiting()

    def fileno(self) -> int:
        """Return the connection's file descriptor."""
        return self._socket.fileno()

    def is_closed(self) -> bool:
        """Say whether the back end has closed the connection."""
        return self._socket.is_closed()

    def wait_closed(self) -> None:
        """Wait until the back end has closed the connection. Raises TargetHung."""
        self._socket.wait_closed()

    def ask(
        self, request: FrontEndRequest, body: bytes = b"", fds: Sequence[int] = (), *, need_reply: bool = False
    ) -> Message:
        """Send a request that has a reply, and return that. Raises Failed if it answers something else."""
        self.send(request, body, fds, need_reply=need_reply)
        return self.reply_to(request)

    def reply_to(self, request: FrontEndRequest) -> Message:
        """Return the next message, the reply to a request. Raises Failed if it is not that."""
        message = self.receive(after=request.name)
        if not message.is_reply or message.request != request:
            message.close()
            kind = "a reply to" if message.is_reply else "a request"
            raise Failed(
                "vhost-user.back-end.reply.1",
                expected=f"a reply to {request.name}",
                observed=f"{kind} {self._socket.name_of(message.request)}",
            )
        return message

    def ask_fields(self, request: FrontEndRequest, body: bytes = b"", fds: Sequence[int] = ()) -> Any:
        """Send a request, and return its reply's payload, parsed. Raises Failed for one of another layout."""
        message = self.ask(request, body, fds)
        try:
            return self.fields_of(message)
        finally:
            message.close()

    def fields_of(self, message: Message) -> Any:
        """Return a reply's payload, parsed. Raises Failed for one of another layout."""
        request = FrontEndRequest(message.request)
        try:
            return parse_payload(message, FRONT_END_REQUESTS[request], request.name, BackEndViolation, as_reply=True)
        except BackEndViolation as violation:
            raise Failed(
                "vhost-user.back-end.reply.3",
                expected=f"the payload of a reply to {request.name}",
                observed=f"{violation.message} ({message.body.hex(' ')})",
            ) from violation

    def acknowledged(self, request: FrontEndRequest, body: bytes = b"", fds: Sequence[int] = ()) -> bool | None:
        """Send a request that has no reply, and wait until it was obeyed: true, or refused: false; None if the
        connection was closed instead.

        Without REPLY_ACK nobody can say whether it was refused: it is true if a later GET_FEATURES is answered.
        """
        try:
            if self.has(ProtocolFeature.REPLY_ACK):
                message = self.ask(request, body, fds, need_reply=True)
                message.close()
                return int.from_bytes(message.body, "little") == 0
            self.send(request, body, fds)
            self.ask(_R.GET_FEATURES).close()
        except ConnectionClosed:
            return None
        return True

    def tell(self, request: FrontEndRequest, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a request that has no reply and that is legal. Raises Refused if it is not obeyed."""
        result = self.acknowledged(request, body, fds)
        if result is None:
            raise ConnectionClosed(f"the target closed the connection in answer to {request.name}")
        if not result:
            raise Refused(f"the back end refused {request.name}")

    # Features

    @property
    def offered_features(self) -> int:
        """The mask that GET_FEATURES answered when it was first wanted."""
        if self._offered is None:
            self._offered = self.ask_fields(_R.GET_FEATURES).value
        return self._offered

    @property
    def offered_protocol_features(self) -> int:
        """The mask of protocol features that are offered, 0 where there are none to negotiate."""
        if self._offered_protocol is None:
            has_any = self.offered_features >> PROTOCOL_FEATURES & 1
            self._offered_protocol = self.ask_fields(_R.GET_PROTOCOL_FEATURES).value if has_any else 0
        return self._offered_protocol

    def negotiate_protocol_features(self, mask: int | None = None) -> None:
        """Agree to these protocol features, without a mask to all that are offered and that the bench has a use for."""
        offered = self.offered_protocol_features
        if mask is None:
            mask = offered & _USED
        if offered or mask:
            self.send(_R.SET_PROTOCOL_FEATURES, _u64(mask))
        self.protocol_features = mask

    def has(self, feature: int) -> bool:
        """Say whether a protocol feature is agreed."""
        return bool((self.protocol_features or 0) >> feature & 1)

    def need(self, feature: ProtocolFeature) -> None:
        """Raise NotApplicable unless a protocol feature is agreed."""
        if not self.has(feature):
            raise NotApplicable(f"the protocol feature {feature.name} is not agreed")

    def set_features(self, mask: int) -> bool | None:
        """SET_FEATURES; returns what `acknowledged` does."""
        self.features = mask
        return self.acknowledged(_R.SET_FEATURES, _u64(mask))

    def open_channel(self) -> None:
        """SET_BACKEND_REQ_FD: from now on the back end can ask something, and is answered while anything is awaited."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        if self.channel is not None:
            self.channel.close()
        self.channel = MessageSocket(mine, BackEndRequest, self._patience, self._events, answers=True)
        self._socket.beside = [self.channel]
        with theirs:
            self.tell(_R.SET_BACKEND_REQ_FD, fds=[theirs.fileno()])


def _u64(value: int) -> bytes:
    body: bytes = U64.build({"value": value})
    return body
