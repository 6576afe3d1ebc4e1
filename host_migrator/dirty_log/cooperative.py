"""The dirty log that the writers keep themselves: one byte per page in a map that all of them share."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vdev.memory import PageMarks, PageRanges
from vdev.memory.order import full_fence

__all__ = ["CooperativeDirtyLog"]

_LEAF_SIZE = 512
_LEAVES_PER_PART = 512


class CooperativeDirtyLog:
    """Reads and clears `PageMarks`, which guest and host set after each store."""

    name = "cooperative"
    deferred = False

    def __init__(self, marks: PageMarks) -> None:
        self._marks = marks

    def start(self) -> None:
        """Clear all marks."""
        for _ in self.take():
            pass

    def take(self) -> Iterator[PageRanges]:
        """Yield the marked pages part by part, and clear their marks."""
        marks = self._marks.marks
        whole = len(marks) - len(marks) % _LEAF_SIZE
        leaves = marks[:whole].reshape(-1, _LEAF_SIZE)
        # A wide look first: most of a large guest is clean, and finding single marks costs more per byte.
        written = np.flatnonzero(np.bitwise_or.reduce(leaves.view(np.uint64), axis=1))
        for start in range(0, len(written), _LEAVES_PER_PART):
            numbers = written[start : start + _LEAVES_PER_PART]
            copy = leaves[numbers]
            eights = np.flatnonzero(copy.view(np.uint64))
            row, column = np.nonzero(copy.reshape(-1, 8)[eights])
            within = (eights[row] << 3) + column
            yield self._clear(numbers[within // _LEAF_SIZE] * _LEAF_SIZE + within % _LEAF_SIZE)
        if len(rest := np.flatnonzero(marks[whole:])):
            yield self._clear(rest + whole)
        # The clearing must be visible before any page is read, or a mark set in between could be lost.
        full_fence()

    def _clear(self, seen: npt.NDArray[np.int64]) -> PageRanges:
        # Only marks that were seen are cleared: one that is set meanwhile belongs to the next take.
        self._marks.marks[seen] = 0
        return PageRanges.of_pages(seen)

    def clear(self, ranges: PageRanges) -> None:
        """Cleared they were by `take`."""

    def stop(self) -> None:
        """Nothing to give up; writers may go on setting marks."""
