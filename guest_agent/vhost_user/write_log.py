"""The log of what a back end writes: a bit for each page of guest-physical address space ("Migration").

A bit that is cleared while the back end sets its neighbour could be lost: Python clears no bits atomically. So nothing
is cleared: each look gives the back end a fresh log, and reads the old one, which nobody writes any more.
"""

import mmap
import os

import numpy as np
import numpy.typing as npt

from guest_agent.vhost_user.back_end import BackEnd
from guest_agent.vhost_user.errors import BackEndRefused
from spec.vhost_user import LOG_ALL, LOG_PAGE_SIZE, FrontEndRequest, ProtocolFeature
from vdev.memory import GuestMemory

__all__ = ["WriteLog"]


class WriteLog:
    """Logs writes to `memory`. `close` it at the end."""

    def __init__(self, memory: GuestMemory) -> None:
        end = max(region.end for region in memory.regions)
        self._size = -(-end // (LOG_PAGE_SIZE * 8))
        self._fd = -1

    def renew(self, back_end: BackEnd) -> npt.NDArray[np.int64]:
        """Have the back end log into a fresh file; return the page frames that the old one has, ascending.

        Raises BackEndLost, or BackEndRefused if it does not log.
        """
        if not back_end.has(ProtocolFeature.LOG_SHMFD) or not back_end.offered_features >> LOG_ALL & 1:
            raise BackEndRefused("Migration", f"{back_end.name} does not log what it writes")
        fd = os.memfd_create("vdev-write-log", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, -(-self._size // mmap.PAGESIZE) * mmap.PAGESIZE)
            back_end.ask(FrontEndRequest.SET_LOG_BASE, fds=[fd], size=self._size, offset=0)
        except BaseException:
            os.close(fd)
            raise
        frames = self.read()
        self.close()
        self._fd = fd
        return frames

    def read(self) -> npt.NDArray[np.int64]:
        """Return the page frames that are logged, ascending."""
        if self._fd < 0:
            return np.empty(0, np.int64)
        content = np.frombuffer(os.pread(self._fd, self._size, 0), np.uint8)
        (places,) = np.nonzero(content)
        bits = np.unpackbits(content[places, None], axis=1, bitorder="little")
        rows, columns = np.nonzero(bits)
        return places[rows] * 8 + columns

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
