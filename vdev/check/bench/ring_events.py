"""The eventfds of one ring over vhost-user: kick, call, and error."""

import os
import select

__all__ = ["RingEvents"]


class RingEvents:
    """Those that were made; a new one in the place of another closes that. `close` all at the end."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}
        self.kick_count = 0
        self.call_count = 0
        """Signals of the call descriptor so far; a new descriptor is counted from 0."""
        self.error_count = 0

    def make(self, which: str) -> int:
        """Return a new eventfd as "kick", "call" or "error"."""
        self.drop(which)
        self._fds[which] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        if which == "call":
            self.call_count = 0
        elif which == "error":
            self.error_count = 0
        return self._fds[which]

    def drop(self, which: str) -> None:
        """Have none."""
        if (fd := self._fds.pop(which, None)) is not None:
            os.close(fd)

    def fd(self, which: str) -> int | None:
        """Return an eventfd, None if there is none."""
        return self._fds.get(which)

    def kick(self) -> None:
        """Signal the kick descriptor, if there is one."""
        self.kick_count += 1
        if (fd := self._fds.get("kick")) is not None:
            os.eventfd_write(fd, 1)

    def is_kick_taken(self) -> bool:
        """Say whether the other side has read all kicks."""
        fd = self._fds.get("kick")
        return fd is None or not _is_readable(fd)

    def take(self) -> None:
        """Count the calls and errors there are."""
        self.call_count += _read(self._fds.get("call"))
        self.error_count += _read(self._fds.get("error"))

    def close(self) -> None:
        """Close all."""
        for which in tuple(self._fds):
            self.drop(which)


def _read(fd: int | None) -> int:
    if fd is None:
        return 0
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
