"""The area in which a back end notes the buffers that it works on: the front end keeps it for the next one."""

import os

from guest_agent.vhost_user.back_end import BackEnd
from guest_agent.vhost_user.errors import BackEndRefused
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

    def share(self, back_end: BackEnd) -> None:
        """Give the area to a back end, before its rings start. Raises BackEndLost or BackEndRefused."""
        back_end.ask(FrontEndRequest.SET_INFLIGHT_FD, fds=[self._fd], **self._fields)

    def close(self) -> None:
        """Close the file descriptor; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
