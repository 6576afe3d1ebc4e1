"""The area in which a back end notes the buffers that it works on ("Inflight I/O tracking"), as raw bytes."""

import mmap
import os

__all__ = ["InflightArea"]


class InflightArea:
    """What a back end made, described by its answer, or bytes of a check's own. It owns `fd`; `close` it at the end.

    Raises OSError or ValueError if it cannot be mapped as described.
    """

    def __init__(self, fd: int, mmap_size: int, mmap_offset: int, queue_count: int, queue_size: int) -> None:
        self.fd = fd
        self.mmap_size = mmap_size
        self.mmap_offset = mmap_offset
        self.queue_count = queue_count
        self.queue_size = queue_size
        skipped = mmap_offset % mmap.ALLOCATIONGRANULARITY
        self._mapping = mmap.mmap(fd, skipped + mmap_size, offset=mmap_offset - skipped)
        self.data = memoryview(self._mapping)[skipped:]
        """The live bytes."""

    @classmethod
    def make(cls, size: int, queue_count: int, queue_size: int) -> "InflightArea":
        """Return an area of `size` zero bytes that no back end made."""
        fd = os.memfd_create("vdev-check-inflight", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        return cls(fd, size, 0, queue_count, queue_size)

    def close(self) -> None:
        """Unmap and close it; a second call does nothing."""
        if self.fd >= 0:
            self.data.release()
            self._mapping.close()
            os.close(self.fd)
            self.fd = -1
