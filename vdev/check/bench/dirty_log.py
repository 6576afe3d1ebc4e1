"""The log of what a back end writes: a bit for each page of guest-physical address space ("Migration")."""

import mmap
import os

from spec.vhost_user import LOG_PAGE_SIZE

__all__ = ["DirtyLog"]


class DirtyLog:
    """A file that has room for guest-physical addresses below `end`; the log begins `offset` bytes into it.

    Canaries round the log are not kept: `content` gives the whole file. `close` it at the end.
    """

    def __init__(self, end: int, offset: int = 0) -> None:
        self.size = -(-end // (LOG_PAGE_SIZE * 8))
        self.offset = offset
        self.fd = os.memfd_create("vdev-check-log", os.MFD_CLOEXEC)
        self._file_size = -(-(offset + self.size) // mmap.PAGESIZE) * mmap.PAGESIZE
        os.ftruncate(self.fd, self._file_size)

    def content(self) -> bytes:
        """Return the whole file, what stands before and behind the log too."""
        return os.pread(self.fd, self._file_size, 0)

    def pages(self) -> set[int]:
        """Return the numbers of the pages that are marked."""
        content = os.pread(self.fd, self.size, self.offset)
        return {8 * place + bit for place, byte in enumerate(content) if byte for bit in range(8) if byte >> bit & 1}

    def clear(self) -> None:
        """Take all marks away. A mark that is set at this moment may be lost: stop the rings before."""
        os.pwrite(self.fd, bytes(self.size), self.offset)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
