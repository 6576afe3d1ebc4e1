"""The writing half of a cooperative dirty log: one byte per page, set after the page was written.

A byte and not a bit, because no process here can OR a bit into shared memory atomically; a byte store needs no
read. The protocol: the writer stores the data, then the mark. The reader clears the marks it saw, fences, then reads
the pages. A write that races with the reader is then seen either in the page or in the mark of the next round.
"""

import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from vdev.memory.order import store_fence

__all__ = ["PageMarks"]


class PageMarks:
    """One mark per page, private or shared through a memfd.

    `marks` is the live uint8 array, 0 for clean.
    """

    def __init__(self, page_count: int, fd: int | None = None) -> None:
        self.page_count = page_count
        self._map: Any = mmap.mmap(-1 if fd is None else fd, max(page_count, 1))
        self.marks: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)[:page_count]

    @classmethod
    def create_shared(cls, page_count: int) -> tuple["PageMarks", int]:
        """Return marks in a new memfd, and its file descriptor for another process to map."""
        fd = os.memfd_create("vdev-page-marks", os.MFD_CLOEXEC)
        os.ftruncate(fd, max(page_count, 1))
        return cls(page_count, fd), fd

    def mark(self, first: int, end: int) -> None:
        """Mark the pages from `first` up to but not including `end`, after their data was stored."""
        store_fence()
        self.marks[first:end] = 1

    def mark_pages(self, pages: npt.NDArray[np.int64]) -> None:
        """Mark each of `pages`, after their data was stored."""
        store_fence()
        self.marks[pages] = 1
