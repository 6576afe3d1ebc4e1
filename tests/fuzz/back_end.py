"""A vhost-user back end whose front end sends what it likes: refusals and FrontEndViolation, and no descriptor left."""

import gc
import os
from collections.abc import Iterator
from contextlib import suppress

from spec.balloon import QueueNumbering
from spec.vhost_user import TransferDirection
from vdev.devices.balloon import BalloonDevice
from vdev.errors import FrontEndViolation, SavedStateError
from vdev.memory import PAGE_SIZE, GuestMemory
from vdev.vhost_user.device_state import Transfer
from vdev.vhost_user.framing import Message
from vdev.vhost_user.session import Session

__all__ = ["STORE", "fuzz_back_end"]

STORE = 255
"""No request: the front end stores into the file that it sent last, two bytes of offset and then what is stored."""

_FILE_SIZE = 0x4000
_CONTENT_SIZE = 512
_MESSAGE_LIMIT = 40
_MARKER = b"vdevbe1\0"
"""How a saved back end begins."""


def fuzz_back_end(data: bytes) -> None:
    """Hand messages to a session with a balloon.

    Each message is four bytes, request, flags, which descriptors come along and the payload's size, and the payload.
    After each one every queue is kicked. What a file of RAM holds is the input's end, over again on each page; what
    a channel for the device's state holds is the input from where such a state begins.
    """
    before = _open_count()
    with _Conversation(data) as conversation:
        conversation.run()
    if _open_count() != before:
        gc.collect()  # a mapping of RAM has a descriptor of its own until nothing refers to it
    assert _open_count() == before, "a descriptor was left open"


class _Conversation:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._content = data[-_CONTENT_SIZE:].ljust(PAGE_SIZE, b"\0") * (_FILE_SIZE // PAGE_SIZE)
        self._state = data[max(data.find(_MARKER), 0) :]
        self._kept: list[int] = []
        self._session = Session(BalloonDevice(GuestMemory.absent(), numbering=QueueNumbering.COMPACT))
        self._session.state.on_start = self._carry

    def __enter__(self) -> "_Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        for fd in self._kept:
            os.close(fd)

    def run(self) -> None:
        """Say it all, or as much as the back end listens to."""
        session = self._session
        for message in self._messages():
            if message.request == STORE:
                self._store(message.body)
                message.close()
            else:
                try:
                    answer = session.handle(message)
                except FrontEndViolation:
                    return
                for fd in answer.fds if answer is not None else ():
                    os.close(fd)
            for number in list(session.device.queues):
                session.device.queue_notify(number)

    def _messages(self) -> Iterator[Message]:
        data = self._data
        for _ in range(_MESSAGE_LIMIT):
            if len(data) < 4:
                return
            request, flags, fds, size = data[:4]
            yield Message(request, flags, data[4 : 4 + size], [self._open(fds >> 4) for _ in range(fds & 7)])
            data = data[4 + size :]

    def _open(self, kind: int) -> int:
        """Return a descriptor of one of the kinds that a front end may send: RAM, an event, and what is neither."""
        match kind & 7:
            case 0:
                return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            case 1:
                return self._file(self._content)
            case 2:
                return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            case 3:
                read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                os.close(write_end)
                return read_end
            case 4:
                # An area for buffers in flight, or a log, of which nothing is used yet.
                return self._file(bytes(_FILE_SIZE))
            case 5:
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                os.write(write_end, self._state)
                os.close(write_end)
                return read_end
            case 6:
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                self._kept.append(read_end)
                return write_end
            case _:
                return os.open("/dev/zero", os.O_PATH | os.O_CLOEXEC)

    def _file(self, content: bytes) -> int:
        fd = os.memfd_create("ram")
        os.write(fd, content)
        self._kept.append(os.dup(fd))
        return fd

    def _store(self, body: bytes) -> None:
        if self._kept:
            with suppress(OSError):  # a pipe has no places
                os.pwrite(self._kept[-1], body[2:], int.from_bytes(body[:2], "little") % (_FILE_SIZE - 256))

    def _carry(self, transfer: Transfer) -> None:
        """Move the device's state at once, as `vdev.vhost_user.state_carrier` does piece by piece."""
        try:
            if transfer.direction is TransferDirection.SAVE:
                os.write(transfer.fd, transfer.data)
            else:
                self._session.load_state(os.read(transfer.fd, _FILE_SIZE))
        except (OSError, SavedStateError) as error:
            transfer.fail(str(error))
        else:
            transfer.succeed()
        finally:
            transfer.close()


def _open_count() -> int:
    return len(os.listdir("/proc/self/fd"))
