"""A file descriptor that a front end sent to kick with, to be called with, or to be told of an error.

The text allows an eventfd or a pipe. Whose it is decides little: it may be anything, full, or closed at its other end.
"""

import fcntl
import os
import select
import stat
from collections.abc import Callable

__all__ = ["EventFd", "EventFdGone"]

_SIGNAL = (1).to_bytes(8, "little")
_UNFIT = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISBLK)


class EventFdGone(Exception):
    """The file descriptor can no longer be read or written: its other end is closed, or it never was an event."""


class EventFd:
    """Owns `fd`. `before_close` is called with it first, so that whoever waits on it is told.

    Raises ValueError, and closes `fd`, if nobody could wait on it.
    """

    def __init__(self, fd: int, before_close: Callable[[int], None] = lambda _: None, *, read: bool = False) -> None:
        self._fd = fd
        self._before_close = before_close
        mode = os.fstat(fd).st_mode
        if any(is_unfit(mode) for is_unfit in _UNFIT):
            os.close(fd)
            raise ValueError("a file is no event")
        if read:
            # This end is the only reader; the flag does not change what a writer sees of an eventfd.
            os.set_blocking(fd, False)
        self._poll: select.poll | None = None
        if not read and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK:
            # The flag belongs to both ends, and the front end may want to wait in read(2).
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return self._fd

    def take(self) -> bool:
        """Take the signals there are; false if there are none. Never waits. Raises EventFdGone."""
        try:
            taken = os.read(self._fd, 8)
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
            if self._poll is None or self._poll.poll(0):
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
