"""The area in which a back end notes the buffers that it works on: the front end keeps it for the next one."""

import os

import numpy as np

from guest_agent.vhost_user.back_end import BackEnd
from guest_agent.vhost_user.errors import BackEndRefused
from spec.inflight import INFLIGHT_ALIGNMENT, INFLIGHT_VERSION, PACKED_INFLIGHT, PACKED_INFLIGHT_DESCRIPTOR
from spec.layout import dtype_of
from spec.vhost_user import FrontEndRequest

__all__ = ["InflightArea"]


class InflightArea:
    """Shared memory that a back end made ("Inflight I/O tracking"). Holds its file descriptor until `close`."""

    def __init__(self, fd: int, size: int, offset: int, queue_count: int, queue_size: int) -> None:
        self._fd = fd
        self._fields = {
            "mmap_size": size,
            "mmap_offset": offset,
            "queue_count": queue_count,
            "queue_size": queue_size,
        }

    @classmethod
    def get(cls, back_end: BackEnd, queue_count: int, queue_size: int) -> "InflightArea":
        """Have a back end make an area for so many rings of so many descriptors. Raises BackEndLost."""
        reply, fd = back_end.ask_for_fd(
            FrontEndRequest.GET_INFLIGHT_FD, mmap_size=0, mmap_offset=0, queue_count=queue_count, queue_size=queue_size
        )
        if fd is None:
            raise BackEndRefused("Inflight I/O tracking", f"{back_end.name} made no area")
        return cls(fd, reply.mmap_size, reply.mmap_offset, queue_count, queue_size)

    def packed_used(self, number: int, size: int) -> int | None:
        """Return where the back end stood in using packed ring `number`, as the area says: the index, the wrap counter
        in bit 15. None if the area was never used for a ring of this size.
        """
        head, each = dtype_of(PACKED_INFLIGHT), dtype_of(PACKED_INFLIGHT_DESCRIPTOR)
        end = head.itemsize + self._fields["queue_size"] * each.itemsize
        stride = -(-end // INFLIGHT_ALIGNMENT) * INFLIGHT_ALIGNMENT
        content = os.pread(self._fd, head.itemsize, self._fields["mmap_offset"] + number * stride)
        if len(content) < head.itemsize:
            return None
        region = np.frombuffer(content, head, 1)[0]
        index = int(region["old_used_idx"])
        if region["version"] != INFLIGHT_VERSION or region["descriptor_count"] != size or index >= size:
            return None
        return index | int(region["old_used_wrap_counter"] & 1) << 15

    def share(self, back_end: BackEnd) -> None:
        """Give the area to a back end, before its rings start. Raises BackEndLost or BackEndRefused."""
        back_end.ask(FrontEndRequest.SET_INFLIGHT_FD, fds=[self._fd], **self._fields)

    def close(self) -> None:
        """Close the file descriptor; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
