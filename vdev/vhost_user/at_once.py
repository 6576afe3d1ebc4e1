"""Reading and writing a file descriptor that somebody else has, too, without ever waiting.

O_NONBLOCK belongs to all who have the file: who sent it may clear the flag at any moment, or rely on it being clear.
So it is neither set nor believed here; the kernel is told with each call.
"""

import errno
import os
import select

__all__ = ["read_at_once", "write_at_once"]

_ATOMIC = select.PIPE_BUF
"""Bytes for which there is room in a pipe that says it can be written."""


def read_at_once(fd: int, size: int) -> bytes:
    """Return at most `size` bytes, b"" at the end. Raises BlockingIOError if there are none yet, OSError as read(2)."""
    buffer = bytearray(size)
    try:
        count = os.preadv(fd, [buffer], -1, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        _wait_not(fd, select.POLLIN)
        return os.read(fd, size)
    return bytes(buffer[:count])


def write_at_once(fd: int, data: bytes | memoryview) -> int:
    """Write what there is room for; return its size. Raises BlockingIOError if there is none, OSError as write(2)."""
    try:
        return os.pwritev(fd, [data], -1, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        _wait_not(fd, select.POLLOUT)
        return os.write(fd, data[:_ATOMIC])


def _wait_not(fd: int, event: int) -> None:
    # Files of kernels and kinds that do not know the flag: what is seen here may be gone before it is used, but only
    # if the other side races its own file.
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
