"""A model of KVM's manual protect (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 with INITIALLY_SET), as QEMU uses it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vdev.memory import PageMarks, PageRanges
from vdev.memory.order import full_fence

__all__ = ["DeferredClearLog"]


class DeferredClearLog:
    """Page marks that `take` only copies. A page is protected again later: with its chunk, by `clear`.

    Nothing is protected at the start, so every mark is set. `clear` touches whole chunks of `chunk_pages` pages (a
    power of two, as QEMU has it), and of those only marks that the last `take` saw: others are of writes that nobody
    was told of. So a chunk is cleared once for each take, at the first of its pages that is sent or hinted.
    """

    name = "deferred-clear"
    deferred = True

    def __init__(self, marks: PageMarks, chunk_pages: int = 64) -> None:
        if chunk_pages < 1 or chunk_pages & (chunk_pages - 1):
            raise ValueError(f"chunks of {chunk_pages} pages, which is no power of two")
        self.chunk_pages = chunk_pages
        self.seen: npt.NDArray[np.uint8] = np.zeros(marks.page_count, np.uint8)
        """Marks that the last take saw and that were not cleared since."""
        self._marks = marks

    def start(self) -> None:
        """Have every page count as written."""
        self._marks.mark(0, self._marks.page_count)
        self.seen[:] = 0

    def take(self) -> Iterator[PageRanges]:
        """Yield the marked pages; their marks stay, until `clear`."""
        self.seen[:] = self._marks.marks
        yield PageRanges.of_mask(self.seen.view(np.bool_))

    def clear(self, ranges: PageRanges) -> None:
        """Clear the marks of the chunks that the pages of `ranges` are in, as far as the last take saw them."""
        size = self.chunk_pages
        for first, end in zip(ranges.first.tolist(), ranges.end.tolist(), strict=True):
            if first < end:
                chunk = slice(first // size * size, -(-end // size) * size)
                self._marks.marks[chunk][self.seen[chunk] != 0] = 0
                self.seen[chunk] = 0
        # The clearing must be visible before any page is read, or a mark set in between could be lost.
        full_fence()

    def stop(self) -> None:
        """Nothing to give up; writers may go on setting marks."""
