"""A file descriptor that a front end sent to kick with, to be called with, or to be told of an error.

The text allows an eventfd or a pipe. Whose it is decides little: it may be anything, full, or closed at its other end.
"""

import os
import select
import stat
from collections.abc import Callable

from vdev.vhost_user.at_once import read_at_once

__all__ = ["EventFd", "EventFdGone"]

_SIGNAL = (1).to_bytes(8, "little")
_UNFIT = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISBLK)


class EventFdGone(Exception):
    """The file descriptor can no longer be read or written: its other end is closed, or it never was an event."""


class EventFd:
    """Owns `fd`. `before_close` is called with it first, so that whoever waits on it is told.

    Raises ValueError, and closes `fd`, if nobody could wait on it.
    """

    def __init__(self, fd: int, before_close: Callable[[int], None] = lambda _: None) -> None:
        self._fd = fd
        self._before_close = before_close
        mode = os.fstat(fd).st_mode
        if any(is_unfit(mode) for is_unfit in _UNFIT):
            os.close(fd)
            raise ValueError("a file is no event")
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return self._fd

    def take(self) -> bool:
        """Take the signals there are; false if there are none. Never waits. Raises EventFdGone."""
        try:
            taken = read_at_once(self._fd, 8)
        except BlockingIOError:
            return False
        except OSError as error:
            raise EventFdGone(f"it cannot be read: {error}") from error
        if not taken:
            raise EventFdGone("its other end is closed")
        return True

    def signal(self) -> None:
        """Add one; a reader that is so far behind that no more fits loses nothing. Raises EventFdGone."""
        try:
            # Not with `write_at_once`: the kernel has no such write for an eventfd, and would have to be asked first.
            if self._room.poll(0):
                os.write(self._fd, _SIGNAL)
        except BlockingIOError:
            pass
        except OSError as error:
            raise EventFdGone(f"it cannot be written: {error}") from error

    def wake(self) -> None:
        """Make whoever waits on it look again."""
        if self._fd >= 0:
            self._before_close(self._fd)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._fd >= 0:
            self.wake()
            os.close(self._fd)
            self._fd = -1
