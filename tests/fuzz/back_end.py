"""A vhost-user back end whose front end sends what it likes: refusals and FrontEndViolation, and no descriptor left."""

import gc
import os
from collections.abc import Iterator

from spec.balloon import QueueNumbering
from vdev.devices.balloon import BalloonDevice
from vdev.errors import FrontEndViolation
from vdev.memory import PAGE_SIZE, GuestMemory
from vdev.vhost_user.framing import Message
from vdev.vhost_user.session import Session

__all__ = ["fuzz_back_end"]

_FILE_SIZE = 0x4000
_CONTENT_SIZE = 512
_MESSAGE_LIMIT = 40


def fuzz_back_end(data: bytes) -> None:
    """Hand messages to a session with a balloon.

    Each message is four bytes, request, flags, which descriptors come along and the payload's size, and the payload.
    After each one every queue is kicked. What a file of RAM holds is the input's end, over again on each page.
    """
    before = _open_count()
    _converse(data)
    if _open_count() != before:
        gc.collect()  # a mapping of RAM has a descriptor of its own until nothing refers to it
    assert _open_count() == before, "a descriptor was left open"


def _converse(data: bytes) -> None:
    session = Session(BalloonDevice(GuestMemory.absent(), numbering=QueueNumbering.COMPACT))
    try:
        for message in _messages(data):
            session.handle(message)
            for number in list(session.device.queues):
                session.device.queue_notify(number)
    except FrontEndViolation:
        pass
    finally:
        session.close()


def _messages(data: bytes) -> Iterator[Message]:
    content = data[-_CONTENT_SIZE:].ljust(PAGE_SIZE, b"\0") * (_FILE_SIZE // PAGE_SIZE)
    for _ in range(_MESSAGE_LIMIT):
        if len(data) < 4:
            return
        request, flags, fds, size = data[:4]
        yield Message(request, flags, data[4 : 4 + size], [_open(fds >> 4, content) for _ in range(fds & 7)])
        data = data[4 + size :]


def _open(kind: int, content: bytes) -> int:
    """Return a descriptor of one of the kinds that a front end may send: RAM, an event, and what is neither."""
    match kind & 3:
        case 0:
            return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        case 1:
            fd = os.memfd_create("ram")
            os.write(fd, content)
            return fd
        case 2:
            return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        case _:
            read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.close(write_end)
            return read_end


def _open_count() -> int:
    return len(os.listdir("/proc/self/fd"))
