"""A connection to a back end: the one file of the front end that reads, writes and waits, each time with a limit.

Sockets are used without waiting (MSG_DONTWAIT) and polled: while an answer is awaited, the back-end channel is served
too, for the back end may stand still until its own request is answered.
"""

import array
import select
import socket
import time
from collections.abc import Callable, Sequence

from guest_agent.vhost_user.errors import BackEndGone, BackEndNotResponding
from spec.vhost_user import MAX_FD_COUNT, U64, BackEndRequest, FrontEndRequest
from vdev.errors import BackEndViolation
from vdev.notify import EventfdDoorbell
from vdev.vhost_user.framing import Message, MessageDecoder, encode

__all__ = ["PATIENCE", "BackEndConnection"]

PATIENCE = 30.0
"""Seconds that a back end gets for one answer: a machine may be busy, a block device may have much in flight."""

_CHANNEL_LIMIT = 64
"""Messages taken from the channel in one go: a back end that never stops sending does not hold its front end."""

_ANCILLARY_SIZE = socket.CMSG_SPACE((MAX_FD_COUNT + 1) * array.array("i").itemsize)


class BackEndConnection:
    """Takes over `sock`, a connected unix stream socket.

    `serve` is asked about each message of the channel; `patience` is in seconds of `clock`. After any error but
    BackEndRefused the connection is of no use: `close` it.
    """

    def __init__(
        self,
        sock: socket.socket,
        serve: Callable[[Message], BackEndRequest],
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Rung for each CONFIG_CHANGE_MSG: one that came while an answer was awaited must be seen by who polls, too.
        self._config_changed = EventfdDoorbell()
        self._socket = sock
        self._serve = serve
        self._patience = patience
        self._clock = clock
        self._decoder = MessageDecoder(BackEndViolation, FrontEndRequest)
        self._messages: list[Message] = []
        self._channel: socket.socket | None = None
        self._channel_decoder = MessageDecoder(BackEndViolation, BackEndRequest)

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when the back end asks something or is gone."""
        things = (self._socket, self._channel, self._config_changed)
        return [thing.fileno() for thing in things if thing is not None and thing.fileno() >= 0]

    def take_config_changes(self) -> int:
        """Return how many CONFIG_CHANGE_MSGs came since the last call."""
        return self._config_changed.take()

    def open_channel(self) -> socket.socket:
        """Make the back-end channel; returns the end that goes to the back end, and is then to be closed."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return theirs

    def close(self) -> None:
        """Close sockets, and file descriptors that nobody took."""
        for message in self._messages:
            message.close()
        self._messages.clear()
        self._decoder.close()
        self._socket.close()
        self._config_changed.close()
        self._close_channel()

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._channel_decoder.close()

    # The main connection

    def deadline(self) -> float:
        """Return when patience ends for what begins now."""
        return self._clock() + self._patience

    def send(self, data: bytes, fds: Sequence[int], what: str) -> None:
        """Send a message with its file descriptors; `what` names it in errors.

        Raises BackEndGone, BackEndNotResponding if the back end does not read, BackEndViolation for the channel's.
        """
        self.look(f"before it had {what}")
        deadline = self.deadline()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        rest = memoryview(data)
        while rest:
            try:
                count = self._socket.sendmsg([rest], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self.wait(self._socket.fileno(), select.POLLOUT, deadline, f"read {what}")
                continue
            except OSError as error:
                raise _gone(f"before it had {what}", error) from error
            rest, ancillary = rest[count:], []

    def receive(self, what: str) -> Message:
        """Return the next message; `what` names what it should answer.

        Raises BackEndGone, BackEndNotResponding or BackEndViolation.
        """
        deadline = self.deadline()
        while not self._messages:
            messages = _read(self._socket, self._decoder, f"instead of answering {what}")
            if messages is None:
                self.wait(self._socket.fileno(), select.POLLIN, deadline, f"answer {what}")
            else:
                self._messages += messages
        return self._messages.pop(0)

    def look(self, when: str = "") -> None:
        """See whether the back end is there and silent, and take what its channel has; never waits.

        `when` goes into the error. Raises BackEndGone, or BackEndViolation if it sent what nobody asked for.
        """
        if _read(self._socket, self._decoder, when) is not None or self._messages:
            raise BackEndViolation("Communication", "it sent something, and nothing was asked")
        self._serve_channel()

    def wait(self, fd: int, events: int, deadline: float, what: str) -> None:
        """Wait until `fd` is ready for `events` (of select.poll), serving the channel meanwhile.

        Raises BackEndNotResponding ("did not `what`") at the deadline, BackEndViolation for the channel's.
        """
        while True:
            remaining = deadline - self._clock()
            if remaining <= 0:
                raise BackEndNotResponding(f"the back end did not {what} within {self._patience:g} s")
            poll = select.poll()
            poll.register(fd, events)
            if self._channel is not None:
                poll.register(self._channel, select.POLLIN)
            ready = {ready_fd for ready_fd, _ in poll.poll(remaining * 1000)}
            if self._channel is not None and self._channel.fileno() in ready:
                self._serve_channel()
            if fd in ready:
                return

    # The back-end channel

    def _serve_channel(self) -> None:
        for _ in range(_CHANNEL_LIMIT):
            if self._channel is None:
                return
            try:
                messages = _read(self._channel, self._channel_decoder, "")
            except BackEndGone:
                # It needs no channel to go on with its rings; it just cannot ask anything any more.
                self._close_channel()
                return
            if messages is None:
                return
            for message in messages:
                self._answer_channel(message)

    def _answer_channel(self, message: Message) -> None:
        try:
            request = self._serve(message)
        finally:
            message.close()
        if request is BackEndRequest.CONFIG_CHANGE_MSG:
            self._config_changed.ring()
        if message.needs_reply and self._channel is not None:
            reply = encode(request, U64.build({"value": 0}), is_reply=True)
            try:
                sent_size = self._channel.send(reply, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                sent_size = 0
            except OSError:
                self._close_channel()
                return
            if sent_size != len(reply):
                raise BackEndViolation("Back-end communication", "it does not read answers", request=request.name)


def _read(sock: socket.socket, decoder: MessageDecoder[BackEndViolation], when: str) -> list[Message] | None:
    """Return the messages that are complete now, None if there is nothing to read; never waits.

    Raises BackEndGone at the end of the stream, with `when`, or BackEndViolation.
    """
    try:
        data, ancillary, flags, _ = sock.recvmsg(
            decoder.wanted_size, _ANCILLARY_SIZE, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        return None
    except OSError as error:
        raise _gone(when, error) from error
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    # Fed first: from here on the decoder closes them.
    messages = decoder.feed(data, fds)
    if flags & socket.MSG_CTRUNC:
        for message in messages:
            message.close()
        raise BackEndViolation("Communication", f"more than {MAX_FD_COUNT} file descriptors in one message")
    if not data:
        decoder.end()
        raise BackEndGone(f"the back end closed the connection {when}".rstrip())
    return messages


def _gone(when: str, error: OSError) -> BackEndGone:
    return BackEndGone(f"the back end closed the connection {when} ({error.strerror or error})")
