"""The front end's dirty log: a bit for each 4 KiB of guest-physical address space, set after the device wrote there."""

import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spec.vhost_user import LOG_PAGE_SIZE
from vdev.errors import FrontEndViolation
from vdev.memory import PAGE_SIZE, FileBacking, GuestMemory, PageMarks
from vdev.memory.atomic import atomic_or

__all__ = ["DirtyBitmap", "UsedRingAlias"]

assert LOG_PAGE_SIZE == PAGE_SIZE
_CLAUSE = "Migration"


class UsedRingAlias(NamedTuple):
    """A used ring that is logged at another address than its own: guest-physical addresses and bytes."""

    address: int
    size: int
    log: int

    def is_written(self, first: int, end: int) -> bool:
        """Say whether one of the page frames from `first` to `end` holds some of it."""
        return first * PAGE_SIZE < self.address + self.size and self.address < end * PAGE_SIZE

    @property
    def log_frames(self) -> tuple[int, int]:
        """The page frames to mark instead."""
        return self.log // PAGE_SIZE, (self.log + self.size - 1) // PAGE_SIZE + 1


class DirtyBitmap(PageMarks):
    """The log in a file that the front end sent, `size` bytes from `offset` on. It has no `marks` of its own.

    The other side clears what it read, so a bit is set by an atomic OR; a byte of ones is stored whole, which says the
    same. `also` gets the same marks. Raises FrontEndViolation, and closes `fd`, for a file that does not hold the log.
    """

    def __init__(self, memory: GuestMemory, fd: int, size: int, offset: int, also: PageMarks | None = None) -> None:
        super().__init__(0)
        self._memory = memory
        self._also = also
        self._size = size
        self._skipped = offset % PAGE_SIZE
        try:
            if not 0 < size <= os.fstat(fd).st_size - offset:
                raise FrontEndViolation(_CLAUSE, f"a log of {size} bytes at {offset:#x} is not inside its file")
            self._backing = FileBacking(fd, size + self._skipped, offset - self._skipped)
        except (OSError, ValueError, OverflowError) as error:
            os.close(fd)
            raise FrontEndViolation(_CLAUSE, f"the log cannot be mapped: {error}") from error
        except FrontEndViolation:
            os.close(fd)
            raise
        self._bytes: npt.NDArray[np.uint8] = self._backing.data[self._skipped :]
        self._address = self._backing.host_address + self._skipped
        self.aliases: list[UsedRingAlias] = []

    def check_covers(self, end: int) -> None:
        """Raise FrontEndViolation unless the log reaches up to guest-physical address `end`."""
        if end > self._size * 8 * PAGE_SIZE:
            raise FrontEndViolation(_CLAUSE, f"a log of {self._size} bytes does not reach up to {end:#x}")

    def mark(self, first: int, end: int) -> None:
        """Mark the pages from `first` up to but not including `end`."""
        if self._also is not None:
            self._also.mark(first, end)
        if first >= end:
            return
        low, high = self._frame_of(first), self._frame_of(end - 1) + 1
        if high - low == end - first:
            self._mark_frames(low, high)
        else:
            for _, part, part_end in self._memory.page_spans(first, end):
                low = self._frame_of(part)
                self._mark_frames(low, low + part_end - part)

    def mark_pages(self, pages: npt.NDArray[np.int64]) -> None:
        """Mark each of `pages`."""
        if self._also is not None:
            self._also.mark_pages(pages)
        if not len(pages):
            return
        frames = np.unique(self._memory.addresses_of(pages) // np.uint64(PAGE_SIZE)).astype(np.int64)
        first_of_byte = np.flatnonzero(np.diff(frames >> 3, prepend=-1))
        masks = np.bitwise_or.reduceat((1 << (frames & 7)).astype(np.uint8), first_of_byte)
        self._or(zip((frames[first_of_byte] >> 3).tolist(), masks.tolist(), strict=True))
        self._mark_aliases(int(frames[0]), int(frames[-1]) + 1)

    def _frame_of(self, page: int) -> int:
        return self._memory.address_of(page) // PAGE_SIZE

    def _mark_frames(self, first: int, end: int) -> None:
        self._mark_range(first, end)
        self._mark_aliases(first, end)

    def _mark_aliases(self, first: int, end: int) -> None:
        for alias in self.aliases:
            if alias.is_written(first, end):
                self._mark_range(*alias.log_frames)

    def _mark_range(self, first: int, end: int) -> None:
        low, high = first >> 3, end >> 3
        if low == high:
            self._or([(low, (1 << (end & 7)) - (1 << (first & 7)))])
            return
        ends = [(low, 0xFF & -(1 << (first & 7)))]
        if end & 7:
            ends.append((high, (1 << (end & 7)) - 1))
        self._bytes[low + 1 : min(high, self._size)] = 0xFF
        self._or(ends)

    def _or(self, places: Iterable[tuple[int, int]]) -> None:
        assert atomic_or is not None
        for place, mask in places:
            # What lies outside was refused before, or became RAM since: then the next check says so.
            if place < self._size:
                atomic_or(self._address + place, mask)

    def close(self) -> None:
        """Close the file."""
        self._backing.close()
