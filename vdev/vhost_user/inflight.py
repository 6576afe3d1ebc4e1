"""The area in which a back end notes the buffers that it works on, so that the next one can go on with them.

The front end keeps it ("Inflight I/O tracking"). It is shared, so nothing read from it is believed.
"""

import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from spec.inflight import (
    INFLIGHT_ALIGNMENT,
    PACKED_INFLIGHT,
    PACKED_INFLIGHT_DESCRIPTOR,
    SPLIT_INFLIGHT,
    SPLIT_INFLIGHT_DESCRIPTOR,
)
from spec.layout import dtype_of
from spec.vhost_user import INFLIGHT
from vdev.errors import FrontEndViolation
from vdev.memory import FileBacking
from vdev.vhost_user.framing import Message

__all__ = ["Inflight", "InflightRegion"]

_CLAUSE = "Inflight I/O tracking"


class InflightRegion:
    """One queue's part of the area, live: the head's fields, and an array with an element for each descriptor."""

    def __init__(self, data: npt.NDArray[np.uint8], size: int, *, packed: bool) -> None:
        self.size = size
        self.packed = packed
        head, each = _layouts(packed)
        self.head: npt.NDArray[Any] = data[: head.itemsize].view(head).reshape(())
        self.descriptors: npt.NDArray[Any] = data[head.itemsize : head.itemsize + size * each.itemsize].view(each)


def _layouts(packed: bool) -> tuple[np.dtype[Any], np.dtype[Any]]:
    if packed:
        return dtype_of(PACKED_INFLIGHT), dtype_of(PACKED_INFLIGHT_DESCRIPTOR)
    return dtype_of(SPLIT_INFLIGHT), dtype_of(SPLIT_INFLIGHT_DESCRIPTOR)


def _region_size(queue_size: int, packed: bool) -> int:
    head, each = _layouts(packed)
    return -(-(head.itemsize + queue_size * each.itemsize) // INFLIGHT_ALIGNMENT) * INFLIGHT_ALIGNMENT


class Inflight:
    """The area of a session whose device has `queue_count` queues of at most `queue_size` descriptors."""

    def __init__(self, queue_count: int, queue_size: int) -> None:
        self._queue_count = queue_count
        self._queue_size = queue_size
        self._backing: FileBacking | None = None
        self._data: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._sizes = (0, 0)

    def make(self, payload: Any, *, packed: bool) -> tuple[bytes, int]:
        """GET_INFLIGHT_FD: return a description and the descriptor of a new, empty area. Raises FrontEndViolation."""
        self._check(payload)
        size = _region_size(payload.queue_size, packed) * payload.queue_count
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.memfd_create("vdev-inflight", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        description = INFLIGHT.build(
            {
                "mmap_size": size,
                "mmap_offset": 0,
                "queue_count": payload.queue_count,
                "queue_size": payload.queue_size,
            }
        )
        return description, fd

    def set(self, payload: Any, message: Message, *, packed: bool) -> None:
        """SET_INFLIGHT_FD: note buffers in this area from now on. Raises FrontEndViolation."""
        self._check(payload)
        needed = _region_size(payload.queue_size, packed) * payload.queue_count
        if payload.mmap_size < needed:
            raise FrontEndViolation(_CLAUSE, f"an area of {payload.mmap_size} bytes, fewer than {needed}")
        skipped = payload.mmap_offset % mmap.PAGESIZE
        fd = message.fds[0]
        try:
            if payload.mmap_offset + payload.mmap_size > os.fstat(fd).st_size:
                raise FrontEndViolation(_CLAUSE, "the area reaches beyond the end of its file")
            backing = FileBacking(fd, skipped + needed, payload.mmap_offset - skipped)
        except (OSError, ValueError, OverflowError) as error:
            raise FrontEndViolation(_CLAUSE, f"the area cannot be mapped: {error}") from error
        message.take_fds()
        self.close()
        self._backing = backing
        self._data = backing.data[skipped:]
        self._sizes = payload.queue_count, payload.queue_size

    def _check(self, payload: Any) -> None:
        if not 0 < payload.queue_count <= self._queue_count or not 0 < payload.queue_size <= self._queue_size:
            raise FrontEndViolation(
                _CLAUSE,
                f"{payload.queue_count} queues of {payload.queue_size} descriptors; there are {self._queue_count} of "
                f"at most {self._queue_size}",
            )

    def region(self, number: int, size: int, *, packed: bool) -> InflightRegion | None:
        """Return the part for queue `number` of `size` descriptors, None if there is none.

        Raises FrontEndViolation if its part is too small.
        """
        queue_count, queue_size = self._sizes
        if self._backing is None or number >= queue_count:
            return None
        stride = _region_size(queue_size, packed)
        if size > queue_size or len(self._data) < stride * queue_count:
            raise FrontEndViolation(_CLAUSE, f"the area has no room for {size} descriptors", queue=number)
        return InflightRegion(self._data[stride * number : stride * (number + 1)], size, packed=packed)

    def close(self) -> None:
        """Note nothing any more, and close the file."""
        if self._backing is not None:
            self._backing.close()
            self._backing = None
            self._data = np.empty(0, np.uint8)
