"""Messages of the vhost-user protocol as bytes with file descriptors beside them: cut out of a stream, and built.

Nothing here reads or writes a socket. Both ends use it: a back end decodes what a front end sent, and the reverse.
"""

import os
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Generic, TypeVar

import construct

from spec.layout import struct_of
from spec.vhost_user import (
    HEADER,
    MAX_FD_COUNT,
    MAX_PAYLOAD_SIZE,
    VERSION,
    VERSION_MASK,
    Flag,
    RequestShape,
)
from vdev.errors import VhostUserViolation

__all__ = ["Message", "MessageDecoder", "encode", "parse_payload", "request_name"]

_header = struct_of(HEADER)
_HEADER_CLAUSE = "Message Specification / Header"
_COMMUNICATION_CLAUSE = "Communication"
_KNOWN_FLAGS = VERSION_MASK | int(Flag.REPLY | Flag.NEED_REPLY)


class Message:
    """One message. It owns the file descriptors that came with it until they are taken; `close` closes the rest."""

    __slots__ = ("body", "fds", "flags", "request")

    def __init__(self, request: int, flags: int, body: bytes, fds: Iterable[int] = ()) -> None:
        self.request = request
        self.flags = flags
        self.body = body
        self.fds = list(fds)

    @property
    def is_reply(self) -> bool:
        """Whether it answers a request."""
        return bool(self.flags & Flag.REPLY)

    @property
    def needs_reply(self) -> bool:
        """Whether its sender wants an answer to a request that has none by itself."""
        return bool(self.flags & Flag.NEED_REPLY)

    def take_fds(self) -> list[int]:
        """Return the file descriptors; closing them is the caller's business from now on."""
        fds, self.fds = self.fds, []
        return fds

    def close(self) -> None:
        """Close the file descriptors that nobody took."""
        for fd in self.take_fds():
            os.close(fd)

    def __repr__(self) -> str:
        return f"Message(request={self.request}, flags={self.flags:#x}, body={self.body!r}, fds={self.fds})"


def encode(request: int, body: bytes = b"", *, is_reply: bool = False, need_reply: bool = False) -> bytes:
    """Return the bytes of a message; its file descriptors go beside the first of them."""
    flags = VERSION | (Flag.REPLY if is_reply else 0) | (Flag.NEED_REPLY if need_reply else 0)
    return _header.pack(request, flags, len(body)) + body


_V = TypeVar("_V", bound=VhostUserViolation)


class MessageDecoder(Generic[_V]):
    """Cuts messages out of the bytes and file descriptors that one side sent.

    `violation` is the error for what that side does wrong; `requests` names requests in it. What raised once is not
    fed again: the stream cannot be trusted to be in step.

    >>> from vdev.errors import FrontEndViolation
    >>> decoder = MessageDecoder(FrontEndViolation)
    >>> decoder.feed(encode(1)[:7])
    []
    >>> [message.request for message in decoder.feed(encode(1)[7:] + encode(3))]
    [1, 3]
    """

    def __init__(self, violation: Callable[..., _V], requests: type[IntEnum] | None = None) -> None:
        self._violation = violation
        self._requests = requests
        self._header = bytearray()
        self._body = bytearray()
        self._fds: list[int] = []
        self._fields: tuple[int, int, int] | None = None

    @property
    def wanted_size(self) -> int:
        """Bytes, at least one, up to the end of the header or the payload under way.

        Who reads no more than that from a socket gets each message's file descriptors with its own bytes.
        """
        if self._fields is None:
            return _header.size - len(self._header)
        return self._fields[2] - len(self._body)

    @property
    def is_between_messages(self) -> bool:
        """Whether the stream may end here."""
        return not self._header and not self._fds

    def feed(self, data: bytes, fds: Iterable[int] = ()) -> list[Message]:
        """Return the messages that `data` completes.

        `fds` belong to the message in which `data` begins, and to this object until that message is returned.
        Raises the violation for a header that no message can have, or too many file descriptors; `close` afterwards.
        """
        self._fds.extend(fds)
        if len(self._fds) > MAX_FD_COUNT:
            raise self._wrong(_COMMUNICATION_CLAUSE, f"more than {MAX_FD_COUNT} file descriptors in one message")
        messages: list[Message] = []
        rest = memoryview(data)
        try:
            while rest:
                part = rest[: self.wanted_size]
                rest = rest[len(part) :]
                if (message := self._take(part)) is not None:
                    messages.append(message)
        except BaseException:
            for message in messages:
                message.close()
            raise
        return messages

    def _take(self, part: memoryview) -> Message | None:
        if self._fields is None:
            self._header += part
            if len(self._header) < _header.size:
                return None
            self._fields = self._check_header()
        else:
            self._body += part
        request, flags, size = self._fields
        if len(self._body) < size:
            return None
        message = Message(request, flags, bytes(self._body), self._fds)
        self._header, self._body, self._fds, self._fields = bytearray(), bytearray(), [], None
        return message

    def _check_header(self) -> tuple[int, int, int]:
        request, flags, size = _header.unpack(self._header)
        if flags & VERSION_MASK != VERSION:
            raise self._wrong(_HEADER_CLAUSE, f"version {flags & VERSION_MASK}, not {VERSION}", request)
        if flags & ~_KNOWN_FLAGS:
            raise self._wrong(_HEADER_CLAUSE, f"unknown flags {flags & ~_KNOWN_FLAGS:#x}", request)
        if size > MAX_PAYLOAD_SIZE:
            raise self._wrong(_HEADER_CLAUSE, f"a payload of {size} bytes, more than {MAX_PAYLOAD_SIZE}", request)
        return request, flags, size

    def end(self) -> None:
        """Take note that the stream ended. Raises the violation if that was inside a message."""
        if not self.is_between_messages:
            raise self._wrong(_COMMUNICATION_CLAUSE, f"the stream ended {self.wanted_size} bytes before a message did")

    def close(self) -> None:
        """Close the file descriptors of a message that was never completed."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)

    def _wrong(self, clause: str, what: str, request: int | None = None) -> _V:
        if request is None and self._fields is not None:
            request = self._fields[0]
        return self._violation(clause, what, request=request_name(self._requests, request))


def request_name(requests: type[IntEnum] | None, request: int | None) -> str | None:
    """Return what the text calls a request, its number where it does not know it."""
    if request is None:
        return None
    if requests is not None and request in set(requests):
        return requests(request).name
    return f"request {request}"


def parse_payload(
    message: Message,
    shape: RequestShape,
    name: str,
    violation: Callable[..., VhostUserViolation],
    *,
    as_reply: bool = False,
) -> Any:
    """Return the payload as a construct container, None where the request (or, with `as_reply`, its reply) has none.

    Raises the violation for a payload that is too short or too long, or, in a request, for a number of file
    descriptors that it does not take.
    """
    layout = shape.reply if as_reply else shape.payload
    if not as_reply and len(message.fds) not in shape.fd_counts:
        raise violation(
            _COMMUNICATION_CLAUSE,
            f"{len(message.fds)} file descriptors came along, not {_words(shape.fd_counts)}",
            request=name,
        )
    size = len(message.body)
    if layout is None:
        if size:
            raise violation(_HEADER_CLAUSE, f"a payload of {size} bytes where there is none", request=name)
        return None
    try:
        payload = layout.parse(message.body)
    except construct.ConstructError:
        raise violation(_HEADER_CLAUSE, f"a payload of {size} bytes is too short", request=name) from None
    surplus = size - len(layout.build(payload))
    if surplus and surplus != shape.padding_size:
        raise violation(_HEADER_CLAUSE, f"a payload of {size} bytes is {surplus} too long", request=name)
    return payload


def _words(counts: range) -> str:
    return str(counts.start) if len(counts) == 1 else f"{counts.start} to {counts.stop - 1}"
