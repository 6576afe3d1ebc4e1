"""A socket with vhost-user messages, one end of it: the one file of the bench that sends, receives and waits for them.

The socket is used without waiting and polled, each time with a limit. While something is awaited, the sockets beside it
are served too: a back end may stand still until a request of its own is answered.
"""

import array
import os
import select
import socket
from collections.abc import Sequence
from enum import IntEnum
from time import monotonic

from spec.layout import struct_of
from spec.vhost_user import HEADER, MAX_FD_COUNT, U64
from vdev.check.target import ConnectionClosed
from vdev.check.verdict import Failed, TargetHung
from vdev.errors import BackEndViolation
from vdev.events import Emitter, MessageReceived, MessageSent
from vdev.vhost_user.framing import Message, MessageDecoder, encode

__all__ = ["MessageSocket"]

_header = struct_of(HEADER)
_ANCILLARY_SIZE = socket.CMSG_SPACE((MAX_FD_COUNT + 1) * array.array("i").itemsize)
_TAKEN_AT_ONCE = 64
"""Messages taken in one go: a peer that never stops sending holds nobody."""


class MessageSocket:
    """Takes over `sock`, a connected unix stream socket; `requests` names what is said on it.

    With `answers`, each message that wants a reply gets one at once, a u64 of `answer`: that is a front end's end of
    the back end's channel.
    """

    def __init__(
        self, sock: socket.socket, requests: type[IntEnum], patience: float, events: Emitter, *, answers: bool = False
    ) -> None:
        self._socket = sock
        self._names = {int(request): request.name for request in requests}
        self._patience = patience
        self._events = events
        self._answers = answers
        self._decoder = MessageDecoder(BackEndViolation, requests)
        self._messages: list[Message] = []
        self._is_closed = False
        self.answer = 0
        """What a message that wants a reply is answered with."""
        self.beside: list[MessageSocket] = []
        """Sockets that are served while something is awaited here."""

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 once closed here."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket, and file descriptors that came and that nobody took."""
        for message in self._messages:
            message.close()
        self._messages.clear()
        self._decoder.close()
        self._socket.close()

    # Sending

    def send_bytes(self, raw: bytes, fds: Sequence[int] = (), *, what: str = "bytes") -> None:
        """Send bytes as they are; the file descriptors go with the first.

        Raises ConnectionClosed, or TargetHung if the other side does not read.
        """
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        rest = memoryview(raw)
        deadline = monotonic() + self._patience
        while rest:
            try:
                count = self._socket.sendmsg([rest], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline, f"read {what}")
                continue
            except OSError as error:
                self._is_closed = True
                raise ConnectionClosed(f"the target had closed the connection before it had {what}") from error
            rest, ancillary = rest[count:], []
        if self._events.listening:
            self._events.emit(MessageSent(what, len(raw), len(fds)))

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
        if flags is None:
            raw = encode(request, body, need_reply=need_reply)
        else:
            raw = _header.pack(request, flags, len(body)) + body
        self.send_bytes(raw, fds, what=self.name_of(request))

    def name_of(self, request: int) -> str:
        """Return what the text calls a request."""
        return self._names.get(request) or f"request {request}"

    # Receiving

    def receive(self, *, after: str = "") -> Message:
        """Return the next message, whose file descriptors are the caller's to take or close.

        Raises TargetHung after the patience, ConnectionClosed, or Failed for what is no message; `after` says what it
        should answer.
        """
        deadline = monotonic() + self._patience
        while not self._messages:
            if self._is_closed:
                raise ConnectionClosed(f"the target closed the connection{f' in answer to {after}' if after else ''}")
            if not self._take_in():
                self._wait(select.POLLIN, deadline, f"answer {after}" if after else "send a message")
        return self._messages.pop(0)

    def waiting(self) -> list[Message]:
        """Return the messages that have come, without waiting; their file descriptors are the caller's."""
        self.take_in()
        messages, self._messages = self._messages, []
        return messages

    def take_in(self) -> None:
        """Take what has come; never waits. Raises Failed for what is no message."""
        for _ in range(_TAKEN_AT_ONCE):
            if self._is_closed or not self._take_in():
                return

    def is_closed(self) -> bool:
        """Say whether the other side has closed the connection; what it had said before stays to be received."""
        self.take_in()
        return self._is_closed

    def wait_closed(self) -> None:
        """Wait until the other side has closed the connection. Raises TargetHung if it does not."""
        deadline = monotonic() + self._patience
        while not self.is_closed():
            self._wait(select.POLLIN, deadline, "close the connection")

    def _take_in(self) -> bool:
        """Take one part of a message; false if there is nothing to read."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                self._decoder.wanted_size, _ANCILLARY_SIZE, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            self._is_closed = True
            return True
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        if not data:
            self._is_closed = True
            for fd in fds:
                os.close(fd)
            return True
        try:
            messages = self._decoder.feed(data, fds)
        except BackEndViolation as violation:
            raise Failed(
                "vhost-user.back-end.reply.1", expected="a message of the protocol", observed=violation.message
            ) from violation
        for message in messages:
            self._note(message)
        self._messages += messages
        if flags & socket.MSG_CTRUNC:
            raise Failed(
                "vhost-user.back-end.reply.1",
                expected=f"at most {MAX_FD_COUNT} file descriptors in one message",
                observed="more",
            )
        return True

    def _note(self, message: Message) -> None:
        if self._events.listening:
            size = _header.size + len(message.body)
            self._events.emit(MessageReceived(self.name_of(message.request), size, len(message.fds)))
        if self._answers and message.needs_reply:
            raw = encode(message.request, U64.build({"value": self.answer}), is_reply=True)
            self.send_bytes(raw, what=f"the answer to {self.name_of(message.request)}")

    def _wait(self, event: int, deadline: float, what: str) -> None:
        """Wait until the socket is ready for `event` of select.poll, serving those beside it meanwhile."""
        while True:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise TargetHung(f"the target did not {what} within {self._patience:g} s")
            poll = select.poll()
            poll.register(self.fileno(), event)
            for other in self.beside:
                if not other._is_closed:
                    poll.register(other.fileno(), select.POLLIN)
            ready = {fd for fd, _ in poll.poll(remaining * 1000)}
            for other in self.beside:
                if other.fileno() in ready:
                    other.take_in()
            if self.fileno() in ready:
                return
