"""A doorbell between processes: an eventfd, as KVM's ioeventfd and irqfd are."""

import os

import trio

__all__ = ["EventfdDoorbell"]


class EventfdDoorbell:
    """A non-blocking eventfd. `fileno()` can be polled, and inherited by another process.

    Pass `fd` to wrap one that another process made; otherwise a new one is opened.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if fd is None else fd

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return self._fd

    def ring(self) -> None:
        """Add one."""
        os.eventfd_write(self._fd, 1)

    def take(self) -> int:
        """Return the rings since the last take."""
        try:
            return os.eventfd_read(self._fd)
        except BlockingIOError:
            return 0

    async def wait_rung(self) -> int:
        """Wait for a ring, then take."""
        while not (count := self.take()):
            await trio.lowlevel.wait_readable(self._fd)
        return count

    def close(self) -> None:
        """Close the file descriptor; a second call does nothing."""
        if self._fd >= 0:
            if _in_trio():
                trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)
            self._fd = -1


def _in_trio() -> bool:
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True
